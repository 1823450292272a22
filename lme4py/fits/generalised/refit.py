"""A generalised model with a new response: the symbolic structure is used again, from the old optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.integrals.nested_quadrature import refinement
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.search import Search
from lme4py.engine.generalised.starts.start import Start
from lme4py.engine.identification.one_answer import refuse_one_answer
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.families.categories.counts import category_label
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.categories.thresholds import refuse_absent, refuse_crossing, warn_crossing
from lme4py.fits.generalised.fit import GeneralisedFit, covariances_of
from lme4py.fits.generalised.steps import make_glmm_fit, others_of, warn_of
from lme4py.fits.rows.response import (
    is_proportion,
    levels_of_response,
    numeric_categories,
    response_numbers,
    response_table,
)
from lme4py.fits.steps import off_boundary
from lme4py.linalg.types import FloatArray

__all__ = ["RefitEstimates", "new_response", "other_minima", "refit_estimates", "refit_glmm"]

# Minima closer than the first are one; one that is further above is excluded by every interval.
_SAME, _EXCLUDED = 1e-3, 50.0


@dataclass(frozen=True)
class RefitEstimates:
    """The estimates of a refit without standard errors and certificate, on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    theta : ndarray, shape (m,)
    covariances : tuple of ndarray, each (k, k)
    log_dispersion : float or None
    criterion : float
        -2 log-likelihood.
    thresholds : ndarray, shape (K - 1,), or None
        Of ordered categories.
    others : tuple of float
        Of the family, on scales without bounds.
    """

    beta: FloatArray
    theta: FloatArray
    covariances: tuple[FloatArray, ...]
    log_dispersion: float | None
    criterion: float
    thresholds: FloatArray | None = None
    others: tuple[float, ...] = ()


def new_response(fit: GeneralisedFit, y: Any) -> ResponseData:
    """A new response of the rows used, checked for the family.

    Parameters
    ----------
    fit : GeneralisedFit
    y : array_like, shape (n,) or (n, 2)
        One value per row used, or one per row of the data, also as a data frame with one column; with an index it is
        matched with the rows by it. Binomial models of several trials per row: numbers of
        successes (proportions where the model was given proportions), or successes and failures side by side.
        Ordinal models: the categories; where these are no numbers, also their positions 0 .. K - 1. Counts of
        categories: a column for each, by their names or in their order.

    Returns
    -------
    ResponseData
    """
    data = _checked(fit, y)
    refuse_one_answer(fit.design, fit.family, data)
    return data


def _checked(fit: GeneralisedFit, y: Any) -> ResponseData:
    family = fit.family
    levels = levels_of_response(fit.design) if family.has_trials else fit.categories
    if fit.data.counts is not None:
        values = response_table(fit.design, y, [category_label(level) for level in fit.categories])
    else:
        values = response_numbers(fit.design, y, levels, coded=numeric_categories(fit), pairs=family.has_trials)
    return family.coerce_again(values, fit.data, fit.design.response_name, is_proportion(fit))


def refit_glmm(fit: GeneralisedFit, y: Any, compare: bool = True) -> GeneralisedFit:
    """Fit the same generalised model to a new response.

    Parameters
    ----------
    fit : GeneralisedFit
    y : array_like, shape (n,) or (n, 2)
        See `new_response`.
    compare : bool
        False for one of many refits: as in `glmm_fit`, and with fewer other starts.

    Returns
    -------
    GeneralisedFit
    """
    data = new_response(fit, y)
    design = replace(fit.design, y=data.table, response=data)
    finder = ModeFinder(replace(fit.problem, data=data))
    with limited_threads(design):
        search = _search(fit, finder, thorough=compare)
        optimum = search.best(_old(fit, finder.problem, search.usual), beside=True)
        again = make_glmm_fit(design, fit.family, data, fit.nAGQ, fit.hessian, finder, optimum)
    again = again.speaking(fit.conventions)
    refuse_absent(again)
    if compare:
        warn_crossing(again)
    else:
        refuse_crossing(again.family, again.lam, data)
    warn_of(again, compare, stacklevel=4)
    return again


def refit_estimates(fit: GeneralisedFit, y: Any) -> RefitEstimates:
    """The estimates of the same model for a new response; faster than `refit_glmm`, which also makes a certificate.

    Parameters
    ----------
    fit : GeneralisedFit
    y : array_like
        See `new_response`.
    """
    finder = ModeFinder(replace(fit.problem, data=new_response(fit, y)))
    with limited_threads(fit.design):
        search = _search(fit, finder, thorough=False)
        way = search.begin(_old(fit, finder.problem, search.usual), beside=True)
        if way is None or search.is_open(way.phi, way.found, way.value):
            search.look_elsewhere()
        best = search.lowest()
        return _estimates(finder.problem, best.phi, best.value)


def _estimates(problem: GlmmProblem, phi: FloatArray, value: float) -> RefitEstimates:
    theta, beta, inside = problem.split(phi)
    lam = problem.user_nuisance(beta, inside)
    refuse_crossing(problem.family, lam, problem.data)
    return RefitEstimates(
        problem.C @ beta,
        problem.structures.user.to_user(theta, problem.S),
        tuple(covariances_of(problem, phi)),
        problem.reported_lambda(lam) if problem.n_dispersion else problem.known,
        value,
        problem.family.alpha(lam),
        others_of(problem.family, lam),
    )


def other_minima(fit: GeneralisedFit) -> list[GlmmOptimum]:
    """Other local minima of the criterion that the search for the fit has met, lowest first.

    Parameters
    ----------
    fit : GeneralisedFit
    """
    rises = [rival.reached - fit.criterion for rival in fit.certificate.compared if rival.reached is not None]
    if not any(_SAME < rise < _EXCLUDED for rise in rises):
        return []
    search = _search(fit, ModeFinder(fit.problem), thorough=True)
    with limited_threads(fit.design):
        best = search.best(Start(*fit.problem.split(fit.phi)), beside=True)
        if not search.compared:
            search.look_elsewhere()
        return [other for other in search.others(best) if other.value < fit.criterion + _EXCLUDED]


def _search(fit: GeneralisedFit, finder: ModeFinder, thorough: bool) -> Search:
    refine = refinement(finder, fit.nAGQ)
    return Search(Descents(finder, Control(), refine, profiled=fit.nAGQ == 0 or fit.restricted), thorough)


def _old(fit: GeneralisedFit, problem: GlmmProblem, usual: Start) -> Start:
    """The old estimates as a start, moved off zeros and off infinity, where the gradient vanishes."""
    _, beta, lam = fit.problem.split(fit.phi)
    if fit.recession is not None:
        return replace(usual, theta=start_theta(fit))
    if problem.in_tail(lam):
        lam = usual.lam
    return Start(start_theta(fit), beta, lam)


def start_theta(fit: GeneralisedFit) -> FloatArray:
    """theta inside to start from: that of the fit, moved off the boundary."""
    return off_boundary(fit.problem.structures, fit.phi[: fit.problem.n_theta])
