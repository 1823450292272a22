"""The frozen result of a generalised linear mixed model, and the step from a design to it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.generalised.certificate import certify_glmm
from lme4py.engine.generalised.criteria import ProfiledCriterion
from lme4py.engine.generalised.fixed_system import FixedSystem
from lme4py.engine.generalised.hessian import curvature_floor, inverse_hessian, scaled_eigen
from lme4py.engine.generalised.laplace import Laplace, PenalisedLaplace
from lme4py.engine.generalised.limit import Limit, find_limit
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.scale_limit import find_scale_limit
from lme4py.engine.generalised.streamed.passes import PassedValue
from lme4py.engine.generalised.weighted_groups import conditional_of_copies, modes_of_copies
from lme4py.engine.identification.one_answer import refuse_perfect_groups
from lme4py.engine.linear.problem import UNFACTORED
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, DesignError, Lme4Error, OptimaWarning, warn
from lme4py.families.ordered.categories import threshold_names
from lme4py.families.registry import Family
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.criterion import GlmmCriterion
from lme4py.fits.generalised.fit import GeneralisedFit, covariances_of, penalised_fit, user_jacobian
from lme4py.fits.parameters import check_names
from lme4py.fits.steps import linear_predictor, read_control, term_names
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

# Step of the differences of the mode of the fixed effects, in standard errors.
_MODE_STEP = 1e-3

__all__ = ["fit_at", "fit_like", "glmm_fit", "make_glmm_fit", "named_fit", "user_conditional", "user_modes", "warn_of"]


def glmm_fit(
    design: Design,
    family: Family,
    data: ResponseData | None = None,
    *,
    nAGQ: int = 1,
    hessian: str = "observed",
    start: Any = None,
    control: Control | Mapping[str, Any] | None = None,
    compare: bool = True,
    thorough: bool = True,
    reml: bool = False,
) -> GeneralisedFit:
    """Fit the model of a design.

    Parameters
    ----------
    design : Design
    family : Family
    data : ResponseData, optional
        The response, checked for this family; `design.response` when not given.
    nAGQ : int
    hessian : {"observed", "expected"}
    start : array of shape (m,), optional
        theta on the user's scale.
    control : Control or dict, optional
    compare : bool
        With more than one quadrature point, compare the integral with one of more points and warn where that matters.
    thorough : bool
        False for one of many fits to similar data: where another minimum is in sight, fewer other starts.
    reml : bool
        Integrate over the fixed effects too.

    Returns
    -------
    GeneralisedFit

    Warns
    -----
    ConvergenceWarning
        When the optimum cannot be certified, or the quadrature has too few points.
    OptimaWarning
        When another minimum was found that is hardly higher, the criterion falls below the minimum elsewhere without
        reaching one, or the predictor lies on both sides of a pole or zero of the link.
    IdentificationWarning
        When only sums of some variances are determined.

    Raises
    ------
    DesignError
        Variances that the data say nothing about, see `lme4py.engine.identification.record`; or that have no finite
        estimate, because every group gives one answer only, see `lme4py.engine.identification.one_answer`.

    Examples
    --------
    >>> from lme4py import lformula, load_dataset
    >>> from lme4py.families.registry import make_family
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> design = lformula(formula, load_dataset("cbpp"), family="binomial")
    >>> fit = glmm_fit(design, make_family("binomial", "logit"), nAGQ=9)
    >>> fit.theta.round(4), fit.certificate.converged
    (array([0.6475]), True)
    """
    from lme4py.fits.generalised.iterative import criterion_or_fit

    settings = read_control(control)
    criterion, without_factor = criterion_or_fit(design, family, data, nAGQ, hessian, reml, start, settings)
    if without_factor is not None:
        return without_factor
    fit = fit_at(design, criterion, criterion.optimise(start, settings, thorough))
    warn_of(fit, compare, stacklevel=4)
    return fit


def named_fit(
    design: Design, family: Family, nAGQ: int, hessian: str, start: Any, control: Any, reml: bool = False
) -> GeneralisedFit:
    """`glmm_fit` of a design whose names are checked.

    Parameters
    ----------
    design, family, nAGQ, hessian, start, control, reml
        As in `glmm_fit`.
    """
    check_names(design, family)
    return glmm_fit(design, family, nAGQ=nAGQ, hessian=hessian, start=start, control=control, reml=reml)


def warn_of(fit: GeneralisedFit, compare: bool, stacklevel: int) -> None:
    """Warn of an optimum that is not certified or not the lowest, or of a quadrature with too few points.

    Parameters
    ----------
    fit : GeneralisedFit
    compare : bool
        Look at the quadrature, and speak of infinite estimates: the likelihood of their limit is one like others.
    stacklevel : int
    """
    if not fit.certificate.converged and (compare or fit.recession is None):
        warnings.warn(fit.certificate.verdict, ConvergenceWarning, stacklevel=stacklevel)
    elif compare and (fit.certificate.caution or fit.certificate.second is not None):
        warn(fit.certificate.verdict, OptimaWarning)
    elif compare and fit.nAGQ not in (0, 1) and fit.integral_check.matters:
        warnings.warn(str(fit.integral_check), ConvergenceWarning, stacklevel=stacklevel)


def fit_like(
    fit: GeneralisedFit, design: Design, data: ResponseData | None = None, start: Any = None, thorough: bool = True
) -> GeneralisedFit:
    """The model of another design, fitted as `fit` was; how good its integral is, was said of `fit`.

    Parameters
    ----------
    fit : GeneralisedFit
    design : Design
    data : ResponseData, optional
        That of `fit` when not given.
    start : array of shape (m,), optional
        theta on the user's scale.
    thorough : bool
        As in `glmm_fit`.
    """
    refuse_unfactored(fit)
    response = fit.data if data is None else data
    again = glmm_fit(
        design,
        fit.family,
        response,
        nAGQ=fit.nAGQ,
        hessian=fit.hessian,
        start=start,
        compare=False,
        thorough=thorough,
        reml=fit.restricted and bool(design.terms),
    )
    return again.speaking(fit.conventions)


def refuse_unfactored(fit: GeneralisedFit) -> None:
    """Refuse to fit again what was solved iteratively: by a factor it would be another approximation.

    Parameters
    ----------
    fit : GeneralisedFit

    Raises
    ------
    Lme4Error
    """
    if fit.problem.is_iterative:
        raise Lme4Error(UNFACTORED)


def fit_at(design: Design, criterion: GlmmCriterion, optimum: GlmmOptimum) -> GeneralisedFit:
    """The fit at an optimum of a criterion, without a warning.

    Parameters
    ----------
    design : Design
    criterion : GlmmCriterion
    optimum : GlmmOptimum
    """
    family, data, finder = criterion.family, criterion.data, criterion.finder
    with limited_threads(design):
        return make_glmm_fit(design, family, data, criterion.nAGQ, criterion.hessian, finder, optimum)


def make_glmm_fit(
    design: Design,
    family: Family,
    data: ResponseData,
    nAGQ: int,
    hessian: str,
    finder: ModeFinder,
    optimum: GlmmOptimum,
) -> GeneralisedFit:
    problem = finder.problem
    limit = _limit(design, finder, optimum, nAGQ)
    if limit is not None:
        optimum = limit.optimum
    theta, inside_beta, inside_lam = problem.split(optimum.phi)
    beta, lam = problem.C @ inside_beta, problem.user_nuisance(inside_beta, inside_lam)
    covariances = covariances_of(problem, optimum.phi)
    modes = user_modes(problem, theta, optimum.found.mode.b)
    eta = linear_predictor(design, beta, modes)
    if limit is None and covariances:
        refuse_perfect_groups(design, family, data, beta, lam, covariances[0], eta)
    covariance = _covariance(finder, optimum, limit, profiled=nAGQ == 0 or problem.restricted)
    m, p = problem.n_theta, problem.n_fixed
    vcov = covariance[m : m + p, m : m + p].copy()
    fit = GeneralisedFit(
        design=design,
        family=family,
        data=data,
        nAGQ=int(nAGQ),
        hessian=hessian,
        criterion=optimum.value,
        beta=beta,
        vcov=vcov,
        parameter_vcov=covariance,
        log_dispersion=problem.reported_lambda(lam) if problem.n_dispersion else problem.known,
        log_dispersion_se=_dispersion_error(problem, lam, covariance),
        theta=problem.structures.user.to_user(theta, problem.S),
        covariances=tuple(covariances),
        modes=modes,
        conditional_covariances=() if problem.chain is not None else user_conditional(problem, optimum.found),
        linear_predictor=eta,
        certificate=certify_glmm(
            problem,
            optimum if limit is None else limit.inside,
            term_names(design),
            "" if limit is None else _no_maximum(limit, family),
        ),
        opt_log=optimum.log,
        problem=problem,
        phi=optimum.phi,
        thresholds=family.alpha(lam),
        others=others_of(family, lam),
        restricted=problem.restricted,
        identification=problem.identification if limit is None else limit.identification,
        recession=None if limit is None else limit.recession,
    )
    found = optimum.found
    return penalised_fit(fit, found.penalty.value) if isinstance(found, PenalisedLaplace) else fit


def others_of(family: Family, lam: Any) -> tuple[float, ...]:
    """The parameters that are neither a dispersion nor thresholds, as the family's variables."""
    return tuple(float(value) for value in np.atleast_1d(lam)[: len(family.nuisance_names)])


