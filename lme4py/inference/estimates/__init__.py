"""Tables of what was estimated."""
