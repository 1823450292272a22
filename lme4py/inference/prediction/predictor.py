"""Linear predictors of rows, and how much their random effects vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.beside.by_category import beside_baseline, check_labels, offset_arguments
from lme4py.design.beside.given import number_column
from lme4py.errors import OptionError
from lme4py.families.ordered.ordinal import Ordinal
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import Left, RowArrays
from lme4py.inference.estimates.limits import limit_mean, recession_of, warn_rows
from lme4py.linalg.types import FloatArray

__all__ = [
    "at_limits",
    "family_of",
    "included_variance",
    "linear_predictor",
    "offset_column",
    "random_variance",
    "variance_slopes",
]


def offset_column(
    fit: Fit, frame: Frame | None, offset: str | ArrayLike | Mapping[str, Any] | None
) -> Column | FloatArray | None:
    """The `offset` argument of a prediction on the rows of new data; None where there is none.

    Of unordered categories with offsets of their own it is an array, (n, D).

    Parameters
    ----------
    fit : Fit
    frame : Frame or None
    offset : str, number, array_like, mapping of category to such, or None
    """
    if offset is None:
        return None
    if frame is None:
        raise OptionError("`offset` is for new data; the rows of the fit have its own. Give data=, or leave it out.")
    recipe = fit.design.recipe
    arguments = offset_arguments(offset)
    if list(arguments) != ["offset"]:
        labels = check_labels(arguments, fit.family.offset_labels(fit.data))
        read = {
            name: number_column(v, name, frame, recipe.functions, dict(recipe.state)) for name, v in arguments.items()
        }
        return beside_baseline([read[name].values if name in read else np.zeros(frame.n_rows) for name in labels])
    return number_column(offset, "offset", frame, recipe.functions, dict(recipe.state))


def at_limits(fit: Fit, rows: RowArrays, parts: list[FloatArray], type: str) -> list[FloatArray]:
    """Predictions without a finite linear predictor: their limits, without an interval."""
    recession = recession_of(fit)
    if recession is None:
        return parts
    limits = recession.limits_of(rows.X)
    warn_rows(recession, limits, interval=len(parts) > 1)
    away = limits != 0.0
    ends = limits if type == "linear" else limit_mean(fit, limits)
    return [np.where(away, ends if i == 0 else np.nan, part) for i, part in enumerate(parts)]


def linear_predictor(fit: Fit, rows: RowArrays) -> FloatArray:
    """x'beta + offset plus the conditional modes of the terms that `rows` has groups for, shape (n,)."""
    eta: FloatArray = rows.X @ fit.beta + rows.offset
    for t, codes in rows.codes.items():
        known = codes >= 0
        if known.all():
            eta = eta + np.einsum("nk,nk->n", rows.values[t], fit.modes[t][codes])
        else:
            eta[known] += np.einsum("nk,nk->n", rows.values[t][known], fit.modes[t][codes[known]])
    return eta


def random_variance(fit: Fit, rows: RowArrays) -> FloatArray:
    """z'Sigma z summed over the terms without groups in `rows`, and over rows of unknown groups, shape (n,).

    At places that the fit did not have also what an effect there varies given those at known ones.
    """
    total = np.zeros(rows.n)
    for t, Z in rows.values.items():
        part = fit.design.terms[t].level_variance * np.einsum("na,ab,nb->n", Z, fit.covariances[t], Z)
        total += np.where(rows.codes[t] < 0, part, 0.0) if t in rows.codes else part
        if t in rows.left:
            total += fit.design.terms[t].level_variance * rows.left[t].variance
    return total


def included_variance(fit: Fit, rows: RowArrays) -> FloatArray:
    """z'Sigma z of the terms whose groups `rows` has, where a group is unknown, shape (n,)."""
    values = {t: Z for t, Z in rows.values.items() if t in rows.codes}
    return random_variance(fit, replace(rows, values=values))


def variance_slopes(fit: Fit, rows: RowArrays) -> FloatArray:
    """Derivatives of z'Sigma z, summed over all terms, in theta, shape (n, m)."""
    # From the design, which slim results have too.
    structures = fit.design.structures
    columns: list[FloatArray] = []
    for t, (structure, theta) in enumerate(zip(structures.each, structures.split(fit.theta), strict=True)):
        # A root of the size of the levels' variance scales both sides.
        Z = np.sqrt(fit.design.terms[t].level_variance) * rows.values[t]
        own = [np.einsum("na,ab,nb->n", Z, change, Z) for change in structure.covariance_tangents(theta)]
        columns += own if t not in rows.left else _with_left(own, Z, fit.covariances[t], rows.left[t])
    return np.column_stack(columns) if columns else np.zeros((rows.n, 0))


def _with_left(own: list[FloatArray], Z: FloatArray, covariance: FloatArray, left: Left) -> list[FloatArray]:
    """Derivatives in theta of z'Sigma z and what is left beside it, z a function of theta."""
    through = 2.0 * np.einsum("nia,ab,nb->in", left.moves, covariance, Z)
    return [a + b + c for a, b, c in zip(own, left.slopes.T, through, strict=True)]


def family_of(fit: Fit) -> Ordinal:
    """The family of an ordinal fit."""
    if not isinstance(fit.family, Ordinal):
        raise OptionError(f"this needs a model of ordered categories (clmm), and this model is {fit.family.name}.")
    return fit.family
