"""Columns from every kind of data frame."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lme4py.data import (
    Column,
    Frame,
    as_factor_column,
    drop_unused_levels,
    missing_rows,
    read_frame,
)
from lme4py.errors import DataError

NAN = np.nan
LEVELS = ["low", "mid", "high", "never"]


def column_of(values: Any) -> Column:
    return read_frame({"x": values}).column("x")


def assert_column(column: Column, kind: str, values: list[float], levels: tuple[Any, ...] = ()) -> None:
    assert column.kind == kind
    assert column.values.dtype == (np.int32 if column.is_factor else np.float64)
    np.testing.assert_array_equal(column.values, values)
    assert column.levels == levels
    assert [type(level) for level in column.levels] == [type(level) for level in levels]


# The same six columns in every backend ------------------------------------------------------------------

EXPECTED: dict[str, tuple[str, list[float], tuple[Any, ...]]] = {
    "real": ("numeric", [1.5, NAN, -2.0, 0.0], ()),
    "whole": ("numeric", [3, NAN, 1, 2], ()),
    "full": ("numeric", [4, 3, 2, 1], ()),
    "flag": ("boolean", [1, NAN, 0, 1], ()),
    "text": ("text", [2, 0, -1, 1], ("Z", "a", "b")),
    "level": ("factor", [2, -1, 0, 1], tuple(LEVELS)),
}
REAL = [1.5, None, -2.0, 0.0]
WHOLE = [3, None, 1, 2]
FULL = [4, 3, 2, 1]
FLAG = [True, None, False, True]
TEXT = ["b", "Z", None, "a"]
LEVEL = ["high", None, "low", "mid"]


def pandas_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "real": pd.Series(REAL, dtype="float64"),
            "whole": pd.Series(WHOLE, dtype="Int64"),
            "full": FULL,
            "flag": pd.Series(FLAG, dtype="boolean"),
            "text": TEXT,
            "level": pd.Categorical(LEVEL, categories=LEVELS),
        }
    )


def pandas_arrow_frame() -> pd.DataFrame:
    return arrow_table().to_pandas(types_mapper=pd.ArrowDtype)


def polars_frame() -> pl.DataFrame:
    level = pl.Series(LEVEL, dtype=pl.Enum(LEVELS))
    return pl.DataFrame({"real": REAL, "whole": WHOLE, "full": FULL, "flag": FLAG, "text": TEXT, "level": level})


def arrow_table() -> pa.Table:
    codes = pa.array([2, None, 0, 1], type=pa.int8())
    level = pa.DictionaryArray.from_arrays(codes, pa.array(LEVELS))
    return pa.table({"real": REAL, "whole": WHOLE, "full": FULL, "flag": FLAG, "text": TEXT, "level": level})


def dict_of_columns() -> dict[str, Any]:
    level = pd.Categorical(LEVEL, categories=LEVELS)
    return {
        "real": np.array([1.5, NAN, -2.0, 0.0]),
        "whole": WHOLE,
        "full": tuple(FULL),
        "flag": pl.Series(FLAG),
        "text": TEXT,
        "level": level,
    }


def structured_array() -> np.ndarray[Any, Any]:
    fields = dict_of_columns()
    fields["flag"] = np.array(FLAG, dtype=object)
    rows = np.empty(4, dtype=[(n, object if n in ("whole", "flag", "text") else "f8") for n in EXPECTED])
    for name in ("real", "whole", "full", "flag", "text"):
        rows[name] = fields[name]
    rows["level"] = 0
    return rows


MAKERS = {
    "pandas": pandas_frame,
    "pandas-arrow": pandas_arrow_frame,
    "pandas-object": lambda: pandas_frame().astype({"whole": object, "flag": object, "text": object}),
    "pandas-string": lambda: pandas_frame().convert_dtypes().astype({"text": "string"}),
    "polars": polars_frame,
    "polars-lazy": lambda: polars_frame().lazy(),
    "pyarrow": arrow_table,
    "pyarrow-chunks": lambda: pa.concat_tables([arrow_table().slice(0, 2), arrow_table().slice(2)]),
    "pyarrow-batch": lambda: arrow_table().combine_chunks().to_batches()[0],
    "narwhals": lambda: nw.from_native(polars_frame()),
    "narwhals-lazy": lambda: nw.from_native(polars_frame().lazy()),
    "dict": dict_of_columns,
}


@pytest.fixture(params=MAKERS)
def data(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


def test_every_backend_gives_the_same_columns(data: Any) -> None:
    frame = read_frame(data)
    assert frame.names == tuple(EXPECTED)
    assert frame.n_rows == 4
    for name, (kind, values, levels) in EXPECTED.items():
        assert frame.column(name).name == name
        assert_column(frame.column(name), kind, values, levels)


def test_every_backend_gives_the_same_rows_of_it(data: Any) -> None:
    part = read_frame(data).take(np.array([False, True, True, False]))
    assert part.n_rows == 2
    assert part.index.tolist() == [1, 2]
    for name, (kind, values, levels) in EXPECTED.items():
        assert_column(part.column(name), kind, values[1:3], levels)


def test_no_rows(data: Any) -> None:
    native = nw.to_native(data, pass_through=True)
    empty = {name: values[:0] for name, values in native.items()} if isinstance(native, dict) else None
    if empty is None:
        empty = native.head(0) if hasattr(native, "head") else native.slice(0, 0)
    frame = read_frame(empty)
    assert frame.n_rows == 0
    assert all(len(frame.column(name).values) == 0 for name in frame.names)


def test_structured_array() -> None:
    frame = read_frame(structured_array())
    assert frame.names == tuple(EXPECTED)
    for name in ("real", "whole", "full", "flag", "text"):
        assert_column(frame.column(name), *EXPECTED[name])


POLARS_ALONE = """
import sys
sys.modules["pyarrow"] = None
import polars as pl
from lme4py.data import read_frame
data = pl.DataFrame({
    "real": [1.5, None], "whole": [1, None], "flag": [True, None], "text": ["b", None], "null": [None, None],
    "enum": pl.Series(["u", None], dtype=pl.Enum(["v", "u"])),
    "cat": pl.Series(["q", None], dtype=pl.Categorical),
})
for source in (data, data.lazy()):
    frame = read_frame(source)
    for name in frame.names:
        column = frame.column(name)
        print(name, column.kind, column.values.tolist(), column.levels)
