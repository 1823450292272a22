"""Linear models with correlated or unequal residuals: the fit, and what inference asks of it."""
