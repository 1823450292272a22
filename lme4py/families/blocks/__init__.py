"""Rows of common families a block at a time, so that what a dozen passes work on stays in the cache."""
