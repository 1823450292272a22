"""Generalised models of streamed rows whose grouping factors are crossed: a pass over the rows for each step of PIRLS.

What stays in memory are the levels, and the pairs of levels that occur together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol, TypeAlias

import numpy as np

from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.forecast import size_words
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.streamed.passes import PassedCriterion
from lme4py.engine.generalised.streamed.sums import PassingParts, PassingWay
from lme4py.engine.generalised.streamed.table import PassingRows, SummedElements
from lme4py.errors import OptionError
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.rows.parts import EngineRows, Parts
from lme4py.fits.rows.spill import Spill
from lme4py.linalg.types import IntArray

__all__ = ["FiledRows", "PairKeys", "PassedRows", "SeenLevels", "passed_criterion"]

# Bytes of the arrays of an element of Z'WZ that are alive at one time: its values, their derivatives, products.
_ELEMENT = 100.0
# Arrays of the size of the dense block.
_DENSE = 3
Pairs: TypeAlias = dict[tuple[int, int], IntArray]


@dataclass(frozen=True)
class SeenLevels:
    """What some rows know of the levels.

    Attributes
    ----------
    counts : tuple of ndarray of int, each (J,)
        Rows of each level, by factor.
    pairs : dict of (int, int) to ndarray of int
        Pairs of levels that occur together, ascending, as `PairKeys` has them.
    """

    counts: tuple[IntArray, ...]
    pairs: Pairs


@dataclass(frozen=True)
class PairKeys:
    """Pairs of levels of two factors as whole numbers; it can be sent to where rows are.

    Attributes
    ----------
    factors : tuple of Factor
        With all levels.
    limit : float
        Bytes for levels and pairs of them.
    """

    factors: tuple[Factor, ...]
    limit: float

    @property
    def every(self) -> tuple[tuple[int, int], ...]:
        """Pairs of factors s < t."""
        return tuple(combinations(range(len(self.factors)), 2))

    def of(self, codes: Sequence[IntArray]) -> Pairs:
        """Pairs of the rows: level of s times levels of t plus level of t.

        Parameters
        ----------
        codes : sequence of ndarray of int, each (n,)
            By term.
        """
        own = [codes[factor.terms[0]].astype(np.int64) for factor in self.factors]
        return {(s, t): own[s] * self.factors[t].n_levels + own[t] for s, t in self.every}

    def places(self, codes: Sequence[IntArray], pairs: Pairs) -> Pairs:
        """Where the pairs of the rows stand among all.

        Parameters
        ----------
        codes : sequence of ndarray of int, each (n,)
            By term.
        pairs : dict of (int, int) to ndarray of int
            All of them, ascending.
        """
        return {pair: np.searchsorted(pairs[pair], keys) for pair, keys in self.of(codes).items()}

    def seen(self, codes: Sequence[IntArray]) -> SeenLevels:
        """What rows know of the levels.

        Parameters
        ----------
        codes : sequence of ndarray of int, each (n,)
            By term.
        """
        counts = tuple(np.bincount(codes[f.terms[0]], minlength=f.n_levels) for f in self.factors)
        return SeenLevels(counts, {pair: np.unique(keys) for pair, keys in self.of(codes).items()})

    def merged(self, first: SeenLevels, second: SeenLevels) -> SeenLevels:
        """What both know.

        Raises
        ------
        OptionError
            It does not fit into the memory that is allowed.
        """
        counts = tuple(a + b for a, b in zip(first.counts, second.counts, strict=True))
        found = SeenLevels(counts, {pair: np.union1d(keys, second.pairs[pair]) for pair, keys in first.pairs.items()})
        self.check(found, " in some of the rows alone")
        return found

    def check(self, found: SeenLevels, where: str = "") -> None:
        """Refuse what does not fit into the memory that is allowed."""
        factors = self.factors
        sizes = [found.pairs[s, t].size * factors[s].n_columns * factors[t].n_columns for s, t in self.every]
        need = _ELEMENT * (sum(sizes) + sum(factor.size * factor.n_columns for factor in factors))
        if need > self.limit:
            raise _too_large(
                f"the levels of {_names(factors)} and the pairs of them that occur together take {size_words(need)}"
                f"{where}",
                self.limit,
            )


class PassedRows(Protocol):
    """Rows that go by, of which no part need hold whole groups."""

    def seen(self, keys: PairKeys) -> SeenLevels:
        """What all rows know of the levels."""
        ...

    def way(self, make: EngineRows, keys: PairKeys, pairs: Pairs) -> PassingWay:
        """How the rows go by.

        Parameters
        ----------
        make : EngineRows
        keys : PairKeys
        pairs : dict of (int, int) to ndarray of int
            Of all rows.
        """
        ...


class FiledRows:
    """Rows in files of this machine.

    Parameters
    ----------
    parts : Parts
    spill : Spill
        Where these are.
    """

    def __init__(self, parts: Parts, spill: Spill) -> None:
        self.parts, self.spill = parts, spill

    def seen(self, keys: PairKeys) -> SeenLevels:
        """File by file."""
        first, *others = self.parts.numbers
        found = keys.seen(self.spill.read(first).codes)
        for number in others:
            found = keys.merged(found, keys.seen(self.spill.read(number).codes))
        return found

    def way(self, make: EngineRows, keys: PairKeys, pairs: Pairs) -> PassingParts:
        """Where each row has its pairs is written beside the rows; one part alone stays in memory."""
        spill, numbers = self.spill, self.parts.numbers
        for number in numbers:
            for (s, t), own in keys.places(spill.read(number).codes, pairs).items():
                spill.keep(number, f"{s}.{t}", own)

        def load(number: int) -> PassingRows:
            return make.rows(spill.read(number), {(s, t): spill.kept(number, f"{s}.{t}") for s, t in pairs})

        if len(numbers) > 1:
            sizes = [spill.n_bytes(number, len(pairs)) for number in numbers]
            return PassingParts([lambda n=n: load(n) for n in numbers], sizes)  # type: ignore[misc]
        rows = load(numbers[0])
        return PassingParts([lambda: rows], [0])


def passed_criterion(
    rows: PassedRows, parts: Parts, pilot: GeneralisedFit, n: int, limit: float
) -> tuple[PassedCriterion, SeenLevels]:
    """The criterion of all rows by passes over them, and their levels.

    Parameters
    ----------
    rows : PassedRows
    parts : Parts
        With a pilot.
    pilot : GeneralisedFit
    n : int
        Number of rows.
    limit : float
        Bytes for what does not go by.

    Raises
    ------
    OptionError
        The pairs of levels, or the dense block of the smaller factors, need more memory than that.
    """
    like, witness = pilot.problem, parts.witness
    if like.stack.size > 1:
        raise OptionError(
            f"the {parts.family.name} family has random effects in several linear predictors, which are not streamed "
            "where factors are crossed; read the rows into memory with control={'rows': 'memory'}."
        )
    factors = tuple(replace(factor, n_levels=witness.terms[factor.terms[0]].n_levels) for factor in like.factors)
    keys = PairKeys(factors, limit)
    found = rows.seen(keys)
    keys.check(found)
    table: Any = SummedElements(factors, found.pairs, n)
    dense = 8.0 * _DENSE * table.structure.dense_size**2 if table.structure.sparse is None else 0.0
    if dense > limit:
        raise _too_large(f"the dense block of {_names(factors)} takes {size_words(dense)}", limit)
    p = like.n_fixed
    whole = replace(like, factors=factors, X=np.zeros((0, p)), offset=np.zeros(0), products=table)
    way = rows.way(parts.engine_rows, keys, found.pairs)
    return PassedCriterion(ModeFinder(like), whole, table, way), found


def _names(factors: tuple[Factor, ...]) -> str:
    return ", ".join(f"{factor.name} ({factor.n_levels:,} levels)" for factor in factors)


def _too_large(what: str, limit: float) -> OptionError:
    return OptionError(
        f"{what}, and the memory that rows may take while they are streamed allows {size_words(limit)} for it; allow "
        "more with control={'memory_limit': ...}, or leave one of the terms out."
    )
