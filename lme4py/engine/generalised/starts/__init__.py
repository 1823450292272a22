"""Where a descent of a generalised model begins."""
