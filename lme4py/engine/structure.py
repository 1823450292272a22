"""Which blocks of the factor can be non-zero: found once, used by every evaluation.

Grouping factors are eliminated one by one, the one with most random effects first, for as long as the matrix of
what is left stays block diagonal in the next one (the next one is nested outside all before it). What remains
after these *stages* is one block: dense, or sparse where that is clearly better (see
`lme4py.engine.sparse_pattern`). For every stage the positions that its elimination changes are listed once, so
that an evaluation only does arithmetic: `changes = P' vec(E)` (see `lme4py.engine.sweep`).
"""

from __future__ import annotations

import numpy as np

from lme4py.engine.crossproducts import CrossProducts, Factor
from lme4py.engine.layout import Layout, Stage, Structure
from lme4py.engine.pattern import Pattern, choose_stages, count_meetings, cross_block, elimination_order, level_pairs
from lme4py.engine.sparse_pattern import Forecast, SparseBlock, dense_forecast, level_graph, plan_sparse
from lme4py.engine.types import SparseMatrix, sparse
from lme4py.errors import DesignError

__all__ = ["Stage", "Structure", "analyse", "choose_stages", "cross_block", "elimination_order"]

# Above this many products per evaluation the prepared list would not fit into memory.
MAX_PRODUCTS = 60_000_000
# Blocks with fewer rows are dense: a fit takes seconds at most.
SPARSE_FROM = 3000
# Blocks of which more than this part meets are dense without further questions.
_MAX_DENSITY = 0.25
# Levels whose neighbours are counted before all pairs are listed.
_SAMPLE = 200


def analyse(
    factors: tuple[Factor, ...], cross: CrossProducts, block: str = "auto", max_listed: int | None = None
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

    Raises
    ------
    DesignError
        When the dense block would not fit into memory.
    """
    order, dense, pattern = choose_stages(factors, cross, MAX_PRODUCTS)
    offsets = np.concatenate([[0], np.cumsum([factors[f].size for f in dense])]).astype(int)
    dense_size = int(offsets[-1])
    memory = _free_memory()
    sparse_block, forecast = None, None
    if dense and (block == "sparse" or (block == "auto" and dense_size > SPARSE_FROM)):
        sparse_block, forecast = _plan_block(factors, cross, order, dense, pattern, memory, block == "sparse")
    if sparse_block is None:
        _check_memory(dense_size, dense, factors, memory, forecast)
    limit = MAX_PRODUCTS if max_listed is None else min(MAX_PRODUCTS, max_listed)
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


def _plan_block(
    factors: tuple[Factor, ...],
    cross: CrossProducts,
    order: list[int],
    dense: list[int],
    pattern: Pattern,
    memory: float,
    forced: bool,
) -> tuple[SparseBlock | None, Forecast | None]:
    """The sparse block, or None where a dense one is better; and the forecast, if one was needed."""
    if count_meetings(factors, pattern, order[0]) > MAX_PRODUCTS:
        return None, None
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
        return None, None
    pairs = []
    for i, s in enumerate(dense):
        for t in dense[:i]:
            rows, columns = level_pairs(cross, s, t)
            pairs.append((starts[s] + rows, starts[t] + columns))
    graph = level_graph(n_levels, incidences, pairs)
    if graph.nnz > _MAX_DENSITY * n_levels**2 and not forced:
        return None, None
    return plan_sparse(tuple(factors[f] for f in dense), graph, memory, forced)


def _density(incidences: list[SparseMatrix]) -> float:
    """Part of all pairs of levels that meet through a level of some stage, from a sample of the levels."""
    n = incidences[0].shape[1]
    sample = np.random.default_rng(0).choice(n, min(n, _SAMPLE), replace=False)
    return max(float((B[:, sample].T @ B).nnz) for B in incidences) / (float(n) * sample.size)


def _free_memory() -> float:
    import os

    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float(8 * 2**30)


def _check_memory(
    dense_size: int, dense: list[int], factors: tuple[Factor, ...], available: float, forecast: Forecast | None
) -> None:
    _, need = dense_forecast(dense_size)
    if need <= available:
        return
    names = ", ".join(f"{factors[f].name} ({factors[f].size:,})" for f in dense)
    other = ""
    if forecast is not None:
        other = f" Kept sparse they would need {forecast.sparse_bytes / 2**30:.1f} GB."
    raise DesignError(
        f"the crossed random effects {names} need a dense block of {dense_size:,} x {dense_size:,} numbers, "
        f"about {need / 2**30:.1f} GB, and {available / 2**30:.1f} GB are free.{other} Leave one of these terms out, "
        "fit a part of the data with fewer levels, or use a machine with more memory."
    )
