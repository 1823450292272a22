"""Summaries and tidy tables."""
