"""What is proved about the optimum of a generalised linear mixed model, and what it was compared with."""

from __future__ import annotations

import numpy as np

from lme4py.engine.certificate import (
    CONVERGED,
    SINGULAR,
    Certificate,
    TermNames,
    describe_limits,
    describe_singular,
    second_minimum,
    verdict,
    with_estimate,
)
from lme4py.engine.generalised.hessian import curvature_floor, scaled_eigen
from lme4py.engine.generalised.laplace import FINE_RULE, splits_into_groups
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.linalg.types import FloatArray

# A row that is met exactly adds 1 to the slope of -2 log-likelihood in log dispersion; at a limit there is none.
_GROWS = 0.3
_FALLS = (
    "From another start the criterion falls below this minimum, but to none: rows are met exactly there, or the "
    "Laplace approximation breaks down. The estimates are a local maximum of a likelihood that is larger elsewhere."
)
_BETTER = f" Compare with {FINE_RULE}, which integrates by quadrature."
_BOTH_SIGNS = (
    "The linear predictor has both signs, and the {link} link has a pole or a zero between them: every way to give "
    "rows a sign has minima of its own, many more than were compared. Use another link if the signs make no sense."
)


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
    trouble = trouble or _unbounded(problem, optimum)
    trouble = trouble or problem.family.trouble(problem.data, optimum.found.mode.eta, problem.split(optimum.phi)[2])
    bound, values = optimum.bound, optimum.curvatures.values
    if problem.has_limit and problem.at_limit(optimum.phi[-1]):
        values = scaled_eigen(optimum.hessian[:-1, :-1], curvature_floor(optimum.found, problem.units)).values
    singular = describe_singular(problem.structures, problem.S, theta, names)
    limits = describe_limits(problem.structures, theta, names, singular)
    shown = with_estimate(singular, problem.identification, problem.structures.factors(theta), problem.S)
    boundary = _boundary_derivative(problem, theta, optimum.hessian)
    lowest = float(values[0]) if values.size else 0.0
    # What counts is the criterion beside the point, unless a curvature is clearly negative: differences can make one of
    # zero a little so.
    descends = optimum.descends or optimum.curvatures.bends_down
    converged = bound < CONVERGED and not descends and not trouble
    caution = "" if trouble or not converged else _caution(problem, optimum)
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
            "-2 log-likelihood" if problem.penalty is None else "-2 log-likelihood penalised by the priors",
            converged,
            bound,
            descends,
            shown,
            optimum.compared,
            unidentified=problem.identification.sentences,
            value=optimum.value,
        )
        + _limit(problem, optimum)
        + "".join(f" {more}" for more in (limits, caution) if more),
        unidentified=problem.identification.sentences,
        compared=optimum.compared,
        caution=caution,
        second=second_minimum(optimum.compared, optimum.value) if converged else None,
    )


def _caution(problem: GlmmProblem, optimum: GlmmOptimum) -> str:
    """What stands beside a proved minimum, or ""."""
    link, eta = problem.family.link, optimum.found.mode.eta
    split = link.has_pole and bool((eta > 0.0).any() and (eta < 0.0).any())
    falls = _FALLS + (_BETTER if optimum.at_pole and splits_into_groups(problem) else "")
    parts = (falls if optimum.falls else "", _BOTH_SIGNS.format(link=link.name) if split else "")
    return " ".join(part for part in parts if part)


def _limit(problem: GlmmProblem, optimum: GlmmOptimum) -> str:
    """A sentence about a dispersion at the end of its range, or ""."""
    others = optimum.phi[problem.n_theta + problem.n_fixed :][: len(problem.family.nuisance_names)]
    names = problem.family.nuisance_names
    text = "".join(
        f" {names[i]} is at the end of its range: {model}."
        for i, model in problem.family.other_ends(others.tolist()).items()
    )
    if not problem.at_limit(optimum.phi[-1]):
        return text
    return f"{text} The dispersion is at the end of its range: {problem.limit_model}."


def _unbounded(problem: GlmmProblem, optimum: GlmmOptimum) -> str:
    """Why there is no maximum where the likelihood still grows at the end of the range of the dispersion, or ""."""
    if not problem.at_limit(optimum.phi[-1]) or abs(optimum.gradient[-1]) < _GROWS:
        return ""
    return (
        f"the likelihood has no maximum: it grows without bound as {problem.family.parameter} goes to "
        f"{problem.family.dispersion(problem.reported_lambda(optimum.phi[-1])):g}, because fixed and random effects "
        "together reproduce rows exactly, or to less than 1e-5 of their size. Check the response, leave terms out, or "
        "merge levels of the grouping factors."
    )


def _boundary_derivative(problem: GlmmProblem, theta: FloatArray, hessian: FloatArray) -> float | None:
    """Smallest one-sided derivative in a variance that is zero: half the curvature in its standard deviation."""
    zero = np.flatnonzero(problem.structures.edge_sizes(theta) < SINGULAR * 1e-3)
    return 0.5 * float(hessian.diagonal()[zero].min()) if zero.size else None
