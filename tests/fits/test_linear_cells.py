"""Linear models of rows that agree in all columns but the response: cells say the same as the rows."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.data.cells import COUNT, WITHIN, find_cells
from lme4py.data.frame import read_frame
from lme4py.data.sources.memory import MemorySource
from lme4py.errors import Lme4Error, OptionError


def rows(n: int = 5000) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": rng.integers(20, size=n), "t": rng.integers(4, size=n), "s": rng.choice(["m", "f"], n)})
    data["h"] = [f"h{i}" for i in rng.integers(3, size=n)]
    # Far from zero beside its spread: sums of squares of the values themselves would lose digits.
    data["y"] = 1e5 + 3.0 * data.t + rng.normal(size=20)[data.g] * 5.0 + rng.normal(size=n) * 2.0
    data.loc[::501, "y"], data.loc[5::499, "t"] = np.nan, np.nan
    return data


DATA = rows()


def duckdb_rows(data: pd.DataFrame) -> Any:
    connection = pytest.importorskip("duckdb").connect()
    connection.register("d", data)
    return connection.sql("select * from d")


def polars_rows(data: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").from_pandas(data).lazy()


def dask_rows(data: pd.DataFrame) -> Any:
    return pytest.importorskip("dask.dataframe").from_pandas(data, npartitions=3)


def blocks(data: pd.DataFrame) -> Any:
    return MemorySource(read_frame(data), 611)


def same(ours: Any, theirs: Any) -> None:
    # Sums in another order, of numbers with five digits before those that vary.
    assert_allclose(ours.criterion, theirs.criterion, rtol=1e-11)
    assert_allclose((ours.params - theirs.params) / theirs.bse, 0.0, atol=1e-8)
    assert_allclose(ours.bse, theirs.bse, rtol=1e-8)
    assert_allclose(ours.fit.theta, theirs.fit.theta, rtol=1e-7)
    assert_allclose(ours.coef_table().df, theirs.coef_table().df, rtol=1e-7)
    for a, b in zip(ours.fit.modes, theirs.fit.modes, strict=True):
        assert_allclose(a, b, atol=1e-7)
    assert (ours.n_obs, ours.n_groups, ours.aic) == (theirs.n_obs, theirs.n_groups, pytest.approx(theirs.aic))


@pytest.mark.parametrize(
    ("make", "compress"),
    [(duckdb_rows, None), (polars_rows, None), (dask_rows, True), (blocks, True), (lambda data: data, True)],
)
def test_fits_of_cells_are_those_of_rows(make: Any, compress: bool | None) -> None:
    formula = "y ~ factor(t) * s + offset(0.5 * t) + (t | g)"
    whole = lme4py.lmer(formula, DATA)
    ours = lme4py.lmer(formula, make(DATA), compress=compress)
    same(ours, whole)
    n_cells = len(DATA.assign(m=DATA.y.isna()).drop_duplicates(["t", "s", "g", "m"]))
    assert f"compressed to {n_cells} cells" in ours.rows.where
    assert (ours.rows.passes, ours.rows.n_rows) == (1, len(DATA))
    # The smallest, mean and largest number of rows of a group.
    complete = DATA.dropna().groupby("g").size()
    assert ours.rows.group_rows["g"] == (complete.min(), complete.mean(), complete.max())


@pytest.mark.filterwarnings("ignore:The column I")
def test_crossed_factors_and_columns_that_depend_on_others() -> None:
    formula = "y ~ t + I(2 * t) + (1 | g) + (1 | h)"
    same(lme4py.lmer(formula, DATA, reml=False, compress=True), lme4py.lmer(formula, DATA, reml=False))


def test_what_follows_a_fit() -> None:
    formula = "y ~ t + (1 | g)"
    rows = duckdb_rows(DATA)
    ours, plain = lme4py.lmer(formula, rows, reml=False), lme4py.lmer(formula, rows, reml=False, compress=False)
    assert plain.rows.where == "DuckDB relation"
    assert "compressed to" in str(ours.summary())
    found = ours.augment().df()
    assert_allclose(found["fitted"], plain.augment().df()["fitted"], rtol=1e-9)
    assert len(found) == len(DATA)
    assert_allclose(pickle.loads(pickle.dumps(ours)).predict(DATA.head(3)), ours.predict(DATA.head(3)))
    # Cells and rows of a source have the same sums, by which models of the same rows are known.
    bigger = lme4py.lmer("y ~ t + s + (1 | g)", rows, reml=False)
    assert lme4py.lrtest(plain, bigger).df == 1
    assert_allclose(ours.conf_int(method="profile"), plain.conf_int(method="profile"), rtol=1e-7)


def test_the_choice_by_forecast() -> None:
    """Rows that hardly repeat are streamed."""
    rng = np.random.default_rng(5)
    data = DATA.assign(x=rng.normal(size=len(DATA)))
    assert lme4py.lmer("y ~ x + (1 | g)", polars_rows(data)).rows.passes == 2
    few = DATA.iloc[:200]
    assert lme4py.lmer("y ~ t * s + (1 | g)", polars_rows(few)).rows.where == "polars LazyFrame"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"formula": "log(y) ~ t + (1 | g)"}, "the response is no column"),
        ({"formula": "y ~ t + I(y > 1) + (1 | g)"}, "the response y is in other terms too"),
        ({"formula": "y ~ poly(t, 2) + (1 | g)"}, "learns from how often"),
        ({"weights": "t"}, "the rows have weights"),
        ({"compress": "yes"}, "give True, False, or None"),
    ],
)
def test_what_cells_are_no_substitute_for(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"formula": "y ~ t + (1 | g)", "data": DATA, "compress": True}
    with pytest.raises(OptionError, match=words):
        lme4py.lmer(**(arguments | change))


def test_text_in_the_place_of_the_response() -> None:
    with pytest.raises(Lme4Error):
        lme4py.lmer("h ~ t + (1 | g)", DATA, compress=True)


def test_means_and_squares_of_cells() -> None:
    found = find_cells(blocks(DATA), ("g", "y"), response="y", part=0.1)
    assert found is not None
    assert found.within is not None
    own = found.frame
    y = DATA.groupby("g").y
    order = np.argsort(own.column("g").values[~np.isnan(own.column("y").values)])
    complete = ~np.isnan(own.column("y").values)
    for name, values in (("y", y.mean()), (COUNT, y.count()), (WITHIN, y.var(ddof=0) * y.count())):
        # Sums in another order; means have five digits before those that vary.
        assert_allclose(own.column(name).values[complete][order], values, rtol=1e-9)
    assert found.n_rows == len(DATA)
