"""Ordered categories: thresholds, the log-probabilities between them, and effects on them."""
