"""Random models with zero, dispersion and further parts, beside glmmTMB: is our log-likelihood ever lower?

    python benchmarks/parts_random.py                 # 40 random models
    python benchmarks/parts_random.py --models 10 --first 100

Each seed draws a family, formulas of every part (numbers, factors, interactions, splines, offsets, one or two grouping
factors, slopes, structures) and data from a model of that kind. R's glmmTMB fits the same; it is needed. One line for
each model: both log-likelihoods, ours minus theirs, and the largest difference of a coefficient in standard errors
(where both stand at one optimum). The process ends with 1 where ours is called converged and lower by more than 1e-6.
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
from lme4py.errors import Lme4Error

# Our name, glmmTMB's, the kind of response, and whether a dispersion part exists.
FAMILIES = {
    "poisson": ("poisson()", "count", False),
    "nbinomial": ("nbinom2()", "count", True),
    "nbinomial1": ("nbinom1()", "count", True),
    "truncated_poisson": ("truncated_poisson()", "hurdle", False),
    "truncated_nbinomial": ("truncated_nbinom2()", "hurdle", True),
    "truncated_nbinomial1": ("truncated_nbinom1()", "hurdle", True),
    "genpois": ("genpois()", "count", True),
    "binomial": ("binomial()", "trials", False),
    "betabinomial": ("betabinomial()", "trials", True),
    "beta": ("beta_family()", "share", True),
    "gamma": ("Gamma(link='log')", "amount", True),
    "tweedie": ("tweedie()", "tweedie", True),
    "t": ("t_family()", "real", True),
    "lognormal": ("lognormal()", "amount", True),
    "gaussian": ("gaussian()", "real", True),
}
FIXED = ("x", "f", "x + f", "x * f", "x + z", "poly(x, 2)", "1", "ns(x, df = 3)")
RANDOM = ("(1 | g)", "(x | g)", "(1 | g) + (1 | h)", "(x || g)", "(1 | g)")
PART = ("~ 1", "~ x", "~ f", "~ x + f", "~ x + (1 | g)", "~ f + (1 | h)", "~ 1 + offset(z)")

SCRIPT = """
suppressMessages({library(glmmTMB); library(splines); library(jsonlite)})
args <- commandArgs(TRUE)
jobs <- fromJSON(file.path(args[1], "jobs.json"), simplifyVector = FALSE)
out <- list()
for (job in jobs) {
  d <- read.csv(file.path(args[1], job$data), stringsAsFactors = FALSE)
  for (name in c("f", "g", "h")) d[[name]] <- factor(d[[name]])
  started <- proc.time()[["user.self"]]
  family <- try(eval(parse(text = job$family)), silent = TRUE)
  if (inherits(family, "try-error")) { out[[job$name]] <- list(error = "no such family"); next }
  fit <- try(suppressWarnings(suppressMessages(glmmTMB(as.formula(job$formula), d, family = family,
    ziformula = as.formula(job$zi), dispformula = as.formula(job$disp)))), silent = TRUE)
  seconds <- proc.time()[["user.self"]] - started
  if (inherits(fit, "try-error")) { out[[job$name]] <- list(error = as.character(fit)); next }
  s <- try(suppressWarnings(sqrt(diag(vcov(fit)$cond))), silent = TRUE)
  out[[job$name]] <- list(loglik = as.numeric(-fit$fit$objective), beta = unname(fixef(fit)$cond), seconds = seconds,
    se = if (inherits(s, "try-error")) NULL else unname(s), pd = isTRUE(fit$sdr$pdHess), conv = fit$fit$convergence)
}
write(toJSON(out, auto_unbox = TRUE, digits = 12, na = "null"), file.path(args[1], "out.json"))
"""


def response(rng: np.random.Generator, kind: str, eta: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of the response."""
    n, mu = eta.size, np.exp(eta)
    counts = rng.poisson(mu * rng.gamma(2.0, 0.5, n))
    share = rng.beta(4.0 / (1.0 + np.exp(-eta)) + 0.05, 4.0 / (1.0 + np.exp(eta)) + 0.05)
    size = rng.integers(3, 12, n)
    successes = rng.binomial(size, share)
    return {
        "count": {"y": np.where(zero, 0, counts)},
        "hurdle": {"y": np.where(zero, 0, np.maximum(counts, 1))},
        "trials": {"y": np.where(zero, 0, successes), "m": size - np.where(zero, 0, successes)},
        "share": {"y": np.clip(share, 1e-4, 1 - 1e-4) * np.where(zero, 0.0, 1.0)},
        "amount": {"y": np.maximum(rng.gamma(3.0, mu / 3.0), 1e-3) * np.where(zero, 0.0, 1.0)},
        "tweedie": {"y": np.where(rng.poisson(mu) > 0, rng.gamma(1.0 + mu, 0.8), 0.0)},
        "real": {"y": eta + rng.standard_t(5, n)},
    }[kind]


