"""Rows on a cluster: workers that are killed, or lack what they need; nothing is lost or counted twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from streamed_fits import same

import lme4py
from lme4py.data.sources.cluster import cluster_error
from lme4py.errors import DataError, Lme4Error

dask = pytest.importorskip("dask")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

# A worker that dies says so on its way.
pytestmark = pytest.mark.filterwarnings("default")

FORMULA = "y ~ x + (x | g)"


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g, x = rng.integers(0, 25, 600), rng.normal(size=600)
    data = pd.DataFrame({"y": 1.0 + x + rng.normal(size=25)[g] + rng.normal(size=600), "x": x, "g": g})
    data["b"], data["s"] = (data.y + rng.logistic(size=600) > 1.0) * 1, g % 5
    data["m"] = rng.integers(1, 4, 600)
    data["k"] = rng.binomial(data.m, 1.0 / (1.0 + np.exp(-0.5 * data.y)))
    return data


DATA = rows()


class DiesOnce:
    """Kills the worker that runs it first."""

    def __init__(self, flag: Path) -> None:
        self.flag = str(flag)

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        try:
            os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return part
        os._exit(1)


def lacks_a_module(part: pd.DataFrame) -> pd.DataFrame:
    raise ModuleNotFoundError("No module named 'lme4py'")


def text_in_the_last(part: pd.DataFrame) -> pd.DataFrame:
    return part.assign(x=part["x"].astype(str)) if part.index[0] >= 400 else part


STREAM = {"rows": "stream"}


@pytest.mark.parametrize(
    ("formula", "options"),
    [("b ~ x + (1 | s / g)", {}), ("cbind(k, m - k) ~ x + offset(0.1 * y) + (1 | g)", {"nAGQ": 5})],
)
def test_evaluations_where_the_partitions_are(formula: str, options: dict[str, Any]) -> None:
    """On threads; a partition without rows, and one whose rows are all missing, say nothing."""
    first, last = DATA.iloc[:250], DATA.iloc[250:]
    missing = last.iloc[:7].assign(x=np.nan)
    parts = [dd.from_pandas(part, npartitions=n) for part, n in ((first, 2), (missing, 1), (last, 2))]
    rows = dd.concat(parts).map_partitions(lambda part: part if len(part) != 125 else part.iloc[:0], meta=DATA.iloc[:0])
    own = rows.compute()
    ours = lme4py.glmer(formula, rows, "binomial", control=STREAM, **options)
    assert own.shape[0] == ours.rows.n_rows
    same(ours, lme4py.glmer(formula, own, "binomial", **options))
    assert "by group where they are" in ours.rows.where
    assert len(ours.opt_log) <= 30


def test_crossed_factors_come_here() -> None:
    formula = "b ~ x + (1 | g) + (1 | m)"
    ours = lme4py.glmer(formula, dd.from_pandas(DATA, npartitions=2), "binomial", control=STREAM)
    assert_allclose(ours.criterion, lme4py.glmer(formula, DATA, "binomial").criterion, rtol=1e-10)
    assert "passes over files of this machine, to which the rows came" in ours.rows.where
    assert ours.rows.passes == 2


def test_a_partition_without_complete_rows_of_crossed_factors() -> None:
    """Nor with rows that a condition chooses."""
    formula = "y ~ x + (x | g) + (1 | m)"
    missing = DATA.iloc[250:300].assign(x=np.nan)
    parts = [dd.from_pandas(part, npartitions=1) for part in (DATA.iloc[:250], missing, DATA.iloc[300:])]
    own = pd.concat([DATA.iloc[:250], missing, DATA.iloc[300:]])
    for condition, n in ((None, 600), ("abs(x) < 9", 550)):
        ours = lme4py.lmer(formula, dd.concat(parts), subset=condition)
        # Sums in another order.
        assert_allclose(ours.params, lme4py.lmer(formula, own, subset=condition).params, rtol=1e-9)
        assert (ours.rows.n_rows, ours.n_obs) == (n, 550)


def test_workers_that_lack_the_package() -> None:
    rows = dd.from_pandas(DATA, npartitions=2).map_partitions(lacks_a_module, meta=DATA.iloc[:0])
    with pytest.raises(Lme4Error, match="workers of Dask have no lme4py; install"):
        lme4py.lmer(FORMULA, rows)


def test_partitions_of_other_types() -> None:
    rows = dd.from_pandas(DATA, npartitions=3).map_partitions(text_in_the_last, meta=DATA.iloc[:0])
    with pytest.raises(DataError, match="column 'x' is numeric in some blocks of the source and text in others"):
        lme4py.lmer(FORMULA, rows)


def test_workers_that_die_again_and_again() -> None:
    killed = type("KilledWorker", (Exception,), {})("Attempted to run task on 4 different workers")
    found = cluster_error(killed, "Dask", "")
    assert "workers of Dask died" in str(found)
    assert cluster_error(ValueError("something else"), "Dask", "") is None


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as one,
    ):
        yield one


def test_evaluations_on_workers(client: Any) -> None:
    rows = dd.from_pandas(DATA, npartitions=3)
    fits = [lme4py.glmer("b ~ x + (1 | g)", rows, "binomial", control=STREAM) for _ in range(2)]
    same(fits[0], lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial"))
    # Rows come to a part in any order.
    assert_allclose(fits[0].params, fits[1].params, rtol=1e-10)
    assert nothing_is_left(client)


@pytest.mark.parametrize("calls", [2, 7])
def test_an_interrupt_leaves_no_job(client: Any, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Even where a traceback still refers to everything."""
    left = [calls]

    def interrupted(*parts: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return compute(*parts)

    compute = dask.compute
    monkeypatch.setattr(dask, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        lme4py.glmer("b ~ x + (1 | g)", dd.from_pandas(DATA, npartitions=3), "binomial", control=STREAM)
    monkeypatch.undo()
    assert caught.tb is not None
    assert nothing_is_left(client)


def nothing_is_left(client: Any) -> bool:
    """Whether the scheduler has no task; it hears of futures a moment after they are given up."""
    for _ in range(100):
        if not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            return True
        time.sleep(0.05)
    return False


def test_a_worker_is_killed(client: Any, tmp_path: Path) -> None:
    whole = lme4py.lmer(FORMULA, DATA)
    rows = dd.from_pandas(DATA, npartitions=4).map_partitions(DiesOnce(tmp_path / "flag"), meta=DATA.iloc[:0])
    fit = lme4py.lmer(FORMULA, rows)
    assert (tmp_path / "flag").exists()
    assert (fit.rows.passes, fit.rows.n_rows, fit.n_obs) == (2, 600, 600)
    # Sums in another order.
    assert_allclose(fit.params, whole.params, rtol=1e-10)
    assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
