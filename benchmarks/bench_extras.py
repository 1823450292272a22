"""Two more measurements of our own fits: beside busy loops, and growth with the number of rows."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

# Median seconds of some fits in a row.
Fit = Callable[[], float]


def busy_ratio(fit: Fit, repeats: int) -> tuple[float, float]:
    """Median time alone, and with two busy loops running on the machine.

    Parameters
    ----------
    fit : callable
        One measurement.
    repeats : int
        Measurements.
    """
    alone = median(fit() for _ in range(repeats))
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.5)  # until both really loop
        beside = median(fit() for _ in range(repeats))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return alone, beside


def exponent(points: list[tuple[int, float]], start: int) -> float:
    """Slope of log time on log n by least squares, from n = `start` on."""
    used = [(math.log(n), math.log(t)) for n, t in points if n >= start]
    x = sum(a for a, _ in used) / len(used)
    y = sum(b for _, b in used) / len(used)
    return sum((a - x) * (b - y) for a, b in used) / sum((a - x) ** 2 for a, _ in used)


def write_growth(folder: Path, stem: str, points: list[tuple[int, float]]) -> None:
    """CSV and, where matplotlib is there, a plot with logarithmic axes."""
    with (folder / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rows", "groups", "median_seconds"])
        writer.writerows((n, n // 10, f"{t:.6f}") for n, t in points)
    try:
        import matplotlib
    except ImportError:
        print("growth: no plot, matplotlib is not installed", flush=True)
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    rows, times = zip(*points, strict=True)
    axes.loglog(rows, times, "o-", color="C0", label="lme4py, median")
    # Through the last point, where the cost that does not depend on n no longer counts.
    axes.loglog(rows, [times[-1] * n / rows[-1] for n in rows], "--", color="0.5", label="proportional to n")
    axes.set_xlabel("rows n (n / 10 groups)")
    axes.set_ylabel("seconds, formula text to result")
    axes.set_title("y ~ x + (x | g), REML")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(folder / f"{stem}.png", dpi=120)
    plt.close(figure)
