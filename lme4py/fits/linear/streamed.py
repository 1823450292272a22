"""Linear mixed models of rows that are streamed: two passes over the source, then everything from sums."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.cells import CellSource
from lme4py.data.sources.base import RowBlock, RowSource
from lme4py.design.absent import AbsentRows, RowsReport, absent
from lme4py.design.build import warn_dropped
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.rank import dependent_by_triangle, is_clearly_regular, null_vectors
from lme4py.design.recipe import Recipe
from lme4py.design.streaming.stream import ModelRows, Replay, StreamPlan, plan_stream, sample_of
from lme4py.design.streaming.survey import Tally
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.linear.problem import StreamedDesign, assemble, group_terms
from lme4py.engine.linear.streamed import Columns, PackedSums, RowSums, first_columns, problem_parts, root_of, triangle
from lme4py.engine.optimise import Block
from lme4py.errors import DataError, DesignError
from lme4py.fits.rows.room import Room
from lme4py.progress import tick

__all__ = ["Passes", "rows_of", "streamed_design"]

# Sums are made again in better columns so many times at most.
_ROUNDS = 3


def rows_of(source: RowSource) -> RowSource:
    """Where the rows are that cells stand for; the source itself without cells."""
    return source.rows if isinstance(source, CellSource) else source


def streamed_design(
    formula: str,
    source: RowSource,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, str | NDArray[Any]] | None = None,
    na_action: str = "omit",
    block: Block = "exact",
    limit: float | None = None,
) -> StreamedDesign:
    """The design and the equations of a linear mixed model whose rows are streamed.

    Parameters
    ----------
    formula : str
    source : RowSource
    weights, offset : str, optional
        Columns or expressions.
    contrasts, na_action
        As in `lformula`.
    block : {"auto", "exact", "iterative"}
        As in `lme4py.engine.linear.problem.make_problem`.
    limit : float, optional
        Bytes that the fit may take: blocks are smaller, and levels or columns that do not fit are refused.

    Returns
    -------
    StreamedDesign

    Raises
    ------
    DataError
        The source changed between passes, or its parts do not fit together.
    OptionError
        What stays in memory takes more than the limit.
    """
    before = source.fingerprint()
    room = Room(limit)
    source = room.blocks_of(source, formula)
    plan = plan_stream(formula, source, weights=weights, offset=offset, contrasts=contrasts, na_action=na_action)
    passes = Passes(source, plan, before)
    witness = plan.witness
    if witness.y.ndim != 1:
        raise DesignError(
            "a linear mixed model needs one response column, not cbind(); fit one model for each, or reshape the data."
        )
    factors = group_terms(witness)
    check_levels(factors)
    room.check_levels(factors, len(witness.x_names))
    has_constant = witness.recipe.formula.fixed.intercept
    centred = [
        bar.terms.intercept and term.structure.column_changes == "any"
        for bar, term in zip(witness.recipe.bars, witness.terms, strict=True)
    ]
    columns = first_columns(sample_of(plan), has_constant, tuple(centred))
    sums = passes.sums(columns, factors)
    room.check_pairs(factors, sums.sums.result())
    dropped, null = _dependent(passes, sums, witness, has_constant)
    if sums.columns.b0[dropped].any():
        # y inside must be a residual from the columns that stay.
        sums = passes.sums(_with_dropped(_lean(sums.columns, dropped), sums.columns, dropped), factors)
    design = _without_rows(witness, dropped, null, sums, passes.tally)
    for _ in range(_ROUNDS):
        cross, own = _kept(sums, dropped)
        scaling, final, quality = problem_parts(own, cross, design, witness.weights is not None)
        if quality.good:
            break
        sums = passes.sums(_with_dropped(quality.columns, sums.columns, dropped), factors)
    passes.check_source()
    constants = tuple(0 if bar.terms.intercept else None for bar in witness.recipe.bars)
    problem = assemble(factors, design, scaling, final, constants, block=block)
    root = root_of(sums, design.recipe.kept)
    report = _report(source, passes, sums, witness, factors)
    everything = {f.name: getattr(design, f.name) for f in fields(design)}
    return StreamedDesign(
        **everything | {"streamed": report, "lazy": rows_of(source)}, problem=problem, of=design.predictors, root=root
    )


class Passes:
    """Goes through the rows, and checks that they are the same each time."""

    def __init__(self, source: RowSource, plan: StreamPlan, fingerprint: Hashable) -> None:
        self.source = source
        self.fingerprint = fingerprint
        self.replay = plan.replay
        self.tally = plan.tally
        self.count = plan.passes + source.passes

    def sums(self, columns: Columns, factors: tuple[Factor, ...]) -> RowSums:
        """Cross-products in the columns."""
        self.check_source()
        total = RowSums(columns, factors)
        if not self.source.travels:
            return total.add_all(self.rows())
        self.count += 1
        now = Tally()
        one = _SumOne(self.replay, columns, factors)
        found = self.source.reduce_blocks(one, merged_sums, self.replay.columns)
        if found is not None:
            total.take_in(found[0])
            now.merge(found[1])
        self.tally.refuse_other(now)
        return total

    def check_source(self) -> None:
        """Raise where the source is not what it was before the first pass."""
        if self.source.fingerprint() != self.fingerprint:
            raise DataError("the source changed while it was read; fit the model when nothing writes to it.")

    def rows(self) -> Iterator[ModelRows]:
        """The model's rows of all blocks."""
        self.count += 1
        now = Tally()
        for block in self.source.blocks(self.replay.columns):
            tick("blocks of rows")
            rows = self.replay.rows(block, now)
            if rows is not None:
                yield rows
        self.tally.refuse_other(now)


