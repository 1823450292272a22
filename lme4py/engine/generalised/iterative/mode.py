"""The conditional mode of crossed effects by Newton steps whose systems are solved by conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lme4py.engine.factor.crossed import CrossedAt
from lme4py.engine.factor.crossed_inverse import effects_of
from lme4py.engine.generalised.iterative.cells import CellProducts
from lme4py.engine.generalised.problem import MAX_HALVINGS, MAX_STEPS, GlmmProblem
from lme4py.families.nuisance import total
from lme4py.linalg.types import FloatArray

__all__ = ["CellMode", "LastPass", "last_pass", "mode_of", "predictor_of"]

# The mode has been found when another Newton step would lower the penalised deviance by less than this.
_TOLERANCE = 1e-10
# Residuals of the systems of a Newton step: its error is the square.
_STEP = 1e-4
# Step of the difference for the curvature in a log dispersion.
_DIFFERENCE = 1e-4


class _Sums(NamedTuple):
    """What a Newton step needs of the rows: -2 log f and its rounding, Z's (Q,), and W (n,)."""

    deviance: float
    noise: float
    score: FloatArray
    w: FloatArray


@dataclass(frozen=True)
class CellMode:
    """The conditional mode at one value of the parameters.

    Attributes
    ----------
    theta, beta : ndarray
    lam : float
    T : list of ndarray
        By factor.
    u, b, score : ndarray, shape (Q,)
        As in `lme4py.engine.generalised.problem.Mode`.
    at : CrossedAt
        With the weights at the mode.
    w : ndarray, shape (n,)
    objective : float
        -2 sum log f + |u|^2.
    iterations : int
        Most steps of conjugate gradients.
    """

    theta: FloatArray
    beta: FloatArray
    lam: Any
    T: list[FloatArray]
    u: FloatArray
    b: FloatArray
    score: FloatArray
    at: CrossedAt
    w: FloatArray
    objective: float
    iterations: int


def mode_of(problem: GlmmProblem, phi: FloatArray, b: FloatArray) -> CellMode:
    """Newton steps with guaranteed decrease; the log-likelihood is concave in the linear predictor.

    Parameters
    ----------
    problem : GlmmProblem
        One that `is_iterative`.
    phi : ndarray
    b : ndarray, shape (Q,)
        Start.

    Raises
    ------
    numpy.linalg.LinAlgError
        No mode is found, or the likelihood is zero at the start.
    """
    products: CellProducts = problem.products  # type: ignore[assignment]
    theta, beta, lam = problem.split(phi)
    T = problem.factor_T(theta)
    inverse: list[FloatArray] = [np.asarray(np.linalg.inv(t), dtype=np.float64) for t in T]
    u = _by_factor(products, inverse, b)
    sums = _pass(problem, beta, lam, b)
    value, iterations = sums.deviance + float(u @ u), 0
    if not np.isfinite(value):
        raise np.linalg.LinAlgError("the likelihood is zero at the starting values")
    for _ in range(MAX_STEPS):
        at = CrossedAt.of(products.weighted(sums.w), T)
        slope = sums.score - _by_factor(products, [t.T for t in inverse], u)
        moved, steps = effects_of(at, slope[:, None], _STEP)
        change, iterations = moved[:, 0], max(iterations, steps)
        decrease = float(slope @ change)
        change_u = _by_factor(products, inverse, change)
        if decrease > _TOLERANCE:
            found = _lower(problem, beta, lam, (u, change_u), (b, change), value, decrease, sums.noise)
            if found is not None:
                sums, u, b, value = found
                continue
        return CellMode(theta, beta, lam, T, u, b, sums.score, at, sums.w, value, iterations)
    raise np.linalg.LinAlgError(f"no mode after {MAX_STEPS} Newton steps")


def _lower(
    problem: GlmmProblem,
    beta: FloatArray,
    lam: Any,
    along_u: tuple[FloatArray, FloatArray],
    along_b: tuple[FloatArray, FloatArray],
    value: float,
    decrease: float,
    noise: float,
) -> tuple[_Sums, FloatArray, FloatArray, float] | None:
    """A lower point along a step; None where only rounding is left."""
    t = 1.0
    noise = 1e-13 * abs(value) + 1e-15 * noise
    for _ in range(MAX_HALVINGS):
        u, b = (start + t * change for start, change in (along_u, along_b))
        sums = _pass(problem, beta, lam, b)
        trial = sums.deviance + float(u @ u)
        if trial <= value - 1e-4 * t * decrease + noise:
            return sums, u, b, trial
        t *= 0.5
    if decrease < max(1e-8, noise):
        return None
    raise np.linalg.LinAlgError("the penalised likelihood does not rise along the Newton direction")


