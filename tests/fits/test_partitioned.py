"""Generalised models of streamed rows, in parts of whole groups, equal those of the same rows in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from streamed_fits import same

import lme4py
from lme4py.data.frame import read_frame
from lme4py.data.sources.memory import MemorySource
from lme4py.errors import DataError, DesignError, Lme4Error, OptionError
from lme4py.fits.rows.settings import memory_setting

STREAM = {"rows": "stream", "memory_limit": "1MB"}


def rows(n: int = 6000) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    school = rng.integers(25, size=200)
    g, x = rng.integers(200, size=n), rng.normal(size=n)
    eta = 0.3 + 0.5 * x + rng.normal(size=200)[g] + 0.7 * rng.normal(size=25)[school[g]]
    mean = 1.0 / (1.0 + np.exp(-eta))
    data = pd.DataFrame({"g": g, "s": [f"s{i}" for i in school[g]], "x": x, "f": rng.choice(list("abc"), n)})
    data["b"], data["m"] = rng.binomial(1, mean), rng.integers(1, 6, n)
    data["k"], data["c"] = rng.binomial(data["m"], mean), rng.poisson(np.exp(eta - 1.0))
    data["yn"], data["w"] = np.where(data.b == 1, "yes", "no"), rng.uniform(0.5, 2.0, n)
    data["o"] = np.digitize(eta + rng.logistic(size=n), [-1.0, 1.0])
    data["positive"], data["z"] = np.exp(0.2 * eta + 0.3 * rng.normal(size=n)), 0.1 * x
    data.loc[7, "x"] = np.nan
    return data


DATA = rows()


@pytest.mark.filterwarnings("ignore:(In a part of the rows. )?The quadrature with nAGQ=3 is poor")
@pytest.mark.parametrize(
    ("formula", "family", "options"),
    [
        ("b ~ x * f + (x | g)", "binomial", {}),
        ("b ~ x + (1 | s / g)", "binomial", {}),
        ("b ~ x + (1 | s / g)", "binomial", {"nAGQ": 3}),
        ("yn ~ x + (1 | g)", "binomial", {"nAGQ": 7}),
        ("cbind(k, m - k) ~ poly(z, 2) + (1 | g)", "binomial", {}),
        ("c ~ x + offset(z) + (1 | g)", "poisson", {"weights": "w"}),
        ("c ~ x + (1 | g)", "nbinomial", {}),
        ("positive ~ x + (1 | g)", "gamma", {"link": "log"}),
    ],
)
def test_streamed_fits_are_those_in_memory(formula: str, family: str, options: dict[str, Any]) -> None:
    data = DATA.dropna() if "z" in formula else DATA
    whole = lme4py.glmer(formula, data, family, **options)
    ours = lme4py.glmer(formula, MemorySource(read_frame(data), 701), family, control=STREAM, **options)
    same(ours, whole)
    assert "parts by group" in ours.rows.where


@pytest.mark.parametrize("nAGQ", [1, 5])
def test_ordinal_models(nAGQ: int) -> None:
    whole = lme4py.clmm("o ~ x + (1 | g)", DATA, nAGQ=nAGQ)
    ours = lme4py.clmm("o ~ x + (1 | g)", DATA, nAGQ=nAGQ, control=STREAM)
    same(ours, whole)
    assert_allclose(ours.thresholds, whole.thresholds, atol=1e-6)


def test_order_and_parts_do_not_matter() -> None:
    shuffled = MemorySource(read_frame(DATA.sample(frac=1.0, random_state=1)), 333)
    first = lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial", control=STREAM)
    second = lme4py.glmer("b ~ x + (1 | g)", shuffled, "binomial", control=STREAM | {"memory_limit": "3MB"})
    assert first.rows.where != second.rows.where
    same(second, first)


def test_files_larger_than_the_limit_are_streamed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for part in range(3):
        DATA.iloc[part * 2000 : (part + 1) * 2000].to_parquet(tmp_path / f"{part}.parquet")
    files = str(tmp_path / "*.parquet")
    small = lme4py.glmer("b ~ x + (1 | g)", files, "binomial", control={"memory_limit": "1MB"})
    assert small.rows.where.startswith("3 Parquet files, ")
    large = lme4py.glmer("b ~ x + (1 | g)", files, "binomial", control={"memory_limit": "1GB"})
    assert large.rows.where == "memory"
    same(small, large)


def test_what_follows_a_fit() -> None:
    ours = lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial", control=STREAM)
    whole = lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial")
    assert "parts by group" in str(ours.summary())
    assert_allclose(ours.predict(DATA.head(20)), whole.predict(DATA.head(20)), rtol=1e-5)
    # Hessians are differences of gradients.
    assert_allclose(ours.conf_int(parm="all"), whole.conf_int(parm="all"), rtol=1e-3)
    bigger = lme4py.glmer("b ~ x + (x | g)", DATA, "binomial", control=STREAM)
    assert lme4py.lrtest(ours, bigger).df == 2
    with pytest.raises(Lme4Error, match="streamed"):
        ours.residuals()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"formula": "b ~ x + (1 | g) + (1 | f)", "nAGQ": 3}, OptionError, "crossed"),
        ({"nAGQ": 0}, OptionError, "nAGQ=0"),
        ({"ziformula": "~ x"}, OptionError, "ziformula= needs the rows in memory"),
        ({"weights": np.ones(len(DATA))}, OptionError, "name of a column"),
        ({"control": {"memory_limit": "much"}}, OptionError, "memory_limit"),
        ({"formula": "b ~ x + I(2 * x) + (1 | g)"}, DesignError, "seem to determine"),
        ({"formula": "g ~ x + (1 | s)"}, DataError, "binomial"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Lme4Error], words: str) -> None:
    arguments: dict[str, Any] = {"formula": "b ~ x + (1 | g)", "data": DATA, "family": "binomial", "control": STREAM}
    with pytest.raises(error, match=words):
        lme4py.glmer(**(arguments | change))


def test_separated_responses_are_refused() -> None:
    """A direction of recession of all rows is one of every part."""
    data = DATA.assign(b=(DATA.x > 0).astype(int))
    with pytest.raises(DesignError, match="have no fit of their own"):
        lme4py.glmer("b ~ x + (1 | g)", data, "binomial", control=STREAM)


@pytest.mark.parametrize(
    ("given", "size"), [("2GB", 2e9), ("1.5 GiB", 1.5 * 2**30), (5_000_000, 5e6), ("500 mb", 5e8), ("2e9", None)]
)
def test_sizes_of_memory(given: Any, size: float | None) -> None:
    if size is None:
        with pytest.raises(OptionError, match="memory_limit"):
            memory_setting({"memory_limit": given})
    else:
        assert memory_setting({"memory_limit": given}) == size
