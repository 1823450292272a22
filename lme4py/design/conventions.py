"""How results speak: names, and what they use where a call does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lme4py.design.design import Design

__all__ = ["CONSTANT", "INTERCEPTS", "Conventions", "with_conventions"]

CONSTANT = "_cons"
"""Name of the intercept in results of the keyword front door."""

INTERCEPTS = frozenset(("Intercept", CONSTANT))
"""Names that an intercept can have in a design."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """What the front door that made a design wants from its results.

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


def with_conventions(design: Design, conventions: Conventions) -> Design:
    """The design with other conventions, its intercepts named as they ask.

    Parameters
    ----------
    design : Design
    conventions : Conventions

    """
    if not conventions.stata:
        return replace(design, conventions=conventions)
    terms = tuple(replace(term, columns=_renamed(term.columns)) for term in design.terms)
    names = _renamed(design.x_names)
    return replace(design, conventions=conventions).with_predictor(names=names, terms=terms)


def _renamed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(CONSTANT if name == "Intercept" else name for name in names)
