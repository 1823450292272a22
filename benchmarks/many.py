"""Time power by simulation and many responses: CPU and wall seconds of one process.

python benchmarks/many.py            # all
python benchmarks/many.py power many # some
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import lme4py


def timed(label: str, run: Callable[[], object]) -> None:
    """Print what a run takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{label}: {time.process_time() - cpu:.1f} s CPU, {time.perf_counter() - wall:.1f} s, peak {peak:.2f} GiB",
        flush=True,
    )


def power() -> None:
    """Ten sizes, 1,000 simulations each."""
    fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    sizes = [6, 9, 12, 15, 18, 24, 30, 40, 50, 60]
    options = {"n_sim": 1000, "seed": 1}
    timed(
        "LMM, one factor, 6-60 subjects",
        lambda: lme4py.power_curve(fit, "Days", along="Subject", n=sizes, params={"Days": 3.0}, **options),
    )
    rows = pd.DataFrame([(s, w) for s in range(30) for w in range(40)], columns=["s", "w"])
    rows["x"] = rows["w"] % 2 - 0.5
    params = {"beta": {"Intercept": 0.0, "x": 0.4}, "sd": {"s": 0.7, "w": 0.5}, "sigma": 1.0}
    crossed = lme4py.make_model("y ~ x + (1 | s) + (1 | w)", rows, params)
    sizes = [5, 8, 10, 12, 15, 18, 20, 24, 27, 30]
    timed("LMM, crossed, 5-30 by 40", lambda: lme4py.power_curve(crossed, "x", along="s", n=sizes, **options))
    logit = lme4py.make_model(
        "y ~ x + (1 | s)", rows, {"beta": {"Intercept": 0.0, "x": 0.4}, "sd": {"s": 0.7}}, "binomial"
    )
    logit = lme4py.extend(logit, within="s + x", n=5)
    sizes = [10, 15, 20, 25, 30, 35, 40, 45, 50, 60]
    timed("logit GLMM, 10-60 by 10", lambda: lme4py.power_curve(logit, "x", along="s", n=sizes, **options))
    pairs = [(x, g) for g in "abc" for x in range(1, 11)]
    poisson = lme4py.make_model(
        "z ~ x + (1 | g)",
        pd.DataFrame(pairs, columns=["x", "g"]),
        {"beta": {"Intercept": 1.54079, "x": -0.05}, "sd": {"g": 0.08345**0.5}},
        "poisson",
    )
    timed("example of simr, 1,000 simulations", lambda: print(lme4py.power(poisson, "x", n_sim=1000, seed=123)))


def many() -> None:
    """20,000 gaussian responses."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": rng.integers(0, 50, 500), "x": rng.normal(size=500)})
    data["t"] = data["g"] % 2
    Y = rng.normal(size=(500, 20_000)) + (rng.normal(size=(50, 20_000)) * rng.uniform(0, 2, 20_000))[data["g"]]
    timed("20,000 gaussian responses, n = 500, 50 groups", lambda: print(lme4py.fit_many("~ x + t + (1 | g)", data, Y)))


def counts() -> None:
    """2,000 responses of counts."""
    rng = np.random.default_rng(0)
    n, genes = 2000, 2000
    data = pd.DataFrame({"g": np.arange(n) % 40, "x": rng.normal(size=n)})
    data["t"] = data["g"] % 2
    mean = np.exp(
        rng.normal(size=genes) + 0.3 * data["x"].to_numpy()[:, None] + (rng.normal(size=(40, genes)) * 0.5)[data["g"]]
    )
    Y = rng.negative_binomial(2, 2 / (2 + mean))
    timed(
        "2,000 negative binomial responses, n = 2,000, 40 donors",
        lambda: print(lme4py.fit_many("~ x + t + (1 | g)", data, Y, family="nbinomial")),
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or ["power", "many", "counts"]:
        {"power": power, "many": many, "counts": counts}[name]()
