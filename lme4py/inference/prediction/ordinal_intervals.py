"""Limits of the probabilities of ordered categories, by the delta method on the logit scale.

A category is the event low < latent <= high, a cumulative probability one with low = -inf, and the complement of an
event is what lies below and what lies above it. The logit of a probability, log P(event) - log P(complement), is a
function of the linear predictor eta and the thresholds low and high, and its derivatives come from those of
log-probabilities, so that nothing cancels or underflows in the tails. Its error has the joint covariance of eta and
the thresholds: with conditional modes that of Henderson's equations (`lme4py.fits.answers.joint`),
with probabilities averaged over the random effects that of (theta, beta, thresholds). Limits that are normal on the
logit scale stay between 0 and 1 (Fox & Hong 2009, J. Stat. Softw. 32(1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.chunks import chunk
from lme4py.families.ordered.interval_rows import Intervals, make_intervals, row_parts
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.averages import normal_rule
from lme4py.inference.prediction.predictor import (
    family_of,
    included_variance,
    linear_predictor,
    random_variance,
    variance_slopes,
)
from lme4py.linalg.types import FloatArray

__all__ = ["probability_limits"]

# Numbers held at a time: nodes x rows x events.
_CHUNK = chunk(400_000)


def probability_limits(
    fit: Fit, rows: RowArrays, z: float, average: bool = False, cumulative: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper limits of P(Y = k), or of P(Y <= k), each (n, K).

    Parameters
    ----------
    fit : Fit
        Of ordered categories.
    rows : RowArrays
        Complete rows; with the columns of all terms when `average`.
    z : float
        Normal quantile of the limits.
    average : bool
        Of probabilities averaged over the random effects.
    cumulative : bool
        The last column is 1 without uncertainty.
    """
    eta = linear_predictor(fit, rows)
    variance = random_variance(fit, rows) if average else np.zeros(rows.n)
    covariance = _averaged_covariance(fit, rows) if average else _covariance(fit, rows)
    n_events = len(fit.categories) - int(cumulative)
    rule = normal_rule(family_of(fit).link, float(np.sqrt(variance.max(initial=0.0))))
    step = max(1, _CHUNK // (n_events * rule[0].size))
    limits = np.ones((2, rows.n, len(fit.categories)))
    for start in range(0, rows.n, step):
        part = slice(start, start + step)
        centre, slopes = _logits(fit, eta[part], variance[part] if average else None, cumulative, rule)
        half = z * np.sqrt(np.maximum(np.einsum("nea,nab,neb->ne", slopes, covariance[part], slopes), 0.0))
        limits[0, part, :n_events] = _within(centre - half, 0.0)
        limits[1, part, :n_events] = _within(centre + half, 1.0)
    return limits[0], limits[1]


def _within(logit: FloatArray, end: float) -> FloatArray:
    """The probability of a logit; `end` where it is beyond the numbers, as for exp(-exp(800))."""
    with np.errstate(under="ignore"):
        return np.where(np.isnan(logit), end, special.expit(logit))


# --- the joint covariance of the quantities that probabilities depend on ----------------------------------------


def _covariance(fit: Fit, rows: RowArrays) -> FloatArray:
    """Of the errors of eta (first), and of the thresholds, shape (n, K, K)."""
    p = fit.beta.size
    moved, random = rows.X, np.zeros(rows.n)
    if rows.codes:
        moved, random = model_of(fit).joint_variance().parts(rows)
    else:
        moved = np.hstack([moved, np.zeros((rows.n, len(fit.categories) - 1))])
    own = model_of(fit).parameter_vcov()[fit.theta.size :, fit.theta.size :]
    eta = moved @ own
    out = np.empty((rows.n, len(fit.categories), len(fit.categories)))
    out[:, 0, 0] = np.einsum("na,na->n", eta, moved) + random + included_variance(fit, rows)
    out[:, 0, 1:] = out[:, 1:, 0] = eta[:, p:]
    out[:, 1:, 1:] = own[p:, p:]
    return out


def _averaged_covariance(fit: Fit, rows: RowArrays) -> FloatArray:
    """Of eta, the thresholds and (last) the variance of the random part, shape (n, K + 1, K + 1)."""
    m, p = fit.theta.size, fit.beta.size
    V, slopes = model_of(fit).parameter_vcov(), variance_slopes(fit, rows)
    fixed, random = rows.X @ V[m : m + p], slopes @ V[:m]
    out = np.empty((rows.n, len(fit.categories) + 1, len(fit.categories) + 1))
    out[:, 0, 0] = np.einsum("na,na->n", fixed[:, m : m + p], rows.X)
    out[:, 0, 1:-1] = out[:, 1:-1, 0] = fixed[:, m + p :]
    out[:, 1:-1, 1:-1] = V[m + p :, m + p :]
    out[:, -1, -1] = np.einsum("na,na->n", random[:, :m], slopes)
    out[:, 0, -1] = out[:, -1, 0] = np.einsum("na,na->n", fixed[:, :m], slopes)
    out[:, 1:-1, -1] = out[:, -1, 1:-1] = random[:, m + p :]
    return out


# --- logits of events and their derivatives ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Log:
    """Log-probability with its derivatives in eta, both thresholds, and the variance of eta, each (n, E)."""

    value: FloatArray
    by_eta: FloatArray
    by_low: FloatArray
    by_high: FloatArray
    by_variance: FloatArray


def _logits(
    fit: Fit,
    eta: FloatArray,
    variance: FloatArray | None,
    cumulative: bool,
    rule: tuple[FloatArray, FloatArray],
) -> tuple[FloatArray, FloatArray]:
    """Logits, (n, E), and their derivatives in eta, the thresholds and the variance, (n, E, K or K + 1)."""
    alpha = np.asarray(fit.thresholds)
    d = alpha.size
    inside = make_intervals(alpha)
    if cumulative:
        none = np.zeros(d)
        inside = Intervals(np.full(d, -np.inf), alpha, none, none, none)
    points, log_weights = _nodes(eta, variance, rule)
    own = _total(fit, [inside], points, log_weights)
    other = _total(fit, [_open(None, inside.low), _open(inside.high, None)], points, log_weights)
    events = np.arange(inside.low.size)
    slopes = np.zeros((eta.size, events.size, 1 + d + (variance is not None)))
    slopes[:, :, 0] = own.by_eta - other.by_eta
    has_low, has_high = np.isfinite(inside.low), np.isfinite(inside.high)
    highs = events[has_high]
    slopes[:, highs, 1 + highs] += (own.by_high - other.by_high)[:, has_high]
    lows = events[has_low]
    slopes[:, lows, lows] += (own.by_low - other.by_low)[:, has_low]
    if variance is not None:
        slopes[:, :, -1] = own.by_variance - other.by_variance
    return own.value - other.value, slopes


def _open(low: FloatArray | None, high: FloatArray | None) -> Intervals:
    """Half-lines above `low` or below `high`; empty ones keep an infinite end on both sides."""
    given = low if high is None else high
    assert given is not None
    none, end = np.zeros(given.size), np.full(given.size, np.inf)
    return Intervals(given, end, none, none, none) if high is None else Intervals(-end, high, none, none, none)


def _nodes(
    eta: FloatArray, variance: FloatArray | None, rule: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Linear predictors (Q, n, 1) and log weights (Q, 1, 1) of the rule that averages over a normal variable."""
    if variance is None:
        return eta[None, :, None], np.zeros((1, 1, 1))
    z, w = rule
    points = eta + z[:, None] * np.sqrt(variance)
    return points[:, :, None], np.log(w)[:, None, None]


def _total(fit: Fit, pieces: list[Intervals], points: FloatArray, log_weights: FloatArray) -> _Log:
    """log of the sum over pieces and nodes; derivatives are averages with the shares of the sum as weights."""
    link = family_of(fit).link
    logs: list[list[FloatArray]] = []
    for piece in pieces:
        empty = np.isneginf(piece.high) | np.isposinf(piece.low)
        # An empty piece counts with log 0; any finite thresholds serve to compute it.
        solid = Intervals(
            np.where(empty, -np.inf, piece.low),
            np.where(empty, 0.0, piece.high),
            piece.width_log,
            piece.rho,
            piece.kappa,
        )
        with np.errstate(all="ignore"):
            parts = row_parts(link.name, link.lower_tail, solid, np.arange(empty.size), points, 2)
            second = parts.ss + parts.s * parts.s
        value = np.where(empty, -np.inf, parts.value + log_weights)
        logs.append([value, -parts.s, parts.low, parts.up, 0.5 * second])
    # Of the two sides of an event, the lower one ends at `low` and the upper one at `high`.
    if len(pieces) == 2:
        (_, _, _, below, _), (_, _, above, _, _) = logs
        logs[0][2:4], logs[1][2:4] = [below, np.zeros_like(below)], [np.zeros_like(above), above]
    value, *slopes = (np.concatenate(columns) for columns in zip(*logs, strict=True))
    with np.errstate(all="ignore"):
        total = special.logsumexp(value, axis=0)
        share = np.exp(value - total)
        # 0 times an infinite slope: a node that has no part in the sum.
        averages = [np.where(share > 0.0, share * slope, 0.0).sum(axis=0) for slope in slopes]
    return _Log(total, *averages)
