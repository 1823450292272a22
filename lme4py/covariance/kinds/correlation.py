"""Correlation matrices R(phi): what is left of a covariance when the standard deviations are taken out.

R C are known as functions of phi with R = C C', C the root. A correlation that knows nothing better has the symmetric
root C = U w U' from the eigenvalues w^2 of R, which rounding cannot make complex, and whose derivatives solve
C dC + dC C = dR: in the eigenvectors, (dC)_ij = (dR)_ij / (w_i + w_j). Where both are zero so is dR, R being positive
semi-definite on either side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.spaces import symmetric_basis
from lme4py.covariance.steps import Steps
from lme4py.errors import DesignError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Correlation", "Independent", "Latest", "fold_angles", "odd_quarters", "turn_sizes"]

_Found = TypeVar("_Found")

# A pair of roots of eigenvalues below this, relative to the largest, is zero.
_ZERO = 1e-9
# phi is fitted to so many pairs of columns at most, from so many starts.
_PAIRS, _STARTS = 2000, 2


class Latest(Generic[_Found]):
    """What was last made for some phi: an optimiser asks for the value and its derivatives in turn."""

    def __init__(self) -> None:
        self._kept: tuple[bytes, _Found] | None = None

    def get(self, phi: FloatArray, make: Callable[[FloatArray], _Found]) -> _Found:
        """What `make` gives for phi."""
        kept, key = self._kept, phi.tobytes()
        if kept is None or kept[0] != key:
            kept = key, make(phi)
            # One assignment, so that threads that share a structure see one or the other.
            self._kept = kept
        return kept[1]


@dataclass(frozen=True, eq=False)
class Correlation(ABC):
    """A family of correlation matrices of k columns.

    Parameters
    ----------
    size : int
        k.
    positions : ndarray, shape (k,) or (k, d), or None

    Attributes
    ----------
    largest : int
        Columns for which a whole root is made at most.
    triangular : bool
        The root is lower triangular.
    """

    size: int
    positions: FloatArray | None = None

    largest: ClassVar[int] = 2500
    triangular: ClassVar[bool] = False

    def key(self) -> tuple[Any, ...]:
        """What makes two correlations the same, beside size and positions."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is cached."""
        return {field.name: self.__dict__[field.name] for field in fields(self)}

    @computed_once
    def places(self) -> FloatArray:
        """Positions of the columns; their numbers where they have no others."""
        return np.arange(float(self.size)) if self.positions is None else self.positions

    @property
    @abstractmethod
    def phi_names(self) -> tuple[str, ...]:
        """A name for each phi."""

    @property
    def n_phi(self) -> int:
        """Number of parameters."""
        return len(self.phi_names)

    @abstractmethod
    def initial(self) -> FloatArray:
        """phi of a correlation matrix about the identity."""

    # --- R ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        """R and its derivatives in phi, of the columns or at points (..., p) or (..., p, d)."""

    @property
    def steps_in_time(self) -> bool:
        """Is it a chain in time whose steps depend on the gaps alone?"""
        return False

    def gap_steps(self, phi: FloatArray, gaps: FloatArray) -> Steps:
        """The steps of such a chain over these gaps, of any shape."""
        raise TypeError(f"{type(self).__name__} is no chain in time")

    def pull(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        """<W, dR_p>, shape (n,); W of shape (k, k)."""
        return np.asarray(np.einsum("ab,pab->p", W, self.derivatives(phi, order=1).first))

    def pull_rows(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        """sum_b W_ab dR_p,ab for each row a, shape (n, k)."""
        return np.asarray(np.einsum("ab,pab->pa", W, self.derivatives(phi, order=1).first))

    def pull_second(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        """<W, d2R_pq>, shape (n, n)."""
        return np.asarray(np.einsum("ab,pqab->pq", W, self.derivatives(phi).second))

    # --- the root ---------------------------------------------------------------------------------------------------

    @computed_once
    def _last(self) -> Latest[tuple[FloatArray, FloatArray]]:
        return Latest()

    def _eigen(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Eigenvectors of R, and the roots of its eigenvalues."""
        return self._last.get(phi, self._new_eigen)

    def _new_eigen(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, vectors = np.linalg.eigh(self.derivatives(phi, order=0).value)
        return vectors, np.sqrt(np.maximum(values, 0.0))

    @staticmethod
    def _sums(w: FloatArray) -> FloatArray:
        """1 / (w_i + w_j), zero where both are."""
        sums = w[:, None] + w
        zero = sums <= _ZERO * w[-1]
        return np.asarray(np.where(zero, 0.0, 1.0 / np.where(zero, 1.0, sums)))

    def root(self, phi: FloatArray) -> FloatArray:
        """C, shape (k, k)."""
        U, w = self._eigen(phi)
        root: FloatArray = (U * w) @ U.T
        return root

    def root_tangents(self, phi: FloatArray) -> FloatArray:
        """dC_p, shape (n, k, k)."""
        U, w = self._eigen(phi)
        inner = U.T @ self.derivatives(phi, order=1).first @ U
        tangents: FloatArray = U @ (inner * self._sums(w)) @ U.T
        return tangents

    def root_second_tangents(self, phi: FloatArray) -> FloatArray:
        """d2C_pq, shape (n, n, k, k)."""
        U, w = self._eigen(phi)
        dC = self.root_tangents(phi)
        both = dC[:, None] @ dC[None]
        inner = U.T @ (self.derivatives(phi).second - both - both.swapaxes(0, 1)) @ U
        second: FloatArray = U @ (inner * self._sums(w)) @ U.T
        return second

    def root_pullback(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        """<D, dC_p>, shape (n,)."""
        return self.pull(phi, self._adjoint(phi, D))

    def _adjoint(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        """E with <D, dC> = <E, dR> for every dR."""
        U, w = self._eigen(phi)
        inner = U.T @ D @ U
        adjoint: FloatArray = U @ (0.5 * (inner + inner.T) * self._sums(w)) @ U.T
        return adjoint

    def root_rows(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        """sum_b D_ab dC_p,ab for each row a, shape (n, k)."""
        return np.asarray(np.einsum("ab,pab->pa", D, self.root_tangents(phi)))

    def root_second(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        """<D, d2C_pq>, shape (n, n)."""
        E = self._adjoint(phi, D)
        dC = self.root_tangents(phi)
        both = np.einsum("pab,qba->pq", E @ dC, dC)
        return np.asarray(self.pull_second(phi, E) - both - both.T)

    def check_size(self, what: str) -> None:
        """Raise where the root would be too large.

        Raises
        ------
        DesignError
        """
        if self.size > self.largest:
            gigabytes = 8.0 * self.size**2 / 2**30
            raise DesignError(
                f"{what} has {self.size} columns: the factor of their covariance alone takes {gigabytes:.1f} GiB, and "
                f"more than {self.largest} columns are not worked on; round the times or coordinates to fewer values, "
                "or give the structure to the residuals."
            )

    # --- phi from elsewhere -----------------------------------------------------------------------------------------

    def grid(self) -> Iterator[FloatArray]:
        """A few phi that are spread over the whole range, edges included."""
        yield self.initial()

    def of_rows(self, M: FloatArray) -> FloatArray:
        """phi of the correlation matrix M M', or of one close to it; the rows of M have length 1, or 0 for unknown."""
        known = np.flatnonzero(np.einsum("ab,ab->a", M, M) > 0.5)
        i, j = (known[index] for index in np.tril_indices(known.size, -1))
        if not i.size:
            return self.initial()
        some = slice(None, None, -(-i.size // _PAIRS))
        i, j = i[some], j[some]
        wanted = np.einsum("ab,ab->a", M[i], M[j])

        def misfit(phi: FloatArray) -> FloatArray:
            return np.asarray(self.at_pairs(phi, i, j, 0).value - wanted)

        def slopes(phi: FloatArray) -> FloatArray:
            return self.at_pairs(phi, i, j, 1).first.T

        from scipy.optimize import least_squares

        starts = sorted(self.grid(), key=lambda phi: float(np.sum(misfit(phi) ** 2)))
        # Where all slopes are zero no search leads on.
        some_starts = islice((phi for phi in starts if slopes(phi).any()), _STARTS)
        found = [
            least_squares(misfit, start, slopes, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=100)
            for start in (*some_starts, self.initial())
        ]
        return self.canonical(np.asarray(min(found, key=lambda one: float(one.cost)).x))

    def at_pairs(self, phi: FloatArray, i: IntArray, j: IntArray, order: int) -> Jet:
        """Correlations of some pairs of columns."""
        R = self.derivatives(phi, order=order)
        return Jet(R.value[i, j], R.first[:, i, j], R.second[:, :, i, j])

    def canonical(self, phi: FloatArray) -> FloatArray:
        """The phi of the same matrix that stands for all the others."""
        return phi

    # --- edges ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def edges(self, phi: FloatArray) -> FloatArray:
        """As `CovarianceStructure.edges`."""

    @abstractmethod
    def edge_sizes(self, phi: FloatArray) -> FloatArray:
        """As `CovarianceStructure.edge_sizes`."""

    @abstractmethod
    def as_start(self, phi: FloatArray) -> FloatArray:
        """phi off the edges, and where R is not flat in it."""

    @abstractmethod
    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        """What is on the boundary, in words."""

    def limits(self, phi: FloatArray, label: str) -> tuple[str, ...]:
        """Parameters that no longer matter, in words."""
        return ()

    # --- natural parameters -----------------------------------------------------------------------------------------

    separable: ClassVar[bool] = True

    @property
    @abstractmethod
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        """One for each phi."""

    @abstractmethod
    def natural(self, phi: FloatArray, order: int) -> Jet:
        """The natural parameters as functions of phi, an array of them."""

    @abstractmethod
    def of_natural(self, values: FloatArray) -> FloatArray:
        """phi from the natural parameters, which are in their ranges."""

    def holding(self, values: Mapping[int, float]) -> dict[int, float]:
        """As `CovarianceStructure.holding`, of natural parameters that are functions of the phi in the same place."""
        natural = self.natural(self.initial(), 0).value.copy()
        natural[list(values)] = list(values.values())
        phi = self.of_natural(natural)
        return {place: float(phi[place]) for place in values}

    # --- linear spaces ----------------------------------------------------------------------------------------------

    def pairs(self) -> FloatArray:
        """A symmetric matrix without diagonal, about proportional to the correlations that are to be expected."""
        R = self.derivatives(self.typical(), order=0).value
        return R - np.diag(R.diagonal())

    def typical(self) -> FloatArray:
        """phi with positive correlations, for the start by moments."""
        return self.initial()

    def span(self) -> FloatArray:
        """A basis of the smallest linear space that holds all R times a variance, shape (b, k, k)."""
        return symmetric_basis(self.size)


@dataclass(frozen=True, eq=False)
class Independent(Correlation):
    """No correlation: what any family is for one column."""

    triangular: ClassVar[bool] = True

    @property
    def phi_names(self) -> tuple[str, ...]:
        return ()

    def initial(self) -> FloatArray:
        return np.zeros(0)

    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        if points is None:
            return Jet.value_only(np.eye(self.size))
        return Jet.value_only(np.broadcast_to(np.eye(points.shape[-1]), (*points.shape, points.shape[-1])))

    def root(self, phi: FloatArray) -> FloatArray:
        return np.eye(self.size)

    def edges(self, phi: FloatArray) -> FloatArray:
        return np.zeros(0)

    def edge_sizes(self, phi: FloatArray) -> FloatArray:
        return np.zeros(0)

    def as_start(self, phi: FloatArray) -> FloatArray:
        return phi

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        return ()

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return ()

    def natural(self, phi: FloatArray, order: int) -> Jet:
        return Jet.constant(np.zeros(0), 0)

    def of_natural(self, values: FloatArray) -> FloatArray:
        return np.zeros(0)


# --- angles: a correlation is sin(v), which is even about v = +-pi/2, where it is +-1 -------------------------------


def fold_angles(angles: FloatArray) -> FloatArray:
    """The angles in [-pi/2, pi/2] of the same sines.

    Examples
    --------
    >>> fold_angles(np.array([0.3, np.pi - 0.3, -4.0])).round(4)
    array([0.3   , 0.3   , 0.8584])
    """
    turned = np.remainder(angles + 0.5 * np.pi, 2.0 * np.pi)
    # Exact where it changes nothing.
    folded = np.minimum(turned, 2.0 * np.pi - turned) - 0.5 * np.pi
    return np.asarray(np.where(np.abs(angles) <= 0.5 * np.pi, angles, folded))


def odd_quarters(angles: FloatArray) -> FloatArray:
    """The nearest odd multiples of pi/2, where the sine is +-1."""
    return (np.floor(angles / np.pi) + 0.5) * np.pi


def turn_sizes(angles: FloatArray) -> FloatArray:
    """How far sines are from +-1, as sqrt(1 - sin^2)."""
    return np.abs(np.cos(angles))
