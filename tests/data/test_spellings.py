"""Levels that look like two spellings of one are told with their rows, in memory and where rows are streamed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.data import spellings
from lme4py.data.spellings import alike_levels
from lme4py.errors import SpellingWarning

FORMULA = "y ~ f + (1 | g)"


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"f": rng.choice(["north", "south"], 300), "g": rng.integers(0, 9, 300).astype(str)})
    data["y"], data["b"] = rng.normal(size=300), rng.integers(0, 2, 300)
    data.loc[200:206, "f"] = "north "
    return data


DATA = rows()
COUNTS = f"'north' ({(DATA.f == 'north').sum()} rows) and 'north ' (7 rows)"


def test_what_is_alike() -> None:
    assert alike_levels(["a", "A", "ab", "b", 1, "1"]) == []
    # A no-break space, a ligature, two spaces, a whole number that was read as a fraction.
    assert alike_levels(["x\u00a0y", "x  Y", "\ufb01n", "Fin", "12", "12.0"]) == [
        ("x\u00a0y", "x  Y"),
        ("\ufb01n", "Fin"),
        ("12", "12.0"),
    ]


def told(fit: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit()
    return [str(one.message) for one in found if one.category is SpellingWarning]


def test_levels_in_memory_and_in_files(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    DATA.iloc[:150].to_parquet(tmp_path / "1.parquet")
    DATA.iloc[150:].to_parquet(tmp_path / "2.parquet")
    files = str(tmp_path / "*.parquet")
    for data, more in ((DATA, {}), (files, {}), (files, {"compress": True})):
        message = told(lambda data=data, more=more: lme4py.lmer(FORMULA, data, **more))
        assert len(message) == 1
        assert "column 'f' has levels that differ only in spaces, letter case" in message[0]
        assert COUNTS in message[0]
    assert COUNTS in told(lambda: lme4py.glmer("b ~ f + (1 | g)", files, "binomial", compress=True))[0]
    quiet = {"check": {"spelling": "ignore"}}
    assert not told(lambda: lme4py.lmer(FORMULA, files, control=quiet))
    assert not told(lambda: lme4py.lmer(FORMULA, DATA, subset="f != 'north '"))


@pytest.mark.parametrize(
    "levels",
    [
        ["1", "2", "30"],
        ["a", "b c"],
        ["a", "B"],
        ["x", "x\t"],
        ["7", "7.0"],
        ["7.05", "7.0e1"],
        ["é", "e"],
        ["", "a"],
        [],
        ["a", "b\n"],
        ["ab", "aB"],
    ],
)
def test_levels_that_are_seen_at_a_glance(levels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # All levels in one text tell the same as each by itself.
    found = alike_levels(levels)
    monkeypatch.setattr(spellings, "_is_plain", lambda texts: False)
    assert alike_levels(levels) == found
