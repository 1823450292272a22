"""Generalised linear mixed models: the mode, the Laplace criterion and its exact gradient.

    eta = offset + X beta + Z Lambda u,      u~ = argmin -2 sum log f(y | eta, lambda) + |u|^2
    -2 log L = -2 sum log f + |u~|^2 + log|M|,      M = I + Lambda'Z'WZ Lambda

(Bates et al. 2015, JSS 67(1), for the symbols.) W holds the observed or the expected weights -d2 log f / d eta2.
lambda is the logarithm of the dispersion, where the family has one. Everything is in the scaled columns
of `lme4py.engine.scaling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from lme4py.design.design import Design
from lme4py.engine.covariance import Template, Templates
from lme4py.engine.crossproducts import Factor
from lme4py.engine.lmm import group_terms
from lme4py.engine.scaling import scale_model
from lme4py.engine.sweep import Swept, SweptBorder
from lme4py.engine.types import FloatArray
from lme4py.engine.weighted import WeightedProducts

# The mode has been found when another Newton step would lower the penalised deviance by less than this.
_TOLERANCE = 1e-15
_MAX_STEPS = 100
_MAX_HALVINGS = 40


@dataclass(frozen=True)
class GlmmProblem:
    """A generalised linear mixed model in the engine's columns.

    Attributes
    ----------
    factors : tuple of Factor
    templates : Templates
    C : ndarray, shape (p, p)
        X inside = X C.
    S : tuple of ndarray, each (k, k)
        Z inside = Z S for each term.
    X : ndarray, shape (n, p)
    offset : ndarray, shape (n,)
    products : WeightedProducts
    family : Family
    data : object
        What the family needs to know of the response.
    expected : bool
        Use the expected weights in log|M|, as lme4 does.
    """

    factors: tuple[Factor, ...]
    templates: Templates
    C: FloatArray
    S: tuple[FloatArray, ...]
    X: FloatArray
    offset: FloatArray
    products: WeightedProducts
    family: Any
    data: Any
    expected: bool

    @property
    def n_obs(self) -> int:
        return int(self.X.shape[0])

    @property
    def n_fixed(self) -> int:
        return int(self.X.shape[1])

    @property
    def n_theta(self) -> int:
        return self.templates.n_theta

    @property
    def n_dispersion(self) -> int:
        """1 when the family has a dispersion parameter that is estimated."""
        return int(self.family.n_dispersion)

    def factor_T(self, theta: FloatArray) -> list[FloatArray]:
        """T of every grouping factor: block diagonal in its terms."""
        by_term = self.templates.factors(theta)
        return [
            by_term[factor.terms[0]]
            if len(factor.terms) == 1
            else scipy.linalg.block_diag(*[by_term[t] for t in factor.terms])
            for factor in self.factors
        ]

    def split(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """theta, beta and log dispersion (0 without one) out of one vector of parameters."""
        m, p = self.n_theta, self.n_fixed
        return phi[:m], phi[m : m + p], float(phi[m + p]) if self.n_dispersion else 0.0

    def join(self, theta: FloatArray, beta: FloatArray, lam: float) -> FloatArray:
        """The inverse of `split`."""
        return np.concatenate([theta, beta, [lam] if self.n_dispersion else []])


def make_glmm(design: Design, family: Any, data: Any, expected: bool = False) -> GlmmProblem:
    """Scale the columns and do the symbolic step.

    Parameters
    ----------
    design : Design
    family : Family
    data : object
        The response, as the family prepared it.
    expected : bool
    """
    X, C, Z, S = scale_model(design)
    factors = group_terms(design)
    codes = tuple(design.terms[factor.terms[0]].codes for factor in factors)
    columns = tuple(Z[f.terms[0]] if len(f.terms) == 1 else np.hstack([Z[t] for t in f.terms]) for f in factors)
    templates = Templates(tuple(Template(term.n_columns, term.structure) for term in design.terms))
    offset = np.zeros(design.n_obs) if design.offset is None else design.offset
    products = WeightedProducts(codes, columns, factors)
    return GlmmProblem(factors, templates, C, S, X, offset, products, family, data, expected)


@dataclass(frozen=True)
class Mode:
    """The conditional mode at one value of the parameters.

    Attributes
    ----------
    theta : ndarray, shape (m,)
    beta : ndarray, shape (p,)
    lam : float
    T : list of ndarray
    u, b : ndarray, shape (Q,)
        Spherical random effects and b = Lambda u; rows over factors, then columns, then levels.
    eta : ndarray, shape (n,)
    rows : object
        Log-likelihood of each row and its derivatives.
    score : ndarray, shape (Q,)
        Z's with s = d log f / d eta.
    w : ndarray, shape (n,)
        Weights of `swept`.
    swept : Swept
    objective : float
        -2 sum log f + |u|^2.
    steps : int
    """

    theta: FloatArray
    beta: FloatArray
    lam: float
    T: list[FloatArray]
    u: FloatArray
    b: FloatArray
    eta: FloatArray
    rows: Any
    score: FloatArray
    w: FloatArray
    swept: Swept
    objective: float
    steps: int


class ModeError(ArithmeticError):
    """No conditional mode was found at these parameters."""


class ModeFinder:
    """Penalised iteratively reweighted least squares: Newton steps with guaranteed decrease.

    Parameters
    ----------
    problem : GlmmProblem
    """

    def __init__(self, problem: GlmmProblem) -> None:
        self.problem = problem
        self.factorizations = 0

    # -- pieces --------------------------------------------------------------------------------------------------

    def spread(self, T: list[FloatArray], u: FloatArray, transpose: bool = False) -> FloatArray:
        """Lambda u (or Lambda' u) for stacked columns u, shape (Q,)."""
        factors = self.problem.factors
        if len(factors) == 1 and T[0].shape[0] == 1:
            return u * T[0][0, 0]
        out = np.empty_like(u)
        start = 0
        for factor, t in zip(factors, T, strict=True):
            stop = start + factor.size
            if factor.n_columns == 1:
                np.multiply(u[start:stop], t[0, 0], out=out[start:stop])
            else:
                part = u[start:stop].reshape(factor.n_columns, -1)
                out[start:stop] = ((t.T if transpose else t) @ part).ravel()
            start = stop
        return out

    def rows(self, eta: FloatArray, lam: float, order: int) -> Any:
        """Log-likelihood of each row with derivatives; expected weights only where they are needed (order 3)."""
        expected = order == 3 and self.problem.expected
        return self.problem.family.derivatives(self.problem.data, eta, lam, order, expected=expected)

    def objective(self, rows: Any, u: FloatArray) -> float:
        value = -2.0 * float(rows.loglik.sum()) + float(u @ u)
        return value if np.isfinite(value) else np.inf

    def factorize(self, T: list[FloatArray], rows: Any) -> tuple[Swept, FloatArray]:
        """The factor with the observed weights, or with positive ones where that is not positive definite."""
        self.factorizations += 1
        try:
            return self.problem.products.factorize(T, rows.w_obs), rows.w_obs
        except np.linalg.LinAlgError:
            return self.problem.products.factorize(T, rows.w_work), rows.w_work

    # -- Newton --------------------------------------------------------------------------------------------------

    def find(
        self,
        theta: FloatArray,
        beta: FloatArray,
        lam: float,
        u: FloatArray,
        joint: bool = False,
        tolerance: float = _TOLERANCE,
    ) -> Mode:
        """The mode of u (and of beta when `joint`) from the starting values given.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        beta : ndarray, shape (p,)
        lam : float
        u : ndarray, shape (Q,)
        joint : bool
        tolerance : float

        Raises
        ------
        ModeError
        """
        problem = self.problem
        products = problem.products
        T = problem.factor_T(theta)
        b = self.spread(T, u)
        fixed = problem.X @ beta
        random = products.rows @ b
        eta = problem.offset + fixed + random
        rows = self.rows(eta, lam, 2)
        value = self.objective(rows, u)
        if not np.isfinite(value):
            raise ModeError("the likelihood is zero at the starting values")
        for step in range(_MAX_STEPS):
            swept, w = self.factorize(T, rows)
            score = products.columns @ rows.score
            gradient = self.spread(T, score, transpose=True) - u
            new_beta, new_u = self._newton(T, swept, w, rows, random, fixed, score, joint)
            change, change_beta = new_u - u, new_beta - beta if joint else None
            decrease = float(gradient @ change)
            if joint and change_beta is not None:
                decrease += float((problem.X.T @ rows.score) @ change_beta)
            if decrease <= tolerance:
                return Mode(theta, beta, lam, T, u, b, eta, rows, score, w, swept, value, step)
            b_change = self.spread(T, change)
            random_change = products.rows @ b_change
            fixed_change = problem.X @ change_beta if change_beta is not None else 0.0
            eta_change = random_change + fixed_change
            t = 1.0
            noise = 1e-13 * (abs(value) + abs(float(u @ u)))
            for _ in range(_MAX_HALVINGS):
                trial_eta = eta + t * eta_change
                trial_u = u + t * change
                trial_rows = self.rows(trial_eta, lam, 2)
                trial = self.objective(trial_rows, trial_u)
                if trial <= value - 1e-4 * t * decrease + noise:
                    break
                t *= 0.5
            else:
                if decrease < 1e-8 * (1.0 + abs(value)):
                    return Mode(theta, beta, lam, T, u, b, eta, rows, score, w, swept, value, step)
                raise ModeError("the penalised likelihood does not rise along the Newton direction")
            u, eta, rows, value = trial_u, trial_eta, trial_rows, trial
            b = b + t * b_change
            random = random + t * random_change
            if change_beta is not None:
                beta = beta + t * change_beta
                fixed = fixed + t * fixed_change
        raise ModeError(f"no mode after {_MAX_STEPS} Newton steps")

    def _newton(
        self,
        T: list[FloatArray],
        swept: Swept,
        w: FloatArray,
        rows: Any,
        random: FloatArray,
        fixed: FloatArray,
        score: FloatArray,
        joint: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Where the quadratic approximation has its minimum: beta (only when `joint`) and u."""
        products = self.problem.products
        if not joint:
            border = swept.sweep_border(products.split((products.columns @ (w * random) + score)[:, None]))
            _, g = swept.back_substitute(border, np.ones((1, 1)))
            return np.empty(0), self.spread(T, np.concatenate(g)[:, 0], transpose=True)
        working = w * (random + fixed) + rows.score
        system = FixedSystem(self.problem, swept, w, working)
        g = system.residual_modes()[1]
        return system.solution, self.spread(T, g, transpose=True)

    def predict(self, found: Laplace, phi: FloatArray) -> FloatArray:
        """First-order prediction of the mode at other parameters, shape (Q,): H du = Lambda'Z'ds + dLambda'Z's."""
        problem, mode = self.problem, found.mode
        theta, beta, lam = problem.split(phi)
        dT = [new - old for new, old in zip(problem.factor_T(theta), mode.T, strict=True)]
        extra = self.spread(dT, mode.score, transpose=True)
        moved = self.spread(dT, mode.u) + self.spread(mode.T, extra)
        column = -mode.w * (problem.X @ (beta - mode.beta) + problem.products.rows @ moved)
        if lam != mode.lam:
            column += (lam - mode.lam) * found.rows.score_lam
        _, _, g = problem.products.solve(mode.swept, column[:, None])
        return mode.u + extra + self.spread(mode.T, g[:, 0], transpose=True)


class FixedSystem:
    """Generalised least squares of working columns on X under V = W^-1 + Z Sigma Z'.

    Parameters
    ----------
    problem : GlmmProblem
    swept : Swept
    w : ndarray, shape (n,)
    column : ndarray, shape (n,)
        W times the working response.
    """

    def __init__(self, problem: GlmmProblem, swept: Swept, w: FloatArray, column: FloatArray) -> None:
        X = problem.X
        p = problem.n_fixed
        wX = w[:, None] * X
        right = np.concatenate([wX, column[:, None]], axis=1)
        self.swept = swept
        self.border: SweptBorder = swept.sweep_border(problem.products.project(right))
        corner = X.T @ right - self.border.cross(self.border)[:p]
        self.cross = 0.5 * (corner[:, :p] + corner[:, :p].T)  # X'V^-1X
        self.solution: FloatArray = np.linalg.solve(self.cross, corner[:, p]) if p else np.empty(0)
        self.wX = wX

    def residual_modes(self) -> tuple[FloatArray, FloatArray]:
        """Lambda M^-1 Lambda'Z'W r and Z'V^-1 r of the residuals r from X."""
        b, g = self.swept.back_substitute(self.border, np.append(-self.solution, 1.0)[:, None])
        return np.concatenate(b)[:, 0], np.concatenate(g)[:, 0]


@dataclass(frozen=True)
class Laplace:
    """The Laplace criterion at a point, with its gradient.

    Attributes
    ----------
    mode : Mode
    rows : EtaDerivatives
        Of order 3 at the mode.
    swept : Swept
        The factor M.
    value : float
        -2 log-likelihood.
    gradient : ndarray, shape (m + p + d,)
        In (theta, beta, log dispersion); (m + d,) when beta is profiled.
    G : tuple of ndarray, each (k, k)
        Per factor: derivative of log|M| in Sigma.
    diagonal : list of ndarray, each (k, k, J)
        Blocks of Lambda M^-1 Lambda'.
    """

    mode: Mode
    rows: Any
    swept: Swept
    value: float
    gradient: FloatArray
    G: list[FloatArray]
    diagonal: list[FloatArray]


def laplace(finder: ModeFinder, mode: Mode, profiled: bool = False) -> Laplace:
    """Value and exact gradient of the Laplace criterion at a mode.

    Parameters
    ----------
    finder : ModeFinder
    mode : Mode
    profiled : bool
        The mode is one of (beta, u): gradient of the criterion with nAGQ = 0.
    """
    problem = finder.problem
    products = problem.products
    rows = finder.rows(mode.eta, mode.lam, 3)
    if problem.expected and not problem.family.canonical:
        dw = rows.dw_exp
        swept = products.factorize(mode.T, rows.w_exp)
    else:
        dw = rows.dw_obs
        swept = mode.swept
    h, G, diagonal = products.log_det_derivatives(swept)
    value = mode.objective + swept.log_det
    c = h * dw
    if profiled and problem.n_fixed:
        system = FixedSystem(problem, mode.swept, mode.w, c)
        b_a, g_a = system.residual_modes()
        rest = c - mode.w * (products.rows @ b_a + problem.X @ system.solution)
    else:
        _, b_two, g_two = products.solve(mode.swept, c[:, None])
        b_a, g_a = b_two[:, 0], g_two[:, 0]
        system = None
        rest = c - mode.w * (products.rows @ b_a)
    a = finder.spread(mode.T, g_a, transpose=True)
    by_T = _outer_by_factor(problem.factors, g_a - 2.0 * mode.score, mode.u)
    by_T = [
        first + second + 2.0 * g @ T
        for first, second, g, T in zip(by_T, _outer_by_factor(problem.factors, mode.score, a), G, mode.T, strict=True)
    ]
    parts = [theta_gradient(problem, by_T)]
    if not profiled:
        parts.append(problem.X.T @ (rest - 2.0 * rows.score))
    if problem.n_dispersion:
        lam_w = rows.w_exp_lam if problem.expected else rows.w_obs_lam
        moved = products.rows @ b_a
        if system is not None:
            moved = moved + problem.X @ system.solution
        parts.append(np.array([-2.0 * rows.d_lam.sum() + float(h @ lam_w) + float(moved @ rows.score_lam)]))
    return Laplace(mode, rows, swept, value, np.concatenate(parts), G, diagonal)


def _outer_by_factor(factors: tuple[Factor, ...], left: FloatArray, right: FloatArray) -> list[FloatArray]:
    """Sum over levels of left_j right_j' for each factor."""
    out = []
    start = 0
    for factor in factors:
        place = slice(start, start + factor.size)
        out.append(left[place].reshape(factor.n_columns, -1) @ right[place].reshape(factor.n_columns, -1).T)
        start += factor.size
    return out


def theta_gradient(problem: GlmmProblem, by_T: list[FloatArray]) -> FloatArray:
    """Derivative in theta from the one in the T of each factor."""
    parts: list[FloatArray] = [np.empty(0)] * len(problem.templates.templates)
    for factor, derivative in zip(problem.factors, by_T, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            parts[term] = problem.templates.templates[term].gradient(derivative[columns, columns])
    return np.concatenate(parts)


def average_information(finder: ModeFinder, found: Laplace) -> FloatArray:
    """Hessian in (theta, beta) of the criterion of the working linear model, shape (m + p, m + p).

    The average of observed and expected information (Gilmour et al. 1995) of the model z = X beta + Z b + e with
    variance W^-1, which the Newton steps solve; X'V^-1X for beta.
    """
    problem, mode = finder.problem, found.mode
    products, templates = problem.products, problem.templates
    m, p = problem.n_theta, problem.n_fixed
    h = _directions(problem, mode)
    columns = np.concatenate([products.rows @ h, problem.X], axis=1)
    weighted = mode.w[:, None] * columns
    border = mode.swept.sweep_border(products.project(weighted))
    hessian = columns.T @ weighted - border.cross(border)
    hessian = 0.5 * (hessian + hessian.T)
    hessian[m:] *= 2.0
    hessian[:m, m:] *= 2.0
    score = _outer_by_factor(problem.factors, mode.score, mode.score)
    for factor, g, s in zip(problem.factors, found.G, score, strict=True):
        for term, place in zip(factor.terms, factor.columns, strict=True):
            t = templates.slices[term]
            hessian[t, t] += templates.templates[term].curvature((g - s)[place, place])
    if not problem.n_dispersion:
        return hessian
    full = np.zeros((m + p + 1, m + p + 1))
    full[: m + p, : m + p] = hessian
    return full


def _directions(problem: GlmmProblem, mode: Mode) -> FloatArray:
    """(dLambda Lambda' + Lambda dLambda') Z's for each theta, (Q, m)."""
    templates = problem.templates
    by_term = templates.factors(mode.theta)
    h = np.zeros((mode.u.size, templates.n_theta))
    start = 0
    for factor in problem.factors:
        J = factor.n_levels
        values = mode.score[start : start + factor.size].reshape(factor.n_columns, J)
        block = h[start : start + factor.size].reshape(factor.n_columns, J, -1)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            first = templates.slices[term].start
            for i, dT in enumerate(templates.templates[term].directions):
                half = dT @ by_term[term].T
                block[columns, :, first + i] = (half + half.T) @ values[columns]
        start += factor.size
    return h