def _by_factor(products: CellProducts, T: list[FloatArray], x: FloatArray) -> FloatArray:
    """T times the effects of each level, (Q,)."""
    parts = zip(T, products.split(x), strict=True)
    return np.concatenate([(t @ own.reshape(t.shape[0], -1)).ravel() for t, own in parts])


def _pass(problem: GlmmProblem, beta: FloatArray, lam: Any, b: FloatArray) -> _Sums:
    """One pass over the rows."""
    products: CellProducts = problem.products  # type: ignore[assignment]
    deviance = noise = 0.0
    score, w = np.zeros(b.size), np.empty(problem.n_obs)
    for place in products.rows():
        eta = predictor_of(problem, beta, b, place)
        rows = problem.family.derivatives(_block(problem, place), eta, lam, 2, expected=False)
        deviance -= 2.0 * float(rows.loglik.sum())
        if not np.isfinite(deviance):
            return _Sums(np.inf, noise, score, w)
        score += products.gather(rows.score, place)
        w[place] = rows.w_obs
        noise += float(rows.w_obs @ np.abs(eta))
    return _Sums(deviance, noise, score, w)


def _block(problem: GlmmProblem, place: slice) -> Any:
    return problem.data.block(place.start, place.stop)


def predictor_of(problem: GlmmProblem, beta: FloatArray, b: FloatArray, place: slice = slice(None)) -> FloatArray:
    """Some rows of the linear predictor.

    Parameters
    ----------
    problem : GlmmProblem
    beta : ndarray, shape (p,)
    b : ndarray, shape (Q,)
    place : slice
    """
    products: CellProducts = problem.products  # type: ignore[assignment]
    eta = products.spread(b, place)
    eta += problem.offset[place]
    eta += problem.X[place] @ beta
    return eta


@dataclass(frozen=True)
class LastPass:
    """What the rows say at the mode, with third derivatives.

    Attributes
    ----------
    dw : ndarray, shape (n,)
        dW / deta.
    w_lam : ndarray, shape (n,), or None
        dW / dlambda at fixed eta.
    ZWX : ndarray, shape (Q, p)
    XWX : ndarray, shape (p, p)
    Xs : ndarray, shape (p,)
    Z_lam : ndarray, shape (Q, d)
        Z' times the derivative of the score in lambda.
    d_lam : float
        Derivative of log f in lambda at fixed eta.
    curvature : float
        Second derivative of -2 log f in lambda at fixed eta.
    """

    dw: FloatArray
    w_lam: FloatArray | None
    ZWX: FloatArray
    XWX: FloatArray
    Xs: FloatArray
    Z_lam: FloatArray
    d_lam: float
    curvature: float


def last_pass(problem: GlmmProblem, mode: CellMode) -> LastPass:
    """One pass over the rows at the mode.

    Parameters
    ----------
    problem : GlmmProblem
    mode : CellMode
    """
    products: CellProducts = problem.products  # type: ignore[assignment]
    n, p, d = problem.n_obs, problem.n_fixed, problem.n_nuisance
    dw, w_lam = np.empty(n), np.empty(n) if d else None
    ZWX, Z_lam = np.zeros((p, mode.b.size)), np.zeros((d, mode.b.size))
    XWX, Xs = np.zeros((p, p)), np.zeros(p)
    d_lam = curvature = 0.0
    for place in products.rows():
        data, X = _block(problem, place), problem.X[place]
        eta = predictor_of(problem, mode.beta, mode.b, place)
        rows = problem.family.derivatives(data, eta, mode.lam, 3, expected=False)
        dw[place] = rows.dw_obs
        weighted = rows.w_obs[:, None] * X
        for own, column in zip(ZWX, weighted.T, strict=True):
            own += products.gather(column, place)
        XWX += X.T @ weighted
        Xs += X.T @ rows.score
        if w_lam is not None:
            w_lam[place] = rows.w_obs_lam
            Z_lam[0] += products.gather(np.asarray(rows.score_lam), place)
            d_lam += float(total(rows.d_lam)[0])
            curvature += _curvature(problem, data, eta, mode.lam, rows)
    return LastPass(dw, w_lam, ZWX.T, XWX, Xs, Z_lam.T, d_lam, max(curvature, 0.1))


def _curvature(problem: GlmmProblem, data: Any, eta: FloatArray, lam: float, rows: Any) -> float:
    """Second derivative of -2 log f in log dispersion at fixed eta: of the family, or by one difference."""
    if rows.curve_lam is not None:
        return 2.0 * float(rows.curve_lam[0, 0])
    moved = problem.family.derivatives(data, eta, lam + _DIFFERENCE, 3, expected=False)
    return -2.0 * float((moved.d_lam - rows.d_lam).sum()) / _DIFFERENCE