def model(seed: int) -> tuple[dict[str, str], pd.DataFrame]:
    """A random model with data."""
    rng = np.random.default_rng(seed)
    names = list(FAMILIES)
    family = names[seed % len(names)]
    r_family, kind, has_dispersion = FAMILIES[family]
    n = int(rng.integers(150, 400))
    g, h = rng.integers(0, int(rng.integers(8, 25)), n), rng.integers(0, 7, n)
    x, z, f = rng.normal(size=n), rng.normal(scale=0.3, size=n), rng.choice(["a", "b", "c"], n)
    eta = 0.6 + rng.choice([0.0, 0.4, -0.5]) * x + 0.5 * (f == "b") + rng.uniform(0.2, 0.8) * rng.normal(size=25)[g]
    eta = eta + rng.uniform(0.0, 0.3) * rng.normal(size=25)[g] * x + rng.uniform(0.0, 0.4) * rng.normal(size=7)[h]
    with_zeros = kind in ("count", "hurdle", "trials") and rng.random() < 0.7
    with_zeros = (
        with_zeros or kind == "hurdle" or (kind in ("share", "amount") and family != "lognormal" and rng.random() < 0.5)
    )
    zero_eta = -0.8 + rng.choice([0.0, 0.7]) * x + 0.6 * rng.normal(size=25)[g]
    zero = (rng.random(n) < 1.0 / (1.0 + np.exp(-zero_eta))) & with_zeros
    data = pd.DataFrame({"g": g, "h": h, "x": x, "z": z, "f": f, **response(rng, kind, eta, zero)})
    left = "cbind(y, m)" if kind == "trials" else "y"
    chosen = {
        "formula": f"{left} ~ {rng.choice(FIXED)} + {rng.choice(RANDOM)}",
        "zi": str(rng.choice(PART)) if with_zeros else "~ 0",
        "disp": str(rng.choice(["~ 1", "~ 1", "~ x", "~ f"])) if has_dispersion else "~ 1",
    }
    return {"name": f"m{seed}", "data": f"m{seed}.csv", "family": r_family, "ours": family, **chosen}, data


def ours(job: dict[str, str], data: pd.DataFrame) -> Any:
    """Our fit of the same model."""
    parts = {"ziformula": job["zi"]} if job["zi"] != "~ 0" else {}
    if job["disp"] != "~ 1":
        parts["dispformula"] = job["disp"]
    data = data.astype({"f": "category", "g": "category", "h": "category"})
    formula = job["formula"]
    if job["ours"] == "gaussian":
        return lme4py.lmer(formula, data, reml=False, **parts)
    link = {"link": "log"} if job["ours"] == "gamma" else {}
    return lme4py.glmer(formula, data, family=job["ours"], **link, **parts)


def compared(job: dict[str, str], data: pd.DataFrame, theirs: dict[str, Any]) -> bool:
    """Print a line; whether ours is wrong."""
    started = time.process_time()
    what = f"{job['name']:5} {job['ours']:20} {job['formula']:40} zi {job['zi']:16} disp {job['disp']:4}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = ours(job, data)
    except Lme4Error as error:
        print(f"{what} refused: {str(error)[:110]}; theirs {theirs.get('loglik')}, pd {theirs.get('pd')}", flush=True)
        return False
    except Exception as error:
        print(f"{what} RAISED {type(error).__name__}: {error}", flush=True)
        return True
    seconds = time.process_time() - started
    if theirs.get("loglik") is None:
        print(f"{what} {fit.log_likelihood:.6f}, theirs failed", flush=True)
        return False
    gap = fit.log_likelihood - theirs["loglik"]
    off = np.nan
    if theirs.get("se") and abs(gap) < 1e-3:
        off = float(
            np.nanmax(np.abs((fit.params.to_numpy() - np.array(theirs["beta"])) / np.array(theirs["se"], dtype=float)))
        )
    wrong = gap < -1e-6 and fit.converged
    told = ("" if fit.converged else " told") + (" WRONG" if wrong else "")
    times = f"[{seconds:.2f} s, theirs {theirs['seconds']:.2f}, pd {theirs['pd']}]"
    print(f"{what} {fit.log_likelihood:.6f} gap {gap:+.1e} off {off:.0e} {times}{told}", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    made = [model(seed) for seed in range(chosen.first, chosen.first + chosen.models)]
    with tempfile.TemporaryDirectory() as folder:
        for job, data in made:
            data.to_csv(Path(folder) / job["data"], index=False)
        (Path(folder) / "jobs.json").write_text(json.dumps([job for job, _ in made]))
        (Path(folder) / "run.R").write_text(SCRIPT)
        subprocess.run(["Rscript", str(Path(folder) / "run.R"), folder], check=True)
        found = json.loads((Path(folder) / "out.json").read_text())
    wrong = [compared(job, data, found.get(job["name"], {})) for job, data in made]
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
