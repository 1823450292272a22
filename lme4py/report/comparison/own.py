"""Columns of a comparison from fits of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.errors import Lme4Error
from lme4py.fits.base import Fit
from lme4py.inference.estimates.coefficients import coef_table, confidence_intervals
from lme4py.inference.estimates.dispersion import shown_dispersion
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.inference.shares.r2 import r_squared
from lme4py.report.comparison.column import Entry, ModelColumn
from lme4py.report.summaries.parts import entries, entry_label, family_label, method_label, threshold_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Choices", "own_column"]


@dataclass(frozen=True)
class Choices:
    """What a comparison was asked for.

    Attributes
    ----------
    alpha : float
        One minus the level of the limits.
    ddf, vcov : str or None
        As in `coef_table`; of linear models.
    exponentiate : bool
        exp of the coefficients of models with a log or logit link.
    """

    alpha: float = 0.05
    ddf: str | None = None
    vcov: str | None = None
    exponentiate: bool = False


def own_column(fit: Fit, choices: Choices) -> ModelColumn:
    """The column of a fit.

    Parameters
    ----------
    fit : Fit
    choices : Choices
    """
    ratio = choices.exponentiate and fit.family.link.ratio is not None
    ddf = choices.ddf if choices.ddf in fit.ddf_methods else None
    table = coef_table(fit, ddf, choices.vcov)
    limits = confidence_intervals(fit, choices.alpha, ddf=ddf, vcov=choices.vcov)
    fixed = _entries(table, limits)
    return ModelColumn(
        exponentiated_entries(fixed) if ratio else fixed,
        _thresholds(fit, choices.alpha),
        _random(fit),
        _facts(fit),
        fit.design.response_name,
        fit.reml,
        ratio,
    )


def exponentiated_entries(found: dict[str, Entry]) -> dict[str, Entry]:
    """exp of estimates and limits; standard errors by the delta method, p-values as they are.

    Parameters
    ----------
    found : dict of str to Entry
    """
    with np.errstate(over="ignore"):
        return {
            name: Entry(
                float(np.exp(one.estimate)),
                None if one.std_error is None else float(np.exp(one.estimate)) * one.std_error,
                None if one.lower is None else float(np.exp(one.lower)),
                None if one.upper is None else float(np.exp(one.upper)),
                one.p_value,
            )
            for name, one in found.items()
        }


def _entries(table: pd.DataFrame, limits: pd.DataFrame) -> dict[str, Entry]:
    columns = [table["estimate"], table["std_error"], limits["lower"], limits["upper"], table["p_value"]]
    rows = zip(*(column.to_numpy(dtype=np.float64).tolist() for column in columns), strict=True)
    return {str(name): Entry(*row) for name, row in zip(table.index, rows, strict=True)}


def _thresholds(fit: Fit, alpha: float) -> dict[str, Entry]:
    table = threshold_table(fit)
    half = -float(special.ndtri(alpha / 2.0)) * table["std_error"]
    limits = {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    return _entries(table, table.assign(**limits))


def _random(fit: Fit) -> dict[str, Entry]:
    found = {entry_label(entry): Entry(float(entry.sdcor)) for entry in entries(fit)}
    dispersion = shown_dispersion(fit)
    if dispersion is not None:
        found[f"Dispersion ({dispersion.name})"] = Entry(dispersion.estimate)
    return found


def _facts(fit: Fit) -> dict[str, float | str]:
    levels = {f"Levels of {group}": float(count) for group, count in fit.design.n_groups.items()}
    return {
        "Family (link)": family_label(fit),
        "Rows": float(fit.design.n_obs),
        **levels,
        "Method": method_label(fit),
        **_r_squared(fit),
        "Log-likelihood": float(fit.log_likelihood),
        "AIC": float(aic(fit)),
        "BIC": float(bic(fit)),
    }


def _r_squared(fit: Fit) -> dict[str, float | str]:
    """Both R squared, where the model has them and the fit still has its rows."""
    try:
        found = r_squared(fit)
    except Lme4Error:
        return {}
    return {"R² (marginal)": float(found.marginal), "R² (conditional)": float(found.conditional)}
