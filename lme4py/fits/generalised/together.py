"""Generalised models of many responses of one design, each from a start of its own.

What a single fit looks at is looked at here for all responses at once: the boundary, other starts where another minimum
is in sight, first- and second-order conditions. A response that needs more than that (separation, two minima, an
optimum that is not certified) is left to the single fit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.certificate import EXCLUDED, SAME
from lme4py.engine.generalised.batches.descent import Descent, StackedDescent
from lme4py.engine.generalised.batches.ends import StackedEnds, certified_ends
from lme4py.engine.generalised.batches.stacked import StackedModel
from lme4py.engine.generalised.identification import identify_glmm
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.generalised.rivals import FAR, LESS, NEAR
from lme4py.engine.generalised.search import ASIDE, BARELY, FEW, NEAR_ZERO, far_aside
from lme4py.engine.generalised.starts.start import Start, find_start
from lme4py.engine.identification.one_answer import refuse_one_answer
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error, Lme4Warning
from lme4py.families.registry import Family
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.batch import can_batch, user_dispersion, user_estimates
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["GeneralisedTogether", "ResponseFits", "fits_of_responses", "generalised_together"]

# Standard deviations, and standard errors of columns of size one, beyond which an estimate may be infinite.
_LARGE_SD, _LARGE_ERROR = 3.0, 5.0
# Relative standard deviations below this make a fit singular.
_TRUST = 1e-4


@dataclass(frozen=True)
class GeneralisedTogether:
    """What all responses of a generalised model share.

    Attributes
    ----------
    design : Design
    family : Family
    data : ResponseData
        Of one of the responses.
    problem : GlmmProblem
    """

    design: Design
    family: Family
    data: ResponseData
    problem: GlmmProblem


@dataclass(frozen=True)
class ResponseFits:
    """Fits to some responses on the user's scale; only those that are certified.

    Attributes
    ----------
    rows : ndarray of int, shape (B,)
        Which responses these are.
    beta : ndarray, shape (B, p)
    std_error : ndarray, shape (B, p)
    sd : ndarray, shape (B,)
        Of the random effect.
    sigma : ndarray, shape (B,)
        As `Fit.sigma`.
    criterion : ndarray, shape (B,)
        -2 log-likelihood.
    gradient_norm : ndarray, shape (B,)
        As `Certificate.gradient_norm`.
    singular : ndarray of bool, shape (B,)
    """

    rows: IntArray
    beta: FloatArray
    std_error: FloatArray
    sd: FloatArray
    sigma: FloatArray
    criterion: FloatArray
    gradient_norm: FloatArray
    singular: BoolArray


def generalised_together(design: Design, family: Family, hessian: str = "observed") -> GeneralisedTogether | None:
    """What all responses of a design share; None where each has to be fitted by itself.

    Parameters
    ----------
    design : Design
        With one of the responses.
    family : Family
    hessian : {"observed", "expected"}
    """
    data = design.response
    if data is None or not family.single_peaked or (family.link.has_unit and family.has_unit):
        return None
    with limited_threads(design):
        problem = make_glmm(design, family, data, expected=hessian == "expected")
        if not can_batch(problem) or not identify_glmm(problem, design).complete:
            return None
    return GeneralisedTogether(design, family, data, problem)


def fits_of_responses(together: GeneralisedTogether, Y: FloatArray, names: Sequence[object]) -> ResponseFits:
    """The certified fits to responses.

    Parameters
    ----------
    together : GeneralisedTogether
    Y : ndarray, shape (n, B)
        As a column of data holds them; NaN where one is missing.
    names : sequence
        For messages.
    """
    with limited_threads(together.design), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", Lme4Warning)
        whole = np.flatnonzero(np.isfinite(Y).all(axis=0)).tolist()
        read = [(b, _read(together, Y[:, b], str(names[b]))) for b in whole]
        own = [(b, *one) for b, one in read if one is not None]
        if not own:
            return _certified(together, np.zeros(0, dtype=np.intp), None, np.zeros(0, dtype=bool))
        rows = np.array([b for b, _, _ in own], dtype=np.intp)
        counts = np.column_stack([data.y for _, data, _ in own])
        descent = StackedDescent(StackedModel(together.problem), counts)
        starts = [start for _, _, start in own]
        state = descent.down(descent.first(_joined(together.problem, starts)))
        alone = _compare(together, descent, state, starts)
        ends = certified_ends(descent, state)
        alone |= _runs_away(descent, state, ends)
        return _certified(together, rows, ends, ~alone)


def _read(together: GeneralisedTogether, y: FloatArray, name: str) -> tuple[ResponseData, Start] | None:
    """A response checked for the family, and its start; None where the single fit has to say what is wrong."""
    family, old = together.family, together.data
    try:
        data = family.coerce_again(y, old, name, old.trials is not None)
        refuse_one_answer(together.design, family, data)
        same = (data.trials is None) == (old.trials is None) and (data.weights is None) == (old.weights is None)
        return (data, find_start(replace(together.problem, data=data))) if same else None
    except (Lme4Error, ArithmeticError, np.linalg.LinAlgError):
        return None


def _joined(problem: GlmmProblem, starts: Sequence[Start], size: float = 1.0) -> FloatArray:
    """The starts as parameters, (B, m), with standard deviations of other sizes."""
    return np.array([problem.join(size * one.theta, one.beta, one.lam) for one in starts])


# -- other starts --------------------------------------------------------------------------------------------------


def _compare(
    together: GeneralisedTogether, descent: StackedDescent, state: Descent, starts: Sequence[Start]
) -> BoolArray:
    """Follow other starts where another minimum is in sight, in place; which responses have two that the data allow."""
    problem, p = together.problem, together.problem.n_fixed
    beta, distance = descent.model.within_groups(state.points, descent.data, ASIDE)
    usual = np.array([one.value for one in starts])
    near = np.abs(state.phi[:, 0]) < NEAR_ZERO
    is_open = near | state.held.any(axis=1) | (usual < state.value + BARELY) | far_aside(distance, p)
    if problem.n_nuisance and problem.n_obs <= FEW:
        is_open[:] = True
    rows = np.flatnonzero(is_open & state.converged)
    two = np.zeros(len(starts), dtype=bool)
    if not rows.size:
        return two
    own = [starts[b] for b in rows.tolist()]
    far = _joined(problem, own, FAR)
    far[:, 1 : 1 + p] = beta[rows]
    if problem.has_limit:
        far[:, -1] = [problem.less_dispersed(one.lam, LESS) for one in own]
    part = StackedDescent(descent.model, descent.counts[:, rows])
    for start in (far, _joined(problem, own, NEAR)):
        other = part.down(part.first(start))
        above = other.value - state.value[rows]
        lower = above < -BARELY
        two[rows] |= (np.abs(above) > SAME) & (np.abs(above) < EXCLUDED) & (other.converged | lower)
        moved = np.flatnonzero(lower)
        state.put(rows[moved], other.take(moved))
    return two


def _runs_away(descent: StackedDescent, state: Descent, ends: StackedEnds) -> BoolArray:
    """Whose estimates may be infinite, or predict every answer, (B,)."""
    model = descent.model
    errors = np.sqrt(np.einsum("bii->bi", ends.covariance)[:, 1 : 1 + model.problem.n_fixed])
    far: BoolArray = (np.abs(ends.phi[:, 0]) > _LARGE_SD) | ~(errors < _LARGE_ERROR).all(axis=1)
    return np.logical_or(far, model.predicts_all(state.points, descent.data))


# -- the user's scale ----------------------------------------------------------------------------------------------


def _certified(
    together: GeneralisedTogether, rows: IntArray, ends: StackedEnds | None, chosen: BoolArray
) -> ResponseFits:
    problem, family = together.problem, together.family
    if ends is None:
        nothing = np.zeros(0)
        table = np.zeros((0, problem.n_fixed))
        return ResponseFits(rows, table, table, nothing, nothing, nothing, nothing, chosen)
    good = ends.converged & chosen
    beta, sd = user_estimates(problem, ends.phi[good])
    lam = user_dispersion(problem, ends.phi[good], ends.held[good])
    vcov = problem.C @ ends.covariance[good, 1 : 1 + problem.n_fixed, 1 : 1 + problem.n_fixed] @ problem.C.T
    return ResponseFits(
        rows[good],
        beta,
        np.sqrt(np.einsum("bii->bi", vcov)),
        sd,
        np.array([family.sigma(one) for one in lam.tolist()]),
        ends.value[good],
        np.sqrt(2.0 * ends.bound[good]),
        np.abs(ends.phi[good, 0]) < _TRUST,
    )
