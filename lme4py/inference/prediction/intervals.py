"""Limits of predicted means and of new observations.

Confidence limits are those of t or normal variables on the scale of the linear predictor (its variance and degrees of
freedom are those of `lme4py.inference.prediction.predictor_error`), and go through the inverse link for means.
Averaged over the random effects ("integrate") they are those of the fixed effects in a linear model; in a generalised
one the delta method of the averaged mean in (theta, beta), on the scale of the link.

Prediction limits are those of one new observation. Random effects that are not included, and those of unknown groups,
are those of a new group: the prediction is uncertain by z'Sigma z. Known groups that are included keep their modes
with the joint covariance. A linear model adds the residual variance sigma^2 / w; its degrees of freedom are those of
the sum of all these variances (Francq, Lin & Hoyer 2019, Stat. Med. 38:5603). In a generalised model the linear
predictor is normal with the variance above, and the limits are quantiles of the response mixed over it: the smallest
values whose probabilities reach alpha/2 and 1 - alpha/2. The uncertainty of variances and of the dispersion has no
part in prediction limits of generalised models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lme4py.data.frame import Frame
from lme4py.design.beside.given import Given, number_column, positive_weights
from lme4py.design.recipe import new_response, new_weights
from lme4py.errors import DataError, OptionError
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import check_ddf, constant_df, quantile
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.inference.prediction.predictor import linear_predictor, random_variance, variance_slopes
from lme4py.inference.prediction.predictor_error import predictor_error
from lme4py.inference.prediction.response_quantiles import mixed_quantiles
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["limits", "row_data"]


def limits(
    fit: Fit,
    rows: RowArrays,
    whole: BoolArray,
    interval: str,
    type: str,
    average: bool,
    alpha: float,
    weights: str | ArrayLike | None,
    ddf: str | None = None,
) -> list[FloatArray]:
    """Lower and upper limits, each (n,).

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        Complete rows with the columns of all terms.
    whole : ndarray of bool
        Which rows of the data these are.
    interval : {"confidence", "prediction"}
    type : {"response", "linear"}
    average : bool
        Means averaged over the random effects.
    alpha : float
    weights : str, array_like or None
        Of the rows of new data.
    ddf : str, optional
        Degrees of freedom; `default_ddf` of the fit when not given.
    """
    eta = linear_predictor(fit, rows)
    if interval == "prediction":
        return _observations(fit, rows, whole, eta, alpha, weights, ddf)
    if average and type == "response" and not fit.family.link.is_identity:
        return _averaged(fit, rows, eta, float(quantile(alpha, constant_df(fit, ddf))))
    half = predictor_error(fit, rows, ddf=ddf).half(alpha)
    if fit.family.link.is_identity or type == "linear":
        return [eta - half, eta + half]
    return _means(fit, eta - half, eta + half)


def _means(fit: Fit, low: FloatArray, high: FloatArray) -> list[FloatArray]:
    """Means between two linear predictors: their limits, whichever way the link goes."""
    ends = np.stack([fit.family.link.edge_mean(low), fit.family.link.edge_mean(high)])
    lower, upper = ends.min(axis=0), ends.max(axis=0)
    turn = fit.family.link.turn
    if turn is not None:
        lower = np.where((low < turn) & (high > turn), fit.family.mean(np.array(turn)), lower)
    return [lower, upper]


def _averaged(fit: Fit, rows: RowArrays, eta: FloatArray, half: float) -> list[FloatArray]:
    """The delta method for g(E g^-1(eta + z'b)) in (theta, beta).

    The gradient in theta is dm/dv d(z'Sigma z)/dtheta with the variance v = z'Sigma z.
    """
    mean = averaged_mean(fit.family.link, eta, random_variance(fit, rows), 1)
    by_beta = mean.e[:, None] * rows.X
    by_theta = mean.v[:, None] * variance_slopes(fit, rows)
    m, p = by_theta.shape[1], by_beta.shape[1]
    slopes = np.concatenate([by_theta, by_beta], axis=1)
    spread = np.einsum("ni,ij,nj->n", slopes, model_of(fit).parameter_vcov()[: m + p, : m + p], slopes)
    link = fit.family.link
    centre = link.eta(mean.f)
    se = np.sqrt(np.maximum(spread, 0.0)) / np.abs(link.derivatives(centre)[1])
    return _means(fit, centre - half * se, centre + half * se)


# -- new observations --------------------------------------------------------------------------------------------


def _observations(
    fit: Fit,
    rows: RowArrays,
    whole: BoolArray,
    eta: FloatArray,
    alpha: float,
    weights: str | ArrayLike | None,
    ddf: str | None,
) -> list[FloatArray]:
    if not fit.normal_errors:
        _only_normal(ddf)
        variance = predictor_error(fit, rows, new=True, ddf=ddf).variance
        data = row_data(fit, rows.frame, whole, weights)
        return [mixed_quantiles(fit, eta, variance, data, q) for q in (alpha / 2.0, 1.0 - alpha / 2.0)]
    size = np.broadcast_to(_weights(fit, rows.frame, whole, weights), eta.shape)
    noise = model_of(fit).noise(rows, whole, size, eta)
    half = predictor_error(fit, rows, new=True, noise=noise, ddf=ddf).half(alpha)
    return [eta - half, eta + half]


def _only_normal(ddf: str | None) -> None:
    if ddf is not None and check_ddf(ddf) != "normal":
        raise OptionError(
            f"ddf={ddf!r} has no part in prediction intervals of generalised models, whose limits are quantiles of the "
            "response; leave it out."
        )


def row_data(fit: Fit, frame: Frame | None, whole: BoolArray, weights: str | ArrayLike | None) -> ResponseData:
    """What the distribution of new observations needs to know beside their means.

    Parameters
    ----------
    fit : Fit
    frame : Frame or None
    whole : ndarray of bool
        Which rows of the data these are.
    weights : str or array_like, optional
    """
    if frame is None:
        return fit.data
    n = int(whole.sum())
    if fit.family.has_trials:
        return ResponseData(np.zeros(n), _trials(fit, frame, whole, weights))
    if fit.family.weights_multiply:
        return ResponseData(np.zeros(n))
    return ResponseData(np.zeros(n), None, np.broadcast_to(_weights(fit, frame, whole, weights), (n,)))


def _trials(fit: Fit, frame: Frame, whole: BoolArray, weights: str | ArrayLike | None) -> FloatArray | None:
    """Numbers of trials of new rows; None where each has one."""
    if fit.data.trials is None and weights is None:
        return None
    by_weights = weights is not None or (fit.data.weights is None and fit.design.weights is not None)
    if by_weights:
        trials = np.broadcast_to(_weights(fit, frame, whole, weights), (int(whole.sum()),))
    else:
        try:
            found = new_response(fit.design.recipe, frame)[0][whole]
        except DataError as error:
            raise OptionError(
                "a prediction interval of a proportion needs the number of trials of each row: give the columns of the "
                f"response in the new data, or the numbers as weights=. ({error})"
            ) from None
        trials = found.sum(axis=1)
    if not (np.isfinite(trials).all() and (trials == np.rint(trials)).all() and (trials > 0).all()):
        raise DataError("the numbers of trials of the new data are not all whole numbers above 0; correct these rows.")
    return np.asarray(trials, dtype=np.float64)


def _weights(fit: Fit, frame: Frame | None, whole: BoolArray, weights: str | ArrayLike | None) -> FloatArray | float:
    """Prior weights of the rows to predict; 1 where the model has none."""
    if frame is None:
        return 1.0 if fit.design.weights is None else fit.design.weights
    recipe = fit.design.recipe
    if weights is not None:
        column = number_column(weights, "weights", frame, recipe.functions, dict(recipe.state))
        return positive_weights(column.values[whole], Given("weights"))
    if fit.design.weights is None:
        return 1.0
    if recipe.weights is None or recipe.weights.node is None:
        raise OptionError(
            "the model has prior weights that were given as an array, and a prediction interval needs those of the new "
            "rows: give them as weights=, a column name, an expression or an array."
        )
    return positive_weights(new_weights(recipe, frame)[whole], recipe.weights)
