"""Other responses and fewer groups: simulation, refits one by one and in batches."""
