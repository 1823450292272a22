"""Quadrature over the random effects, and how good the integral is."""
