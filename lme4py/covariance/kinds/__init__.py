"""The covariance structures that have names, one module for each family of them."""
