"""Crossed random effects too large for a factor: how long, how much memory, how sure.

    python benchmarks/giants.py random clusters chain three slope exact logit
    python benchmarks/giants.py logit-clusters logit-chain logit-giant movielens movielens-slope pedigree pedigree-two
    python benchmarks/giants.py tiles movielens-tiles
    GPBOOST_PYTHON=.../bin/python python benchmarks/giants.py gpboost-random gpboost-clusters gpboost-chain
    GPBOOST_PYTHON=.../bin/python python benchmarks/giants.py gpboost-movielens

Each case runs in a process of its own, so that its peak of memory is its own. The graphs are those that make such
models hard: a random one, closed clusters, a chain of eras, and the shape of MovieLens 25M (users and films of very
different activity). "tiles" and "movielens-tiles" are fits with one exact value at the end. Names that begin with
"gpboost-" are fits of the same data by GPBoost, with an interpreter that has it. Rows are kept in
`results/giants.jsonl`, which README's table is made of.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_machine import Machine
from pedigrees import HERDS, herd_case

Columns = dict[str, np.ndarray]


def random_graph(rng: np.random.Generator) -> Columns:
    return {"a": rng.integers(0, 20_000, 631_717), "b": rng.integers(0, 4226, 631_717)}


def clusters(rng: np.random.Generator) -> Columns:
    a = rng.integers(0, 20_000, 282_698)
    return {"a": a, "b": a % 50 + 50 * rng.integers(0, 84, a.size)}


def chain(rng: np.random.Generator) -> Columns:
    a = rng.integers(0, 20_000, 266_853)
    near = np.rint(a / 20_000 * 4200 + rng.normal(0.0, 30.0, a.size))
    return {"a": a, "b": np.clip(near, 0, 4199).astype(np.int64)}


def three(rng: np.random.Generator) -> Columns:
    return {name: rng.integers(0, size, 500_000) for name, size in (("a", 20_000), ("b", 5000), ("c", 2000))}


def movielens(rng: np.random.Generator) -> Columns:
    """20 million rows of 162,541 users and up to 59,000 films, both with heavy tails."""
    users = np.repeat(np.arange(162_541), np.maximum(1, rng.lognormal(4.1, 1.2, 162_541)).astype(np.int64))
    users = users[:20_000_000]
    films = np.minimum(59_000 * rng.random(users.size) ** 3.2, 58_999).astype(np.int64)
    return {"a": users, "b": films}


def many_left(rng: np.random.Generator) -> Columns:
    """40,000 levels that are left when the largest factor has been eliminated."""
    return {"a": rng.integers(0, 100_000, 4_000_000), "b": rng.integers(0, 40_000, 4_000_000)}


def logit(rng: np.random.Generator) -> Columns:
    return {"a": rng.integers(0, 20_000, 1_000_000), "b": rng.integers(0, 4000, 1_000_000)}


def logit_giant(rng: np.random.Generator) -> Columns:
    return {name: rng.integers(0, size, 10_000_000, dtype=np.int32) for name, size in (("a", 100_000), ("b", 20_000))}


CASES = {
    "random": (random_graph, "y ~ x + (1 | a) + (1 | b)", {}),
    "clusters": (clusters, "y ~ x + (1 | a) + (1 | b)", {}),
    "chain": (chain, "y ~ x + (1 | a) + (1 | b)", {}),
    "three": (three, "y ~ x + (1 | a) + (1 | b) + (1 | c)", {}),
    "slope": (random_graph, "y ~ x + (x | a) + (1 | b)", {}),
    "exact": (random_graph, "y ~ x + (1 | a) + (1 | b)", {"block": "exact"}),
    "tiles": (many_left, "y ~ x + (1 | a) + (1 | b)", {"exact": True}),
    "logit": (logit, "y ~ x + (1 | a) + (1 | b)", {}),
    "logit-clusters": (clusters, "y ~ x + (1 | a) + (1 | b)", {}),
    "logit-chain": (chain, "y ~ x + (1 | a) + (1 | b)", {}),
    "logit-giant": (logit_giant, "y ~ x + (1 | a) + (1 | b)", {}),
    "movielens": (movielens, "y ~ x + (1 | a) + (1 | b)", {}),
    "movielens-tiles": (movielens, "y ~ x + (1 | a) + (1 | b)", {"exact": True}),
    "movielens-slope": (movielens, "y ~ x + (x | a) + (1 | b)", {}),
}

RIVAL = "gpboost-"
HERE = Path(__file__).resolve().parent
KEPT = HERE / "results" / "giants.jsonl"

# Cases whose response is 0 or 1.
LOGIT = {"logit", "logit-clusters", "logit-chain", "logit-giant"}


def simulated(name: str) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    make, formula, _ = CASES[name]
    columns = make(rng)
    n = columns["a"].size
    x = rng.standard_normal(n)
    y = 0.5 * x + (0.0 if name in LOGIT else rng.standard_normal(n))
    for codes, sd in zip(columns.values(), (0.6, 0.8, 0.5), strict=False):
        y += sd * rng.standard_normal(codes.max() + 1)[codes]
    if "(x | a)" in formula:
        y += 0.3 * rng.standard_normal(columns["a"].max() + 1)[columns["a"]] * x
    if name in LOGIT:
        y = (rng.random(n) < 1.0 / (1.0 + np.exp(-y))).astype(np.float64)
    return pd.DataFrame({"y": y, "x": x, **columns})


def one(name: str) -> dict[str, object]:
    """One fit, in this process."""
    import lme4py

    # What is imported at the first fit is not counted.
    lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
    data = simulated(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    control = {"block": "iterative", **CASES[name][2]}
    if name in LOGIT:
        fit = lme4py.glmer(CASES[name][1], data, "binomial", control=control)
    else:
        fit = lme4py.lmer(CASES[name][1], data, control=control)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    error = fit.certificate.monte_carlo
    return {
        "case": name,
        "rows": len(data),
        "levels": fit.n_groups,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "evaluations": len(fit.opt_log),
        "criterion": fit.criterion,
        "criterion_se": None if error is None else error.criterion_se,
        "theta_part": None if error is None else error.theta_part,
        "probes": None if error is None else [error.probes, error.directions, error.iterations],
        "sd": [float(np.sqrt(np.diag(c))[0]) for c in fit.fit.covariances],
        "data_gib": round(before / 2**20, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def rival(name: str, cap: float | None) -> dict[str, Any]:
    """The same data by GPBoost, in a process of an interpreter that has it."""
    data = simulated(name.removeprefix(RIVAL))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, **{column: data[column].to_numpy() for column in data})
        del data
        command = [
            os.environ.get("GPBOOST_PYTHON", sys.executable),
            str(HERE / "workers" / "giant_gpboost.py"),
            str(path),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=cap)
    return {"case": name, **_answer(run)}


def ours(name: str, cap: float | None) -> dict[str, Any]:
    """One case in a process of its own."""
    command = [sys.executable, __file__, "--one", name]
    return _answer(subprocess.run(command, capture_output=True, text=True, check=False, timeout=cap))


def _answer(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line that is an object: programs print beside it."""
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = (
        json.loads(lines[-1]) if lines else {"failure": (run.stderr.strip() or "?").splitlines()[-1]}
    )
    return found


def keep(row: dict[str, Any], path: Path = KEPT) -> None:
    """Put a row in the place of an older one of its case."""
    rows = kept(path)
    machine = Machine({})
    # CPU seconds too are longer on a machine that does other work.
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    rows[row["case"]] = {**row, "machine": machine.processor, "date": machine.day, "load": load}
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows.values()), encoding="utf-8")


def kept(path: Path = KEPT) -> dict[str, dict[str, Any]]:
    """Rows by case."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["case"]: row for row in rows}


def main(names: Sequence[str], cap: float | None = None) -> None:
    """Each case in a process of its own; all of them where none is named.

    Parameters
    ----------
    names : sequence of str
    cap : float, optional
        Seconds that one case may take.
    """
    for name in names or [*CASES, *HERDS]:
        try:
            row = rival(name, cap) if name.startswith(RIVAL) else ours(name, cap)
        except subprocess.TimeoutExpired:
            row = {"case": name, "failure": f"stopped after {cap:g} s"}
        row.setdefault("case", name)
        print(json.dumps(row), flush=True)
        if "failure" not in row:
            keep(row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(herd_case(sys.argv[2]) if sys.argv[2] in HERDS else one(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(CASES)[:7])
