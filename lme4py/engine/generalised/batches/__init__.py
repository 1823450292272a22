"""Generalised models of one scalar effect for many points or many responses at once, by arrays of (B, n)."""
