"""Pedigrees, precision matrices and known covariances of levels, against definitions written out."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import lme4py
from lme4py.covariance.relations import descent
from lme4py.covariance.relations.known import find_relation, match_labels
from lme4py.covariance.relations.relation import DenseRelation, relation_of_precision
from lme4py.errors import DataError, OptionError


def random_pedigree(n: int, seed: int, known: float = 0.85):
    """Parents among the animals before each; matings of relatives, and selfing, are not avoided."""
    rng = np.random.default_rng(seed)
    sire = [int(rng.integers(i)) if i and rng.random() < known else None for i in range(n)]
    dam = [int(rng.integers(i)) if i and rng.random() < known else None for i in range(n)]
    return list(range(n)), sire, dam


def tabular(sire, dam):
    """A by the tabular method (Emik & Terrill 1949): the expectation of products of gene contents, row by row."""
    n = len(sire)
    A = np.eye(n)
    for i in range(n):
        parents = [p for p in (sire[i], dam[i]) if p is not None]
        A[i, :i] = A[:i, i] = sum((0.5 * A[p, :i] for p in parents), np.zeros(i))
        if len(parents) == 2:
            A[i, i] = 1.0 + 0.5 * A[sire[i], dam[i]]
    return A


@pytest.mark.parametrize("seed", range(4))
def test_a_pedigree_has_the_relationships_of_the_tabular_method(seed: int) -> None:
    own, sire, dam = random_pedigree(60, seed)
    A = tabular(sire, dam)
    order = np.random.default_rng(seed).permutation(60)
    pedigree = lme4py.Pedigree([own[i] for i in order], [sire[i] for i in order], [dam[i] for i in order])
    # Sums of products of halves: rounding only.
    np.testing.assert_allclose(pedigree.relationship(own).to_numpy(), A, atol=1e-13)
    np.testing.assert_allclose(pedigree.inbreeding()[own], A.diagonal() - 1.0, atol=1e-13)
    place = [own[i] for i in order]
    # Of an inverse whose condition number is below 1e3.
    np.testing.assert_allclose(pedigree.relation.precision.toarray() @ A[np.ix_(place, place)], np.eye(60), atol=1e-11)
    assert pedigree.relation.log_det == pytest.approx(np.linalg.slogdet(A)[1], abs=1e-11)


@pytest.mark.parametrize("way", ["traced", "passed"])
@pytest.mark.parametrize("known", [0.5, 1.0])
def test_inbreeding_is_the_same_by_common_ancestors_and_by_passes(way: str, known: float, monkeypatch) -> None:
    """The way is otherwise chosen by what it would take: few animals with many mates, or many with few."""
    monkeypatch.setattr(descent, "_TRACED", np.inf if way == "passed" else 0.0)
    own, sire, dam = random_pedigree(150, 11, known)
    # The last animals have one sire with many mates, himself among them.
    sire[100:] = [7] * 50
    dam[120] = 7
    A = tabular(sire, dam)
    order = np.random.default_rng(5).permutation(150)
    pedigree = lme4py.Pedigree([own[i] for i in order], [sire[i] for i in order], [dam[i] for i in order])
    # Sums of products of halves: rounding only.
    np.testing.assert_allclose(pedigree.inbreeding()[own], A.diagonal() - 1.0, atol=1e-13)


def test_a_pedigree_reads_labels_of_any_kind_and_parents_without_rows() -> None:
    rows = pd.DataFrame({"id": ["c", "d"], "sire": ["a", ""], "dam": ["b", np.nan]})
    pedigree = lme4py.Pedigree(rows["id"], rows["sire"], rows["dam"])
    assert pedigree.labels == ("c", "d", "a", "b")
    assert pedigree.relationship().loc["c"].tolist() == [1.0, 0.0, 0.5, 0.5]
    numbers = lme4py.Pedigree([1, 2, 3], [0, 0, 1], [0.0, 0.0, 2.0])
    assert numbers.labels == (1, 2, 3)
    assert numbers.relationship().loc[3].tolist() == [0.5, 0.5, 1.0]
    assert pickle.loads(pickle.dumps(numbers)).relation.variances.tolist() == [1.0, 1.0, 1.0]


def test_wrong_pedigrees_are_refused_by_naming_the_animals() -> None:
    with pytest.raises(DataError, match=r"'a' is its own ancestor in the pedigree, through 'b', 'c'"):
        lme4py.Pedigree(["a", "b", "c"], ["b", "c", "a"], [None, None, None])
    with pytest.raises(DataError, match=r"'a' is its own parent"):
        lme4py.Pedigree(["a"], ["a"], [None])
    with pytest.raises(DataError, match=r"'a' has two rows in the pedigree, 1 and 3"):
        lme4py.Pedigree(["a", "b", "a"], [None] * 3, [None] * 3)
    with pytest.raises(DataError, match="no label"):
        lme4py.Pedigree(["a", None], [None, None], [None, None])
    with pytest.raises(DataError, match="1 sires"):
        lme4py.Pedigree(["a", "b"], [None], [None, None])
    with pytest.raises(DataError, match="no animal 'z'"):
        lme4py.Pedigree(["a"], [None], [None]).relationship(["z"])


def spd(n: int, seed: int) -> np.ndarray:
    M = np.random.default_rng(seed).normal(size=(n, n))
    return M @ M.T + n * np.eye(n)


@pytest.mark.parametrize("kind", ["matrix", "singular", "precision", "pedigree"])
def test_products_of_a_relation(kind: str) -> None:
    n = 12
    if kind == "pedigree":
        own, sire, dam = random_pedigree(n, 3)
        relation, K = lme4py.Pedigree(own, sire, dam).relation, tabular(sire, dam)
    elif kind == "precision":
        Q = np.where(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < 2, spd(n, 0), 0.0)
        Q += np.diag(np.abs(Q).sum(axis=1))
        relation, K = relation_of_precision(sparse.csc_array(Q)), np.linalg.inv(Q)
    else:
        F = np.random.default_rng(1).normal(size=(n, n if kind == "matrix" else 5))
        relation, K = DenseRelation(F @ F.T), F @ F.T
    x = np.random.default_rng(2).normal(size=(n, 3))
    F = relation.root(np.eye(n))
    # Well-conditioned matrices: rounding only (roots of the singular one are those of eigenvalues near 1e-10).
    np.testing.assert_allclose(F @ F.T, K, atol=1e-9)
    np.testing.assert_allclose(relation.times(x), K @ x, atol=1e-10)
    np.testing.assert_allclose(relation.root_transposed(x), F.T @ x, atol=1e-10)
    np.testing.assert_allclose(F @ relation.solve_root(K @ x), K @ x, atol=1e-8)
    np.testing.assert_allclose(relation.variances, K.diagonal(), atol=1e-10)
    np.testing.assert_allclose(relation.matrix, K, atol=1e-10)
    i, j = np.array([0, 3, 3, 7]), np.array([0, 3, 5, 1])
    np.testing.assert_allclose(relation.elements(i, j), K[i, j], atol=1e-10)
    wide = np.random.default_rng(4).normal(size=(2, n, 3))
    np.testing.assert_allclose(relation.along(wide), np.einsum("ij,kjc->kic", K, wide), atol=1e-9)
    again = pickle.loads(pickle.dumps(relation))
    np.testing.assert_array_equal(again.times(x), relation.times(x))


LABELS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (pd.DataFrame([[1.0, 2.0], [2.0, 1.0]], list("ab"), list("ab")), DataError, r"smallest eigenvalue is -1"),
        (pd.DataFrame(np.eye(2), list("ab"), list("xy")), DataError, "not the same labels"),
        ((np.array([[1.0, 0.5], [0.2, 1.0]]), list("ab")), DataError, "not symmetric"),
        ((np.array([[1.0, np.nan], [np.nan, 1.0]]), list("ab")), DataError, "missing or infinite"),
        ((np.eye(3), list("ab")), DataError, "3, 3.* and 2 labels"),
        ((np.eye(2), list("aa")), DataError, "'a'.* stands for two rows"),
        ((np.ones((2, 3)), list("ab")), DataError, "a row and a column"),
        (np.eye(2), OptionError, "what the levels"),
        ("A", OptionError, "of type str"),
    ],
)
def test_matrices_that_are_no_known_covariance(given, error, match) -> None:
    with pytest.raises(error, match=match):
        find_relation(given, "g")


def test_precisions_that_are_none() -> None:
    with pytest.raises(DataError, match=r"smallest eigenvalue is -1"):
        find_relation(lme4py.Precision(np.array([[1.0, 2.0], [2.0, 1.0]]), ["a", "b"]), "g")
    with pytest.raises(OptionError, match="has no labels"):
        lme4py.Precision(np.eye(2))
    with pytest.raises(DataError, match="not symmetric"):
        lme4py.Precision(sparse.csc_array([[1.0, 0.5], [0.0, 1.0]]), ["a", "b"])


def test_labels_are_matched_as_the_data_write_them() -> None:
    assert match_labels(["1", "2", "3"], [1, 2], "g") == (1, 2, "3")
    assert match_labels([1, 2], ["2"], "g") == (1, "2")
    with pytest.raises(DataError, match=r"1 of the 2 levels of 'g' in the data \('q'\)"):
        match_labels(LABELS, ["a", "q"], "g")