def _no_maximum(limit: Limit, family: Family) -> str:
    """Why there is no maximum, and what is not determined in the limit."""
    text = limit.recession.describe(family.separates)
    if limit.held:
        text += " Single rows at the ends of their categories hold the other estimates: there are no standard errors."
    open_ones = limit.identification.sentences
    return f"{text} Not every variance is identified: {'; '.join(open_ones)}." if open_ones else text


def _limit(design: Design, finder: ModeFinder, optimum: GlmmOptimum, nAGQ: int) -> Limit | None:
    """What the likelihood tends to where it has no maximum."""
    problem = finder.problem

    def coefficients() -> tuple[tuple[str, ...], FloatArray, int]:
        jacobian = user_jacobian(problem, optimum.phi)[problem.n_theta :, problem.n_theta :]
        effects, family = design.x_names, problem.family
        if not family.has_thresholds:
            return effects, jacobian[: problem.n_fixed, : problem.n_fixed], len(effects)
        effects = (*effects, *family.nuisance_names[: family.n_coefficients])
        return (*effects, *threshold_names(problem.data.categories or ())), jacobian, len(effects)

    found = find_limit(finder, optimum, coefficients, design.terms, 0 if problem.restricted else nAGQ)
    if found is not None and problem.restricted:
        raise DesignError(
            f"{found.recession.describe(problem.family.separates)} A likelihood integrated over the fixed effects "
            "needs finite estimates; leave reml=True out."
        )
    return find_scale_limit(finder, optimum, coefficients, nAGQ) if found is None else found


