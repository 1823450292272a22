"""Which variances and coefficients the data tell apart, and which estimates are infinite."""
