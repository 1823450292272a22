"""All of a fit beside glmmTMB on fresh random data: every family, with zero and dispersion parts, weights and offsets.

    python benchmarks/parts_beside.py                # three models of every family
    python benchmarks/parts_beside.py --seed 5       # other data

R's glmmTMB is needed. One line for each model: our log-likelihood less theirs; the largest differences of coefficients
of all parts in standard errors, of standard errors (relative), of standard deviations of random effects; and of
predictions of every type and their standard errors (relative). Dispersions are compared where both programs write them
alike. The process ends with 1 where ours is called converged and lower by more than 1e-6.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lme4py
from lme4py.errors import Lme4Error

# Our name, glmmTMB's, the kind of response, and what exists: zero parts (z), dispersion parts (d), weights that
# multiply the log-likelihood (w), dispersions that are written alike (a).
FAMILIES = {
    "poisson": ("poisson()", "count", "zw"),
    "nbinomial": ("nbinom2()", "count", "zdwa"),
    "nbinomial1": ("nbinom1()", "count", "zdwa"),
    "genpois": ("genpois()", "count", "zdwa"),
    "compois": ("compois()", "small", "zdwa"),
    "truncated_poisson": ("truncated_poisson()", "positive", "zw"),
    "truncated_nbinomial": ("truncated_nbinom2()", "positive", "zdwa"),
    "truncated_nbinomial1": ("truncated_nbinom1()", "positive", "zdwa"),
    "truncated_compois": ("truncated_compois()", "smallpositive", "zdw"),
    "binomial": ("binomial()", "trials", "z"),
    "betabinomial": ("betabinomial()", "trials", "zda"),
    "beta": ("beta_family()", "share", "zdwa"),
    "ordbeta": ("ordbeta()", "share01", "dwa"),
    "gamma": ("Gamma(link='log')", "amount", "zd"),
    "lognormal": ("lognormal()", "amount", "zdw"),
    "tweedie": ("tweedie()", "tweedie", "d"),
    "t": ("t_family()", "real", "dw"),
    "gaussian": ("gaussian()", "real", "d"),
}
KINDS = ("response", "conditional", "zprob", "dispersion")

SCRIPT = """
suppressMessages({library(glmmTMB); library(jsonlite)})
args <- commandArgs(TRUE)
jobs <- fromJSON(file.path(args[1], "jobs.json"), simplifyVector = FALSE)
out <- list()
for (job in jobs) {
  d <- read.csv(file.path(args[1], job$data)); for (name in c("f", "g", "h")) d[[name]] <- factor(d[[name]])
  family <- try(eval(parse(text = job$family)), silent = TRUE)
  if (inherits(family, "try-error")) { out[[job$name]] <- list(error = "no such family"); next }
  if (job$zi != "~ 0" && family$family == "Gamma") family <- ziGamma(link = "log")
  d$own <- if (job$weighted) d$w else rep(1, nrow(d))
  start <- if (family$family == "ordbeta") list(psi = c(-1, 1)) else NULL
  fit <- try(suppressWarnings(suppressMessages(glmmTMB(as.formula(job$formula), d, family = family, weights = own,
    ziformula = as.formula(job$zi), dispformula = as.formula(job$disp), start = start,
    control = glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 2000))))), silent = TRUE)
  if (inherits(fit, "try-error")) { out[[job$name]] <- list(error = as.character(fit)); next }
  s <- suppressWarnings(summary(fit)$coefficients)
  one <- list(loglik = as.numeric(-fit$fit$objective), pd = isTRUE(fit$sdr$pdHess))
  for (part in names(s)) if (!is.null(s[[part]]))
    one[[part]] <- list(estimate = unname(s[[part]][, 1]), se = unname(s[[part]][, 2]))
  V <- VarCorr(fit); one$sd <- unlist(lapply(c(V$cond, V$zi), function(v) attr(v, "stddev")), use.names = FALSE)
  for (kind in c("response", "conditional", "zprob", "disp")) {
    p <- try(suppressWarnings(predict(fit, d[1:4, ], type = kind, se.fit = TRUE)), silent = TRUE)
    if (!inherits(p, "try-error")) one[[paste0("p_", kind)]] <- list(fit = unname(p$fit), se = unname(p$se.fit))
  }
  out[[job$name]] <- one
  message(job$name)
}
write(toJSON(out, auto_unbox = TRUE, digits = 14, na = "null", null = "null"), file.path(args[1], "out.json"))
"""


def response(rng: np.random.Generator, kind: str, eta: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of the response; `zero` rows are zeros of their own where the kind has them."""
    n, mu, there = eta.size, np.exp(eta), np.where(zero, 0, 1)
    share = rng.beta(5.0 / (1.0 + np.exp(-eta)) + 0.1, 5.0 / (1.0 + np.exp(eta)) + 0.1)
    if kind == "trials":
        size = rng.integers(3, 12, n)
        successes = rng.binomial(size, share) * there
        return {"y": successes, "m": size - successes}
    if kind in ("small", "smallpositive"):
        counts = rng.binomial(6, 1.0 / (1.0 + np.exp(-eta)))
    else:
        counts = rng.poisson(mu * rng.gamma(2.0, 0.5, n))
    if kind in ("share", "share01"):
        inside = np.clip(share, 1e-3, 1.0 - 1e-3)
        return {
            "y": inside * there if kind == "share" else np.where(inside < 0.1, 0.0, np.where(inside > 0.9, 1.0, inside))
        }
    made = {
        "count": counts * there,
        "small": counts * there,
        "positive": np.maximum(counts, 1) * there,
        "smallpositive": np.maximum(counts, 1) * there,
        "amount": np.maximum(rng.gamma(3.0, mu / 3.0), 1e-3) * there,
        "tweedie": np.where(rng.poisson(mu) > 0, rng.gamma(1.0 + mu, 0.8), 0.0),
        "real": eta + 0.7 * rng.standard_t(5, n),
    }
    return {"y": made[kind]}