def _dispersion_error(problem: GlmmProblem, lam: Any, covariance: FloatArray) -> float | None:
    if not problem.n_dispersion:
        return None
    return float("nan") if problem.at_limit(lam) else float(np.sqrt(covariance[-1, -1]))


def _covariance(finder: ModeFinder, optimum: GlmmOptimum, limit: Limit | None, profiled: bool) -> FloatArray:
    """Covariance of (theta, beta, log dispersion or all thresholds) on the user's scale."""
    problem = finder.problem
    m, p = problem.n_theta, problem.n_fixed
    if limit is None:
        curvatures = optimum.curvatures
    else:
        curvatures = scaled_eigen(limit.inside.hessian, curvature_floor(optimum.found, problem.units))
    inverse = 2.0 * inverse_hessian(curvatures, m)
    if profiled:
        mode = optimum.found.mode
        system = FixedSystem(problem, mode.swept, mode.w, None, mode.fixed)
        basis = np.eye(p) if limit is None else limit.basis
        fixed = basis @ np.linalg.inv(basis.T @ system.cross @ basis) @ basis.T if p else np.zeros((0, 0))
        outer = inverse
        inverse = _with_block(inverse, fixed, m)
        if problem.restricted:
            inverse = inverse + _moved_with(finder, optimum, outer)
    elif limit is not None:
        inverse = limit.basis @ inverse @ limit.basis.T
    to_user = user_jacobian(problem, optimum.phi)
    if limit is not None and limit.held:
        return np.full(to_user.shape, np.nan)
    covariance: FloatArray = to_user @ inverse @ to_user.T
    return 0.5 * (covariance + covariance.T)


