"""Rows on a cluster: workers that are killed, or lack what they need; nothing is lost or counted twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.data.sources.cluster import cluster_error
from lme4py.errors import DataError, Lme4Error

dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

# A worker that dies says so on its way.
pytestmark = pytest.mark.filterwarnings("default")

FORMULA = "y ~ x + (x | g)"


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g, x = rng.integers(0, 25, 600), rng.normal(size=600)
    return pd.DataFrame({"y": 1.0 + x + rng.normal(size=25)[g] + rng.normal(size=600), "x": x, "g": g})


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


def test_a_worker_is_killed(client: Any, tmp_path: Path) -> None:
    whole = lme4py.lmer(FORMULA, DATA)
    rows = dd.from_pandas(DATA, npartitions=4).map_partitions(DiesOnce(tmp_path / "flag"), meta=DATA.iloc[:0])
    fit = lme4py.lmer(FORMULA, rows)
    assert (tmp_path / "flag").exists()
    assert (fit.rows.passes, fit.rows.n_rows, fit.n_obs) == (2, 600, 600)
    # Sums in another order.
    assert_allclose(fit.params, whole.params, rtol=1e-10)
    assert_allclose(fit.criterion, whole.criterion, rtol=1e-11)
