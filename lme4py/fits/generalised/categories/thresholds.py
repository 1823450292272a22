"""Designs and fits of ordered categories with effects on single thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.design.design import Design, Predictor
from lme4py.errors import IdentificationWarning, warn
from lme4py.families.ordered.ordinal import Ordinal
from lme4py.families.ordered.ordinal_parts import NOMINAL, OrdinalParts
from lme4py.fits.generalised.fit import GeneralisedFit

__all__ = ["crossing_rows", "warn_crossing", "with_expanded"]


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
