"""The same design with a new response, or the other likelihood: the symbolic structure is used again."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.factor.crossproducts import CrossProducts
from lme4py.engine.linear.chained import factor_rows
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.penalised import make_criterion
from lme4py.engine.linear.problem import Problem, known_variance
from lme4py.engine.linear.scaling import ScaledColumns, scale_columns
from lme4py.engine.linear.solve import minima, solve
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Warning
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.steps import LmmCriterion, make_fit
from lme4py.fits.rows.response import response_numbers
from lme4py.fits.steps import off_boundary
from lme4py.linalg.types import FloatArray, sparse

__all__ = ["Responses", "fit_problem", "other_minima", "random_start", "refit", "refit_ml", "shared_criterion"]

# Minima closer than the first are one; one that is further above is excluded by every interval.
_SAME, _EXCLUDED = 1e-6, 50.0


class _SharedCriterion(LmmCriterion):
    """A criterion whose problem is given."""

    def __init__(self, design: Design, inside: Criterion) -> None:
        self._set(design, inside)


def shared_criterion(design: Design, inside: Criterion) -> LmmCriterion:
    """The criterion of a problem at hand on the user's scale.

    Parameters
    ----------
    design : Design
    inside : Criterion
    """
    return _SharedCriterion(design, inside)


def fit_problem(
    fit: LinearFit, design: Design, problem: Problem, reml: bool, start: FloatArray | None = None
) -> LinearFit:
    """The last two modular steps for a problem at hand, which comes from a fit and speaks as it does.

    Parameters
    ----------
    fit : LinearFit
    design : Design
    problem : Problem
    reml : bool
    start : ndarray, shape (m,), optional
        theta inside.
    """
    criterion = _SharedCriterion(design, make_criterion(problem, reml))
    with limited_threads(design):
        optimum = solve(criterion.inside, start, Control())
    return make_fit(design, criterion, optimum).speaking(fit.conventions)


def refit_ml(fit: LinearFit) -> LinearFit:
    """The maximum-likelihood fit of the same model; the fit itself when it is one."""
    if not fit.reml:
        return fit
    return fit_problem(fit, fit.design, fit.problem, False, random_start(fit))


def other_minima(fit: LinearFit) -> list[LinearFit]:
    """Fits at other local minima of the criterion that the search for the fit has met, lowest first.

    Parameters
    ----------
    fit : LinearFit
    """
    rises = [rival.reached - fit.criterion for rival in fit.certificate.compared if rival.reached is not None]
    if not any(_SAME < rise < _EXCLUDED for rise in rises):
        return []
    criterion = _SharedCriterion(fit.design, make_criterion(fit.problem, fit.reml))
    with limited_threads(fit.design), warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        found = [optimum for optimum in minima(criterion.inside) if optimum.value > fit.criterion + _SAME]
        return [make_fit(fit.design, criterion, optimum).speaking(fit.conventions) for optimum in found]


def random_start(fit: LinearFit) -> FloatArray:
    """theta inside to start a similar fit from: that of the fit, moved off the boundary."""
    return off_boundary(fit.problem.structures, fit.theta_inside)


def refit(fit: LinearFit, y: Any) -> LinearFit:
    design = replace(fit.design, y=response_numbers(fit.design, y))
    scaling, columns = scale_columns(design)
    y_inside = columns.XY[:, -1]
    weighted = y_inside if columns.weights is None else y_inside * columns.weights
    corner = fit.problem.cross.corner.copy()
    corner[-1, :] = corner[:, -1] = columns.XY.T @ weighted
    Zy = [Zt @ weighted for Zt in _factor_rows(fit, columns)]
    moved = replace(fit.problem, scaling=scaling, known=known_variance(design, scaling))
    problem = with_response(moved, Zy, corner)
    return fit_problem(fit, design, problem, fit.reml)


def with_response(problem: Problem, Zy: list[FloatArray], corner: FloatArray) -> Problem:
    """The problem with other products of the response: Z_f'Wy, each (k J,), and the corner."""
    borders = []
    for B, z in zip(problem.base.border, Zy, strict=True):
        border = B.copy()
        border[:, -1] = z
        borders.append(border)
    cross: CrossProducts = replace(
        problem.cross,
        corner=corner,
        border=tuple(b.reshape(B.shape) for b, B in zip(borders, problem.cross.border, strict=True)),
    )
    base = replace(problem.base, border=tuple(borders), corner=corner)
    return replace(problem, cross=cross, base=base)


def _factor_rows(fit: LinearFit, columns: ScaledColumns) -> list[sparse.csr_array]:
    """Z' of each grouping factor in the engine's columns, rows over columns of the factor, then levels."""
    design = fit.design
    n = design.n_obs
    out = []
    for factor, (codes, Z) in zip(fit.problem.factors, factor_rows(fit.problem, design, columns), strict=True):
        rows = (np.arange(factor.n_columns)[None, :] * factor.n_levels + codes[:, None]).ravel()
        where = np.repeat(np.arange(n), factor.n_columns)
        out.append(sparse.coo_array((Z.ravel(), (rows, where)), shape=(factor.size, n)).tocsr())
    return out


class Responses:
    """Cross-products of many responses at once, in the scale of the fit.

    Parameters
    ----------
    fit : LinearFit

    Notes
    -----
    Inside, y is centred by the coefficients b0 and divided by the scale of the *original* response; that is good for
    responses of the same kind, such as simulated ones.
    """

    def __init__(self, fit: LinearFit) -> None:
        design, scaling = fit.design, fit.problem.scaling
        self.fit = fit
        self.columns = scale_columns(design)[1]
        self.Zt = _factor_rows(fit, self.columns)
        self.centre = design.X @ scaling.b0
        if design.offset is not None:
            self.centre = self.centre + design.offset

    def products(self, Y: FloatArray) -> tuple[list[FloatArray], FloatArray, FloatArray]:
        """Z_f'WY by factor (k J, B), X'WY (p, B) and diag(Y'WY) (B,) for responses Y (n, B) on the user's scale."""
        inside = (Y - self.centre[:, None]) / self.fit.problem.scaling.y_scale
        weighted = inside if self.columns.weights is None else inside * self.columns.weights[:, None]
        yy = np.einsum("ib,ib->b", inside, weighted)
        return [Zt @ weighted for Zt in self.Zt], self.columns.XY[:, :-1].T @ weighted, yy

    def problem(self, Zy: list[FloatArray], Xy: FloatArray, yy: float) -> Problem:
        """The problem of one response from its products."""
        corner = self.fit.problem.cross.corner.copy()
        corner[:-1, -1] = corner[-1, :-1] = Xy
        corner[-1, -1] = yy
        return with_response(self.fit.problem, Zy, corner)
