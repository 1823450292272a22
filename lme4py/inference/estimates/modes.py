"""Conditional covariances of the random effects."""

from __future__ import annotations

import numpy as np

from lme4py.fits.generalised import GlmmFit
from lme4py.fits.linear import Fit
from lme4py.inference.uncertainty.derivatives import remembered
from lme4py.linalg.types import FloatArray


def conditional_covariances(fit: Fit | GlmmFit, *, include_fixed: bool = False) -> tuple[FloatArray, ...]:
    """Covariance matrices of the random effects of every level given the data.

    Parameters
    ----------
    fit : Fit or GlmmFit
    include_fixed : bool
        Add the uncertainty of the fixed effects (Stata's `reses`); False takes them as known (lme4's `condVar`).

    Returns
    -------
    tuple of ndarray, each (J, k, k)
        One per term of the design; sigma^2 times the diagonal blocks of Lambda M^-1 Lambda' (Bates et al. 2015,
        eq. 58). With the fixed effects P_j V_beta P_j' more, P = Lambda M^-1 Lambda'Z'WX.
    """
    if isinstance(fit, GlmmFit):
        return _with_fixed(fit) if include_fixed else fit.conditional_covariances
    place = "_conditional_covariances_with_fixed" if include_fixed else "_conditional_covariances"
    return remembered(fit, place, lambda own: _linear(own, include_fixed))


def _with_fixed(fit: GlmmFit) -> tuple[FloatArray, ...]:
    """The conditional covariances plus what the fixed effects move the modes by."""
    from lme4py.inference.prediction.joint_variance import joint_variance

    joint = joint_variance(fit)
    out: list[FloatArray] = [np.empty(0)] * len(fit.design.terms)
    for factor, P in zip(joint.factors, joint.P, strict=True):
        by_level = P.reshape(factor.n_columns, factor.n_levels, -1)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            moved = np.einsum("ab,bjp->jap", joint.S[term], by_level[columns])
            extra = np.einsum("jap,pq,jbq->jab", moved, joint.vcov, moved)
            out[term] = fit.conditional_covariances[term] + extra
    return tuple(out)


def _linear(fit: Fit, include_fixed: bool) -> tuple[FloatArray, ...]:
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
