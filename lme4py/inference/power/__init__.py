"""Tests of simulated responses: how often they reject."""