"""


def test_polars_works_without_pyarrow() -> None:
    done = subprocess.run([sys.executable, "-c", POLARS_ALONE], capture_output=True, text=True, check=False)
    lines = [
        "real numeric [1.5, nan] ()",
        "whole numeric [1.0, nan] ()",
        "flag boolean [1.0, nan] ()",
        "text text [0, -1] ('b',)",
        "null numeric [nan, nan] ()",
        "enum factor [1, -1] ('v', 'u')",
        "cat factor [0, -1] ('q',)",
    ]
    assert done.stdout.splitlines() == lines * 2, done.stderr


# Frame --------------------------------------------------------------------------------------------------


def test_a_frame_passes_through() -> None:
    frame = read_frame({"x": [1]})
    assert read_frame(frame) is frame


def test_columns_are_converted_once_and_only_when_needed() -> None:
    frame = read_frame({"x": [1.0], "when": [[2020, 1, 1]]})
    assert frame.column("x") is frame.column("x")
    with pytest.raises(DataError, match="column 'when' holds"):
        frame.column("when")


def test_numbers_are_not_copied() -> None:
    values = np.array([1.0, 2.0])
    assert np.shares_memory(column_of(values).values, values)
    table = pd.DataFrame({"x": values})
    assert np.shares_memory(read_frame(table).column("x").values, table["x"].to_numpy())


def test_index_of_pandas_data_is_kept() -> None:
    frame = read_frame(pd.DataFrame({"x": [1, 2, 3]}, index=["a", "b", "c"]))
    assert frame.index.tolist() == ["a", "b", "c"]
    assert frame.take(np.array([2, 0])).index.tolist() == ["c", "a"]
    assert frame.take(np.array([2, 0])).column("x").values.tolist() == [3, 1]
    assert read_frame(pl.DataFrame({"x": [1, 2]})).index.equals(pd.RangeIndex(2))


def test_take_twice() -> None:
    frame = read_frame({"g": ["a", "b", "c", "d"]})
    part = frame.take(np.array([3, 1, 0])).take(np.array([True, True, False]))
    assert part.column("g").values.tolist() == [3, 1]
    assert part.column("g").levels == ("a", "b", "c", "d")
    assert part.index.tolist() == [3, 1]


def test_take_with_a_mask_of_the_wrong_length() -> None:
    with pytest.raises(DataError, match=r"shape \(2,\) but the data have 3 rows"):
        read_frame({"x": [1, 2, 3]}).take(np.array([True, False]))


def test_membership_kind_and_repr() -> None:
    frame = read_frame({"x": [1, 2], "g": ["a", "b"]})
    assert "x" in frame
    assert "y" not in frame
    assert frame.kind("g") == "text"
    assert repr(frame) == "Frame(2 rows: x, g)"


def test_unknown_column() -> None:
    frame = read_frame({"Reaction": [1.0], "Days": [2.0]})
    with pytest.raises(DataError) as caught:
        frame.column("Reacton")
    assert str(caught.value) == (
        "column 'Reacton' not found. Did you mean 'Reaction'? The data have 2 columns: Reaction, Days."
    )


def test_unknown_column_in_wide_data_names_ten() -> None:
    frame = read_frame({f"v{i}": [0] for i in range(200)})
    with pytest.raises(DataError, match=r"The data have 200 columns: v0, .*, v9, \.\.\. \(190 more\)\.$"):
        frame.column("nosuch")


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame([[1, 2, 3]], columns=["x", "y", "x"]),
        pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "y", "x"]),
        pd.DataFrame([[1, 2, 3]], columns=["1", "y", 1]),
    ],
)
def test_repeated_names_matter_only_when_needed(table: Any) -> None:
    frame = read_frame(table)
    assert frame.column("y").values.tolist() == [2]
    name = frame.names[0]
    with pytest.raises(DataError, match=f"2 columns are named '{name}'; rename"):
        frame.column(name)


def test_names_that_are_not_strings() -> None:
    frame = read_frame(pd.DataFrame([[1, 2]], columns=[10, ("a", "b")]))
    assert frame.names == ("10", "('a', 'b')")
    assert frame.column("10").values.tolist() == [1]
    assert frame.column("('a', 'b')").values.tolist() == [2]


# What is not a data frame -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (None, "NoneType"),
        (3, "int"),
        ("data.csv", r"read the file first, for example with `pandas\.read_csv\('data\.csv'\)`"),
        (np.zeros((3, 2)), r"name its columns with `pandas\.DataFrame\(data, columns=\[\.\.\.\]\)`"),
        ([{"x": 1}], "list"),
        (pd.Series([1.0]), "Series"),
    ],
)
def test_unknown_data(wrong: Any, hint: str) -> None:
    with pytest.raises(DataError, match=rf"`data` is of type .*{hint}.*pandas or polars DataFrame.*pyarrow"):
        read_frame(wrong)


def test_dict_columns_of_unequal_length() -> None:
    with pytest.raises(DataError, match="differ in length: 'x' has 3 rows and 'g' has 2"):
        read_frame({"x": [1, 2, 3], "y": [1, 2, 3], "g": ["a", "b"]})


@pytest.mark.parametrize("scalar", [1, "abc", np.array(1.0), {"a": 1}])
def test_dict_columns_are_not_recycled(scalar: Any) -> None:
    with pytest.raises(DataError, match=r"column 'g' is of type .*one value per row"):
        read_frame({"x": [1, 2, 3], "g": scalar})


def test_dict_of_series_with_different_labels() -> None:
    one, two = pd.Series([1, 2], index=[0, 1]), pd.Series([1, 2], index=[1, 0])
    assert read_frame({"a": one, "b": one + 1}).column("b").values.tolist() == [2, 3]
    with pytest.raises(DataError, match="Series 'a' and 'b' have different row labels"):
        read_frame({"a": one, "b": two})


def test_empty_dict() -> None:
    frame = read_frame({})
    assert (frame.names, frame.n_rows) == ((), 0)


# Work on columns ----------------------------------------------------------------------------------------


def test_missing_rows() -> None:
    frame = read_frame({"x": [1, None, 3, 4], "g": ["a", "b", None, "a"], "b": [True, True, True, False]})
    columns = [frame.column(name) for name in frame.names]
    assert missing_rows(columns, 4).tolist() == [False, True, True, False]
    assert missing_rows(iter(columns[2:]), 4).tolist() == [False] * 4
    assert missing_rows([], 2).tolist() == [False, False]


@pytest.mark.parametrize(
    ("values", "codes", "levels"),
    [
        ([309, 308, None, 309], [1, 0, -1, 1], (308, 309)),
        ([2.0, -1.0, 0.0], [2, 0, 1], (-1, 0, 2)),
        ([2.5, 1.0, NAN], [1, 0, -1], (1.0, 2.5)),
        ([1e300, 1.0], [1, 0], (1.0, 1e300)),
        ([True, None, True], [1, -1, 1], (False, True)),
        ([None, None], [-1, -1], ()),
    ],
)
def test_factor_from_numbers(values: list[Any], codes: list[int], levels: tuple[Any, ...]) -> None:
    column = as_factor_column(column_of(values))
    assert_column(column, "factor", codes, levels)


def test_factor_from_negative_zero() -> None:
    column = as_factor_column(column_of([0.0, -0.0, 0.5]))
    assert_column(column, "factor", [0, 0, 1], (0.0, 0.5))


@pytest.mark.parametrize("values", [["b", "a"], pd.Categorical(["a"]), pd.Categorical([2], ordered=True)])
def test_factor_from_factor_is_unchanged(values: Any) -> None:
    column = column_of(values)
    assert as_factor_column(column) is column


def test_factor_from_infinite_values() -> None:
    with pytest.raises(DataError, match="column 'x' is used as a factor and has 2 infinite values; replace"):
        as_factor_column(column_of([1.0, np.inf, -np.inf]))


def test_drop_unused_levels() -> None:
    column = column_of(pd.Categorical(["c", None, "a", "c"], categories=["d", "c", "b", "a"], ordered=True))
    assert_column(drop_unused_levels(column), "ordered", [0, -1, 1, 0], ("c", "a"))


def test_drop_unused_levels_leaves_the_rest() -> None:
    numbers, text, none = column_of([1, 2]), column_of(["a", "b"]), column_of(pd.Categorical([None], ["a"]))
    assert drop_unused_levels(numbers) is numbers
    assert drop_unused_levels(text) is text
    assert_column(drop_unused_levels(none), "factor", [-1], ())


def test_the_type_is_importable() -> None:
    assert isinstance(read_frame({"x": [1]}), Frame)
