"""The joint distribution of estimates and conditional modes of a generalised linear mixed model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.engine.factor.chain import as_chain
from lme4py.engine.generalised.fixed_system import FixedSystem
from lme4py.engine.generalised.stacking import Stack
from lme4py.families.base import Family
from lme4py.families.nuisance import ThresholdPart, as_columns
from lme4py.families.response import ResponseData
from lme4py.fits.answers.chain_joint import ChainJoint
from lme4py.fits.answers.joint import JointVariance
from lme4py.fits.answers.stacked import SeveralPredictors
from lme4py.fits.answers.working import FactoredModel
from lme4py.fits.derived import derived
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import user_conditional
from lme4py.fits.parameters import VarianceInformation
from lme4py.linalg.types import FloatArray

__all__ = [
    "coefficient_scores",
    "coefficient_vcov",
    "conditional_covariances",
    "conditional_covariances_with_fixed",
    "information",
    "joint_variance",
    "model_covariance",
    "variance_information",
    "working_model",
]


def joint_variance(fit: GeneralisedFit, expected: bool, beside: bool = False) -> JointVariance:
    problem, mode = fit.problem, fit.point.mode
    p, products = problem.n_fixed, problem.products
    w, swept = mode.w, mode.swept
    if expected or problem.uses_expected:
        known = fit.family.derivatives(fit.data, mode.eta, mode.lam, 2)
        # Where the expected weights are not known, those of the Newton steps stand for them.
        w = known.w_work if known.w_exp is None else known.w_exp
        swept = products.factorize(mode.T, w)
    if expected:
        system = FixedSystem(problem, swept, w, None)
        vcov = np.linalg.inv(system.cross) if p else np.zeros((0, 0))
        return _joint(fit, swept, w, problem.stack.weigh(w, problem.X), problem.C, vcov)
    whole = fit.design.X if fit.family.is_joint else problem.stack.below(fit.design.X)
    columns = problem.stack.weigh(w, whole)
    # The modes move with thresholds and with the coefficients of further predictors too, and these with the fixed ones.
    columns = np.column_stack([columns, *coefficient_scores(fit.family, problem.data, mode.eta, mode.lam, beside)])
    vcov = coefficient_vcov(fit, beside)
    return _joint(fit, swept, w, columns, np.eye(p, columns.shape[1]), vcov)


def _joint(
    fit: GeneralisedFit, swept: Any, w: FloatArray, columns: FloatArray, C: FloatArray, vcov: FloatArray
) -> JointVariance:
    """From the columns that the modes move with, times W."""
    problem, products = fit.problem, fit.problem.products
    border = products.project(columns)
    chained = as_chain(swept)
    diagonal = products.log_det_derivatives(swept)[2] if chained is None else []
    if chained is not None:
        chain = chained.sweeper.chain
        border[chain] = chained.at_all_times(border[chain])
        swept = chained = chained.completed()
    P, _ = swept.back_substitute(swept.sweep_border(border), np.eye(columns.shape[1]))
    T = fit.point.mode.T
    own = (fit.design, problem.factors, T, w, C, problem.S, P, vcov, diagonal, 1.0, swept, products.places)
    return JointVariance(*own) if chained is None else ChainJoint(*own, chained=chained)


def information(fit: GeneralisedFit, columns: FloatArray) -> FloatArray:
    """Information of the coefficients of columns, (D n, c), then of thresholds and of coefficients of further parts."""
    stacked = columns.shape[0] > fit.design.n_obs
    eta = fit.point.mode.eta if stacked else fit.linear_predictor
    rows = fit.family.derivatives(fit.problem.data if stacked else fit.response, eta, fit.lam, 3, expected=not stacked)
    w = rows.w_work if rows.w_exp is None else rows.w_exp
    if stacked:
        w = fit.point.mode.w
    J = columns.T @ fit.problem.stack.weigh(w, columns)
    beside = slice(0, None if fit.thresholds is not None else fit.family.n_coefficients)
    if fit.thresholds is None and not fit.family.n_coefficients:
        return np.asarray(J)
    across = -columns.T @ as_columns(rows.score_lam)[:, beside]
    return np.block([[J, across], [across.T, rows.curve_lam[beside, beside]]])


def _moves_beside(family: Family) -> bool:
    """Whether predictions ask how modes move with more than the fixed effects.

    With thresholds, coefficients of further parts, or the dispersion where the mean of the response depends on it.
    """
    return family.has_thresholds or family.n_coefficients > 0 or (family.n_nuisance > 0 and not family.mean_is_link)


def coefficient_vcov(fit: Any, beside: bool = False) -> FloatArray:
    """Covariance of all that modes move with.

    Parameters
    ----------
    fit : Fit
    beside : bool
        The parameters of the distribution are asked for, whatever the family.
    """
    m = fit.theta.size
    known: FloatArray = fit.parameter_vcov[m:, m:] if beside or _moves_beside(fit.family) else fit.vcov
    return known


def coefficient_scores(
    family: Family, data: ResponseData, eta: FloatArray, lam: Any, beside: bool = False
) -> tuple[FloatArray, ...]:
    """Less the derivatives of each row's score in what modes move with beside the fixed effects, (D n, d), or nothing.

    Parameters
    ----------
    family : Family
    data : ResponseData
    eta : ndarray, shape (D n,)
    lam : float or ndarray
    beside : bool
        The parameters of the distribution are asked for, whatever the family.
    """
    if not (beside and family.n_nuisance) and not _moves_beside(family):
        return ()
    part = family.derivatives(data, eta, lam, 3, expected=False).score_lam
    if not family.has_thresholds:
        return (-as_columns(part),)
    if isinstance(part, ThresholdPart):
        return (-replace(part, A=np.eye(part.A.shape[0])).columns(),)
    # In thresholds as users know them, those in coefficients of further parts first.
    return (-as_columns(part) @ np.linalg.pinv(np.asarray(family.user_matrix)),)


def working_model(fit: GeneralisedFit) -> FactoredModel:
    """Weights are the expected ones, which are positive for every link (the observed ones for canonical links).

    Of several linear predictors they are the observed ones of all, and the fixed effects of all take part.
    """
    mode, problem = fit.point.mode, fit.problem
    family = problem.family.with_all_stacked()
    if family.stacked:
        return _stacked_model(fit, family)
    products = problem.products
    rows = problem.family.derivatives(problem.data, mode.eta, mode.lam, 3, expected=True)
    w = rows.w_exp if rows.w_exp is not None else mode.w
    # A row without information has no working response; a tiny weight stands for none.
    w = np.maximum(w, 1e-12 * float(np.abs(w).max()))
    return FactoredModel(
        X=problem.X,
        z=problem.X @ mode.beta + products.spread(mode.b) + mode.rows.score / w,
        w=w,
        T=mode.T,
        products=products,
        swept=products.factorize(mode.T, w),
        C=problem.C,
        scale=1.0,
        df=None,
        sigma=1.0,
    )


def _stacked_model(fit: GeneralisedFit, family: Family) -> SeveralPredictors:
    mode, problem = fit.point.mode, fit.problem
    products, p = problem.products, problem.n_fixed
    stack = Stack(products.stack.n, 1 + len(family.stacked))
    known = np.zeros(stack.size * stack.n)
    known[: mode.eta.size] = mode.eta
    rows = family.derivatives(problem.data, known, mode.lam, 2)
    by_name = {part.name: part.X for part in problem.data.parts}
    further = [(d, by_name[name]) for d, name in enumerate(family.stacked, 1) if name in by_name]
    X = np.zeros((stack.size, stack.n, p + sum(own.shape[1] for _, own in further)))
    X.reshape(-1, X.shape[2])[: mode.eta.size, :p] = problem.X
    start, parts = p, {}
    for d, own in further:
        place = slice(start, start + own.shape[1])
        X[d, :, place] = own
        parts[family.stacked[d - 1]] = place
        start = place.stop
    # Without offsets and the further coefficients: from where they are these change as from zero.
    moved = np.zeros(known.size)
    moved[: mode.eta.size] = problem.X @ mode.beta + products.spread(mode.b)
    return SeveralPredictors(
        X=X.reshape(known.size, -1),
        z=stack.weigh(rows.w_obs, moved) + rows.score,
        w=rows.w_obs,
        T=mode.T,
        products=products,
        swept=mode.swept,
        C=problem.C @ np.eye(p, start),
        scale=1.0,
        df=None,
        sigma=1.0,
        stack=stack,
        parts=parts,
    )


def model_covariance(fit: GeneralisedFit) -> FloatArray:
    """Covariance of beta by the model, also where the fit was asked for a robust one, (p, p)."""
    m, p = fit.theta.size, fit.beta.size
    covariance: FloatArray = fit.own_parameter_vcov[m : m + p, m : m + p]
    return covariance


@derived
def conditional_covariances(fit: GeneralisedFit) -> tuple[FloatArray, ...]:
    """Covariances of the random effects of every level given the data and the fixed effects, each (J, k, k)."""
    if fit.conditional_covariances or not fit.design.terms:
        return fit.conditional_covariances
    chain = fit.problem.chain
    if chain is None:
        return user_conditional(fit.problem, fit.point)
    completed: Any = as_chain(fit.point.swept)
    out = list(user_conditional(fit.problem, fit.point))
    out[chain.term] = fit.problem.S[chain.term][0, 0] ** 2 * completed.completed().group_blocks()
    return tuple(out)


def conditional_covariances_with_fixed(fit: GeneralisedFit, joint: JointVariance) -> tuple[FloatArray, ...]:
    """The conditional covariances plus what the fixed effects move the modes by."""
    out = list(conditional_covariances(fit)) if fit.design.terms else []
    for factor, P in zip(joint.factors if out else (), joint.P, strict=False):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            J, k = out[term].shape[:2]
            if fit.problem.chain is not None and term == fit.problem.chain.term:
                moved = joint.S[term][0, 0] * P.reshape(J, k, -1)
            else:
                by_level = P.reshape(factor.n_columns, factor.n_levels, -1)
                moved = np.einsum("ab,bjp->jap", joint.S[term], by_level[columns])
            out[term] = out[term] + np.einsum("jap,pq,jbq->jab", moved, joint.vcov, moved)
    return tuple(out)


@derived
def variance_information(fit: GeneralisedFit) -> VarianceInformation:
    structures = fit.problem.structures.user
    m, p, s = structures.n_theta, fit.beta.size, fit.parameter_vcov.shape[0]
    out = []
    for structure, place in zip(structures.each, structures.slices, strict=True):
        d = np.zeros((s, structure.size, structure.size))
        d[place] = structure.covariance_tangents(fit.theta[place])
        out.append(d)
    unit = np.eye(s)
    has_dispersion = fit.log_dispersion is not None and not fit.dispersion_is_known
    residual = unit[-1] if has_dispersion else np.zeros(s)
    thresholds = unit[:, m + p : s - 1 if has_dispersion else s]
    thetas = tuple(unit[:, place] for place in structures.slices)
    return VarianceInformation(fit.parameter_vcov, tuple(out), residual, unit[:, m : m + p], thresholds, thetas)
