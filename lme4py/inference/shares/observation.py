"""Variance of a single observation on the scale of the linear predictor, which ICC and R squared divide by.

A binary or ordinal response is the sign (or the interval) of a latent variable whose distribution has a known
variance. Other responses have no latent variable: their variance around the mean is carried to the scale of the link
(Nakagawa, Johnson & Schielzeth 2017, J. R. Soc. Interface 14:20170213, table 1),

    delta       Var(y) / (dmu/deta)^2
    lognormal   log(1 + Var(y) / mu^2)            log link
    trigamma    trigamma(mu^2 / Var(y))           log link,

at the mean mu of the model with the intercept as its only fixed effect. Shares of a model with further parts are those
of its conditional linear predictor; the variance is that of the response, zeros included, averaged over the rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from lme4py.errors import ConvergenceWarning, Lme4Error, OptionError, did_you_mean
from lme4py.families.parts import PartsFamily
from lme4py.families.shares import SHARES
from lme4py.fits.base import Fit
from lme4py.fits.derived import derived
from lme4py.fits.kinds import model_of
from lme4py.linalg.types import FloatArray

__all__ = ["VARIANCES", "Observation", "null_mean", "observation_variance"]

VARIANCES = SHARES
# Step in log dispersion of the central difference of a variance that is smooth in it.
_STEP = 1e-5


@dataclass(frozen=True)
class Observation:
    """Variance of one observation on the link scale.

    Attributes
    ----------
    variance : float
    slope : float
        Its derivative in the logarithm of the dispersion; 0 for a family without one.
    kind : str
        "latent", "residual", "lognormal", "trigamma" or "delta".
    gradient : ndarray, shape (s,), or None
        Its derivatives in all parameters, where it depends on coefficients of further parts.
    """

    variance: float
    slope: float
    kind: str
    gradient: FloatArray | None = None


def observation_variance(fit: Fit, variance: str = "theoretical", mean: float | None = None) -> Observation:
    """Variance of one observation on the scale of the linear predictor.

    Parameters
    ----------
    fit : Fit
    variance : {"theoretical", "lognormal", "trigamma", "delta"}
        "theoretical" is the variance of the latent variable for binomial and ordinal responses, the residual variance
        for a gaussian one, the lognormal approximation for counts and amounts with zeros with the log link, and the
        delta method for everything else (the defaults of R's performance).
    mean : float, optional
        mu, where it is known; otherwise `null_mean`.

    Returns
    -------
    Observation

    Raises
    ------
    OptionError
        The latent variable has no variance (cauchit), or the approximation is none of this family and link.
    """
    if variance not in VARIANCES:
        hint = did_you_mean(str(variance), VARIANCES)
        raise OptionError(f"variance={variance!r} is not known.{hint} Use one of {', '.join(VARIANCES)}.")
    kind = fit.family.observation_kind(variance)
    latent = fit.family.link.latent_variance
    if kind == "latent" and latent is not None:
        return Observation(latent, 0.0, kind)
    if kind == "residual":
        return Observation(fit.dispersion, fit.dispersion, kind)
    mu = null_mean(fit) if mean is None else mean
    if isinstance(fit.family, PartsFamily):
        return _of_parts(fit, fit.family, kind, mu)
    value = _approximate(fit, kind, mu, fit.lam)
    slope = 0.0
    if fit.family.n_dispersion and fit.design.log_dispersion is None:
        up, down = (_approximate(fit, kind, mu, fit.lam + h) for h in (_STEP, -_STEP))
        slope = (up - down) / (2.0 * _STEP)
    return Observation(value, slope, kind)


def _of_parts(fit: Fit, family: PartsFamily, kind: str, mu: float) -> Observation:
    """The variance of a response with further parts, zeros included, averaged over the rows."""
    lam = np.atleast_1d(np.asarray(fit.lam, dtype=np.float64))
    gradient = np.zeros(model_of(fit).parameter_vcov().shape[0])
    for i in range(family.n_nuisance):
        step = _STEP * (np.arange(lam.size) == i)
        up, down = (family.link_scale_variance(kind, mu, fit.response, lam + h) for h in (step, -step))
        gradient[fit.theta.size + fit.beta.size + i] = (up - down) / (2.0 * _STEP)
    return Observation(family.link_scale_variance(kind, mu, fit.response, lam), 0.0, kind, gradient)


def _approximate(fit: Fit, kind: str, mu: float, lam: float) -> float:
    """Variance on the link scale of one observation (binomial: of one trial) of weight 1 with mean mu."""
    mean = np.array([mu])
    spread = float(fit.family.variance(mean, lam)[0])
    if kind == "lognormal":
        return float(np.log1p(spread / mu**2))
    if kind == "trigamma":
        return float(special.polygamma(1, mu**2 / spread))
    slope = float(fit.family.link.derivatives(fit.family.link.eta(mean))[1][0])
    return spread / slope**2


@derived
def null_mean(fit: Fit) -> float:
    """Mean of a row (offset and random effects zero) in the model with an intercept in the place of all fixed effects.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    Lme4Error
        That model cannot be fitted.
    """
    design = fit.design
    one = np.ones((design.n_obs, 1))
    if design.X.shape[1] == 1 and np.array_equal(design.X, one):
        beta: FloatArray = fit.beta
    else:
        plain = replace(design, notes=())
        plain = plain.with_terms([term for term in plain.terms if not term.is_curve])
        null = plain.with_predictor(X=one, names=("Intercept",), assign=(0,), labels=(), dropped=(), alias=None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                found = model_of(fit).like(null)
        except (Lme4Error, ArithmeticError) as error:
            raise Lme4Error(
                f"the variance of an observation needs the model with an intercept alone, which cannot be fitted: "
                f"{error}"
            ) from error
        if not found.certificate.converged:
            raise Lme4Error(
                "the variance of an observation needs the model with an intercept alone, which has no estimates: "
                f"{found.certificate.verdict}"
            )
        beta = found.beta
    return float(fit.family.link.mean(beta)[0])
