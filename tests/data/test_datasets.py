"""The data sets that come with the package, against counts and sums computed by R."""

from __future__ import annotations

import json
import runpy
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lme4py.data import dataset_names, list_datasets, load_dataset, read_frame
from lme4py.data.datasets import dataset_frame
from lme4py.errors import DataError

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "reference" / "datasets.json").read_text(encoding="utf-8")
)
PROMISED = {
    *("sleepstudy", "Dyestuff", "Dyestuff2", "Penicillin", "Pastes", "cake", "cbpp", "InstEval", "VerbAgg"),
    *("grouseticks", "Contraception", "Exam", "Chem97", "Hsb82", "Orthodont", "Machines", "Oats", "Rail"),
    *("wine", "soup", "Salamanders"),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_data_set_is_as_in_r(name: str) -> None:
    data = load_dataset(name)
    expected = REFERENCE[name]
    assert len(data) == expected["rows"]
    assert list(data.columns) == list(expected["columns"])
    for column, facts in expected["columns"].items():
        assert int(data[column].isna().sum()) == facts["n_missing"]
        check = check_factor if facts["kind"] in ("factor", "ordered") else check_numbers
        check(data[column], facts)


def check_factor(column: pd.Series, facts: dict[str, Any]) -> None:
    assert isinstance(column.dtype, pd.CategoricalDtype)
    assert column.dtype.ordered == (facts["kind"] == "ordered")
    levels = column.cat.categories.tolist()
    assert len(levels) == facts["n_levels"]
    assert levels[:5] == facts["first_levels"]
    assert levels[-1] == facts["last_level"]
    assert zlib.crc32("\n".join(levels).encode()) == facts["levels_crc32"]
    codes = column.cat.codes.to_numpy(np.int64)
    assert int((codes[codes >= 0] + 1).sum()) == facts["code_sum"]


def check_numbers(column: pd.Series, facts: dict[str, Any]) -> None:
    assert column.dtype == {"integer": np.int64, "numeric": np.float64}[facts["kind"]]
    # Sums in another order than R's differ by rounding only; R's are written with 15 digits.
    assert abs(column.sum() - facts["sum"]) <= 1e-12 * max(facts["abs_sum"], 1)
    assert column.abs().sum() == pytest.approx(facts["abs_sum"], rel=1e-12)


@pytest.mark.parametrize("name", ["sleepstudy", "cake", "trial", "VerbAgg"])
def test_the_command_reads_what_a_fit_makes_of_the_data_frame(name: str) -> None:
    own, given = dataset_frame(name), read_frame(load_dataset(name))
    assert (own.names, own.n_rows) == (given.names, given.n_rows)
    for column in own.names:
        a, b = own.column(column), given.column(column)
        assert (a.kind, a.levels, a.values.dtype) == (b.kind, b.levels, b.values.dtype)
        np.testing.assert_array_equal(a.values, b.values)


def test_all_promised_names_exist() -> None:
    assert set(dataset_names()) >= PROMISED
    assert set(dataset_names()) == {*REFERENCE, "trial"}


def test_the_simulated_trial_is_what_its_script_makes() -> None:
    folder = Path(__file__).parents[1] / "reference" / "make"
    made = runpy.run_path(str(folder / "trial.py"))["make"]()
    own = load_dataset("trial")
    assert list(own.columns) == list(made.columns)
    for name in own:
        pd.testing.assert_series_equal(own[name].astype(made[name].dtype), made[name])
    # One row for each subject and visit, missing ones too.
    assert len(own) == 4 * own["USUBJID"].nunique()
    assert 0.1 < own["AVAL"].isna().mean() < 0.3


def test_no_file_without_an_entry() -> None:
    stored = {path.name for path in files("lme4py.data.datasets").iterdir() if path.name.endswith(".csv.gz")}
    assert stored == {f"{name}.csv.gz" for name in dataset_names()}


def test_numbers_are_exact_to_the_last_digit() -> None:
    assert load_dataset("sleepstudy")["Reaction"].iloc[:2].tolist() == [249.56, 258.7047]
    assert load_dataset("Chem97")["gcsecnt"].iloc[0] == 0.33931571143032979


@pytest.mark.parametrize(
    ("name", "column", "levels"),
    [
        ("Orthodont", "Sex", ["Male", "Female"]),
        ("Machines", "Worker", ["6", "2", "4", "1", "3", "5"]),
        ("cake", "temperature", ["175", "185", "195", "205", "215", "225"]),
        ("Contraception", "livch", ["0", "1", "2", "3+"]),
        ("VerbAgg", "mode", ["want", "do"]),
    ],
)
def test_level_order(name: str, column: str, levels: list[str]) -> None:
    assert load_dataset(name)[column].cat.categories.tolist() == levels
    assert read_frame(load_dataset(name)).column(column).levels == tuple(levels)


def test_each_call_gives_a_fresh_frame() -> None:
    changed = load_dataset("Rail")
    changed.loc[0, "travel"] = -1.0
    assert load_dataset("Rail").loc[0, "travel"] == 55.0


def test_upper_and_lower_case_do_not_matter() -> None:
    pd.testing.assert_frame_equal(load_dataset("SLEEPstudy"), load_dataset("sleepstudy"))


def test_unknown_name() -> None:
    with pytest.raises(DataError, match=r"'sleepstdy'\. Did you mean 'sleepstudy'\?.*`list_datasets\(\)`"):
        load_dataset("sleepstdy")


def test_list_of_data_sets() -> None:
    table = list_datasets().set_index("name")
    assert table.columns.tolist() == ["rows", "columns", "title", "source"]
    assert table.loc["Chem97", ["rows", "columns"]].tolist() == [31022, 8]
    assert "Belenky" in table.loc["sleepstudy", "source"]
    assert (table["title"].str.len() > 10).all()
    # Each source names a year.
    assert table["source"].str.contains(r"\(\d{4}[);]").all()
