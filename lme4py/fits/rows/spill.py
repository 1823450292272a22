"""Rows of a model in parts that hold whole groups, as numbers in files of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lme4py.design.streaming.stream import ModelRows
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Nesting", "RowTable", "Spill", "is_many"]

# Levels for each part from which parts of whole groups are about equal.
_MANY = 20


def is_many(n_levels: int, n_parts: int) -> bool:
    """Whether parts of whole groups are about equal."""
    return n_levels >= _MANY * n_parts


class Nesting:
    """Whether every level of the other factors has rows in one level of the outer one only.

    Parameters
    ----------
    outer : int
        Position of the outer factor.
    sizes : sequence of int
        Levels of each factor.
    names : sequence of str

    Attributes
    ----------
    crossed : str
        A factor of which that is not so; "" where there is none.
    """

    def __init__(self, outer: int, sizes: Sequence[int], names: Sequence[str]) -> None:
        self.outer, self.names = outer, names
        self.homes = [np.full(size, -1) for size in sizes]
        self.crossed = ""

    def add(self, codes: Sequence[IntArray]) -> None:
        """Look at some rows; the name of the first factor that is crossed with the outer one is kept."""
        outer = codes[self.outer]
        for f, (home, own) in enumerate(zip(self.homes, codes, strict=True)):
            new = home[own] < 0
            home[own[new]] = outer[new]
            if not self.crossed and (home[own] != outer).any():
                self.crossed = self.names[f]


@dataclass(frozen=True)
class RowTable:
    """Rows of a model as a table of numbers.

    Attributes
    ----------
    widths : tuple of int
        Columns of X, of the response, of the weights and of the offset (0 or 1), and of Z of each term; the codes of
        each term come last.
    """

    widths: tuple[int, ...]

    @property
    def n_terms(self) -> int:
        """Number of random terms."""
        return len(self.widths) - 4

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(self.widths) + self.n_terms

    def code(self, term: int) -> int:
        """The column of the codes of a term."""
        return sum(self.widths) + term

    def codes(self, table: FloatArray) -> tuple[IntArray, ...]:
        """The codes of each term, (n,)."""
        return tuple(table[:, self.code(term)].astype(np.intp) for term in range(self.n_terms))

    def of_rows(self, rows: ModelRows) -> FloatArray:
        """The table of some rows, (n, width)."""
        y = rows.y.reshape(rows.n, -1)
        beside = [one[:, None] for one in (rows.weights, rows.offset) if one is not None]
        return np.hstack([rows.X, y, *beside, *rows.Z, np.column_stack(rows.codes).astype(np.float64)])

    def rows(self, table: FloatArray) -> ModelRows:
        """The rows of a table, (n, width)."""
        ends = np.cumsum(self.widths)
        X, y, weights, offset, *Z = np.split(table[:, : ends[-1]], ends[:-1], axis=1)
        return ModelRows(
            np.ascontiguousarray(X),
            np.ascontiguousarray(y[:, 0] if self.widths[1] == 1 else y),
            tuple(np.ascontiguousarray(own) for own in Z),
            self.codes(table),
            np.ascontiguousarray(weights[:, 0]) if weights.size else None,
            np.ascontiguousarray(offset[:, 0]) if offset.size else None,
        )


@dataclass(frozen=True)
class Spill:
    """Files of rows, each with whole groups of the outer factor.

    Attributes
    ----------
    folder : Path
    layout : RowTable
    part_of : ndarray of int, shape (J,)
        Part of each level of the outer factor.
    n_parts : int
    prefix : str
        Of the names of the files.
    """

    folder: Path
    layout: RowTable
    part_of: IntArray
    n_parts: int
    prefix: str = ""

    def add(self, rows: ModelRows, outer: IntArray) -> None:
        """Write some rows to the files of their groups.

        Parameters
        ----------
        rows : ModelRows
        outer : ndarray of int, shape (n,)
            Their levels of the outer factor.
        """
        self._write(self.layout.of_rows(rows), self.part_of[outer])

    def _write(self, table: FloatArray, part: IntArray) -> None:
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=self.n_parts))
        for number, own in enumerate(np.split(table[order], ends[:-1])):
            if own.shape[0]:
                with self._path(number).open("ab") as file:
                    np.ascontiguousarray(own).tofile(file)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.prefix}{number}.bin"

    def n_rows(self, number: int) -> int:
        """Rows of a part."""
        path = self._path(number)
        return path.stat().st_size // (8 * self.layout.width) if path.exists() else 0

    def n_bytes(self, number: int, beside: int = 0) -> int:
        """Of a part.

        Parameters
        ----------
        number : int
        beside : int
            Numbers that are kept beside each row.
        """
        return 8 * self.n_rows(number) * (self.layout.width + beside)

    def again(self, term: int, n_levels: int, n_parts: int, at_once: int) -> Spill:
        """The same rows in other parts; the files of these are removed.

        Parameters
        ----------
        term : int
            Parts hold whole groups of this term where it has many more levels than there are parts, else any rows.
        n_levels : int
        n_parts : int
        at_once : int
            Rows in memory at one time.
        """
        rng = np.random.default_rng(0)
        other = replace(self, part_of=rng.permutation(n_levels) % n_parts, n_parts=n_parts, prefix=f"{self.prefix}r")
        whole = is_many(n_levels, n_parts)
        for number in range(self.n_parts):
            if not self.has(number):
                continue
            with self._path(number).open("rb") as file:
                while (table := np.fromfile(file, count=at_once * self.layout.width)).size:
                    table = table.reshape(-1, self.layout.width)
                    codes = table[:, self.layout.code(term)].astype(np.intp)
                    other._write(table, other.part_of[codes] if whole else rng.integers(n_parts, size=len(table)))
            self._path(number).unlink()
        return other

    def read(self, number: int) -> ModelRows:
        """The rows of a part."""
        return self.layout.rows(np.fromfile(self._path(number)).reshape(-1, self.layout.width))

    def keep(self, number: int, name: str, values: IntArray) -> None:
        """Write whole numbers of the rows of a part beside them.

        Parameters
        ----------
        number : int
        name : str
        values : ndarray of int, shape (n,)
        """
        values.astype(np.int64).tofile(self.folder / f"{self.prefix}{number}.{name}")

    def kept(self, number: int, name: str) -> IntArray:
        """What was written so."""
        return np.fromfile(self.folder / f"{self.prefix}{number}.{name}", dtype=np.int64)

    def has(self, number: int) -> bool:
        """Whether a part has rows."""
        return self._path(number).exists()
