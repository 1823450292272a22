"""CPU time of structured and of related random effects, one thread: an ar1 of 500 subjects at 10 times beside glmmTMB
(where R has it), a process of 500 times, and a dense relationship of 2,000 levels.

    OMP_NUM_THREADS=1 python benchmarks/structures.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lme4py

GLMMTMB = """
suppressMessages(library(glmmTMB))
d <- read.csv("rows.csv"); d$t <- factor(d$t); d$g <- factor(d$g)
f <- function() glmmTMB(y ~ x + ar1(0 + t | g), d, REML = TRUE)
m <- f(); s <- proc.time(); m <- f(); e <- proc.time() - s
cat(sum(e[1:2]), as.numeric(logLik(m)))
"""


def process(subjects: int, times: int, seed: int = 1) -> pd.DataFrame:
    """One row of each subject at each time, with effects of an autoregression."""
    rng = np.random.default_rng(seed)
    R = 0.7 ** np.abs(np.subtract.outer(range(times), range(times)))
    u = rng.multivariate_normal(np.zeros(times), R, subjects)
    g, t = np.divmod(np.arange(subjects * times), times)
    x = rng.normal(size=g.size)
    return pd.DataFrame({"g": g, "t": t, "x": x, "y": 1 + 0.5 * x + u[g, t] + 0.5 * rng.normal(size=g.size)})


def related(levels: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One record of each level, and the dense relationship of the levels."""
    rng = np.random.default_rng(1)
    markers = rng.normal(size=(levels, levels + 1000))
    K = markers @ markers.T / markers.shape[1]
    x, level = rng.normal(size=levels), np.arange(levels)
    y = 1 + 0.3 * x + np.linalg.cholesky(K) @ rng.normal(size=levels) + rng.normal(size=levels)
    return pd.DataFrame({"id": level, "x": x, "y": y}), pd.DataFrame(K, index=level, columns=level)


def seconds(fit: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of the second of two fits, and the fit."""
    fit()
    start = time.process_time()
    found = fit()
    return time.process_time() - start, found


def beside_glmmtmb(data: pd.DataFrame) -> str:
    """CPU time and log-likelihood of glmmTMB; "" without R."""
    if shutil.which("Rscript") is None:
        return ""
    with tempfile.TemporaryDirectory() as place:
        data.to_csv(Path(place) / "rows.csv", index=False)
        found = subprocess.run(["Rscript", "-e", GLMMTMB], cwd=place, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main() -> None:
    """Print the table."""
    rows = process(500, 10)
    took, fit = seconds(lambda: lme4py.lmer("y ~ x + ar1(0 + factor(t) | g)", rows))
    print(f"ar1 of 500 x 10: {took:.3f} s, {fit.log_likelihood:.6f}; glmmTMB (s, logLik): {beside_glmmtmb(rows)}")
    many = process(4, 500)
    took, fit = seconds(lambda: lme4py.lmer("y ~ x + ou(t | g)", many))
    print(f"ou of 4 x 500: {took:.3f} s, {fit.log_likelihood:.6f}")
    data, K = related(2000)
    took, fit = seconds(lambda: lme4py.lmer("y ~ x + (1 | id)", data, relmat={"id": K}))
    print(f"dense relationship of 2,000: {took:.3f} s, {fit.log_likelihood:.6f}")


if __name__ == "__main__":
    main()
