"""Where rows may live: every kind of source gives the fit in memory."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.errors import DataError, Lme4Error, OptionError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FORMULA = "y ~ x * f + (x | g) + (1 | h)"


def rows(n: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g, h = rng.integers(0, 25, n), rng.integers(0, 9, n)
    data = pd.DataFrame({"x": rng.normal(size=n), "f": rng.choice(list("abc"), n), "g": g, "h": [f"h{i}" for i in h]})
    data["unused"] = pd.Timestamp("2020-01-01")
    data["y"] = data.x + rng.normal(size=25)[g] + rng.normal(size=9)[h] + rng.normal(size=n)
    data.loc[11, "x"] = np.nan
    return data


DATA = rows()


@pytest.fixture(scope="module")
def whole() -> Any:
    return lme4py.lmer(FORMULA, DATA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow.csv as pc
    import pyarrow.feather as pf

    path = tmp_path_factory.mktemp("rows")
    for number, part in enumerate((DATA.iloc[:250], DATA.iloc[250:250], DATA.iloc[250:])):
        table = pa.Table.from_pandas(part, preserve_index=False)
        pq.write_table(table, path / f"p{number}.parquet", row_group_size=100)
        pf.write_feather(table, path / f"p{number}.feather")
        if len(part):
            pc.write_csv(table, path / f"p{number}.csv")
    DATA.to_csv(path / "all.tsv", sep="\t", index=False)
    DATA.drop(columns="unused").to_stata(path / "all.dta", write_index=False)
    return path


def same(fit: Any, whole: Any) -> None:
    # The same optimum from sums in another order.
    assert_allclose(fit.params, whole.params, rtol=1e-9)
    assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
    assert_allclose(fit.theta, whole.theta, rtol=1e-8)
    assert (fit.rows.n_rows, fit.n_obs) == (900, 899)


FILES: dict[str, Callable[[Path], Any]] = {
    "glob": lambda path: str(path / "*.parquet"),
    "path": lambda path: path / "all.tsv",
    "list": lambda path: [path / "p2.parquet", str(path / "p0.parquet")],
    "feather": lambda path: str(path / "p[0-2].feather"),
    "csv": lambda path: str(path / "*.csv"),
    "address": lambda path: f"file://{path}/*.parquet",
}


@pytest.mark.parametrize("kind", list(FILES))
def test_files(kind: str, folder: Path, whole: Any) -> None:
    if kind == "address":
        pytest.importorskip("fsspec")
    fit = lme4py.lmer(FORMULA, FILES[kind](folder))
    same(fit, whole)
    assert fit.rows.passes == 2
    assert "file" in fit.rows.where


def test_a_file_that_is_read_whole(folder: Path, whole: Any) -> None:
    fit = lme4py.lmer(FORMULA, folder / "all.dta")
    same(fit, whole)
    assert fit.rows.where == "memory"


def test_arrow_dataset(folder: Path, whole: Any) -> None:
    import pyarrow.dataset as ds

    same(lme4py.lmer(FORMULA, ds.dataset(sorted(map(str, folder.glob("*.parquet"))))), whole)


def test_polars_lazy_frame(folder: Path, whole: Any) -> None:
    pl = pytest.importorskip("polars")
    fit = lme4py.lmer(FORMULA, pl.scan_parquet(folder / "*.parquet"))
    same(fit, whole)
    assert fit.rows.where == "polars LazyFrame"


def test_duckdb_relation(folder: Path, whole: Any) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        same(lme4py.lmer(FORMULA, connection.sql(f"select * from '{folder}/*.parquet'")), whole)


def test_ibis_table(whole: Any) -> None:
    ibis = pytest.importorskip("ibis")
    table = ibis.sqlite.connect().create_table("rows", DATA.drop(columns="unused"))
    fit = lme4py.lmer(FORMULA, table)
    same(fit, whole)
    assert fit.rows.where == "ibis table"


def test_dask_data_frame(whole: Any) -> None:
    dd = pytest.importorskip("dask.dataframe")
    fit = lme4py.lmer(FORMULA, dd.from_pandas(DATA, npartitions=5))
    same(fit, whole)
    assert fit.rows.blocks == 5


def test_rows_in_memory(folder: Path, whole: Any) -> None:
    fit = lme4py.lmer(FORMULA, str(folder / "*.parquet"), control={"rows": "memory"})
    assert fit.rows.where == "memory"
    assert_allclose(fit.fittedvalues.to_numpy(), whole.fittedvalues.to_numpy(), rtol=1e-9)


def test_other_doors_read_files_into_memory(folder: Path) -> None:
    path = str(folder / "*.parquet")
    ours, expected = (lme4py.mixed(data, "y", ["x"], "g") for data in (path, DATA))
    assert_allclose(ours.params, expected.params, rtol=1e-9)
    ours, expected = (lme4py.glmer("f == 'a' ~ x + (1 | g)", data) for data in (path, DATA))
    assert_allclose(ours.params, expected.params, rtol=1e-9)


def test_dictionaries_that_differ_between_files(tmp_path: Path, whole: Any) -> None:
    """Each file has a dictionary of its own, in an order of its own."""
    for number, part in enumerate((DATA.iloc[:100], DATA.iloc[100:101], DATA.iloc[101:])):
        labels = sorted(part.f.unique(), reverse=number == 2)
        own = part.assign(f=pd.Categorical(part.f, categories=labels), h=part.h.astype("category"))
        pq.write_table(pa.Table.from_pandas(own, preserve_index=False), tmp_path / f"{number}.parquet")
    fit = lme4py.lmer(FORMULA, str(tmp_path / "*.parquet"))
    assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
    assert fit.n_obs == 899


def test_types_of_numbers_and_empty_columns(tmp_path: Path, whole: Any) -> None:
    """Whole numbers in one file, other numbers in the next; a file in which a column is empty."""
    table = pa.Table.from_pandas(DATA, preserve_index=False)
    first = table.slice(0, 400).set_column(
        table.schema.get_field_index("g"), "g", table["g"].slice(0, 400).cast("int16")
    )
    extra = table.slice(0, 5).set_column(table.schema.get_field_index("x"), "x", pa.nulls(5))
    for number, part in enumerate((extra, first, table.slice(400))):
        pq.write_table(part, tmp_path / f"{number}.parquet")
    fit = lme4py.lmer(FORMULA, str(tmp_path / "*.parquet"))
    assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
    assert (fit.rows.n_rows, fit.n_obs) == (905, 899)


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    table = pa.table({"y": [1.0, 2.0], "g": ["a", "b"], "x": [1.0, 0.0]})
    pq.write_table(table, tmp_path / "1.parquet")
    pq.write_table(pa.table({"y": [1.0, 2.0], "g": [1, 2], "x": [1.0, 0.0]}), tmp_path / "2.parquet")
    files = str(tmp_path / "*.parquet")
    for control in ({}, {"rows": "memory"}):
        with pytest.raises(DataError, match=r"'g' is string in the file '.*1.parquet' and int64 in '.*2.parquet'"):
            lme4py.lmer("y ~ x + (1 | g)", files, control=control)
    pq.write_table(table.drop_columns("x"), tmp_path / "2.parquet")
    for control in ({}, {"rows": "memory"}):
        with pytest.raises(DataError, match="no column 'x'"):
            lme4py.lmer("y ~ x + (1 | g)", files, control=control)


def test_columns_that_are_not_used_need_not_fit_together(tmp_path: Path, whole: Any) -> None:
    """Text is text, as codes or not, and numbers are numbers."""
    first, second = (pa.Table.from_pandas(part, preserve_index=False) for part in (DATA.iloc[:400], DATA.iloc[400:]))
    at = first.schema.get_field_index
    first = first.set_column(at("f"), "f", first["f"].dictionary_encode()).drop_columns("unused")
    first = first.set_column(at("g"), "g", first["g"].cast(pa.decimal128(25, 2))).append_column("odd", first["x"])
    second = second.append_column("odd", second["f"])
    pq.write_table(first, tmp_path / "1.parquet")
    pq.write_table(second, tmp_path / "2.parquet")
    fit = lme4py.lmer(FORMULA, str(tmp_path / "*.parquet"))
    same(fit, whole)
    assert set(fit.augment().schema.names) == {"x", "f", "g", "h", "y", "fitted", "fixed", "mu", "resid"}


@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | gg)", "y ~ xx + (1 | g)", "yy ~ x + (1 | g)", "y ~ log(xx) + (1 | g / h)"]
)
def test_columns_that_are_not_there(formula: str, folder: Path) -> None:
    """In the words of fits in memory, with the place in the formula, before rows are read."""
    with pytest.raises(DataError) as expected:
        lme4py.lmer(formula, DATA)
    with pytest.raises(DataError) as found:
        lme4py.lmer(formula, folder / "p2.parquet")
    assert str(found.value) == str(expected.value)


def test_missing_files_and_mixed_kinds(folder: Path) -> None:
    for path in ("nowhere.parquet", str(folder / "nothing*.csv"), "none.dta"):
        with pytest.raises(DataError, match=r"there is no file|no file matches the pattern '.*\*\.csv'"):
            lme4py.lmer(FORMULA, path)
    with pytest.raises(OptionError, match="several kinds"):
        lme4py.lmer(FORMULA, [folder / "p0.parquet", folder / "p0.csv"])
    with pytest.raises(OptionError, match="'stream'"):
        lme4py.lmer(FORMULA, folder / "all.tsv", control={"rows": "strem"})


def test_a_file_that_changes_between_passes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lme4py.data.sources.arrow import ArrowSource

    path = tmp_path / "rows.parquet"
    pq.write_table(pq.read_table(folder / "p2.parquet"), path)
    passes = ArrowSource.blocks

    def blocks(self: Any, columns: Any = None) -> Any:
        yield from passes(self, columns)
        # The same rows, written anew.
        table = pq.read_table(path)
        pq.write_table(table.set_column(0, "x", pa.array(np.arange(table.num_rows) * 1.0)), path)
        os.utime(path, (1, 1))

    monkeypatch.setattr(ArrowSource, "blocks", blocks)
    with pytest.raises(DataError, match="changed while it was read"):
        lme4py.lmer(FORMULA, path)


def test_a_file_that_is_deleted_between_passes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lme4py.data.sources.arrow import ArrowSource

    for name in ("p0.parquet", "p2.parquet"):
        pq.write_table(pq.read_table(folder / name), tmp_path / name)
    passes = ArrowSource.blocks

    def blocks(self: Any, columns: Any = None) -> Any:
        yield from passes(self, columns)
        (tmp_path / "p2.parquet").unlink(missing_ok=True)

    monkeypatch.setattr(ArrowSource, "blocks", blocks)
    with pytest.raises(DataError, match="the source changed while it was read"):
        lme4py.lmer(FORMULA, str(tmp_path / "*.parquet"))


def test_partitions_without_rows_and_without_complete_rows(tmp_path: Path) -> None:
    """They have other types too: a column of nothing but missing values has none."""
    parts = [DATA.iloc[:0], DATA.iloc[:400], DATA.iloc[400:410].assign(x=None), DATA.iloc[410:]]
    for number, part in enumerate(parts):
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), tmp_path / f"{number}.parquet")
    fit = lme4py.lmer(FORMULA, str(tmp_path / "*.parquet"))
    whole = lme4py.lmer(FORMULA, DATA.drop(index=range(400, 410)))
    # The same optimum from sums in another order.
    assert_allclose(fit.params, whole.params, rtol=1e-9)
    assert (fit.rows.n_rows, fit.n_obs) == (900, 889)


def test_files_without_pyarrow(monkeypatch, tmp_path):
    """Text is read whole; what needs pyarrow says how to install it."""
    data = lme4py.load_dataset("sleepstudy")
    data.to_csv(tmp_path / "s.csv", index=False)
    data.to_csv(tmp_path / "s.tsv", index=False, sep="\t")
    expected = lme4py.lmer("Reaction ~ Days + (1 | Subject)", data.assign(Subject=data["Subject"].astype(int)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("s.csv", "s.tsv"):
        fit = lme4py.lmer("Reaction ~ Days + (1 | Subject)", tmp_path / name)
        assert fit.criterion == pytest.approx(expected.criterion, rel=1e-12)  # the digits of the file
    with pytest.raises(OptionError, match="pip install pyarrow"):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", tmp_path / "s.parquet")
    with pytest.raises(DataError, match="no file"):
        lme4py.lmer("Reaction ~ Days + (1 | Subject)", tmp_path / "missing.csv")


def test_addresses_that_cannot_be_opened_show_no_password() -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("fsspec")
    for path, words in (
        ("memory://no-such-place/*.parquet", "nothing is there"),
        ("memory://no-such-place/one.parquet", "nothing is there"),
        ("foo://user:SECRET@bucket/x.parquet", "Protocol not known: foo"),
        ("foo://user:SEC/RET@bucket/x.parquet?signature=SECRET", "Protocol not known: foo"),
        ("https://user:SECRET@host/x.unknown?signature=SECRET", "`data` is the text"),
    ):
        with pytest.raises(Lme4Error, match=words) as caught:
            lme4py.lmer("y ~ x + (1 | g)", path)
        assert not {"SECRET", "SEC/RET"} & set(re.split(r"[:@=']", str(caught.value)))


def test_addresses_are_read_through_fsspec(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for path in sorted(folder.glob("*.parquet")):
        files.pipe_file(f"/lme4py-rows/{path.name}", path.read_bytes())
    whole = lme4py.lmer("y ~ x + (1 | g)", DATA, subset="x > 0")
    fit = lme4py.lmer("y ~ x + (1 | g)", "memory://lme4py-rows/*.parquet", subset="x > 0")
    files.rm("/lme4py-rows", recursive=True)
    # Sums in another order.
    assert_allclose(fit.params, whole.params, rtol=1e-9)


def test_levels_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    """Levels are those of all files, in an order that does not depend on that of the files or of the rows."""
    rng = np.random.default_rng(7)
    data = pd.DataFrame({"g": rng.integers(9, size=300), "f": rng.choice(list("cab"), 300), "y": rng.normal(size=300)})
    for i, part in enumerate((data.iloc[:90], data.iloc[90:90], data.iloc[90:])):
        dictionary = pa.array(part["f"].astype(str).tolist(), pa.string()).dictionary_encode()
        table = pa.table({"y": part["y"].to_numpy(), "g": part["g"].to_numpy(), "f": dictionary})
        pq.write_table(table, tmp_path / f"{i}.parquet")
    # Rows that are all missing, in a column without a type.
    empty = pa.table({"y": pa.array([None, None], pa.float64()), "g": [1, 2], "f": pa.array([None, None], pa.null())})
    pq.write_table(empty, tmp_path / "3.parquet")
    whole = lme4py.lmer("y ~ f + (1 | g)", data)
    files = [str(tmp_path / f"{i}.parquet") for i in range(4)]
    for given, control in ((files, {}), (files[::-1], {}), (files, {"rows": "memory"})):
        ours = lme4py.lmer("y ~ f + (1 | g)", given, control=control)
        assert list(ours.params.index) == list(whole.params.index)
        # Sums in another order.
        assert_allclose(ours.params, whole.params, rtol=1e-9)
        assert ours.n_obs == 300


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_whole_numbers_in_one_file_and_others_in_the_next(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": rng.integers(9, size=300), "x": rng.integers(5, size=300), "y": rng.normal(size=300)})
    for i, part in enumerate((data.iloc[:100], data.iloc[100:].assign(g=data.g.astype(float), x=data.x + 0.5))):
        path = tmp_path / f"{i}.{kind}"
        part.to_csv(path, index=False) if kind == "csv" else part.to_parquet(path)
    both = data.assign(x=np.where(data.index < 100, data.x, data.x + 0.5))
    ours = lme4py.lmer("y ~ x + (1 | g)", str(tmp_path / f"*.{kind}"))
    # Text has 16 digits or more.
    assert_allclose(ours.params, lme4py.lmer("y ~ x + (1 | g)", both).params, rtol=1e-9)
