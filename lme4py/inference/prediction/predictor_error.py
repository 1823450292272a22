"""How uncertain a linear predictor is: the variance of its error, and the degrees of freedom of that variance.

* Fixed effects alone: x'V x, with the degrees of freedom that tests of x'beta have.
* With random effects: the joint covariance of (beta^ - beta, b^ - b) of Henderson's mixed model equations, at the
  estimated covariances (see `lme4py.fits.answers.joint`). The modes of a group that was not in the
  data are zero with variance Sigma, which is the limit of a group with less and less data: z'Sigma z is added.
* A new observation: the residual variance is added too.

Satterthwaite's degrees of freedom of such a sum v are 2 v^2 / (g'Ag), with g its gradient in the variance parameters
and A their asymptotic covariance: the method of Giesbrecht & Burns (1985, Biometrics 41:477) for any variance that is a
function of these parameters, as McLean & Sanders (1988, Proc. Stat. Comp. Sect. ASA, 50) use it for predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.errors import OptionError
from lme4py.fits.answers.noise import Noise
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import VarianceDerivatives
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import check_ddf, coefficient_method, constant_df, quantile
from lme4py.inference.prediction.predictor import included_variance, random_variance
from lme4py.linalg.types import FloatArray

__all__ = ["PredictorError", "predictor_error"]


@dataclass(frozen=True)
class PredictorError:
    """The error of a linear predictor.

    Attributes
    ----------
    variance : ndarray, shape (n,)
    df : ndarray, shape (n,)
        Infinite for the normal distribution.
    """

    variance: FloatArray
    df: FloatArray

    def half(self, alpha: float) -> FloatArray:
        """How far limits of level 1 - alpha are from the linear predictor, shape (n,)."""
        return quantile(alpha, self.df) * np.sqrt(self.variance)


def predictor_error(
    fit: Fit, rows: RowArrays, *, new: bool = False, noise: Noise | None = None, ddf: str | None = None
) -> PredictorError:
    """Variance and degrees of freedom of the error of linear predictors.

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        Complete rows.
    new : bool
        The random effects that `rows` has no groups for are those of new groups: their variance is added.
    noise : Noise, optional
        Residual variance of a new observation of a linear model, to be added.
    ddf : str, optional
        `default_ddf` of the fit when not given. Kenward and Roger's are defined for fixed effects; of everything else
        they are Satterthwaite's.
    """
    if not (new or noise is not None or rows.codes):
        method = coefficient_method(fit, ddf)
        return _with_whole_df(_quadratic(rows.X, method.vcov), method.t_df(rows.X))
    chosen = check_ddf(fit.default_ddf if ddf is None else ddf, linear=fit.has_f_tests)
    variance = _variance(fit, rows, new) + (0.0 if noise is None else noise.variance)
    if chosen == "knapp-hartung":
        raise OptionError(
            "ddf='knapp-hartung' is for the fixed effects; intervals of predictions with random effects or new "
            "observations have ddf='satterthwaite', 'residual' or 'normal'."
        )
    if chosen in ("normal", "residual"):
        return PredictorError(variance, np.broadcast_to(constant_df(fit, chosen), rows.n))
    # Refuses where the fit has another covariance than the model's.
    coefficient_method(fit, "satterthwaite")
    derivatives = model_of(fit).variance_derivatives()
    gradient = _gradient(fit, derivatives, rows, new)
    if noise is not None and noise.slopes is not None:
        gradient = gradient + noise.slopes
    # Every variance is proportional to sigma^2 when the others are relative to it.
    gradient[:, -1] = variance
    return _with_whole_df(variance, derivatives.degrees_of_freedom(variance, gradient))


def _with_whole_df(variance: FloatArray, df: FloatArray) -> PredictorError:
    # A variance of zero has no degrees of freedom, and needs none.
    return PredictorError(variance, np.where(np.isnan(df), np.inf, df))


def _quadratic(X: FloatArray, V: FloatArray) -> FloatArray:
    variance: FloatArray = np.maximum(np.einsum("np,pq,nq->n", X, V, X), 0.0)
    return variance


def _variance(fit: Fit, rows: RowArrays, new: bool) -> FloatArray:
    known = model_of(fit).predictor_variance(rows) if rows.codes else _quadratic(rows.X, fit.vcov)
    return known + (random_variance(fit, rows) if new else included_variance(fit, rows))


# --- the gradient in the variance parameters --------------------------------------------------------------------


def _gradient(fit: Fit, derivatives: VarianceDerivatives, rows: RowArrays, new: bool) -> FloatArray:
    """Derivatives of the variance in the coordinates of all covariances, (n, s); the last column is unused."""
    known = (
        model_of(fit).predictor_gradient(derivatives, rows)
        if rows.codes
        else np.einsum("np,spq,nq->ns", rows.X, derivatives.jacobian, rows.X)
    )
    for t, Z in rows.values.items():
        own = fit.design.terms[t].level_variance
        part = own * np.einsum("na,sab,nb->ns", Z, derivatives.covariances[t], Z)
        if t in rows.codes:
            known = known + np.where(rows.codes[t][:, None] < 0, part, 0.0)
        elif new:
            known = known + part
        if t in rows.left and (new or t in rows.codes):
            known = known + _left_slopes(fit, derivatives, rows, t, new)
    return known


def _left_slopes(fit: Fit, derivatives: VarianceDerivatives, rows: RowArrays, t: int, new: bool) -> FloatArray:
    """What places that the fit did not have add to the derivatives, (n, s): those in theta, by the chain."""
    structure, theta = fit.design.terms[t].structure, fit.design.structures.split(fit.theta)[t]
    slopes = fit.design.terms[t].level_variance * rows.left[t].slopes + _through_rows(fit, rows, t, new)
    moves = derivatives.covariances[t].reshape(len(derivatives.covariances[t]), -1)
    size = float(np.trace(structure.covariance(theta)))
    unit = float(np.trace(fit.covariances[t])) / size if size > 0.0 else 1.0
    own = unit * structure.covariance_tangents(theta).reshape(theta.size, -1)
    chain = np.linalg.lstsq(own.T, moves.T, rcond=None)[0]
    found: FloatArray = slopes @ chain
    return found


def _through_rows(fit: Fit, rows: RowArrays, t: int, new: bool) -> FloatArray:
    """Derivatives in theta by way of the weights of known places, (n, m); a quadratic form has exact differences."""
    moves = np.moveaxis(rows.left[t].moves, 1, 0)

    def at(step: FloatArray) -> FloatArray:
        return _variance(fit, replace(rows, values={**rows.values, t: rows.values[t] + step}), new)

    return np.stack([0.5 * (at(move) - at(-move)) for move in moves], axis=1)
