"""Values that stand beside the data: matched with its rows by their labels, or refused; by position without labels."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lme4py.data import Frame, beside, read_frame
from lme4py.errors import DataError

NAN = np.nan
NUMBERS = [1.0, 2.0, NAN]


def frame_with(index: Any = None) -> Frame:
    """Three rows of pandas data."""
    return read_frame(pd.DataFrame({"x": [0.0, 0.0, 0.0]}, index=index))


def matched(values: Any, index: Any = None, used: Any = None) -> list[float]:
    column = beside(values, "weights", frame_with(index), used)
    assert (column.name, column.kind) == ("weights", "numeric")
    return column.values.tolist()


# Without labels: in the order of the rows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.0, None],
        (1, 2, NAN),
        np.array([1, 2, NAN]),
        np.array([[1], [2], [NAN]]),
        pd.Series([1, 2, None]),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.DataFrame({"w": [1, 2, None]}),
        pd.Index([1, 2, NAN]),
        pl.Series([1, 2, None]),
        pl.DataFrame({"w": [1, 2, None]}),
        pa.array([1, 2, None]),
        pa.table({"w": [1, 2, None]}),
        nw.from_native(pl.Series([1.0, 2.0, None]), series_only=True),
        nw.from_native(pd.Series([1.0, 2.0, None]), series_only=True),
    ],
)
@pytest.mark.parametrize("data", [pd.DataFrame, pl.DataFrame, pa.table, dict])
def test_values_in_the_order_of_the_rows(values: Any, data: Any) -> None:
    column = beside(values, "weights", read_frame(data({"x": [0.0, 0.0, 0.0]})))
    assert (column.name, column.kind) == ("weights", "numeric")
    np.testing.assert_array_equal(column.values, NUMBERS)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([1.0, 2.0], "`weights` has 2 values but the data have 3 rows; give one number per row"),
        ([1.0], "`weights` has 1 value but the data have 3 rows"),
        (2.0, "`weights` is of type float; give a column name, or one value for each of the 3 rows"),
        (np.array(2.0), "`weights` is of type ndarray; give a column name"),
        ({"a": 1.0}, "`weights` is of type dict; give a column name"),
        (np.ones((3, 2)), r"`weights` has shape \(3, 2\)"),
        (pd.DataFrame({"w": [1, 2, 3], "v": 1}), "`weights` is a data frame with 2 columns"),
        ([[1], [1, 2], [3]], r"`weights` holds \[1\] of type list in row 0"),
        (["a", "b", "c"], "`weights` holds text values, not numbers"),
        ([True, False, True], "`weights` holds boolean values, not numbers"),
        (pd.Categorical([1, 2, 3]), "`weights` holds factor values, not numbers"),
        ([2**60 + 1, 2, 3], "`weights` holds the integer 1152921504606846977"),
        (iter([1, 2, 3]), "`weights` is of type list_iterator"),
    ],
)
def test_values_that_do_not_fit(values: Any, fault: str) -> None:
    with pytest.raises(DataError, match=f"^{fault}"):
        beside(values, "weights", frame_with())


# With labels ---------------------------------------------------------------------------------------------------

DAYS = pd.date_range("2020-01-01", periods=3)
PAIRS = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["site", "visit"])


@pytest.mark.parametrize(
    "index",
    [
        [0, 1, 2],
        [2, 0, 1],
        ["r", "s", "t"],
        [0.5, 1.5, -1.0],
        DAYS,
        DAYS.tz_localize("Europe/Rome"),
        DAYS.to_period("D"),
        PAIRS,
        pd.CategoricalIndex(["u", "v", "w"]),
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2]])
def test_labels_decide(index: Any, order: list[int]) -> None:
    values = pd.Series([10.0, 20.0, 30.0], index=pd.Index(index)).iloc[order]
    assert matched(values, index) == [10.0, 20.0, 30.0]
    assert matched(values.to_frame(), index) == [10.0, 20.0, 30.0]
    assert matched(nw.from_native(values, series_only=True), index) == [10.0, 20.0, 30.0]


def test_more_labels_than_rows() -> None:
    values = pd.Series(np.arange(6.0), index=list("fedcba"))
    assert matched(values, list("bdf")) == [4.0, 2.0, 0.0]


def test_levels_of_labels_are_matched_by_their_names() -> None:
    swapped = pd.Series([10.0, 20.0, 30.0], index=PAIRS).reorder_levels(["visit", "site"])
    assert matched(swapped.iloc[::-1], PAIRS) == [10.0, 20.0, 30.0]


def test_repeated_labels_in_the_same_order() -> None:
    assert matched(pd.Series([1.0, 2.0, 3.0], index=["a", "a", "b"]), ["a", "a", "b"]) == [1.0, 2.0, 3.0]


def test_a_missing_value_is_not_a_missing_label() -> None:
    np.testing.assert_array_equal(matched(pd.Series([NAN, 2.0, 3.0], index=[2, 1, 0])), [3.0, 2.0, NAN])


@pytest.mark.parametrize(
    ("labels", "index", "fault"),
    [
        (["a", "b", "x"], ["a", "b", "c"], "has no value for 1 of the 3 rows of the data .first: row label 'c'"),
        ([0, 1, 2], ["a", "b", "c"], "has no value for 3 of the 3 rows of the data .first: row label 'a'"),
        (["0", "1", "2"], [0, 1, 2], "has no value for 3 of the 3 rows .* begin with '0'"),
        ([5, 6, 7], None, "has no value for 3 of the 3 rows"),
        ([0, 1], None, "has no value for 1 of the 3 rows"),
        (DAYS, DAYS.tz_localize("UTC"), "has no value for 3 of the 3 rows"),
        (["a", "b", "c"], PAIRS, "has no value for 3 of the 3 rows"),
        (PAIRS, ["a", "b", "c"], "has no value for 3 of the 3 rows"),
        (
            ["a", "b", "a"],
            ["a", "a", "b"],
            "has other row labels .* those of `weights` are not unique",
        ),
        (
            ["a", "b", "c"],
            ["a", "a", "b"],
            "has other row labels .* those of the data are not unique",
        ),
        (list("abcda"), list("abc"), "has other row labels .* those of `weights` are not unique"),
    ],
)
def test_labels_that_cannot_be_matched(labels: Any, index: Any, fault: str) -> None:
    values = pd.Series(np.arange(float(len(labels))), index=labels)
    with pytest.raises(DataError, match=rf"^`weights` {fault}.*`weights.to_numpy\(\)`"):
        matched(values, index)


@pytest.mark.parametrize("data", [pl.DataFrame, pa.table, dict])
def test_labels_beside_data_without_any(data: Any) -> None:
    frame = read_frame(data({"x": [0.0, 0.0, 0.0]}))
    # A permutation of 0, 1, 2 may count the rows, or be what is left of data that were sorted: nobody knows.
    with pytest.raises(DataError, match=r"has row labels \(first: 2\), but the data have none"):
        beside(pd.Series([1.0, 2.0, 3.0], index=[2, 0, 1]), "weights", frame)


def test_the_labels_of_a_dict_are_those_of_its_series() -> None:
    frame = read_frame({"x": pd.Series([0.0, 0.0, 0.0], index=list("abc")), "z": [1, 2, 3]})
    assert beside(pd.Series([1.0, 2.0, 3.0], index=list("cab")), "weights", frame).values.tolist() == [2.0, 3.0, 1.0]


class Labelled:
    """What another package may have of pandas' kind: values with labels."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([1.0, 2.0, 3.0])

    def __len__(self) -> int:
        return 3


