"""One column of every type, from every kind of data."""

from __future__ import annotations

import datetime
import re
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lme4py.data import (
    Column,
    read_frame,
)
from lme4py.errors import DataError

NAN = np.nan


def column_of(values: Any) -> Column:
    return read_frame({"x": values}).column("x")


def assert_column(column: Column, kind: str, values: list[float], levels: tuple[Any, ...] = ()) -> None:
    assert column.kind == kind
    assert column.values.dtype == (np.int32 if column.is_factor else np.float64)
    np.testing.assert_array_equal(column.values, values)
    assert column.levels == levels
    assert [type(level) for level in column.levels] == [type(level) for level in levels]


# Numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.5, None],
        [1, Decimal("2.5"), pd.NA],
        [Fraction(1), Fraction(5, 2), NAN],
        np.array([1, 2.5, NAN], dtype=np.float32),
        np.array([1, 2.5, NAN], dtype=np.float16),
        np.array([1, 2.5, NAN], dtype=">f8"),
        np.array([1, 2.5, NAN], dtype=np.longdouble),
        np.ma.array([1, 2.5, 7], mask=[False, False, True]),
        pd.Series([1, 2.5, None], dtype="Float64"),
        pd.Series([1, 2.5, None], dtype="Float32"),
        pd.arrays.SparseArray([1, 2.5, NAN]),
        pd.Index([1, 2.5, NAN]),
        pd.Series([Decimal(1), Decimal("2.5"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        pl.Series([1, 2.5, None], dtype=pl.Float32),
        pl.Series([Decimal("1.0"), Decimal("2.5"), None]),
        nw.from_native(pl.Series([1.0, 2.5, None]), series_only=True),
        pa.array([1, 2.5, None]),
        pa.array([1, 2.5, None], type=pa.float32()),
        pa.chunked_array([[1.0], [2.5, None]]),
        pa.array([Decimal("1"), Decimal("2.5"), None]),
    ],
    ids=lambda values: f"{type(values).__module__.split('.')[0]}-{getattr(values, 'dtype', '')}",
)
def test_numbers(values: Any) -> None:
    assert_column(column_of(values), "numeric", [1, 2.5, NAN])


@pytest.mark.parametrize(
    "values",
    [
        range(3),
        np.arange(3, dtype=np.uint8),
        np.arange(3, dtype=">i4"),
        pd.Series([0, 1, 2], dtype="UInt64"),
        pl.Series([0, 1, 2], dtype=pl.UInt64),
        pa.array([0, 1, 2], type=pa.uint16()),
        np.array([0, 1, 2], dtype=object),
    ],
)
def test_integers(values: Any) -> None:
    assert_column(column_of(values), "numeric", [0, 1, 2])


@pytest.mark.parametrize("missing", [None, NAN, pd.NA, pd.NaT])
def test_missing_values_among_objects(missing: Any) -> None:
    assert_column(column_of([1, missing]), "numeric", [1, NAN])
    assert_column(column_of([True, missing]), "boolean", [1, NAN])
    assert_column(column_of(["a", missing]), "text", [0, -1], ("a",))


@pytest.mark.parametrize(
    "values",
    [[None, None], np.array([None, NAN], dtype=object), pl.Series([None, None]), pa.nulls(2)],
    ids=["list", "numpy", "polars", "pyarrow"],
)
def test_nothing_but_missing_values(values: Any) -> None:
    assert_column(column_of(values), "numeric", [NAN, NAN])


def test_infinite_values_are_kept() -> None:
    assert_column(column_of([1.0, np.inf, -np.inf]), "numeric", [1, np.inf, -np.inf])


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        np.array,
        lambda v: np.array(v, dtype=np.uint64),
        pd.Series,
        lambda v: pd.Series([*v, None], dtype="Int64"),
        lambda v: pd.Series([*v, None], dtype="UInt64"),
        lambda v: pd.Series(v, dtype=pd.ArrowDtype(pa.int64())),
        lambda v: [*v, None],
        pl.Series,
        lambda v: pa.array([*v, None]),
    ],
)
def test_integers_that_float64_cannot_hold(wrap: Any) -> None:
    big = 2**53 - 1
    assert column_of(wrap([1, big])).values[1] == big
    column = column_of(wrap([2**53 + 1, 1, 2**53 + 1, 2**53]))
    assert_column(column.take(np.arange(4)), "label", [2, 0, 2, 1], (1, 2**53, 2**53 + 1))
    assert re.match(r"column 'x' holds the integer 9007199254740993, .* store labels as text", column.refusal)


