"""Means of a response over the random effects of several linear predictors, which may be correlated, with derivatives.

With x normal of mean eta and covariance C, the derivatives of E f(x) in eta are those of f averaged, and by the heat
equation dE f / dC_ii = E f_ii / 2 and dE f / dC_ij = E f_ij. The averages are sums over a lattice along the principal
axes of C (the trapezoidal rule, whose error falls exponentially; see `lme4py.inference.prediction.averages`), so that
a singular C is one with fewer axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from lme4py.chunks import chunk
from lme4py.errors import OptionError
from lme4py.families.averages import normal_nodes
from lme4py.families.densities.base import Density
from lme4py.families.densities.calculus.jets import Degrees
from lme4py.linalg.types import FloatArray

__all__ = ["Averaged", "Index", "averaged", "lattice"]

Index: TypeAlias = tuple[int, ...]
Averaged: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]

# -log of the relative error of one axis, and of each of several; the reach in standard deviations that goes with it.
_DIGITS: Final = {1: (37.0, 8.5), 2: (28.0, 7.5), 3: (16.0, 6.0)}
# Means of counts given that they are not zero have poles at log(2 pi) +- i pi/2; others are analytic further out.
_STRIP: Final = 0.5 * np.pi
_STEP: Final = 0.7
_MOST_NODES: Final = 100_000
# Numbers in one part of a jet that are held at a time.
_CHUNK = chunk(200_000)
# Fourth derivatives are differences of fourth order of third ones: a step with errors of 1e-12 by either side.
_DIFFERENCE: Final = 1e-3
_WEIGHTS: Final = {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}


def averaged(
    density: Density, names: Sequence[str], values: Mapping[Index, FloatArray], order: int, fourth: bool = False
) -> Averaged:
    """Means of the response of every row, with derivatives in all arguments.

    Parameters
    ----------
    density : Density
        Of the response; what it has beside `names` does not matter for its mean.
    names : sequence of str
        What it calls the arguments that are numbered in `values`.
    values : mapping of tuple of int to ndarray, each (n,)
        (i,) : argument i, or its mean; (i, i) : its variance; (i, j) : a covariance, i < j.
    order : {0, 1, 2}
        Of the highest derivatives.
    fourth : bool
        False leaves second derivatives zero that are fourth ones of the response: those in two (co)variances.

    Returns
    -------
    value : ndarray, shape (n,)
    first : ndarray, shape (k, n)
        In the order of `values`; k = 0 where it is not asked for.
    second : ndarray, shape (k, k, n)

    Raises
    ------
    OptionError
        More nodes are needed than can be summed.

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py.families.densities.registry import make_density
    >>> density = make_density("truncated_poisson", "log")
    >>> value, first, _ = averaged(density, ["conditional"], {(0,): np.zeros(1), (0, 0): np.ones(1)}, 1)
    >>> value.round(4), first[:, 0].round(4)
    (array([2.1828]), array([1.3812, 0.8023]))
    """
    n = next(iter(values.values())).size
    random, roots, nodes, weights = lattice(values, n)
    step = max(1, _CHUNK // weights.size)
    pieces = []
    for start in range(0, n, step):
        rows = slice(start, start + step)
        own = {key: value[rows] for key, value in values.items()}
        shifts = dict(zip(random, np.einsum("Nr,nir->iNn", nodes, roots[rows]), strict=True))
        pieces.append(_Rows(density, names, own, shifts, weights, order).derivatives(fourth))
    value, first, second = (np.concatenate([piece[i] for piece in pieces], axis=-1) for i in range(3))
    return value, first, second


def lattice(values: Mapping[Index, FloatArray], n: int) -> tuple[list[int], FloatArray, FloatArray, FloatArray]:
    """Nodes of normal arguments along the principal axes of their covariance: x = eta + root z.

    Parameters
    ----------
    values : mapping of tuple of int to ndarray, each (n,)
        (i, i) : the variance of an argument; (i, j) : a covariance, i < j.
    n : int

    Returns
    -------
    random : list of int
        The R arguments that vary.
    roots : ndarray, shape (n, R, R)
    nodes : ndarray, shape (N, R)
    weights : ndarray, shape (N,)
    """
    random = [key[0] for key, value in values.items() if len(key) == 2 and key[0] == key[1] and bool((value > 0).any())]
    size = len(random)
    C = np.zeros((n, size, size))
    for a, i in enumerate(random):
        for b, j in enumerate(random):
            known = values.get((min(i, j), max(i, j)))
            if known is not None:
                C[:, a, b] = known
    if (C - C * np.eye(size)).any():
        lengths, axes = np.linalg.eigh(C)
        roots = axes * np.sqrt(np.maximum(lengths, 0.0))[:, None, :]
    else:
        roots = np.sqrt(np.maximum(C, 0.0))
    return random, roots, *_nodes(np.sqrt((roots**2).sum(axis=1)).max(axis=0, initial=0.0))


def _nodes(widest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Nodes (N, R) and weights (N,) of independent standard normal variables that are multiplied by up to `widest`."""
    nodes, weights = np.zeros((1, 0)), np.ones(1)
    if not widest.size:
        return nodes, weights
    digits, reach = _DIGITS[widest.size]
    for sd in widest.tolist():
        z, w = normal_nodes(min(_STEP, 2.0 * np.pi * _STRIP / (digits * max(sd, 1e-8))), reach + sd)
        nodes = np.hstack([np.repeat(nodes, z.size, axis=0), np.tile(z, weights.size)[:, None]])
        weights = np.outer(weights, w).ravel()
        # Corners hold nothing, unless a tail of the mean that grows like exp(eta) moves the mass towards them.
        inside = (nodes**2).sum(axis=1) <= (reach + np.sqrt((widest**2).sum())) ** 2
        nodes, weights = nodes[inside], weights[inside]
        if weights.size > _MOST_NODES:
            raise OptionError(
                f"the mean over joined random effects with standard deviations of {np.round(widest, 2).tolist()} "
                "needs too many nodes; use random='zero', component= for one part, or the mean of simulate()."
            )
    return nodes, weights


