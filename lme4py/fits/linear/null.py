"""The linear model that is left of a mixed one without its random effects, and simulated likelihood ratios."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.linear.penalised import make_criterion
from lme4py.engine.linear.problem import Problem
from lme4py.engine.linear.solve import solve
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import DesignError, OptionError
from lme4py.fits.answers.draws import Draws
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.many import batch_solver
from lme4py.fits.linear.refit import Responses, random_start
from lme4py.fits.linear.simulate import Simulator
from lme4py.linalg.spans import same_span
from lme4py.linalg.types import FloatArray

__all__ = ["LinearNull", "criteria", "exact_ratios", "null_model"]

# Relative variances at which the exact ratio is evaluated, besides 0.
_GRID = 200
_MOST_EFFECTS = 3000


@dataclass(frozen=True)
class LinearNull:
    """The linear model without random effects.

    Attributes
    ----------
    full : LinearFit
    X : ndarray, shape (n, p)
    log_likelihood : float
    n_params : int
    """

    full: LinearFit
    X: FloatArray
    log_likelihood: float
    n_params: int

    @property
    def linear_predictor(self) -> FloatArray:
        """The fitted values, shape (n,)."""
        return _linear_source(self.full, self.X).fitted

    @property
    def lam(self) -> float:
        """Log of the residual variance."""
        return _linear_source(self.full, self.X).lam

    def simulator(self) -> Draws:
        """What draws responses with the fitted values and the residual variance of the linear model."""
        return Simulator(_linear_source(self.full, self.X), "conditional")

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        """Criteria for responses (n, B)."""
        return _ols_criteria(self.full, self.X, Y)


def null_model(fit: LinearFit, result: Any = None) -> LinearNull:
    """The linear model without random effects, by the method of the fit.

    Parameters
    ----------
    fit : LinearFit
    result : object, optional
        A fit of statsmodels with other fixed effects.
    """
    design, X = fit.design, fit.design.X
    if result is not None:
        endog, exog = np.asarray(result.model.endog), np.asarray(result.model.exog)
        if endog.shape != design.y.shape or not np.array_equal(endog, design.y):
            raise OptionError("the linear model was fitted to another response; fit both models to the same rows.")
        X = exog
    if same_span(design.X, X):
        with limited_threads(design):
            value = make_criterion(fit.problem, fit.reml)(np.zeros(fit.theta_inside.size))
        return LinearNull(fit, X, -0.5 * value, design.X.shape[1] + int(fit.has_residual))
    if not fit.has_residual:
        raise OptionError("a model with a known sigma= is compared with models of the same fixed effects only.")
    rank = int(np.linalg.matrix_rank(X))
    return LinearNull(fit, X, _ols_log_likelihood(design, X), rank + 1)


def _ols_log_likelihood(design: Design, X: FloatArray) -> float:
    y = design.y if design.offset is None else design.y - design.offset
    w = np.ones(y.size) if design.weights is None else design.weights
    root = np.sqrt(w)
    rest = root * y - (root[:, None] * X) @ np.linalg.lstsq(root[:, None] * X, root * y, rcond=None)[0]
    n = y.size
    return -0.5 * float(n * (1.0 + np.log(2.0 * np.pi * float(rest @ rest) / n)) - np.log(w).sum())


def _linear_source(full: LinearFit, X: FloatArray) -> LinearFit:
    """The full fit with the fitted values and the residual variance of the linear model."""
    design = full.design
    offset = np.zeros(design.n_obs) if design.offset is None else design.offset
    root = np.ones(design.n_obs) if design.weights is None else np.sqrt(design.weights)
    beta = np.linalg.lstsq(root[:, None] * X, root * (design.y - offset), rcond=None)[0]
    fitted = X @ beta + offset
    rest = root * (design.y - fitted)
    df = design.n_obs - (X.shape[1] if full.reml else 0)
    source = replace(full, sigma=float(np.sqrt(rest @ rest / df)) if full.has_residual else full.sigma)
    source.derived.keep(LinearFit.fitted, fitted)
    return source


def criteria(fit: LinearFit, Y: FloatArray) -> FloatArray:
    """Minima of the criterion for responses (n, B)."""
    responses = Responses(fit)
    Zy, Xy, yy = responses.products(Y)
    start = random_start(fit)
    values = np.full(yy.size, np.nan)
    solver = batch_solver(fit, responses)
    if solver is not None:
        found = solver.solve(solver.sums(Zy, Xy, yy), start)
        values = np.where(found.converged, found.value, np.nan)
    for b in np.flatnonzero(np.isnan(values)):
        problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
        values[b] = solve(make_criterion(problem, fit.reml), start, Control()).value
    return values


def _ols_criteria(full: LinearFit, X: FloatArray, Y: FloatArray) -> FloatArray:
    """Criteria of the linear model for responses (n, B)."""
    design, problem = full.design, full.problem
    criterion = make_criterion(problem, full.reml)
    root = np.ones(design.n_obs) if design.weights is None else np.sqrt(design.weights / problem.scaling.weight_scale)
    y = Y if design.offset is None else Y - design.offset[:, None]
    Q = np.linalg.qr(root[:, None] * X)[0]
    rest = root[:, None] * y
    rest = rest - Q @ (Q.T @ rest)
    r2 = np.einsum("ib,ib->b", rest, rest) / problem.scaling.y_scale**2
    log_det = 0.0
    if full.reml:
        p = problem.n_fixed
        log_det = float(np.linalg.slogdet(problem.base.corner[:p, :p])[1])
    known = problem.known
    values: FloatArray = (criterion.df * np.log(r2) if known is None else r2 / known) + criterion.constant + log_det
    return values


def exact_ratios(full: LinearFit, n_sim: int, seed: int | None) -> FloatArray:
    """Draws of the (restricted) likelihood ratio of the only variance against zero, shape (n_sim,).

    With mu_s the eigenvalues of Z'PZ (P the projection off X), xi_s those of Z'WZ, and w_s normal,

        RLRT = sup over t of (n - p) log(1 + N/D) - sum log(1 + t mu_s),
        N = sum t mu_s w_s^2 / (1 + t mu_s),   D = sum w_s^2 / (1 + t mu_s) + chi-squared on n - p - q degrees;

    for ML with n and xi_s in the first line (Crainiceanu & Ruppert 2004, J. R. Stat. Soc. B 66:165).

    Parameters
    ----------
    full : LinearFit
    n_sim : int
    seed : int or None
    """
    problem = full.problem
    if problem.known is not None:
        raise OptionError("the exact distribution is that of an estimated sigma; use method='bootstrap'.")
    mu, xi = _spectra(problem)
    n, p = problem.cross.n_obs, problem.n_fixed
    rng = np.random.default_rng(seed)
    w2 = rng.standard_normal((n_sim, mu.size)) ** 2
    rest = rng.chisquare(n - p - mu.size, n_sim) if n - p > mu.size else np.zeros(n_sim)
    best = np.zeros(n_sim)
    df, spectrum = (n - p, mu) if full.reml else (n, xi)
    grid = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, _GRID)]) / max(float(mu.max()), 1e-300) * mu.size
    for t in grid[1:]:
        shrunk = 1.0 / (1.0 + t * mu)
        D = w2 @ shrunk + rest
        N = w2 @ (1.0 - shrunk)
        best = np.maximum(best, df * np.log1p(N / D) - float(np.log1p(t * spectrum).sum()))
    return best


def _spectra(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Positive eigenvalues of Z'PZ and all of Z'WZ for a model with one variance; of related levels of F'(.)F."""
    if len(problem.factors) != 1 or problem.factors[0].size > _MOST_EFFECTS:
        raise DesignError(
            f"the exact distribution needs one grouping factor with at most {_MOST_EFFECTS} random effects; use "
            "method='bootstrap'."
        )
    factor, p = problem.factors[0], problem.n_fixed
    k, J = factor.n_columns, factor.n_levels
    ZZ = np.zeros((k * J, k * J))
    levels = np.arange(J)
    for a in range(k):
        for b in range(k):
            ZZ[a * J + levels, b * J + levels] = problem.cross.diagonal[0][a, b]
    border = problem.base.border[0][:, :p]
    if factor.relation is not None:
        F = np.kron(np.eye(k), factor.relation.dense_root)
        ZZ, border = F.T @ ZZ @ F, F.T @ border
    projected = ZZ - border @ np.linalg.solve(problem.base.corner[:p, :p], border.T) if p else ZZ
    mu = np.linalg.eigvalsh(projected)
    xi = np.linalg.eigvalsh(ZZ)
    return np.asarray(mu[mu > 1e-9 * float(xi.max())]), np.maximum(xi, 0.0)
