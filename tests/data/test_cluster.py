"""Rows on a cluster: workers that are killed, or lack what they need; nothing is lost or counted twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from streamed_fits import same

import lme4py
from lme4py.data.sources.cluster import cluster_error
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.fits.rows.loose import WayOnWorkers

dask = pytest.importorskip("dask")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

# A worker that dies says so on its way.
pytestmark = pytest.mark.filterwarnings("default")

FORMULA = "y ~ x + (x | g)"
CROSSED = "b ~ x + (1 | g) + (1 | m)"


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g, x = rng.integers(0, 25, 600), rng.normal(size=600)
    data = pd.DataFrame({"y": 1.0 + x + rng.normal(size=25)[g] + rng.normal(size=600), "x": x, "g": g})
    data["b"], data["s"] = (data.y + rng.logistic(size=600) > 1.0) * 1, g % 5
    data["m"] = rng.integers(1, 4, 600)
    data["p"], data["w"] = np.exp(0.3 * data.y) * rng.gamma(4.0, 0.25, 600), rng.integers(1, 4, 600)
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


def nested_but_for_a_row(data: pd.DataFrame) -> pd.DataFrame:
    """A factor u in which g is nested, but for a row that is not the first one of its levels."""
    return data.assign(u=np.where(np.arange(len(data)) == 300, (data.g // 5 + 1) % 5, data.g // 5))


@pytest.mark.parametrize(
    ("formula", "family", "options"),
    [
        ("b ~ x + (x | g) + (1 | m)", "binomial", {}),
        ("b ~ x + (1 | g) + (1 | u)", "binomial", {"link": "cloglog", "hessian": "expected"}),
        ("m ~ offset(0.1 * y) + (1 | g) + (1 | s) + (1 | k)", "poisson", {"weights": "w", "subset": "x > -2"}),
        ("p ~ x + (1 | g) + (1 | m)", "gamma", {"link": "log"}),
    ],
)
def test_crossed_factors_where_the_partitions_are(formula: str, family: str, options: dict[str, Any]) -> None:
    """Every step of PIRLS is a pass; rows without complete ones, and partitions without rows, say nothing."""
    data = nested_but_for_a_row(DATA)
    rows = dd.concat([dd.from_pandas(part, npartitions=2) for part in (data.iloc[:250], data.iloc[250:])])
    rows = rows.map_partitions(without_some, meta=data.iloc[:0])
    own = rows.compute()
    assert (own.shape[0], int(own.x.isna().sum())) == (475, 175)
    whole = lme4py.glmer(formula, own, family, **options)
    ours = lme4py.glmer(formula, rows, family, control=STREAM, **options)
    same(ours, whole, 2 + ("subset" in options))
    # What is asked of fits where the rows are.
    assert_allclose(ours.criterion, whole.criterion, rtol=1e-9)
    assert_allclose((ours.params - whole.params) / whole.bse, 0.0, atol=1e-6)
    assert "parts where they are (" in ours.rows.where
    assert ours.rows.cost.traffic > 0.0
    assert "MB each" in str(ours.rows)


def without_some(part: pd.DataFrame) -> pd.DataFrame:
    """The second partition without rows, the last one with missing ones only."""
    if len(part) == 0 or part.index[0] == 125:
        return part.iloc[:0]
    return part.assign(x=np.nan, y=np.nan) if part.index[-1] == 599 else part


@pytest.mark.parametrize("formula", [CROSSED, "b ~ x + (1 | g)", "cbind(b, 1 - b) ~ x + (1 | g) + (1 | m)"])
def test_partitions_with_one_response_only(formula: str) -> None:
    """Sorted rows, and many groups with failures only."""
    data = DATA.assign(b=DATA.b * (DATA.g % 6 == 0)).sort_values("b", ignore_index=True)
    ours = lme4py.glmer(formula, dd.from_pandas(data, npartitions=8), "binomial", control=STREAM)
    same(ours, lme4py.glmer(formula, data, "binomial"))


def test_groups_that_do_not_fit_where_the_partitions_are() -> None:
    """A group has nearly all rows; and quadrature is refused."""
    data = pd.concat([DATA.assign(x=DATA.x * i) for i in range(1, 8)], ignore_index=True)
    data = data.assign(g=np.where(np.arange(len(data)) % 12, 0, 1 + data.index % 7))
    rows, control = dd.from_pandas(data, npartitions=3), {"rows": "stream", "memory_limit": "1MB"}
    ours = lme4py.glmer("m ~ x + (1 | g)", rows, "poisson", control=control)
    same(ours, lme4py.glmer("m ~ x + (1 | g)", data, "poisson"))
    assert "parts where they are (" in ours.rows.where
    with pytest.raises(OptionError, match="nAGQ=5 takes quadrature over the groups one by one, but a group of g alone"):
        lme4py.glmer("m ~ x + (1 | g)", rows, "poisson", nAGQ=5, control=control)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1:], "a later pass found 599 of them"),
        (lambda rows: rows + np.eye(rows.shape[1])[1], "a later pass found others"),
    ],
)
def test_rows_that_are_made_again_and_are_others(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], words: str
) -> None:
    def changed(way: WayOnWorkers) -> None:
        first, *others = way.held.parts  # type: ignore[attr-defined]
        way.held.parts = [dask.delayed(change)(first), *others]  # type: ignore[attr-defined]

    at_call(monkeypatch, 4, changed)
    with pytest.raises(DataError, match=f"the source changed .* 600 rows were held by the workers, and {words}"):
        lme4py.glmer(CROSSED, dd.from_pandas(DATA, npartitions=4), "binomial", control=STREAM)


def at_call(monkeypatch: pytest.MonkeyPatch, number: int, what: Callable[[WayOnWorkers], Any]) -> None:
    """Do something before a pass."""
    left, total = [number], WayOnWorkers.total

    def own(self: WayOnWorkers, function: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            what(self)
        return total(self, function)

    monkeypatch.setattr(WayOnWorkers, "total", own)


def test_ordered_categories_where_the_partitions_are() -> None:
    formula = "o ~ x + (1 | g) + (1 | m)"
    data = DATA.assign(o=pd.cut(DATA.y, [-9.0, 0.0, 1.0, 2.0, 9.0], labels=list("abcd")))
    # Partitions of other categories.
    parts = [dd.from_pandas(part, npartitions=1) for _, part in data.assign(o=data.o.astype(str)).groupby("o")]
    same(lme4py.clmm(formula, dd.concat(parts), levels=list("abcd"), control=STREAM), lme4py.clmm(formula, data))
    # Numbers, and a partition of one row.
    data = data.assign(o=data.o.cat.codes)
    parts = [dd.from_pandas(part, npartitions=1) for part in (data.iloc[:1], data.iloc[1:])]
    same(lme4py.clmm(formula, dd.concat(parts), control=STREAM), lme4py.clmm(formula, data))


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


def test_partitions_that_lack_a_column() -> None:
    parts = [dask.delayed(part) for part in (DATA.iloc[:300], DATA.iloc[300:].drop(columns="x"))]
    rows = dd.from_delayed(parts, meta=DATA.iloc[:0], verify_meta=False)
    with pytest.raises(DataError, match="a partition has other columns than the Dask DataFrame says"):
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


@pytest.mark.parametrize(("formula", "calls"), [("b ~ x + (1 | g)", 2), ("b ~ x + (1 | g)", 7), (CROSSED, 12)])
def test_an_interrupt_leaves_no_job(client: Any, monkeypatch: pytest.MonkeyPatch, formula: str, calls: int) -> None:
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
        lme4py.glmer(formula, dd.from_pandas(DATA, npartitions=3), "binomial", control=STREAM)
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


def test_a_worker_is_killed_between_passes(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are made again."""
    at_call(monkeypatch, 4, lambda way: os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL))
    ours = lme4py.glmer(CROSSED, dd.from_pandas(DATA, npartitions=2), "binomial", control=STREAM)
    same(ours, lme4py.glmer(CROSSED, DATA, "binomial"))
    assert nothing_is_left(client)
