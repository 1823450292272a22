"""CPU times of models with a residual structure, beside nlme and glmmTMB.

    python benchmarks/residual_times.py        # writes benchmarks/results/residual_times.md

Trials of n subjects and five visits with a tenth of the rows missing: REML, an unstructured covariance by visit; and
AR(1) residuals, for which glmmTMB has a random effect for each row. Best of some runs; the design is part of it.
Kenward and Roger's degrees of freedom are asked of lme4py only: the others have none. Then irregular times, ten of each
subject or one long series, with residuals that follow a chain (car1). R is found as `Rscript`.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.linalg import solve_banded

import lme4py

OUT = Path(__file__).parent / "results" / "residual_times.md"
SIZES = {200: 7, 2_000: 3, 20_000: 2, 200_000: 1, 1_000_000: 1}
# Rows of subjects with ten irregular times each, and of one long series.
IRREGULAR = {10_000: 2, 100_000: 1, 1_000_000: 1}
# Larger ones take the other programs minutes.
MOST_R = {"gls us": 200, "gls ar1": 2_000, "glmmTMB us": 200, "glmmTMB ar1": 200, "gls car1": 10_000}
TRIAL = "y ~ base + arm * visit"
SCRIPT = """
suppressPackageStartupMessages({library(nlme); library(glmmTMB)})
a <- commandArgs(TRUE)
d <- read.csv(a[1]); d$id <- factor(d$id); runs <- as.integer(a[3]); f <- y ~ base + arm * visit
if ("visit" %in% names(d)) {d$visit <- factor(d$visit); d$arm <- factor(d$arm); d$k <- as.integer(d$visit)}
fit <- switch(a[2],
  "gls us" = function() gls(f, d, correlation = corSymm(form = ~ k | id), weights = varIdent(form = ~ 1 | visit)),
  "gls car1" = function() gls(y ~ x, d, correlation = corCAR1(form = ~ t | id)),
  "gls ar1" = function() gls(f, d, correlation = corAR1(form = ~ k | id)),
  "glmmTMB us" = function() glmmTMB(update(f, . ~ . + us(0 + visit | id)), d, dispformula = ~ 0, REML = TRUE),
  "glmmTMB ar1" = function() glmmTMB(update(f, . ~ . + ar1(0 + visit | id)), d, dispformula = ~ 0, REML = TRUE))
cat(min(sapply(seq_len(runs), function(i) system.time(invisible(fit()))[["user.self"]])))
"""


def trial(n: int) -> pd.DataFrame:
    """A trial of n subjects."""
    rng = np.random.default_rng(n)
    lags = np.abs(np.subtract.outer(range(5), range(5)))
    y = rng.normal(size=(n, 5)) @ np.linalg.cholesky(9.0 * 0.7**lags).T
    arm, base = np.arange(n) % 2, rng.normal(size=n)
    y += 0.3 * arm[:, None] * np.arange(5) + base[:, None]
    table = pd.DataFrame(
        {
            "id": pd.Categorical.from_codes(np.repeat(np.arange(n), 5), np.arange(n)),
            "visit": pd.Categorical(np.tile([f"V{v}" for v in range(5)], n)),
            "arm": pd.Categorical(np.where(np.repeat(arm, 5) == 1, "b", "a")),
            "base": np.repeat(base, 5),
            "y": y.ravel(),
        }
    )
    return table[rng.random(len(table)) > 0.1]


def irregular(n: int, each: int) -> pd.DataFrame:
    """n rows at irregular times, `each` of a subject."""
    rng = np.random.default_rng(n + each)
    id_ = np.arange(n) // each
    gap = rng.exponential(1.0, n)
    first = np.arange(n) % each == 0
    t = np.cumsum(gap)
    s = np.where(first, 0.0, np.exp(-gap / 2.5))
    bands = np.stack([np.ones(n), -np.append(s[1:], 0.0)])
    e = solve_banded((1, 0), bands, np.sqrt(1.0 - s**2) * rng.normal(size=n))
    x = rng.normal(size=n)
    return pd.DataFrame({"id": pd.Categorical.from_codes(id_, np.arange(id_[-1] + 1)), "t": t, "x": x, "y": 1 + x + e})


def own(data: pd.DataFrame, formula: str, runs: int, ddf: str | None) -> float:
    """CPU seconds of lme4py."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        fit = lme4py.mmrm(formula, data)
        if ddf is not None:
            fit.coef_table(ddf=ddf)
        times.append(time.process_time() - start)
    return min(times)


def other(path: Path, script: Path, kind: str, runs: int) -> float:
    """CPU seconds of a fit in R."""
    done = subprocess.run(
        ["Rscript", str(script), str(path), kind, str(runs)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _irregular(folder: Path, script: Path) -> list[str]:
    """Lines of the table of irregular times."""
    lines = [
        "",
        "Irregular times, `y ~ x + car1(t | id)`, Satterthwaite:",
        "",
        "| rows | of each subject | lme4py | nlme::gls | gls / lme4py |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for n, runs in IRREGULAR.items():
        for each in (10, n):
            data = irregular(n, each)
            taken = own(data, "y ~ x + car1(t | id)", runs, "satterthwaite")
            cells = ["", ""]
            if n <= MOST_R["gls car1"] and each < n:
                path = folder / "irregular.csv"
                data.to_csv(path, index=False)
                theirs = other(path, script, "gls car1", 1)
                cells = [f"{theirs:.3f}", f"{theirs / taken:.0f}"]
            lines.append(f"| {n:,} | {each:,} | {taken:.3f} | {cells[0]} | {cells[1]} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    warnings.simplefilter("ignore")
    lines = [
        "# CPU seconds of models with a residual structure, one thread",
        "",
        "Subjects x 5 visits, a tenth of the rows missing; `python benchmarks/residual_times.py`.",
        "",
        "| subjects | structure | lme4py | with KR table | nlme::gls | glmmTMB | gls / lme4py | glmmTMB / lme4py |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    own(trial(50), f"{TRIAL} + us(visit | id)", 1, "kenward-roger")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "times.R"
        script.write_text(SCRIPT, encoding="utf-8")
        for n, runs in SIZES.items():
            data = trial(n)
            path = Path(folder) / f"{n}.csv"
            data.to_csv(path, index=False)
            for structure in ("us", "ar1"):
                plain, table = (
                    own(data, f"{TRIAL} + {structure}(visit | id)", runs, ddf) for ddf in (None, "kenward-roger")
                )
                cells, ratios = [], []
                for program in ("gls", "glmmTMB"):
                    kind = f"{program} {structure}"
                    taken = other(path, script, kind, min(runs, 2)) if n <= MOST_R[kind] else None
                    cells.append("" if taken is None else f"{taken:.3f}")
                    ratios.append("" if taken is None else f"{taken / plain:.0f}")
                numbers = " | ".join([f"{plain:.3f}", f"{table:.3f}", *cells, *ratios])
                lines.append(f"| {n:,} | {structure} | {numbers} |")
                print(lines[-1], flush=True)
        lines += _irregular(Path(folder), script)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
