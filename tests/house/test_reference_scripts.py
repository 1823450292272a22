"""Every file of reference numbers has the script that makes it, and the script the calls that are stored."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from reference_data import REFERENCE

MAKE = REFERENCE / "make"
# Random models with the best of many starts of the package's own descents: no other program has these numbers.
OWN = {"glmm_optima.json": "benchmarks/glmm_optima.py"}
FILES = sorted(
    path for path in REFERENCE.iterdir() if path.name.endswith((".json", ".json.gz")) and path.name not in OWN
)
CALLS: dict[str, Any] = json.loads((MAKE / "models.json").read_text(encoding="utf-8"))


def read(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def stem(path: Path) -> str:
    return path.name.split(".")[0]


def test_every_file_has_its_script_and_every_script_its_file():
    scripts = {path.stem for path in MAKE.glob("*.R")} - {"common"}
    assert scripts == {stem(path) for path in FILES}


@pytest.mark.parametrize("name", OWN)
def test_what_is_our_own_names_its_program(name):
    assert f"tests/reference/{name}" in (REFERENCE.parents[1] / OWN[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_the_script_writes_that_file(path):
    assert f'{path.name}"' in (MAKE / f"{stem(path)}.R").read_text(encoding="utf-8")


@pytest.mark.parametrize("section", sorted(set(CALLS) & {stem(path) for path in FILES} - {"formulas"}))
def test_the_calls_are_those_of_the_stored_models(section):
    stored = read(next(path for path in FILES if stem(path) == section))
    models = stored.get("models", stored)
    assert set(CALLS[section]) == set(models)
    for name, call in CALLS[section].items():
        for key in {"formula", "data", "family", "link", "weights"} & call.keys() & models[name].keys():
            assert call[key] == models[name][key], (name, key)


def test_the_formulas_are_those_that_are_stored():
    stored = read(REFERENCE / "formulas.json")["formulas"]
    keys = ("id", "data", "formula", "contrasts")
    assert CALLS["formulas"] == [{key: case[key] for key in keys} for case in stored]
