"""Polars in, polars out, where the user asks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import lme4py
from lme4py.errors import OptionError

pl = pytest.importorskip("polars")
SLEEP = lme4py.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit():
    columns = {name: SLEEP[name].to_list() for name in SLEEP}
    return lme4py.lmer("Reaction ~ Days + (Days | Subject)", pl.DataFrame(columns))


def test_tables_come_as_polars_frames(fit):
    table = fit.to_native(fit.tidy())
    assert isinstance(table, pl.DataFrame)
    assert table.columns == list(fit.tidy().columns)
    np.testing.assert_array_equal(table["estimate"].to_numpy(), fit.tidy()["estimate"])
    # What is missing in a column of labels is null.
    assert table["group"].null_count() == fit.tidy()["group"].isna().sum()


def test_labels_become_columns(fit):
    assert fit.to_native(fit.params).columns == ["term", "estimate"]
    assert fit.to_native(fit.ranef()).columns == ["Subject", "Intercept", "Days"]
    predicted = fit.to_native(fit.predict(SLEEP.head(3)))
    assert predicted.columns == ["predicted"]


def test_another_library_by_name(fit):
    pa = pytest.importorskip("pyarrow")
    table = fit.to_native(fit.coef_table(), "pyarrow")
    assert isinstance(table, pa.Table)
    assert fit.to_native(fit.params, "pandas") is not None
    with pytest.raises(OptionError, match="Did you mean 'polars'"):
        fit.to_native(fit.params, "polar")


def test_a_result_without_its_data_gives_pandas(fit):
    again = pickle.loads(pickle.dumps(fit))
    assert list(again.to_native(again.params).index) == ["Intercept", "Days"]
