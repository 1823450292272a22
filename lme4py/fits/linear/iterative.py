"""Linear mixed models with crossed effects too large for a factor: conjugate gradients and random probes."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.factor.crossed_factor import forecast_tiles
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.problem import UNFACTORED, Problem
from lme4py.engine.linear.start import moment_start
from lme4py.engine.linear.stochastic import StochasticCriterion
from lme4py.engine.linear.stochastic_certificate import certify_stochastic, need_all
from lme4py.engine.linear.stochastic_solve import NothingProved, solve_stochastic, with_factor
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, Lme4Error, Lme4Warning, warn
from lme4py.fits.answers.solved_joint import SolvedJoint, solved_joint
from lme4py.fits.derived import derived
from lme4py.fits.levels import in_tiles, seed_of, told, user_blocks
from lme4py.fits.linear.fit import Curvature, LinearFit
from lme4py.fits.linear.steps import (
    Estimates,
    identified,
    linear_fit,
    refuse_exact_fit,
    to_inside,
)
from lme4py.linalg.types import FloatArray

# Relative standard deviations above this are more often a failure of moments than true.
_MOST_MOMENT = 3.0

__all__ = [
    "IterativeFit",
    "exact_criterion",
    "iterative_fit",
    "level_covariances",
    "predictor_errors",
    "without_factor",
]


@dataclass(frozen=True, kw_only=True)
class IterativeFit(LinearFit):
    """A linear mixed model whose crossed effects were solved iteratively.

    There is no factor of them: what needs one is refused. Tests and intervals of the fixed effects are normal, since
    the groups are many. Standard errors of the variances follow from the average information.

    Attributes
    ----------
    information : Curvature
    """

    information: Curvature

    @property
    def default_ddf(self) -> str:
        """Normal quantiles, where none are asked for."""
        return self.conventions.ddf or "normal"

    @derived
    def point(self) -> Point:
        """Refused: it is a factor."""
        raise Lme4Error(UNFACTORED)

    @derived
    def curvature(self) -> Curvature:
        """The average information, with what the steps of the search taught."""
        return self.information


def without_factor(design: Design, problem: Problem, reml: bool, start: Any, control: Control) -> IterativeFit | None:
    """The fit without a factor of its crossed effects; None where there is to be one.

    That is where the problem has it, and where it was left out by forecast only and the minimum is no regular one.

    Parameters
    ----------
    design : Design
    problem : Problem
    reml : bool
    start : array_like, shape (m,), or None
    control : Control
    """
    if not problem.is_iterative:
        return None
    try:
        return iterative_fit(design, problem, reml, start, control)
    except NothingProved:
        if control.block == "iterative":
            raise
        return None


def iterative_fit(design: Design, problem: Problem, reml: bool, start: Any, control: Control) -> IterativeFit:
    """Fit the model without a factor of its crossed effects.

    Parameters
    ----------
    design : Design
    problem : Problem
        One that `is_iterative`.
    reml : bool
    start : array_like, shape (m,), or None
        theta on the user's scale.
    control : Control

    Raises
    ------
    NothingProved
        Variances at zero, or that no data tell apart.
    """
    identification = identified(design, problem)
    need_all(identification)
    criterion = StochasticCriterion(problem, reml, control.seed, min(os.cpu_count() or 1, 2))
    if control.exact:
        forecast_tiles(criterion.tables).check()
    # The value of the probes is not wanted where there is an exact one.
    wanted, failed = np.inf if control.exact else control.criterion_se, ""
    try:
        with limited_threads(design):
            inside = _starts(problem) if start is None else [to_inside(problem, start)]
            optimum = solve_stochastic(criterion, inside[0], control, wanted, inside[1:])
            if control.exact and not optimum.interrupted:
                optimum, failed = with_factor(optimum, criterion.by_factor)
    finally:
        criterion.tables.close()
    point = optimum.point
    refuse_exact_fit(point.r2, problem)
    what = "the REML criterion" if reml else "the deviance"
    certificate = certify_stochastic(optimum, what, problem.structures.n_theta, control.criterion_se, failed)
    if not certificate.converged:
        warnings.warn(certificate.verdict, ConvergenceWarning, stacklevel=5)
    elif certificate.caution:
        warn(certificate.caution, Lme4Warning)
    curvature = Curvature(optimum.hessian, point.slope, point.r2, criterion.df)
    found = Estimates(point.value, point.beta, point.RX, point.r2, point.T, point.modes, point.theta)
    return linear_fit(
        IterativeFit, design, problem, reml, found, identification, certificate, optimum.log, information=curvature
    )


def _starts(problem: Problem) -> list[FloatArray]:
    """Moments, and equal variances where moments may say nothing, as of groups of very different sizes."""
    moments = moment_start(problem)
    return [moments] if np.abs(moments).max() < _MOST_MOMENT else [moments, problem.structures.initial()]


def exact_criterion(fit: LinearFit) -> float:
    """The criterion at the estimates by an exact factor: in tiles, or where these do not fit the ordinary one.

    Parameters
    ----------
    fit : LinearFit

    Raises
    ------
    DesignError
        No factor fits into memory.
    """
    if not fit.problem.is_iterative:
        return fit.criterion
    criterion = StochasticCriterion(fit.problem, fit.reml)
    with limited_threads(fit.design):
        if forecast_tiles(criterion.tables).fits:
            with suppress(np.linalg.LinAlgError):
                return criterion.by_factor(fit.theta_inside).value
        return Criterion(fit.problem.factored(), fit.reml)(fit.theta_inside)


def level_covariances(fit: LinearFit, include_fixed: bool, exact: bool) -> tuple[tuple[FloatArray, ...], str]:
    """Covariances of the effects of every level given the data, each (J, k, k), and how well they are known.

    Parameters
    ----------
    fit : LinearFit
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
    problem, scaling = fit.problem, fit.problem.scaling
    criterion = StochasticCriterion(problem, fit.reml, seed_of(fit.certificate))
    with limited_threads(fit.design), in_tiles():
        found = criterion.level_blocks(fit.theta_inside, include_fixed, exact)
    scale = fit.sigma**2 / scaling.weight_scale
    return user_blocks(problem.factors, scaling.S, found.blocks, scale), told(found)


def predictor_errors(fit: LinearFit) -> SolvedJoint:
    """The joint covariance of the errors of coefficients and conditional modes, by systems that are solved.

    Parameters
    ----------
    fit : LinearFit
        One whose problem `is_iterative`.
    """
    problem, scaling = fit.problem, fit.problem.scaling
    criterion = StochasticCriterion(problem, fit.reml, seed_of(fit.certificate))
    with limited_threads(fit.design):
        at, moves = criterion.moves(fit.theta_inside)
    scale = fit.sigma**2 / scaling.weight_scale
    return solved_joint(fit, at, at.T, (scaling.C, scaling.S), moves, fit.vcov, scale)