class _Rows:
    """Averages of some rows."""

    def __init__(
        self,
        density: Density,
        names: Sequence[str],
        values: Mapping[Index, FloatArray],
        shifts: Mapping[int, FloatArray],
        weights: FloatArray,
        order: int,
    ) -> None:
        self.density, self.keys, self.weights, self.order = density, tuple(values), weights, order
        self.n = next(iter(values.values())).size
        self.x = {key[0]: value[None] + shifts.get(key[0], 0.0) for key, value in values.items() if len(key) == 1}
        # The number of every argument of the density; of those that its mean does not depend on none.
        numbers = {name: i for i, name in enumerate(names) if i in self.x}
        self.places = [numbers.get(name) for name in density.names]
        deeper = min(order + 1, 3) if order and any(len(key) == 2 for key in values) else order
        active = tuple(place for place, number in enumerate(self.places) if number is not None)
        self.degrees = Degrees(deeper, active)
        self.known: dict[tuple[int, int], dict[Index, FloatArray]] = {}

    def derivatives(self, fourth: bool) -> Averaged:
        """The means with derivatives in all arguments."""
        n, k = self.n, len(self.keys)
        value = self.average(())
        if self.order == 0:
            return value, np.zeros((0, n)), np.zeros((0, 0, n))
        factors = [0.5 if len(key) == 2 and key[0] == key[1] else 1.0 for key in self.keys]
        first = np.array([factor * self.average(key) for factor, key in zip(factors, self.keys, strict=True)])
        if self.order == 1:
            return value, first, np.zeros((0, 0, n))
        second = np.zeros((k, k, n))
        for a, one in enumerate(self.keys):
            for b, two in enumerate(self.keys[: a + 1]):
                if len(one + two) < 4 or fourth:
                    second[a, b] = second[b, a] = factors[a] * factors[b] * self.average(one + two)
        return value, first, second

    def average(self, of: Index) -> FloatArray:
        """Mean of a partial derivative in arguments by their numbers, (n,)."""
        if len(of) < 4:
            return self._means(0, 0)[tuple(sorted(of))]
        *three, last = of
        moved = (weight * self._means(last, steps)[tuple(sorted(three))] for steps, weight in _WEIGHTS.items())
        return np.asarray(sum(moved)) / (12.0 * _DIFFERENCE)

    def _means(self, number: int, steps: int) -> dict[Index, FloatArray]:
        """Means of all partial derivatives, where one argument is moved by so many steps."""
        if (number, steps) not in self.known:
            x = {**self.x, number: self.x[number] + steps * _DIFFERENCE}
            nothing = np.zeros((1, 1))
            jet = self.density.mean_jet([nothing if i is None else x[i] for i in self.places], self.degrees)
            means = {}
            for index in self.degrees.indices():
                numbers = tuple(sorted(i for place in index if (i := self.places[place]) is not None))
                part = np.broadcast_to(jet.parts.get(index, 0.0), (self.weights.size, self.n))
                means[numbers] = self.weights @ part
            self.known[number, steps] = means
        return self.known[number, steps]