@dataclass(frozen=True)
class _SumOne:
    """The cross-products of one block, where the block is."""

    replay: Replay
    columns: Columns
    factors: tuple[Factor, ...]

    def __call__(self, block: RowBlock) -> tuple[PackedSums, Tally]:
        tally = Tally()
        sums = RowSums(self.columns, self.factors)
        rows = self.replay.rows(block, tally)
        if rows is not None:
            sums.add(rows)
        return sums.packed(), tally


def merged_sums(first: tuple[PackedSums, Tally], second: tuple[PackedSums, Tally]) -> tuple[PackedSums, Tally]:
    """The sums over the rows of both."""
    first[1].merge(second[1])
    return first[0].merge(second[0]), first[1]


def _dependent(passes: Passes, sums: RowSums, witness: Design, has_constant: bool) -> tuple[list[int], Any]:
    """Columns of X that depend on those before them, and R of a decomposition of X where there may be any."""
    corner = sums.sums.corner
    if corner.shape[0] == 1 or is_clearly_regular(corner[:-1, :-1], has_constant):
        return [], None
    R = triangle(passes.rows(), sums.columns)
    return dependent_by_triangle(R, has_constant), R if has_constant else R[:, 1:]


def _kept(sums: RowSums, dropped: list[int]) -> tuple[CrossProducts, RowSums]:
    """Cross-products without the columns that were left out."""
    cross = sums.sums.result()
    if not dropped:
        return cross, sums
    p = cross.corner.shape[0] - 1
    kept = [j for j in range(p) if j not in dropped]
    place = [*kept, p]
    part = RowSums.__new__(RowSums)
    part.__dict__.update(sums.__dict__, columns=_lean(sums.columns, dropped))
    narrow = replace(
        cross, border=tuple(B[:, :, place] for B in cross.border), corner=cross.corner[np.ix_(place, place)]
    )
    return narrow, part


def _lean(columns: Columns, dropped: list[int]) -> Columns:
    """The maps of the columns that stay."""
    kept = np.setdiff1d(np.arange(columns.b0.size), dropped)
    return replace(columns, C=columns.C[np.ix_(kept, kept)], b0=columns.b0[kept])


def _with_dropped(better: Columns, first: Columns, dropped: list[int]) -> Columns:
    """The columns in which sums are made again: those that were left out stay as they were."""
    if not dropped:
        return better
    kept = [j for j in range(first.C.shape[0]) if j not in dropped]
    C, b0 = first.C.copy(), np.zeros(first.b0.size)
    C[np.ix_(kept, kept)] = better.C
    b0[kept] = better.b0
    return replace(better, C=C, b0=b0)


def _without_rows(witness: Design, dropped: list[int], R: Any, sums: RowSums, tally: Tally) -> Design:
    """The design as it is of all rows, without them."""
    n = tally.n_obs
    old = witness.predictors[0]
    kept = [j for j in range(len(old.names)) if j not in dropped]
    alias = null = None
    if dropped:
        null = null_vectors(R, dropped)
        alias = -null[kept]
        size = np.sqrt(np.mean(R[:, dropped] ** 2, axis=0) * R.shape[0] / n)
        null = null / np.where(size > 0.0, size, 1.0)
    names = tuple(old.names[j] for j in dropped)
    predictor = Predictor(
        absent("model matrix", (n, len(kept))),
        tuple(old.names[j] for j in kept),
        tuple(old.assign[j] for j in kept),
        old.labels,
        tuple(_term(term, n) for term in old.terms),
        None if old.offset is None else absent("offset", (n,)),
        names,
        alias,
    )
    recipe: Recipe = replace(witness.recipe, kept=tuple(kept), null=null)
    notes = witness.notes
    if dropped:
        notes = (*warn_dropped(names), *notes)
    return replace(
        witness,
        y=absent("response", (n,)),
        predictors=(predictor,),
        weights=None if witness.weights is None else absent("weights", (n,)),
        keep=absent("rows used", (tally.n_rows,)),
        row_labels=absent("row labels", (tally.n_rows,)),
        recipe=recipe,
        notes=notes,
        columns=absent("columns of the data", (n,)),
        labelled=False,
        source=None,
    )


def _term(term: RandomTerm, n: int) -> RandomTerm:
    codes: Any = AbsentRows("groups of the rows", (n,))
    values: Any = AbsentRows("columns of the random effects", (n, term.n_columns))
    return replace(term, codes=codes, values=values)


def _report(
    source: RowSource, passes: Passes, sums: RowSums, witness: Design, factors: tuple[Factor, ...]
) -> RowsReport:
    rows = {
        factor.name: (int(own.min()), float(own.mean()), int(own.max()))
        for factor, own in zip(factors, sums.counts, strict=True)
    }
    limits = None if witness.weights is None else (sums.low_weight, sums.high_weight)
    tally = passes.tally
    totals = {name: (total, tally.squares[name]) for name, total in tally.sums.items()}
    # Cells took one pass, and none is made over them.
    count = passes.count if rows_of(source) is source else 1 + rows_of(source).passes
    return RowsReport(source.place, count, tally.n_blocks, tally.n_rows, tally.n_obs, rows, limits, totals)
