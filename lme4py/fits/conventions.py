"""How a fit is spoken of: names, and what its results use where a call does not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FORMULA", "Conventions"]


@dataclass(frozen=True, slots=True)
class Conventions:
    """What the front door that made a fit wants from its results.

    Attributes
    ----------
    stata : bool
        Results of the keyword front door: the intercept is ``_cons``, the summary has Stata's order.
    alpha : float
        One minus the confidence level where a method is not given one.
    ddf : str or None
        Degrees of freedom where a method is not given any; None is the default of the kind of model.
    vce : str or None
        None for the covariance of the model, "robust", or the column whose levels are the clusters.
    clusters : pandas.Series of n_data labels, or None
        Values of that column; None is the outermost grouping factor.
    """

    stata: bool = False
    alpha: float = 0.05
    ddf: str | None = None
    vce: str | None = None
    clusters: Any = None


FORMULA = Conventions()
"""Those of the formula front door."""
