"""Designs with groups drawn with replacement, or left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.design.design import Design, RandomTerm
from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["default_group", "group_codes", "is_nested", "resampled_design", "without_level"]


def group_codes(design: Design, group: str) -> IntArray:
    """Level of each row in a grouping factor."""
    return next(term.codes for term in design.terms if term.group == group)


def is_nested(inner: IntArray, outer: IntArray) -> bool:
    """True when every level of `inner` lies in one level of `outer`."""
    home = np.full(int(inner.max()) + 1, -1)
    home[inner] = outer
    return bool((home[inner] == outer).all())


def default_group(design: Design, group: str | None, required: bool) -> str:
    """The grouping factor that is resampled.

    Parameters
    ----------
    design : Design
    group : str or None
        Checked when given; otherwise the factor in which all others are nested.
    required : bool
        Refuse crossed factors without a choice; False takes the factor with the most levels.
    """
    known = list(design.n_groups)
    if not known:
        raise OptionError(
            "the model has no grouping factor, and so no groups to draw or to leave out; of a bootstrap use "
            "type='parametric', and limits of type='percentile'."
        )
    if group is not None:
        if group not in known:
            hint = did_you_mean(str(group), known)
            raise OptionError(f"group={group!r} is no grouping factor.{hint} They are {', '.join(known)}.")
        return group
    for name in sorted(known, key=lambda name: design.n_groups[name]):
        outer = group_codes(design, name)
        if all(is_nested(group_codes(design, other), outer) for other in known):
            return name
    if required:
        raise OptionError(
            f"the grouping factors {', '.join(known)} are crossed; say with `group=` which one's levels are to be "
            "drawn."
        )
    return known[0]


def resampled_design(design: Design, codes: IntArray, rng: np.random.Generator) -> Design:
    """As many groups as there are, drawn with replacement; every draw counts as a new group.

    Parameters
    ----------
    design : Design
    codes : ndarray of int, shape (n,)
        Groups; factors nested in them get new levels in every draw, crossed ones keep theirs.
    rng : Generator
    """
    levels = int(codes.max()) + 1
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=levels)
    starts = np.concatenate([[0], np.cumsum(counts)])
    chosen = rng.integers(0, levels, levels)
    rows = np.concatenate([order[starts[c] : starts[c + 1]] for c in chosen])
    draw = np.repeat(np.arange(levels), counts[chosen])
    return _of_rows(design, rows, codes, draw)


def without_level(design: Design, codes: IntArray, level: int) -> Design:
    """The design without the rows of one group."""
    return _of_rows(design, np.flatnonzero(codes != level), codes, None)


def _of_rows(design: Design, rows: IntArray, codes: IntArray, draw: IntArray | None) -> Design:
    def take(values: FloatArray | None) -> FloatArray | None:
        return None if values is None else values[rows]

    return replace(
        design,
        y=design.y[rows],
        predictors=tuple(
            replace(
                predictor,
                X=predictor.X[_tall(rows, design.n_obs, predictor.X)],
                terms=tuple(_term(term, rows, codes, draw) for term in predictor.terms),
                offset=take(predictor.offset),
            )
            for predictor in design.predictors
        ),
        weights=take(design.weights),
        response=None if design.response is None else replace(design.response.take(rows), notes=design.response.notes),
        keep=np.ones(rows.size, dtype=bool),
        row_labels=None,
        labelled=False,
        source=None,
    )


def _tall(rows: IntArray, n: int, X: FloatArray) -> IntArray:
    """The same rows of every one of several predictors that stand one below the other."""
    return (n * np.arange(X.shape[0] // n)[:, None] + rows).ravel() if X.shape[0] > n else rows


def _term(term: RandomTerm, rows: IntArray, codes: IntArray, draw: IntArray | None) -> RandomTerm:
    old = term.codes[rows]
    if term.relation is not None:
        # Related levels stay, with rows or without.
        return replace(term, codes=old, values=term.values[rows])
    key = old if draw is None or not is_nested(term.codes, codes) else draw * term.n_levels + old
    found, new = np.unique(key, return_inverse=True)
    return replace(
        term, levels=tuple(range(found.size)), codes=new.reshape(-1).astype(np.intp), values=term.values[rows]
    )