# Booleans, text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [True, False, None],
        np.ma.array([True, False, True], mask=[False, False, True]),
        pd.Series([True, False, None], dtype="boolean"),
        pd.Series([True, False, None], dtype=object),
        pd.Series([True, False, None], dtype=pd.ArrowDtype(pa.bool_())),
        pl.Series([True, False, None]),
        pa.array([True, False, None]),
    ],
)
def test_booleans(values: Any) -> None:
    assert_column(column_of(values), "boolean", [1, 0, NAN])


def test_numpy_booleans() -> None:
    assert_column(column_of(np.array([True, False])), "boolean", [1, 0])


@pytest.mark.parametrize(
    "values",
    [
        ["b", "é", None, "B"],
        np.ma.array(["b", "é", "zz", "B"], mask=[False, False, True, False]),
        pd.Series(["b", "é", None, "B"]),
        pd.Series(["b", "é", None, "B"], dtype=object),
        pd.Series(["b", "é", None, "B"], dtype="string"),
        pd.Series(["b", "é", None, "B"], dtype="string[python]"),
        pd.Series(["b", "é", None, "B"], dtype="string[pyarrow]"),
        pd.Series(["b", "é", None, "B"], dtype=pd.ArrowDtype(pa.string())),
        pl.Series(["b", "é", None, "B"]),
        pa.array(["b", "é", None, "B"]),
        pa.array(["b", "é", None, "B"], type=pa.large_string()),
        *([pa.array(["b", "é", None, "B"], type=pa.string_view())] if hasattr(pa, "string_view") else []),
    ],
)
def test_text_has_sorted_levels(values: Any) -> None:
    assert_column(column_of(values), "text", [1, 2, -1, 0], ("B", "b", "é"))


def test_numpy_text() -> None:
    assert_column(column_of(np.array(["b", "nan"])), "text", [0, 1], ("b", "nan"))


def test_text_with_many_values() -> None:
    rng = np.random.default_rng(1)
    words = np.char.add("w", rng.integers(0, 500, 5000).astype(str))
    column = column_of(words)
    assert list(column.levels) == sorted(set(words.tolist()))
    assert [column.levels[code] for code in column.values] == words.tolist()


# Factors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (["b", "a"], ("b", "a", "u")),
        ([2, 1], (2, 1, 7)),
        ([0.5, 1.0], (0.5, 1.0, 3.0)),
        ([True, False], (True, False)),
    ],
)
@pytest.mark.parametrize("ordered", [False, True])
def test_pandas_categories(values: list[Any], levels: tuple[Any, ...], ordered: bool) -> None:
    category = pd.Categorical([values[0], None, values[1]], categories=list(levels), ordered=ordered)
    kind = "ordered" if ordered else "factor"
    for same in (category, pd.Series(category), pd.CategoricalIndex(category)):
        assert_column(column_of(same), kind, [0, -1, 1], levels)


def test_pandas_intervals_as_categories() -> None:
    cut = pd.cut(pd.Series([1, 5, 9]), [0, 4, 10])
    assert_column(column_of(cut), "ordered", [0, 1, 1], tuple(cut.cat.categories))


