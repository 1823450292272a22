"""From a design with sampling weights to the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.search import Search
from lme4py.engine.generalised.starts.start import Start
from lme4py.engine.generalised.weighted_groups import weighted_rule
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import DesignError, Lme4Warning, OptionError, warn
from lme4py.families.base import Family
from lme4py.families.counted import counting_rows
from lme4py.fits.generalised.criterion import GlmmCriterion, glmm_criterion
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import fit_at, warn_of
from lme4py.fits.steps import read_control, refuse_iterative
from lme4py.fits.survey.fit import SurveyFit, survey_covariance
from lme4py.fits.survey.weights import SurveyRequest, SurveyWeights, make_units, make_weights
from lme4py.linalg.types import FloatArray

__all__ = ["survey_fit"]


def survey_fit(
    design: Design,
    family: Family,
    request: SurveyRequest,
    *,
    nAGQ: int = 1,
    hessian: str = "observed",
    start: Any = None,
    control: Control | Mapping[str, Any] | None = None,
) -> SurveyFit:
    """Fit a model of one grouping factor, or of two nested ones, by weighted pseudo-maximum likelihood.

    Parameters
    ----------
    design : Design
        Made without weights.
    family : Family
    request : SurveyRequest
    nAGQ : int
        1 (Laplace) or a number of quadrature points.
    hessian, start, control
        As in `glmm_fit`.

    Returns
    -------
    SurveyFit

    Warns
    -----
    Lme4Warning
        Weights of rows of a linear model that are not scaled.
    ConvergenceWarning, OptimaWarning, IdentificationWarning
        As in `glmm_fit`.
    """
    if nAGQ < 1:
        raise OptionError(f"nAGQ={nAGQ} has no pseudo-likelihood of its own; use nAGQ=1, or more points.")
    settings = read_control(control)
    refuse_iterative(settings, "models with sampling weights")
    own, data = counting_rows(family), design.response
    if data is None:
        raise OptionError("the design holds no response of a family; make it with lformula(..., family=...).")
    if own.stacked or data.parts:
        raise OptionError(f"{request.word} is there for models of one linear predictor; leave the further parts out.")
    weights = make_weights(design, request)
    units = None if weights.replicates.size else make_units(design, request)
    _warn_of_raw(request, family, weights)
    data = replace(data, weights=weights.rows)
    errors = f"{units.text}, linearised" if units else f"{len(weights.replicates)} replicates"
    notes = (*design.notes, f"pseudo-likelihood with sampling weights: {weights.text}; standard errors: {errors}")
    design = replace(design, weights=weights.rows, response=data, notes=notes)
    criterion = glmm_criterion(design, own, data, nAGQ=nAGQ, hessian=hessian, copies=weights.copies)
    mean = float(weights.levels.mean())
    optimum = _optimum(criterion, weights, settings, start)
    plain = fit_at(design, criterion, optimum)
    if plain.recession is not None:
        raise DesignError(f"{plain.recession.describe(own.separates)} Sampling weights need finite estimates.")
    fit = _of_survey(plain, weights, units, mean)
    covariance = _replicated(fit, criterion, weights, request) if units is None else survey_covariance(fit)
    fit = _with_covariance(fit, covariance)
    warn_of(fit, True, stacklevel=4)
    return fit


def _warn_of_raw(request: SurveyRequest, family: Family, weights: SurveyWeights) -> None:
    if request.scale is None and family.has_residual and not np.allclose(weights.rows, 1.0):
        inner = " and of inner groups" * bool(weights.copies)
        warn(
            f"the weights of rows{inner} are taken as they are: in linear models their size within groups "
            "moves the variances; pwscale='size' or 'effective' scales them.",
            Lme4Warning,
        )


def _optimum(criterion: GlmmCriterion, weights: SurveyWeights, control: Control, start: Any) -> GlmmOptimum:
    """The minimum of -2 pseudo-log-likelihood."""
    finder, levels = criterion.finder, weights.levels / weights.levels.mean()
    with limited_threads(criterion.design):
        refine = weighted_rule(finder, criterion.nAGQ, levels)
        search = Search(Descents(finder, control, refine))
        usual = search.usual
        usual = replace(usual, value=_without_random(criterion, usual, levels[weights.codes]))
        search.usual = usual
        first = usual if start is None else replace(usual, theta=criterion.to_inside(start))
        return search.best(first, beside=True)


def _without_random(criterion: GlmmCriterion, start: Start, by_row: FloatArray) -> float:
    problem = criterion.problem
    rows = problem.family.derivatives(problem.data, problem.fixed_part(start.beta), start.lam, 0)
    return -2.0 * float(by_row @ rows.loglik)


def _of_survey(plain: GeneralisedFit, weights: SurveyWeights, units: Any, mean: float) -> SurveyFit:
    """The same numbers for weights whose mean is not one."""
    own = {f.name: getattr(plain, f.name) for f in fields(plain) if f.init}
    own["criterion"] = mean * plain.criterion
    information = plain.parameter_vcov / mean
    own |= {"parameter_vcov": information, "model_vcov": information}
    return SurveyFit(**own, level_weights=weights.levels, level_codes=weights.codes, units=units)


def _with_covariance(fit: SurveyFit, covariance: FloatArray) -> SurveyFit:
    m, p = fit.theta.size, fit.beta.size
    error = fit.log_dispersion_se
    if error is not None and np.isfinite(error):
        error = float(np.sqrt(covariance[-1, -1]))
    vcov = covariance[m : m + p, m : m + p].copy()
    return replace(fit, parameter_vcov=covariance, vcov=vcov, log_dispersion_se=error)


def _replicated(fit: SurveyFit, criterion: GlmmCriterion, weights: SurveyWeights, request: SurveyRequest) -> FloatArray:
    """scale * sum_r (theta_r - theta) (theta_r - theta)' over replicate weights, all parameters refitted."""
    R = len(weights.replicates)
    usual = {"brr": 1.0 / R, "jackknife": (R - 1.0) / R}[request.survey["method"]]
    scale = np.broadcast_to(np.asarray(request.survey.get("scale", usual), dtype=np.float64), (R,))
    theta, beta, lam = criterion.problem.split(fit.phi)
    begin = Start(theta, beta, lam)
    moves = []
    with limited_threads(criterion.design):
        for own in weights.replicates:
            refine = weighted_rule(criterion.finder, criterion.nAGQ, own / own.mean())
            end = Descents(criterion.finder, Control(), refine).beside(begin).finish()
            moves.append(_user(criterion, end) - _user(criterion, fit))
    moved = np.array(moves)
    covariance: FloatArray = (moved.T * scale) @ moved
    return covariance


def _user(criterion: GlmmCriterion, end: GlmmOptimum | SurveyFit) -> FloatArray:
    """All parameters on the user's scale, in the places of `parameter_vcov`."""
    problem = criterion.problem
    theta, beta, lam = problem.split(end.phi)
    last = np.atleast_1d(problem.user_nuisance(beta, lam)) if problem.n_nuisance else np.zeros(0)
    A = problem.family.threshold_matrix
    last = last if A is None else A @ last
    return np.concatenate([problem.structures.user.to_user(theta, problem.S), problem.C @ beta, last])
