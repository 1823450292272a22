"""Rows of a model on the workers of a cluster: whole groups in each part, evaluated where they are."""

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
from lme4py.fits.rows.parts import EngineRows
from lme4py.fits.rows.spill import Nesting, RowTable
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ClusterParts", "HeldRows", "LevelsOfPart", "held_rows", "levels_of_part"]


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


def held_rows(passes: Passes, plan: StreamPlan, row: float, limit: float) -> HeldRows | None:
    """The second pass: rows of whole groups together on the workers.

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
    HeldRows, or None
        None where the source has no workers, groups do not fit, or factors are crossed.
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
    if known.crossed:
        # The rows that stand for all show it: nothing needs to be shuffled.
        return None
    n_parts = int(max(1, np.ceil(passes.tally.n_obs * row / limit)))
    pack = _Pack(plan.replay, tuple(witness.recipe.kept), layout)
    key = layout.code(firsts[outer])
    found = source.hold(TablesOfBlocks(pack, _merged, plan.replay.columns, layout.width, key, n_parts))
    if found is None:
        return None
    held, tally = found
    try:
        passes.count += 1
        passes.tally.refuse_other(tally)
        seen = held.map(_Seen(layout, outer, tuple(firsts), tuple(factor.n_levels for factor in factors)))
    except BaseException:
        held.release()
        raise
    sizes = {number: one.n_rows for number, one in seen.items()}
    nested = all(one.nested for one in seen.values()) and _apart([one.levels for one in seen.values()])
    if not nested or row * max(sizes.values()) > 2.0 * limit:
        held.release()
        return None
    return HeldRows(held, layout, sizes)


def _layout(plan: StreamPlan) -> RowTable:
    witness, form = plan.witness, plan.replay.form
    y = 1 if form is None or not form.suffixes else len(form.suffixes)
    beside = (witness.recipe.weights is not None, bool(witness.recipe.offsets))
    return RowTable((len(witness.x_names), y, *map(int, beside), *(term.n_columns for term in witness.terms)))


def _merged(first: Tally, second: Tally) -> Tally:
    first.merge(second)
    return first


def _apart(parts: list[tuple[IntArray, ...]]) -> bool:
    """Whether no level has rows in two parts."""
    for levels in zip(*parts, strict=True):
        every = np.concatenate(levels)
        if np.unique(every).size < every.size:
            return False
    return True


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
    nested: bool
    levels: tuple[IntArray, ...]


@dataclass(frozen=True)
class _Seen:
    """Rows of a part, whether factors are nested in it, and the levels of each."""

    layout: RowTable
    outer: int
    firsts: tuple[int, ...]
    sizes: tuple[int, ...]

    def __call__(self, table: FloatArray, kept: Any) -> tuple[_SeenPart, None]:
        codes = [table[:, self.layout.code(t)].astype(np.intp) for t in self.firsts]
        nesting = Nesting(self.outer, self.sizes, ["factor"] * len(codes))
        nesting.add(codes)
        return _SeenPart(len(table), not nesting.crossed, tuple(np.unique(own) for own in codes)), None


class ClusterParts:
    """Evaluates the parts of a cluster but the pilot's, as `lme4py.engine.generalised.streamed.partitions.Elsewhere`.

    Parameters
    ----------
    rows : HeldRows
    make : EngineRows
    pilot : int
        The part that is here.
    """

    def __init__(self, rows: HeldRows, make: EngineRows, pilot: int) -> None:
        self.rows, self.make, self.pilot = rows, make.light(), pilot

    def evaluate(self, phi: FloatArray, nAGQ: int, beside: bool) -> Iterable[PartSums | None]:
        """Sums of each part; modes stay where it is."""
        found = self.rows.held.map(_Evaluate(self.rows.layout, self.make, phi, nAGQ, beside), [self.pilot])
        return [one.sums for one in found.values()]

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
