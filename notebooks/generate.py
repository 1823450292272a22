"""Run the worked examples and write the executed notebooks beside their sources.

The sources are the MyST files ``*.md``: edit those. Then, from the root of the checkout::

    python -m pip install ".[plot]" jupytext nbclient ipykernel
    python notebooks/generate.py              # all
    python notebooks/generate.py sleepstudy   # some

Each notebook runs in a fresh kernel; an error stops the run, and warnings are printed so that they can be looked into.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
# What readers download, and the history of the repository, should stay small.
LARGEST_BYTES = 1_000_000


def sources(names: list[str]) -> list[Path]:
    """MyST files with code cells; those with the given names, or all."""
    found = [path for path in sorted(HERE.glob("*.md")) if "{code-cell}" in path.read_text(encoding="utf-8")]
    unknown = set(names) - {path.stem for path in found}
    if unknown:
        known = ", ".join(path.stem for path in found)
        raise SystemExit(f"no such notebook: {', '.join(sorted(unknown))}; there are {known}")
    return [path for path in found if not names or path.stem in names]


def tidy(notebook: NotebookNode) -> None:
    """Remove what differs from run to run: times of the cells, random ids, what matters to the editor only."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata = {}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": language}


def warn(notebook: NotebookNode, name: str) -> None:
    """Print what cells wrote to standard error: readers should not meet a warning that the text does not explain."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                print(f"{name}: {output.text}", file=sys.stderr)


def run(source: Path) -> None:
    """Execute one source and write its notebook."""
    start = time.perf_counter()
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(HERE))
    warn(notebook, source.stem)
    tidy(notebook)
    target = source.with_suffix(".ipynb")
    jupytext.write(notebook, target)
    size = target.stat().st_size
    print(f"{target.name}: {time.perf_counter() - start:.0f} s, {size / 1e3:.0f} kB")
    if size > LARGEST_BYTES:
        raise SystemExit(f"{target.name} has {size} bytes, more than {LARGEST_BYTES}; make its pictures smaller")


if __name__ == "__main__":
    for path in sources(sys.argv[1:]):
        run(path)
