"""The criterion of a model whose rows are in parts, each with whole groups: a sum over parts.

Groups of different parts are independent, so that value, gradient and information of the parts add up; modes stay with
their part, as the start of the next evaluation. A part is made when it is needed, and need not stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.integrals.nested_quadrature import make_quadrature
from lme4py.engine.generalised.laplace import Laplace, average_information, laplace
from lme4py.engine.generalised.problem import GlmmProblem, ModeError, ModeFinder
from lme4py.engine.optimise import Control, Local
from lme4py.linalg.types import FloatArray
from lme4py.progress import tick

__all__ = ["PartitionedCriterion", "PartitionedDescents"]

Parts = Sequence[Callable[[], GlmmProblem]]


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
    """

    def __init__(self, finder: ModeFinder, parts: Parts, nAGQ: int) -> None:
        # Something in the place of `refine`: the first part alone cannot answer for all.
        super().__init__(finder, lambda found: (found.value, found.gradient))
        self.parts, self.nAGQ = parts, nAGQ
        self.passes = 0
        self._modes: list[FloatArray | None] = [None] * len(parts)
        self._information: FloatArray | None = None

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
        value, gradient, information = 0.0, np.zeros(phi.size), np.zeros((phi.size, phi.size))
        modes: list[FloatArray | None] = []
        first: Laplace | None = None
        self.passes += 1
        for number in range(len(self.parts)):
            tick("parts of rows")
            here = self._one(number, phi)
            if here is None:
                return None
            found, own, slope = here
            value += own
            gradient += slope
            if not beside:
                with np.errstate(all="ignore"):
                    information += average_information(found.finder, found)
            modes.append(found.mode.u)
            first = found if first is None else first
        if first is None or not (np.isfinite(value) and np.isfinite(gradient).all()):
            return None
        if not beside:
            self._information = information
            if value < self.best:
                self.base, self.best, self._modes = first, value, modes
        return first, value, gradient

    def _one(self, number: int, phi: FloatArray) -> tuple[Laplace, float, FloatArray] | None:
        finder = ModeFinder(self.parts[number]())
        refine = None if self.nAGQ == 1 else make_quadrature(finder, self.nAGQ)
        theta, beta, lam = finder.problem.split(phi)
        zero = np.zeros(sum(factor.size for factor in finder.problem.factors))
        known = self._modes[number]
        for u in (zero,) if known is None else (known, zero):
            try:
                with np.errstate(all="ignore"):
                    found = laplace(finder, finder.find(theta, beta, lam, u, order=2))
                    value, gradient = (found.value, found.gradient) if refine is None else refine(found)
            except (ModeError, np.linalg.LinAlgError):
                continue
            return found, value, gradient
        return None

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
            here = self._one(number, phi)
            if here is None:
                raise ModeError("a part of the rows has no conditional mode at the estimates")
            yield here[0]


class PartitionedDescents(Descents):
    """The ways down of a model whose rows are in parts.

    Parameters
    ----------
    finder : ModeFinder
        Of the first part.
    control : Control
    parts, nAGQ
        As in `PartitionedCriterion`.
    """

    def __init__(self, finder: ModeFinder, control: Control, parts: Parts, nAGQ: int) -> None:
        super().__init__(finder, control, lambda found: (found.value, found.gradient))
        self.whole = PartitionedCriterion(finder, parts, nAGQ)

    def criterion(self) -> PartitionedCriterion:
        return self.whole
