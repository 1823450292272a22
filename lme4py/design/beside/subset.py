"""Rows that a user chooses by an expression (``subset=``), before anything is read off the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import in_row_order, with_index
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources import find_source
from lme4py.design.streaming.chosen import choose_rows, read_condition
from lme4py.errors import DataError, OptionError

__all__ = ["subset_rows"]


def subset_rows(data: Any, subset: Any, beside: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The rows of the data in which an expression is true, and the values that stand beside these rows.

    Parameters
    ----------
    data : data frame, or rows that are streamed
    subset : str, or array of bool of shape (n,), or None
        An expression in the language of formulas, such as ``"Days > 1"``; a row in which it is missing is left out.
    beside : dict of str to object
        Arguments with one value for each row (weights, offset); those given as values are cut to the same rows.

    Returns
    -------
    data : data frame or RowSource
        A frame of the same library; the rows of a source where they are.
    beside : dict

    Raises
    ------
    OptionError, DataError, FormulaError
        What is no condition of the columns or true in no row, and values for rows that are streamed.

    Examples
    --------
    >>> subset_rows({"x": [1.0, 2.0, 3.0]}, "x > 1", {"weights": [4.0, 5.0, 6.0]})
    ({'x': [2.0, 3.0]}, {'weights': [5.0, 6.0]})
    """
    if subset is None:
        return data, dict(beside)
    data, source = find_source(data)
    if source is not None:
        if not isinstance(subset, str):
            raise OptionError(
                f"`subset` is of type {type(subset).__name__}, but the rows are streamed, in an order of their own; "
                "give a condition of columns, such as 'x > 1'."
            )
        return choose_rows(source, subset), dict(beside)
    frame = read_frame(data)
    mask = read_condition(subset, frame.names)(frame) if isinstance(subset, str) else _given_mask(subset, frame)
    if not mask.any():
        what = f"subset={subset!r}" if isinstance(subset, str) else "`subset`"
        raise DataError(f"{what} is true in none of the {frame.n_rows} rows.")
    return _cut(data, mask), {name: _cut_values(value, mask, frame) for name, value in beside.items()}


def _given_mask(values: Any, frame: Frame) -> NDArray[np.bool_]:
    mask = np.asarray(in_row_order(values, "subset", frame))
    if mask.dtype != np.bool_ or mask.shape != (frame.n_rows,):
        raise OptionError(
            f"`subset` is neither text nor {frame.n_rows} values True or False, one for each row of the data."
        )
    return mask


def _cut(data: Any, mask: NDArray[np.bool_]) -> Any:
    if isinstance(data, Mapping):
        return {name: _cut_sequence(values, mask) for name, values in data.items()}
    # Not for those who only import the package.
    import narwhals.stable.v1 as nw

    return nw.to_native(nw.from_native(data, eager_only=True).filter(mask.tolist()))


def _cut_values(values: Any, mask: NDArray[np.bool_], frame: Frame) -> Any:
    """Values of the rows that are kept; a name, or None, stays; of a mapping or a frame, those of each column."""
    if isinstance(values, Mapping):
        return {name: _cut_values(own, mask, frame) for name, own in values.items()}
    if getattr(values, "columns", None) is not None and not hasattr(values, "loc"):
        return _cut(values, mask)
    found = with_index(values)
    if found is None:
        return _cut_sequence(values, mask)
    if not found.index.equals(frame.index):
        return values  # to be matched with the rows that are kept by their labels, or refused
    return found[mask] if frame.labelled else found.to_numpy()[mask]


def _cut_sequence(values: Any, mask: NDArray[np.bool_]) -> Any:
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != mask.size:
        return values
    if isinstance(values, list):
        return [value for value, kept in zip(values, mask.tolist(), strict=True) if kept]
    if hasattr(values, "index") and hasattr(values, "loc"):
        return values[mask]
    return np.asarray(values)[mask]
