"""Pedigrees: additive relationships of animals from who their parents are.

With P holding 1/2 for each known parent, the additive effects are a = P a + m, with independent Mendelian parts m of
variance D, so that

    A = (I - P)^-1 D (I - P)'^-1,    A^-1 = (I - P)' D^-1 (I - P),    log|A| = sum log D,

    D_i = 1/2 - (F_s + F_d) / 4 (both parents known),  3/4 - F_p / 4 (one),  1 (none)

(Henderson 1976, Biometrics 32:69; Quaas 1976, Biometrics 32:949). Inbreeding is F_i = A(s, d) / 2 = sum over common
ancestors j of T_sj T_dj D_j / 2, with T = (I - P)^-1 (Meuwissen & Luo 1992, Genet. Sel. Evol. 24:305): generation by
generation, all mates of one at a time (`lme4py.covariance.relations.descent`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lme4py.covariance.relations.descent import Ancestry
from lme4py.covariance.relations.relation import SparseRelation
from lme4py.errors import DataError, did_you_mean
from lme4py.frozen import computed_once, freeze
from lme4py.linalg.types import BoolArray, FloatArray, IntArray, sparse

__all__ = ["Pedigree"]

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
        rows = self._descent.ancestry(np.array([place[label] for label in chosen], dtype=np.intp))
        mendelian = self._descent.mendelian(self._inbreeding)
        A = (rows @ sparse.diags_array(mendelian) @ rows.T).toarray()
        index = pd.Index(chosen, tupleize_cols=False)
        return pd.DataFrame(0.5 * (A + A.T), index=index, columns=index)

    # -- numbers -------------------------------------------------------------------------------------------------

    @computed_once
    def relation(self) -> PedigreeRelation:
        """The covariance of the animals' effects, in the order of `labels`."""
        return PedigreeRelation(self._descent, self._inbreeding)

    @computed_once
    def _descent(self) -> Ancestry:
        return Ancestry(self._parents, self._generation)

    @computed_once
    def _inbreeding(self) -> FloatArray:
        """F, shape (n,)."""
        return self._descent.inbreeding()


class PedigreeRelation(SparseRelation):
    """Additive relationships A of animals.

    Parameters
    ----------
    descent : Ancestry
    inbreeding : ndarray, shape (n,)
    """

    _kept: tuple[str, ...] = (*SparseRelation._kept, "descent", "_sd")

    def __init__(self, descent: Ancestry, inbreeding: FloatArray) -> None:
        mendelian = descent.mendelian(inbreeding)
        self.descent = descent
        self._sd = np.sqrt(mendelian)[:, None]
        own = sparse.eye_array(inbreeding.size, format="csr") - descent.share
        H = (sparse.diags_array(1.0 / self._sd[:, 0]) @ own).tocsr()
        super().__init__((H.T @ H).tocsc(), H, float(np.log(mendelian).sum()), 1.0 + inbreeding)

    # H^-1 = (I - P)^-1 D^1/2 needs no factor: it goes through the generations.

    def times(self, x: FloatArray) -> FloatArray:
        return self.root(self.root_transposed(x))

    def root(self, z: FloatArray) -> FloatArray:
        return self.descent.down(self._sd * z)

    def root_transposed(self, x: FloatArray) -> FloatArray:
        return self._sd * self.descent.up(x)


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
