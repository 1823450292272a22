"""The linear predictors of a fit by name, and the fit with one of them in the place of the conditional one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.clusters import check_robust_type
from lme4py.inference.estimates.residual_part import DISPERSION_PART, dispersion_view, has_dispersion_part, only_wald
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.engine.identification.recession import Recession
    from lme4py.fits.generalised.fit import GeneralisedFit
    from lme4py.fits.rows.clusters import ClusterChoice

__all__ = ["ALL", "all_parameter_vcov", "component_names", "part_names", "part_view"]

ALL = "all"


def part_names(fit: Fit) -> tuple[str, ...]:
    """Names of the linear predictors of a fit.

    Parameters
    ----------
    fit : Fit
    """
    return (*fit.family.components, *((DISPERSION_PART,) if has_dispersion_part(fit) else ()))


def component_names(fit: Fit, component: str | None) -> tuple[str, ...]:
    """The components that a `component` argument asks for.

    Parameters
    ----------
    fit : Fit
    component : str or None
        None is the conditional part, "all" all of them.

    Raises
    ------
    OptionError
        The model has no such part.
    """
    known = part_names(fit)
    if component is None:
        return (CONDITIONAL,)
    if component == ALL:
        return known
    if component not in known:
        hint = did_you_mean(str(component), [*known, ALL])
        raise OptionError(f"the model has no part {component!r}; its parts are {', '.join(known)}.{hint}")
    return (component,)


def part_view(fit: Fit, component: str, vcov: str | None = None, cluster: ClusterChoice = None) -> Any:
    """The fit with the fixed effects of one part in the place of the conditional ones.

    Parameters
    ----------
    fit : Fit
    component : str
    vcov : {None, "CR0", "CR1"}
        A cluster-robust covariance in the place of the model's own.
    cluster : str, array of shape (n,), or None
    """
    if has_dispersion_part(fit):
        only_wald(vcov=vcov)
        return dispersion_view(fit)
    number = fit.family.components.index(component)
    m, place = fit.theta.size, fit.family.place(component)
    start = m + fit.beta.size
    own = np.arange(start + place.start, start + place.stop)
    # Effects of other parts are none in this one.
    terms = tuple(
        replace(term, parts=tuple(CONDITIONAL if part == component else "other" for part in term.column_parts))
        for term in fit.design.terms
    )
    predictor = replace(fit.design.predictors[number], name=CONDITIONAL, terms=terms)
    recipe = replace(fit.design.part_recipes[number - 1], bars=fit.design.recipe.bars)
    design = replace(fit.design, predictors=(predictor,), recipe=recipe)
    whole = all_parameter_vcov(fit, vcov, cluster)
    with_theta = np.concatenate([np.arange(m), own])
    beta = np.atleast_1d(np.asarray(fit.lam, dtype=np.float64))[place]
    return replace(
        cast("GeneralisedFit", fit),
        design=design,
        beta=beta,
        vcov=whole[np.ix_(own, own)],
        parameter_vcov=whole[np.ix_(with_theta, with_theta)],
        recession=_recession_of_part(fit, place),
    )


def _recession_of_part(fit: Fit, place: slice) -> Recession | None:
    """What goes to infinity in one part; None where nothing of it does."""
    if fit.recession is None or not fit.family.has_thresholds:
        return None
    own = fit.recession.of_names(fit.beta.size + np.arange(place.start, place.stop))
    return own if own.limits.any() else None


def all_parameter_vcov(fit: Fit, vcov: str | None, cluster: ClusterChoice) -> FloatArray:
    """Covariance of all parameters, the model's own or a cluster-robust one.

    Parameters
    ----------
    fit : Fit
    vcov : {None, "CR0", "CR1"}
    cluster : str, array of shape (n,), or None
    """
    model = model_of(fit)
    return model.parameter_vcov() if vcov is None else model.robust_parameters(check_robust_type(vcov), cluster)
