"""The public modular steps and the frozen result of a fit.

A linear mixed model is fitted in four steps, as in lme4: `lformula` (formula and data to arrays),
`lmm_criterion` (arrays to a function of theta), `optimize_criterion` (its minimum) and `make_fit` (everything on
the user's scale). `lmm_fit` does the last three.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.certificate import Certificate, Evaluation
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.identification.identify import identify
from lme4py.engine.identification.record import Identification
from lme4py.engine.linear.certificate import certify
from lme4py.engine.linear.chained import linear_problem as engine_problem
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.penalised import PenalisedPoint, make_criterion
from lme4py.engine.linear.problem import Problem
from lme4py.engine.linear.solve import solve
from lme4py.engine.linear.start import moment_start
from lme4py.engine.optimise import Control, Optimum
from lme4py.engine.threads import limited_threads
from lme4py.errors import (
    ConvergenceWarning,
    DesignError,
    Lme4Warning,
    OptimaWarning,
    OptionError,
    warn,
)
from lme4py.families.rows import RowNoise
from lme4py.fits.generalised.criterion import GlmmCriterion
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import fit_at, warn_of
from lme4py.fits.linear.fit import LinearFit, PenalisedLinearFit
from lme4py.fits.optimisers import OWN, refuse_named, start_by_name
from lme4py.fits.steps import read_control, term_names, warn_unidentified
from lme4py.linalg.types import FloatArray

__all__ = ["LmmCriterion", "lmm_criterion", "lmm_fit", "make_fit", "optimize_criterion"]


class LmmCriterion:
    """-2 log-likelihood (ML) or REML criterion as a function of theta on the user's scale.

    Parameters
    ----------
    design : Design
    reml : bool

    Attributes
    ----------
    identification : Identification

    Raises
    ------
    DesignError
        As many fixed effects as rows, or variances that the data say nothing about; see
        `lme4py.engine.identification.record`.

    Examples
    --------
    >>> import lme4py
    >>> design = lme4py.lformula("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
    >>> criterion = lme4py.lmm_criterion(design)
    >>> round(criterion([0.8483]), 4)
    319.6543
    """

    def __init__(self, design: Design, reml: bool = True, problem: Problem | None = None) -> None:
        refuse_saturated(design)
        self._set(design, make_criterion(engine_problem(design) if problem is None else problem, reml))
        warn_unidentified(self.identification)

    def _set(self, design: Design, inside: Criterion) -> None:
        self.design = design
        self.inside = inside
        self.identification = identified(design, inside.problem)

    @property
    def reml(self) -> bool:
        """True for the REML criterion, False for -2 log-likelihood."""
        return self.inside.reml

    def __call__(self, theta: Any) -> float:
        """Value at theta, shape (m,).

        Raises
        ------
        OptionError
            Where the criterion is lost in rounding: some 1e5 residual standard deviations and more.
        """
        return self._evaluate(theta).value

    def gradient(self, theta: Any) -> FloatArray:
        """Analytic gradient at theta, shape (m,).

        Parameters
        ----------
        theta : array_like, shape (m,)
            On the user's scale.

        Returns
        -------
        ndarray, shape (m,)
        """
        problem = self.inside.problem
        structures, scaling = problem.structures, problem.scaling
        point = self._evaluate(theta)
        inside = self.inside.sigma_gradient(point)
        given = structures.user.split(structures.user.check(theta))
        own = zip(structures.each, structures.split(point.theta), given, scaling.column_changes, inside, strict=True)
        parts = [s.user_gradient(s.user, here, user, S, G) for s, here, user, S, G in own]
        return np.concatenate([np.zeros(0), *parts])

    def _evaluate(self, theta: Any) -> Point:
        try:
            with np.errstate(all="ignore"):
                return self.inside.evaluate(self.to_inside(theta))
        except np.linalg.LinAlgError as error:
            raise OptionError(_too_large(theta, str(error))) from None

    def to_inside(self, theta: Any) -> FloatArray:
        """theta of the same covariances in the engine's columns.

        Parameters
        ----------
        theta : array_like, shape (m,)

        Returns
        -------
        ndarray, shape (m,)
        """
        return to_inside(self.inside.problem, theta)

    def to_user(self, inside: FloatArray) -> FloatArray:
        """theta on the user's scale from the engine's.

        Parameters
        ----------
        inside : ndarray, shape (m,)
            In the engine's columns.

        Returns
        -------
        ndarray, shape (m,)
        """
        return to_user(self.inside.problem, inside)

    def optimise(self, start: Any, control: Control) -> Optimum:
        """The minimum.

        Parameters
        ----------
        start : array_like, shape (m,), or None
            theta on the user's scale.
        control : Control

        Returns
        -------
        Optimum
        """
        if control.block == "iterative":
            raise OptionError(
                "this criterion has the exact factor of its crossed random effects; control['block'] is 'iterative' in "
                "lmer() and lmm_fit() only."
            )
        inside = None if start is None else self.to_inside(_theta_of(start))
        if control.optimizer != OWN:
            first = moment_start(self.inside.problem) if inside is None else inside
            inside = self.to_inside(start_by_name(self, self.to_user(first), control))
        with limited_threads(self.design):
            return solve(self.inside, inside, control)


def _theta_of(start: Any) -> Any:
    """theta of a start by names, which of a linear model has no other part: the rest follows from it."""
    if not isinstance(start, Mapping):
        return start
    if set(start) - {"theta", "par"} or not start:
        raise OptionError(
            f"start has the parts {', '.join(map(repr, start))}; of a linear model give theta, from which the fixed "
            "effects and sigma follow."
        )
    return next(iter(start.values()))


def identified(design: Design, problem: Problem) -> Identification:
    """Which variances the data determine.

    Parameters
    ----------
    design : Design
    problem : Problem
    """
    noise = RowNoise("the residual variance", float(design.n_obs)) if design.sigma is None else None
    return identify(problem.variance_gram, problem.scaling.S, design.terms, noise)


def linear_problem(design: Design, control: Control) -> Problem:
    """The engine's side of a design, with a factor of its crossed effects or without.

    Parameters
    ----------
    design : Design
    control : Control

    Raises
    ------
    DesignError
    """
    refuse_saturated(design)
    with limited_threads(design):
        return engine_problem(design, control.block)


def to_inside(problem: Problem, theta: Any) -> FloatArray:
    """theta of the same covariances in the engine's columns, from the user's.

    Parameters
    ----------
    problem : Problem
    theta : array_like, shape (m,)
    """
    structures = problem.structures
    given = structures.check(theta)
    # Squares of larger numbers are infinite.
    if not all(np.abs(M).max(initial=0.0) <= 1e150 for M in structures.user.factors(given)):
        raise OptionError(_too_large(theta, "their squares are beyond floating point"))
    return structures.user.to_engine(given, problem.scaling.column_changes)


def to_user(problem: Problem, inside: FloatArray) -> FloatArray:
    """theta on the user's scale, from the engine's.

    Parameters
    ----------
    problem : Problem
    inside : ndarray, shape (m,)
    """
    structures = problem.structures.user
    return structures.canonical(structures.to_user(inside, problem.scaling.column_changes))


def refuse_saturated(design: Design) -> None:
    """Refuse a gaussian model whose fixed effects leave nothing for a residual variance.

    Parameters
    ----------
    design : Design

    Raises
    ------
    DesignError
    """
    if design.X.shape[1] >= design.n_obs:
        raise DesignError(
            f"the model has {design.X.shape[1]} fixed-effects coefficients and one residual variance but only "
            f"{design.n_obs} observations; take terms out of the formula"
        )


def _too_large(theta: Any, why: str) -> str:
    return (
        f"the criterion cannot be evaluated at theta={np.asarray(theta, dtype=float).tolist()}: {why}. These are "
        "standard deviations of random effects relative to the residual one; give smaller numbers."
    )


def lmm_criterion(design: Design, reml: bool = True, problem: Problem | None = None) -> LmmCriterion:
    """Second modular step: the function of theta that is minimised.

    Parameters
    ----------
    design : Design
    reml : bool
    problem : Problem, optional
        The engine's side of the design, where it has been made.

    Returns
    -------
    LmmCriterion
        Call it with theta; `gradient` is analytic.

    Raises
    ------
    DesignError
        As many fixed effects as rows, or variances that the data say nothing about.

    Warns
    -----
    IdentificationWarning
        When only sums of some variances are determined.

    Examples
    --------
    >>> from lme4py import lformula, load_dataset
    >>> criterion = lmm_criterion(lformula("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")), reml=False)
    >>> round(criterion([1.0]), 3), criterion.gradient([1.0]).round(2)
    (327.767, array([3.12]))
    """
    with limited_threads(design):
        return LmmCriterion(design, reml, problem)


@overload
def optimize_criterion(
    criterion: LmmCriterion, start: Any = None, control: Control | Mapping[str, Any] | None = None
) -> Optimum: ...
@overload
def optimize_criterion(
    criterion: GlmmCriterion, start: Any = None, control: Control | Mapping[str, Any] | None = None
) -> GlmmOptimum: ...
def optimize_criterion(
    criterion: LmmCriterion | GlmmCriterion, start: Any = None, control: Control | Mapping[str, Any] | None = None
) -> Optimum | GlmmOptimum:
    """Third modular step: the minimum of the criterion.

    Parameters
    ----------
    criterion : LmmCriterion or GlmmCriterion
    start : array_like, shape (m,), optional
        theta on the user's scale.
    control : Control or dict, optional
        ``max_evaluations``, ``tolerance``, ``radius``.

    Returns
    -------
    Optimum or GlmmOptimum
        Its parameters are in the engine's columns; `LmmCriterion.to_user` brings theta back.

    Examples
    --------
    >>> from lme4py import lformula, lmm_criterion, load_dataset
    >>> criterion = lmm_criterion(lformula("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")))
    >>> optimum = optimize_criterion(criterion)
    >>> round(optimum.value, 4), criterion.to_user(optimum.theta).round(4)
    (319.6543, array([0.8483]))
    """
    return criterion.optimise(start, read_control(control))


@overload
def make_fit(design: Design, criterion: LmmCriterion, optimum: Optimum) -> LinearFit: ...
@overload
def make_fit(design: Design, criterion: GlmmCriterion, optimum: GlmmOptimum) -> GeneralisedFit: ...
def make_fit(
    design: Design, criterion: LmmCriterion | GlmmCriterion, optimum: Optimum | GlmmOptimum
) -> LinearFit | GeneralisedFit:
    """Fourth modular step: estimates, modes and the certificate on the user's scale.

    Parameters
    ----------
    design : Design
    criterion : LmmCriterion or GlmmCriterion
    optimum : Optimum or GlmmOptimum
        Of this criterion.

    Returns
    -------
    LinearFit or GeneralisedFit

    Warns
    -----
    ConvergenceWarning
        When the optimum cannot be certified.
    OptimaWarning
        When another minimum was found that is hardly higher.

    Examples
    --------
    >>> from lme4py import lformula, lmm_criterion, load_dataset, optimize_criterion
    >>> design = lformula("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    >>> criterion = lmm_criterion(design)
    >>> fit = make_fit(design, criterion, optimize_criterion(criterion))
    >>> round(fit.sigma, 3), fit.certificate.converged
    (49.51, True)
    """
    if isinstance(criterion, LmmCriterion) and isinstance(optimum, Optimum):
        return _linear_fit(design, criterion, optimum)
    if isinstance(criterion, LmmCriterion) or isinstance(optimum, Optimum):
        raise OptionError("the optimum is not one of this criterion; give what optimize_criterion(criterion) returned.")
    fit = fit_at(design, criterion, optimum)
    warn_of(fit, True, stacklevel=3)
    return fit


def _linear_fit(design: Design, criterion: LmmCriterion, optimum: Optimum) -> LinearFit:
    inside = criterion.inside
    with limited_threads(design):
        point: Point = optimum.source[0]
        refuse_exact_fit(point.r2, inside.problem)
        certificate = _certificate(design, criterion, optimum)
        modes = point.modes()
    if not certificate.converged:
        warnings.warn(certificate.verdict, ConvergenceWarning, stacklevel=4)
    elif certificate.second is not None:
        warn(certificate.verdict, OptimaWarning)
    elif certificate.caution:
        warn(certificate.caution, Lme4Warning)
    found = Estimates(point.value, point.beta, point.RX, point.r2, point.T, modes, optimum.theta)
    own = (design, inside.problem, criterion.reml, found, criterion.identification, certificate, optimum.log)
    if isinstance(point, PenalisedPoint):
        return linear_fit(PenalisedLinearFit, *own, prior=point.prior, likelihood=point.likelihood)
    return linear_fit(LinearFit, *own)


# Beyond this relative standard deviation a descent that has not converged has no end.
_LOST = 1e5


def _certificate(design: Design, criterion: LmmCriterion, optimum: Optimum) -> Certificate:
    """What is proved about the optimum; refused where an improper prior drives the variances to infinity.

    Raises
    ------
    DesignError
    """
    priors, certificate = design.priors, None
    try:
        certificate = certify(criterion.inside, optimum, term_names(design), criterion.identification)
    except np.linalg.LinAlgError:
        if priors is None:
            raise
    # Where a descent without end stops, at a point without a value or short of one, is a matter of rounding.
    if certificate is not None and (priors is None or certificate.converged or np.abs(optimum.theta).max() < _LOST):
        return certificate
    raise DesignError(
        f"the criterion has no minimum with {'' if priors is None else priors.text}: an improper prior outweighs the "
        "data as variances grow; give it a scale or a rate, or a smaller shape."
    )


def refuse_exact_fit(r2: float, problem: Problem) -> None:
    """Refuse a response that the random effects fit exactly.

    Raises
    ------
    DesignError
    """
    if problem.known is None and r2 < 1e-10 * problem.cross.n_obs:
        raise DesignError(
            "the random effects fit the response exactly, or all but a part in 1e10 of its variation: the residual "
            "variance is zero in floating point. Take terms out of the formula, or group by a coarser factor."
        )


class Estimates(NamedTuple):
    """What an engine found, in its columns.

    Attributes
    ----------
    value : float
        Of the criterion, on the user's scale.
    beta : ndarray, shape (p,)
    RX : ndarray, shape (p, p)
    r2 : float
        Penalised residual sum of squares.
    T : sequence of ndarray
        By term.
    modes : list of ndarray, each (k J, 1)
        By grouping factor.
    theta : ndarray, shape (m,)
    """

    value: float
    beta: FloatArray
    RX: FloatArray
    r2: float
    T: Sequence[FloatArray]
    modes: list[FloatArray]
    theta: FloatArray


_F = TypeVar("_F", bound=LinearFit)


def linear_fit(
    kind: type[_F],
    design: Design,
    problem: Problem,
    reml: bool,
    found: Estimates,
    identification: Identification,
    certificate: Certificate,
    log: tuple[Evaluation, ...],
    **more: Any,
) -> _F:
    """Everything on the user's scale.

    Parameters
    ----------
    kind : type
    design : Design
    problem : Problem
    reml : bool
    found : Estimates
    identification : Identification
    certificate : Certificate
    log : tuple of Evaluation
    **more
        Further fields of the kind.
    """
    scaling = problem.scaling
    sigma_inside = float(np.sqrt(problem.variance(found.r2, reml)))
    spread = scaling.y_scale * sigma_inside
    structures = problem.structures
    own = zip(structures.each, structures.split(found.theta), scaling.S, strict=True)
    return kind(
        design=design,
        reml=reml,
        criterion=found.value,
        beta=scaling.beta(found.beta),
        vcov=scaling.vcov(sigma_inside**2 * _inverse_cross(found.RX)),
        sigma=spread * float(np.sqrt(scaling.weight_scale)) if design.sigma is None else design.sigma,
        theta=to_user(problem, found.theta),
        covariances=tuple(spread**2 * structure.whole_covariance(theta, S) for structure, theta, S in own),
        modes=_user_modes(problem, found.modes, found.theta),
        certificate=certificate,
        opt_log=log,
        problem=problem,
        theta_inside=found.theta,
        identification=identification,
        **more,
    )


def _inverse_cross(R: FloatArray) -> FloatArray:
    """(R'R)^-1 of an upper triangular R."""
    if not R.size:
        return np.zeros((0, 0))
    inverse = np.linalg.inv(R)
    return inverse @ inverse.T


def _user_modes(problem: Problem, inside: list[FloatArray], theta: FloatArray) -> tuple[FloatArray, ...]:
    """Conditional modes of each term, (J, k), from those of each factor in the engine's columns."""
    structures, scaling = problem.structures, problem.scaling
    parts = structures.split(theta)
    out: list[FloatArray] = [np.empty(0)] * len(structures.each)
    for factor, b in zip(problem.factors, inside, strict=True):
        values = b.reshape(factor.n_columns, factor.n_levels)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            effects = structures.each[term].whole_effects(parts[term], scaling.S[term], values[columns])
            out[term] = scaling.y_scale * effects.T
    return tuple(out)


def lmm_fit(
    design: Design, reml: bool = True, start: Any = None, control: Control | Mapping[str, Any] | None = None
) -> LinearFit:
    """Fit the model of a design: `lmm_criterion`, `optimize_criterion` and `make_fit` in one call.

    Parameters
    ----------
    design : Design
    reml : bool
    start : array_like, optional
    control : Control or dict, optional

    Returns
    -------
    LinearFit

    Examples
    --------
    >>> from lme4py import lformula, load_dataset
    >>> fit = lmm_fit(lformula("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")), reml=False)
    >>> fit.theta.round(4), round(fit.criterion, 4)
    (array([0.7526]), 327.3271)
    """
    from lme4py.fits.linear.iterative import without_factor

    settings = read_control(control)
    # One limit for all steps, which have theirs where they are called alone.
    with limited_threads(design):
        problem = linear_problem(design, settings)
        found = without_factor(design, problem, reml, start, settings)
        if found is not None:
            refuse_named(settings, "models whose crossed effects are solved without a factor")
            return found
        criterion = lmm_criterion(design, reml, problem.factored())
        settings = settings if settings.block == "exact" else replace(settings, block="exact")
        return make_fit(design, criterion, optimize_criterion(criterion, start, settings))
