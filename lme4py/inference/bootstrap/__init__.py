"""Bootstrap samples of every kind."""
