"""Observed information of all parameters of a linear mixed model."""

from __future__ import annotations

import numpy as np

from lme4py.fits.derived import derived
from lme4py.fits.linear.fit import Curvature, LinearFit
from lme4py.fits.parameters import VarianceInformation
from lme4py.linalg.types import FloatArray

__all__ = ["parameter_vcov", "variance_information"]


@derived
def variance_information(fit: LinearFit) -> VarianceInformation:
    """phi is (theta inside, log sigma, beta); the fixed effects are independent of the variances."""
    covariance: FloatArray = np.asarray(
        2.0 * np.linalg.pinv(_hessian(fit.curvature, fit.problem.known is not None), hermitian=True)
    )
    structures, scaling = fit.problem.structures, fit.problem.scaling
    scale = fit.sigma**2 / scaling.weight_scale
    m, p = structures.n_theta, fit.beta.size
    s = m + 1 + p
    out, thetas = [], []
    root = np.sqrt(scaling.weight_scale)
    for t, (structure, place) in enumerate(zip(structures.each, structures.slices, strict=True)):
        S = scaling.S[t]
        d = np.zeros((s, *fit.covariances[t].shape))
        d[place] = scale * structure.whole_tangents(fit.theta_inside[place], S)
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


def _hessian(found: Curvature, known: bool) -> FloatArray:
    """Hessian of the criterion in (theta, log sigma) at its minimum, sigma not profiled out.

    With d = f + r2 / sigma^2 + df log(sigma^2): d_ss = 4 df and d_st = -2 dr2/dt / sigma^2, so that the profiled
    Hessian P gives d_tt = P + d_ts d_st / d_ss.
    """
    m = found.slope.size
    if known:
        # A known sigma has no variance.
        held = np.zeros((m + 1, m + 1))
        held[:m, :m] = found.hessian
        return held
    cross = 2.0 * found.df / found.r2 * found.slope
    out = np.empty((m + 1, m + 1))
    out[:m, :m] = found.hessian + np.outer(cross, cross) / (4.0 * found.df)
    out[m, :m] = out[:m, m] = cross
    out[m, m] = 4.0 * found.df
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
    jacobian = fit.problem.structures.user.to_user_jacobian(fit.theta_inside, scaling.column_changes)
    to_user[:m, :m] = jacobian
    to_user[m : m + p, m + 1 :] = np.eye(p)
    to_user[-1, m] = 2.0
    covariance: FloatArray = to_user @ inside @ to_user.T
    return covariance
