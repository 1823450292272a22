"""The dispersion part of a linear model: coefficients of the logarithm of its residual standard deviation.

It stands in the covariance parameters of the fit, where it is estimated; here it is looked at as a linear predictor of
its own, with the covariance of its coefficients from the Hessian of the criterion in all variance parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.design import Predictor
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.parameters import log_sigma_slopes, par_covariance
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["DISPERSION_PART", "dispersion_view", "has_dispersion_part", "only_wald"]

DISPERSION_PART = "dispersion"
# Part of a direction without curvature in a coefficient, above which it has no standard error.
_FLAT = 1e-6


def has_dispersion_part(fit: Fit) -> bool:
    """Whether a fit is a linear model with a dispersion formula of more than its intercept.

    Parameters
    ----------
    fit : Fit
    """
    return isinstance(fit, ResidualFit) and bool(fit.residual.places.scales.places)


def only_wald(ddf: str | None = None, vcov: str | None = None, method: str = "wald") -> None:
    """Refuse what the coefficients of the dispersion part of a linear model do not have.

    Parameters
    ----------
    ddf, vcov : str or None
    method : str

    Raises
    ------
    OptionError
    """
    for name, value, usual in (("ddf", ddf, ("normal",)), ("vcov", vcov, ()), ("method", method, ("wald",))):
        if value is not None and value not in usual:
            raise OptionError(
                f"{name}={value!r} is not there for the dispersion part of a linear model, whose errors come from the "
                f"curvature of the criterion and whose tests and limits are normal ones; leave {name}= out."
            )


def dispersion_view(fit: Fit) -> Any:
    """The fit with the coefficients of the dispersion part in the place of the fixed effects.

    The intercept is the logarithm of the residual standard deviation, where one belongs to all rows; with variance
    functions beside the formula, where these are 1.

    Parameters
    ----------
    fit : ResidualFit
        With a dispersion part.

    Returns
    -------
    ResidualFit
    """
    assert isinstance(fit, ResidualFit)
    scales = fit.residual.places.scales
    plan, places = scales.plan, np.array(scales.places)
    assert plan is not None
    assert scales.dispersion is not None
    r, m = len(places), fit.par.size
    J = np.zeros((r, m))
    J[:, m - r :] = np.eye(r) if scales.unit is None else np.diag(1.0 / scales.unit[-r:])
    beta, kept = fit.theta[fit.theta.size - r :], places
    if _has_level(fit):
        J = np.concatenate([log_sigma_slopes(fit)[None], J])
        beta, kept = np.concatenate([[np.log(fit.sigma)], beta]), np.concatenate([[0], places])
    predictor = Predictor(
        _columns(fit, r, kept), tuple(plan.names[j] for j in kept), tuple(plan.assign[j] for j in kept), plan.labels
    )
    design = replace(fit.design, predictors=(predictor,), recipe=scales.dispersion)
    conventions = replace(fit.conventions, ddf="normal")
    return replace(fit, design=design, beta=beta, vcov=_covariance(fit, J), conventions=conventions)


def _has_level(fit: ResidualFit) -> bool:
    """Whether one standard deviation, that is estimated, stands for all rows beside the columns."""
    return fit.residual.has_one_structure and bool(fit.residual.part.structures[0].n_theta)


def _columns(fit: ResidualFit, r: int, kept: IntArray) -> Any:
    """The model matrix; what stands in its place where a slim fit has no rows."""
    G: Any = fit.residual.part.log_scale
    if not isinstance(G, np.ndarray):
        return G
    G = fit.residual.part.user_columns
    own = G[:, G.shape[1] - r :]
    return own if len(kept) == r else np.concatenate([np.ones((len(own), 1)), own], axis=1)


def _covariance(fit: ResidualFit, J: FloatArray) -> FloatArray:
    """Of the coefficients with slopes J in the parameters inside; NaN along those of which the criterion has no
    curvature."""
    values, vectors = np.linalg.eigh(fit.hessian)
    flat = vectors[:, values <= 1e-10 * max(1.0, float(values.max(initial=0.0)))]
    unknown = np.abs(J @ flat).max(axis=1, initial=0.0) > _FLAT
    return np.where(unknown | unknown[:, None], np.nan, J @ par_covariance(fit) @ J.T)
