"""The minimum of the criterion by Newton steps with the exact Hessian in a trust region, and what is proved of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.chunks import from_size
from lme4py.engine.certificate import Certificate, Rival, verdict
from lme4py.engine.marginal.adjustment import expected
from lme4py.engine.marginal.criterion import MarginalCriterion, MarginalPoint
from lme4py.engine.marginal.start import starts
from lme4py.engine.optimise import Control, Local, Optimum, minimise
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray

__all__ = ["MarginalSolution", "certify", "refuse_unidentified", "solve"]

# Rises between two minima that are the same one.
_SAME = 1e-6
# Parameters that a message names.
_SHOWN = 8
_NULL = 1e-9
# What a sample of rows tells apart all of them do: taken where the covariances of all units have more numbers.
_NUMBERS, _SAMPLE = from_size(3_000_000), 1_500
# Starts that are descended from, with random effects (in models of up to so many rows) and without.
_WITH_RANDOM, _PLAIN, _SMALL = 6, 2, 50_000


@dataclass(frozen=True)
class MarginalSolution:
    """The minimum.

    Attributes
    ----------
    optimum : Optimum
        Its source is the `MarginalPoint`.
    gradient : ndarray, shape (m,)
    hessian : ndarray, shape (m, m)
        Exact.
    """

    optimum: Optimum
    gradient: FloatArray
    hessian: FloatArray

    @property
    def point(self) -> MarginalPoint:
        """The criterion there."""
        point: MarginalPoint = self.optimum.source
        return point


def solve(
    criterion: MarginalCriterion, start: FloatArray | None, control: Control, compare: bool = True
) -> MarginalSolution:
    """Minimise.

    Parameters
    ----------
    criterion : MarginalCriterion
    start : ndarray, shape (m,), optional
        Parameters inside.
    control : Control
    compare : bool
        Descend from a second start as well.

    Raises
    ------
    DesignError
        There is no point at which the criterion can be evaluated.
    """

    def local(par: FloatArray) -> Local | None:
        point = criterion.evaluate(par)
        if point is None:
            return None
        gradient, hessian = criterion.derivatives(point)
        return Local(par, point.value, gradient, hessian, point)

    most = _n_starts(criterion)
    places = [start] if start is not None else starts(criterion)[: most if compare else 1]
    if not places:
        raise DesignError("the criterion cannot be evaluated at any start; check the response and the structure.")
    found = [minimise(local, place, control, learn=_nothing) for place in places]
    best = min(range(len(found)), key=lambda i: found[i].value)
    others = [
        Rival(
            f"start {i + 1}", one.log[0].criterion, one.value, 1, one.message != "maximum number of evaluations reached"
        )
        for i, one in enumerate(found)
        if i != best
    ]
    log = tuple(step for one in found for step in one.log)
    optimum = replace(found[best], compared=tuple(others), log=log)
    gradient, hessian = criterion.derivatives(optimum.source)
    return MarginalSolution(optimum, gradient, hessian)


def _n_starts(criterion: MarginalCriterion) -> int:
    if criterion.model.random and criterion.n <= _SMALL:
        return _WITH_RANDOM
    # The start of an unstructured covariance is its moments, next to the optimum.
    unstructured = all(structure.name == "us" for structure in criterion.model.structures)
    return 1 if unstructured and not criterion.model.slices[-1].stop > criterion.model.slices[-1].start else _PLAIN


def _nothing(*_: object) -> None:
    """The Hessian is exact: there is nothing to learn from a step."""


def certify(criterion: MarginalCriterion, found: MarginalSolution, singular: Sequence[str], what: str) -> Certificate:
    """What is proved about the minimum.

    Parameters
    ----------
    criterion : MarginalCriterion
    found : MarginalSolution
    singular : sequence of str
        What is on the boundary.
    what : str
        "the REML criterion" or "the deviance".
    """
    units = np.maximum(np.abs(found.optimum.theta), 0.1)
    H, g = found.hessian * np.outer(units, units), found.gradient * units
    values, vectors = np.linalg.eigh(H) if g.size else (np.ones(1), np.ones((1, 1)))
    along = vectors.T @ g if g.size else np.zeros(1)
    floor = 1e-9 * max(1.0, float(np.abs(values).max()))
    bound = 0.5 * float(np.sum(along**2 / np.maximum(np.abs(values), floor)))
    descends = bool(values[0] < -1e-6 * max(1.0, float(values[-1])))
    converged = bound < 1e-6 and not descends
    compared = found.optimum.compared
    sentence = verdict(what, converged, bound, descends, singular, compared, (), found.optimum.value)
    if not g.size:
        sentence = "Exact: generalised least squares with a covariance that is known; there was nothing to search for."
    return Certificate(
        gradient_norm=float(np.sqrt(2.0 * bound)),
        min_eigenvalue=float(values[0]),
        bound=bound,
        boundary_derivative=None,
        converged=converged,
        is_singular=bool(singular),
        singular=tuple(singular),
        verdict=sentence,
        compared=compared,
    )


def refuse_unidentified(criterion: MarginalCriterion, names: Sequence[str]) -> None:
    """Refuse parameters that no data of this design tell apart.

    The covariance of some of the rows is a part of that of all rows, so that a sample may show that they do.

    Parameters
    ----------
    criterion : MarginalCriterion
    names : sequence of str
        Of the m parameters.

    Raises
    ------
    DesignError
    """
    if criterion.chain is not None and criterion.model.random and criterion.chain.block_numbers > _NUMBERS:
        sample = criterion.of_rows(criterion.chain.sample(_SAMPLE))
        if not _lost(sample).shape[1] or not criterion.chain.has_blocks:
            criterion = sample
    lost = _lost(criterion)
    if lost.shape[1]:
        involved = [name for name, part in zip(names, np.abs(lost).max(axis=1), strict=True) if part > 0.05]
        raise DesignError(
            f"the data do not tell these covariance parameters apart: {_listed(involved)}. Whatever their values, "
            "some "
            "combination of them leaves the covariance of the rows as it is (or what is left of it beside the fixed "
            "effects); take a random effect out, or choose a simpler residual structure."
        )


def _listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:_SHOWN])} and {more} more"


def _lost(criterion: MarginalCriterion) -> FloatArray:
    """Directions of the parameters that the covariance of the rows does not depend on, (m, d)."""
    model = criterion.model
    generic = [structure.generic() for structure in model.structures]
    par = np.concatenate([*generic, np.full(model.slices[-1].stop - model.slices[-1].start, 0.1)])
    point = criterion.evaluate(par)
    if point is None:
        return np.zeros((model.n_par, 0))
    information = expected(criterion, point, curved=False).information
    size = np.sqrt(np.maximum(information.diagonal(), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    return np.asarray(vectors[:, values < _NULL])
