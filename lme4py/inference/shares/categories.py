"""Shares of the variance of one category beside the baseline: the design of its own linear predictor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.design.design import CONDITIONAL, Design, TermPlan
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit

__all__ = ["category_component", "category_design", "labels_of", "split_category"]


def labels_of(fit: Fit) -> tuple[str, ...]:
    """Labels of the categories beside the baseline; one empty label where there is one linear predictor."""
    return fit.family.offset_labels(fit.response)[1:] if fit.family.is_joint else ("",)


def category_component(component: str, label: str) -> str:
    """``"B: _cons|g"``."""
    return f"{label}: {component}" if label else component


def split_category(fit: Fit, component: str) -> tuple[str, str]:
    """The category and the rest of the name of a component.

    Parameters
    ----------
    fit : Fit
    component : str

    Raises
    ------
    OptionError
        No category, where there are several.

    Returns
    -------
    tuple of (str, str)
        "" and the component itself for models of one linear predictor.
    """
    labels = labels_of(fit)
    if labels == ("",) or not isinstance(component, str):
        return "", component
    for label in sorted(labels, key=len, reverse=True):
        if component == label:
            return label, "_cons"
        for mark in (": ", ":"):
            if component.startswith(label + mark):
                return label, component.removeprefix(label + mark)
        if component.startswith(label + "|"):
            return label, "_cons" + component.removeprefix(label)
    if len(labels) == 1:
        return labels[0], component
    known = [category_component("_cons", label) for label in labels]
    raise OptionError(
        f"component={component!r} names no category, and each of {', '.join(labels)} has an intraclass correlation of "
        f"its own.{did_you_mean(component, known)} Use one of {', '.join(map(repr, known))}; result.icc_table() has a "
        "row for each."
    )


def category_design(fit: Fit, label: str) -> Design:
    """The design with the linear predictor of one category as the conditional one; others are further parts.

    Parameters
    ----------
    fit : Fit
    label : str
        "" for models of one linear predictor.
    """
    design = fit.design
    if not label:
        return design
    d = labels_of(fit).index(label)
    home, n = fit.family.homes[d], design.n_obs
    terms = tuple(
        replace(
            term,
            columns=tuple(column.partition(": ")[2] if part == home else column for column, part in _parts(term)),
            parts=tuple(CONDITIONAL if part == home else f"other {part}" for _, part in _parts(term)),
        )
        for term in design.terms
    )
    return design.with_predictor(X=np.ascontiguousarray(design.X[d * n : (d + 1) * n]), terms=terms)


def _parts(term: TermPlan) -> list[tuple[str, str]]:
    """Name and linear predictor of each column."""
    return list(zip(term.columns, term.column_parts, strict=True))
