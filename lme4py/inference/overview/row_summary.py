"""What the summary of a fit says about its rows, in a few numbers that can outlive the rows themselves."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lme4py.errors import Lme4Error, Lme4Warning
from lme4py.fits.derived import derived
from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.lrt.lrt import lrtest
from lme4py.inference.shares.r2 import r_squared

if TYPE_CHECKING:
    from lme4py.fits.base import Fit
    from lme4py.inference.lrt.lrt import LRTestResult

__all__ = ["RowSummary", "no_random_test", "row_summary"]


@dataclass(frozen=True, slots=True)
class RowSummary:
    """Numbers about the rows of a fit.

    Attributes
    ----------
    residual_quartiles : tuple of float, or None
        Minimum, quartiles and maximum of the scaled (generalised models: Pearson) residuals; None for ordinal models.
    group_rows : dict of str to (int, float, int)
        Smallest, mean and largest number of rows of a level, by grouping factor.
    weight_range : (float, float), or None
        Smallest and largest prior weight.
    shares : (float, float, float), or None
        Marginal and conditional R squared, and the share of the random effects in what the fixed ones leave (the
        adjusted intraclass correlation); None where the model has none.
    """

    residual_quartiles: tuple[float, ...] | None
    group_rows: dict[str, tuple[int, float, int]]
    weight_range: tuple[float, float] | None
    shares: tuple[float, float, float] | None = None


@derived
def row_summary(fit: Fit) -> RowSummary:
    """The numbers, computed once for each fit.

    Parameters
    ----------
    fit : Fit
    """
    streamed = fit.design.streamed
    if streamed is not None:
        return RowSummary(None, dict(streamed.group_rows), streamed.weight_range)
    rows = {}
    for term in fit.design.terms:
        if term.smooth:
            continue
        counts = np.bincount(term.codes, minlength=term.n_levels)
        rows[term.group] = (int(counts.min()), float(counts.mean()), int(counts.max()))
    weights = fit.design.weights
    limits = None if weights is None else (float(np.min(weights)), float(np.max(weights)))
    return RowSummary(_quartiles(fit), rows, limits, _shares(fit))


def _shares(fit: Fit) -> tuple[float, float, float] | None:
    if fit.recession is not None or not fit.design.terms:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Lme4Warning)
            found = r_squared(fit)
    except Lme4Error:
        return None
    rest = found.var_random + found.var_residual
    shares = (found.marginal, found.conditional, found.var_random / rest if rest > 0.0 else np.nan)
    return shares if np.isfinite(shares).all() else None


def _quartiles(fit: Fit) -> tuple[float, ...] | None:
    if fit.categories or not fit.family.mean_is_link:
        return None
    found = np.quantile(residual_values(fit, "scaled"), [0.0, 0.25, 0.5, 0.75, 1.0])
    return tuple(float(value) for value in found)


@derived
def no_random_test(fit: Fit) -> LRTestResult | None:
    """The likelihood-ratio test against the model without random effects, computed once for each fit.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    LRTestResult, or None where there is no such test
    """
    try:
        return lrtest(None, fit)
    except Lme4Error:
        return None