class Lazy(Labelled):
    """The same, with labels that have to be computed."""

    def compute(self) -> pd.Series:
        return pd.Series(np.asarray(self), index=self.index)


@pytest.mark.parametrize("kind", [Labelled, Lazy])
def test_labels_of_other_packages(kind: Any) -> None:
    assert matched(kind(pd.Index(list("cab"))), list("abc")) == [2.0, 3.0, 1.0]


# The rows of a fit ---------------------------------------------------------------------------------------------

USED = np.array([True, False, True])


@pytest.mark.parametrize(
    "values",
    [
        [1.0, NAN, 3.0],
        [1.0, 3.0],
        pd.Series([1.0, 2.0, 3.0], index=list("abc")),
        pd.Series([1.0, 3.0], index=list("ac")),
        pd.Series([3.0, 1.0], index=list("ca")),
        pd.Series([3.0, 9.0, 1.0], index=list("cxa")),
    ],
)
def test_values_for_the_rows_used(values: Any) -> None:
    assert matched(values, list("abc"), USED) == [1.0, 3.0]


def test_labels_for_the_rows_used_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"has no value for 1 of the 2 rows used \(first: row label 'c'"):
        matched(pd.Series([1.0, 2.0], index=list("ab")), list("abc"), USED)
    with pytest.raises(DataError, match="has 4 values but the data have 3 rows, and the model was fitted to 2 of them"):
        matched([1.0, 2.0, 3.0, 4.0], None, USED)


def test_labels_as_groups() -> None:
    frame = frame_with(list("abc"))
    column = beside(pd.Series([2**60 + 1, 2**60, 2**60 + 1], index=list("bca")), "cluster", frame, as_labels=True)
    assert (column.values.tolist(), column.levels) == ([1, 1, 0], (2**60, 2**60 + 1))
    texts = beside(pl.Series(["v", None, "u"]), "cluster", frame, as_labels=True)
    assert (texts.values.tolist(), texts.levels) == ([1, -1, 0], ("u", "v"))
