"""Coverage of confidence and prediction intervals: how often 95 % intervals hold the truth.

Data are simulated from a known model, fitted, and the intervals of `predict` are compared with the true means and with
new observations, for groups that are in the data and for new ones.

    python benchmarks/interval_coverage.py [--replicates 500] [--out benchmarks/results/coverage.md]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lme4py

GROUPS, ROWS, PREDICTED = 80, 6, 20
ALPHA = 0.05
BETA = np.array([1.0, 0.5])
SD = {"linear": (1.0, 0.5), "poisson": (0.6, 0.25), "gamma": (0.5, 0.25)}
# Counts so large that their steps do not matter.
INTERCEPT = {"linear": 1.0, "poisson": 3.5, "gamma": 1.0}


@dataclass(frozen=True)
class Truth:
    """One simulated data set with what a prediction should find.

    Attributes
    ----------
    data : DataFrame
    new : DataFrame
        One row for each of the first groups, with its x.
    population, known, fresh : ndarray
        Linear predictors of these rows: without random effects, with those of the group, with those of a new group.
    draw : callable
        From a linear predictor to new observations.
    """

    data: pd.DataFrame
    new: pd.DataFrame
    population: np.ndarray
    known: np.ndarray
    fresh: np.ndarray
    draw: Callable[[np.ndarray], np.ndarray]


def simulate(kind: str, rng: np.random.Generator) -> Truth:
    """Unbalanced groups with a random intercept and slope."""
    sizes = rng.integers(2, 2 * ROWS - 1, GROUPS)
    g = np.repeat(np.arange(GROUPS), sizes)
    x = rng.normal(size=g.size)
    sd = np.array(SD[kind])
    b, other = sd * rng.normal(size=(GROUPS, 2)), sd * rng.normal(size=(PREDICTED, 2))
    beta = np.array([INTERCEPT[kind], BETA[1]])
    at = rng.uniform(-1.5, 1.5, PREDICTED)
    Z = np.column_stack([np.ones(PREDICTED), at])
    draws = {
        "linear": lambda eta: eta + rng.normal(size=eta.size),
        "poisson": lambda eta: rng.poisson(np.exp(eta)).astype(float),
        "gamma": lambda eta: rng.gamma(3.0, np.exp(eta) / 3.0),
    }
    y = draws[kind](beta[0] + beta[1] * x + b[g, 0] + b[g, 1] * x)
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    new = pd.DataFrame({"x": at, "g": np.arange(PREDICTED)})
    fixed = Z @ beta
    known, fresh = fixed + (Z * b[:PREDICTED]).sum(axis=1), fixed + (Z * other).sum(axis=1)
    return Truth(data, new, fixed, known, fresh, draws[kind])


def fit(kind: str, data: pd.DataFrame) -> Any:
    """The true model."""
    if kind == "linear":
        return lme4py.lmer("y ~ x + (x | g)", data)
    return lme4py.glmer("y ~ x + (x | g)", data, kind)


def average(kind: str, truth: Truth) -> np.ndarray:
    """True means over all groups."""
    if kind == "linear":
        return truth.population
    a, b = SD[kind]
    return np.exp(truth.population + 0.5 * (a**2 + b**2 * truth.new["x"].to_numpy() ** 2))


def one(kind: str, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Whether each interval holds its target, and its width."""
    truth = simulate(kind, rng)
    result = fit(kind, truth.data)
    mean = np.asarray if kind == "linear" else np.exp
    strangers = truth.new.assign(g=truth.new["g"] + GROUPS)

    def check(new: pd.DataFrame, include: Any, interval: str, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = result.predict(new, include_random=include, interval=interval, alpha=ALPHA)
        held = (table["lower"].to_numpy() <= target) & (target <= table["upper"].to_numpy())
        return held, (table["upper"] - table["lower"]).to_numpy()

    known, fresh = truth.draw(truth.known), truth.draw(truth.fresh)
    return {
        "confidence, fixed effects": check(truth.new, False, "confidence", mean(truth.population)),
        "confidence, averaged over groups": check(truth.new, "integrate", "confidence", average(kind, truth)),
        "confidence, known group": check(truth.new, True, "confidence", mean(truth.known)),
        "confidence, new group": check(strangers, True, "confidence", mean(truth.fresh)),
        "prediction, known group": check(truth.new, True, "prediction", known),
        "prediction, new group": check(truth.new, False, "prediction", fresh),
        "prediction, unseen level": check(strangers, True, "prediction", fresh),
    }


def run(kind: str, replicates: int, seed: int) -> pd.DataFrame:
    """Coverage and mean width of every interval; the standard error counts replicates, not rows."""
    held: dict[str, list[float]] = {}
    width: dict[str, list[float]] = {}
    for sequence in np.random.SeedSequence(seed).spawn(replicates):
        for name, (inside, wide) in one(kind, np.random.default_rng(sequence)).items():
            held.setdefault(name, []).append(float(inside.mean()))
            width.setdefault(name, []).append(float(wide.mean()))
    rows = {
        name: (100 * np.mean(v), 100 * np.std(v) / np.sqrt(len(v)), np.mean(width[name])) for name, v in held.items()
    }
    return pd.DataFrame(rows, index=["coverage %", "its s.e.", "mean width"]).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    # Near-singular fits and unseen levels say so each time.
    warnings.simplefilter("ignore")
    lines = [
        f"# Coverage of 95 % intervals, {GROUPS} groups of {ROWS - 1} rows on average, random intercept and slope",
        "",
        f"{options.replicates} simulated data sets each; `python benchmarks/interval_coverage.py`.",
        "",
        "| model | interval | coverage % | s.e. | mean width |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for kind in SD:
        start = time.perf_counter()
        table = run(kind, options.replicates, options.seed)
        print(f"{kind}: {time.perf_counter() - start:.0f} s")
        lines += [f"| {kind} | {name} | {c:.1f} | {s:.1f} | {w:.3g} |" for name, c, s, w in table.itertuples()]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
