"""Predictions, slopes and contrasts of fitted models."""
