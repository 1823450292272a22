"""The rows over which an estimand is averaged: the data themselves, or a summary of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.beside.given import column_of_text
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.linalg.types import FloatArray
from lme4py.margins.models.adapter import ModelAdapter, Random, frame_of
from lme4py.margins.models.nesting import NestedCells
from lme4py.margins.population.scenarios import value_column

__all__ = ["AT", "Population", "SessionRows"]

AT: Final = ("overall", "mean", "median", "typical", "balanced")
# Rows of a grid of the levels of all factors.
_MOST_ROWS: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Population:
    """Rows with weights.

    Attributes
    ----------
    frame : Frame
    weights : ndarray, shape (n,)
        They sum to 1.
    offset : ndarray, shape (n,), or None
        Known part of the linear predictor that belongs to the rows.
    n_obs : int
        Rows of data behind it.
    collapse : bool
        Average the design before the curve is applied (means of the columns, as Stata's atmeans).
    index : ndarray or None
        Labels of the rows, where they are rows of data.
    cells : NestedCells or None
        Nested factors: only the rows that are cells of the design count.
    """

    frame: Frame
    weights: FloatArray
    offset: FloatArray | None
    n_obs: int
    collapse: bool = False
    index: Any = None
    cells: NestedCells | None = None


class SessionRows:
    """The rows of a session, as `at` and `weights` say.

    Parameters
    ----------
    adapter : ModelAdapter
    at : str, dict or data frame
    weights : array of shape (n,), str or None
    random : str
    """

    def __init__(self, adapter: ModelAdapter, at: Any, weights: Any, random: Random) -> None:
        self.adapter = adapter
        self.random = random
        self.names = adapter.needed(random)
        self.fixed: dict[str, Any] = {}
        self.kind = "overall"
        self.given: Frame | None = None
        if isinstance(at, str):
            if at not in AT:
                raise OptionError(f"at={at!r} is not known.{did_you_mean(at, AT)} Use one of {', '.join(AT)}.")
            self.kind = at
        elif isinstance(at, Mapping) and not hasattr(at, "iloc"):
            self.fixed = {str(name): value for name, value in at.items()}
            for name in self.fixed:
                self.check_name(name)
        else:
            self.given = adapter.rows_given(at)
        if random not in ("zero", "integrate") and self.kind != "overall":
            raise OptionError(
                f"random={random!r} needs rows with groups, and at={self.kind!r} has none; use at='overall'."
            )
        self.columns, self.n_rows = self._source()
        self._check_offset()
        self.weights = self._weights(weights)

    def _check_offset(self) -> None:
        """What belongs to the rows of the fit and stands in no column cannot be had for other rows."""
        if self.given is not None and self.adapter.training_offset(self.random) is not None:
            raise OptionError(
                "part of the linear predictor belongs to the rows of the fit and is in no column of the data, such as "
                "an offset that was given as an array: predictions at other rows need theirs. Fit the model with the "
                "offset as a column or an expression, or leave out at=."
            )

    def beside(self, values: Any, what: str, *, as_labels: bool = False) -> Column:
        """An argument with a value for each row of the session, or of the data that the model was fitted to.

        Parameters
        ----------
        values : array-like
            With an index matched by it.
        what : str
            Name of the argument, for messages.
        as_labels : bool
            Labels of groups; otherwise numbers.
        """
        if self.given is not None:
            return beside(values, what, self.given, as_labels=as_labels)
        return self.adapter.beside(values, what, as_labels=as_labels)

    def check_name(self, name: str) -> None:
        """Refuse a variable on which predictions do not depend."""
        if name not in self.names:
            if name in self.adapter.columns:
                raise OptionError(
                    f"{name!r} is not a predictor of {self.adapter.model_name}: predictions do not depend on it. The "
                    f"predictors are: {', '.join(self.names) or 'none'}."
                )
            hint = did_you_mean(name, self.names)
            raise OptionError(f"there is no variable {name!r} in the model.{hint} It has {', '.join(self.names)}.")

    def _source(self) -> tuple[dict[str, Column], int]:
        adapter = self.adapter
        if self.given is None:
            columns, n = dict(adapter.columns), adapter.n_rows
        else:
            columns, n = self._given_columns(self.given), self.given.n_rows
        for name, value in self.fixed.items():
            columns[name] = value_column(adapter, name, [value], self.columns_of(name)).take(np.zeros(n, dtype=np.intp))
        return columns, n

    def columns_of(self, name: str) -> Column:
        """Training column of a variable."""
        return self.adapter.columns[name]

    def column(self, name: str) -> Column | None:
        """Any column of the rows, also one that the model does not use; None where there is none."""
        if name in self.fixed:
            # Groups and weights are those of the data, whatever the variable is set to.
            return self.adapter.columns[name]
        if name in self.columns:
            return self.columns[name]
        if self.given is not None:
            return self.given.column(name) if name in self.given else None
        return self.adapter.other_column(name)

    def _given_columns(self, frame: Frame) -> dict[str, Column]:
        columns: dict[str, Column] = {}
        if frame.n_rows == 0:
            raise DataError("`at` holds no rows; give at least one.")
        for name in frame.names:
            if name in self.names or name in self.adapter.columns:
                columns[name] = frame.column(name)
        absent = [name for name in self.names if name not in columns]
        if absent:
            raise DataError(f"the rows given as `at` have no column {absent[0]!r}, which the model uses; add it.")
        for name in self.names:
            missing = int(columns[name].missing().sum())
            if missing:
                raise DataError(f"column {name!r} of `at` has {missing} missing value(s); remove these rows.")
        return columns

    def _weights(self, weights: Any) -> FloatArray:
        if weights is None:
            return np.ones(self.n_rows)
        if isinstance(weights, str):
            column = self._weights_of_text(weights)
            if column.is_factor:
                raise OptionError(f"weights={weights!r} is a column of labels; weights must be numbers.")
        else:
            column = self.beside(weights, "weights")
        values = np.asarray(column.values, dtype=np.float64)
        if not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise OptionError("`weights` must be finite and not negative, with a positive sum.")
        return values

    def _weights_of_text(self, weights: str) -> Column:
        """Weights by name, or by an expression in the language of formulas."""
        column = self.columns.get(weights)
        if column is None:
            given = self.given
            column = self.column(weights) if given is None else column_of_text(weights, "weights", given)
        if column is None:
            raise OptionError(
                f"weights={weights!r} is not a column of the model or of its data, nor an expression of such columns "
                "(a result that was pickled holds the columns of its formula only); give the weights as an array."
            )
        return column

    # --- populations

    def everything(self) -> NDArray[np.intp]:
        """Positions of all rows with a weight."""
        return np.flatnonzero(self.weights > 0)

    def population(self, moving: Collection[str], rows: NDArray[np.intp] | None = None) -> Population:
        """The population when scenarios set the variables `moving`.

        Parameters
        ----------
        moving : collection of str
        rows : ndarray of int, optional
            A part of the rows (a group of `over`).
        """
        chosen = self.everything() if rows is None else rows
        weights = self.weights[chosen] / self.weights[chosen].sum()
        offset = self._row_offset(chosen)
        if self.kind == "overall":
            columns = {name: self.columns[name].take(chosen) for name in self.names}
            frame = frame_of(columns, chosen.size)
            labels = self.adapter.row_labels if self.given is None else self.given.index
            return Population(frame, weights, offset, chosen.size, index=labels[chosen])
        frame, cells = self._summary(moving, chosen, weights)
        known = self._middle_offset(frame, moving, chosen, weights)
        if offset is not None:
            known = self._middle(offset, weights) + (np.zeros(frame.n_rows) if known is None else known)
        collapse = self.kind in ("mean", "median")
        nested = self.adapter.cells if self.kind == "balanced" else None
        return Population(frame, cells, known, chosen.size, collapse=collapse, cells=nested)

    def _middle(self, values: FloatArray, weights: FloatArray) -> float:
        return _median(values, weights) if self.kind == "median" else float(weights @ values)

    def _middle_offset(
        self, frame: Frame, moving: Collection[str], chosen: NDArray[np.intp], weights: FloatArray
    ) -> FloatArray | None:
        """What brings every offset, as computed from a summary of its columns, to the middle of its own values.

        An offset is what it is on the scale of the linear predictor, however it was spelt: ``offset(log(t))``, a column
        or an array of log t. One whose columns are set goes with them.
        """
        summaries = self.adapter.offsets(frame)
        if all(names & set(moving) for names, _ in summaries):
            return None
        rows = frame_of({name: self.columns[name].take(chosen) for name in self.names}, chosen.size)
        out = np.zeros(frame.n_rows)
        for (names, values), (_, summary) in zip(self.adapter.offsets(rows), summaries, strict=True):
            if not names & set(moving):
                out += self._middle(values, weights) - summary
        return out

    def _row_offset(self, chosen: NDArray[np.intp]) -> FloatArray | None:
        offset = None if self.given is not None else self.adapter.training_offset(self.random)
        return None if offset is None else offset[chosen]

    def _summary(
        self, moving: Collection[str], chosen: NDArray[np.intp], weights: FloatArray
    ) -> tuple[Frame, FloatArray]:
        """One value of each number, and the levels of factors with their shares."""
        parts: list[tuple[str, Column, FloatArray]] = []
        for name in self.names:
            column = self.columns[name].take(chosen)
            parts.append((name, *self._summarised(name, column, weights, name in moving)))
        sizes = [share.size for _, _, share in parts]
        n = int(np.prod([float(size) for size in sizes]))
        if n > _MOST_ROWS:
            raise OptionError(
                f"at={self.kind!r} needs {n} combinations of the levels of the factors; fix some of them with "
                "at={name: level, ...}, or use at='typical'."
            )
        places = np.indices(sizes).reshape(len(sizes), -1)
        columns = {name: column.take(place) for (name, column, _), place in zip(parts, places, strict=True)}
        total = np.ones(n)
        for (_, _, share), place in zip(parts, places, strict=True):
            total = total * share[place]
        return frame_of(columns, n), total

    def _summarised(self, name: str, column: Column, weights: FloatArray, moves: bool) -> tuple[Column, FloatArray]:
        one = np.ones(1)
        if moves:
            return column.take(np.zeros(1, dtype=np.intp)), one
        # emmeans treats a number with two values as a factor.
        two = self.kind == "balanced" and np.unique(column.values).size == 2
        if not self.adapter.is_categorical(name) and not two:
            middle = _median(column.values, weights) if self.kind == "median" else float(weights @ column.values)
            return Column(name, column.kind, np.array([middle])), one
        distinct, inverse = np.unique(column.values, return_inverse=True)
        shares: FloatArray = np.bincount(inverse, weights=weights).astype(np.float64)
        levels = Column(name, column.kind, distinct, column.levels)
        if self.kind == "typical":
            return levels.take(np.array([int(shares.argmax())])), one
        return levels, np.full(shares.size, 1.0 / shares.size) if self.kind == "balanced" else shares


def _median(values: FloatArray, weights: FloatArray) -> float:
    """Weighted median: the middle of the values where the cumulated weight reaches one half."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    first = int(np.searchsorted(reached, 0.5 * (1.0 - 1e-12)))
    second = int(np.searchsorted(reached, 0.5 * (1.0 + 1e-12)))
    last = values.size - 1
    return float(0.5 * (values[order[min(first, last)]] + values[order[min(second, last)]]))
