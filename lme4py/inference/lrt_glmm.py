"""What likelihood-ratio tests of generalised models need: information on the boundary, and simulated ratios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lme4py.engine.lmm import Problem, make_problem
from lme4py.engine.ordinal import Ordinal
from lme4py.engine.threads import limited_threads
from lme4py.engine.types import FloatArray
from lme4py.errors import Lme4Error
from lme4py.glmm_fit import GlmmFit
from lme4py.inference.glmm_refit import new_response, refit_estimates
from lme4py.inference.glmm_simulate import GlmmSimulator
from lme4py.inference.mixture import cone_information
from lme4py.inference.nesting import Embedding
from lme4py.inference.no_random import PlainFit, fit_plain

__all__ = ["glmm_bootstrap_ratios", "glmm_cone_information"]

# Weights below this part of the largest count as this: a row without information.
_LEAST_WEIGHT = 1e-10


def glmm_cone_information(full: GlmmFit, restricted: GlmmFit | PlainFit, embedding: Embedding) -> FloatArray:
    """Information in the elements of the cones' blocks: that of the working linear model at the restricted estimates.

    The working response has the variance W^-1 + Z Sigma Z', W the expected weights (Lin 1997, Biometrika 84:309). The
    scale of W^-1 is known, but for families with a dispersion parameter.

    Parameters
    ----------
    full : GlmmFit
    restricted : GlmmFit or PlainFit
    embedding : Embedding
        The restricted model in the full one.
    """
    problem = _working_problem(full, restricted)
    return cone_information(problem, embedding, False, scale_is_known=not full.family.n_dispersion)


def _working_problem(full: GlmmFit, restricted: GlmmFit | PlainFit) -> Problem:
    rows = full.family.derivatives(full.data, restricted.linear_predictor, restricted.lam, 3, expected=True)
    w = rows.w_exp if rows.w_exp is not None else rows.w_work
    w = np.maximum(w, _LEAST_WEIGHT * float(w.max()))
    design = full.design
    # The information does not depend on the response.
    y = np.random.default_rng(0).standard_normal(design.n_obs)
    one = np.ones((design.n_obs, 1))
    return make_problem(
        replace(design, y=y, X=one, x_names=("Intercept",), weights=w, offset=None, response=None, alias=None)
    )


def _plain_source(full: GlmmFit, plain: PlainFit, X: FloatArray) -> GlmmFit:
    """The full fit with the estimates of the model without random effects."""
    inside = plain.x[: plain.problem.n_fixed]
    lam = plain.problem.user_nuisance(inside, plain.lam)
    family = full.family
    return replace(
        full,
        design=replace(full.design, X=X),
        beta=plain.problem.C @ inside,
        covariances=tuple(np.zeros_like(cov) for cov in full.covariances),
        log_dispersion=float(lam) if full.log_dispersion is not None else None,
        thresholds=family.alpha(lam) if isinstance(family, Ordinal) else None,
    )


def glmm_bootstrap_ratios(
    restricted: GlmmFit | PlainFit, X: FloatArray, full: GlmmFit, n_sim: int, seed: int | None
) -> tuple[FloatArray, int]:
    """Likelihood ratios of responses simulated from the restricted model, and how many could not be fitted.

    Parameters
    ----------
    restricted : GlmmFit or PlainFit
    X : ndarray, shape (n, p)
        Fixed effects of the restricted model, on the user's scale.
    full : GlmmFit
    n_sim : int
    seed : int or None

    Raises
    ------
    Lme4Error
        No response could be fitted.
    """
    is_plain = isinstance(restricted, PlainFit)
    source = _plain_source(full, restricted, X) if isinstance(restricted, PlainFit) else restricted
    simulator = GlmmSimulator(source)
    small = _plain_criterion(full, restricted) if isinstance(restricted, PlainFit) else _criterion(restricted)
    large = _criterion(full)
    ratios, why = [], ""
    with limited_threads(full.design):
        for seed_i in np.random.SeedSequence(seed).spawn(n_sim):
            y = simulator.draw([seed_i])[:, 0]
            try:
                ratios.append(max(small(y) - large(y), 0.0))
            except (Lme4Error, ArithmeticError, np.linalg.LinAlgError) as error:
                why = str(error)
    if not ratios:
        what = "without random effects" if is_plain else "restricted"
        raise Lme4Error(f"none of {n_sim} responses simulated from the model {what} could be fitted: {why}")
    return np.array(ratios), n_sim - len(ratios)


def _criterion(fit: GlmmFit) -> Callable[[FloatArray], float]:
    return lambda y: refit_estimates(fit, y).criterion


def _plain_criterion(full: GlmmFit, plain: PlainFit) -> Callable[[FloatArray], float]:
    def criterion(y: FloatArray) -> float:
        problem = replace(plain.problem, data=new_response(full, y))
        return fit_plain(problem, plain.x).criterion

    return criterion
