"""Times of models with zero parts and of families with parameters beside the mean, beside glmmTMB.

    python benchmarks/parts_times.py                  # writes benchmarks/results/parts.md
    python benchmarks/parts_times.py --models zip zinb --repeats 5

CPU seconds (user) of one fit, the least of the repeats, one thread each (set OMP_NUM_THREADS=1). The first fits of
both programs are warm-ups and do not count; of 20,000 rows and more only ours has one, of some of the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lme4py

RESULTS = Path(__file__).parent / "results" / "parts.md"
# Rows from which on a first fit counts.
LARGE = 20_000
SCRIPT = """
suppressMessages({library(glmmTMB); library(jsonlite)})
args <- commandArgs(TRUE)
job <- fromJSON(args[1])
d <- read.csv(job$data, stringsAsFactors = TRUE)
d$g <- factor(d$g)
fit <- function() {
  started <- proc.time()[["user.self"]]
  m <- suppressWarnings(glmmTMB(as.formula(job$formula), d, family = eval(parse(text = job$theirs)),
                                ziformula = as.formula(job$zi)))
  list(seconds = proc.time()[["user.self"]] - started, loglik = -m$fit$objective)
}
if (job$warm) invisible(fit())
cat(toJSON(lapply(seq_len(job$repeats), function(i) fit()), auto_unbox = TRUE, digits = 12))
"""


def salamanders() -> pd.DataFrame:
    return lme4py.load_dataset("Salamanders").rename(columns={"site": "g", "count": "y"})


def counts(n: int = 200_000, groups: int = 5_000) -> pd.DataFrame:
    """Zero-inflated negative binomial counts."""
    rng = np.random.default_rng(1)
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    mean = np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=groups)[g])
    y = rng.poisson(mean * rng.gamma(2.0, 0.5, n))
    return pd.DataFrame({"g": g, "x": x, "y": np.where(rng.random(n) < 1.0 / (1.0 + np.exp(1.0 - 0.5 * x)), 0, y)})


def shares(n: int = 20_000, groups: int = 500) -> pd.DataFrame:
    """Proportions."""
    rng = np.random.default_rng(2)
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    p = 1.0 / (1.0 + np.exp(-(0.2 + 0.4 * x + 0.6 * rng.normal(size=groups)[g])))
    return pd.DataFrame({"g": g, "x": x, "y": np.clip(rng.beta(6.0 * p, 6.0 * (1.0 - p)), 1e-9, 1.0 - 1e-9)})


def amounts(n: int = 20_000, groups: int = 500) -> pd.DataFrame:
    """Sums of gamma amounts, many of them of none."""
    rng = np.random.default_rng(3)
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    events = rng.poisson(np.exp(0.1 + 0.4 * x + 0.4 * rng.normal(size=groups)[g]))
    return pd.DataFrame({"g": g, "x": x, "y": np.where(events > 0, rng.gamma(np.maximum(events, 1) * 1.5, 0.7), 0.0)})


# Title, data, formula, our family, glmmTMB's, and the zero part.
MODELS: dict[str, tuple[str, Any, str, str, str, str]] = {
    "zip": ("Salamanders, ZIP", salamanders, "y ~ mined + (1 | g)", "poisson", "poisson()", "~ mined"),
    "zinb": ("Salamanders, ZINB", salamanders, "y ~ mined + (1 | g)", "nbinomial", "nbinom2()", "~ mined"),
    "hurdle": ("Salamanders, hurdle", salamanders, "y ~ mined + (1 | g)", "truncated_poisson",
               "truncated_poisson()", "~ mined"),
    "beta": ("beta, 20,000 rows, 500 groups", shares, "y ~ x + (1 | g)", "beta", "beta_family()", "~ 0"),
    "tweedie": ("tweedie, 20,000 rows, 500 groups", amounts, "y ~ x + (1 | g)", "tweedie", "tweedie()", "~ 0"),
    "large": ("ZINB, 200,000 rows, 5,000 groups", counts, "y ~ x + (1 | g)", "nbinomial", "nbinom2()", "~ x"),
}  # fmt: skip


def ours(data: pd.DataFrame, formula: str, family: str, zi: str) -> tuple[float, float]:
    """CPU seconds, and the log-likelihood."""
    parts = {} if zi == "~ 0" else {"ziformula": zi}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.process_time()
        fit = lme4py.glmer(formula, data, family=family, progress=False, **parts)
        return time.process_time() - started, fit.log_likelihood


def theirs(folder: str, data: pd.DataFrame, job: dict[str, Any]) -> list[dict[str, float]]:
    """The same by glmmTMB, for each repeat."""
    place = Path(folder)
    data.to_csv(place / "data.csv", index=False)
    (place / "run.R").write_text(SCRIPT)
    (place / "job.json").write_text(json.dumps(job | {"data": str(place / "data.csv")}))
    done = subprocess.run(
        ["Rscript", str(place / "run.R"), str(place / "job.json")], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def line(name: str, repeats: int) -> str:
    """A row of the table."""
    title, make, formula, family, r_family, zi = MODELS[name]
    data = make()
    count = repeats if len(data) < LARGE else 1
    # Modules are loaded by then; of large models some rows are enough for that.
    ours(data.iloc[: LARGE // 20], formula, family, zi)
    own = [ours(data, formula, family, zi) for _ in range(count)]
    job = {"formula": formula, "theirs": r_family, "zi": zi, "repeats": count, "warm": len(data) < LARGE}
    with tempfile.TemporaryDirectory() as folder:
        other = theirs(folder, data, job)
    a, b = min(seconds for seconds, _ in own), min(one["seconds"] for one in other)
    gap = own[0][1] - other[0]["loglik"]
    return f"| {title} | {a:.2f} | {b:.2f} | {b / a:.1f} | {own[0][1]:.4f} | {gap:+.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    rows = ["| model | lme4py, CPU s | glmmTMB, CPU s | times faster | log-likelihood | ours - theirs |",
            "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name in chosen.models:
        rows.append(line(name, chosen.repeats))
        print(rows[-1], flush=True)
    if chosen.models == list(MODELS):
        RESULTS.write_text("# Models with parts beside glmmTMB\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
