"""Which blocks of the factor can be non-zero: found once, used by every evaluation.

Grouping factors are eliminated one by one, the one with most random effects first, for as long as the matrix of
what is left stays block diagonal in the next one (the next one is nested outside all before it). What remains
after these *stages* is one block: dense, or sparse where that is clearly better (see
`lme4py.engine.factor.sparse_pattern`). For every stage the positions that its elimination changes are listed once, so
that an evaluation only does arithmetic: `changes = P' vec(E)` (see `lme4py.engine.factor.sweep`).
"""

from __future__ import annotations

import numpy as np

from lme4py.chunks import from_size
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.forecast import check_memory, check_products, exceeds_memory, size_words
from lme4py.engine.factor.layout import Layout, Stage, Structure
from lme4py.engine.factor.pattern import (
    Pattern,
    choose_stages,
    count_meetings,
    cross_block,
    elimination_order,
    level_pairs,
)
from lme4py.engine.factor.sparse_pattern import (
    EVALUATIONS,
    Forecast,
    SparseBlock,
    dense_fit,
    least_fit,
    level_graph,
    plan_sparse,
)
from lme4py.linalg.types import SparseMatrix, sparse

__all__ = [
    "Stage",
    "Structure",
    "analyse",
    "choose_stages",
    "cross_block",
    "elimination_order",
    "fit_seconds",
    "prefers_iterative",
]

Plan = tuple[SparseBlock | None, Forecast]

# Above this many products per evaluation the prepared list would not fit into memory.
MAX_PRODUCTS = 60_000_000
# Dense matrices of its size that a block with a known covariance needs beside those of other blocks, as a factor.
_RELATED = 2.0
# Blocks with fewer rows are dense: a fit takes seconds at most.
SPARSE_FROM = from_size(3000)
# Blocks of which more than this part meets are dense without further questions.
_MAX_DENSITY = 0.25
# A fit with an exact factor is preferred to one with a Monte-Carlo error where it is forecast to take so many seconds.
_PATIENCE = 5.0
# Seconds of an iterative fit for each product of columns of two levels that meet.
_PER_PAIR = 1.5e-6
# Levels whose neighbours are counted before all pairs are listed.
_SAMPLE = 200


def analyse(
    factors: tuple[Factor, ...],
    cross: CrossProducts,
    block: str = "auto",
    max_listed: int | None = None,
    copies: int = 4,
    plan: Plan | None = None,
) -> Structure:
    """The symbolic step.

    Parameters
    ----------
    factors : tuple of Factor
    cross : CrossProducts
    block : {"auto", "dense", "sparse"}
        What remains after the stages; "auto" takes what is forecast to be faster.
    max_listed : int, optional
        With more products the only stage before a dense block is eliminated by matrix products.
    copies : int
        Dense matrices of the size of the block that will be in memory at one time.
    plan : tuple, optional
        The sparse block and its forecast, where `prefers_iterative` has made them.

    Raises
    ------
    DesignError
        When the factor would not fit into memory.
    """
    order, dense, pattern = choose_stages(factors, cross, MAX_PRODUCTS)
    offsets = np.concatenate([[0], np.cumsum([factors[f].size for f in dense])]).astype(int)
    dense_size = int(offsets[-1])
    need = copies * 8.0 * float(dense_size) ** 2
    sparse_block, forecast = None, None
    relations = [factor.relation for factor in factors if factor.relation is not None]
    if any(relation.precision is None for relation in relations):
        block, need = "dense", need * _RELATED
    elif relations:
        block = "sparse"
    if plan is not None and block == "auto":
        sparse_block, forecast = plan
    elif dense and (block == "sparse" or (block == "auto" and dense_size > SPARSE_FROM)):
        sparse_block, forecast = _plan_block(factors, cross, order, dense, pattern, need, block == "sparse")
    names = ", ".join(f"{factors[f].name} ({factors[f].size:,})" for f in dense)
    _check_block(names, dense_size, need, forecast, sparse_block)
    limit = MAX_PRODUCTS if max_listed is None else min(MAX_PRODUCTS, max_listed)
    for first in order[:1]:
        count = count_meetings(factors, pattern, first)
        if count <= limit or len(order) > 1 or sparse_block is not None:
            check_products(count, factors[first], [factor for factor in factors if factor is not factors[first]])
    layout = Layout(factors, order, dense, pattern, cross, sparse_block, MAX_PRODUCTS, limit)
    stages = tuple(layout.stage(position) for position in range(len(order)))
    return Structure(
        stages,
        tuple(dense),
        tuple(int(o) for o in offsets[:-1]),
        dense_size,
        layout.diagonal_slices,
        layout.coupling_slices,
        layout.n_values,
        tuple(layout.remaining),
        sparse_block,
        forecast,
    )


def may_be_iterative(factors: tuple[Factor, ...], copies: int) -> bool:
    """Whether `prefers_iterative` can be true, whatever the cross-products are.

    Parameters
    ----------
    factors : tuple of Factor
    copies : int
        As in `analyse`.
    """
    if len(factors) < 2 or any(factor.relation is not None for factor in factors):
        return False
    whole = sum(factor.size for factor in factors)
    # What is left to the dense block is no more than the whole.
    return dense_fit(whole) > _PATIENCE or exceeds_memory(copies * 8.0 * float(whole) ** 2)


