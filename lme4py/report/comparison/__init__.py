"""Models side by side, fits of statsmodels among them, as one table for a paper."""
