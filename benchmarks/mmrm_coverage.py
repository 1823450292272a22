"""Coverage of intervals and size of tests of the table of a trial, by simulation with dropout.

    python benchmarks/mmrm_coverage.py                 # writes benchmarks/results/mmrm_coverage.md
    python benchmarks/mmrm_coverage.py --n 100         # a short one, printed only

Two arms, four visits, a baseline; the arms do not differ. A subject leaves before a visit with a probability that
depends on its last observed value (missing at random). Tests are those of the difference at the last visit, and of all
differences together (arm and arm x visit); intervals are those of the difference at the last visit.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import lme4py

VISITS = 4
SIZES = (20, 50, 200)
METHODS = ("kenward-roger", "satterthwaite", "residual")
OUT = Path(__file__).parent / "results" / "mmrm_coverage.md"
COVARIANCE = np.array(
    [[25.0, 20.0, 18.0, 15.0], [20.0, 30.0, 26.0, 22.0], [18.0, 26.0, 45.0, 38.0], [15.0, 22.0, 38.0, 60.0]]
)


def simulate(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """A trial of n subjects."""
    base = rng.normal(50.0, 8.0, n)
    y = 10.0 + 0.4 * (base[:, None] - 50.0) + rng.normal(size=(n, VISITS)) @ np.linalg.cholesky(COVARIANCE).T
    here = np.ones((n, VISITS), dtype=bool)
    for v in range(1, VISITS):
        leaves = rng.random(n) < 1.0 / (1.0 + np.exp(3.0 - 0.1 * (y[:, v - 1] - 10.0)))
        here[:, v] = here[:, v - 1] & ~leaves
    arms = np.where(np.arange(n) % 2, "active", "placebo")
    table = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), VISITS),
            "visit": pd.Categorical(np.tile([f"V{v + 1}" for v in range(VISITS)], n)),
            "arm": pd.Categorical(np.repeat(arms, VISITS), ["placebo", "active"]),
            "base": np.repeat(base, VISITS),
            "y": y.ravel(),
        }
    )
    return table[here.ravel()]


def one(n: int, seed: int) -> dict[str, tuple[bool, bool, bool]] | None:
    """For each method: does the interval hold zero, and do the two tests reject at 5 %."""
    data = simulate(n, np.random.default_rng([n, seed]))
    try:
        fit = lme4py.mmrm("y ~ base * visit + arm * visit + us(visit | id)", data)
    except lme4py.Lme4Error:
        return None
    out = {}
    names = [name for name in fit.params.index if "arm[" in name]
    for method in METHODS:
        row = lme4py.trial_table(fit, "arm", "visit", ddf=method).iloc[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            joint = fit.contest(names, ddf=method)
        p = float(joint["p_value"]) if not isinstance(joint, pd.DataFrame) else float(joint["p_value"].iloc[0])
        out[method] = (row["lower"] < 0.0 < row["upper"], row["p_value"] < 0.05, p < 0.05)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first trial")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    chosen = parser.parse_args()
    count, first = chosen.n, chosen.first
    lines = [
        f"# Intervals and tests of a trial by MMRM, {VISITS} visits, dropout at random given the last value",
        "",
        f"{count} simulated trials without an effect for each size; `python benchmarks/mmrm_coverage.py`. "
        f"Standard error of a percentage near 5 or 95: {100 * np.sqrt(0.05 * 0.95 / count):.2f}.",
        "",
        "| subjects | degrees of freedom | coverage, last visit % | size, last visit % | size, all visits % | trials |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for n in chosen.sizes:
        found = [result for result in (one(n, seed) for seed in range(first, first + count)) if result is not None]
        for method in METHODS:
            rates = 100.0 * np.mean([result[method] for result in found], axis=0)
            lines.append(f"| {n} | {method} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[2]:.1f} | {len(found)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if count >= 1000 and not first:
        OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
