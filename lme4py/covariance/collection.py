"""The structures of all terms of a model, and one vector theta for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import is_

import numpy as np
import scipy.linalg

from lme4py.covariance.structure import CovarianceStructure
from lme4py.errors import OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["CovarianceStructures"]


@dataclass(frozen=True)
class CovarianceStructures:
    """The structures of all terms, in the order of the design.

    Parameters
    ----------
    each : tuple of CovarianceStructure

    Examples
    --------
    >>> from lme4py.covariance import make_structure
    >>> both = CovarianceStructures((make_structure("us", 2), make_structure("diag", 1)))
    >>> both.slices
    (slice(0, 3, None), slice(3, 4, None))
    """

    each: tuple[CovarianceStructure, ...]

    @computed_once
    def slices(self) -> tuple[slice, ...]:
        """Where the theta of each term are."""
        ends = [0, *accumulate(structure.n_theta for structure in self.each)]
        return tuple(slice(start, end) for start, end in pairwise(ends))

    @computed_once
    def n_theta(self) -> int:
        """Number of parameters of all terms."""
        return sum(structure.n_theta for structure in self.each)

    def in_columns(self, S: Sequence[FloatArray]) -> CovarianceStructures:
        """The same in the engine's columns Z S, S for each term."""
        moved = tuple(structure.in_columns(own).inside for structure, own in zip(self.each, S, strict=True))
        # Most take any columns, and what is known of them stays.
        return self if all(map(is_, moved, self.each)) else CovarianceStructures(moved)

    @computed_once
    def user(self) -> CovarianceStructures:
        """The structures in the user's columns that these are the `inside` of."""
        own = tuple(structure.user for structure in self.each)
        return self if all(map(is_, own, self.each)) else CovarianceStructures(own)

    @property
    def linear(self) -> bool:
        """Are the covariances of every term a linear space?"""
        return all(structure.linear for structure in self.each)

    def split(self, theta: FloatArray) -> list[FloatArray]:
        """theta of each term."""
        return [theta[place] for place in self.slices]

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """T of every term."""
        return [s.factor(own) for s, own in zip(self.each, self.split(theta), strict=True)]

    def covariance_pullback(self, theta: FloatArray, G: Sequence[FloatArray]) -> FloatArray:
        """Derivative in theta from the derivatives G in the covariance of each term."""
        own = zip(self.each, self.split(theta), G, strict=True)
        return _joined([s.covariance_pullback(theta, g) for s, theta, g in own])

    def theta_of_factors(self, factors: Sequence[FloatArray]) -> FloatArray:
        """theta of the covariances M M' of all terms."""
        return _joined([s.theta_of_factor(M) for s, M in zip(self.each, factors, strict=True)])

    def initial(self) -> FloatArray:
        """theta of covariances about the identity."""
        return _joined([structure.initial() for structure in self.each])

    @computed_once
    def even(self) -> BoolArray:
        """Which theta have an edge about which the criterion is even."""
        return np.concatenate([np.zeros(0, dtype=bool), *(structure.even for structure in self.each)])

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        """How far each theta is from its edge."""
        return _joined([s.edge_sizes(own) for s, own in zip(self.each, self.split(theta), strict=True)])

    def depth(self, theta: FloatArray) -> float:
        """How far theta is from the boundary."""
        return min((s.depth(own) for s, own in zip(self.each, self.split(theta), strict=True)), default=np.inf)

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        """theta of size^2 Sigma."""
        return _joined([s.scaled(own, size) for s, own in zip(self.each, self.split(theta), strict=True)])

    def uncorrelated(self, theta: FloatArray) -> FloatArray:
        """theta without the covariances that are parameters of their own."""
        return _joined([s.uncorrelated(own) for s, own in zip(self.each, self.split(theta), strict=True)])

    def other_correlations(
        self, theta: FloatArray, sizes: Sequence[tuple[float, float]]
    ) -> Iterator[tuple[str, FloatArray]]:
        """theta with other correlations of one term, for structures whose criterion need not have one minimum.

        Parameters
        ----------
        theta : ndarray, shape (m,)
        sizes : sequence of (lowest, highest)
            Between what its standard deviations lie: small ones, moderate ones, and any others.

        Yields
        ------
        what : str
            In words.
        theta : ndarray, shape (m,)
        """
        for place, structure in zip(self.slices, self.each, strict=True):
            for number, own in enumerate(structure.other_starts(theta[place], sizes), start=1):
                moved = theta.copy()
                moved[place] = own
                yield f"correlation {number} of a {structure.name} term", moved

    def axes(self) -> FloatArray:
        """theta of one effect alone (see `CovarianceStructure.axes`), those of all terms in turn, shape (a, m)."""
        zero = self.scaled(self.initial(), 0.0)
        rows = []
        for structure, place in zip(self.each, self.slices, strict=True):
            own = structure.axes()
            theta = np.tile(zero, (len(own), 1))
            theta[:, place] = own
            rows.append(theta)
        return np.concatenate(rows) if rows else np.zeros((0, 0))

    def canonical(self, theta: FloatArray) -> FloatArray:
        """The theta of the same covariances that stands for all the others."""
        return _joined([s.canonical(own) for s, own in zip(self.each, self.split(theta), strict=True)])

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        """theta that a search can start from."""
        own = zip(self.each, self.split(theta), strict=True)
        return _joined([structure.as_start(theta, lowest, highest) for structure, theta in own])

    def to_user(self, theta: FloatArray, S: Sequence[FloatArray]) -> FloatArray:
        """theta in the user's columns from those of `inside` in the engine's, Z S for each term."""
        return _joined([s.to_user(own, c) for s, own, c in zip(self.each, self.split(theta), S, strict=True)])

    def to_engine(self, theta: FloatArray, S: Sequence[FloatArray]) -> FloatArray:
        """The inverse of `to_user`."""
        return _joined([s.to_engine(own, c) for s, own, c in zip(self.each, self.split(theta), S, strict=True)])

    def to_user_jacobian(self, theta: FloatArray, S: Sequence[FloatArray]) -> FloatArray:
        """Derivative of `to_user`, block diagonal in the terms, shape (m, m)."""
        own = zip(self.each, self.split(theta), S, strict=True)
        if not self.each:
            return np.zeros((0, 0))
        return np.asarray(scipy.linalg.block_diag(*(s.to_user_jacobian(theta, c) for s, theta, c in own)))

    def check(self, theta: object) -> FloatArray:
        """`theta` as a float array of the right length.

        Raises
        ------
        OptionError
        """
        try:
            values = np.asarray(theta, dtype=float).ravel()
        except (TypeError, ValueError):
            raise OptionError(f"theta is {theta!r}; give {self.n_theta} numbers, the start of the search.") from None
        if values.size != self.n_theta or not np.isfinite(values).all():
            raise OptionError(
                f"theta must hold {self.n_theta} finite numbers (one per relative covariance parameter), "
                f"got {values.size}; see Design.terms for their order."
            )
        return values


def _joined(parts: Sequence[FloatArray]) -> FloatArray:
    return np.concatenate(parts, dtype=np.float64) if parts else np.zeros(0)
