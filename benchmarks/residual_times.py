"""CPU times of models with a residual structure, beside nlme and glmmTMB.

    python benchmarks/residual_times.py        # writes benchmarks/results/residual_times.md

Trials of n subjects and five visits with a tenth of the rows missing: REML, an unstructured covariance by visit; and
AR(1) residuals, for which glmmTMB has a random effect for each row. Best of some runs; the design is part of it.
Kenward and Roger's degrees of freedom are asked of lme4py only: the others have none. R is found as `Rscript`.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import lme4py

OUT = Path(__file__).parent / "results" / "residual_times.md"
SIZES = {200: 7, 2_000: 3, 20_000: 2, 200_000: 1}
# Larger ones take the other programs minutes.
MOST_R = {"gls us": 200, "gls ar1": 2_000, "glmmTMB us": 200, "glmmTMB ar1": 200}
SCRIPT = """
suppressPackageStartupMessages({library(nlme); library(glmmTMB)})
a <- commandArgs(TRUE)
d <- read.csv(a[1]); d$id <- factor(d$id); d$visit <- factor(d$visit); d$arm <- factor(d$arm); runs <- as.integer(a[3])
d$k <- as.integer(d$visit); f <- y ~ base + arm * visit
fit <- switch(a[2],
  "gls us" = function() gls(f, d, correlation = corSymm(form = ~ k | id), weights = varIdent(form = ~ 1 | visit)),
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


def own(data: pd.DataFrame, structure: str, runs: int, ddf: str | None) -> float:
    """CPU seconds of lme4py."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        fit = lme4py.mmrm(f"y ~ base + arm * visit + {structure}(visit | id)", data)
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
    own(trial(50), "us", 1, "kenward-roger")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "times.R"
        script.write_text(SCRIPT, encoding="utf-8")
        for n, runs in SIZES.items():
            data = trial(n)
            path = Path(folder) / f"{n}.csv"
            data.to_csv(path, index=False)
            for structure in ("us", "ar1"):
                plain, table = (own(data, structure, runs, ddf) for ddf in (None, "kenward-roger"))
                cells, ratios = [], []
                for program in ("gls", "glmmTMB"):
                    kind = f"{program} {structure}"
                    taken = other(path, script, kind, min(runs, 2)) if n <= MOST_R[kind] else None
                    cells.append("" if taken is None else f"{taken:.3f}")
                    ratios.append("" if taken is None else f"{taken / plain:.0f}")
                numbers = " | ".join([f"{plain:.3f}", f"{table:.3f}", *cells, *ratios])
                lines.append(f"| {n:,} | {structure} | {numbers} |")
                print(lines[-1], flush=True)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
