"""The criterion of a generalised linear mixed model for optimisers of every make."""

from __future__ import annotations

import numpy as np

from lme4py.engine.generalised.criteria import JointCriterion, ProfiledCriterion
from lme4py.engine.generalised.integrals.nested_quadrature import refinement
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.starts.start import find_start
from lme4py.engine.optimise import Local
from lme4py.fits.answers.objective import NOWHERE, Objective
from lme4py.fits.generalised.fit import GeneralisedFit, covariances_of
from lme4py.linalg.types import FloatArray

__all__ = ["objective"]


def objective(fit: GeneralisedFit) -> Objective:
    problem = fit.problem
    finder = ModeFinder(problem)
    refine = refinement(finder, fit.nAGQ)
    first = find_start(problem)
    m, p = problem.n_theta, problem.n_fixed
    profiled = ProfiledCriterion(finder, first.beta)
    joint = JointCriterion(finder, refine)
    start = problem.join(first.theta, first.beta, first.lam)
    is_profiled = fit.nAGQ == 0 or fit.restricted
    if is_profiled:
        start = np.delete(start, np.s_[m : m + p])
    # Steps are counted in units of the curvature at the fit.
    unit = _units(fit, start.size)

    def at(x: FloatArray) -> tuple[float, FloatArray] | None:
        if is_profiled:
            found = profiled.evaluate(x * unit)
            return None if found is None else (found.value, found.gradient * unit)
        result = joint.evaluate(x * unit)
        return None if result is None else (result[1], result[2] * unit)

    def local(x: FloatArray) -> Local | None:
        found = (profiled if is_profiled else joint).local(x * unit)
        if found is None:
            return None
        return Local(x, found.value, found.gradient * unit, found.hessian * np.outer(unit, unit), None)

    def value(x: FloatArray) -> tuple[float, FloatArray]:
        found = at(x)
        return (NOWHERE, np.zeros_like(x)) if found is None else found

    def estimates(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        phi = x * unit
        beta = phi[m : m + p]
        if is_profiled:
            found = profiled.evaluate(phi)
            beta = np.full(p, np.nan) if found is None else found.mode.beta
        variances = [covariance.diagonal() for covariance in covariances_of(problem, phi)]
        return problem.C @ beta, np.sqrt(np.concatenate([np.zeros(0), *variances]))

    return Objective(value, estimates, local, start / unit, problem.structures, (3.0, 20.0))


def _units(fit: GeneralisedFit, size: int) -> FloatArray:
    """Roughly the standard errors of the engine's parameters."""
    m, p = fit.problem.n_theta, fit.problem.n_fixed
    unit = np.ones(size)
    unit[:m] = 0.3
    if fit.nAGQ > 0 and not fit.restricted and p:
        inverse = np.linalg.inv(fit.problem.C)
        unit[m : m + p] = np.sqrt(np.maximum(np.diag(inverse @ fit.vcov @ inverse.T), 1e-12))
    return unit
