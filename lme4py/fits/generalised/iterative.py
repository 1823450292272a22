"""Generalised models with crossed effects too large for a factor: conjugate gradients and random probes."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.certificate import Certificate
from lme4py.engine.factor.crossed_factor import forecast_tiles
from lme4py.engine.generalised.integrals.integral import IntegralCheck
from lme4py.engine.generalised.iterative.cells import CellProducts
from lme4py.engine.generalised.iterative.criterion import IterativeLaplace, LaplacePoint
from lme4py.engine.generalised.iterative.mode import predictor_of
from lme4py.engine.generalised.laplace import Laplace, laplace
from lme4py.engine.generalised.limit import moving
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.starts.start import find_start
from lme4py.engine.identification.one_answer import refuse_perfect_groups
from lme4py.engine.identification.recession import find_recession
from lme4py.engine.linear.problem import UNFACTORED, Unfactored, group_terms, refuse_iterative
from lme4py.engine.linear.stochastic_certificate import certify_stochastic, need_all
from lme4py.engine.linear.stochastic_solve import NothingProved, StochasticOptimum, solve_stochastic, with_factor
from lme4py.engine.optimise import Block, Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, Lme4Error, Lme4Warning, OptionError, warn
from lme4py.families.registry import Family
from lme4py.families.response import ResponseData
from lme4py.fits.answers.solved_joint import SolvedJoint, solved_joint
from lme4py.fits.derived import derived
from lme4py.fits.generalised.criterion import GlmmCriterion, glmm_criterion
from lme4py.fits.generalised.fit import GeneralisedFit, user_jacobian
from lme4py.fits.generalised.given_start import read_start
from lme4py.fits.generalised.joint import coefficient_vcov
from lme4py.fits.generalised.steps import user_modes
from lme4py.fits.levels import in_tiles, seed_of, told, user_blocks
from lme4py.fits.optimisers import refuse_named
from lme4py.fits.steps import linear_predictor
from lme4py.linalg.types import FloatArray

__all__ = [
    "IterativeGeneralisedFit",
    "criterion_or_fit",
    "exact_criterion",
    "iterative_fit",
    "level_covariances",
    "predictor_errors",
]


@dataclass(frozen=True, kw_only=True)
class IterativeGeneralisedFit(GeneralisedFit):
    """A generalised linear mixed model whose crossed effects were solved iteratively.

    There is no factor of them: what needs one is refused. Covariances of the parameters follow from differences of
    gradients; of more than ten fixed effects along theta and the dispersion only, beside X'V^-1X of the working linear
    model.
    """

    @derived
    def point(self) -> Laplace:
        """Refused: it is a factor."""
        raise Lme4Error(UNFACTORED)

    @derived
    def integral_check(self) -> IntegralCheck:
        """Nothing is compared: quadrature beside the modes of crossed effects needs their factor."""
        return IntegralCheck(1, None, reason="the crossed random effects were solved iteratively")


def criterion_or_fit(
    design: Design,
    family: Family,
    data: ResponseData | None,
    nAGQ: int,
    hessian: str,
    reml: bool,
    start: Any,
    control: Control,
) -> tuple[GlmmCriterion, IterativeGeneralisedFit | None]:
    """The criterion, and the fit without a factor of its crossed effects; None where there is to be one.

    That is where the model asks for it, where it is forecast to be better, and where it was left out by forecast only
    and the minimum is no regular one.

    Parameters
    ----------
    design, family, data, nAGQ, hessian, reml, start
        As in `glmm_fit`.
    control : Control
    """
    block = _block_of(control, design, family, design.response if data is None else data, nAGQ, hessian, reml)
    criterion = glmm_criterion(design, family, data, nAGQ=nAGQ, hessian=hessian, reml=reml, block=block)
    if not criterion.problem.is_iterative:
        return criterion, None
    try:
        return criterion, iterative_fit(criterion, start, control)
    except NothingProved:
        if control.block == "iterative":
            raise
    return glmm_criterion(design, family, data, nAGQ=nAGQ, hessian=hessian, reml=reml), None


def _block_of(
    control: Control, design: Design, family: Family, data: ResponseData | None, nAGQ: int, hessian: str, reml: bool
) -> Block:
    """What is to be made of crossed effects.

    Raises
    ------
    OptionError
        "iterative" is asked for, but not there for such a model.
    """
    if control.block == "exact" or data is None:
        return "exact"
    if control.block == "iterative":
        refuse_iterative(group_terms(design), design)
    why = _unsuited(design, family, data, nAGQ, hessian, reml)
    if control.block == "iterative" and why:
        raise OptionError(
            f"control['block'] is 'iterative', but {why}; such models have an exact factor: leave it out."
        )
    return "exact" if why else control.block


def _unsuited(design: Design, family: Family, data: ResponseData, nAGQ: int, hessian: str, reml: bool) -> str:
    """Why a model has an exact factor only, or ""."""
    if family.has_thresholds or family.is_joint or family.stacked or data.parts or data.responses is not None:
        return f"the {family.name} family has more than one linear predictor, or thresholds"
    if not family.log_concave:
        return (
            f"the log-likelihood of the {family.name} family is not concave with the {family.link.name} link, and its "
            "weights can be negative"
        )
    if family.n_nuisance != family.n_dispersion:
        return f"the {family.name} family has parameters beside the mean and the dispersion"
    if nAGQ != 1:
        return f"nAGQ={nAGQ} is no Laplace approximation"
    if hessian == "expected" and not family.canonical:
        return f"hessian='expected' has other weights than the Newton steps with the {family.link.name} link"
    if reml:
        return "reml=True integrates over the fixed effects too"
    if design.smooth_terms:
        return "the model has smooths"
    return ""


def iterative_fit(criterion: GlmmCriterion, start: Any, control: Control) -> IterativeGeneralisedFit:
    """Fit the model without a factor of its crossed effects.

    Parameters
    ----------
    criterion : GlmmCriterion
        Of a problem that `is_iterative`.
    start : array_like, shape (m,), dict, or None
        As in `glmm_fit`.
    control : Control

    Raises
    ------
    NothingProved
        Variances at zero, or that no data tell apart; a dispersion at the end of its range; coefficients that have no
        finite estimate.
    """
    refuse_named(control, "models whose crossed effects are solved without a factor")
    problem, design = criterion.problem, criterion.design
    need_all(problem.identification)
    given = read_start(criterion, start)
    with limited_threads(design):
        first = replace(find_start(problem), **(given or {}))
        laplace_of = IterativeLaplace(problem, control.seed)
        if control.exact:
            forecast_tiles(laplace_of.products.tables).check()
        phi = problem.join(first.theta, first.beta, first.lam)
        # The value of the probes is not wanted where there is an exact one.
        optimum = solve_stochastic(laplace_of, phi, control, np.inf if control.exact else control.criterion_se)
        _refuse_separated(problem, optimum.point, design.x_names)
        hessian, failed = _hessian(laplace_of, optimum), ""
        if control.exact and not optimum.interrupted:
            optimum, failed = with_factor(optimum, laplace_of.by_factor)
    certificate = certify_stochastic(optimum, "-2 log-likelihood", problem.n_theta, control.criterion_se, failed)
    if not certificate.converged:
        warnings.warn(certificate.verdict, ConvergenceWarning, stacklevel=5)
    elif certificate.caution:
        warn(certificate.caution, Lme4Warning)
    return _fit_of(criterion, optimum, hessian, certificate)


def _hessian(criterion: IterativeLaplace, optimum: StochasticOptimum[LaplacePoint]) -> FloatArray:
    """Second derivatives at the end, or what the steps taught of them where there are none beside it."""
    try:
        with np.errstate(all="ignore"):
            return criterion.hessian(optimum.point)
    except (np.linalg.LinAlgError, NothingProved):
        return optimum.hessian


def _fit_of(
    criterion: GlmmCriterion, optimum: StochasticOptimum[LaplacePoint], hessian: FloatArray, certificate: Certificate
) -> IterativeGeneralisedFit:
    """Numbers on the user's scale."""
    design, family, point = criterion.design, criterion.family, optimum.point
    problem: GlmmProblem = replace(criterion.problem, products=_emptied(criterion.problem))
    theta, inside_beta, lam = problem.split(point.theta)
    beta = problem.C @ inside_beta
    roots = [S @ T for T, S in zip(problem.structures.factors(theta), problem.S, strict=True)]
    covariances = tuple(root @ root.T for root in roots)
    modes = user_modes(problem, theta, point.b)
    eta = linear_predictor(design, beta, modes)
    refuse_perfect_groups(design, family, criterion.data, beta, lam, covariances[0], eta)
    to_user = user_jacobian(problem, point.theta)
    vcov = to_user @ (2.0 * np.linalg.inv(hessian)) @ to_user.T
    vcov = 0.5 * (vcov + vcov.T)
    m, p = problem.n_theta, problem.n_fixed
    nothing: Any = Unfactored()
    return IterativeGeneralisedFit(
        design=design,
        family=family,
        data=criterion.data,
        nAGQ=criterion.nAGQ,
        hessian=criterion.hessian,
        criterion=point.value,
        beta=beta,
        vcov=vcov[m : m + p, m : m + p].copy(),
        parameter_vcov=vcov,
        log_dispersion=float(lam) if problem.n_dispersion else problem.known,
        log_dispersion_se=float(np.sqrt(vcov[-1, -1])) if problem.n_dispersion else None,
        theta=problem.structures.user.to_user(theta, problem.S),
        covariances=covariances,
        modes=modes,
        conditional_covariances=nothing,
        linear_predictor=eta,
        certificate=certificate,
        opt_log=optimum.log,
        problem=problem,
        phi=point.theta,
        identification=problem.identification,
    )