def models(seed: int) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Three models of every family: random zero part; slopes, weights and offset; crossed factors."""
    found = []
    for number, (family, (theirs, kind, has)) in enumerate(FAMILIES.items()):
        for variant in range(3):
            rng = np.random.default_rng([seed, number, variant])
            n = 120 if "compois" in family else 240
            g, h, f = rng.integers(0, 16, n), rng.integers(0, 6, n), rng.choice(["a", "b", "c"], n)
            x, z = rng.normal(size=n), rng.normal(scale=0.3, size=n)
            eta = 0.5 + 0.4 * x + 0.4 * (f == "b") + 0.5 * rng.normal(size=16)[g] + 0.3 * rng.normal(size=16)[g] * x
            eta += 0.3 * rng.normal(size=6)[h] + (z if variant == 1 else 0.0)
            zero = rng.random(n) < 1.0 / (1.0 + np.exp(1.0 - 0.5 * x - 0.7 * rng.normal(size=16)[g]))
            zero = zero & ("z" in has) & (variant < 2 or kind in ("positive", "smallpositive"))
            data = pd.DataFrame({"g": g, "h": h, "x": x, "z": z, "f": f, "w": rng.integers(1, 3, n)})
            data = data.assign(**response(rng, kind, eta, zero))
            left = "cbind(y, m)" if kind == "trials" else "y"
            right = ("x + f + (1 | g)", "x + offset(z) + (x | g)", "x + (1 | g) + (1 | h)")[variant]
            job = {
                "name": f"{family}{variant}",
                "data": f"{family}{variant}.csv",
                "family": theirs,
                "ours": family,
                "formula": f"{left} ~ {right}",
                "zi": ("~ x + (1 | g)", "~ x", "~ 1")[variant] if zero.any() else "~ 0",
                "disp": ("~ 1", "~ 1", "~ x")[variant] if "d" in has else "~ 1",
                "weighted": variant == 1 and "w" in has,
                "alike": "a" in has,
            }
            found.append((job, data))
    return found


def ours(job: dict[str, Any], data: pd.DataFrame) -> Any:
    """Our fit of the same model."""
    parts: dict[str, Any] = {"ziformula": job["zi"]} if job["zi"] != "~ 0" else {}
    parts |= {"dispformula": job["disp"]} if job["disp"] != "~ 1" else {}
    parts |= {"weights": "w"} if job["weighted"] else {}
    data = data.astype({"f": "category", "g": "category", "h": "category"})
    if job["ours"] == "gaussian":
        return lme4py.lmer(job["formula"], data, reml=False, **parts)
    link = {"link": "log"} if job["ours"] == "gamma" else {}
    return lme4py.glmer(job["formula"], data, family=job["ours"], **link, **parts)


def coefficients(fit: Any, job: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float]:
    """Largest differences of estimates, in standard errors, and of standard errors, relative."""
    parts = {"cond": "conditional", "zi": "zero_inflation"}
    parts |= {"disp": "dispersion"} if job["alike"] and job["disp"] != "~ 1" else {}
    off, errors = 0.0, 0.0
    for name, component in parts.items():
        if not theirs.get(name) or theirs[name]["se"] is None:
            continue
        table = fit.coef_table(component=component)
        se = np.array(np.atleast_1d(theirs[name]["se"]), dtype=float)
        off = max(off, np.nanmax(np.abs(table["estimate"].to_numpy() - np.atleast_1d(theirs[name]["estimate"])) / se))
        errors = max(errors, np.nanmax(np.abs(table["std_error"].to_numpy() / se - 1.0)))
    return float(off), float(errors)


def predictions(fit: Any, data: pd.DataFrame, theirs: dict[str, Any]) -> str:
    """Largest relative differences of predictions and of their standard errors, by type."""
    rows, out = data.head(4), []
    for kind in KINDS:
        known = theirs.get("p_disp" if kind == "dispersion" else f"p_{kind}")
        if not known:
            continue
        try:
            own = fit.predict(rows, type=kind, se=True)
        except Lme4Error:
            continue
        value = np.max(np.abs(own["predicted"].to_numpy() / np.array(known["fit"], dtype=float) - 1.0))
        error = np.nanmax(np.abs(own["std_error"].to_numpy() / np.array(known["se"], dtype=float) - 1.0))
        out.append(f"{kind[:4]} {value:.0e}/{error:.0e}")
    return " ".join(out)


def compared(job: dict[str, Any], data: pd.DataFrame, theirs: dict[str, Any]) -> bool:
    """Print a line; whether ours is wrong."""
    what = f"{job['name']:22} zi {job['zi']:13} disp {job['disp']:3}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = ours(job, data)
    except Lme4Error as error:
        print(f"{what} refused: {str(error)[:110]}; theirs {theirs.get('loglik')}, pd {theirs.get('pd')}", flush=True)
        return False
    if theirs.get("loglik") is None:
        print(f"{what} {fit.log_likelihood:.6f}, theirs failed: {str(theirs.get('error'))[:80]}", flush=True)
        return False
    gap = fit.log_likelihood - theirs["loglik"]
    line = f"{what} {fit.log_likelihood:.6f} gap {gap:+.1e} pd {theirs['pd']}{'' if fit.converged else ' told'}"
    if abs(gap) < 1e-4:
        off, errors = coefficients(fit, job, theirs)
        sd = fit.var_corr()
        own = sd.loc[sd["name2"].isna(), "sdcor"].to_numpy()
        known = np.atleast_1d(theirs["sd"])
        spread = np.max(np.abs(own - known) / np.maximum(known, 0.05)) if own.size == known.size else np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            line += f" off {off:.0e} se {errors:.0e} sd {spread:.0e} | {predictions(fit, data, theirs)}"
    wrong = gap < -1e-6 and fit.converged
    print(line + (" WRONG" if wrong else ""), flush=True)
    return bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--folder", help="keep data and glmmTMB's answers here, and use those that are there")
    chosen = parser.parse_args()
    made = [(job, data) for job, data in models(chosen.seed) if job["ours"] in chosen.families]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(chosen.folder or temporary)
        if not (folder / "out.json").exists():
            for job, data in made:
                data.to_csv(folder / job["data"], index=False)
            (folder / "jobs.json").write_text(json.dumps([job for job, _ in made]))
            (folder / "run.R").write_text(SCRIPT)
            subprocess.run(["Rscript", str(folder / "run.R"), str(folder)], check=True)
        found = json.loads((folder / "out.json").read_text())
    wrong = [compared(job, data, found.get(job["name"], {})) for job, data in made]
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
