"""Data sets for tests: those kept in tests/reference/data, and those shipped with the package."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

REFERENCE = Path(__file__).parents[1] / "reference"


@cache
def _schema() -> dict[str, Any]:
    text = (REFERENCE / "data" / "schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def load_reference(name: str) -> pd.DataFrame:
    """A fresh data frame; factors are categories in R's level order, strings stay strings.

    Parameters
    ----------
    name : str
        A data set of tests/reference/data (such as ``sleepstudy_x``) or of `lme4py.load_dataset`.
    """
    if name in _schema():
        return _read(name).copy()
    import lme4py

    return lme4py.load_dataset(name)


@cache
def _read(name: str) -> pd.DataFrame:
    path = REFERENCE / "data" / f"{name}.csv.gz"
    cells = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    return pd.DataFrame({spec["name"]: _convert(cells[spec["name"]], spec) for spec in _schema()[name]["columns"]})


def _convert(cells: pd.Series[str], spec: dict[str, Any]) -> Any:
    kind = spec["kind"]
    if kind in ("factor", "ordered"):
        return pd.Categorical(cells, categories=spec["levels"], ordered=kind == "ordered")
    if kind == "logical":
        return cells.map({"TRUE": True, "FALSE": False}).astype(object if cells.isna().any() else bool)
    if kind == "string":
        return cells
    whole = kind == "integer" and not cells.isna().any()
    return cells.astype("int64" if whole else "float64")
