"""Shares of the variance: ICC and R²."""
