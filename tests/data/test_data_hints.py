"""A text in the place of the data."""

from __future__ import annotations

from pathlib import Path

import pytest

import lme4py
from lme4py.data.hints import data_from_text, reader_of
from lme4py.errors import DataError

F = "Reaction ~ Days + (1 | Subject)"


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("field.csv", "pandas.read_csv('field.csv')"),
        ("a/Field.CSV.gz", "pandas.read_csv('a/Field.CSV.gz')"),
        ("field.tsv", r"pandas.read_csv('field.tsv', sep='\t')"),
        ("field.parquet", "pandas.read_parquet('field.parquet')"),
        ("field.dta", "pandas.read_stata('field.dta')"),
        ("sleep.csv", "pandas.read_csv('sleep.csv')"),
        ("sleepstdy", "load_dataset('sleepstudy')"),
        ("SLEEPSTUDY", "load_dataset('sleepstudy')"),
        ("field", "pandas.read_csv(...)"),
    ],
)
def test_what_the_text_may_mean(text: str, call: str) -> None:
    assert data_from_text(text) == f"`{call}`"


def test_endings_that_nothing_reads() -> None:
    assert reader_of("field.gz") is None


@pytest.mark.parametrize("path", ["f.parquet", Path("f.parquet"), "f.csv"])
def test_messages_of_the_front_doors(path: str | Path) -> None:
    """A path is read; one that is not there is told."""
    for call in (lambda: lme4py.lmer(F, path), lambda: lme4py.mixed(path, "Reaction", "Days", "Subject")):
        with pytest.raises(DataError, match=f"there is no file '{path}'; check the path."):
            call()
