"""The response of a model of unordered categories: a category for each row, or counts of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.errors import DataError
from lme4py.families.coercion import whole_numbers
from lme4py.families.ordered.categories import MAX_CATEGORIES, category_label, positions
from lme4py.families.response import ResponseData
from lme4py.formula.values import Value
from lme4py.linalg.types import FloatArray

__all__ = [
    "category_counts",
    "category_label",
    "category_shares",
    "category_trials",
    "column_labels",
    "unordered_response",
    "with_counts",
]


def unordered_response(value: Value, name: str, weights: FloatArray | None) -> ResponseData:
    """Categories without an order: `y` holds their positions.

    Parameters
    ----------
    value : Value
        Of ``cbind(a, b, c)`` the categories are the columns, under their names.
    name : str
    weights : ndarray, shape (n,), optional

    Raises
    ------
    DataError
        Numbers with decimals, one category, too many, or one that never occurs.
    """
    if value.kind == "matrix":
        return category_counts(value.values, column_labels(value), f"response '{name}'", weights)
    codes, found = positions(value, name)
    _check_number(len(found), f"the response '{name}' has {len(found)} distinct values in the rows used")
    return ResponseData(codes.astype(np.float64), None, weights, tuple(found))


def category_counts(
    values: FloatArray, categories: Sequence[Any], name: str, weights: FloatArray | None = None
) -> ResponseData:
    """How many trials of a row had each category; a row without trials says nothing and does no harm.

    Parameters
    ----------
    values : ndarray, shape (n, K)
    categories : sequence, length K
    name : str
        For messages.
    weights : ndarray, shape (n,), optional

    Raises
    ------
    DataError
        Numbers that are no counts, or a category that never occurs.
    """
    labels = [category_label(level) for level in categories]
    _check_number(len(labels), f"the {name} has {len(labels)} columns")
    if values.ndim != 2 or values.shape[1] != len(labels):
        raise DataError(f"the {name} needs {len(labels)} columns of counts, one for each of {', '.join(labels)}.")
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise DataError(f"the {name} has the column {twice[0]!r} twice; give each category once")
    need = "columns of a multinomial response count the trials of each category, 0, 1, 2, ..."
    counts = np.column_stack(
        [
            whole_numbers(column, f"the counts of {label!r}", need)
            for column, label in zip(values.T, labels, strict=True)
        ]
    )
    absent = [repr(label) for label, column in zip(labels, counts.T, strict=True) if not column.any()]
    if absent:
        raise DataError(
            f"the {name} never has {', '.join(absent)} in the {len(counts)} rows used, whose coefficients are then "
            "infinite; leave out these columns"
        )
    return with_counts(ResponseData(np.zeros(len(counts)), None, weights, tuple(categories)), counts)


def with_counts(data: ResponseData, counts: FloatArray) -> ResponseData:
    """Rows whose trials had the categories so often.

    Parameters
    ----------
    data : ResponseData
    counts : ndarray, shape (n, K)
    """
    mean = counts @ np.arange(counts.shape[1]) / np.maximum(counts.sum(axis=1), 1.0)
    return replace(data, y=mean, counts=counts)


def category_shares(data: ResponseData) -> FloatArray:
    """Which part of the trials of each row had each category, (n, K); NaN in rows without trials.

    Parameters
    ----------
    data : ResponseData
        With its categories.
    """
    with np.errstate(invalid="ignore"):
        shares: FloatArray = category_trials(data, len(data.categories or ())) / data.totals[:, None]
    return shares


def category_trials(data: ResponseData, K: int) -> FloatArray:
    """How many trials of each row had each category, (n, K).

    Parameters
    ----------
    data : ResponseData
    K : int
    """
    if data.counts is not None:
        return data.counts
    shown: FloatArray = (data.codes[:, None] == np.arange(K)).astype(np.float64)
    return shown


def column_labels(value: Value) -> tuple[str, ...]:
    """Names of the columns of ``cbind(a, b, c)``.

    Parameters
    ----------
    value : Value
    """
    return tuple(suffix.removeprefix("[").removesuffix("]") for suffix in value.suffixes)


def _check_number(count: int, what: str) -> None:
    if not 2 <= count <= MAX_CATEGORIES:
        raise DataError(f"{what}; a multinomial model needs 2 to {MAX_CATEGORIES} categories")
