"""Errors of predictions of a model with a residual structure: random effects at their modes, and new observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lme4py.design.design import Design
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.replay import NewResiduals, new_residuals, widened
from lme4py.engine.marginal.conditional import Conditional, OtherRows, conditional, row_variances
from lme4py.engine.marginal.criterion import MarginalCriterion, MarginalPoint
from lme4py.engine.marginal.effects import inverse_times
from lme4py.engine.threads import limited_threads
from lme4py.fits.answers.noise import Noise
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.problem import marginal_model
from lme4py.fits.rows.arrays import RowArrays
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "Prediction",
    "effects_covariance",
    "effects_gradient",
    "joined",
    "noise",
    "predicted",
    "predictor_gradient",
    "predictor_variance",
    "vcov_inside",
]

# Step of the five-point rule, relative to a parameter inside.
_STEP = 2e-3


# --- random effects at their modes ------------------------------------------------------------------------------------


def predictor_variance(fit: ResidualFit, rows: RowArrays) -> FloatArray:
    """Variance of the errors of x'beta^ + z'b^, shape (n,); b of unknown groups left out.

    Parameters
    ----------
    fit : ResidualFit
    rows : RowArrays
        Complete rows.
    """
    with limited_threads(fit.design):
        return _variance_at(fit, rows, fit.point, vcov_inside(fit))


def _variance_at(fit: ResidualFit, rows: RowArrays, point: MarginalPoint, vcov: FloatArray) -> FloatArray:
    criterion = fit.problem.criterion
    known = {t: (codes >= 0)[:, None] for t, codes in rows.codes.items()}
    values = {t: np.where(known[t], rows.values[t], 0.0) @ fit.problem.S[t] for t in rows.codes}
    found = conditional(criterion, point, OtherRows(values, rows.codes), rows.n)
    fixed = rows.X @ criterion.scaling.C - found.moved
    variance = np.einsum("np,pq,nq->n", fixed, vcov, fixed) + found.variance
    return np.asarray(criterion.scaling.y_scale**2 * variance)


def vcov_inside(fit: ResidualFit) -> FloatArray:
    """The covariance of beta that the fit reports, in the columns inside, (p, p)."""
    if fit.conventions.vce is None:
        return fit.point.phi
    scaling = fit.problem.criterion.scaling
    back = np.linalg.inv(scaling.C) / scaling.y_scale
    return np.asarray(back @ fit.vcov @ back.T)


def predictor_gradient(fit: ResidualFit, rows: RowArrays) -> FloatArray:
    """Derivatives of `predictor_variance` in the parameters inside, shape (n, m + 1); the last column is unused.

    Parameters
    ----------
    fit : ResidualFit
    rows : RowArrays
    """

    def at(par: FloatArray) -> FloatArray:
        point = fit.problem.criterion.evaluate(par, derivatives=False)
        assert point is not None
        return _variance_at(fit, rows, point, point.phi)

    with limited_threads(fit.design):
        slopes = _slopes(at, fit.par)
    return np.column_stack([slopes, np.zeros(rows.n)])


def _slopes(function: Callable[[FloatArray], FloatArray], par: FloatArray) -> FloatArray:
    """Derivatives by the five-point rule, (n, m)."""
    columns = []
    for i, size in enumerate(np.maximum(np.abs(par), 0.1)):
        step = np.zeros(par.size)
        step[i] = _STEP * size
        near = function(par + step) - function(par - step)
        far = function(par + 2.0 * step) - function(par - 2.0 * step)
        columns.append((8.0 * near - far) / (12.0 * step[i]))
    return np.stack(columns, axis=1) if columns else np.zeros((function(par).size, 0))


def effects_covariance(fit: ResidualFit, L: FloatArray, vcov: FloatArray) -> FloatArray:
    """Covariance of the errors of linear functions of beta and of all random effects, shape (r, r).

    Parameters
    ----------
    fit : ResidualFit
    L : ndarray, shape (r, p + q)
        One column for each coefficient, then one for each effect: terms, levels, columns.
    vcov : ndarray, shape (p, p)
        Of the coefficients.
    """
    back = np.linalg.inv(fit.problem.criterion.scaling.C) / fit.problem.criterion.scaling.y_scale
    with limited_threads(fit.design):
        return _effects_at(fit, L, fit.point, back @ vcov @ back.T)


def effects_gradient(fit: ResidualFit, L: FloatArray) -> FloatArray:
    """Derivatives of its diagonal in the parameters inside, shape (r, m + 1); the last column is unused.

    Parameters
    ----------
    fit : ResidualFit
    L : ndarray, shape (r, p + q)
    """

    def at(par: FloatArray) -> FloatArray:
        point = fit.problem.criterion.evaluate(par, derivatives=False)
        assert point is not None
        return np.diagonal(_effects_at(fit, L, point, point.phi))

    with limited_threads(fit.design):
        return np.column_stack([_slopes(at, fit.par), np.zeros(len(L))])


def _effects_at(fit: ResidualFit, L: FloatArray, point: MarginalPoint, vcov: FloatArray) -> FloatArray:
    criterion, terms = fit.problem.criterion, fit.design.terms
    model, p = criterion.model, criterion.p
    c, prior, first = np.zeros((model.y.size, len(L))), np.zeros((len(L), len(L))), p
    for t, (term, part) in enumerate(zip(terms, model.random, strict=True)):
        size = term.n_levels * term.n_columns
        m = L[:, first : first + size].reshape(len(L), term.n_levels, term.n_columns) @ fit.problem.S[t]
        half = m @ part.structure.covariance(point.par[model.slices[t]])
        c += np.einsum("rnk,nk->nr", half[:, part.codes], part.values)
        prior += np.einsum("rjk,sjk->rs", half, m)
        first += size
    solved = inverse_times(criterion, point, c)
    fixed = L[:, :p] @ criterion.scaling.C - solved.T @ model.X
    covariance = fixed @ vcov @ fixed.T + prior - c.T @ solved
    return np.asarray(criterion.scaling.y_scale**2 * 0.5 * (covariance + covariance.T))


# --- new observations -------------------------------------------------------------------------------------------------


def noise(fit: ResidualFit, rows: RowArrays, whole: BoolArray, weights: FloatArray | None, eta: FloatArray) -> Noise:
    """Residual variances of rows, with their derivatives in the parameters inside.

    Parameters
    ----------
    fit : ResidualFit
    rows : RowArrays
        Complete ones.
    whole : ndarray of bool
        Which rows of `rows.frame` these are.
    weights : ndarray, shape (n,), or None
        Prior weights of the rows of other data.
    eta : ndarray, shape (n,)
        Their linear predictors, which a variance function may depend on.
    """
    if rows.frame is None:
        part = fit.residual.part
    else:
        found = new_residuals(fit.residual, fit.design.recipe, rows.frame, None, subjects=False).take(whole)
        part = replace(_with_fitted(fit, found, eta), weights=weights)
        part = widened(fit.residual.part, part)[1]
    model, size = fit.problem.criterion.model, fit.problem.criterion.scaling.y_scale
    inside = replace(part, structures=tuple(s.in_units(size) for s in part.structures))

    def at(par: FloatArray) -> FloatArray:
        return size**2 * row_variances(model, inside, par)[1]

    with limited_threads(fit.design):
        return Noise(at(fit.par), np.column_stack([_slopes(at, fit.par), np.zeros(rows.n)]))


def _with_fitted(fit: ResidualFit, new: NewResiduals, eta: FloatArray) -> ResidualPart:
    """With the logarithms of the predictors where the variance is a power of the fitted values."""
    place = fit.residual.fitted_column
    if place is None:
        return new.part
    G = new.part.log_scale.copy()
    with np.errstate(divide="ignore"):
        G[:, place] = np.log(np.abs(eta))
    return replace(new.part, log_scale=G)


# --- given the responses of rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """Predictions of the responses of other rows given those of some, on the user's scale.

    Attributes
    ----------
    mean : ndarray, shape (n,)
    expected : ndarray, shape (n,)
        Variance of the errors of the mean given the random effects and the residuals of the rows given.
    observed : ndarray, shape (n,)
        Variance of the errors of the response itself.
    """

    mean: FloatArray
    expected: FloatArray
    observed: FloatArray


def joined(
    fit: ResidualFit, design: Design | None, residual: ResidualPart | None, own: bool = True
) -> tuple[MarginalCriterion, MarginalPoint]:
    """The rows of the fit and others as one criterion in its units, with the coefficients of the fit.

    Parameters
    ----------
    fit : ResidualFit
    design : Design or None
        Of the others, with their responses.
    residual : ResidualPart or None
        Theirs.
    own : bool
        With the rows of the fit.
    """
    scaling, S = fit.problem.criterion.scaling, fit.problem.S
    model = marginal_model(fit.design, fit.residual.part, S)
    if design is not None and residual is not None:
        other = marginal_model(design, residual, S)
        model = model.then(other) if own else other
    criterion = MarginalCriterion(model, fit.reml, scaling)
    point = criterion.evaluate(fit.par)
    assert point is not None
    return criterion, replace(point, beta=fit.point.beta)


def predicted(
    fit: ResidualFit,
    known: tuple[MarginalCriterion, MarginalPoint],
    rows: Design,
    residual: ResidualPart,
    codes: dict[int, np.ndarray],
) -> Prediction:
    """The responses of rows given those of others.

    Parameters
    ----------
    fit : ResidualFit
    known : tuple
        From `joined`.
    rows : Design
        To predict.
    residual : ResidualPart
        Theirs.
    codes : dict of int to ndarray of int
        Levels of the terms among those of the rows given; -1 for others.
    """
    criterion, point = known
    size, C = criterion.scaling.y_scale, criterion.scaling.C
    inside = replace(residual, structures=tuple(s.in_units(size) for s in residual.structures))
    values = {t: term.values @ fit.problem.S[t] for t, term in enumerate(rows.terms)}
    with limited_threads(fit.design):
        found: Conditional = conditional(criterion, point, OtherRows(values, codes, inside), rows.n_obs)
    fixed = rows.X @ C - found.moved
    of_beta = np.einsum("np,pq,nq->n", fixed, vcov_inside(fit), fixed)
    mean = rows.X @ fit.beta + size * found.mean + (0.0 if rows.offset is None else rows.offset)
    expected = of_beta + np.maximum(found.variance - found.residual, 0.0)
    return Prediction(mean, size**2 * expected, size**2 * (of_beta + found.variance))
