"""Cross-products of blocks of rows: merged in any sizes they are those of dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from lme4py.engine.factor import crossproducts
from lme4py.engine.factor.crossproducts import Edges, Factor, ModelBlock, SortedEdges, accumulate

SIZES, COLUMNS = (30, 17), (2, 1)
FACTORS = tuple(
    Factor(name, size, k, (f,), (slice(0, k),))
    for f, (name, size, k) in enumerate(zip("ab", SIZES, COLUMNS, strict=True))
)


def blocks(rng: np.random.Generator, sizes: list[int]) -> list[ModelBlock]:
    return [
        ModelBlock(
            rng.standard_normal((n, 2)),
            tuple(rng.integers(0, size, n) for size in SIZES),
            tuple(rng.standard_normal((n, k)) for k in COLUMNS),
            None,
        )
        for n in sizes
    ]


def dense(edges: Edges | SortedEdges) -> np.ndarray:
    out = np.zeros((*edges.values.shape[:2], *SIZES))
    out[:, :, edges.rows, edges.columns] = edges.values
    return out


@pytest.mark.parametrize("merged", [3, 50, 10**6])
@pytest.mark.parametrize("few", [0, 10**6], ids=["sparse", "sorted"])
def test_edges_of_blocks_are_sums_over_all_rows(monkeypatch, merged, few):
    monkeypatch.setattr(crossproducts, "_MERGED", merged)
    monkeypatch.setattr(crossproducts, "_FEW", few)
    own = blocks(np.random.default_rng(3), [40, 5, 60, 1, 80, 33, 70])
    edges = accumulate(iter(own), FACTORS).edges[0, 1]
    wanted = np.zeros((*COLUMNS, *SIZES))
    for block in own:
        for z, w, a, b in zip(block.Z[0], block.Z[1], *block.codes, strict=True):
            wanted[:, :, a, b] += np.outer(z, w)
    # Sums of some ten products.
    np.testing.assert_allclose(dense(edges), wanted, rtol=1e-12, atol=1e-12)
    assert isinstance(edges, SortedEdges)
    keys = edges.rows * SIZES[1] + edges.columns
    assert (np.diff(keys) > 0).all()


@pytest.mark.parametrize("step", [1, 4, 1000])
def test_levels_of_some_pairs_are_those_of_all(step):
    # Levels 0, 3 and 5 have no pairs.
    pointer, indices = np.array([0, 0, 2, 3, 3, 7, 7]), np.array([1, 4, 0, 0, 1, 2, 3], dtype=np.int32)
    values = np.ones((1, 1, 7))
    found = SortedEdges(pointer, indices, values)
    for edges in (found, Edges(found.rows, found.columns, values)):
        parts = [edges.levels(slice(start, start + step)) for start in range(0, 7, step)]
        np.testing.assert_array_equal(np.concatenate([rows for rows, _ in parts]), [1, 1, 2, 4, 4, 4, 4])
        np.testing.assert_array_equal(np.concatenate([columns for _, columns in parts]), indices)
