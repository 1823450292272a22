"""Generalised models whose crossed effects have no factor: conjugate gradients and random probes."""
