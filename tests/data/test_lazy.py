"""Predictions, residuals and augmented rows of streamed fits, lazily and in the source's own kind."""

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
from lme4py.errors import Lme4Error, OptionError

pa = pytest.importorskip("pyarrow")

FORMULA = "y ~ x + (x | g) + (1 | h)"


def rows(n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g, x = rng.integers(0, 25, n), rng.normal(size=n)
    data = pd.DataFrame({"x": x, "g": g, "h": [f"h{i}" for i in rng.integers(0, 9, n)]})
    data["y"] = data.x + rng.normal(size=25)[g] + rng.normal(size=n)
    data["b"] = (data.y > 0.0).astype(int)
    data.loc[11, "x"] = np.nan
    return data


DATA = rows()


def files(path: Path) -> Any:
    for part in range(3):
        DATA.iloc[part * 200 : (part + 1) * 200].to_parquet(path / f"{part}.parquet", index=False)
    return str(path / "*.parquet")


def lazy_frame(path: Path) -> Any:
    return pytest.importorskip("polars").from_pandas(DATA).lazy()


def relation(path: Path) -> Any:
    return pytest.importorskip("duckdb").from_arrow(pa.Table.from_pandas(DATA, preserve_index=False))


def dask_frame(path: Path) -> Any:
    return pytest.importorskip("dask.dataframe").from_pandas(DATA, npartitions=3)


KINDS: dict[str, tuple[Callable[[Path], Any], str, Callable[[Any], pd.DataFrame]]] = {
    "files": (files, "RecordBatchReader", lambda found: found.read_all().to_pandas()),
    "polars": (lazy_frame, "LazyFrame", lambda found: found.collect().to_pandas()),
    "duckdb": (relation, "DuckDBPyRelation", lambda found: found.to_arrow_table().to_pandas()),
    "dask": (dask_frame, "DataFrame", lambda found: found.compute()),
}


@pytest.fixture(scope="module")
def whole() -> Any:
    return lme4py.lmer(FORMULA, DATA, na_action="exclude")


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_of_the_source(kind: str, tmp_path: Path, whole: Any) -> None:
    make, name, collect = KINDS[kind]
    source = make(tmp_path)
    fit = lme4py.lmer(FORMULA, source)
    found = fit.predict()
    assert type(found).__name__ == name
    # The same optimum from sums in another order; missing rows stay, as NaN.
    assert_allclose(collect(found)["predicted"], whole.predict(DATA), rtol=1e-9)
    assert_allclose(collect(fit.residuals())["residual"], whole.residuals(), atol=1e-9)
    augmented = collect(fit.augment(prefix="."))
    assert list(augmented.columns) == [*DATA.columns, ".fitted", ".fixed", ".mu", ".resid"]
    assert_allclose(augmented[".fixed"], whole.predict(DATA, include_random=False), rtol=1e-9)
    pd.testing.assert_series_equal(augmented["y"], DATA["y"], check_index=False)
    logit = lme4py.glmer("b ~ x + (1 | g)", source, "binomial", control={"rows": "stream"})
    memory = lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial")
    # Both are certified to 1e-11 of the criterion.
    assert_allclose(collect(logit.predict(type="linear"))["predicted"], memory.predict(DATA, type="linear"), atol=1e-5)


def test_intervals_have_columns() -> None:
    pl = pytest.importorskip("polars")
    fit = lme4py.lmer("y ~ x + (x | g)", pl.from_pandas(DATA).lazy())
    whole = lme4py.lmer("y ~ x + (x | g)", DATA).predict(DATA, interval="confidence")
    # The same optimum from sums in another order.
    assert_allclose(fit.predict(interval="confidence").collect().to_pandas(), whole, rtol=1e-8)


def test_what_cannot_be_lazy(tmp_path: Path) -> None:
    source = files(tmp_path)
    fit = lme4py.lmer("y ~ x + (x | g)", source)
    with pytest.raises(OptionError, match="type='response'"):
        fit.residuals("pearson")
    with pytest.raises(OptionError, match="give the rows too"):
        fit.predict(offset=np.zeros(600))
    with pytest.raises(Lme4Error, match="source, which is not kept"):
        pickle.loads(pickle.dumps(fit)).predict()
    DATA.assign(mu=0.0).to_parquet(tmp_path / "0.parquet")
    DATA.assign(mu=0.0).to_parquet(tmp_path / "1.parquet")
    DATA.assign(mu=0.0).to_parquet(tmp_path / "2.parquet")
    with pytest.raises(OptionError, match=r"column\(s\) mu"):
        lme4py.lmer("y ~ x + (x | g)", source).augment()
