"""Residuals, influence, checks, other optimisers."""
