"""What is asked of a fitted model of lme4py: each returns the numbers that are compared with the other programs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from lme4py import Margins

# Blocks of numbers: within a block the largest one is the measure of differences.
Values = list[list[float]]


def profile(result: Any, detail: str) -> Values:
    """95 % limits of every parameter by profile likelihood: one block for each."""
    table = result.conf_int(method="profile", parm="all")
    values: Values = table[["lower", "upper"]].to_numpy().tolist()
    return values


def bootstrap(result: Any, detail: str) -> Values:
    """Standard deviations of the fixed effects over parametric replicates of all parameters."""
    made = result.bootstrap(int(detail.split(",")[0]), seed=1, progress=False)
    return [[float(spread)] for spread in made.replicates[list(result.params.index)].std()]


def kenward_roger(result: Any, detail: str) -> Values:
    """F and its degrees of freedom: all coefficients but the intercept are zero."""
    test = result.contest([name for name in result.params.index if name != "Intercept"], ddf="kenward-roger")
    return [[float(test["F"].iloc[0])], [float(test["den_df"].iloc[0])]]


def grid(result: Any, detail: str) -> Values:
    """Average predictions on a grid, and their standard errors."""
    parts = [re.split("[=:]", part) for part in detail.split(";")]
    values = {name: np.linspace(float(first), float(last), int(count)) for name, first, last, count in parts}
    frame = Margins.linear_scale(result).predict(atexog=values).to_frame()
    return [frame["estimate"].tolist(), frame["std_error"].tolist()]


def influence(result: Any, detail: str) -> Values:
    """Change of each fixed effect when a row is left out and the model fitted again."""
    values: Values = result.influence(method="refit").dfbeta.to_numpy().T.tolist()
    return values


ACTIONS = {f.__name__: f for f in (profile, bootstrap, kenward_roger, grid, influence)}