@pytest.mark.parametrize("ordered", [False, True])
def test_arrow_dictionary(ordered: bool) -> None:
    codes = pa.array([1, None, 0, 2])
    array = pa.DictionaryArray.from_arrays(codes, pa.array([30, 10, None]), ordered=ordered)
    kind = "ordered" if ordered else "factor"
    for same in (array, pa.chunked_array([array.slice(0, 2), array.slice(2)])):
        assert_column(column_of(same), kind, [1, -1, 0, -1], (30, 10))
    inside_pandas = pd.Series(array, dtype=pd.ArrowDtype(array.type))
    assert_column(column_of(inside_pandas), kind, [1, -1, 0, -1], (30, 10))


def test_arrow_dictionary_with_another_dictionary_in_each_chunk() -> None:
    chunks = [pa.array(["b", "a"]).dictionary_encode(), pa.array(["c", "a"]).dictionary_encode()]
    # No chunk says in which order all levels are, so that it is not that of the chunks.
    assert_column(column_of(pa.chunked_array(chunks)), "factor", [1, 0, 2, 0], ("a", "b", "c"))
    whole = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(["b", "c", "a"]))
    assert_column(column_of(pa.chunked_array([*chunks[:1], whole])), "factor", [0, 2, 0], ("b", "c", "a"))


def test_polars_categorical_does_not_depend_on_what_was_seen_before() -> None:
    earlier = pl.Series(["m", "k", "z"], dtype=pl.Categorical)
    values = pl.Series(["z", None, "k", "a"], dtype=pl.Categorical)
    assert_column(column_of(values), "factor", [2, -1, 1, 0], ("a", "k", "z"))
    assert_column(column_of(earlier), "factor", [1, 0, 2], ("k", "m", "z"))


# What is neither numbers nor labels ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            [1, "a"],
            r"mixes types: it holds 'a' of type str in row 1 and 1 of type int in row 0; make",
        ),
        (["a", None, True], r"mixes types: it holds 'a' of type str in row 0 and True of type bool in row 2"),
        ([1.5, True], r"mixes types: it holds True of type bool in row 1 and 1.5 of type float in row 0"),
        ([None, [1, 2], [3]], r"holds \[1, 2\] of type list in row 1; turn it into numbers"),
        ([{"a": 1}], "holds {'a': 1} of type dict in row 0"),
        (["a" * 90, 1], r"mixes types: it holds 'a{36}\.\.\. of type str"),
        ([object()], "holds <object"),
        (pl.Series([object()], dtype=pl.Object), "holds <object"),
        (pl.Series([[1]]), r"values of type List\(Int64\); turn it into numbers"),
        (pa.array([[1]]), "values of type list<.*>; turn it into numbers"),
        (np.zeros((1, 2)), r"has shape \(1, 2\); a column needs one value per row"),
        (np.zeros(1, dtype="V4"), "values of type .*V4; turn it into numbers"),
        ({1, 2}, "is of type set; give one value per row"),
    ],
)
def test_unusable_columns(values: Any, fault: str) -> None:
    with pytest.raises(DataError, match=f"^column 'x' .*{fault}"):
        column_of(values)


# What can name groups and nothing else --------------------------------------------------------------------

MOMENT = datetime.datetime(2020, 1, 2)
TICK = pd.Timestamp(1_577_923_200_000_000_001, unit="ns")
STAMPS = pd.Series([TICK, pd.NaT, TICK - pd.Timedelta(1, "ns")])
STAMP_LEVELS = (TICK - pd.Timedelta(1, "ns"), TICK)
DAYS = [datetime.date(2020, 1, 2), None, datetime.date(2019, 1, 2)]
IDS = [uuid.UUID(int=2**100 + 1), None, uuid.UUID(int=2**100)]
CENTS = [Decimal("12345678901234567.91"), None, Decimal("12345678901234567.90")]


