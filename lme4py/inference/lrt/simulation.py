"""Simulated null distributions of likelihood ratios of linear mixed models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.linear.criterion import Criterion, Problem
from lme4py.engine.linear.solve import solve
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import DesignError
from lme4py.fits.linear.batch import BatchSolver, can_batch
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import Responses, random_start
from lme4py.fits.linear.simulate import Simulator
from lme4py.linalg.types import FloatArray

__all__ = ["bootstrap_ratios", "exact_ratios"]

# Numbers in the responses that are drawn at a time, and the most responses.
_CHUNK_NUMBERS, _CHUNK = chunk(4_000_000, 4000), chunk(1000)
# Relative variances at which the exact ratio is evaluated, besides 0.
_GRID = 200
_MOST_EFFECTS = 3000


def bootstrap_ratios(
    restricted: LinearFit | None, X: FloatArray, full: LinearFit, n_sim: int, seed: int | None
) -> FloatArray:
    """Likelihood ratios of responses simulated from the restricted model, shape (n_sim,).

    Parameters
    ----------
    restricted : LinearFit or None
        None is a linear model.
    X : ndarray, shape (n, p)
        Fixed effects of the restricted model.
    full : LinearFit
    n_sim : int
    seed : int or None
    """
    source = _linear_source(full, X) if restricted is None else restricted
    simulator = Simulator(source, "conditional" if restricted is None else "parametric")
    seeds = np.random.SeedSequence(seed).spawn(n_sim)
    size = max(1, min(_CHUNK, _CHUNK_NUMBERS // full.design.n_obs))
    out = []
    with limited_threads(full.design):
        for start in range(0, n_sim, size):
            Y = simulator.draw(seeds[start : start + size])
            small = _ols_criteria(full, X, Y) if restricted is None else _criteria(restricted, Y)
            out.append(np.maximum(small - _criteria(full, Y), 0.0))
    return np.concatenate(out)


def _linear_source(full: LinearFit, X: FloatArray) -> LinearFit:
    """The full fit with the fitted values and the residual variance of the linear model."""
    design = full.design
    offset = np.zeros(design.n_obs) if design.offset is None else design.offset
    root = np.ones(design.n_obs) if design.weights is None else np.sqrt(design.weights)
    beta = np.linalg.lstsq(root[:, None] * X, root * (design.y - offset), rcond=None)[0]
    fitted = X @ beta + offset
    rest = root * (design.y - fitted)
    df = design.n_obs - (X.shape[1] if full.reml else 0)
    source = replace(full, sigma=float(np.sqrt(rest @ rest / df)))
    source.derived.keep(LinearFit.fitted, fitted)
    return source


def _criteria(fit: LinearFit, Y: FloatArray) -> FloatArray:
    """Minima of the criterion for responses (n, B)."""
    responses = Responses(fit)
    Zy, Xy, yy = responses.products(Y)
    criterion = Criterion(fit.problem, fit.reml)
    start = random_start(fit)
    values = np.full(yy.size, np.nan)
    if can_batch(fit):
        solver = BatchSolver(criterion)
        found = solver.solve(solver.sums(Zy[0], Xy, yy), start)
        values = np.where(found.converged, found.value, np.nan)
    for b in np.flatnonzero(np.isnan(values)):
        problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
        values[b] = solve(Criterion(problem, fit.reml), start, Control()).value
    return values


def _ols_criteria(full: LinearFit, X: FloatArray, Y: FloatArray) -> FloatArray:
    """Criteria of the linear model for responses (n, B)."""
    design, problem = full.design, full.problem
    criterion = Criterion(problem, full.reml)
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
    values: FloatArray = criterion.df * np.log(r2) + criterion.constant + log_det
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
    """Positive eigenvalues of Z'PZ and all of Z'WZ for a model with one variance."""
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
    projected = ZZ - border @ np.linalg.solve(problem.base.corner[:p, :p], border.T) if p else ZZ
    mu = np.linalg.eigvalsh(projected)
    xi = np.linalg.eigvalsh(ZZ)
    return np.asarray(mu[mu > 1e-9 * float(xi.max())]), np.maximum(xi, 0.0)
