"""Conditional AIC of linear mixed models: for predictions of the same groups.

With P as in `lme4py.fits.answers.working`, e = P y, V_k the derivative of V in a variance parameter, a_k = P V_k e,
s_k = e'V_k e and B the Hessian of the criterion profiled over sigma, the degrees of freedom are those of Greven & Kneib
(2010, Biometrika 97:773): the derivative of the fitted values in the responses, with what the variances move,

    df = sum_i (1 - P_ii / w_i) - sum_kl (B^-1)_kl G_l'W^-1 a_k + 1,   G_l = 2 df_r (e s_l / r2 - a_l) / r2,

and one for sigma. Variances on the boundary are taken as known: they are not parameters of the model that is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.arguments import speaks
from lme4py.engine.factor.crossproducts import Factor
from lme4py.errors import OptionError
from lme4py.fits.answers.working import FactoredModel
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.kinds import model_of
from lme4py.fits.refuse import refuse, refuse_penalised, refuse_smooths, refuse_structured
from lme4py.linalg.types import FloatArray

__all__ = ["ConditionalAIC", "caic"]


class ConditionalAIC(float):
    """A conditional AIC.

    Attributes
    ----------
    df : float
        Effective degrees of freedom, that of sigma among them.
    log_likelihood : float
        Of the responses given the conditional modes.
    """

    df: float
    log_likelihood: float

    def __new__(cls, df: float, log_likelihood: float) -> ConditionalAIC:
        made = super().__new__(cls, 2.0 * df - 2.0 * log_likelihood)
        made.df, made.log_likelihood = df, log_likelihood
        return made

    def __getnewargs__(self) -> tuple[float, float]:  # type: ignore[override]
        return self.df, self.log_likelihood


@speaks
def caic(result: Any) -> ConditionalAIC:
    """Conditional AIC of a linear mixed model, with the uncertainty of the variances in its degrees of freedom.

    The usual AIC compares models as predictors of new groups; this one as predictors of new rows of the same groups.

    Parameters
    ----------
    result : MixedResult

    Returns
    -------
    ConditionalAIC
        A float with `df` and `log_likelihood`.

    Raises
    ------
    OptionError
        A generalised model, or one with correlated or unequal residuals.

    Examples
    --------
    >>> from lme4py import caic, lmer, load_dataset
    >>> found = caic(lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")))
    >>> round(found, 3), round(found.df, 3)
    (1711.521, 31.253)
    """
    fit = fit_of(result)
    if fit is None:
        raise OptionError(f"caic() takes a fitted mixed model; this is of type {type(result).__name__}.")
    refuse_structured(fit, "the conditional AIC is")
    refuse_penalised(fit, "the conditional AIC is")
    refuse_smooths(fit, "the conditional AIC is", "see smooths() for effective degrees of freedom")
    if fit.design.sigma is not None:
        raise OptionError("the conditional AIC is for an estimated sigma, and this model knows it; use aic.")
    if not fit.normal_errors:
        refuse("the conditional AIC is", "compare aic of generalised models")
    if not fit.design.terms:
        raise OptionError(
            "the conditional AIC is that of models with random effects, and this model has none; use aic."
        )
    fit = model_of(fit).in_blocks()
    design, sigma2 = fit.design, fit.sigma**2
    w = np.ones(design.n_obs) if design.weights is None else design.weights
    residual = design.y - fit.fitted
    loglik = -0.5 * float(np.sum(np.log(2.0 * np.pi * sigma2 / w) + w * residual**2 / sigma2))
    working = model_of(fit).working_model()
    assert isinstance(working, FactoredModel)
    return ConditionalAIC(float(working.leverage.sum()) + _moving(fit, working) + 1.0, loglik)


def _moving(fit: Fit, working: FactoredModel) -> float:
    """Degrees of freedom of the variances: how much the fitted values move with them."""
    derivatives = model_of(fit).variance_derivatives()
    H = derivatives.hessian
    m = H.shape[0] - 1
    if not m or working.df is None:
        return 0.0
    B = H[:m, :m] - np.outer(H[:m, m], H[m, :m]) / H[m, m]
    e, r2 = working.residual, working.square
    moved = _moved(fit, working, derivatives.charts)
    a = np.array([replace(working, z=v).residual for v in moved])
    s = moved @ e
    G = 2.0 * working.df * (np.outer(s, e) / r2 - a) / r2
    return -float(np.sum(np.linalg.pinv(B, hermitian=True) * ((G / working.w) @ a.T)))


def _moved(fit: Fit, working: FactoredModel, charts: Any) -> FloatArray:
    """V_k e for each variance parameter, (m, n), with V_k = Z (K (x) dSigma) Z'."""
    rows = working.products.rows
    projected = rows.T @ working.residual
    out, first = [], 0
    places: dict[int, tuple[int, Factor, slice]] = {}
    for factor in working.products.factors:
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            places[term] = (first, factor, columns)
        first += factor.size
    for term, chart in enumerate(charts):
        start, factor, columns = places[term]
        J, k = factor.n_levels, columns.stop - columns.start
        where = slice(start + columns.start * J, start + columns.stop * J)
        block = projected[where].reshape(k, J)
        for dS in chart.tangents():
            effects = np.zeros(rows.shape[1])
            effects[where] = factor.along((dS @ block)[:, :, None]).ravel()
            out.append(rows @ effects)
    return np.array(out)
