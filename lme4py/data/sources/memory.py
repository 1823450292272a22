"""Rows that are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.data.sources.base import MadeColumns, RowBlock, RowSource, Schema

__all__ = ["MemorySource"]


class MemorySource(RowSource):
    """A data frame in memory, some rows at a time.

    Parameters
    ----------
    frame : Frame
    size : int, optional
        Rows of a block.

    Examples
    --------
    >>> from lme4py.data.frame import read_frame
    >>> source = MemorySource(read_frame({"x": [1.0, 2.0, 3.0]}), size=2)
    >>> [block.frame.column("x").values.tolist() for block in source.blocks()]
    [[1.0, 2.0], [3.0]]
    """

    place = "memory"

    def __init__(self, frame: Frame, size: int | None = None) -> None:
        self.frame = frame
        if size is not None:
            self.rows_at_once = size

    def schema(self) -> Schema:
        """Names of the columns."""
        return Schema(self.frame.names)

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The rows in their order."""
        n = self.frame.n_rows
        for start in range(0, n, self.rows_at_once):
            own = np.arange(start, min(start + self.rows_at_once, n))
            yield RowBlock(self.frame.take(own), f"rows from {start} on")

    def lazily(self, made: MadeColumns) -> Any:
        """A pandas DataFrame on the index of the rows: they are in memory."""
        import pandas as pd

        if made.keep or made.where is not None:
            return super().lazily(made)
        parts = [made.function(block.frame) for block in self.blocks()]
        columns = {name: np.concatenate([one[name] for one in parts]) for name in made.names}
        return pd.DataFrame(columns, self.frame.index)

    def count(self) -> int | None:
        """Of the frame."""
        return self.frame.n_rows
