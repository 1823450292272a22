"""Generalised linear mixed models: the steps, the fit, and what inference asks of it."""
