"""Rows of a model on the workers of a cluster; whole groups in each part are evaluated where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.data.sources.base import RowBlock
from lme4py.data.sources.held import HeldTables, TablesOfBlocks
from lme4py.design.streaming.stream import Replay, StreamPlan
from lme4py.design.streaming.survey import Tally
from lme4py.engine.generalised.problem import ModeError
from lme4py.engine.generalised.streamed.partitions import PartSums, evaluate_part
from lme4py.engine.linear.problem import group_terms
from lme4py.errors import DataError
from lme4py.fits.generalised.steps import user_conditional, user_modes
from lme4py.fits.linear.streamed import Passes
from lme4py.fits.rows.loose import LooseRows
from lme4py.fits.rows.parts import EngineRows
from lme4py.fits.rows.spill import Nesting, RowTable
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ClusterParts", "HeldRows", "LevelsOfPart", "crossed_words", "held_rows", "levels_of_part"]


@dataclass(frozen=True)
class LevelsOfPart:
    """What a part knows of its levels at the end of a fit, by term.

    Attributes
    ----------
    levels : tuple of ndarray of int, each (J,)
    counts : tuple of ndarray of int, each (J,)
        Rows.
    modes : tuple of ndarray, each (J, k)
    spreads : tuple of ndarray, each (J, k, k)
        Conditional covariances.
    """

    levels: tuple[IntArray, ...]
    counts: tuple[IntArray, ...]
    modes: tuple[FloatArray, ...]
    spreads: tuple[FloatArray, ...]


class HeldRows:
    """Parts on a cluster, as `lme4py.fits.rows.parts.Stored`.

    Parameters
    ----------
    held : HeldTables
    layout : RowTable
    sizes : mapping of int to int
        Rows of the parts that have some.
    """

    def __init__(self, held: HeldTables, layout: RowTable, sizes: dict[int, int]) -> None:
        self.held, self.layout, self.sizes = held, layout, sizes
        self.n_parts = held.n_parts

    def has(self, number: int) -> bool:
        """Whether a part has rows."""
        return number in self.sizes

    def read(self, number: int) -> Any:
        """The rows of a part, brought here."""
        return self.layout.rows(self.held.table(number))

    def release(self) -> None:
        """Give back what is held."""
        self.held.release()


def held_rows(passes: Passes, plan: StreamPlan, row: float, limit: float) -> HeldRows | LooseRows | None:
    """The second pass: rows on the workers, those of whole groups together where factors are not crossed.

    Parameters
    ----------
    passes : Passes
    plan : StreamPlan
    row : float
        Bytes of a row.
    limit : float
        Bytes of a part.

    Returns
    -------
    HeldRows, LooseRows or None
        None where the source has no workers that hold tables.
    """
    witness, source = plan.witness, passes.source
    if not source.travels:
        return None
    layout = _layout(plan)
    factors = group_terms(witness)
    outer = min(range(len(factors)), key=lambda f: factors[f].n_levels)
    firsts = [factor.terms[0] for factor in factors]
    known = Nesting(outer, [factor.n_levels for factor in factors], [factor.name for factor in factors])
    known.add([witness.terms[t].codes for t in firsts])
    n_parts = int(max(1, np.ceil(passes.tally.n_obs * row / limit)))
    pack = _Pack(plan.replay, tuple(witness.recipe.kept), layout)
    # Where the rows that stand for all show that factors are crossed, nothing needs to be shuffled.
    key = None if known.crossed else layout.code(firsts[outer])
    found = source.hold(TablesOfBlocks(pack, _merged, plan.replay.columns, layout.width, key, n_parts))
    if found is None:
        return None
    held, tally = found
    try:
        passes.count += 1
        passes.tally.refuse_other(tally)
        hindrance, sizes = crossed_words(factors[outer].name, known.crossed), {}
        if not hindrance:
            seen = held.map(_Seen(layout, outer, tuple(firsts), tuple((f.name, f.n_levels) for f in factors)))
            sizes = {number: one.n_rows for number, one in seen.items()}
            hindrance = _hindrance(list(seen.values()), factors[outer].name, row * max(sizes.values()) > 2.0 * limit)
    except BaseException:
        held.release()
        raise
    if not hindrance:
        return HeldRows(held, layout, sizes)
    most = max(range(len(factors)), key=lambda f: factors[f].n_levels)
    return LooseRows(held, layout, tally.n_obs, n_parts, firsts[most], factors[most].n_levels, hindrance)


def crossed_words(outer: str, crossed: str) -> str:
    """Why groups are not evaluated one by one; "" where no factor is crossed."""
    return f"the grouping factors {outer} and {crossed} are crossed" if crossed else ""


def _hindrance(parts: list[_SeenPart], outer: str, large: bool) -> str:
    """The same of whole groups in parts."""
    crossed = next((one.crossed for one in parts if one.crossed), "") or _in_two(parts)
    if crossed:
        return crossed_words(outer, crossed)
    return f"a group of {outer} alone takes more than the memory that is allowed" if large else ""


def _in_two(parts: list[_SeenPart]) -> str:
    """A factor with a level that has rows in two parts; "" where there is none."""
    for name in parts[0].levels:
        every = np.concatenate([one.levels[name] for one in parts])
        if np.unique(every).size < every.size:
            return name
    return ""


def _layout(plan: StreamPlan) -> RowTable:
    witness, form = plan.witness, plan.replay.form
    y = 1 if form is None or not form.suffixes else len(form.suffixes)
    beside = (witness.recipe.weights is not None, bool(witness.recipe.offsets))
    return RowTable((len(witness.x_names), y, *map(int, beside), *(term.n_columns for term in witness.terms)))


def _merged(first: Tally, second: Tally) -> Tally:
    first.merge(second)
    return first


@dataclass(frozen=True)
class _Pack:
    """The table of a block, where the block is."""

    replay: Replay
    kept: tuple[int, ...]
    layout: RowTable

    def __call__(self, block: RowBlock) -> tuple[FloatArray, Tally]:
        tally = Tally()
        rows = self.replay.rows(block, tally)
        if rows is None:
            return np.zeros((0, self.layout.width)), tally
        table = self.layout.of_rows(replace(rows, X=rows.X[:, list(self.kept)]))
        if table.shape[1] != self.layout.width:
            raise DataError("the rows of a block have other columns than those that the first pass saw.")
        return table, tally


@dataclass(frozen=True)
class _SeenPart:
    n_rows: int
    crossed: str
    levels: dict[str, IntArray]


@dataclass(frozen=True)
class _Seen:
    """Rows of a part, a factor that is not nested in it, and the levels of each."""

    layout: RowTable
    outer: int
    firsts: tuple[int, ...]
    factors: tuple[tuple[str, int], ...]

    def __call__(self, table: FloatArray, kept: Any) -> tuple[_SeenPart, None]:
        codes = [table[:, self.layout.code(t)].astype(np.intp) for t in self.firsts]
        names = [name for name, _ in self.factors]
        nesting = Nesting(self.outer, [size for _, size in self.factors], names)
        nesting.add(codes)
        levels = {name: np.unique(own) for name, own in zip(names, codes, strict=True)}
        return _SeenPart(len(table), nesting.crossed, levels), None


class ClusterParts:
    """Evaluates the parts of a cluster but the pilot's, as `lme4py.engine.generalised.streamed.partitions.Elsewhere`.

    Parameters
    ----------
    rows : HeldRows
    make : EngineRows
    pilot : int
        The part that is here.

    Attributes
    ----------
    traffic : int
        Bytes of sums that came here.
    """

    def __init__(self, rows: HeldRows, make: EngineRows, pilot: int) -> None:
        self.rows, self.make, self.pilot = rows, make.light(), pilot
        self.traffic = 0

    def evaluate(self, phi: FloatArray, nAGQ: int, beside: bool) -> Iterable[PartSums | None]:
        """Sums of each part; modes stay where it is."""
        found = self.rows.held.map(_Evaluate(self.rows.layout, self.make, phi, nAGQ, beside), [self.pilot])
        sums = [one.sums for one in found.values()]
        self.traffic += sum(8 * (1 + one.gradient.size + one.information.size) for one in sums if one is not None)
        return sums

    def levels(self, phi: FloatArray) -> Iterable[LevelsOfPart]:
        """Modes and their covariances at some parameters."""
        found = self.rows.held.map(_Levels(self.rows.layout, self.make, phi), [self.pilot])
        return found.values()


@dataclass(frozen=True)
class _Sums:
    sums: PartSums | None


@dataclass(frozen=True)
class _Evaluate:
    """The criterion of a part, from the modes of the last time."""

    layout: RowTable
    make: EngineRows
    phi: FloatArray
    nAGQ: int
    beside: bool

    def __call__(self, table: FloatArray, kept: FloatArray | None) -> tuple[_Sums, FloatArray | None]:
        found = evaluate_part(self.make.problem(self.layout.rows(table)), self.nAGQ, self.phi, kept, self.beside)
        return (_Sums(None), kept) if found is None else (_Sums(found[0]), found[1].mode.u)


@dataclass(frozen=True)
class _Levels:
    """Modes of a part."""

    layout: RowTable
    make: EngineRows
    phi: FloatArray

    def __call__(self, table: FloatArray, kept: FloatArray | None) -> tuple[LevelsOfPart, FloatArray | None]:
        rows = self.layout.rows(table)
        found = evaluate_part(self.make.problem(rows), 1, self.phi, kept, beside=True)
        if found is None:
            raise ModeError("a part of the rows has no conditional mode at the estimates")
        return levels_of_part(rows.codes, found[1]), kept


def levels_of_part(codes: tuple[IntArray, ...], found: Any) -> LevelsOfPart:
    """What is known of the levels of some rows.

    Parameters
    ----------
    codes : tuple of ndarray of int, each (n,)
        By term.
    found : Laplace
        Of these rows.
    """
    problem = found.finder.problem
    used = [np.unique(own, return_counts=True) for own in codes]
    modes, spreads = user_modes(problem, found.mode.theta, found.mode.b), user_conditional(problem, found)
    return LevelsOfPart(tuple(one for one, _ in used), tuple(n for _, n in used), modes, spreads)
