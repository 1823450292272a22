"""Normalising sums without a closed form."""
