"""The dispersion of a generalised model in the words of the front door that fitted it.

A family has the parameter exp(lambda). The keyword front door speaks as Stata, which reports one over the shape of a
negative binomial distribution: alpha in Var(y) = mu + alpha mu^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.fits.base import Fit
from lme4py.fits.parameters import is_inverted
from lme4py.inference.estimates.coefficients import chosen_alpha, constant_df, quantile

__all__ = ["Dispersion", "family_params", "shown_dispersion"]


@dataclass(frozen=True)
class Dispersion:
    """A dispersion parameter as it is reported.

    Attributes
    ----------
    name : str
        "phi", "theta", "alpha", ...
    estimate : float
    std_error : float
        By the delta method; NaN without one.
    lower, upper : float
        Limits that are normal on the log scale; 0 and infinity where the parameter is at the end of its range, since
        the curvature says nothing there (the profile does).
    limit : str
        What the model is where the parameter is at the end of its range, such as "the Poisson model"; else "".
    """

    name: str
    estimate: float
    std_error: float
    lower: float
    upper: float
    limit: str = ""


def shown_dispersion(fit: Fit, alpha: float | None = None) -> Dispersion | None:
    """The dispersion parameter of a fit; None where the family has none, and for linear mixed models.

    Parameters
    ----------
    fit : Fit
    alpha : float, optional
        One minus the level of the limits; that of the fit when not given.
    """
    if fit.log_dispersion is None:
        return None
    inverted = is_inverted(fit)
    value = 1.0 / fit.dispersion if inverted else fit.dispersion
    if fit.dispersion_limit:
        name = fit.family.stata_parameter if inverted else fit.family.parameter
        return Dispersion(name, value, float("nan"), 0.0, float("inf"), fit.dispersion_limit)
    if fit.design.log_dispersion is not None:
        name = fit.family.stata_parameter if inverted else fit.family.parameter
        return Dispersion(name, value, 0.0, value, value, "fixed by the user")
    error = float("nan") if fit.log_dispersion_se is None else fit.log_dispersion_se
    half = float(quantile(chosen_alpha(fit, alpha), constant_df(fit, "normal"))) * error
    name = fit.family.stata_parameter if inverted else fit.family.parameter
    with np.errstate(over="ignore"):
        limits = value * np.exp([-half, half])
    return Dispersion(name, value, value * error, float(limits[0]), float(limits[1]))


def family_params(fit: Fit) -> dict[str, float]:
    """Parameters of the family that are neither a dispersion nor thresholds: a power, degrees of freedom.

    Parameters
    ----------
    fit : Fit
    """
    if not fit.others:
        return {}
    skipped = fit.family.n_coefficients
    names, values = fit.family.nuisance_names, fit.family.other_values(fit.others).tolist()
    return fit.family.shown_params(dict(zip(names[skipped:], values[skipped:], strict=True)))
