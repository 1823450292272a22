"""Markov chains: each column depends on the one before it alone.

With s_l the correlation of column l with the column before and c_l = sqrt(1 - s_l^2), the rows of the root follow
C_1 = e_1, C_l = s_l C_{l-1} + c_l e_l: C = B diag(1, c), where B^-1 is the identity less s below its diagonal. Both s
and c are analytic functions of one parameter of the step, also where the correlation is +-1, so that C is. R is
B + B' - I and has a tridiagonal inverse.

What an optimiser needs costs O(k^2) where all steps share a parameter, and makes no (n, k, k) arrays where each has its
own (Pourahmadi 1999, *Biometrika* 86:677, for the decomposition).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.linalg.lapack as lapack

from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.correlation import Correlation, Latest
from lme4py.covariance.steps import Steps
from lme4py.errors import DesignError
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Chain", "OwnSteps", "SharedSteps", "increasing", "neighbour_turns"]

# 1 - correlation^2 below this is rounding of an angle of pi / 2.
_SINGULAR = 1e-30


@dataclass(frozen=True)
class _State:
    """A chain at one phi.

    Attributes
    ----------
    steps : Steps
    B : ndarray, shape (k, k)
        Products of the steps between two columns, lower triangular.
    C : ndarray, shape (k, k)
        The root.
    """

    steps: Steps
    B: FloatArray
    C: FloatArray

    @property
    def _places(self) -> tuple[IntArray, IntArray]:
        """Where the step into column l stands, and l."""
        own = np.arange(self.steps.s.size)
        return own, own + 1

    # --- one parameter for all steps

    def _moved(self, C: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
        """B (M C + diag(0, second)) with `first` below the diagonal of M."""
        right = np.zeros_like(C)
        right[1:] = first[:, None] * C[:-1]
        right[self._places[1], self._places[1]] += second
        return _solve(-self.steps.s, np.zeros_like(self.steps.s), right)

    def along(self) -> FloatArray:
        """dC, (k, k)."""
        return self._moved(self.C, self.steps.ds, self.steps.dc)

    def twice_along(self) -> FloatArray:
        """d2C, (k, k)."""
        steps = self.steps
        own = self._moved(self.C, steps.d2s, steps.d2c)
        return own + 2.0 * self._moved(self.along(), steps.ds, np.zeros_like(steps.dc))

    # --- one parameter for each

    def _added(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """The row that a change of each step adds, before B carries it on, (k - 1, k)."""
        rows = first[:, None] * self.C[:-1]
        rows[self._places] += second
        return rows

    def each(self) -> FloatArray:
        """dC of every step, (k - 1, k, k)."""
        return self.B.T[1:, :, None] * self._added(self.steps.ds, self.steps.dc)[:, None]

    def twice_each(self) -> FloatArray:
        """d2C of every pair of steps, (k - 1, k - 1, k, k)."""
        steps = self.steps
        added = self._added(steps.ds, steps.dc)
        carried = steps.ds[:, None] * np.tril(self.B[:-1, 1:], -1)  # from step q to step p > q
        out = carried[:, :, None, None] * self.B.T[1:, None, :, None] * added[None, :, None]
        out = out + out.swapaxes(0, 1)
        own = self._places[0]
        out[own, own] += self.B.T[1:, :, None] * self._added(steps.d2s, steps.d2c)[:, None]
        return out

    def carried_back(self, D: FloatArray) -> FloatArray:
        """B'D."""
        return _solve(np.zeros_like(self.steps.s), -self.steps.s, D)

    def first_of(self, A: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
        """<D, B (M C + diag)> for a change of each step, from A = B'D; (k - 1,)."""
        return np.asarray(first * np.einsum("ab,ab->a", A[1:], self.C[:-1]) + second * A.diagonal()[1:])

    def rows_of(self, D: FloatArray) -> FloatArray:
        """Row sums of D o dC of every step, (k - 1, k)."""
        before = np.roll(D @ self.C.T, 1, axis=1)
        return np.asarray((self.B * before)[:, 1:] * self.steps.ds + (self.B * D)[:, 1:] * self.steps.dc).T

    def second_of(self, D: FloatArray) -> FloatArray:
        """<D, d2C> of every pair of steps, (k - 1, k - 1)."""
        steps, A = self.steps, self.carried_back(D)
        along = steps.ds * (A @ self.C.T)[1:, :-1] + steps.dc * A[1:, 1:]  # [p, q]: what step q adds, seen from p
        below = np.tril(steps.ds[:, None] * self.B[:-1, 1:] * along, -1)
        return below + below.T + np.diag(self.first_of(A, steps.d2s, steps.d2c))


class Chain(Correlation):
    """Correlations of a Markov chain.

    Attributes
    ----------
    shared : bool
        All steps depend on one phi; otherwise each has its own.
    """

    largest: ClassVar[int] = 5000
    triangular: ClassVar[bool] = True
    shared: ClassVar[bool]

    @abstractmethod
    def steps(self, phi: FloatArray) -> Steps:
        """The steps between the columns, (k - 1,)."""

    # --- the root ---------------------------------------------------------------------------------------------------

    def _products(self, s: FloatArray) -> FloatArray:
        """B, from the step into each column."""
        k = self.size
        below = np.ones((k, k))
        rows, columns = np.tril_indices(k, -1)
        below[rows, columns] = np.concatenate([[1.0], s])[rows]
        return np.tril(np.cumprod(below, axis=0))

    @computed_once
    def _last_state(self) -> Latest[_State]:
        return Latest()

    def state(self, phi: FloatArray) -> _State:
        """Steps, products and root at phi."""
        return self._last_state.get(phi, self._new_state)

    def _new_state(self, phi: FloatArray) -> _State:
        steps = self.steps(phi)
        B = self._products(steps.s)
        return _State(steps, B, B * np.concatenate([[1.0], steps.c]))

    def root(self, phi: FloatArray) -> FloatArray:
        return self.state(phi).C

    def root_tangents(self, phi: FloatArray) -> FloatArray:
        at = self.state(phi)
        return at.along()[None] if self.shared else at.each()

    def root_second_tangents(self, phi: FloatArray) -> FloatArray:
        at = self.state(phi)
        return at.twice_along()[None, None] if self.shared else at.twice_each()

    def root_pullback(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        at = self.state(phi)
        own = at.first_of(at.carried_back(D), at.steps.ds, at.steps.dc)
        return np.asarray(own.sum(keepdims=True)) if self.shared else own

    def root_rows(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        at = self.state(phi)
        return np.einsum("ab,ab->a", D, at.along())[None] if self.shared else at.rows_of(D)

    def root_second(self, phi: FloatArray, D: FloatArray) -> FloatArray:
        at = self.state(phi)
        return np.array([[np.vdot(D, at.twice_along())]]) if self.shared else at.second_of(D)

    def precision(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """The inverse of R: diagonal (k,), below it (k - 1,), and log|R|.

        Raises
        ------
        DesignError
            A correlation is +-1: there is no inverse.
        """
        steps = self.steps(phi)
        square = steps.c**2
        if not (square > _SINGULAR).all():
            raise DesignError("a correlation is -1 or 1, and the covariance matrix has no inverse.")
        # Each step puts [s^2, -s; -s, 1] / c^2 on a pair of neighbours; the first column alone has 1.
        diagonal = np.append(steps.s**2 / square, 0.0) + np.append(1.0, 1.0 / square)
        return diagonal, -steps.s / square, float(np.log(square).sum())


class SharedSteps(Chain):
    """A chain whose steps depend on one phi and on the gap between two times."""

    shared: ClassVar[bool] = True

    @property
    def steps_in_time(self) -> bool:
        return True

    @abstractmethod
    def gap_steps(self, phi: FloatArray, gaps: FloatArray) -> Steps:
        """The steps over these gaps, of any shape."""

    def steps(self, phi: FloatArray) -> Steps:
        return self.gap_steps(phi, np.diff(self.places))


class OwnSteps(Chain):
    """A chain in which each step has its own correlation: R as functions of all of them."""

    shared: ClassVar[bool] = False

    def derivatives(self, phi: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        at = self.state(phi)
        found = self._of_products(at.steps, at.B, order)
        if points is None:
            return found
        columns = points.astype(np.intp)
        i, j = columns[..., :, None], columns[..., None, :]
        return Jet(found.value[i, j], found.first[:, i, j], found.second[:, :, i, j])

    def _of_products(self, steps: Steps, B: FloatArray, order: int) -> Jet:
        value = B + np.tril(B, -1).T
        if order == 0:
            return Jet.value_only(value)
        half = steps.ds[:, None, None] * B.T[1:, :, None] * B[:-1, None]
        second = self._twice(steps, B) if order > 1 else np.zeros((1, 1, *value.shape))
        return Jet.of(value, half + half.swapaxes(1, 2), second, order)

    @staticmethod
    def _twice(steps: Steps, B: FloatArray) -> FloatArray:
        """d2R, (k - 1, k - 1, k, k)."""
        between = steps.ds[:, None] * np.tril(B[:-1, 1:], -1) * steps.ds
        half = between[:, :, None, None] * B.T[1:, None, :, None] * B[:-1][None, :, None]
        half = half + half.swapaxes(0, 1)
        own = np.arange(steps.s.size)
        half[own, own] += steps.d2s[:, None, None] * B.T[1:, :, None] * B[:-1, None]
        return half + half.swapaxes(2, 3)

    def pull(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        at = self.state(phi)
        return np.asarray(at.steps.ds * np.diagonal(at.B.T @ (W + W.T) @ at.B.T, -1))

    def pull_rows(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        at = self.state(phi)
        lower = at.B[:, 1:] * (W @ at.B.T)[:, :-1]  # B_ap (W B')_a,p-1
        upper = at.B.T[:, :-1] * (W @ at.B)[:, 1:]  # B_p-1,a (W B)_ap
        return np.asarray((lower + upper) * at.steps.ds).T

    def pull_second(self, phi: FloatArray, W: FloatArray) -> FloatArray:
        at = self.state(phi)
        steps, X = at.steps, at.B.T @ (W + W.T) @ at.B.T
        below = np.tril(steps.ds[:, None] * at.B[:-1, 1:] * X[1:, :-1] * steps.ds, -1)
        return below + below.T + np.diag(steps.d2s * np.diagonal(X, -1))


def _solve(below: FloatArray, above: FloatArray, right: FloatArray) -> FloatArray:
    """Solution of a tridiagonal system with ones on the diagonal."""
    if not below.size:
        return right
    solution: FloatArray = lapack.dgtsv(below, np.ones(below.size + 1), above, right)[3]
    return solution


def increasing(places: FloatArray, what: str) -> FloatArray:
    """The gaps between increasing positions of one dimension, shape (k - 1,).

    Raises
    ------
    DesignError
        They are missing, repeated or out of order, or there are several dimensions.
    """
    if places.ndim != 1:
        raise DesignError(f"{what} takes one time, not {places.shape[1]} coordinates; use exp(), gau() or mat().")
    if not np.isfinite(places).all():
        raise DesignError(f"{int((~np.isfinite(places)).sum())} of the times of {what} are missing or infinite.")
    gaps: FloatArray = np.diff(places)
    if not (gaps > 0.0).all():
        first = int(np.flatnonzero(gaps <= 0.0)[0])
        raise DesignError(
            f"the times of {what} must be different and in increasing order; {places[first + 1]:g} follows "
            f"{places[first]:g}."
        )
    return gaps


def neighbour_turns(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Correlation s of each row of M with the one before, and sqrt(1 - s^2) from what is left; NaN at a zero row."""
    before, after = M[:-1], M[1:]
    s = np.einsum("ab,ab->a", before, after)
    rest = after - s[:, None] * before
    c = np.sqrt(np.einsum("ab,ab->a", rest, rest))
    known = np.einsum("ab,ab->a", M, M) > 0.5
    unknown = ~(known[:-1] & known[1:])
    return np.where(unknown, np.nan, s), np.where(unknown, np.nan, c)
