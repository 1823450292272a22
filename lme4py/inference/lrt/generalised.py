"""What likelihood-ratio tests of generalised models need: information on the boundary, and simulated ratios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.linear.criterion import Problem, make_problem
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error
from lme4py.fits.generalised.batch import can_batch_glmm, solve_responses
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.no_random import PlainFit, fit_plain
from lme4py.fits.generalised.refit import new_response, refit_estimates
from lme4py.fits.generalised.simulate import GlmmSimulator
from lme4py.inference.lrt.mixture import cone_information
from lme4py.inference.lrt.nesting import Embedding
from lme4py.linalg.types import FloatArray

__all__ = ["glmm_bootstrap_ratios", "glmm_cone_information"]

# Weights below this part of the largest count as this: a row without information.
_LEAST_WEIGHT = 1e-10
# Numbers in the responses that are drawn at a time, and the most responses.
_CHUNK_NUMBERS, _CHUNK = chunk(200_000, 4000), chunk(500)


def glmm_cone_information(
    full: GeneralisedFit, restricted: GeneralisedFit | PlainFit, embedding: Embedding
) -> FloatArray:
    """Information in the elements of the cones' blocks: that of the working linear model at the restricted estimates.

    The working response has the variance W^-1 + Z Sigma Z', W the expected weights (Lin 1997, Biometrika 84:309). The
    scale of W^-1 is known, but for families with a dispersion parameter.

    Parameters
    ----------
    full : GeneralisedFit
    restricted : GeneralisedFit or PlainFit
    embedding : Embedding
        The restricted model in the full one.
    """
    problem = _working_problem(full, restricted)
    return cone_information(problem, embedding, False, scale_is_known=not full.family.n_dispersion)


def _working_problem(full: GeneralisedFit, restricted: GeneralisedFit | PlainFit) -> Problem:
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


def glmm_bootstrap_ratios(
    restricted: GeneralisedFit | PlainFit, X: FloatArray, full: GeneralisedFit, n_sim: int, seed: int | None
) -> tuple[FloatArray, int]:
    """Likelihood ratios of responses simulated from the restricted model, and how many could not be fitted.

    Parameters
    ----------
    restricted : GeneralisedFit or PlainFit
    X : ndarray, shape (n, p)
        Fixed effects of the restricted model, on the user's scale.
    full : GeneralisedFit
    n_sim : int
    seed : int or None

    Raises
    ------
    Lme4Error
        No response could be fitted.
    """
    source = _plain_source(full, restricted, X) if isinstance(restricted, PlainFit) else restricted
    simulator = GlmmSimulator(source)
    seeds = np.random.SeedSequence(seed).spawn(n_sim)
    size = max(1, min(_CHUNK, _CHUNK_NUMBERS // full.design.n_obs))
    parts: list[FloatArray] = []
    why: list[str] = []
    with limited_threads(full.design):
        for start in range(0, n_sim, size):
            Y = simulator.draw(seeds[start : start + size])
            small = _plain(full, restricted, Y, why) if isinstance(restricted, PlainFit) else _mixed(restricted, Y, why)
            parts.append(small - _mixed(full, Y, why))
    ratios = np.concatenate(parts)
    ratios = ratios[np.isfinite(ratios)]
    if not ratios.size:
        raise Lme4Error(f"none of {n_sim} responses simulated from the restricted model could be fitted: {why[0]}")
    return np.maximum(ratios, 0.0), n_sim - ratios.size


def _mixed(fit: GeneralisedFit, Y: FloatArray, why: list[str]) -> FloatArray:
    """Minima of the criterion for responses (n, B); NaN where a response cannot be fitted."""
    values = np.full(Y.shape[1], np.nan)
    if can_batch_glmm(fit):
        possible = np.flatnonzero(~np.isnan(Y).any(axis=0))
        found = solve_responses(fit, Y[:, possible])
        values[possible[found.converged]] = found.value[found.converged]
    return _one_by_one(values, Y, lambda y: refit_estimates(fit, y).criterion, why)


def _plain(full: GeneralisedFit, plain: PlainFit, Y: FloatArray, why: list[str]) -> FloatArray:
    def criterion(y: FloatArray) -> float:
        return fit_plain(replace(plain.problem, data=new_response(full, y)), plain.x).criterion

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
