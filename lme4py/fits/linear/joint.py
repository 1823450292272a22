"""The joint distribution of estimates and conditional modes of a linear mixed model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.covariance.chain_levels import ChainLevels
from lme4py.covariance.charts import Chart
from lme4py.engine.factor.chain import ChainSwept
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.linear.criterion import Point
from lme4py.engine.linear.scaling import Scaling, scale_columns
from lme4py.engine.threads import limited_threads
from lme4py.fits.answers.chain_joint import ChainJoint
from lme4py.fits.answers.joint import JointVariance
from lme4py.fits.answers.working import FactoredModel
from lme4py.fits.derived import derived
from lme4py.fits.linear.derivatives import steps
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.parameters import VarianceDerivatives
from lme4py.fits.rows.arrays import RowArrays
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

__all__ = [
    "conditional_covariances",
    "conditional_covariances_with_fixed",
    "joint_gradient",
    "joint_variance",
    "model_covariance",
    "working_model",
]


def joint_variance(fit: LinearFit, expected: bool) -> JointVariance:
    problem, point = fit.problem, fit.point
    chained = _completed(point)
    swept: Any = point.swept if chained is None else chained
    border = point.border if chained is None else chained.sweep_border(chained.base.border)
    p, scaling = problem.n_fixed, problem.scaling
    weights = fit.design.weights
    w = np.ones(fit.design.n_obs) if weights is None else weights / scaling.weight_scale
    inverse = np.linalg.inv(point.RX) if p else np.zeros((0, 0))
    P, _ = swept.back_substitute(border, np.eye(p + 1, p))
    diagonal = [] if chained else swept.adjoint(border, np.zeros((p + 1, p + 1))).diagonal
    scale = fit.sigma**2 / scaling.weight_scale
    vcov = inverse @ inverse.T
    if fit.conventions.vce is not None and not expected:
        back = np.linalg.inv(scaling.C)
        vcov = back @ fit.vcov @ back.T / scale
    own = (
        fit.design,
        problem.factors,
        problem.factor_T(point.T),
        w,
        scaling.C,
        scaling.S,
        P,
        vcov,
        diagonal,
        scale,
        swept,
    )
    return JointVariance(*own) if chained is None else ChainJoint(*own, chained=chained)


def joint_gradient(fit: LinearFit, derivatives: VarianceDerivatives, rows: RowArrays) -> FloatArray:
    """Derivatives of the joint variance, (n, s), by the five-point rule."""
    structures = fit.problem.structures
    columns = []
    for term, chart in enumerate(derivatives.charts):
        for step, change in steps(chart):

            def moved(size: float, term: int = term, chart: Chart = chart, change: FloatArray = change) -> FloatArray:
                theta = fit.theta_inside.copy()
                theta[structures.slices[term]] = chart.theta(size * change)
                return joint_variance(replace(fit, theta_inside=theta), expected=False).variance(rows)

            with limited_threads(fit.design):
                near, far = moved(1.0) - moved(-1.0), moved(2.0) - moved(-2.0)
            columns.append((8.0 * near - far) / (12.0 * step))
    return np.column_stack([*columns, np.empty(rows.n)])


def working_model(fit: LinearFit) -> FactoredModel:
    columns = scale_columns(fit.design)[1]
    problem, scaling = fit.problem, fit.problem.scaling
    p = fit.beta.size
    w = np.ones(fit.design.n_obs) if columns.weights is None else columns.weights
    codes = tuple(fit.design.terms[factor.terms[0]].codes for factor in problem.factors)
    Z = tuple(np.hstack([columns.Z[t] for t in factor.terms]) for factor in problem.factors)
    products = WeightedProducts(codes, Z, problem.factors)
    T = problem.factor_T(fit.point.T)
    df = float(fit.design.n_obs - p if fit.reml else fit.design.n_obs)
    return FactoredModel(
        X=columns.XY[:, :p],
        z=columns.XY[:, p],
        w=w,
        T=T,
        products=products,
        swept=products.factorize(T, w),
        C=scaling.C,
        scale=scaling.y_scale,
        df=df if problem.known is None else None,
        sigma=_inside_sigma(fit, scaling),
    )


def _inside_sigma(fit: LinearFit, scaling: Scaling) -> float:
    return fit.sigma / (scaling.y_scale * float(np.sqrt(scaling.weight_scale)))


def model_covariance(fit: LinearFit) -> FloatArray:
    """Covariance of beta by the model, also where the fit was told to print a robust one, (p, p)."""
    inverse = np.linalg.inv(fit.point.RX)
    return fit.problem.scaling.vcov(_inside_sigma(fit, fit.problem.scaling) ** 2 * (inverse @ inverse.T))


@derived
def conditional_covariances(fit: LinearFit) -> tuple[FloatArray, ...]:
    """Covariances of the random effects of every level given the data and the fixed effects, each (J, k, k)."""
    return _conditional(fit, include_fixed=False)


@derived
def conditional_covariances_with_fixed(fit: LinearFit) -> tuple[FloatArray, ...]:
    """The same with the uncertainty of the fixed effects."""
    return _conditional(fit, include_fixed=True)


def _completed(point: Point) -> ChainSwept | None:
    """The factor of a chain with all its times; None of another model."""
    chained = point.chain
    return None if chained is None else chained.completed()


def _of_chain(swept: ChainSwept, corner: FloatArray) -> FloatArray:
    """Covariances of the effects of each group at all times of a chain, (J, k, k), in the engine's columns."""
    blocks = swept.group_blocks()
    if not corner.any():
        return blocks
    J, k = blocks.shape[:2]
    modes, _ = swept.back_substitute(swept.sweep_border(swept.base.border), np.eye(corner.shape[0]))
    moved = modes[swept.sweeper.chain].reshape(J, k, -1)
    out: FloatArray = blocks + moved @ corner @ moved.swapaxes(1, 2)
    return out


def _conditional(fit: LinearFit, include_fixed: bool) -> tuple[FloatArray, ...]:
    point, problem = fit.point, fit.problem
    p = problem.n_fixed
    corner = np.zeros((p + 1, p + 1))
    if include_fixed and p:
        inverse = np.linalg.inv(point.RX)
        corner[:p, :p] = inverse @ inverse.T
    blocks = point.swept.adjoint(point.border, corner).diagonal
    scaling = problem.scaling
    scale = fit.sigma**2 / scaling.weight_scale
    chained = _completed(point)
    of_chain = None if chained is None else _of_chain(chained, corner)
    out: list[FloatArray] = [np.empty(0)] * len(fit.design.terms)
    for factor, block in zip(problem.factors, blocks, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            S = scaling.S[term]
            if of_chain is not None and isinstance(problem.structures.each[term], ChainLevels):
                out[term] = scale * S[0, 0] ** 2 * of_chain
                continue
            out[term] = scale * small.right(small.left(S, block[columns, columns]), S.T).transpose(2, 0, 1)
    return tuple(out)
