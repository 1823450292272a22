"""Designs whose linear predictors stand one below the other: a category each, with coefficients of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lme4py.covariance import find_structure
from lme4py.design.design import Design, RandomTerm
from lme4py.design.recipe import BarRecipe
from lme4py.errors import FormulaError
from lme4py.linalg.types import FloatArray

__all__ = ["joint_design", "own_columns", "stacked_columns"]

# Structures that hold whatever the columns are called.
_STRUCTURES = ("us", "diag", "homdiag", "cs", "homcs")


def joint_design(design: Design, labels: Sequence[str], homes: Sequence[str]) -> Design:
    """The design with a copy of every column for each linear predictor.

    Parameters
    ----------
    design : Design
    labels : sequence of str
        What the predictors are called in names of coefficients: "B: x".
    homes : sequence of str
        Their own names.

    Raises
    ------
    FormulaError
        A covariance structure that does not hold across them.
    """
    D = len(labels)
    names = tuple(f"{label}: {name}" for label in labels for name in design.x_names)
    double = set(re.findall(r"\|\|\s*`?([\w.]+)", design.formula))
    terms = tuple(_term(term, labels, homes, term.group in double) for term in design.terms)
    bars = tuple(_bar(bar, D) for bar in design.recipe.bars)
    whole = design.with_predictor(
        X=stacked_columns(design.X, D),
        names=names,
        assign=design.assign * D,
        terms=terms,
        alias=None,
    )
    notes = design.notes if design.offset is None else (*design.notes, _offset_note(design, labels))
    return replace(whole, recipe=replace(design.recipe, bars=bars), notes=notes)


def stacked_columns(X: FloatArray, D: int) -> FloatArray:
    """Columns of D linear predictors that stand one below the other, (D n, D p), each with columns of its own.

    Parameters
    ----------
    X : ndarray, shape (n, p)
    D : int
    """
    if D == 1:
        return X
    wide: FloatArray = np.zeros((D * X.shape[0], D * X.shape[1]))
    for d in range(D):
        wide[d * X.shape[0] : (d + 1) * X.shape[0], d * X.shape[1] : (d + 1) * X.shape[1]] = X
    return wide


def own_columns(design: Design) -> FloatArray:
    """Columns that every one of the stacked linear predictors has, (n, p); X where there is one.

    Parameters
    ----------
    design : Design
    """
    return design.X[: design.n_obs, : design.X.shape[1] // design.n_stacked]


def _offset_note(design: Design, labels: Sequence[str]) -> str:
    """Which linear predictors the offset is a part of."""
    own = [one.what for one in design.recipe.by_category if one is not None]
    if not own:
        return (
            f"The offset is a part of the linear predictor of every category beside the baseline: {', '.join(labels)}."
        )
    shared = ", beside that of all" if design.recipe.offsets else ""
    return f"The linear predictors have the {', '.join(own)}{shared}, less that of the baseline."


def _term(term: RandomTerm, labels: Sequence[str], homes: Sequence[str], independent: bool) -> RandomTerm:
    structure, D, k = term.structure, len(labels), term.n_columns
    if structure.name not in _STRUCTURES or term.relation is not None:
        raise FormulaError(
            f"{term.label}: effects of several categories have the structures {', '.join(_STRUCTURES)}, with "
            "independent levels; write (1 | g), (1 || g) or diag(1 | g)."
        )
    kind = find_structure("diag") if structure.name == "us" and independent else type(structure)
    return replace(
        term,
        columns=tuple(f"{label}: {name}" for label in labels for name in term.columns),
        structure=kind.build(D * k, None),
        values=np.tile(term.values, D),
        parts=tuple(home for home in homes for _ in range(k)),
    )


def _bar(bar: BarRecipe, D: int) -> BarRecipe:
    return replace(bar, joined=(bar,) * D, n_columns=D * bar.n_columns) if D > 1 else bar
