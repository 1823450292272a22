"""Of many rows a fit holds no column twice, and answers as if it held all."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.data.convert import to_column
from lme4py.design import rows
from lme4py.frozen import freeze


@pytest.fixture
def data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    a, b, x, z = rng.integers(3, 15, 200), rng.integers(0, 9, 200) / 2.0, *rng.standard_normal((2, 200))
    y = x + rng.standard_normal(18)[a] + rng.standard_normal(9)[(2 * b).astype(int)] + rng.standard_normal(200)
    return pd.DataFrame({"y": y, "x": x, "z": z, "a": a, "b": b})


FORMULA = "y ~ x * z + (x | a) + (1 | b)"


def test_answers_are_those_of_a_fit_that_holds_all(data, monkeypatch):
    monkeypatch.setattr(rows, "_LARGE", 10**6)
    whole = lme4py.lmer(FORMULA, data)
    monkeypatch.setattr(rows, "_LARGE", 0)
    monkeypatch.setattr(rows, "_ROWS", 7)
    found = lme4py.lmer(FORMULA, data)
    kept, wanted = found.fit.design.columns, whole.fit.design.columns
    assert list(kept) == list(wanted)
    for name, column in wanted.items():
        assert kept[name].kind == column.kind
        np.testing.assert_array_equal(kept[name].values, column.values)
    assert np.shares_memory(kept["x"].values, found.fit.design.X)
    again = pickle.loads(pickle.dumps(found))
    for fit in (found, again):
        one, other = (lme4py.Margins.response(each).dydx("x").to_frame() for each in (fit, whole))
        pd.testing.assert_frame_equal(one, other)
        np.testing.assert_array_equal(fit.predict(), whole.predict())
    assert found.update(". ~ . - x:z").criterion == whole.update(". ~ . - x:z").criterion


def test_the_mapping_is_frozen_without_being_made(data, monkeypatch):
    monkeypatch.setattr(rows, "_LARGE", 0)
    columns = lme4py.lformula(FORMULA, data).columns
    assert isinstance(columns, rows.KeptColumns)
    monkeypatch.setattr(rows.KeptColumns, "__getitem__", lambda self, name: pytest.fail("a column was made"))
    freeze(columns)


def test_whole_numbers_are_converted_once():
    numbers = np.array([3, 1, 2])
    column = to_column("a", numbers)
    assert column.own() is column
    floats = np.array([3.0, 1.0])
    own = to_column("b", floats).own()
    floats[0] = 9.0
    np.testing.assert_array_equal(own.values, [3.0, 1.0])
    # A part may be a view of the user's array.
    assert not to_column("b", floats).take(slice(0, 1)).fresh


def test_editing_the_data_changes_no_fit(data, monkeypatch):
    monkeypatch.setattr(rows, "_LARGE", 0)
    fit = lme4py.lmer(FORMULA, data)
    before = fit.fit.design.columns["a"].values
    data["a"] = 0
    np.testing.assert_array_equal(fit.fit.design.columns["a"].values, before)
