"""Rows that a user chooses by an expression (``subset=``), before anything is read off the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import in_row_order, with_index
from lme4py.data.frame import Frame, missing_rows, read_frame
from lme4py.data.sources import find_source
from lme4py.design.beside.given import given_text
from lme4py.errors import DataError, OptionError
from lme4py.formula.deparse import names_in
from lme4py.formula.evaluate import evaluate

__all__ = ["subset_rows"]


def subset_rows(data: Any, subset: Any, beside: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The rows of the data in which an expression is true, and the values that stand beside these rows.

    Parameters
    ----------
    data : data frame
    subset : str, or array of bool of shape (n,), or None
        An expression in the language of formulas, such as ``"Days > 1"``; a row in which it is missing is left out.
    beside : dict of str to object
        Arguments with one value for each row (weights, offset); those given as values are cut to the same rows.

    Returns
    -------
    data : data frame
        Of the same library.
    beside : dict

    Raises
    ------
    OptionError, DataError, FormulaError
        What is no condition of the columns, that is true in no row, or data that are not in memory.

    Examples
    --------
    >>> subset_rows({"x": [1.0, 2.0, 3.0]}, "x > 1", {"weights": [4.0, 5.0, 6.0]})
    ({'x': [2.0, 3.0]}, {'weights': [5.0, 6.0]})
    """
    if subset is None:
        return data, dict(beside)
    data, source = find_source(data)
    if source is not None:
        raise OptionError("subset= needs its rows in memory; filter the data where they are, before the fit.")
    frame = read_frame(data)
    mask = _text_mask(frame, subset) if isinstance(subset, str) else _given_mask(subset, frame)
    if not mask.any():
        what = f"subset={subset!r}" if isinstance(subset, str) else "`subset`"
        raise DataError(f"{what} is true in none of the {frame.n_rows} rows.")
    return _cut(data, mask), {name: _cut_values(value, mask, frame) for name, value in beside.items()}


def _text_mask(frame: Frame, text: str) -> NDArray[np.bool_]:
    given = given_text(text, "subset", frame.names)
    assert given.node is not None
    # A condition is not known where a value in it is missing.
    known = ~missing_rows([frame.column(name) for name in names_in(given.node, frame.names)], frame.n_rows)
    value = evaluate(given.node, lambda name: frame.column(name).take(known), {})
    if value.kind != "boolean":
        raise OptionError(f"subset={text!r} is no condition; write a comparison, such as 'x > 1' or 'g == \"a\"'.")
    mask = np.zeros(frame.n_rows, dtype=bool)
    mask[known] = value.values != 0.0
    return mask


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