def _emptied(problem: GlmmProblem) -> Any:
    products: Any = problem.products
    return products.emptied() if isinstance(products, CellProducts) else products


def _refuse_separated(problem: GlmmProblem, point: LaplacePoint, names: tuple[str, ...]) -> None:
    """Refuse coefficients along which the likelihood rises for ever.

    Raises
    ------
    NothingProved
    """
    family = problem.family
    _, beta, lam = problem.split(point.theta)
    eta = predictor_of(problem, beta, point.b)
    half = family.half_rows(problem.data, eta)
    rows = family.derivatives(problem.data, eta, lam, 2, expected=False)
    found = find_recession(half, family.rates(half, rows, problem.data, eta, lam), problem.X, None, problem.unit)
    if found is None:
        return
    moved = moving(problem, found[2], names)
    raise NothingProved(
        f"{', '.join(moved)} {'separates' if len(moved) == 1 else 'separate'} {family.separates}: the likelihood rises "
        "for ever as they go to infinity, where the iterative block proves nothing. Leave these columns out, merge "
        "sparse categories, or use control={'block': 'exact'}."
    )


def exact_criterion(fit: GeneralisedFit) -> float:
    """The Laplace criterion at the estimates by an exact factor: in tiles, or where these do not fit the ordinary one.

    Parameters
    ----------
    fit : GeneralisedFit

    Raises
    ------
    DesignError
        No factor fits into memory.
    """
    if not fit.problem.is_iterative:
        return fit.criterion
    criterion = IterativeLaplace(fit.problem)
    with limited_threads(fit.design), np.errstate(all="ignore"):
        if forecast_tiles(criterion.products.tables).fits:
            with suppress(np.linalg.LinAlgError):
                return criterion.by_factor(fit.phi).value
    problem = make_glmm(fit.design, fit.family, fit.data, expected=fit.hessian == "expected")
    finder = ModeFinder(problem)
    with limited_threads(fit.design), np.errstate(all="ignore"):
        mode = finder.find(*problem.split(fit.phi), np.zeros(sum(factor.size for factor in problem.factors)))
        return laplace(finder, mode).value


