"""Wald and F tests of fixed effects."""
