"""The executed notebooks belong to their sources; `notebooks/generate.py` makes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
SOURCES = [path for path in sorted(FOLDER.glob("*.md")) if CELL.search(path.read_text(encoding="utf-8"))]

pytestmark = pytest.mark.skipif(not SOURCES, reason="the notebooks are not part of source distributions")


def _cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_executed_notebook_has_the_cells_of_its_source(source):
    cells = ["".join(cell["source"]) for cell in _cells(source.with_suffix(".ipynb"))]
    assert cells == CELL.findall(source.read_text(encoding="utf-8")), "run python notebooks/generate.py"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_executed_notebook_shows_no_errors_and_no_warnings(source):
    outputs = [output for cell in _cells(source.with_suffix(".ipynb")) for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_notebooks_are_small():
    # Readers download them, and every version stays in the history of the repository.
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ipynb")) < 3_000_000
