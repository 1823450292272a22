"""Generalised and ordinal models: conditional mode, Laplace, quadrature, start, solve."""
