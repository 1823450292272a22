"""Tables, renderers, tidy data frames and plots of a fit."""