def prefers_iterative(factors: tuple[Factor, ...], cross: CrossProducts, copies: int) -> tuple[bool, Plan | None]:
    """Whether an exact factor of crossed effects is forecast to take too much memory, or too long.

    Parameters
    ----------
    factors : tuple of Factor
    cross : CrossProducts
    copies : int
        As in `analyse`.

    Returns
    -------
    bool
    tuple or None
        The sparse block and its forecast, which `analyse` need not make again; None where they were not needed.
    """
    if not may_be_iterative(factors, copies):
        return False, None
    order, dense, pattern = choose_stages(factors, cross, MAX_PRODUCTS)
    size = sum(factors[f].size for f in dense)
    need = copies * 8.0 * float(size) ** 2
    if dense_fit(size) <= _PATIENCE:
        return exceeds_memory(need), None
    iterative = _PER_PAIR * sum(edges.values.size for edges in cross.edges.values())
    worth = max(_PATIENCE, iterative)
    graph = _block_graph(factors, cross, order, dense, pattern, False)
    if graph is None:
        return dense_fit(size) > worth or exceeds_memory(need), None
    own = tuple(factors[f] for f in dense)
    if least_fit(own, graph, worth) > worth:
        return True, None
    plan = plan_sparse(own, graph, need)
    sparse_block, forecast = plan
    if sparse_block is None:
        return dense_fit(size) > worth or exceeds_memory(need), plan
    return EVALUATIONS * forecast.sparse_seconds > worth or exceeds_memory(forecast.sparse_bytes), plan


def fit_seconds(structure: Structure) -> float:
    """Forecast for a fit with this factor, from what remains after the stages.

    Parameters
    ----------
    structure : Structure
    """
    forecast = structure.forecast
    if structure.sparse is None or forecast is None:
        return dense_fit(structure.dense_size)
    return EVALUATIONS * forecast.sparse_seconds


def _plan_block(
    factors: tuple[Factor, ...],
    cross: CrossProducts,
    order: list[int],
    dense: list[int],
    pattern: Pattern,
    need: float,
    forced: bool,
) -> tuple[SparseBlock | None, Forecast | None]:
    """The sparse block, or None where a dense one is better; and the forecast, if one was needed."""
    graph = _block_graph(factors, cross, order, dense, pattern, forced)
    return (None, None) if graph is None else plan_sparse(tuple(factors[f] for f in dense), graph, need, forced)


def _block_graph(
    factors: tuple[Factor, ...],
    cross: CrossProducts,
    order: list[int],
    dense: list[int],
    pattern: Pattern,
    forced: bool,
) -> SparseMatrix | None:
    """Which levels of the block meet; None where so many do that it is dense without further questions."""
    if order and count_meetings(factors, pattern, order[0]) > MAX_PRODUCTS:
        return None
    starts = dict(zip(dense, np.cumsum([0] + [factors[f].n_levels for f in dense]), strict=False))
    n_levels = sum(factors[f].n_levels for f in dense)
    incidences = []
    for s in order:
        met = [pattern.pairs(s, t) for t in dense]
        rows = np.concatenate([pair[0] for pair in met])
        columns = np.concatenate([starts[t] + pair[1] for t, pair in zip(dense, met, strict=True)])
        ones = np.ones(rows.size, dtype=np.int32)
        incidences.append(sparse.coo_array((ones, (rows, columns)), shape=(factors[s].n_levels, n_levels)).tocsr())
    if not forced and _density(incidences) > _MAX_DENSITY:
        return None
    pairs = []
    for i, s in enumerate(dense):
        for t in dense[:i]:
            rows, columns = level_pairs(cross, s, t)
            pairs.append((starts[s] + rows, starts[t] + columns))
    for t in dense:
        relation = factors[t].relation
        if relation is not None and relation.precision is not None:
            below = sparse.tril(relation.precision, -1).tocoo()
            pairs.append((starts[t] + below.row, starts[t] + below.col))
    graph = level_graph(n_levels, incidences, pairs)
    return None if graph.nnz > _MAX_DENSITY * n_levels**2 and not forced else graph


def _density(incidences: list[SparseMatrix]) -> float:
    """Part of all pairs of levels that meet through a level of some stage, from a sample of the levels."""
    n = incidences[0].shape[1]
    sample = np.random.default_rng(0).choice(n, min(n, _SAMPLE), replace=False)
    met: float = max(float((B[:, sample].T @ B).nnz) for B in incidences)
    return met / (float(n) * float(sample.size))


def _check_block(
    names: str, dense_size: int, need: float, forecast: Forecast | None, sparse_block: SparseBlock | None
) -> None:
    """Refuse a block that does not fit into memory."""
    if sparse_block is not None and forecast is not None:
        check_memory(forecast.sparse_bytes, f"the crossed random effects {names} need a sparse factor")
        return
    other = ""
    if forecast is not None:
        other = f" Kept sparse they would need {size_words(forecast.sparse_bytes)}."
    what = f"the crossed random effects {names} need a dense block of {dense_size:,} x {dense_size:,} numbers"
    check_memory(need, what, other)
