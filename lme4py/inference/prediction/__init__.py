"""Predictions and their intervals."""
