"""Conditional covariances of the random effects."""

from __future__ import annotations

import numpy as np

from lme4py.engine.types import FloatArray
from lme4py.fit import Fit


def conditional_covariances(fit: Fit, *, include_fixed: bool = False) -> tuple[FloatArray, ...]:
    """Covariance matrices of the random effects of every level given the data.

    Parameters
    ----------
    fit : Fit
    include_fixed : bool
        Add the uncertainty of the fixed effects (Stata's `reses`); False takes them as known (lme4's `condVar`).

    Returns
    -------
    tuple of ndarray, each (J, k, k)
        One per term of the design; sigma^2 times the diagonal blocks of Lambda M^-1 Lambda' (Bates et al. 2015,
        eq. 58).
    """
    point, problem = fit.point, fit.problem
    p = problem.n_fixed
    corner = np.zeros((p + 1, p + 1))
    if include_fixed and p:
        inverse = np.linalg.inv(point.RX)
        corner[:p, :p] = inverse @ inverse.T
    blocks = point.swept.adjoint(point.border, corner).diagonal
    scaling = problem.scaling
    scale = fit.sigma**2 / scaling.weight_scale
    out: list[FloatArray] = [np.empty(0)] * len(fit.design.terms)
    for factor, block in zip(problem.factors, blocks, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            S = scaling.S[term]
            out[term] = scale * np.einsum("ab,bcj,dc->jad", S, block[columns, columns], S)
    return tuple(out)
