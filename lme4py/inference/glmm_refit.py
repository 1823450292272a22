"""A generalised model with a new response: the symbolic structure is used again, from the old optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.design.response import ResponseData, binomial_response, glmm_response
from lme4py.engine.glmm import GlmmProblem, ModeError, ModeFinder
from lme4py.engine.glmm_solve import GlmmOptimum, JointCriterion, _finish, _with_snaps, solve_glmm
from lme4py.engine.nested_quadrature import make_quadrature
from lme4py.engine.one_answer import refuse_one_answer
from lme4py.engine.optimize import Control, Optimum
from lme4py.engine.threads import limited_threads
from lme4py.engine.types import FloatArray
from lme4py.errors import DataError, DesignError
from lme4py.formula.values import Value
from lme4py.glmm_fit import GlmmFit, _make_fit, warn_of
from lme4py.inference.glmm_simulate import is_proportion, numeric_categories
from lme4py.inference.response_rows import levels_of_response, response_numbers

__all__ = ["Estimates", "new_response", "refit_estimates", "refit_glmm"]

# Tolerance of the last stage of a fit.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Estimates:
    """The estimates of a refit without standard errors and certificate, on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    theta : ndarray, shape (m,)
    covariances : tuple of ndarray, each (k, k)
    log_dispersion : float or None
    criterion : float
        -2 log-likelihood.
    thresholds : ndarray, shape (K - 1,), or None
        Of ordered categories.
    """

    beta: FloatArray
    theta: FloatArray
    covariances: tuple[FloatArray, ...]
    log_dispersion: float | None
    criterion: float
    thresholds: FloatArray | None = None


def new_response(fit: GlmmFit, y: Any) -> ResponseData:
    """A new response of the rows used, checked for the family.

    Parameters
    ----------
    fit : GlmmFit
    y : array_like, shape (n,) or (n, 2)
        One value per row used, or one per row of the data, also as a data frame with one column; with an index it is
        matched with the rows by it. Binomial models of several trials per row: numbers of
        successes (proportions where the model was given proportions), or successes and failures side by side.
        Ordinal models: the categories; where these are no numbers, also their positions 0 .. K - 1.

    Returns
    -------
    ResponseData
    """
    data = _checked(fit, y)
    refuse_one_answer(fit.design, fit.family, data)
    return data


def _checked(fit: GlmmFit, y: Any) -> ResponseData:
    binomial = fit.family.name == "binomial"
    levels = levels_of_response(fit.design) if binomial else fit.categories
    values = response_numbers(fit.design, y, levels, coded=numeric_categories(fit), pairs=binomial)
    if fit.categories:
        return _ordered(fit, values)
    name, weights = fit.design.response_name, fit.data.weights
    if not binomial:
        return glmm_response(Value("numeric", values), name, fit.family.name, weights)
    if values.ndim == 2:
        return glmm_response(Value("matrix", values), name, "binomial", weights)
    if is_proportion(fit):
        return glmm_response(Value("numeric", values), name, "binomial", fit.data.trials)
    data = binomial_response(values, fit.data.n_trials, name, weights)
    return data if fit.data.trials is None else replace(data, trials=fit.data.trials)


def _ordered(fit: GlmmFit, codes: FloatArray) -> ResponseData:
    """Positions of categories, each of which must occur."""
    K = len(fit.categories)
    if not np.isin(codes, np.arange(K)).all():
        raise DataError(f"the new response holds values that are no positions 0 .. {K - 1} of its categories.")
    absent = [repr(fit.categories[k]) for k in range(K) if not (codes == k).any()]
    if absent:
        raise DataError(
            f"the new response never has {', '.join(absent)}: a threshold has no finite estimate; fit a model with "
            "fewer categories."
        )
    return ResponseData(codes, None, fit.data.weights, fit.data.categories)


def refit_glmm(fit: GlmmFit, y: Any, compare: bool = True) -> GlmmFit:
    """Fit the same generalised model to a new response.

    Parameters
    ----------
    fit : GlmmFit
    y : array_like, shape (n,) or (n, 2)
        See `new_response`.
    compare : bool
        As in `glmm_fit`.

    Returns
    -------
    GlmmFit
    """
    data = new_response(fit, y)
    design = replace(fit.design, y=data.table, response=data)
    finder = ModeFinder(replace(fit.problem, data=data))
    again = None
    with limited_threads(design):
        optimum = None if fit.nAGQ == 0 else _polished(_near(fit, finder))
        if optimum is not None:
            again = _make_fit(design, fit.family, data, fit.nAGQ, fit.hessian, finder, optimum)
        if again is None or not again.certificate.converged:
            # The usual way, with its own starting values, finds the optimum or says why there is none.
            optimum = _from_nothing(fit, finder)
            again = _make_fit(design, fit.family, data, fit.nAGQ, fit.hessian, finder, optimum)
    warn_of(again, compare, stacklevel=4)
    return again


def refit_estimates(fit: GlmmFit, y: Any) -> Estimates:
    """The estimates of the same model for a new response; faster than `refit_glmm`, which also makes a certificate.

    Parameters
    ----------
    fit : GlmmFit
    y : array_like
        See `new_response`.
    """
    finder = ModeFinder(replace(fit.problem, data=new_response(fit, y)))
    with limited_threads(fit.design):
        near = None if fit.nAGQ == 0 else _near(fit, finder)
        if near is None:
            optimum = _from_nothing(fit, finder)
            return _estimates(finder.problem, optimum.phi, optimum.value)
        return _estimates(finder.problem, near[1].theta, near[1].value)


def _estimates(problem: GlmmProblem, phi: FloatArray, value: float) -> Estimates:
    theta, beta, inside = problem.split(phi)
    lam = problem.user_nuisance(beta, inside)
    roots = [S @ T for S, T in zip(problem.S, problem.templates.factors(theta), strict=True)]
    return Estimates(
        problem.C @ beta,
        problem.templates.user.theta_of_factors(roots),
        tuple(root @ root.T for root in roots),
        lam if problem.n_dispersion else None,
        value,
        problem.family.alpha(lam) if problem.family.name == "ordinal" else None,
    )


def _polished(near: tuple[JointCriterion, Optimum] | None) -> GlmmOptimum | None:
    """The optimum with its Hessian; None where that cannot be had."""
    try:
        return None if near is None else _finish(*near)
    except (DesignError, ModeError, np.linalg.LinAlgError):
        return None


def _near(fit: GlmmFit, finder: ModeFinder) -> tuple[JointCriterion, Optimum] | None:
    """The optimum from the old one; None where the way from there does not end at one."""
    refine = make_quadrature(finder, fit.nAGQ) if fit.nAGQ not in (0, 1) else None
    criterion = JointCriterion(finder, refine)
    start = finder.problem.join(start_theta(fit), *finder.problem.split(fit.phi)[1:])
    try:
        optimum = _with_snaps(criterion.local, start, Control(tolerance=_TOLERANCE), finder)
    except (DesignError, ModeError, np.linalg.LinAlgError):
        return None
    return (criterion, optimum) if np.isfinite(optimum.value) else None


def start_theta(fit: GlmmFit) -> FloatArray:
    """theta inside to start from: that of the fit, moved off the boundary."""
    from lme4py.inference.refit import off_boundary

    return off_boundary(fit.problem.templates, fit.phi[: fit.problem.n_theta])


def _from_nothing(fit: GlmmFit, finder: ModeFinder) -> GlmmOptimum:
    refine = make_quadrature(finder, fit.nAGQ) if fit.nAGQ not in (0, 1) else None
    return solve_glmm(finder, start_theta(fit), Control(), refine, profiled=fit.nAGQ == 0)
