"""Rows that do not fit: a random slope with a million groups from Parquet files, beside a group-by of the same sums.

    python benchmarks/streamed.py 20 folder          # 20 million rows; the files are made in `folder` if it is empty
    python benchmarks/streamed.py 5 folder logit     # a logit with a continuous covariate in parts of at most 2 GB
    python benchmarks/streamed.py 20 folder scaling  # 100,000 to 20 million rows, 20 a group, a process for each

CPU seconds are those of the process with all its threads; wall seconds depend on what else the machine does, of which
the load at the end says how much. `scaling` writes benchmarks/results/streamed-scaling.csv and .png.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import lme4py
from lme4py.data.sources import find_source

_PART = 5_000_000
_GROUPS = 1_000_000
_SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 20_000_000)
_OUT = Path(__file__).parent / "results" / "streamed-scaling"
_FIELDS = ("rows", "groups", "cpu_s", "wall_s", "read_once_cpu_s", "peak_mib", "start_mib", "load")
_COLUMNS = ("y", "x", "g")


def make_files(rows: int, folder: Path, groups: int = _GROUPS) -> None:
    """Rows of y = 1 + x / 2 + b0 + b1 x + e in files of at most five million rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    b0, b1 = rng.normal(size=groups), 0.5 * rng.normal(size=groups)
    for part in range(-(-rows // _PART)):
        n = min(_PART, rows - part * _PART)
        g, x = rng.integers(groups, size=n), rng.normal(size=n)
        y = 1.0 + 0.5 * x + b0[g] + b1[g] * x + rng.normal(size=n)
        pq.write_table(pa.table({"g": g, "x": x, "y": y}), folder / f"part{part:03d}.parquet", use_dictionary=False)


def timed(name: str, function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function makes, with wall and CPU seconds, which are printed too."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:32s} wall {wall:7.2f} s   CPU {cpu:7.2f} s   load {os.getloadavg()[0]:.1f}", flush=True)
    return result, wall, cpu


def peak() -> float:
    """Largest memory of the process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def read_once(files: str) -> int:
    """A pass without arithmetic: the columns of the model, as numbers."""
    source = find_source(files)[1]
    assert source is not None
    return sum(sum(block.frame.column(name).values.size for name in _COLUMNS) for block in source.blocks(_COLUMNS))


def warm() -> None:
    """Imports, which are no part of what is measured."""
    lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"), control={"rows": "stream"})


def logit(files: str) -> None:
    """Binary responses of the same rows, none of which repeats."""
    rows = pl.scan_parquet(files).with_columns((pl.col("y") > 1.0).cast(pl.Int8).alias("b"))
    control = {"rows": "stream", "memory_limit": "2GB"}
    fit = timed("glmer, b ~ x + (1 | g)", lambda: lme4py.glmer("b ~ x + (1 | g)", rows, "binomial", control=control))[0]
    print(f"{fit.rows}; peak {peak() / 1024:.2f} GiB; {fit.params.round(4).to_dict()}")


def slope(files: str) -> None:
    """The whole fit, the passes of which it consists, and the same sums by polars."""
    warm()
    fit = timed("lmer, y ~ x + (x | g)", lambda: lme4py.lmer("y ~ x + (x | g)", files))[0]
    print(f"{fit.rows}; peak {peak() / 1024:.2f} GiB")
    timed("one pass without arithmetic", lambda: read_once(files))
    x, y = pl.col("x"), pl.col("y")
    sums = [pl.len(), x.sum().alias("x"), y.sum().alias("y"), (x * x).sum().alias("xx"), (x * y).sum().alias("xy")]
    timed("polars, the same sums", lambda: pl.scan_parquet(files).group_by("g").agg(sums).collect(engine="streaming"))


def one_size(files: str, rows: int) -> None:
    """A line of the table of `scaling`, from a process of its own."""
    warm()
    start = peak()
    fit, wall, cpu = timed("lmer", lambda: lme4py.lmer("y ~ x + (x | g)", files))
    most = peak()
    read = timed("one pass", lambda: read_once(files))[2]
    line = (rows, fit.n_groups["g"], f"{cpu:.2f}", f"{wall:.2f}", f"{read:.2f}", f"{most:.0f}", f"{start:.0f}")
    print(",".join(map(str, (*line, f"{os.getloadavg()[0]:.1f}"))))


def scaling(most: int, folder: Path) -> None:
    """Time and memory beside the number of rows."""
    lines = []
    for rows in (size for size in _SIZES if size <= most):
        own = folder / f"rows{rows}"
        if not own.exists():
            make_files(rows, own, rows // 20)
        call = [sys.executable, __file__, str(rows), str(own), "one"]
        found = subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        print(found, flush=True)
        lines.append(found.split(","))
    with _OUT.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([_FIELDS, *lines])
    draw([dict(zip(_FIELDS, map(float, line), strict=True)) for line in lines])


def draw(lines: list[dict[str, float]]) -> None:
    """Two panels: CPU seconds, and memory above that of the program, beside rows."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    rows = [line["rows"] for line in lines]
    # A process begins with the peak of the one that started it.
    program = min(line["start_mib"] for line in lines)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.loglog(rows, [line["cpu_s"] for line in lines], "o-", label="lmer, y ~ x + (x | g), 20 rows a group")
    left.loglog(rows, [line["read_once_cpu_s"] for line in lines], "s--", label="one pass without arithmetic")
    left.set(xlabel="rows", ylabel="CPU seconds")
    left.legend(frameon=False)
    right.loglog(rows, [line["peak_mib"] - program for line in lines], "o-", label="the fit")
    right.loglog(rows, [row * 24 / 2**20 for row in rows], "k:", label="the rows themselves")
    right.set(xlabel="rows", ylabel="MiB above the program")
    right.legend(frameon=False)
    figure.savefig(_OUT.with_suffix(".png"), dpi=110)


def main() -> None:
    size, folder, mode = int(sys.argv[1]), Path(sys.argv[2]), "".join(sys.argv[3:])
    files = str(folder / "*.parquet")
    if mode == "one":
        one_size(files, size)
    elif mode == "scaling":
        scaling(size * 1_000_000, folder)
    else:
        if not any(folder.glob("*.parquet")):
            make_files(size * 1_000_000, folder)
        (logit if mode == "logit" else slope)(files)


if __name__ == "__main__":
    main()
