"""Designs and fits of ordered categories with effects on single thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.design import Design, Predictor
from lme4py.errors import DesignError, IdentificationWarning, warn
from lme4py.families.base import Family
from lme4py.families.ordered.categories import category_label
from lme4py.families.ordered.ordinal import Ordinal
from lme4py.families.ordered.ordinal_parts import NOMINAL, OrdinalParts
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["crossing_rows", "refuse_absent", "refuse_crossing", "warn_crossing", "with_expanded"]


def with_expanded(design: Design, family: Ordinal) -> Design:
    """The design whose nominal predictor has a column for each of its coefficients: threshold by threshold.

    Parameters
    ----------
    design : Design
    family : Ordinal
    """
    if not isinstance(family, OrdinalParts) or not family.nominal:
        return design

    def expanded(predictor: Predictor) -> Predictor:
        if predictor.name != NOMINAL:
            return predictor
        return replace(
            predictor,
            X=np.tile(predictor.X, family.n_cuts),
            names=family.nominal_names,
            assign=predictor.assign * family.n_cuts,
        )

    return replace(design, predictors=tuple(map(expanded, design.predictors)))


def crossing_rows(fit: GeneralisedFit) -> int:
    """Rows of the fit in which thresholds do not increase, so that some category has no probability.

    Parameters
    ----------
    fit : GeneralisedFit
    """
    family = fit.family
    return int(family.crossing(fit.lam, fit.data).sum()) if isinstance(family, OrdinalParts) else 0


def refuse_absent(fit: GeneralisedFit) -> None:
    """Refuse nominal effects whose likelihood rises as thresholds pass each other, naming categories and columns.

    Where a category between others never occurs, thresholds that increase meet there, and its probability is zero: the
    maximum is on the edge of what is allowed. Beyond the edge the likelihood rises without end, and its "probabilities"
    add up to more than one.

    Parameters
    ----------
    fit : GeneralisedFit

    Raises
    ------
    DesignError
    """
    family, recession = fit.family, fit.recession
    if recession is None or not isinstance(family, OrdinalParts) or not family.nominal:
        return
    if family.structure != "cumulative":
        return
    p, q = fit.beta.size, family.n_coefficients
    for direction in recession.directions:
        moved = direction / max(float(np.abs(direction).max()), 1e-300)
        N = moved[p:][family.place(NOMINAL)].reshape(family.n_cuts, len(family.nominal))
        W = next(part.X for part in fit.data.parts if part.name == NOMINAL)
        gaps = np.diff(moved[p + q :] + W @ N.T @ family.A.T, axis=1) < -1e-6
        if gaps.any():
            raise DesignError(_absent(fit, family, gaps, N))


def _absent(fit: GeneralisedFit, family: OrdinalParts, gaps: BoolArray, N: FloatArray) -> str:
    """Which categories have no row where, in words."""
    labels = [category_label(level) for level in fit.categories]
    # The category between two thresholds is the one above the first of them.
    lacking = [repr(labels[k + 1]) for k in np.flatnonzero(gaps.any(axis=0))]
    columns = [name for name, own in zip(family.nominal, np.abs(N).T, strict=True) if own.max() > 1e-6]
    rows = int(gaps.any(axis=1).sum())
    plural = "categories" if len(lacking) > 1 else "category"
    return (
        f"{plural} {', '.join(lacking)} between others: not observed in the {rows} of {fit.design.n_obs} rows that the "
        f"nominal effects of {', '.join(columns)} set apart. The thresholds on both sides meet there, so that these "
        "effects have no maximum inside what increasing thresholds allow. Merge the categories, leave these columns "
        "out of nominal=, or use structure='sequential' or 'adjacent'."
    )


def refuse_crossing(family: Family, lam: Any, data: ResponseData) -> None:
    """Refuse the optimum of a response that was drawn where thresholds pass each other: its criterion is of no model.

    Parameters
    ----------
    family : Family
    lam : ndarray
        At the optimum, as users know it.
    data : ResponseData

    Raises
    ------
    DesignError
    """
    if not isinstance(family, OrdinalParts):
        return
    count = int(family.crossing(lam, data).sum())
    if count:
        raise DesignError(
            f"with the nominal effects of {', '.join(family.nominal)} the thresholds of {count} of {data.n_obs} rows "
            "do not increase at the optimum for this response, in which a category between others does not occur "
            "there: its likelihood is that of no model."
        )


def warn_crossing(fit: GeneralisedFit) -> None:
    """Name a crossing of the curves of categories in the range of the data.

    Parameters
    ----------
    fit : GeneralisedFit
    """
    count = crossing_rows(fit)
    if count:
        family = fit.family
        columns = ", ".join(family.nominal) if isinstance(family, OrdinalParts) else ""
        warn(
            f"the curves of categories cross within the data: with the nominal effects of {columns} the thresholds of "
            f"{count} of {fit.design.n_obs} rows do not increase, and some category has no probability there (it was "
            "not observed in these rows); their predictions are NaN. Merge categories, or use scale= or another "
            "structure=.",
            IdentificationWarning,
        )
