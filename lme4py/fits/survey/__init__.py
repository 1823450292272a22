"""Models with sampling weights of rows and of groups: pseudo-likelihood, sandwich and replicates."""
