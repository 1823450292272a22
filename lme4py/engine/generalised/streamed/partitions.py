"""The criterion of a model whose rows are in parts, each with whole groups: a sum over parts.

Groups of different parts are independent, so that value, gradient and information of the parts add up; modes stay with
their part, as the start of the next evaluation. A part is made when it is needed, and need not stay in memory; others
may be on other machines, which send their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lme4py.engine.generalised.criteria import AtPoint, JointCriterion
from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.integrals.nested_quadrature import make_quadrature
from lme4py.engine.generalised.laplace import Laplace, average_information, laplace
from lme4py.engine.generalised.problem import GlmmProblem, ModeError, ModeFinder
from lme4py.engine.optimise import Control, Local
from lme4py.linalg.types import FloatArray
from lme4py.progress import tick

__all__ = ["Elsewhere", "PartSums", "PartitionedCriterion", "PartitionedDescents", "evaluate_part"]

Parts = Sequence[Callable[[], GlmmProblem]]


@dataclass(frozen=True)
class PartSums:
    """What a part adds to the criterion.

    Attributes
    ----------
    value : float
    gradient : ndarray, shape (r,)
    information : ndarray, shape (r, r)
        Zero beside a point.
    """

    value: float
    gradient: FloatArray
    information: FloatArray


class Elsewhere(Protocol):
    """Parts on other machines."""

    def evaluate(self, phi: FloatArray, nAGQ: int, beside: bool) -> Iterable[PartSums | None]:
        """Sums of each part; None of one that has no mode."""
        ...


def evaluate_part(
    problem: GlmmProblem, nAGQ: int, phi: FloatArray, modes: FloatArray | None, beside: bool = False
) -> tuple[PartSums, Laplace] | None:
    """A part at some parameters; None where it has no mode.

    Parameters
    ----------
    problem : GlmmProblem
    nAGQ : int
    phi : ndarray, shape (r,)
    modes : ndarray, shape (Q,), or None
        Start.
    beside : bool
        Without information.
    """
    finder = ModeFinder(problem)
    refine = None if nAGQ == 1 else make_quadrature(finder, nAGQ)
    theta, beta, lam = problem.split(phi)
    zero = np.zeros(sum(factor.size for factor in problem.factors))
    for u in (zero,) if modes is None or modes.shape != zero.shape else (modes, zero):
        try:
            with np.errstate(all="ignore"):
                found = laplace(finder, finder.find(theta, beta, lam, u, order=2))
                value, gradient = (found.value, found.gradient) if refine is None else refine(found)
        except (ModeError, np.linalg.LinAlgError):
            continue
        information = np.zeros((phi.size, phi.size))
        if not beside:
            with np.errstate(all="ignore"):
                information = average_information(finder, found)
        return PartSums(value, gradient, information), found
    return None


class PartitionedCriterion(JointCriterion):
    """-2 log-likelihood in (theta, beta, log dispersion) of all parts together.

    Parameters
    ----------
    finder : ModeFinder
        Of the first part, which stands for all where only the kind of model matters.
    parts : sequence of callable
        Each makes the problem of a part, in the columns of the first.
    nAGQ : int
        1 or more points.
    elsewhere : Elsewhere, optional
        Further parts.
    """

    def __init__(self, finder: ModeFinder, parts: Parts, nAGQ: int, elsewhere: Elsewhere | None = None) -> None:
        # Something in the place of `refine`: the first part alone cannot answer for all.
        super().__init__(finder, lambda found: (found.value, found.gradient))
        self.parts, self.nAGQ, self.elsewhere = parts, nAGQ, elsewhere
        self.passes = 0
        self._modes: list[FloatArray | None] = [None] * len(parts)
        self._information: FloatArray | None = None

    def reported(self, phi: FloatArray, known: AtPoint | None = None) -> AtPoint | None:
        """What is known: the last step of the modes is not worth a pass over the rows."""
        return known or self.evaluate(phi)

    def evaluate(self, phi: FloatArray, beside: bool = False) -> tuple[Laplace, float, FloatArray] | None:
        """The first part, value and gradient; None where a part has no mode.

        Parameters
        ----------
        phi : ndarray
        beside : bool
            As in `JointCriterion`; modes are as exact as elsewhere.
        """
        if self.finder.problem.beyond_limit(self.finder.problem.split(phi)[2]):
            return None
        self.passes += 1
        modes: list[FloatArray | None] = []
        every: list[PartSums] = []
        first: Laplace | None = None
        for number in range(len(self.parts)):
            tick("parts of rows")
            here = self._one(number, phi, beside)
            if here is None:
                return None
            every.append(here[0])
            modes.append(here[1].mode.u)
            first = here[1] if first is None else first
        for sums in () if self.elsewhere is None else self.elsewhere.evaluate(phi, self.nAGQ, beside):
            if sums is None:
                return None
            every.append(sums)
        value = sum(one.value for one in every)
        gradient: FloatArray = np.sum([one.gradient for one in every], axis=0)
        if first is None or not (np.isfinite(value) and np.isfinite(gradient).all()):
            return None
        if not beside:
            self._information = np.sum([one.information for one in every], axis=0)
            if value < self.best:
                self.base, self.best, self._modes = first, value, modes
        return first, value, gradient

    def _one(self, number: int, phi: FloatArray, beside: bool = False) -> tuple[PartSums, Laplace] | None:
        return evaluate_part(self.parts[number](), self.nAGQ, phi, self._modes[number], beside)

    def local(self, phi: FloatArray) -> Local | None:
        """For `minimise`."""
        result = self.evaluate(phi)
        information = self._information
        if result is None or information is None or not np.isfinite(information).all():
            return None
        return Local(phi, result[1], result[2], information, result)

    def each(self, phi: FloatArray) -> Iterator[Laplace]:
        """The Laplace approximation of each part at some parameters.

        Raises
        ------
        ModeError
            A part has no mode there.
        """
        for number in range(len(self.parts)):
            here = self._one(number, phi, beside=True)
            if here is None:
                raise ModeError("a part of the rows has no conditional mode at the estimates")
            yield here[1]


class PartitionedDescents(Descents):
    """The ways down of a model whose rows are in parts.

    Parameters
    ----------
    finder : ModeFinder
        Of the first part.
    control : Control
    parts, nAGQ, elsewhere
        As in `PartitionedCriterion`.
    """

    def __init__(
        self, finder: ModeFinder, control: Control, parts: Parts, nAGQ: int, elsewhere: Elsewhere | None = None
    ) -> None:
        super().__init__(finder, control, lambda found: (found.value, found.gradient))
        self.whole = PartitionedCriterion(finder, parts, nAGQ, elsewhere)

    def criterion(self) -> PartitionedCriterion:
        return self.whole
