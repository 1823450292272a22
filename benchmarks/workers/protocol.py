"""What the Python workers share: reading the data, and the loop of requests and answers.

A request is a line, "load NAME", "fit NAME" or "row NAME" (fits in a row); the answer is one line of JSON. A worker is
started with the folder that holds `models.tsv` and the data.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Task:
    """A model with its data frame in memory; `bench_models.Model` says what the fields mean."""

    formula: str
    reml: bool
    family: str
    link: str
    nagq: int
    plain_formula: str
    action: str
    detail: str
    data: pd.DataFrame


Answer = dict[str, Any]


class _Rest:
    """Whether garbage is collected before each timed call, as it is for a fit on its own."""

    collect = True


def read_column(folder: Path, name: str, kind: str, n_levels: int) -> Any:
    """One column as the benchmark wrote it: float64, or a categorical."""
    if kind == "numeric":
        return np.fromfile(folder / f"{name}.bin", dtype="<f8")
    codes = np.fromfile(folder / f"{name}.bin", dtype="<i4")
    listed = folder / f"{name}.levels"
    levels = listed.read_text("utf-8").splitlines() if listed.exists() else [str(i + 1) for i in range(n_levels)]
    return pd.Categorical.from_codes(codes, categories=pd.Index(levels), ordered=kind == "ordered")


def load(root: Path, name: str) -> Task:
    """The model `name` of `models.tsv`, with the columns that its formula uses."""
    listed = [line.split("\t") for line in (root / "models.tsv").read_text("utf-8").splitlines()]
    data, reml, used, formula, family, link, nagq, plain, action, detail = next(f[1:] for f in listed if f[0] == name)
    schema = [line.split("\t") for line in (root / data / "schema.tsv").read_text("utf-8").splitlines()]
    columns = {c: read_column(root / data, c, kind, int(k)) for c, kind, k in schema if c in used.split(",")}
    return Task(formula, reml == "TRUE", family, link, int(nagq), plain, action, detail, pd.DataFrame(columns))


def give_back_memory() -> None:
    """Hand freed memory back to the system, so that the peak of the next fit is its own."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def timed(call: Callable[[], Any]) -> tuple[float, Any, list[str]]:
    """Seconds, result and warnings of one call."""
    if _Rest.collect:
        gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        result = call()
        elapsed = time.perf_counter() - start
    return elapsed, result, [f"{w.category.__name__}: {w.message}" for w in caught]


def in_a_row(fit: Callable[[Task], Answer], task: Task, count: int = 15) -> Answer:
    """Median seconds of fits without a pause between them, when the caches of the processor are warm."""
    _Rest.collect = False
    try:
        return {"seconds": statistics.median(fit(task)["seconds"] for _ in range(count))}
    finally:
        _Rest.collect = True


def words_of(error: BaseException) -> str:
    """The first line of an error; with its kind, unless a program says that it does not do this."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, NotImplementedError) else f"{type(error).__name__}: {text}"


def serve(fit: Callable[[Task], Answer], versions: Answer, **more: Callable[[Task], Answer]) -> None:
    """Answer requests until standard input ends.

    Parameters
    ----------
    fit : callable
        Task -> dict with "seconds", "criterion", "evaluations", "converged", "warnings"; for
        an action "seconds", "values", "warnings".
    versions : dict
        Sent as the first line.
    more : callables
        Other commands by name.
    """
    # Whatever a library prints must not get between the answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    root = Path(sys.argv[1])
    commands = {"fit": fit, "row": lambda task: in_a_row(fit, task), **more}
    tasks: dict[str, Task] = {}
    print(json.dumps(versions), file=out)
    for line in sys.stdin:
        command, name = line.split()
        try:
            if command == "load":
                tasks.clear()
                tasks[name] = load(root, name)
                answer: Answer = {"loaded": name}
                give_back_memory()
            else:
                answer = commands[command](tasks[name])
        except BaseException as error:  # A worker tells the driver of any failure, a Rust panic too.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            answer = {"error": words_of(error)}
        print(json.dumps(answer), file=out)
