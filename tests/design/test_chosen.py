"""Conditions of streamed rows: every source gives the fit in memory, whether its own filter is used or not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.design.streaming.chosen import choose_rows, read_condition
from lme4py.errors import DataError, FormulaError, OptionError

pa = pytest.importorskip("pyarrow")

FORMULA = "y ~ x + f + (1 | g)"


def rows(n: int = 400) -> pd.DataFrame:
    """Missing, NaN and infinite values in what the conditions name."""
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"x": rng.normal(size=n), "f": rng.choice(list("abc"), n), "g": rng.integers(0, 12, n)})
    data["y"] = data.x + rng.normal(size=12)[data.g] + rng.normal(size=n)
    data["b"], data["z"], data["n"] = (data.y > 0.0) * 1, rng.normal(size=n), rng.integers(0, 5, n)
    data.loc[[3, 5], "z"], data.loc[17, "z"], data.loc[13, "f"] = np.nan, np.inf, None
    return data


DATA = rows()


def files(path: Path) -> Any:
    for number, part in enumerate((DATA.iloc[:150], DATA.iloc[150:150], DATA.iloc[150:])):
        part.to_parquet(path / f"{number}.parquet", index=False)
    return str(path / "*.parquet")


def lazy_frame(path: Path) -> Any:
    return pytest.importorskip("polars").from_pandas(DATA, nan_to_null=False).lazy()


def relation(path: Path) -> Any:
    table = pa.Table.from_pandas(DATA, preserve_index=False)
    # NaN, and not null.
    table = table.set_column(table.schema.get_field_index("z"), "z", pa.array(DATA.z.to_numpy()))
    return pytest.importorskip("duckdb").from_arrow(table)


def ibis_table(path: Path) -> Any:
    return pytest.importorskip("ibis").polars.connect().create_table("rows", pa.Table.from_pandas(DATA))


def dask_frame(path: Path) -> Any:
    return pytest.importorskip("dask.dataframe").from_pandas(DATA, npartitions=3)


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], pd.DataFrame]]] = {
    "files": (files, lambda found: found.read_all().to_pandas()),
    "polars": (lazy_frame, lambda found: found.collect().to_pandas()),
    "duckdb": (relation, lambda found: found.to_arrow_table().to_pandas()),
    "ibis": (ibis_table, lambda found: found.read_all().to_pandas()),
    "dask": (dask_frame, lambda found: found.compute()),
}
# All of it by the source; some of it; nothing of it.
CONDITIONS = ["f != 'a' & z != 5 & n %in% c(1, 2, 3)", "0.5 > z & (n == 1 | x > -1)", "abs(z) < 1.2"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_conditions_at_every_source(kind: str, tmp_path: Path) -> None:
    make, collect = KINDS[kind]
    source = make(tmp_path)
    for condition in CONDITIONS[kind == "dask" :][:2]:
        whole = lme4py.lmer(FORMULA, DATA, subset=condition, na_action="exclude")
        fit = lme4py.lmer(FORMULA, source, subset=condition)
        # The same optimum from sums in another order.
        assert_allclose(fit.params, whole.params, rtol=1e-9)
        assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
        assert (fit.n_obs, fit.rows.passes) == (whole.n_obs, 3)
        assert f"rows where {condition}: {fit.rows.n_rows} of 400" in fit.rows.where
        assert_allclose(collect(fit.augment())["resid"], whole.residuals(), atol=1e-9)
        cells = lme4py.glmer("b ~ f + (1 | g)", source, "binomial", subset=condition, compress=True)
        memory = lme4py.glmer("b ~ f + (1 | g)", DATA, "binomial", subset=condition)
        # Equal sums.
        assert_allclose(cells.params, memory.params, rtol=1e-8)
        assert (cells.n_obs, cells.rows.passes) == (memory.n_obs, 2)


@pytest.mark.parametrize("kind", ["files", "dask"])
def test_rows_in_parts_and_in_memory(kind: str, tmp_path: Path) -> None:
    source, condition = KINDS[kind][0](tmp_path), CONDITIONS[1]
    whole = lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial", subset=condition)
    parts = lme4py.glmer("b ~ x + (1 | g)", source, "binomial", subset=condition, control={"rows": "stream"})
    # Both are certified to 1e-11 of the criterion.
    assert_allclose(parts.criterion, whole.criterion, rtol=1e-10)
    memory = lme4py.glmer("b ~ x + (1 | g)", source, "binomial", subset=condition, control={"rows": "memory"})
    assert memory.criterion == whole.criterion
    assert parts.n_obs == memory.n_obs == whole.n_obs


def test_what_cannot_choose_streamed_rows(tmp_path: Path) -> None:
    source = files(tmp_path)
    for subset, kind, match in [
        (np.ones(400, dtype=bool), OptionError, "give a condition of columns"),
        ("z > mean(z)", OptionError, r"learns from all rows by mean\(\)"),
        ("TRUE", OptionError, "names no column"),
        ("x + 1", OptionError, "no condition"),
        ("x > 100", DataError, "none of the 400 rows"),
        ("f != 'b '", FormulaError, "'b ' is not a level of column 'f'"),
        ("q > 1", DataError, "column 'q' not found"),
    ]:
        with pytest.raises(kind, match=match):
            lme4py.lmer(FORMULA, source, subset=subset)


@pytest.mark.parametrize("options", [{}, {"compress": True}])
def test_rows_that_change_after_they_were_chosen(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = files(tmp_path)

    def changed(rows: Any, text: str) -> Any:
        chosen = choose_rows(rows, text)
        DATA.iloc[:7].to_parquet(tmp_path / "1.parquet", index=False)
        return chosen

    monkeypatch.setattr("lme4py.design.beside.subset.choose_rows", changed)
    with pytest.raises(DataError, match="the source changed while it was read: 190 rows were chosen"):
        lme4py.lmer("y ~ f + (1 | g)", source, subset="x > 0", **options)


def test_what_a_source_compares_itself(tmp_path: Path) -> None:
    from lme4py.data.sources import find_source

    found = find_source(files(tmp_path))[1]
    assert found is not None
    chosen = choose_rows(found, CONDITIONS[0])
    assert type(chosen) is type(found)
    assert chosen.count() == (DATA.f.notna() & (DATA.f != "a") & DATA.z.notna() & DATA.n.isin([1, 2, 3])).sum()
    some: Any = choose_rows(found, "0.5 > z & x^2 < 1")
    assert some.condition.columns == ("x",)
    assert some.count() == ((DATA.z < 0.5) & (DATA.x**2 < 1.0)).sum()
    assert pickle.loads(pickle.dumps(read_condition("x > 1", ("x",)))).columns == ("x",)
