"""Truncated Taylor arithmetic: functions of several variables with their partial derivatives to third order.

A `DensityJet` holds the value of a function at many points and its partial derivatives; arithmetic and the functions
below carry them through by Leibniz' and Faa di Bruno's rules (Griewank & Walther 2008, *Evaluating Derivatives*,
chapter 13). The log-density of a new family can be written once, and its derivatives are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, product
from typing import ClassVar, Final

import numpy as np
from scipy import special

from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = [
    "Degrees",
    "DensityJet",
    "Index",
    "Part",
    "compose",
    "compose2",
    "constant",
    "degrees_of",
    "exp",
    "expm1",
    "gammaln",
    "log",
    "log1mexp",
    "log1p",
    "log_ndtr",
    "log_sigmoid",
    "logaddexp",
    "logsumexp",
    "power",
    "reciprocal",
    "select",
    "sinh",
    "softplus",
    "sqrt",
    "variable",
    "variables",
]

# Which variables a partial derivative is taken in, in increasing order: () is the value, (0, 0, 1) is d3/dx0 dx0 dx1.
Index = tuple[int, ...]
Part = FloatArray | float
# Left of this point log Phi has the ratio phi / Phi from Laplace's continued fraction.
_NORMAL_TAIL: Final = -5.0


@dataclass(frozen=True)
class Degrees:
    """Which partial derivatives are wanted.

    Attributes
    ----------
    total : {0, 1, 2, 3}
        Derivatives of a higher degree are not formed.
    active : tuple of int
        The variables; what is taken in any other is not wanted.
    nuisance : tuple of int
        Variables of which at most `nuisance_total` may come together in one derivative.
    nuisance_total : int
    nuisance_third : int
        And so many in a derivative of third degree.
    """

    total: int = 3
    active: tuple[int, ...] = (0,)
    nuisance: tuple[int, ...] = ()
    nuisance_total: int = 3
    nuisance_third: int = 3

    def keeps(self, index: Index) -> bool:
        """Whether a derivative is wanted."""
        return index in self._wanted

    def indices(self) -> tuple[Index, ...]:
        """All derivatives wanted, the value first."""
        return tuple(self._wanted)

    @computed_once
    def _wanted(self) -> dict[Index, None]:
        """The derivatives wanted, in their order."""
        sizes = range(self.total + 1)
        every = (index for size in sizes for index in combinations_with_replacement(sorted(set(self.active)), size))
        return dict.fromkeys(index for index in every if self._allows(index))

    def _allows(self, index: Index) -> bool:
        most = self.nuisance_total if len(index) < 3 else min(self.nuisance_total, self.nuisance_third)
        return sum(i in self.nuisance for i in index) <= most


@lru_cache(maxsize=1024)
def degrees_of(
    total: int,
    active: tuple[int, ...],
    nuisance: tuple[int, ...] = (),
    nuisance_total: int = 3,
    nuisance_third: int = 3,
) -> Degrees:
    """The same object for the same `Degrees`: what it knows of itself is found once."""
    return Degrees(total, active, nuisance, nuisance_total, nuisance_third)


@dataclass(frozen=True, slots=True)
class DensityJet:
    """A function at many points with its partial derivatives.

    Attributes
    ----------
    parts : dict of tuple of int to ndarray or float
        ``parts[()]`` is the value, ``parts[i, j]`` the derivative in variables i <= j; what is missing is zero.
    degrees : Degrees
    """

    parts: dict[Index, Part]
    degrees: Degrees
    # Arithmetic with an array on the left is ours too, not numpy's element by element.
    __array_ufunc__: ClassVar[None] = None

    @classmethod
    def of(cls, degrees: Degrees, parts: Mapping[Index, Callable[[], Part]]) -> DensityJet:
        """A jet from functions that give its parts; only those of `degrees` are called."""
        wanted = degrees._wanted
        return cls({index: make() for index, make in parts.items() if index in wanted}, degrees)

    @classmethod
    def kept(cls, degrees: Degrees, parts: Mapping[Index, Part]) -> DensityJet:
        """A jet from its parts, without those that are not of `degrees`."""
        wanted = degrees._wanted
        return cls({index: part for index, part in parts.items() if not index or index in wanted}, degrees)

    @property
    def value(self) -> FloatArray:
        """The function."""
        return np.asarray(self.parts[()])

    def d(self, *wrt: int) -> FloatArray:
        """A partial derivative, of the shape of `value`; zeros where it vanishes everywhere."""
        part = self.parts.get(tuple(sorted(wrt)), 0.0)
        return np.broadcast_to(np.asarray(part, dtype=np.float64), self.value.shape)

    def __neg__(self) -> DensityJet:
        return DensityJet({index: -part for index, part in self.parts.items()}, self.degrees)

    def __add__(self, other: DensityJet | Part) -> DensityJet:
        if not isinstance(other, DensityJet):
            return DensityJet({**self.parts, (): self.parts[()] + other}, self.degrees)
        parts = dict(self.parts)
        for index, part in other.parts.items():
            parts[index] = parts[index] + part if index in parts else part
        return DensityJet(parts, self.degrees)

    __radd__ = __add__

    def __sub__(self, other: DensityJet | Part) -> DensityJet:
        if not isinstance(other, DensityJet):
            return DensityJet({**self.parts, (): self.parts[()] - other}, self.degrees)
        parts = dict(self.parts)
        for index, part in other.parts.items():
            parts[index] = parts[index] - part if index in parts else -part
        return DensityJet(parts, self.degrees)

    def __rsub__(self, other: Part) -> DensityJet:
        return (-self) + other

    def __mul__(self, other: DensityJet | Part) -> DensityJet:
        if not isinstance(other, DensityJet):
            return DensityJet({index: _times(part, other) for index, part in self.parts.items()}, self.degrees)
        total = _Sum()
        for left, right, index, count in _products(tuple(self.parts), tuple(other.parts), self.degrees):
            term = _times(self.parts[left], other.parts[right])
            total.add(index, term if count == 1 else count * term)
        return DensityJet(total.parts, self.degrees)

    __rmul__ = __mul__

    def __truediv__(self, other: DensityJet | Part) -> DensityJet:
        return self * (reciprocal(other) if isinstance(other, DensityJet) else 1.0 / other)

    def __rtruediv__(self, other: Part) -> DensityJet:
        return reciprocal(self) * other

    def __pow__(self, exponent: int) -> DensityJet:
        """A whole power, 0 and above."""
        result = constant(np.ones(()), self.degrees)
        for _ in range(exponent):
            result = result * self
        return result

    def shifted(self, names: Mapping[int, int], degrees: Degrees) -> DensityJet:
        """The same function with its variables renumbered."""
        renamed = _renamed(tuple(self.parts), tuple(names.items()))
        return DensityJet(dict(zip(renamed, self.parts.values(), strict=True)), degrees)


@lru_cache(maxsize=256)
def _renamed(indices: tuple[Index, ...], names: tuple[tuple[int, int], ...]) -> tuple[Index, ...]:
    """Derivatives in variables with other numbers."""
    new = dict(names)
    return tuple(tuple(sorted(new[i] for i in index)) for index in indices)


class _Sum:
    """Sums of terms by index, in place from the second term on."""

    def __init__(self) -> None:
        self.parts: dict[Index, Part] = {}
        self._own: set[Index] = set()

    def add(self, index: Index, term: Part) -> None:
        if index not in self.parts:
            self.parts[index] = term
            return
        old = self.parts[index]
        if index in self._own and isinstance(old, np.ndarray) and np.shape(term) in ((), old.shape):
            old += term
            return
        self.parts[index] = old + term
        self._own.add(index)


def _times(a: Part, b: Part) -> Part:
    """a * b, without a pass over the array where one of them is the number 1."""
    if isinstance(a, float) and a == 1.0:
        return b
    if isinstance(b, float) and b == 1.0:
        return a
    return a * b


Product = tuple[Index, Index, Index, int]


@lru_cache(maxsize=4096)
def _products(left: tuple[Index, ...], right: tuple[Index, ...], degrees: Degrees) -> tuple[Product, ...]:
    """Pairs of derivatives whose product stands in a derivative of the product, and how often (Leibniz)."""
    pairs = ((a, b, tuple(sorted(a + b))) for a in left for b in right)
    return tuple((a, b, index, _ways(index, a)) for a, b, index in pairs if degrees.keeps(index))


def _ways(index: Index, part: Index) -> int:
    """In how many ways the places of `index` can be given to `part`."""
    ways = 1
    for wrt in set(index):
        total, own = index.count(wrt), part.count(wrt)
        ways *= {0: 1, 1: total, 2: total * (total - 1) // 2, 3: 1}[own]
    return ways


def variables(values: Sequence[FloatArray], order: int = 3) -> tuple[DensityJet, ...]:
    """The variables themselves, as jets.

    Parameters
    ----------
    values : sequence of ndarray
        One array per variable; shapes that broadcast.
    order : {0, 1, 2, 3}
    """
    degrees = Degrees(order, tuple(range(len(values))))
    return tuple(variable(value, i, degrees) for i, value in enumerate(values))


def variable(value: FloatArray, number: int, degrees: Degrees) -> DensityJet:
    """One variable as a jet; a constant where it is not among those of `degrees`."""
    return DensityJet({(): value, (number,): 1.0} if degrees.keeps((number,)) else {(): value}, degrees)


def constant(value: Part, degrees: Degrees) -> DensityJet:
    """A function without derivatives."""
    return DensityJet({(): value}, degrees)


def compose(derivatives: Sequence[Part], inner: DensityJet) -> DensityJet:
    """g(f) from g and its derivatives at the value of f (Faa di Bruno).

    Parameters
    ----------
    derivatives : sequence of ndarray
        g, g', g'', g''' as far as the degrees of `inner` need them.
    inner : DensityJet
    """
    return compose2({(0,) * k: part for k, part in enumerate(derivatives)}, inner, DensityJet({}, inner.degrees))


@lru_cache(maxsize=256)
def _partitions(index: Index) -> tuple[tuple[Index, ...], ...]:
    """Ways to split the places of a derivative of at most third order into blocks."""
    if len(index) == 1:
        return ((index,),)
    if len(index) == 2:
        return ((index,), ((index[0],), (index[1],)))
    i, j, k = index
    return ((index,), ((i, j), (k,)), ((i, k), (j,)), ((j, k), (i,)), ((i,), (j,), (k,)))


def compose2(outer: Mapping[Index, Part], first: DensityJet, second: DensityJet) -> DensityJet:
    """g(f, h) from the partial derivatives of g at the values of f and h.

    Parameters
    ----------
    outer : mapping of tuple of int to ndarray
        Derivatives of g in its variables 0 and 1; what is missing is zero.
    first, second : DensityJet
        f and h.
    """
    inner = (first.parts, second.parts)
    ones = tuple((i, b) for i in (0, 1) for b, part in inner[i].items() if isinstance(part, float) and part == 1.0)
    products, terms = _double(tuple(outer), tuple(inner[0]), tuple(inner[1]), ones, first.degrees)
    made: list[Part] = []
    for before, i, block in products:
        made.append(inner[i][block] if before is None else made[before] * inner[i][block])
    parts: dict[Index, Part] = {(): outer[()]}
    for index, wrt, place, count in terms:
        term = outer[wrt] if place is None else outer[wrt] * made[place]
        if count > 1:
            term = count * term
        parts[index] = parts[index] + term if index in parts else term
    return DensityJet(parts, first.degrees)


Blocks = tuple[tuple[int, Index], ...]
# A product of derivatives of f and h: where the one before it stands, and the factor more that it has.
Factors = tuple[int | None, int, Index]
# A derivative of g(f, h), that of g, where the product that it is multiplied by stands, and how often it is there.
Term = tuple[Index, Index, int | None, int]


@lru_cache(maxsize=1024)
def _double(
    outer: tuple[Index, ...], first: tuple[Index, ...], second: tuple[Index, ...], ones: Blocks, degrees: Degrees
) -> tuple[tuple[Factors, ...], tuple[Term, ...]]:
    """Derivatives of g(f, h): every split into blocks with every choice of f or h for each, and how often it is there.

    Factors that are `ones` are left out, and so are derivatives that are none of `outer`.
    """
    have = (set(first), set(second))
    used = tuple(sorted({i for index in first + second for i in index}))
    found: Counter[tuple[Index, Index, Blocks]] = Counter()
    for index in Degrees(degrees.total, used).indices():
        if not index or not degrees.keeps(index):
            continue
        for blocks in _partitions(index):
            for choice in product((0, 1), repeat=len(blocks)):
                chosen = tuple(sorted(zip(choice, blocks, strict=True)))
                if all(block in have[c] for c, block in chosen) and tuple(sorted(choice)) in outer:
                    found[index, tuple(sorted(choice)), tuple(one for one in chosen if one not in ones)] += 1
    # Several terms share one product.
    places: dict[Blocks, int] = {}
    products: list[Factors] = []
    for _, _, factors in found:
        for i, (number, block) in enumerate(factors):
            if factors[: i + 1] not in places:
                places[factors[: i + 1]] = len(products)
                products.append((places.get(factors[:i]), number, block))
    terms = tuple((index, wrt, places.get(factors), count) for (index, wrt, factors), count in found.items())
    return tuple(products), terms


def select(where: BoolArray, yes: DensityJet, no: DensityJet) -> DensityJet:
    """`yes` where the condition holds, `no` elsewhere (numpy's ``where`` for every derivative)."""
    keys = dict.fromkeys((*yes.parts, *no.parts))
    return DensityJet({k: np.where(where, yes.parts.get(k, 0.0), no.parts.get(k, 0.0)) for k in keys}, yes.degrees)


# --- functions


def reciprocal(x: DensityJet) -> DensityJet:
    """1 / x."""
    r = 1.0 / x.value
    s = r * r
    return compose((r, -s, 2.0 * s * r, -6.0 * s * s), x)


def exp(x: DensityJet) -> DensityJet:
    """e^x."""
    e = np.exp(x.value)
    return compose((e, e, e, e), x)


def expm1(x: DensityJet) -> DensityJet:
    """e^x - 1."""
    e = np.exp(x.value)
    return compose((np.expm1(x.value), e, e, e), x)


def log(x: DensityJet) -> DensityJet:
    """Natural logarithm."""
    r = 1.0 / x.value
    return compose((np.log(x.value), r, -r * r, 2.0 * r**3), x)


def log1p(x: DensityJet) -> DensityJet:
    """log(1 + x)."""
    r = 1.0 / (1.0 + x.value)
    return compose((np.log1p(x.value), r, -r * r, 2.0 * r**3), x)


def sqrt(x: DensityJet) -> DensityJet:
    """Square root."""
    s = np.sqrt(x.value)
    r = 1.0 / x.value
    return compose((s, 0.5 * s * r, -0.25 * s * r * r, 0.375 * s * r**3), x)


def power(x: DensityJet, exponent: float) -> DensityJet:
    """x to a constant power; for a variable one exp(p * log(x))."""
    v, p = x.value, exponent
    r = 1.0 / v
    f = v**p
    d1 = p * f * r
    d2 = (p - 1.0) * d1 * r
    return compose((f, d1, d2, (p - 2.0) * d2 * r), x)


def sinh(x: DensityJet) -> DensityJet:
    """Hyperbolic sine."""
    s, c = np.sinh(x.value), np.cosh(x.value)
    return compose((s, c, s, c), x)


def softplus(x: DensityJet) -> DensityJet:
    """log(1 + e^x)."""
    small = np.exp(-np.abs(x.value))
    large = 1.0 / (1.0 + small)
    p = np.where(x.value > 0.0, large, small * large)
    v = small * large * large
    return compose((np.maximum(x.value, 0.0) + np.log1p(small), p, v, v * (1.0 - 2.0 * p)), x)


def log_sigmoid(x: DensityJet) -> DensityJet:
    """log of the logistic distribution function, -log(1 + e^-x)."""
    return -softplus(-x)


def log_ndtr(x: DensityJet) -> DensityJet:
    """log of the normal distribution function; accurate in the left tail."""
    v = x.value
    middle = np.maximum(v, _NORMAL_TAIL)
    h = np.exp(-0.5 * middle * middle) / (np.sqrt(2.0 * np.pi) * special.ndtr(middle))
    delta = h + middle
    epsilon = 1.0 / delta + middle
    tail = v < _NORMAL_TAIL
    # h = phi / Phi = z + 1/(z + 2/(z + 3/(z + ...))) with z = -x.
    z = np.where(tail, -v, 1.0)
    rest = z
    for k in range(40, 2, -1):
        rest = z + k / rest
    epsilon = np.where(tail, 2.0 / rest, epsilon)
    delta = np.where(tail, 1.0 / (z + epsilon), delta)
    h = np.where(tail, z + delta, h)
    curve = h * delta
    return compose((special.log_ndtr(v), h, -curve, curve * (2.0 * delta - epsilon)), x)


def log1mexp(x: DensityJet) -> DensityJet:
    """log(1 - e^-x), x > 0."""
    v = x.value
    r = 1.0 / np.expm1(v)
    k = r * (1.0 + r)
    value = np.where(v < 0.7, np.log(-np.expm1(-v)), np.log1p(-np.exp(-v)))
    return compose((value, r, -k, k * (1.0 + 2.0 * r)), x)


def logaddexp(x: DensityJet, y: DensityJet) -> DensityJet:
    """log(e^x + e^y)."""
    return x + softplus(y - x)


def logsumexp(terms: Sequence[DensityJet]) -> DensityJet:
    """log of the sum of the exponentials."""
    total = terms[0]
    for term in terms[1:]:
        total = logaddexp(total, term)
    return total


def gammaln(x: DensityJet) -> DensityJet:
    """log Gamma(x), x > 0."""
    v = x.value
    return compose((special.gammaln(v), special.digamma(v), special.polygamma(1, v), special.polygamma(2, v)), x)
