"""Pedigrees: additive relationships of animals from who their parents are.

With P holding 1/2 for each known parent, the additive effects are a = P a + m, with independent Mendelian parts m of
variance D, so that

    A = (I - P)^-1 D (I - P)'^-1,    A^-1 = (I - P)' D^-1 (I - P),    log|A| = sum log D,

    D_i = 1/2 - (F_s + F_d) / 4 (both parents known),  3/4 - F_p / 4 (one),  1 (none)

(Henderson 1976, Biometrics 32:69; Quaas 1976, Biometrics 32:949). Inbreeding is F_i = A(s, d) / 2 = sum over common
ancestors j of T_sj T_dj D_j / 2, with T = (I - P)^-1 (Meuwissen & Luo 1992, Genet. Sel. Evol. 24:305): generation by
generation, the ancestors of many parents at one time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.covariance.relations.relation import SparseRelation
from lme4py.errors import DataError, did_you_mean
from lme4py.frozen import computed_once, freeze
from lme4py.linalg.types import BoolArray, FloatArray, IntArray, SparseMatrix, sparse

__all__ = ["Pedigree"]

# Parents whose ancestors are traced at one time.
_PARENTS = chunk(2000)
# Animals of which the whole relationship matrix is made; 5000 of them take 200 MB.
_WHOLE = 20_000
# Animals of a loop that a message names.
_SHOWN = 8


class Pedigree:
    """Who the parents of each animal are; rows in any order.

    Parameters
    ----------
    id : sequence
        Labels of the animals, each once.
    sire, dam : sequence
        Labels of their parents; None, NaN and "" where a parent is not known, and 0 where no animal is called so.
        Parents without a row of their own are animals whose parents are unknown.

    Attributes
    ----------
    labels : tuple
        All animals: those of `id` in its order, then the parents without a row.

    Raises
    ------
    DataError
        An animal that is listed twice, or is its own ancestor.

    Examples
    --------
    >>> family = Pedigree(["a", "b", "c", "d"], [None, None, "a", "a"], [None, None, "b", "c"])
    >>> family.inbreeding().to_dict()
    {'a': 0.0, 'b': 0.0, 'c': 0.0, 'd': 0.25}
    >>> float(family.relationship().loc["d", "a"])
    0.75
    """

    def __init__(self, id: Iterable[Any], sire: Iterable[Any], dam: Iterable[Any]) -> None:
        own, fathers, mothers = (_labels(values) for values in (id, sire, dam))
        if not len(own) == len(fathers) == len(mothers):
            raise DataError(
                f"a pedigree needs a sire and a dam for each animal, and there are {len(own)} animals, "
                f"{len(fathers)} sires and {len(mothers)} dams; write None where a parent is not known."
            )
        place = _places(own)
        zero = [label for label in (0, "0") if label not in place]
        for parents in (fathers, mothers):
            for label in parents:
                if label is not None and label not in zero and label not in place:
                    place[label] = len(place)
        self.labels: tuple[Any, ...] = tuple(place)
        n = len(place)
        codes = np.full((n, 2), -1, dtype=np.intp)
        for column, parents in enumerate((fathers, mothers)):
            codes[: len(own), column] = [place.get(label, -1) if label is not None else -1 for label in parents]
        self._parents: IntArray = freeze(codes)
        self._generation: IntArray = freeze(_generations(codes, self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        founders = int((self._parents < 0).all(axis=1).sum())
        return f"<Pedigree of {len(self):,} animals, {founders:,} of them without known parents>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Pedigree)
            and self.labels == other.labels
            and np.array_equal(self._parents, other._parents)
        )

    def __hash__(self) -> int:
        return hash((self.labels, self._parents.tobytes()))

    def inbreeding(self) -> Any:
        """Coefficient of inbreeding of every animal.

        Returns
        -------
        pandas.Series
            Index: the animals.
        """
        import pandas as pd

        return pd.Series(self._inbreeding.copy(), index=pd.Index(self.labels, tupleize_cols=False), name="inbreeding")

    def relationship(self, labels: Sequence[Any] | None = None) -> Any:
        """Additive relationships A; its diagonal is 1 plus the inbreeding.

        Parameters
        ----------
        labels : sequence, optional
            Animals; all of them by default.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        DataError
            An animal that the pedigree does not have; too many for one matrix.
        """
        import pandas as pd

        chosen = list(self.labels if labels is None else labels)
        if len(chosen) > _WHOLE:
            raise DataError(
                f"the relationships of {len(chosen):,} animals are a matrix of {8e-9 * len(chosen) ** 2:,.1f} GB; name "
                "those you need in labels=. Models take the pedigree itself, which needs no such matrix."
            )
        place = {label: i for i, label in enumerate(self.labels)}
        for label in chosen:
            if label not in place:
                hint = did_you_mean(str(label), [str(known) for known in self.labels])
                raise DataError(f"the pedigree has no animal {label!r}.{hint}")
        rows = self._ancestry(np.array([place[label] for label in chosen], dtype=np.intp))
        A = (rows @ sparse.diags_array(self._mendelian) @ rows.T).toarray()
        index = pd.Index(chosen, tupleize_cols=False)
        return pd.DataFrame(0.5 * (A + A.T), index=index, columns=index)

    # -- numbers -------------------------------------------------------------------------------------------------

    @computed_once
    def relation(self) -> SparseRelation:
        """The covariance of the animals' effects, in the order of `labels`."""
        n = len(self)
        own = sparse.eye_array(n, format="csr") - self._share
        H = (sparse.diags_array(1.0 / np.sqrt(self._mendelian)) @ own).tocsr()
        log_det = float(np.log(self._mendelian).sum())
        return SparseRelation((H.T @ H).tocsc(), H, log_det, 1.0 + self._inbreeding)

    @computed_once
    def _share(self) -> SparseMatrix:
        """P, with 1/2 for each known parent."""
        n = len(self)
        rows, column = np.nonzero(self._parents >= 0)
        halves = np.full(rows.size, 0.5)
        return sparse.coo_array((halves, (rows, self._parents[rows, column])), shape=(n, n)).tocsr()

    @computed_once
    def _mendelian(self) -> FloatArray:
        """D: the part of the variance of each animal that its parents do not give."""
        return _mendelian(self._parents, self._inbreeding)

    @computed_once
    def _inbreeding(self) -> FloatArray:
        """F, shape (n,), generation by generation."""
        F = np.zeros(len(self))
        both = (self._parents >= 0).all(axis=1)
        for g in range(1, int(self._generation.max(initial=0)) + 1):
            animals = np.flatnonzero(both & (self._generation == g))
            if animals.size:
                F[animals] = 0.5 * self._between_parents(animals, _mendelian(self._parents, F))
        return F

    def _between_parents(self, animals: IntArray, mendelian: FloatArray) -> FloatArray:
        """A(sire, dam) of some animals; the Mendelian parts of their ancestors are known."""
        pairs, of = np.unique(self._parents[animals], axis=0, return_inverse=True)
        out = np.empty(len(pairs))
        root = sparse.diags_array(np.sqrt(mendelian))
        for start in range(0, len(pairs), _PARENTS):
            own = pairs[start : start + _PARENTS]
            parents, place = np.unique(own, return_inverse=True)
            rows = (self._ancestry(parents) @ root).tocsr()
            first, second = place.reshape(-1, 2).T
            out[start : start + _PARENTS] = rows[first].multiply(rows[second]).sum(axis=1)
        return out[of.reshape(-1)]

    def _ancestry(self, animals: IntArray) -> SparseMatrix:
        """Rows of (I - P)^-1: what part of every ancestor's Mendelian part an animal carries."""
        unit = np.ones(animals.size)
        step = sparse.csr_array((unit, animals, np.arange(animals.size + 1)), shape=(animals.size, len(self)))
        total = step
        while step.nnz:
            step = step @ self._share
            total = total + step
        return total


