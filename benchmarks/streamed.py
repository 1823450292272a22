"""Rows that do not fit: a random slope with a million groups from Parquet files, beside a group-by of the same sums.

    python benchmarks/streamed.py 20 folder          # 20 million rows; the files are made in `folder` if it is empty
    python benchmarks/streamed.py 5 folder logit     # a logit with a continuous covariate in parts of at most 2 GB

CPU seconds are those of the process with all its threads; wall seconds depend on what else the machine does.
"""

from __future__ import annotations

import resource
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

_PART = 5_000_000
_GROUPS = 1_000_000


def make_files(millions: int, folder: Path) -> None:
    """Rows of y = 1 + x / 2 + b0 + b1 x + e in files of five million rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    b0, b1 = rng.normal(size=_GROUPS), 0.5 * rng.normal(size=_GROUPS)
    for part in range(max(1, millions * 1_000_000 // _PART)):
        g, x = rng.integers(_GROUPS, size=_PART), rng.normal(size=_PART)
        y = 1.0 + 0.5 * x + b0[g] + b1[g] * x + rng.normal(size=_PART)
        pq.write_table(pa.table({"g": g, "x": x, "y": y}), folder / f"part{part:03d}.parquet", use_dictionary=False)


def timed(name: str, function: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    print(f"{name:24s} wall {time.perf_counter() - wall:7.2f} s   CPU {time.process_time() - cpu:7.2f} s")
    return result


def logit(files: str) -> None:
    """Binary responses of the same rows, none of which repeats."""
    rows = pl.scan_parquet(files).with_columns((pl.col("y") > 1.0).cast(pl.Int8).alias("b"))
    control = {"rows": "stream", "memory_limit": "2GB"}
    fit = timed("glmer, b ~ x + (1 | g)", lambda: lme4py.glmer("b ~ x + (1 | g)", rows, "binomial", control=control))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{fit.rows}; peak {peak:.2f} GiB; {fit.params.round(4).to_dict()}")


def main() -> None:
    millions, folder = int(sys.argv[1]), Path(sys.argv[2])
    if not any(folder.glob("*.parquet")):
        make_files(millions, folder)
    files = str(folder / "*.parquet")
    if sys.argv[3:] == ["logit"]:
        logit(files)
        return
    lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"), control={"rows": "stream"})
    fit = timed("lmer, y ~ x + (x | g)", lambda: lme4py.lmer("y ~ x + (x | g)", files))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{fit.rows}; peak {peak:.2f} GiB")
    x, y = pl.col("x"), pl.col("y")
    sums = [pl.len(), x.sum().alias("x"), y.sum().alias("y"), (x * x).sum().alias("xx"), (x * y).sum().alias("xy")]
    timed("polars, the same sums", lambda: pl.scan_parquet(files).group_by("g").agg(sums).collect(engine="streaming"))


if __name__ == "__main__":
    main()