@pytest.mark.parametrize(
    ("values", "levels", "fault"),
    [
        (STAMPS, STAMP_LEVELS, r"dates or times of type datetime64\[ns\]; turn it into a number first"),
        (STAMPS.dt.tz_localize("UTC"), tuple(s.tz_localize("UTC") for s in STAMP_LEVELS), "datetime64.*UTC"),
        (STAMPS.astype("timestamp[ns][pyarrow]"), STAMP_LEVELS, r"dates or times of type timestamp\[ns\]"),
        (STAMPS.to_numpy(), STAMP_LEVELS, r"dates or times of type datetime64\[ns\]"),
        (pl.from_pandas(STAMPS), STAMP_LEVELS, "dates or times of type Datetime.*; turn it into a number"),
        (pa.array(STAMPS), STAMP_LEVELS, r"dates or times of type timestamp\[ns\]; turn it into a number"),
        ([MOMENT, None, MOMENT.replace(year=2019)], (MOMENT.replace(year=2019), MOMENT), "of type datetime in row 0"),
        (DAYS, (DAYS[2], DAYS[0]), "of type date in row 0; turn it into a number first, such as the days"),
        (pl.Series(DAYS), (DAYS[2], DAYS[0]), "dates or times of type Date; turn it into a number"),
        (pa.array(DAYS), (DAYS[2], DAYS[0]), r"dates or times of type date32.*; turn it into a number"),
        (
            STAMPS - STAMP_LEVELS[0],
            (pd.Timedelta(0), pd.Timedelta(1, "ns")),
            r"time differences of type timedelta64\[ns\]; turn it into a number",
        ),
        (
            pl.from_pandas(STAMPS - STAMP_LEVELS[0]),
            (pd.Timedelta(0), pd.Timedelta(1, "ns")),
            "dates or times of type Duration.*; turn it into a number",
        ),
        (
            pd.Series([pd.Period("2020-02"), pd.NaT, pd.Period("2020-01")], dtype="period[M]"),
            (pd.Period("2020-01"), pd.Period("2020-02")),
            r"dates or times of type period\[.*\]; turn it",
        ),
        (
            pd.Series([pd.Interval(1, 2), None, pd.Interval(0, 1)], dtype="interval"),
            (pd.Interval(0, 1), pd.Interval(1, 2)),
            r"values of type interval\[.*\]; turn it into numbers",
        ),
        (IDS, (IDS[2], IDS[0]), "of type UUID in row 0; turn it into numbers, booleans, text"),
        (pd.Series(IDS), (IDS[2], IDS[0]), "of type UUID in row 0"),
        (pl.Series(IDS, dtype=pl.Object), (IDS[2], IDS[0]), "of type UUID in row 0"),
        ([b"b", None, b"a"], (b"a", b"b"), "of type bytes in row 0; decode it"),
        (pl.Series([b"b", None, b"a"]), (b"a", b"b"), "type Binary; decode it"),
        (pa.array([b"b", None, b"a"]), (b"a", b"b"), "type binary"),
        ([2j, None, 1j], (1j, 2j), "2j of type complex in row 0; use the real part"),
        # Two amounts of which binary floating point makes one.
        (CENTS, (CENTS[2], CENTS[0]), "2 numbers that become 1 as floating-point numbers"),
        (pl.Series(CENTS), (CENTS[2], CENTS[0]), "2 numbers that become 1 as floating-point numbers"),
        (pa.array(CENTS), (CENTS[2], CENTS[0]), "2 numbers that become 1 as floating-point numbers"),
    ],
)
def test_labels_lose_nothing(values: Any, levels: tuple[Any, ...], fault: str) -> None:
    column = column_of(values)
    assert_column(column, "label", [1, -1, 0], levels)
    assert re.search(fault, column.refusal)


@pytest.mark.parametrize("values", [np.array([b"b", b"a"]), np.array([2j, 1j])])
def test_labels_of_numpy(values: Any) -> None:
    assert_column(column_of(values), "label", [1, 0], (values[1], values[0]))


def test_decimals_that_stay_different_are_numbers() -> None:
    assert_column(column_of([Decimal("0.1"), Decimal("0.2")]), "numeric", [0.1, 0.2])