def _mendelian(parents: IntArray, F: FloatArray) -> FloatArray:
    known = parents >= 0
    inbred = np.where(known, F[parents], 0.0).sum(axis=1)
    out: FloatArray = 1.0 - 0.25 * known.sum(axis=1) - 0.25 * inbred
    return out


def _labels(values: Iterable[Any]) -> list[Any]:
    """Labels as Python's own objects, None for what is missing."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [None if _is_missing(value) else _plain(value) for value in listed]


def _plain(value: Any) -> Any:
    """Whole numbers as int: a column with missing parents holds floats."""
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return bool(type(value).__name__ in ("NAType", "NaTType") or value != value)


def _places(own: list[Any]) -> dict[Any, int]:
    place: dict[Any, int] = {}
    for i, label in enumerate(own):
        if label is None:
            raise DataError(f"the animal in row {i + 1} of the pedigree has no label; give each animal one.")
        if label in place:
            raise DataError(
                f"the animal {label!r} has two rows in the pedigree, {place[label] + 1} and {i + 1}; keep one of them."
            )
        place[label] = i
    return place


def _generations(parents: IntArray, labels: tuple[Any, ...]) -> IntArray:
    """0 without known parents, and one more than the later parent; a loop has none."""
    n = parents.shape[0]
    generation = np.zeros(n, dtype=np.intp)
    open_ = np.flatnonzero((parents >= 0).any(axis=1))
    done: BoolArray = np.all(parents < 0, axis=1)
    while open_.size:
        own = parents[open_]
        ready = (done[own] | (own < 0)).all(axis=1)
        if not ready.any():
            raise DataError(_loop(parents, open_, labels))
        found = open_[ready]
        before = np.where(parents[found] >= 0, generation[parents[found]], -1)
        generation[found] = before.max(axis=1) + 1
        done[found] = True
        open_ = open_[~ready]
    return generation


def _loop(parents: IntArray, open_: IntArray, labels: tuple[Any, ...]) -> str:
    """What to say of animals that are their own ancestors."""
    waiting = set(open_.tolist())
    path: list[int] = []
    animal = int(open_[0])
    while animal not in path:
        path.append(animal)
        animal = next(int(p) for p in parents[animal] if int(p) in waiting)
    around = [*path[path.index(animal) :], animal]
    names = [repr(labels[i]) for i in around]
    if len(around) == 2:
        return f"the animal {names[0]} is its own parent in the pedigree; correct its row, or leave the parent out."
    shown = ", ".join(names[1:-1][:_SHOWN]) + (", ..." if len(names) - 2 > _SHOWN else "")
    return (
        f"the animal {names[0]} is its own ancestor in the pedigree, through {shown}; correct one of these rows, or "
        "leave that parent out."
    )
