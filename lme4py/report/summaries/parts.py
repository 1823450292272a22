"""What the tables of linear and generalised models take from a fit: one answer for both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lme4py.fits.base import Fit
from lme4py.inference.estimates.coefficients import two_sided
from lme4py.inference.estimates.variance import VarianceEntry, variance_entries

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "entries",
    "entry_label",
    "family_label",
    "is_ordinal",
    "method_label",
    "threshold_table",
]


def entries(fit: Fit) -> list[VarianceEntry]:
    """Variances and covariances of the random effects; the residual variance last, where the model has one.

    Parameters
    ----------
    fit : Fit
    """
    return list(variance_entries(fit))


def entry_label(entry: VarianceEntry) -> str:
    """What `VarianceEntry.sdcor` is, in words: a standard deviation or a correlation.

    >>> entry_label(VarianceEntry(0, "Subject", "Days", None, 35.07, 5.92))
    'SD (Days | Subject)'
    >>> entry_label(VarianceEntry(0, "Subject", "Intercept", "Days", 9.6, 0.07))
    'Cor. (Intercept, Days | Subject)'
    """
    if entry.name1 is None:
        return "SD (Residual)"
    if entry.name2 is None:
        return f"SD ({entry.name1} | {entry.group})"
    return f"Cor. ({entry.name1}, {entry.name2} | {entry.group})"


def family_label(fit: Fit) -> str:
    """Family and link: "poisson (log)"."""
    return f"{fit.family.name} ({fit.family.link.name})"


def method_label(fit: Fit) -> str:
    """How the model was fitted: "REML", "ML", "penalised ML", "ML, Laplace", "ML, nAGQ = 9"."""
    how = "REML" if fit.reml else "ML"
    how = f"penalised {how}" if fit.penalised else how
    if fit.approximation is None:
        return how
    points = fit.approximation.nAGQ
    return f"{how}, Laplace" if points == 1 else f"{how}, nAGQ = {points}"


def is_ordinal(fit: Fit) -> bool:
    """True for a model of an ordered response."""
    return fit.family.has_thresholds


def threshold_table(fit: Fit) -> pd.DataFrame:
    """Thresholds of an ordinal model with z tests: estimate, std_error, df, statistic, p_value; no rows for others.

    Parameters
    ----------
    fit : Fit
    """
    import pandas as pd

    names = [str(name) for name in getattr(fit, "threshold_names", None) or ()]
    estimate = np.asarray(fit.threshold_estimates if names else [], dtype=np.float64)
    error = np.asarray(fit.threshold_se if names else [], dtype=np.float64)
    df = np.full(estimate.size, np.inf)
    # A threshold that its structure fixes at zero has neither an error nor a test.
    statistic = np.divide(estimate, error, out=np.zeros_like(estimate), where=error != 0.0)
    columns = {
        "estimate": estimate,
        "std_error": error,
        "df": df,
        "statistic": statistic,
        "p_value": two_sided(statistic, df),
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="term", dtype=object))
