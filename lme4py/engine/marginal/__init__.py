"""Linear models by the covariance of their rows, which is block diagonal by independent units."""
