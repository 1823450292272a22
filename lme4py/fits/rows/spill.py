"""Rows of a model in parts that hold whole groups, as numbers in files of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lme4py.design.streaming.stream import ModelRows
from lme4py.errors import OptionError
from lme4py.linalg.types import IntArray

__all__ = ["Nesting", "Spill"]


class Nesting:
    """Whether every level of the other factors has rows in one level of the outer one only.

    Parameters
    ----------
    outer : int
        Position of the outer factor.
    sizes : sequence of int
        Levels of each factor.
    names : sequence of str
    """

    def __init__(self, outer: int, sizes: Sequence[int], names: Sequence[str]) -> None:
        self.outer, self.names = outer, names
        self.homes = [np.full(size, -1) for size in sizes]

    def add(self, codes: Sequence[IntArray]) -> None:
        """Look at some rows.

        Raises
        ------
        OptionError
            Factors that are crossed.
        """
        outer = codes[self.outer]
        for f, (home, own) in enumerate(zip(self.homes, codes, strict=True)):
            new = home[own] < 0
            home[own[new]] = outer[new]
            if (home[own] != outer).any():
                raise OptionError(
                    f"the grouping factors {self.names[self.outer]} and {self.names[f]} are crossed, and generalised "
                    "models stream rows of one factor, or of nested ones; read them into memory with "
                    "control={'rows': 'memory'}."
                )


@dataclass(frozen=True)
class Spill:
    """Files of rows, each with whole groups of the outer factor.

    Attributes
    ----------
    folder : Path
    widths : tuple of int
        Columns of X, of the response, of the weights and of the offset (0 or 1), and of Z of each term.
    part_of : ndarray of int, shape (J,)
        Part of each level of the outer factor.
    n_parts : int
    n_terms : int
    """

    folder: Path
    widths: tuple[int, ...]
    part_of: IntArray
    n_parts: int
    n_terms: int

    def add(self, rows: ModelRows, outer: IntArray) -> None:
        """Write some rows to the files of their groups.

        Parameters
        ----------
        rows : ModelRows
        outer : ndarray of int, shape (n,)
            Their levels of the outer factor.
        """
        y = rows.y.reshape(rows.n, -1)
        beside = [one[:, None] for one in (rows.weights, rows.offset) if one is not None]
        codes = np.column_stack(rows.codes).astype(np.float64)
        table = np.hstack([rows.X, y, *beside, *rows.Z, codes])
        part = self.part_of[outer]
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=self.n_parts))
        for number, own in enumerate(np.split(table[order], ends[:-1])):
            if own.shape[0]:
                with (self.folder / f"{number}.bin").open("ab") as file:
                    np.ascontiguousarray(own).tofile(file)

    def read(self, number: int) -> ModelRows:
        """The rows of a part."""
        width = sum(self.widths) + self.n_terms
        table = np.fromfile(self.folder / f"{number}.bin").reshape(-1, width)
        ends = np.cumsum(self.widths)
        X, y, weights, offset, *Z = np.split(table[:, : ends[-1]], ends[:-1], axis=1)
        codes = table[:, ends[-1] :].astype(np.intp)
        return ModelRows(
            np.ascontiguousarray(X),
            np.ascontiguousarray(y[:, 0] if self.widths[1] == 1 else y),
            tuple(np.ascontiguousarray(own) for own in Z),
            tuple(np.ascontiguousarray(own) for own in codes.T),
            np.ascontiguousarray(weights[:, 0]) if weights.size else None,
            np.ascontiguousarray(offset[:, 0]) if offset.size else None,
        )

    def has(self, number: int) -> bool:
        """Whether a part has rows."""
        return (self.folder / f"{number}.bin").exists()
