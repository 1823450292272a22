"""Linear mixed models: the modular steps, the fit, and what inference asks of it."""
