"""Rows of binomial responses with the logit link: log-likelihood and derivatives without branches, a block at a time.

With e = exp(-|eta|), 1 / (1 + e) and e / (1 + e) as the larger and the smaller of the probabilities of success F and
failure S, m = y + f trials and C the binomial coefficient,

    log f = log C - m log(1 + e) - y max(-eta, 0) - f max(eta, 0)
    score = y S - f F,      w = m F S,      dw / deta = w (S - F).

No term cancels another in either tail. A block stays in the cache of the processor while a dozen passes go over it.
"""

from __future__ import annotations

import numpy as np

from lme4py.compiled.twins import with_loops
from lme4py.families.blocks.places import block_places
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, Order
from lme4py.linalg.types import FloatArray

__all__ = ["logit_rows"]

_NONE = np.zeros(0)


def logit_rows(data: ResponseData, eta: FloatArray, order: Order) -> EtaDerivatives:
    """Log-likelihood of each row and its derivatives up to `order`, without prior weights.

    Parameters
    ----------
    data : ResponseData
        Whose y has the shape of eta, or of its last axis.
    eta : ndarray, shape (..., n)
    order : {0, 1, 2, 3}
    """
    out = [np.empty(eta.shape) for _ in range(order + 1)]
    # What is not asked for has no room.
    absent = [_NONE] * (3 - order)
    fill = _fill.of(eta.size) if eta.ndim == 1 else _fill.plain
    for rows in block_places(eta.shape):
        trials = _NONE if data.trials is None else data.trials[rows]
        x = eta[rows]
        e = np.abs(x)
        np.exp(np.multiply(e, -1.0, out=e), out=e)
        fill(x, e, np.log1p(e), data.y[rows], data.failures[rows], trials, *[part[rows] for part in out], *absent)
    if data.trials is not None:
        out[0] += data.log_choose
    loglik, rest = out[0], out[1:]
    if order < 2:
        return EtaDerivatives(loglik, *rest)
    score, w = rest[:2]
    slopes = rest[2:] * 2
    return EtaDerivatives(loglik, score, w, w, w, *slopes)


def _fill_loops(
    eta: FloatArray,
    e: FloatArray,
    log_e: FloatArray,
    y: FloatArray,
    f: FloatArray,
    trials: FloatArray,
    loglik: FloatArray,
    score: FloatArray,
    w: FloatArray,
    dw: FloatArray,
) -> None:
    for i in range(eta.size):
        above = max(eta[i], 0.0)
        whole = 1.0 + e[i]
        larger, smaller = 1.0 / whole, e[i] / whole
        F = larger if eta[i] > 0.0 else smaller
        S = smaller if eta[i] > 0.0 else larger
        m = trials[i] if trials.size else 1.0
        loglik[i] = -(m * log_e[i] + above * f[i] + (above - eta[i]) * y[i])
        if score.size:
            score[i] = y[i] * S - f[i] * F
        if w.size:
            w[i] = F * S * m
        if dw.size:
            dw[i] = (S - F) * (F * S * m)


@with_loops(_fill_loops, "f1 f1 f1 f1 f1 f1 F1 F1 F1 F1")
def _fill(
    eta: FloatArray,
    e: FloatArray,
    log_e: FloatArray,
    y: FloatArray,
    f: FloatArray,
    trials: FloatArray,
    loglik: FloatArray,
    score: FloatArray,
    w: FloatArray,
    dw: FloatArray,
) -> None:
    """Log-likelihood without its constant, score, weight and its derivative of one block, where there is room for them.

    Parameters
    ----------
    eta, e, log_e, y, f : ndarray
        The predictor, e = exp(-abs(eta)) and log(1 + e), successes and failures; e and log_e are worked in.
    trials : ndarray
        Empty where each row has one.
    loglik, score, w, dw : ndarray
        Filled; empty where they are not asked for.
    """
    above = np.maximum(eta, 0.0)
    below = above - eta
    np.copyto(loglik, log_e)
    if trials.size:
        loglik *= trials
    above *= f
    below *= y
    loglik += above
    loglik += below
    # Not np.negative(): NumPy 2.4 has it wrong in place where elements are 64 bytes apart.
    loglik *= -1.0
    if not score.size:
        return
    # 1 on one side, e on the other: a mask is slower.
    F, S = np.maximum(eta > 0.0, e), np.maximum(eta <= 0.0, e)
    whole = np.add(e, 1.0, out=e)
    F /= whole
    S /= whole
    np.multiply(y, S, out=score)
    score -= np.multiply(f, F, out=above)
    if not w.size:
        return
    np.multiply(F, S, out=w)
    if trials.size:
        w *= trials
    if dw.size:
        np.multiply(np.subtract(S, F, out=S), w, out=dw)
