"""Smooths in formulas: bases of splines, products of them, and the columns that a mixed model has of them."""
