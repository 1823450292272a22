"""Standard errors and Wald intervals of standard deviations and correlations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from lme4py.engine.types import FloatArray
from lme4py.fit import Fit
from lme4py.inference.parameters import Parameter, parameter_values
from lme4py.inference.varpar import VarianceInformation, variance_information

__all__ = ["standard_errors", "wald_limits"]


def standard_errors(fit: Fit, wanted: Sequence[Parameter]) -> FloatArray:
    """Standard errors by the delta method; zero or NaN on the boundary.

    Parameters
    ----------
    fit : Fit
    wanted : sequence of Parameter
    """
    fixed = np.sqrt(np.diag(fit.vcov))
    if all(parameter.kind == "fixed" for parameter in wanted):
        return fixed[[parameter.first for parameter in wanted]]
    information = variance_information(fit)
    return np.array(
        [fixed[p.first] if p.kind == "fixed" else information.std_error(_gradient(fit, information, p)) for p in wanted]
    )


def _gradient(fit: Fit, information: VarianceInformation, parameter: Parameter) -> FloatArray:
    """Derivative of a standard deviation or correlation in phi."""
    if parameter.kind == "sigma":
        return information.residual / (2.0 * fit.sigma)
    cov, d = fit.covariances[parameter.term], information.covariances[parameter.term]
    i, j = parameter.first, parameter.second
    with np.errstate(divide="ignore", invalid="ignore"):
        if parameter.kind == "sd":
            own: FloatArray = d[:, i, i] / (2.0 * np.sqrt(cov[i, i]))
            return own
        sizes = np.sqrt(cov[i, i] * cov[j, j])
        half = d[:, i, i] / (2.0 * cov[i, i]) + d[:, j, j] / (2.0 * cov[j, j])
        gradient: FloatArray = d[:, i, j] / sizes - cov[i, j] / sizes * half
        return gradient


def wald_limits(fit: Fit, wanted: Sequence[Parameter], alpha: float) -> FloatArray:
    """Limits, shape (len(wanted), 2).

    Normal ones for fixed effects, on the log scale for standard deviations, on that of Fisher's z for correlations.

    Parameters
    ----------
    fit : Fit
    wanted : sequence of Parameter
    alpha : float
    """
    z = -special.ndtri(alpha / 2.0)
    values = parameter_values(wanted, fit.beta, fit.covariances, fit.sigma)
    out = np.empty((len(wanted), 2))
    for row, parameter, value, error in zip(out, wanted, values, standard_errors(fit, wanted), strict=True):
        row[:] = _limits(parameter.kind, float(value), z * float(error))
    return out


def _limits(kind: str, value: float, half: float) -> tuple[float, float]:
    if kind == "fixed":
        return value - half, value + half
    if kind == "corr":
        if not abs(value) < 1.0 or not np.isfinite(half):
            return -1.0, 1.0
        centre, spread = np.arctanh(value), half / (1.0 - value**2)
        return float(np.tanh(centre - spread)), float(np.tanh(centre + spread))
    if value == 0.0 or not np.isfinite(half):
        # On the boundary the curvature says nothing; the profile does.
        return 0.0, float("nan")
    return value * float(np.exp(-half / value)), value * float(np.exp(half / value))
