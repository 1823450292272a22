"""Rows of binomial responses with the logit link: log-likelihood and derivatives without branches, a block at a time.

With e = exp(-|eta|), F = exp(min(eta, 0)) / (1 + e) and S = exp(-max(eta, 0)) / (1 + e) the probabilities of success
and failure, m = y + f trials and C the binomial coefficient,

    log f = log C - m log(1 + e) - y max(-eta, 0) - f max(eta, 0)
    score = y S - f F,      w = m F S,      dw / deta = w (S - F).

No term cancels another in either tail. A block stays in the cache of the processor while a dozen passes go over it.
"""

from __future__ import annotations

import numpy as np

from lme4py.chunks import chunk
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, Order
from lme4py.linalg.types import FloatArray

__all__ = ["logit_rows"]

# Elements that are worked on at a time.
_BLOCK = chunk(16_384)


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
    n = eta.shape[-1]
    size = max(1, _BLOCK * n // max(eta.size, 1))
    for start in range(0, n, size):
        rows = ..., slice(start, start + size)
        trials = None if data.trials is None else data.trials[rows]
        _fill([part[rows] for part in out], data.y[rows], data.failures[rows], trials, eta[rows])
    if data.trials is not None:
        out[0] += data.log_choose
    loglik, rest = out[0], out[1:]
    if order < 2:
        return EtaDerivatives(loglik, *rest)
    score, w = rest[:2]
    slopes = rest[2:] * 2
    return EtaDerivatives(loglik, score, w, w, w, *slopes)


def _fill(out: list[FloatArray], y: FloatArray, f: FloatArray, trials: FloatArray | None, eta: FloatArray) -> None:
    """Log-likelihood without its constant, score, weight and its derivative of one block, as many as there is room."""
    above = np.maximum(eta, 0.0)
    below = above - eta
    up, down = np.exp(-below), np.exp(-above)
    e = up * down
    loglik = out[0]
    np.log1p(e, out=loglik)
    if trials is not None:
        loglik *= trials
    above *= f
    below *= y
    loglik += above
    loglik += below
    # Not np.negative(): NumPy 2.4 has it wrong in place where elements are 64 bytes apart.
    loglik *= -1.0
    if len(out) == 1:
        return
    e += 1.0
    F, S = np.divide(up, e, out=up), np.divide(down, e, out=down)
    np.multiply(y, S, out=out[1])
    out[1] -= np.multiply(f, F, out=above)
    if len(out) == 2:
        return
    np.multiply(F, S, out=out[2])
    if trials is not None:
        out[2] *= trials
    if len(out) > 3:
        np.multiply(np.subtract(S, F, out=e), out[2], out=out[3])
