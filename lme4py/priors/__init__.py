"""Prior densities of variances and coefficients, which penalise a likelihood: arrays in, numbers out."""
