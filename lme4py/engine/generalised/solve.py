"""From the data to the best minimum of the criterion of a generalised linear mixed model that was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lme4py.engine.generalised.descent import Descents, GlmmOptimum
from lme4py.engine.generalised.laplace import Laplace
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.search import Search
from lme4py.engine.optimise import Control
from lme4py.linalg.types import FloatArray

__all__ = ["solve_glmm"]


def solve_glmm(
    finder: ModeFinder,
    start: Mapping[str, Any] | None,
    control: Control,
    refine: Callable[[Laplace], tuple[float, FloatArray]] | None = None,
    profiled: bool = False,
    thorough: bool = True,
) -> GlmmOptimum:
    """Minimise the criterion: descend from the start, and from others where there is reason to.

    Parameters
    ----------
    finder : ModeFinder
    start : mapping or None
        Fields of the start that are given: theta, beta, lam in the engine's columns.
    control : Control
    refine : callable, optional
        For nAGQ > 1.
    profiled : bool
        nAGQ = 0.
    thorough : bool
        False for one of many fits to similar data, such as those of a bootstrap: fewer other starts.
    """
    search = Search(Descents(finder, control, refine, profiled), thorough)
    return search.best(search.usual if start is None else replace(search.usual, **start))
