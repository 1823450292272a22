"""Criteria of rows that go by in parts, or pass by pass."""
