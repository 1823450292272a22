"""Any correlation matrix by angles, in which chosen correlations are functions of angles of their own.

R = L L' with the rows of L on the unit sphere, in spherical coordinates (Pinheiro & Bates 1996, *Stat. Comput.* 6:289):
L_i1 = sin v_i1, L_i2 = sin v_i2 cos v_i1, ..., L_ii = cos v_i1 ... cos v_i,i-1. The first column of R is the sines of
the first angles; any other correlation depends on the angles of its two rows up to its own place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.correlation import Correlation, fold_angles, odd_quarters, turn_sizes
from lme4py.covariance.natural import NaturalParameter
from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray

__all__ = ["SphericalAngles", "order_for"]

# Orders of the columns that are looked at: all of up to seven.
_ORDERS = 5040
# An angle may leave the range of sines by rounding only.
_ROUNDING = 1e-9

Pair = tuple[int, int]


def order_for(size: int, held: frozenset[Pair]) -> tuple[int, ...] | None:
    """An order of the columns in which held correlations are functions of as many angles; None where there is none.

    Parameters
    ----------
    size : int
    held : set of (int, int)
        Pairs (j, i) of columns, j < i.

    Examples
    --------
    >>> order_for(3, frozenset({(1, 2)}))
    (1, 2, 0)
    >>> order_for(4, frozenset({(0, 1), (2, 3)})) is None
    True
    """
    used = sorted({column for pair in held for column in pair})
    rest = [column for column in range(size) if column not in used]
    for first in islice(permutations(used), _ORDERS):
        if _fills_rows(first, held):
            return (*first, *rest)
    return None


def _fills_rows(order: Sequence[int], held: frozenset[Pair]) -> bool:
    """In each row of the lower triangle held places are the first ones, and so are those that they depend on."""
    known = [[_pair(row, column) in held for column in order[:i]] for i, row in enumerate(order)]
    depth = [sum(row) for row in known]
    if any(not all(row[:d]) for row, d in zip(known, depth, strict=True)):
        return False
    return all(depth[j] >= j for i, d in enumerate(depth) for j in range(1, d))


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)


@dataclass(frozen=True, eq=False)
class SphericalAngles(Correlation):
    """Any correlation matrix of k columns.

    Attributes
    ----------
    order : tuple of int
        The columns as they stand in L.

    Examples
    --------
    >>> R = SphericalAngles(3, order=(0, 1, 2))
    >>> R.derivatives(R.of_natural(np.array([0.5, 0.2, 0.3])), order=0).value.round(10)
    array([[1. , 0.5, 0.2],
           [0.5, 1. , 0.3],
           [0.2, 0.3, 1. ]])
    """

    order: tuple[int, ...] = ()

    separable: ClassVar[bool] = False

    def key(self) -> tuple[Any, ...]:
        return (self.order,)

    @property
    def _angles(self) -> list[Pair]:
        """Row and column in L of each angle."""
        return [(i, j) for i in range(1, self.size) for j in range(i)]

    @property
    def phi_names(self) -> tuple[str, ...]:
        return tuple(f"angle {self.order[i] + 1}.{self.order[j] + 1}" for i, j in self._angles)

    def initial(self) -> FloatArray:
        return np.zeros(len(self._angles))

    def typical(self) -> FloatArray:
        return np.full(len(self._angles), 0.3)

    def _lower(self, phi: FloatArray, order: int) -> Jet:
        """L in the user's order of rows, (k, k)."""
        n, k = phi.size, self.size
        value, first = np.zeros((k, k)), np.zeros((n, k, k))
        second = np.zeros((n, n, k, k))
        value[self.order[0], 0] = 1.0
        for i in range(1, k):
            own = np.arange(i * (i - 1) // 2, i * (i + 1) // 2)
            row, moved, curved = _on_sphere(phi[own])
            at = self.order[i]
            value[at, : i + 1] = row
            first[own, at, : i + 1] = moved
            second[own[:, None], own, at, : i + 1] = curved
        return Jet.of(value, first, second, order)

    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        L = self._lower(phi, order)
        transposed = Jet(*(np.swapaxes(part, -1, -2) for part in (L.value, L.first, L.second)))
        R = _product(L, transposed)
        if points is None:
            return R
        at = np.asarray(points, dtype=np.intp)
        rows, columns = at[..., :, None], at[..., None, :]
        return Jet(*(part[..., rows, columns] for part in (R.value, R.first, R.second)))

    def root(self, phi: FloatArray) -> FloatArray:
        return self._lower(phi, 0).value

    def root_tangents(self, phi: FloatArray) -> FloatArray:
        return self._lower(phi, 1).first

    def root_second_tangents(self, phi: FloatArray) -> FloatArray:
        return self._lower(phi, 2).second

    def root_pullback(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ab,pab->p", D, self.root_tangents(phi)))

    def root_second(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ab,pqab->pq", D, self.root_second_tangents(phi)))

    def grid(self) -> Iterator[FloatArray]:
        return (np.full(self.n_phi, v) for v in (0.0, 0.3, -0.3))

    def of_rows(self, M: FloatArray) -> FloatArray:
        R = M @ M.T
        return self._from({pair: float(R[pair]) for pair in combinations(range(self.size), 2)}, strict=False)

    def _from(self, known: Mapping[Pair, float], strict: bool = True) -> FloatArray:
        """Angles with these correlations, the others zero; `strict` refuses what is no correlation matrix."""
        phi, L = np.zeros(self.n_phi), np.eye(self.size)
        for number, (i, j) in enumerate(self._angles):
            wanted = known.get(_pair(self.order[i], self.order[j]))
            if j == 0:
                left = 1.0
            room = left * L[j, j]
            sine = 0.0 if wanted is None or room <= 1e-12 else (wanted - float(L[i, :j] @ L[j, :j])) / room
            if strict and abs(sine) > 1.0 + _ROUNDING:
                raise OptionError("these correlations are no correlation matrix; give others.")
            phi[number] = np.arcsin(np.clip(sine, -1.0, 1.0))
            L[i, j] = left * np.sin(phi[number])
            left *= float(np.cos(phi[number]))
            L[i, i] = left
        return phi

    def canonical(self, phi: FloatArray) -> FloatArray:
        inside = (np.abs(phi) <= 0.5 * np.pi).all()
        return phi if inside else self.of_rows(self.root(phi)) if self.size > 2 else fold_angles(phi)

    def edges(self, phi: FloatArray) -> FloatArray:
        return odd_quarters(phi)

    def edge_sizes(self, phi: FloatArray) -> FloatArray:
        return turn_sizes(phi)

    def as_start(self, phi: FloatArray) -> FloatArray:
        return np.clip(self.canonical(phi), -1.2, 1.2)

    def boundary(self, phi: FloatArray, label: str, columns: Sequence[str], least: float) -> tuple[str, ...]:
        gone = int((turn_sizes(phi) < least).sum())
        return (f"the covariance matrix of {label} has not full rank",) if gone else ()

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return tuple(NaturalParameter("cor", "cor", pair, -1.0, 1.0) for pair in combinations(range(self.size), 2))

    def natural(self, phi: FloatArray, order: int) -> Jet:
        i, j = np.triu_indices(self.size, 1)
        return self.at_pairs(phi, i, j, order)

    def of_natural(self, values: FloatArray) -> FloatArray:
        return self._from(dict(zip(combinations(range(self.size), 2), values.tolist(), strict=True)))

    def holding(self, values: Mapping[int, float]) -> dict[int, float]:
        pairs = list(combinations(range(self.size), 2))
        known = {pairs[place]: value for place, value in values.items()}
        phi = self._from(known)
        places = [number for number, (i, j) in enumerate(self._angles) if _pair(self.order[i], self.order[j]) in known]
        return {number: float(phi[number]) for number in places}


def _on_sphere(v: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A point in spherical coordinates, (n + 1,), with first (n, n + 1) and second derivatives (n, n, n + 1)."""
    n = v.size
    # Factor j of element l: the cosine before l, the sine at l, one after it; each with two derivatives in v_j.
    cosine, sine = np.cos(v), np.sin(v)
    factors = np.ones((3, n, n + 1))
    for j in range(n):
        factors[:, j, j + 1 :] = np.array([cosine[j], -sine[j], -cosine[j]])[:, None]
        factors[:, j, j] = sine[j], cosine[j], -sine[j]
        factors[1:, j, :j] = 0.0
    first, second = np.empty((n, n + 1)), np.empty((n, n, n + 1))
    for a in range(n):
        first[a] = _times(factors, {a: 1})
        for b in range(n):
            second[a, b] = _times(factors, {a: 2} if a == b else {a: 1, b: 1})
    return _times(factors, {}), first, second


def _times(factors: FloatArray, orders: Mapping[int, int]) -> FloatArray:
    """Products of the factors, some of them differentiated."""
    which = np.zeros(factors.shape[1], dtype=np.intp)
    which[list(orders)] = list(orders.values())
    product: FloatArray = factors[which, np.arange(which.size)].prod(axis=0)
    return product


def _product(A: Jet, B: Jet) -> Jet:
    """A B of two matrices."""
    second = A.second @ B.value + A.value @ B.second
    if second.shape[0]:
        crossed = A.first[:, None] @ B.first[None]
        second = second + crossed + crossed.swapaxes(0, 1)
    return Jet(A.value @ B.value, A.first @ B.value + A.value @ B.first, second)
