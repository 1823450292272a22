"""Rows of a fit: new ones, responses, clusters of rows, and fits without their rows."""
