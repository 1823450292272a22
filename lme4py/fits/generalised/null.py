"""The generalised linear model that is left of a mixed one without its random effects, for tests against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.engine.linear.problem import Problem, make_problem
from lme4py.errors import Lme4Error, OptionError
from lme4py.families.nuisance import Nuisance
from lme4py.fits.answers.draws import Draws
from lme4py.fits.answers.null import Null
from lme4py.fits.base import Fit
from lme4py.fits.generalised.batch import can_batch_glmm, solve_responses
from lme4py.fits.generalised.categories.thresholds import refuse_crossing
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.no_random import PlainFit, fit_plain, plain_fit
from lme4py.fits.generalised.refit import new_response, refit_estimates
from lme4py.fits.generalised.simulate import GlmmSimulator
from lme4py.linalg.spans import same_span
from lme4py.linalg.types import FloatArray

__all__ = ["GeneralisedNull", "criteria", "null_model", "working_problem"]

# Weights below this part of the largest count as this: a row without information.
_LEAST_WEIGHT = 1e-10


@dataclass(frozen=True)
class GeneralisedNull:
    """The generalised linear model without random effects.

    Attributes
    ----------
    full : GeneralisedFit
    plain : PlainFit
    X : ndarray, shape (n, p)
    log_likelihood : float
    n_params : int
    """

    full: GeneralisedFit
    plain: PlainFit
    X: FloatArray
    log_likelihood: float
    n_params: int

    @property
    def linear_predictor(self) -> FloatArray:
        """Offset included, shape (n,)."""
        return self.plain.linear_predictor

    @property
    def lam(self) -> Nuisance:
        """Log dispersion, or the parameters of the thresholds; inside."""
        return self.plain.lam

    def simulator(self) -> Draws:
        """What draws responses of this model."""
        return GlmmSimulator(_plain_source(self.full, self.plain, self.X))

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        """Minima of the criterion for responses (n, B); NaN where one cannot be fitted, and `why`."""
        return _plain(self.full, self.plain, Y, why)


def null_model(fit: GeneralisedFit, result: Any = None) -> GeneralisedNull:
    """The generalised linear model without random effects.

    Parameters
    ----------
    fit : GeneralisedFit
    result : object, optional
        A fit of statsmodels with other fixed effects.
    """
    X = fit.design.X if result is None else _foreign_columns(result, fit)
    same = same_span(fit.design.X, X)
    plain = plain_fit(fit, None if same else X)
    X = fit.design.X if same else X
    rank = int(np.linalg.matrix_rank(X)) if X.size else 0
    return GeneralisedNull(fit, plain, X, -0.5 * plain.criterion, rank + fit.problem.n_nuisance)


def _foreign_columns(result: Any, fit: GeneralisedFit) -> FloatArray:
    """Fixed effects of a model fitted by statsmodels, after a check of its response and family."""
    endog, exog = np.asarray(result.model.endog), np.asarray(result.model.exog, dtype=np.float64)
    y = fit.data.y if fit.data.trials is None else fit.data.y / np.maximum(fit.data.n_trials, 1.0)
    candidates = [y, fit.design.y]
    if not any(endog.shape == own.shape and np.allclose(endog, own, rtol=1e-12, atol=0) for own in candidates):
        raise OptionError("the restricted model was fitted to another response; fit both models to the same rows.")
    family = getattr(result.model, "family", None)
    name = type(result.model if family is None else family).__name__.lower()
    own_names = {"binomial": ("binomial", "logit", "probit"), "nbinomial": ("negativebinomial", "negativebinomialp")}
    if name not in own_names.get(fit.family.name, (fit.family.name.replace("_", ""),)):
        raise OptionError(
            f"the models differ in family ({name} and {fit.family.name}): their likelihoods cannot be compared; give "
            "None for the same model without random effects."
        )
    return exog


def working_problem(full: GeneralisedFit, restricted: Fit | Null) -> Problem:
    rows = full.family.derivatives(full.data, restricted.linear_predictor, restricted.lam, 3, expected=True)
    w = rows.w_exp if rows.w_exp is not None else rows.w_work
    w = np.maximum(w, _LEAST_WEIGHT * float(w.max()))
    design = full.design
    # The information does not depend on the response.
    y = np.random.default_rng(0).standard_normal(design.n_obs)
    one = np.ones((design.n_obs, 1))
    working = replace(design, y=y, weights=w, response=None)
    return make_problem(working.with_predictor(X=one, names=("Intercept",), offset=None, alias=None))


def _plain_source(full: GeneralisedFit, plain: PlainFit, X: FloatArray) -> GeneralisedFit:
    """The full fit with the estimates of the model without random effects."""
    inside = plain.x[: plain.problem.n_fixed]
    lam = plain.problem.user_nuisance(inside, plain.lam)
    family = full.family
    return replace(
        full,
        design=full.design.with_predictor(X=X),
        beta=plain.problem.C @ inside,
        covariances=tuple(np.zeros_like(cov) for cov in full.covariances),
        log_dispersion=float(lam) if full.log_dispersion is not None else None,
        thresholds=family.alpha(lam),
    )


def criteria(fit: GeneralisedFit, Y: FloatArray, why: list[str]) -> FloatArray:
    """Minima of the criterion for responses (n, B); NaN where a response cannot be fitted."""
    values = np.full(Y.shape[1], np.nan)
    if can_batch_glmm(fit):
        possible = np.flatnonzero(~np.isnan(Y).any(axis=0))
        found = solve_responses(fit, Y[:, possible])
        values[possible[found.converged]] = found.value[found.converged]
    return _one_by_one(values, Y, lambda y: refit_estimates(fit, y).criterion, why)


def _plain(full: GeneralisedFit, plain: PlainFit, Y: FloatArray, why: list[str]) -> FloatArray:
    def criterion(y: FloatArray) -> float:
        problem = replace(plain.problem, data=new_response(full, y))
        found = fit_plain(problem, plain.x)
        refuse_crossing(problem.family, found.lam, problem.data)
        return found.criterion

    return _one_by_one(np.full(Y.shape[1], np.nan), Y, criterion, why)


def _one_by_one(
    values: FloatArray, Y: FloatArray, criterion: Callable[[FloatArray], float], why: list[str]
) -> FloatArray:
    """Fill in the values that are NaN; what goes wrong is noted in `why`."""
    for b in np.flatnonzero(np.isnan(values)):
        try:
            values[b] = criterion(Y[:, b])
        except (Lme4Error, ArithmeticError, np.linalg.LinAlgError) as error:
            why.append(str(error))
    return values
