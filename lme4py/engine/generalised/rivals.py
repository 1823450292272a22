"""Where else a descent of a generalised linear mixed model can begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.problem import GlmmProblem, Mode
from lme4py.engine.generalised.starts.start import Start, glm_starts, plain_start
from lme4py.linalg.types import FloatArray

__all__ = ["Candidate", "candidates", "other_correlations"]

# Up to this many numbers in X and Z a descent takes milliseconds, and all starts are followed.
_SMALL = 20_000
# Starts near and far from zero, as multiples of the moment estimates of the standard deviations.
NEAR, FAR, _FARTHER = 0.05, 5.0, 25.0
# Standard deviations at which groups stand for themselves; the second where a link has no room for the first.
_WIDE = (100.0, 10.0)
# Between what the standard deviations lie from which other correlations are tried.
_SIZES = ((0.1, 0.3), (0.5, 1.5))
# lambda moves by this much for a start that leaves more of the variation to the random effects.
LESS = 2.0
# Newton decrements of modes: as usual, and where they only give a start of a large model.
_NEAR_MODE, _NEARLY = 1e-6, 1e-2
# Other maxima of the likelihood without random effects that are followed: of a link with a pole there are many.
_MOST_GLM, _MOST_OF_POLES = 3, 8


@dataclass(frozen=True)
class Candidate:
    """A start.

    Attributes
    ----------
    what : str
        In words.
    start : Start
    beside : bool
        The descent begins in all parameters at once, without the stage in which beta is in the mode.
    """

    what: str
    start: Start
    beside: bool = False


def candidates(
    descents: Descents, usual: Start, start: Start, least: float, thorough: bool, near: Mode | None = None
) -> Iterator[Candidate]:
    """Other starts, the promising ones first.

    Parameters
    ----------
    descents : Descents
    usual : Start
        Moment estimates.
    start : Start
        Where the first descent began.
    least : float
        The lowest criterion so far: large models follow no start that is not lower itself.
    thorough : bool
        Other maxima of the likelihood without random effects too.
    near : Mode, optional
        That of the lowest criterion so far, from which those of large models are looked for.
    """
    problem = descents.problem
    if start is not usual:
        yield Candidate("moments", usual)
    if _is_large(problem):
        wide = _within_groups(descents, usual, near, _NEARLY)
        there = None if wide is None else descents.glance(wide, near, _NEARLY, only_value=True)
        # The value is above that of the mode by about the decrement at the most.
        if wide is not None and there is not None and there.value < least + _NEARLY:
            yield Candidate("within groups", wide)
        return
    # Of models with parts not the maximum without random effects: it need not be the only one.
    plain = plain_start(problem, usual)
    yield from _around(problem, usual, plain)
    wide = _within_groups(descents, plain)
    if wide is not None:
        yield Candidate("within groups", wide)
    if not thorough or problem.family.single_peaked:
        return
    most = _MOST_OF_POLES if problem.family.link.has_pole else _MOST_GLM
    for i, other in enumerate(glm_starts(problem, usual)[:most]):
        label = f", fixed effects {i + 2}"
        theta = problem.structures.uncorrelated(other.theta)
        yield Candidate(f"moments{label}", other, beside=True)
        yield Candidate(f"far from zero{label}", replace(other, theta=problem.structures.scaled(theta, FAR)))
        yield Candidate(f"near zero{label}", replace(other, theta=problem.structures.scaled(theta, NEAR)), beside=True)


def _is_large(problem: GlmmProblem) -> bool:
    return problem.n_obs * (problem.n_fixed + sum(f.n_columns for f in problem.factors)) > _SMALL


def other_correlations(problem: GlmmProblem, base: Start, phi: FloatArray) -> Iterator[Candidate]:
    """Starts with other correlations than those of an end, of small models.

    Parameters
    ----------
    problem : GlmmProblem
    base : Start
        What is not theta.
    phi : ndarray
        All parameters of the end.
    """
    if not _is_large(problem):
        for what, theta in problem.structures.other_correlations(phi[: problem.n_theta], _SIZES):
            yield Candidate(what, replace(base, theta=theta))


def _around(problem: GlmmProblem, base: Start, plain: Start) -> Iterator[Candidate]:
    """Starts with other variances and dispersions than those of `base`; `plain` has parts without effects."""
    structures = problem.structures
    theta = structures.uncorrelated(base.theta)
    far = structures.scaled(theta, FAR)
    yield Candidate("far from zero", replace(base, theta=far))
    if problem.has_limit:
        less = problem.less_dispersed(plain.lam, LESS)
        yield Candidate("less dispersion", Start(far, plain.beta, less))
    yield Candidate("near zero", replace(base, theta=structures.scaled(theta, NEAR)), beside=True)
    if plain is not base:
        yield Candidate("parts without effects", plain, beside=True)
    yield Candidate("farther from zero", replace(base, theta=structures.scaled(theta, _FARTHER)))
    if not problem.family.single_peaked:
        yield Candidate("moments in one stage", replace(base, theta=theta), beside=True)
        yield Candidate("far from zero in one stage", replace(base, theta=far), beside=True)
    if len(structures.axes()) > 1:
        yield from _one_alone(problem, base, theta)


def _one_alone(problem: GlmmProblem, base: Start, theta: FloatArray) -> Iterator[Candidate]:
    """Each standard deviation far from zero, and the others near it."""
    near, far = problem.structures.scaled(theta, 0.1), problem.structures.scaled(theta, FAR)
    for number, axis in enumerate(problem.structures.axes()):
        alone = np.where(axis != 0.0, far, near)
        yield Candidate(
            f"standard deviation {number + 1} far from zero",
            replace(base, theta=alone),
            beside=not problem.family.single_peaked,
        )


def _within_groups(
    descents: Descents, usual: Start, near: Mode | None = None, tolerance: float = _NEAR_MODE
) -> Start | None:
    """A start from the regression within groups and the spread of the groups about it; None where there is none.

    One evaluation far from zero, where the modes are the groups' own estimates.
    """
    problem = descents.problem
    structures = problem.structures
    for wide in _WIDE:
        theta = structures.scaled(structures.initial(), wide)
        far = descents.glance(replace(usual, theta=theta), near, tolerance, only_value=_is_large(problem))
        if far is not None:
            break
    else:
        return None
    sizes: list[Any] = [None] * len(problem.structures.each)
    for factor, b in zip(problem.factors, problem.products.split(far.mode.b), strict=True):
        spread = np.sqrt(np.mean(b.reshape(factor.n_columns, -1) ** 2, axis=1))
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            sizes[term] = spread[columns]
    theta = structures.as_start(structures.theta_of_factors([np.diag(own) for own in sizes]), 0.0)
    lam = usual.lam
    if problem.n_dispersion:
        lam = problem.sloped_lambda(problem.family.start_nuisance(problem.data, problem.stack.first(far.mode.eta)))
    return Start(theta, far.mode.beta, lam)
