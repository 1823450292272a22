"""Unordered categories: the multinomial logit, and how its responses are read."""
