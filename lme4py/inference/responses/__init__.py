"""Several responses: their correlations, and whether effects are the same."""
