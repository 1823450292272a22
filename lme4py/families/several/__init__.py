"""A family for each of several responses."""
