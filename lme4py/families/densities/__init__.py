"""Densities of responses in all their variables, with partial derivatives; see `lme4py.families.densities.base`."""
