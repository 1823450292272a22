"""Plots, one style."""
