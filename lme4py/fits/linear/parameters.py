"""Observed information of all parameters of a linear mixed model."""

from __future__ import annotations

import numpy as np

from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.threads import limited_threads
from lme4py.fits.derived import derived
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.parameters import VarianceInformation
from lme4py.linalg.types import FloatArray

__all__ = ["parameter_vcov", "variance_information"]

# Relative step of the central differences of analytic gradients: their error is of order step^2, rounding 1e-12 / step.
_STEP = 1e-4


@derived
def variance_information(fit: LinearFit) -> VarianceInformation:
    """phi is (theta inside, log sigma, beta); the fixed effects are independent of the variances."""
    criterion = Criterion(fit.problem, fit.reml)
    with limited_threads(fit.design):
        covariance: FloatArray = np.asarray(2.0 * np.linalg.pinv(_hessian(criterion, fit.theta_inside), hermitian=True))
    structures, scaling = fit.problem.structures, fit.problem.scaling
    scale = fit.sigma**2 / scaling.weight_scale
    m, p = structures.n_theta, fit.beta.size
    s = m + 1 + p
    out, thetas = [], []
    root = np.sqrt(scaling.weight_scale)
    for t, (structure, place) in enumerate(zip(structures.each, structures.slices, strict=True)):
        S = scaling.S[t]
        d = np.zeros((s, structure.size, structure.size))
        d[place] = scale * (S @ structure.covariance_tangents(fit.theta_inside[place]) @ S.T)
        d[m] = 2.0 * fit.covariances[t]
        out.append(d)
        moved = np.zeros((s, structure.n_theta))
        moved[place] = structure.user.to_user_jacobian(fit.theta_inside[place], S / root).T
        thetas.append(moved)
    unit = np.eye(s)
    both = np.zeros((s, s))
    both[: m + 1, : m + 1] = covariance
    both[m + 1 :, m + 1 :] = fit.vcov
    return VarianceInformation(
        both, tuple(out), 2.0 * unit[m], unit[:, m + 1 :], unit[:, s:], tuple(thetas), relative=True
    )


def _hessian(criterion: Criterion, theta: FloatArray) -> FloatArray:
    """Hessian of the criterion in (theta, log sigma) at its minimum, sigma not profiled out.

    With d = f + r2 / sigma^2 + df log(sigma^2): d_ss = 4 df and d_st = -2 dr2/dt / sigma^2, so that the profiled
    Hessian P gives d_tt = P + d_ts d_st / d_ss.
    """
    m = theta.size
    profiled = np.empty((m, m))
    for i in range(m):
        h = _STEP * max(abs(float(theta[i])), 0.1)
        step = np.zeros(m)
        step[i] = h
        profiled[i] = (criterion.gradient(theta + step) - criterion.gradient(theta - step)) / (2.0 * h)
    if criterion.problem.known is not None:
        # A known sigma has no variance.
        held = np.zeros((m + 1, m + 1))
        held[:m, :m] = 0.5 * (profiled + profiled.T)
        return held
    point = criterion.evaluate(theta)
    cross = -2.0 * criterion.df / point.r2 * _r2_gradient(criterion, theta)
    out = np.empty((m + 1, m + 1))
    out[:m, :m] = 0.5 * (profiled + profiled.T) + np.outer(cross, cross) / (4.0 * criterion.df)
    out[m, :m] = out[:m, m] = cross
    out[m, m] = 4.0 * criterion.df
    return out


def _r2_gradient(criterion: Criterion, theta: FloatArray) -> FloatArray:
    """Derivative of the penalised residual sum of squares in theta: -g' dSigma g with g = Z'V^-1 (y - X beta)."""
    point = criterion.evaluate(theta)
    problem = criterion.problem
    _, g = point.swept.back_substitute(point.border, np.append(-point.beta, 1.0)[:, None])
    out = np.zeros(theta.size)
    for f, factor in enumerate(problem.factors):
        values = g[f].reshape(factor.n_columns, factor.n_levels)
        gram = factor.gram(values)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            structure, place = problem.structures.each[term], problem.structures.slices[term]
            out[place] = structure.covariance_pullback(theta[place], -gram[columns, columns])
    return out


def parameter_vcov(fit: LinearFit) -> FloatArray:
    """Covariance of (theta, beta, log sigma^2) on the user's scale, shape (m + p + 1, m + p + 1).

    Parameters
    ----------
    fit : LinearFit
    """
    inside, scaling = variance_information(fit).covariance, fit.problem.scaling
    m, p = fit.theta.size, fit.beta.size
    to_user = np.zeros((m + p + 1, inside.shape[0]))
    changes = [S / np.sqrt(scaling.weight_scale) for S in scaling.S]
    jacobian = fit.problem.structures.user.to_user_jacobian(fit.theta_inside, changes)
    to_user[:m, :m] = jacobian
    to_user[m : m + p, m + 1 :] = np.eye(p)
    to_user[-1, m] = 2.0
    covariance: FloatArray = to_user @ inside @ to_user.T
    return covariance
