"""Fit a linear model with a residual structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.design.residual.side import ResidualDesign
from lme4py.engine.certificate import Certificate
from lme4py.engine.marginal.effects import modes
from lme4py.engine.marginal.solve import MarginalSolution, certify, refuse_unidentified, solve
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, DesignError, Lme4Warning, OptionError, warn
from lme4py.fits.optimisers import refuse_named
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.problem import ResidualProblem, make_problem, structure_of
from lme4py.fits.steps import linear_predictor, read_control, refuse_iterative
from lme4py.linalg.types import FloatArray

__all__ = ["residual_fit"]

_ROUNDS = 50
_SETTLED = 1e-9
_FREE_ROUNDS = 4
# For messages.
_KIND = "models with a residual structure, and linear ones without random effects,"


def residual_fit(
    design: Design,
    residual: ResidualDesign,
    reml: bool = True,
    start: Any = None,
    control: Control | Mapping[str, Any] | None = None,
    thorough: bool = True,
) -> ResidualFit:
    """Fit the model of a design.

    Parameters
    ----------
    design : Design
    residual : ResidualDesign
    reml : bool
    start : array_like, shape (m,), optional
        theta on the user's scale.
    control : Control or dict, optional
    thorough : bool
        Descend from a second start as well.

    Returns
    -------
    ResidualFit

    Raises
    ------
    DesignError
        Parameters that the data do not tell apart, or no residual left.

    Warns
    -----
    ConvergenceWarning
    """
    settings = read_control(control)
    refuse_iterative(settings, _KIND)
    refuse_named(settings, _KIND)
    with limited_threads(design):
        if residual.fitted_column is not None:
            return _fixed_point(design, residual, reml, start, settings)
        problem, found = _solved(design, residual, reml, start, settings, thorough)
        fit = _make(design, residual, problem, found)
    _report(fit)
    return fit


def _solved(
    design: Design, residual: ResidualDesign, reml: bool, start: Any, control: Control, thorough: bool
) -> tuple[ResidualProblem, MarginalSolution]:
    n, p = design.X.shape
    if p >= n:
        raise DesignError(
            f"the model has {p} fixed-effects coefficients and covariance parameters but only {n} observations; take "
            "terms out of the formula"
        )
    problem = make_problem(design, residual, reml)
    if thorough:
        refuse_unidentified(problem.criterion, parameter_names(design, residual))
    inside = None if start is None else problem.to_inside(_checked_start(start, problem.criterion.model.n_par))
    return problem, solve(problem.criterion, inside, control, thorough)


def _checked_start(start: Any, m: int) -> FloatArray:
    values = np.asarray(start, dtype=float)
    if values.shape != (m,) or not np.isfinite(values).all():
        raise OptionError(
            f"`start` has shape {values.shape}; this model has {m} covariance parameters (see fit.theta)."
        )
    return values


def parameter_names(design: Design, residual: ResidualDesign) -> list[str]:
    """A name for each covariance parameter, for messages."""
    names = [f"{name} of {term.label}" for term in design.terms for name in structure_of(term).theta_names]
    for stratum, structure in zip(residual.strata, residual.part.structures, strict=True):
        where = f" in {stratum}" if stratum else ""
        names += [f"{name} of the residuals{where}" for name in structure.theta_names]
    return [*names, *residual.scale_names]


def _fixed_point(design: Design, residual: ResidualDesign, reml: bool, start: Any, control: Control) -> ResidualFit:
    """power(fitted): maximise over the variance parameters given fitted values, and again with the new ones."""
    # Fitted values of the model with the other variance functions only.
    problem, found = _solved(design, residual.without_fitted(), reml, None, control, True)
    fitted = _make(design, residual.without_fitted(), problem, found).fitted
    before: FloatArray | None = None
    first = start
    for number in range(_ROUNDS):
        own = residual.with_fitted(fitted)
        # From several starts as long as the fitted values still move from one basin to another.
        free = number < _FREE_ROUNDS
        problem, found = _solved(design, own, reml, first if free else start, control, free)
        fit = _make(design, own, problem, found)
        change = (
            np.inf if before is None else float(np.max(np.abs(fit.theta - before) / np.maximum(np.abs(before), 1e-3)))
        )
        before = start = fit.theta
        if change < _SETTLED:
            break
        fitted = fit.fitted
    note = (
        "The variance is a power of the fitted values: the estimates are a fixed point of fitted values and variance "
        "parameters (as in nlme), not a maximum of the likelihood."
    )
    fit = replace(fit, design=replace(design, notes=(*design.notes, note)))
    if change >= _SETTLED:
        warn(
            f"the fixed point of power(fitted) was not reached in {_ROUNDS} rounds (change {change:.2g}).",
            ConvergenceWarning,
        )
    _report(fit)
    return fit


def _make(design: Design, residual: ResidualDesign, problem: ResidualProblem, found: MarginalSolution) -> ResidualFit:
    criterion, point = problem.criterion, found.point
    scaling = criterion.scaling
    if scaling.y_scale < 1e-13 * float(np.abs(design.y).max()):
        raise DesignError("the fixed effects fit the response exactly: there are no residuals; take terms out")
    certificate = _certified(design, residual, problem, found)
    inside = modes(criterion, point)
    own = tuple(scaling.y_scale * b @ S.T for b, S in zip(inside, problem.S, strict=True))
    beta = criterion.beta_outside(point.beta)
    theta = problem.to_user(point.par)
    first = residual.part.points[:1][:, None]
    at = first[..., 0] if first.shape[-1] == 1 else first
    sd = criterion.model.residual.structures[0].reference_sd(
        point.par[problem.residual_slice(0)], at if residual.columns == () else None
    )
    return ResidualFit(
        design=design,
        reml=criterion.reml,
        criterion=criterion.value_outside(point.value),
        beta=beta,
        vcov=criterion.vcov_outside(point.phi),
        sigma=problem.residual_size(point.par) * sd,
        theta=theta,
        covariances=problem.covariances(point.par),
        modes=own,
        fitted=linear_predictor(design, beta, own),
        certificate=certificate,
        opt_log=found.optimum.log,
        residual=residual,
        problem=problem,
        par=point.par,
        hessian=found.hessian,
    )


def _certified(
    design: Design, residual: ResidualDesign, problem: ResidualProblem, found: MarginalSolution
) -> Certificate:
    """The certificate with everything that is on a boundary, or has run to where it no longer matters, in words."""
    par, model = found.point.par, problem.criterion.model
    singular: list[str] = []
    limits: list[str] = []
    for t, (term, place) in enumerate(zip(design.terms, model.slices, strict=False)):
        singular += model.random[t].structure.boundary(par[place], term.label, term.columns, problem.S[t])
        limits += model.random[t].structure.limits(par[place], term.label)
    lost: list[str] = []
    for h, structure in enumerate(model.residual.structures):
        label = (residual.text or "the residuals") + (f" in {residual.strata[h]}" if residual.strata[h] else "")
        theta = par[problem.residual_slice(h)]
        if model.residual.on_grid:
            lost += structure.boundary(theta, label, residual.columns)
        limits += structure.limits(theta, label)
    what = "the REML criterion" if problem.criterion.reml else "-2 log-likelihood"
    certificate = certify(problem.criterion, found, (*singular, *lost), what)
    if lost and not certificate.converged:
        why = (
            f" The residual covariance has become singular ({'; '.join(lost)}), where {what} has no minimum: rows of a "
            "subject determine each other. Choose a simpler residual structure."
        )
        return replace(certificate, verdict=certificate.verdict + why)
    return replace(certificate, caution="; ".join(limits)) if limits else certificate


def _report(fit: ResidualFit) -> None:
    if not fit.certificate.converged:
        warn(fit.certificate.verdict, ConvergenceWarning)
    elif fit.certificate.caution:
        warn(f"{fit.certificate.caution}.", Lme4Warning)
