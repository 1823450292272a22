"""A problem of the engine out of a design: columns, units, and what a term of many times is made of."""
