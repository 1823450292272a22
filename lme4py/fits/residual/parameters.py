"""Errors of the covariance parameters of a model with a residual structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lme4py.covariance import CovarianceStructure, NaturalParameter
from lme4py.fits.derived import derived
from lme4py.fits.parameters import Parameter, VarianceInformation
from lme4py.fits.residual.fit import ResidualFit
from lme4py.linalg.types import FloatArray

__all__ = [
    "ResidualParameter",
    "deviation_limits",
    "log_sigma_slopes",
    "par_covariance",
    "parameter_label",
    "profiled_parameters",
    "residual_errors",
    "residual_parameters",
    "variance_information",
]

# Step of central differences, relative to a parameter inside; natural parameters are smooth and cheap.
_STEP = 1e-5
# Least unit of a parameter inside, where it is next to zero.
_UNIT = 1e-3


def par_covariance(fit: ResidualFit) -> FloatArray:
    """Covariance of the parameters inside, shape (m, m): twice the inverse of the Hessian, without flat directions.

    What is flat is told in units of the parameters: a standard deviation beside a power of large values is small.
    """
    units = np.maximum(np.abs(fit.par), _UNIT)
    values, vectors = np.linalg.eigh(fit.hessian * np.outer(units, units))
    kept = values > 1e-10 * max(1.0, float(values.max(initial=0.0)))
    half = units[:, None] * vectors[:, kept]
    return np.asarray(2.0 * (half / values[kept]) @ half.T)


@dataclass(frozen=True)
class ResidualParameter:
    """A parameter of the residuals as it is printed.

    Attributes
    ----------
    stratum, label : str
    estimate, std_error : float
        NaN for an error that the curvature does not give.
    lower, upper : float
        Wald limits on an unbounded scale: the logarithm of what is positive, Fisher's z of a correlation.
    """

    stratum: str
    label: str
    estimate: float
    std_error: float
    lower: float
    upper: float


def profiled_parameters(fit: ResidualFit) -> tuple[Parameter, ...]:
    """The parameters of the residuals beside `sigma`, with names: what profiles and intervals are made of.

    Parameters
    ----------
    fit : ResidualFit
    """
    side, found, count = fit.residual, [], 0
    for h, (stratum, structure) in enumerate(zip(side.strata, side.part.structures, strict=True)):
        for i, own in enumerate(structure.natural_parameters):
            is_sigma = fit.has_residual and own.kind == "sd"
            if not (own.held or is_sigma):
                name = f"residual {parameter_label(own, side.columns)}" + (f" in {stratum}" if stratum else "")
                # With variance functions `sigma` is the standard deviation where they are 1.
                alias = "sigma" if own.kind == "sd" and side.has_one_structure else name
                found.append(
                    Parameter(name, "residual", -1, h, i, alias, name, name, natural=count, natural_parameter=own)
                )
            count += 1
    for j, scale in enumerate(side.scale_names):
        name = f"residual {scale}"
        found.append(Parameter(name, "residual", -1, -1, j, name, name, name, natural=count + j))
    return tuple(found)


def parameter_label(parameter: NaturalParameter, columns: Sequence[str]) -> str:
    """``"cor(V1, V2)"``, ``"range"``."""
    own = ", ".join(columns[j] for j in parameter.columns) if columns else ""
    return f"{parameter.label}({own})" if own else parameter.label


def residual_parameters(fit: ResidualFit, z: float) -> list[ResidualParameter]:
    """Standard deviations, correlations, ranges and coefficients of the residuals with limits z errors away.

    Parameters
    ----------
    fit : ResidualFit
    z : float
    """
    found: list[ResidualParameter] = []
    side, errors = fit.residual, residual_errors(fit).tolist()
    for h, (stratum, structure) in enumerate(zip(side.strata, side.part.structures, strict=True)):
        values = structure.natural(fit.residual_theta(h)).tolist()
        for parameter, value in zip(structure.natural_parameters, values, strict=True):
            label, error = parameter_label(parameter, side.columns), errors[len(found)]
            slope = parameter.slope(value)
            if not (np.isfinite(slope) and error > 0.0) or parameter.at_end(value):
                found.append(ResidualParameter(stratum, label, value, np.nan, parameter.lower, parameter.upper))
                continue
            centre = parameter.unbounded(value)
            ends = [parameter.bounded(centre + sign * z * slope * error) for sign in (-1.0, 1.0)]
            found.append(ResidualParameter(stratum, label, value, error, min(ends), max(ends)))
    for name, value in zip(side.scale_names, fit.scale_coefficients.tolist(), strict=True):
        error = errors[len(found)]
        found.append(ResidualParameter("", name, value, error, value - z * error, value + z * error))
    return found


@derived
def residual_errors(fit: ResidualFit) -> FloatArray:
    """Standard errors of `ResidualFit.residual_values` by the delta method, (r,)."""
    A = par_covariance(fit)
    found: list[FloatArray] = []
    at = fit.problem.criterion.model.slices[-1]
    part = fit.problem.criterion.model.residual
    for h, structure in enumerate(part.structures):
        J = np.zeros((structure.natural(fit.residual_theta(h)).size, A.shape[0]))
        slopes = _slopes(structure.natural, fit.residual_theta(h))
        J[:, fit.residual_place(h)] = slopes * _unit(fit, h)
        # Standard deviations at the origin of the columns of the variance move with their coefficients.
        J[:, at] = -np.outer(slopes @ _growth(structure, fit.residual_theta(h)), part.shifts)
        found.append(np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", J, A, J), 0.0)))
    return np.concatenate([*found, np.sqrt(A.diagonal()[at]) / part.units])


def _growth(structure: CovarianceStructure, theta: FloatArray) -> FloatArray:
    """d theta / d log(size) of parameters of size^2 times the covariance, (m,)."""
    return (structure.scaled(theta, np.exp(_STEP)) - structure.scaled(theta, np.exp(-_STEP))) / (2.0 * _STEP)


def deviation_limits(fit: ResidualFit, z: float) -> FloatArray:
    """Wald limits of `residual_deviations`, on the log scale z errors away; NaN for what is known, shape (k, 2).

    Parameters
    ----------
    fit : ResidualFit
    z : float
    """
    side = fit.residual
    if side.has_one_structure:
        slopes = log_sigma_slopes(fit) if side.part.structures[0].n_theta else np.zeros(fit.par.size)
        error = float(np.sqrt(slopes @ par_covariance(fit) @ slopes)) or float("nan")
        return fit.sigma * np.exp(z * error * np.array([[-1.0, 1.0]]))
    kinds = [parameter.kind for structure in side.part.structures for parameter in structure.natural_parameters]
    found = zip(kinds, residual_parameters(fit, z), strict=False)
    return np.array([(one.lower, one.upper) for kind, one in found if kind == "sd"]).reshape(-1, 2)


def _unit(fit: ResidualFit, h: int) -> FloatArray:
    """d theta / d par of the residuals of a stratum: theta outside moves with that inside, element by element, (m,)."""
    structure = fit.residual.part.structures[h]
    size = fit.problem.residual_size(fit.par)
    inside = fit.par[fit.residual_place(h)]
    return np.diagonal(_slopes(lambda par: structure.scaled(par, size), inside)).copy()


def _slopes(function: Callable[[FloatArray], FloatArray], x: FloatArray) -> FloatArray:
    """Derivatives by central differences, (r, m)."""
    columns: list[FloatArray] = []
    if not x.size:
        return np.zeros((function(x).size, 0))
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = _STEP * max(abs(float(x[i])), 0.1)
        columns.append((function(x + step) - function(x - step)) / (2.0 * step[i]))
    return np.stack(columns, axis=1)


@derived
def log_sigma_slopes(fit: ResidualFit) -> FloatArray:
    """Derivatives of the logarithm of sigma of the first position in the parameters inside, shape (m,).

    Parameters
    ----------
    fit : ResidualFit
    """
    out = np.zeros(fit.par.size)
    if not fit.residual.part.structures[0].n_theta:
        return out
    model, place = fit.problem.criterion.model, fit.problem.residual_slice(0)
    points = model.residual.points[:1][:, None]
    at = points[..., 0] if points.shape[-1] == 1 else points
    jet = model.residual.structures[0].covariance_derivatives(fit.par[place], at, order=1)
    out[place] = 0.5 * jet.first[:, 0, 0, 0] / jet.value[0, 0, 0]
    out[model.slices[-1]] = -model.residual.shifts
    return out


@derived
def variance_information(fit: ResidualFit) -> VarianceInformation:
    """Covariance of (par, beta): those of the covariance parameters and of the fixed effects are independent."""
    model, problem = fit.problem.criterion.model, fit.problem
    m, p = fit.par.size, fit.beta.size
    covariance = np.zeros((m + p, m + p))
    covariance[:m, :m], covariance[m:, m:] = par_covariance(fit), fit.vcov
    covariances, thetas = [], []
    for t, (part, place) in enumerate(zip(model.random, model.slices, strict=False)):
        own = np.zeros((m + p, part.structure.size, part.structure.size))
        own[place] = problem.outside(t, part.structure.covariance_tangents(fit.par[place]))
        covariances.append(own)
        moved = np.zeros((m + p, part.structure.n_theta))
        moved[place] = _slopes(partial(problem.theta_of_term, t), fit.par[place]).T
        thetas.append(moved)
    residual = np.zeros(m + p)
    if fit.has_residual:
        residual[:m] = 2.0 * log_sigma_slopes(fit)
    fixed = np.concatenate([np.zeros((m, p)), np.eye(p)])
    return VarianceInformation(covariance, tuple(covariances), residual, fixed, np.zeros((m + p, 0)), tuple(thetas))
