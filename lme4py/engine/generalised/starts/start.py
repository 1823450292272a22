"""Where the fit of a generalised linear mixed model begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.chunks import from_size
from lme4py.engine.generalised.laplace import restricted_part
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.generalised.starts.ordinal_start import newton_direction, start_thresholds
from lme4py.errors import DesignError
from lme4py.families.nuisance import total
from lme4py.linalg.types import FloatArray

# Scoring steps for the model without random effects (one, where they need not give a dispersion); the rest is left to
# the joint steps.
_GLM_STEPS = 4
# And those of several categories, up to a Newton decrement that is near enough for a start.
_JOINT_STEPS, _JOINT_NEAR = 25, 1e-3
# Of models with parts, how often each is halved, and how far from zero the predictor of a part may go.
_CLIMBED, _HALVED, _FARTHEST = 8, 5, 5.0
# And the rise of the log-likelihood that is not worth another one.
_CLIMB_NEAR = 0.02
# Of so many rows least squares go by their products: a start need not be exact.
_NORMAL_FROM = from_size(20_000)
# Random directions in which other maxima of the likelihood without random effects are looked for.
_AROUND, _AROUND_POLES = 6, 24


@dataclass(frozen=True)
class Start:
    """Where the optimiser begins: the model without random effects, and moment estimates of their sizes.

    Attributes
    ----------
    theta : ndarray, shape (m,)
    beta : ndarray, shape (p,)
    lam : float or ndarray
    value : float
        -2 log-likelihood of beta and lam without random effects.
    stepped : tuple of ndarray and float or ndarray, or None
        Of models with parts beta and lam after the first scoring step, from which they climbed.
    """

    theta: FloatArray
    beta: FloatArray
    lam: Any
    value: float = np.inf
    stepped: tuple[FloatArray, Any] | None = None


def find_start(problem: GlmmProblem) -> Start:
    """Scoring steps for the fixed effects alone; variances from the squares of Z's, as in a score test.

    Models with parts go on to the maximum without random effects.

    Parameters
    ----------
    problem : GlmmProblem
    """
    family, data = problem.family, problem.data
    if family.has_thresholds:
        with np.errstate(all="ignore"):
            beta, gamma = start_thresholds(problem)
            rows = family.derivatives(data, problem.fixed_part(beta), gamma, 2, expected=False)
            return Start(_moment_theta(problem, rows), beta, gamma, -2.0 * float(rows.loglik.sum()))
    if family.is_joint:
        with np.errstate(all="ignore"):
            return _joint_start(problem)
    with np.errstate(all="ignore"):
        lam: Any = problem.lambda_without
        if problem.n_nuisance:
            lam = _start_nuisance(problem, family.middle_eta(data))
        beta = _first_beta(problem, lam)
        if not data.parts:
            return start_at(problem, *_stepped(problem, beta, lam, _GLM_STEPS if problem.n_nuisance else 1))
        beta, lam = _stepped(problem, beta, lam, 1)
        top, at_top, rows = climbed(problem, beta, np.atleast_1d(lam))
        return replace(start_at(problem, top, at_top, rows), stepped=(beta, lam))


def plain_start(problem: GlmmProblem, usual: Start) -> Start:
    """The start without the climb of models with parts: their parts have no effects.

    Parameters
    ----------
    problem : GlmmProblem
    usual : Start
        What `find_start` gives; itself for models without parts.
    """
    if usual.stepped is None:
        return usual
    with np.errstate(all="ignore"):
        return start_at(problem, *_stepped(problem, *usual.stepped, _GLM_STEPS - 1))


def _stepped(problem: GlmmProblem, beta: FloatArray, lam: Any, steps: int) -> tuple[FloatArray, Any]:
    """Fixed effects and nuisance parameters after some scoring steps."""
    for _ in range(steps):
        rows = problem.family.derivatives(problem.data, problem.fixed_part(beta), lam, 2)
        beta = _scoring_step(problem, beta, lam, rows)
        lam = _start_nuisance(problem, problem.fixed_part(beta))
    return beta, lam


def start_at(problem: GlmmProblem, beta: FloatArray, lam: Any, rows: Any = None) -> Start:
    """A start with these fixed effects and nuisance parameters, and standard deviations by moments.

    Parameters
    ----------
    problem : GlmmProblem
    beta : ndarray, shape (p,)
    lam : float or ndarray
    rows : EtaDerivatives, optional
        Those of the first predictor there, where they are known.
    """
    if rows is None or problem.stack.size > 1:
        rows = _all_rows(problem, beta, lam)
    value = -2.0 * float(rows.loglik.sum())
    if problem.restricted:
        value += restricted_part(problem, problem.X.T @ problem.stack.weigh(rows.w_work, problem.X))
    return Start(_moment_theta(problem, rows), beta, lam, value)


def climbed(problem: GlmmProblem, beta: FloatArray, lam: FloatArray) -> tuple[FloatArray, FloatArray, Any]:
    """Newton steps with halving for all coefficients and parameters, without random effects: near enough for a start.

    Predictors of the parts stay where their likelihoods have a slope.

    Parameters
    ----------
    problem : GlmmProblem
    beta : ndarray, shape (p,)
    lam : ndarray, shape (d,)

    Returns
    -------
    beta : ndarray, shape (p,)
    lam : ndarray, shape (d,)
    rows : EtaDerivatives
        Those there, as `DensityFamily.curvatures` gives them.
    """
    X, p = problem.stack.first(problem.X), beta.size

    def rows_at(beta: FloatArray, lam: FloatArray) -> Any:
        return problem.family.curvatures(problem.data, problem.fixed_part(beta), lam)

    rows = rows_at(beta, lam)
    for _ in range(_CLIMBED):
        gradient = np.concatenate([X.T @ rows.score, total(rows.d_lam)])
        step = newton_direction(X, rows, gradient)
        decrease = float(gradient @ step)
        if not np.isfinite(decrease) or decrease < _CLIMB_NEAR:
            break
        before = float(rows.loglik.sum())
        for _ in range(_HALVED):
            trial = beta + step[:p], _sloped(problem, lam, step[p:])
            there = rows_at(*trial)
            if float(there.loglik.sum()) >= before:
                (beta, lam), rows = trial, there
                break
            step = 0.5 * step
        else:
            break
    return beta, lam, rows


def _sloped(problem: GlmmProblem, lam: FloatArray, step: FloatArray) -> FloatArray:
    """lambda after a step that is cut where a predictor of a part would go farther out than `_FARTHEST`."""
    start = 0
    for part in problem.data.parts:
        place = slice(start, start + part.X.shape[1])
        eta, change = part.predictor(lam[place]), part.X @ step[place]
        room = np.maximum(_FARTHEST - np.sign(change) * eta, 0.0)
        with np.errstate(divide="ignore"):
            step = step * min(1.0, float((room / np.abs(change)).min(initial=1.0)))
        start = place.stop
    moved: FloatArray = np.atleast_1d(problem.sloped_lambda(lam + step))
    return moved


def _joint_start(problem: GlmmProblem) -> Start:
    """Newton steps with halving for all linear predictors together; the log-likelihood is concave."""
    beta, X = np.zeros(problem.n_fixed), problem.X
    for _ in range(_JOINT_STEPS if X.shape[1] else 0):
        rows = problem.family.derivatives(problem.data, problem.fixed_part(beta), 0.0, 2)
        gradient = X.T @ rows.score
        step: Any = np.linalg.lstsq(X.T @ problem.stack.weigh(rows.w_obs, X), gradient, rcond=None)[0]
        if float(gradient @ step) < _JOINT_NEAR:
            break
        for _ in range(20):
            if _loglik(problem, beta + step, 0.0) >= float(rows.loglik.sum()):
                break
            step = 0.5 * step
        beta = beta + step
    rows = problem.family.derivatives(problem.data, problem.fixed_part(beta), 0.0, 2)
    return Start(_moment_theta(problem, rows), beta, 0.0, -2.0 * float(rows.loglik.sum()))


def glm_starts(problem: GlmmProblem, usual: Start) -> list[Start]:
    """Other maxima of the likelihood without random effects, where it can have some.

    Parameters
    ----------
    problem : GlmmProblem
    usual : Start

    Returns
    -------
    list of Start
        Distinct ones, the best first, without the usual one.
    """
    if problem.family.has_thresholds or not problem.n_fixed:
        return []
    found: list[tuple[float, Start]] = []
    with np.errstate(all="ignore"):
        known = [_loglik(problem, usual.beta, usual.lam)]
        for beta in _beta_candidates(problem, usual):
            if not _possible(problem, beta, usual.lam):
                continue
            beta, lam = _scored(problem, beta, usual.lam, 12)
            value = _loglik(problem, beta, lam)
            if not np.isfinite(value) or any(abs(value - other) < 0.05 for other in known):
                continue
            known.append(value)
            rows = _all_rows(problem, beta, lam)
            found.append((value, Start(_moment_theta(problem, rows), beta, lam)))
    return [start for _, start in sorted(found, key=lambda one: -one[0])]


def _all_rows(problem: GlmmProblem, beta: FloatArray, lam: Any) -> Any:
    """Derivatives in all predictors, without random effects."""
    eta = problem.stack.below(problem.fixed_part(beta))
    return problem.family.derivatives(problem.data, eta, lam, 2)


def _loglik(problem: GlmmProblem, beta: FloatArray, lam: Any) -> float:
    return float(problem.family.derivatives(problem.data, problem.fixed_part(beta), lam, 0).loglik.sum())


def _scored(problem: GlmmProblem, beta: FloatArray, lam: float, steps: int) -> tuple[FloatArray, float]:
    """Scoring steps for beta, with the dispersion by moments after each."""
    for _ in range(steps):
        eta = problem.fixed_part(beta)
        before = beta
        beta = _scoring_step(problem, beta, lam, problem.family.derivatives(problem.data, eta, lam, 2))
        lam = _start_nuisance(problem, problem.fixed_part(beta))
        if np.allclose(before, beta, rtol=1e-3, atol=1e-6):
            break
    return beta, lam


def _beta_candidates(problem: GlmmProblem, usual: Start) -> Iterator[FloatArray]:
    """Least squares with and without weights, a constant, other signs of an even link, and points around the usual."""
    family, data, X = problem.family, problem.data, problem.stack.first(problem.X)
    eta = family.start_eta(data)
    target = eta - problem.stack.first(problem.offset)
    one = np.ones(problem.n_obs)
    w = family.derivatives(data, eta, usual.lam, 2).w_work
    for goal, weights in (
        (target, np.where(np.isfinite(w), w, 0.0)),
        (target, one),
        (np.full(problem.n_obs, float(np.mean(target))), one),
    ):
        yield _least_squares(X, goal, weights)
    if family.link.has_pole:
        for column in X.T:
            for q in (0.3, 0.7):
                yield _least_squares(X, np.abs(eta) * np.sign(column - np.quantile(column, q)) - (eta - target), one)
    rng = np.random.default_rng(1)
    spread = float(np.std(target)) or 1.0
    for _ in range(_AROUND_POLES if family.link.has_pole else _AROUND):
        yield usual.beta + spread * rng.standard_normal(problem.n_fixed)


def _start_nuisance(problem: GlmmProblem, eta: FloatArray) -> Any:
    """Moment estimates, moved to where the likelihood has a slope: in the tail the gradient vanishes."""
    if not problem.n_nuisance:
        return problem.lambda_without
    return problem.sloped_lambda(problem.family.start_nuisance(problem.data, eta))


def _scoring_step(problem: GlmmProblem, beta: FloatArray, lam: float, rows: Any) -> FloatArray:
    """One step of scoring with halving."""
    X = problem.stack.first(problem.X)
    if not X.shape[1]:
        return beta
    w = np.where(np.isfinite(rows.w_work), rows.w_work, 0.0)
    step: Any = np.linalg.lstsq((X.T * w) @ X, X.T @ rows.score, rcond=None)[0]
    before = float(rows.loglik.sum())
    for _ in range(20):
        loglik = _loglik(problem, beta + step, lam)
        if loglik >= before:
            moved: FloatArray = beta + step
            return moved
        step = 0.5 * step
    return beta


def _moment_theta(problem: GlmmProblem, rows: Any) -> FloatArray:
    """Relative standard deviations from E sum_j (Z'_a s)_j^2 = sum_j A_aaj + tau^2 sum_j A_aaj^2."""
    if not problem.factors:
        return np.zeros(0)
    products = problem.products
    scores = products.split(products.gather(rows.score))
    # Standard deviations beyond 2 are no start where the predictor has no unit.
    bounded = not problem.family.link.has_unit
    sizes: list[FloatArray] = [np.empty(0)] * len(problem.structures.each)
    for factor, score, A in zip(problem.factors, scores, products.base(rows.w_work).diagonal, strict=True):
        information = np.einsum("aaj->aj", A)
        excess = (score.reshape(information.shape) ** 2 - information).sum(axis=1)
        square = np.maximum((information**2).sum(axis=1), 1e-300)
        floor = 0.3 / np.sqrt(np.maximum(information.mean(axis=1), 1e-300))
        tau = np.maximum(np.sqrt(np.maximum(excess / square, 0.0)), floor)
        tau = np.clip(tau, 0.05, 2.0) if bounded else tau
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            sizes[term] = np.where(np.isfinite(tau[columns]), tau[columns], 0.5)
    structures = problem.structures
    return structures.as_start(structures.theta_of_factors([np.diag(own) for own in sizes]), 0.0)


def _first_beta(problem: GlmmProblem, lam: float) -> FloatArray:
    """Fixed effects by least squares on the working start of the family."""
    family, data = problem.family, problem.data
    eta = family.start_eta(data)
    target = eta - problem.stack.first(problem.offset)
    w = family.derivatives(data, eta, lam, 2).w_work
    w = np.where(np.isfinite(w), w, 0.0)
    constant = np.full(problem.n_obs, float(np.mean(target)))
    one = np.ones(problem.n_obs)
    for goal, weights in ((target, w), (target, one), (constant, one), (np.zeros(problem.n_obs), one)):
        beta = _least_squares(problem.stack.first(problem.X), goal, weights)
        if np.isfinite(beta).all() and _possible(problem, beta, lam):
            return beta
    raise DesignError(
        f"no starting value was found: with the {family.link.name} link no linear combination of the fixed effects "
        "that was tried gives every row a possible mean. Include an intercept, or use another link."
    )


def _least_squares(X: FloatArray, y: FloatArray, w: FloatArray) -> FloatArray:
    if not X.shape[1]:
        return np.empty(0)
    if X.shape[0] >= _NORMAL_FROM:
        return np.asarray(np.linalg.lstsq((X.T * w) @ X, X.T @ (w * y), rcond=None)[0], dtype=np.float64)
    root = np.sqrt(w)
    return np.asarray(np.linalg.lstsq(X * root[:, None], y * root, rcond=None)[0], dtype=np.float64)


def _possible(problem: GlmmProblem, beta: FloatArray, lam: float) -> bool:
    with np.errstate(all="ignore"):
        loglik = problem.family.derivatives(problem.data, problem.fixed_part(beta), lam, 0).loglik
    return bool(np.isfinite(loglik).all())
