"""Means, slopes and contrasts as functions of the parameters."""
