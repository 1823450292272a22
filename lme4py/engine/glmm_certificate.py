"""Proof that a point is the optimum of a generalised linear mixed model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from lme4py.engine.certificate import (
    CONVERGED,
    SINGULAR,
    Certificate,
    TermNames,
    describe_singular,
    verdict,
    with_estimate,
)
from lme4py.engine.glmm import GlmmProblem
from lme4py.engine.glmm_hessian import curvature_floor, newton_step, scaled_eigen
from lme4py.engine.glmm_solve import GlmmOptimum
from lme4py.engine.types import FloatArray


def certify_glmm(problem: GlmmProblem, optimum: GlmmOptimum, names: TermNames, trouble: str = "") -> Certificate:
    """Test the first- and second-order conditions of a minimum with the difference Hessian.

    Parameters
    ----------
    problem : GlmmProblem
    optimum : GlmmOptimum
    names : sequence of (label, column names), one per term
    trouble : str
        A known reason why there is no optimum, such as separation; the fit is then not certified.
    """
    theta = optimum.phi[: problem.n_theta]
    floor = curvature_floor(optimum.found, problem.unit)
    _, bound = newton_step(optimum.hessian, optimum.gradient, floor)
    _, values, _ = scaled_eigen(optimum.hessian, floor)
    stand_in: Any = SimpleNamespace(
        problem=SimpleNamespace(templates=problem.templates, scaling=SimpleNamespace(S=problem.S))
    )
    singular = describe_singular(stand_in, theta, names)
    shown = with_estimate(singular, problem.identification, problem.templates.factors(theta), problem.S)
    boundary = _boundary_derivative(problem, theta, optimum.hessian)
    lowest = float(values[0]) if values.size else 0.0
    # What counts is the criterion beside the point: differences can make a curvature of zero negative.
    descends = optimum.descends
    converged = bound < CONVERGED and not descends and not trouble
    return Certificate(
        gradient_norm=float(np.sqrt(2.0 * bound)),
        min_eigenvalue=lowest,
        bound=bound,
        boundary_derivative=boundary,
        converged=converged,
        is_singular=bool(singular),
        singular=shown,
        verdict=f"Not converged to finite estimates: {trouble}"
        if trouble
        else verdict(
            "-2 log-likelihood", converged, bound, descends, shown, unidentified=problem.identification.sentences
        ),
        unidentified=problem.identification.sentences,
    )


def _boundary_derivative(problem: GlmmProblem, theta: FloatArray, hessian: FloatArray) -> float | None:
    """Smallest one-sided derivative in a variance that is zero: half the curvature in its standard deviation."""
    zero = np.flatnonzero(problem.templates.diagonal() & (np.abs(theta) < SINGULAR * 1e-3))
    return 0.5 * float(hessian.diagonal()[zero].min()) if zero.size else None