def level_covariances(fit: GeneralisedFit, include_fixed: bool, exact: bool) -> tuple[tuple[FloatArray, ...], str]:
    """Covariances of the effects of every level given the data, each (J, k, k), and how well they are known.

    Parameters
    ----------
    fit : GeneralisedFit
        One whose problem `is_iterative`.
    include_fixed : bool
        Count the uncertainty of the fixed effects.
    exact : bool
        By a factor in tiles.

    Raises
    ------
    DesignError
        The tiles do not fit into memory, or their precision is not enough.
    """
    problem, fixed = fit.problem, None
    if include_fixed and fit.beta.size:
        back = np.linalg.inv(problem.C)
        fixed = back @ np.linalg.cholesky(fit.vcov)
    criterion = IterativeLaplace(problem, seed_of(fit.certificate))
    with limited_threads(fit.design), np.errstate(all="ignore"), in_tiles():
        found = criterion.level_blocks(fit.phi, fixed, exact)
    return user_blocks(problem.factors, problem.S, found.blocks, 1.0), told(found)


def predictor_errors(fit: GeneralisedFit) -> SolvedJoint:
    """The joint covariance of the errors of coefficients and conditional modes, by systems that are solved.

    Parameters
    ----------
    fit : GeneralisedFit
        One whose problem `is_iterative`.
    """
    problem = fit.problem
    with limited_threads(fit.design), np.errstate(all="ignore"):
        mode, moves = IterativeLaplace(problem, seed_of(fit.certificate)).moves(fit.phi)
    vcov = coefficient_vcov(fit)
    return solved_joint(fit, mode.at, mode.T, (problem.C, problem.S), moves[:, : len(vcov)], vcov, 1.0)
