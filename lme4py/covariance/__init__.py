"""Covariance structures of random effects."""
