"""Delta tables: as objects of deltalake, as their pyarrow datasets, and by polars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.errors import DataError
from lme4py.fits.linear import streamed

deltalake = pytest.importorskip("deltalake")
DeltaError = pytest.importorskip("deltalake.exceptions").DeltaError
polars = pytest.importorskip("polars")
pytest.importorskip("pyarrow")

FORMULA = "y ~ x + factor(year) + (1 | g)"
# polars and deltalake have warnings of their own about each other's versions.
pytestmark = pytest.mark.filterwarnings("default")


def rows(n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    g = rng.integers(0, 20, n)
    y = rng.normal(size=20)[g] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": rng.normal(size=n), "g": [f"g{i}" for i in g], "year": 2020 + np.arange(n) % 3})


DATA = rows()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A table with partitions, whose column is in the names of the folders only."""
    deltalake.write_deltalake(str(tmp_path), DATA, partition_by=["year"])
    return str(tmp_path)


def check(data: Any, whole: pd.DataFrame, formula: str = FORMULA, subset: str | None = None) -> Any:
    ours, theirs = (lme4py.lmer(formula, rows, subset=subset) for rows in (data, whole))
    # Sums in another order.
    assert_allclose(ours.params, theirs.params, rtol=1e-9)
    assert_allclose(ours.criterion, theirs.criterion, rtol=1e-11)
    assert ours.n_obs == theirs.n_obs
    return ours


def test_the_ways_to_a_table(folder: str) -> None:
    table = deltalake.DeltaTable(folder)
    assert check(table, DATA).rows.where == "Delta table (version 0)"
    check(table.to_pyarrow_dataset(), DATA)
    check(polars.scan_delta(folder), DATA)
    check(table, DATA, subset="x > -1 & year > 2020")


def test_columns_that_came_later_and_rows_that_were_deleted(folder: str) -> None:
    """Old files have no z, which is missing there; deleted rows are not in the files of the new version."""
    more = DATA.assign(z=DATA.x**2, y=1.0 + 0.5 * DATA.y)
    deltalake.write_deltalake(folder, more, mode="append", schema_mode="merge", partition_by=["year"])
    every = pd.concat([DATA, more], ignore_index=True)
    check(deltalake.DeltaTable(folder), every)
    check(deltalake.DeltaTable(folder), every, "y ~ z + (1 | g)")
    deltalake.DeltaTable(folder).delete("x > 1")
    check(deltalake.DeltaTable(folder), every[every.x <= 1.0])
    # A version by its number.
    check(deltalake.DeltaTable(folder, version=0), DATA)


def test_deletion_vectors_are_refused(folder: str) -> None:
    table = deltalake.DeltaTable(folder)
    table.alter.add_feature(deltalake.TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    # Older versions of deltalake do not open such a table.
    with pytest.raises((DataError, DeltaError), match=r"[dD]eletionVectors"):
        lme4py.lmer(FORMULA, deltalake.DeltaTable(folder))


def between_passes(monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]) -> None:
    plan = streamed.plan_stream

    def own(*args: Any, **options: Any) -> Any:
        found = plan(*args, **options)
        what()
        return found

    monkeypatch.setattr(streamed, "plan_stream", own)


def test_other_versions_between_passes(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object stays at its version, and so does a LazyFrame; with a polars where it does not, it is refused."""

    def append() -> None:
        deltalake.write_deltalake(folder, DATA.head(9), mode="append", partition_by=["year"])

    whole = lme4py.lmer(FORMULA, DATA)
    between_passes(monkeypatch, append)
    assert_allclose(lme4py.lmer(FORMULA, deltalake.DeltaTable(folder)).params, whole.params, rtol=1e-9)
    now, lazy = lme4py.lmer(FORMULA, deltalake.DeltaTable(folder, version=1)), polars.scan_delta(folder, version=1)
    with suppress(DataError):
        assert_allclose(lme4py.lmer(FORMULA, lazy).params, now.params, rtol=1e-9)


def test_files_that_are_gone(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = deltalake.DeltaTable(folder)

    def vacuum() -> None:
        deltalake.write_deltalake(folder, DATA.head(9), mode="overwrite", partition_by=["year"])
        deltalake.DeltaTable(folder).vacuum(0, dry_run=False, enforce_retention_duration=False)

    between_passes(monkeypatch, vacuum)
    with pytest.raises(DataError, match="the source changed while it was read"):
        lme4py.lmer(FORMULA, table)