def _moved_with(finder: ModeFinder, optimum: GlmmOptimum, outer: FloatArray) -> FloatArray:
    """What the covariance of (theta, lambda) adds to that of (theta, beta, lambda): the mode of beta moves along."""
    problem, mode = finder.problem, optimum.found.mode
    m, p = problem.n_theta, problem.n_fixed
    places = np.r_[:m, m + p : optimum.phi.size]
    x = optimum.phi[places]
    criterion = ProfiledCriterion(finder, mode.beta)
    criterion.base = optimum.found
    J = np.zeros((p, x.size))
    for i in np.flatnonzero(outer.diagonal() > 0.0):
        step = np.zeros(x.size)
        step[i] = _MODE_STEP * np.sqrt(outer[i, i])
        ends = [criterion.evaluate(x + sign * step) for sign in (1.0, -1.0)]
        if ends[0] is not None and ends[1] is not None:
            J[:, i] = (ends[0].mode.beta - ends[1].mode.beta) / (2.0 * step[i])
    wide = np.zeros((optimum.phi.size, x.size))
    wide[m : m + p] = J
    across = np.zeros((x.size, optimum.phi.size))
    across[np.arange(x.size), places] = 1.0
    cross = wide @ outer @ across
    return np.asarray(wide @ outer @ wide.T + cross + cross.T, dtype=np.float64)


def _with_block(outer: FloatArray, block: FloatArray, place: int) -> FloatArray:
    """`outer` with `block` put on its diagonal before position `place`."""
    rows = np.r_[:place, place + block.shape[0] : outer.shape[0] + block.shape[0]]
    inside = np.arange(place, place + block.shape[0])
    full = np.zeros((rows.size + inside.size, rows.size + inside.size))
    full[np.ix_(rows, rows)] = outer
    full[np.ix_(inside, inside)] = block
    return full


def user_modes(problem: GlmmProblem, theta: FloatArray, modes: FloatArray) -> tuple[FloatArray, ...]:
    """Conditional modes of each term, (J, k), from those of the engine, (Q,), and theta inside, (m,)."""
    structures = problem.structures
    parts = structures.split(theta)
    out: list[FloatArray] = [np.empty(0)] * len(structures.each)
    blocks = problem.products.split(modes_of_copies(problem, modes) if problem.copies else modes)
    for factor, b in zip(problem.factors, blocks, strict=True):
        values = b.reshape(factor.n_columns, factor.n_levels)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            out[term] = structures.each[term].whole_effects(parts[term], problem.S[term], values[columns]).T
    return tuple(out)


def user_conditional(problem: GlmmProblem, found: Laplace | PassedValue) -> tuple[FloatArray, ...]:
    """Diagonal blocks of Lambda M^-1 Lambda' of each term, (J, k, k); empty for a chain of many times."""
    out: list[FloatArray] = [np.empty(0)] * len(problem.structures.each)
    whole = conditional_of_copies(found) if isinstance(found, Laplace) and problem.copies else found.diagonal
    for factor, block in zip(problem.factors, whole, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            if problem.chain is not None and term == problem.chain.term:
                continue
            S = problem.S[term]
            out[term] = small.right(small.left(S, block[columns, columns]), S.T).transpose(2, 0, 1)
    return tuple(out)
