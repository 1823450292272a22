"""Models of several responses in a row of the data."""
