"""A fitted model as one self-contained page."""
