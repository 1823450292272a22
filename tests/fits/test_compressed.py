"""Rows that repeat, as cells with their number: the same estimates, likelihoods and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.chunks import TINY
from lme4py.data.cells import find_cells
from lme4py.data.frame import read_frame
from lme4py.data.sources.memory import MemorySource
from lme4py.errors import Lme4Error, OptionError


def rows(n: int = 1500) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g, f, x = rng.integers(0, 12, n), rng.choice(list("abc"), n), rng.integers(0, 3, n)
    eta = -0.5 + 0.4 * x + (f == "b") + rng.normal(size=12)[g]
    data = pd.DataFrame({"x": x * 1.0, "f": f, "g": g, "wide": rng.normal(size=n)})
    data["y"] = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    data["count"] = rng.poisson(np.exp(0.3 * eta))
    data["rating"] = rng.integers(0, 4, n)
    data.loc[:4, "x"] = np.nan
    return data


DATA = rows()


def same(whole: Any, cells: Any) -> None:
    # The same likelihood, whose terms are added in another order; standard errors come from differences of gradients.
    assert_allclose(cells.criterion, whole.criterion, rtol=1e-11)
    assert_allclose(cells.params, whole.params, rtol=1e-8)
    assert_allclose(cells.bse, whole.bse, rtol=1e-6)
    assert_allclose(cells.ranef().to_numpy(), whole.ranef().to_numpy(), atol=1e-8)
    assert (cells.n_obs, cells.df_resid) == (whole.n_obs, whole.df_resid) == (1495, whole.df_resid)
    assert_allclose([cells.aic, cells.bic], [whole.aic, whole.bic], rtol=1e-11)
    assert cells.rows.n_rows == 1500
    assert "compressed to" in str(cells.summary())


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("y ~ x * f + (1 | g)", "binomial"),
        ("cbind(y, 2 - y) ~ x + f + (1 | g)", "binomial"),
        ("count ~ x + f + (1 | g)", "poisson"),
        ("count ~ x + (1 | g)", "nbinomial"),
    ],
)
def test_generalised_models(formula: str, family: str) -> None:
    whole = lme4py.glmer(formula, DATA, family)
    cells = lme4py.glmer(formula, DATA, family, compress=True)
    same(whole, cells)
    new = DATA.iloc[5:9]
    assert_allclose(cells.predict(new), whole.predict(new), rtol=1e-8)
    summary = [line for line in str(whole.summary()).splitlines() if line.startswith("  g  ")]
    assert [line for line in str(cells.summary()).splitlines() if line.startswith("  g  ")] == summary


def test_ordinal_models() -> None:
    whole = lme4py.clmm("rating ~ x + f + (1 | g)", DATA)
    cells = lme4py.clmm("rating ~ x + f + (1 | g)", DATA, compress=True)
    same(whole, cells)
    assert_allclose(cells.thresholds, whole.thresholds, rtol=1e-8)


# Whether it is worth it is judged by a sample, which tiny chunks make too small.
WORTH_IT = True if TINY else None


def test_sources_are_compressed_where_it_is_worth_it() -> None:
    source = MemorySource(read_frame(DATA), 211)
    same(lme4py.glmer("y ~ x + f + (1 | g)", DATA), lme4py.glmer("y ~ x + f + (1 | g)", source, compress=WORTH_IT))
    assert lme4py.glmer("y ~ wide + (1 | g)", source).rows.where == "memory"
    assert lme4py.glmer("y ~ x + (1 | g)", source, compress=False).rows.where == "memory"
    assert lme4py.glmer("y ~ x + (1 | g)", source, control={"rows": "memory"}).fittedvalues.size == 1495


@pytest.mark.parametrize("kind", ["polars", "duckdb"])
def test_group_by_of_the_source(kind: str) -> None:
    """Missing values are cells too; the numbers do not depend on who counts."""
    module = pytest.importorskip(kind)
    pl = pytest.importorskip("polars")
    frame = pl.from_pandas(DATA)
    source = frame.lazy() if kind == "polars" else module.from_arrow(frame.to_arrow())
    same(lme4py.glmer("y ~ x + f + (1 | g)", DATA), lme4py.glmer("y ~ x + f + (1 | g)", source, compress=WORTH_IT))
    assert lme4py.glmer("y ~ wide + (1 | g)", source).rows.where == "memory"


def test_cells_are_counts_of_rows() -> None:
    found = find_cells(MemorySource(read_frame(DATA), 97), ("x", "f", "y"), insist=True)
    assert found is not None
    expected = DATA.groupby(["x", "f", "y"], dropna=False).size()
    assert found.counts.size == expected.size
    assert found.n_rows == 1500
    labels = [found.columns["f"].levels[code] for code in found.columns["f"].values]
    ours = pd.Series(
        found.counts, index=pd.MultiIndex.from_arrays([found.columns["x"].values, labels, found.columns["y"].values])
    )
    assert_allclose(ours.sort_index().to_numpy(), expected.sort_index().to_numpy())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"formula": "y ~ scale(x) + (1 | g)"}, "scale"),
        ({"weights": "x"}, "weights"),
        ({"offset": "x"}, "offset"),
        ({"formula": "wide ~ x + (1 | g)", "family": "gaussian"}, "gaussian"),
        ({"compress": "yes"}, "True, False"),
    ],
)
def test_where_cells_are_no_substitute(change: dict[str, object], words: str) -> None:
    arguments: dict[str, Any] = {"formula": "y ~ x + (1 | g)", "data": DATA, "compress": True}
    with pytest.raises(OptionError, match=words):
        lme4py.glmer(**(arguments | change))


def test_rows_are_predicted_where_they_are() -> None:
    fit = lme4py.glmer("y ~ x + (1 | g)", DATA, compress=True)
    whole = lme4py.glmer("y ~ x + (1 | g)", DATA)
    # Both are certified to 1e-11 of the criterion.
    assert_allclose(fit.predict()["predicted"], whole.predict(DATA), atol=1e-6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.simulate(1),
        lambda fit: fit.bootstrap(2),
        lambda fit: fit.profile(),
        lambda fit: fit.ranova(),
        lambda fit: fit.drop1(),
        lambda fit: fit.lrtest_no_random(),
        lambda fit: fit.r_squared(),
        lambda fit: fit.icc(),
        lambda fit: fit.influence(),
    ],
)
def test_what_needs_rows_is_refused_by_name(ask: Any) -> None:
    fit = lme4py.glmer("y ~ x + (1 | g)", DATA, compress=True)
    with pytest.raises(Lme4Error, match="streamed"):
        ask(fit)
