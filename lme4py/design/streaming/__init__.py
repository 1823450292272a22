"""Designs of rows that are not in memory: a survey of the source, and what the passes need."""
