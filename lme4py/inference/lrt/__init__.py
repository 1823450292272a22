"""Likelihood-ratio tests and their null distributions."""
