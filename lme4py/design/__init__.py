"""From a parsed formula and data to the arrays of a mixed model: y, X and the random-effects terms."""

from lme4py.design.build import NaAction, lformula
from lme4py.design.design import Design, RandomTerm
from lme4py.design.recipe import Recipe, new_fixed, new_random

__all__ = ["Design", "NaAction", "RandomTerm", "Recipe", "lformula", "new_fixed", "new_random"]
