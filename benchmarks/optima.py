"""Does a fit find the lowest minimum where regressions within and between groups disagree?

    python benchmarks/optima.py                    # the grid: eight settings, 30 seeds, ML and REML, four models
    python benchmarks/optima.py --seeds 3          # a short one
    python benchmarks/optima.py --random 200       # and random unbalanced data

Groups whose means rise with x while y falls with x within each have a second minimum at or near a variance of zero.
The default fit is compared with the best of plain descents from T = 0.1, 1, 5, 20 and 80 times the identity, by the
package's optimiser without its search for other minima. A fit is worse when it is higher by more than 1e-6. The last
lines say how many are; the process ends with 1 if any is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd

import lme4py
from lme4py.engine.optimise import Control, Local, minimise
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error

# Groups, rows of each, slope between groups, residual standard deviation; the slope within groups is -1.
SETTINGS = (
    (5, 10, 3, 0.5),
    (8, 15, 3, 0.5),
    (10, 10, 3, 0.5),
    (20, 10, 3, 0.5),
    (50, 10, 3, 0.5),
    (10, 10, 3, 1),
    (10, 30, 3, 1),
    (10, 30, 3, 2),
)
MODELS = ("y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g/h)")
OTHERS = ("y ~ x + (1 | g) + (0 + x | g)", "y ~ x + diag(x | g)")
SIZES = (0.1, 1.0, 5.0, 20.0, 80.0)


def simpson(groups: int, rows: int, between: float, sd: float, seed: int) -> pd.DataFrame:
    """Data of one setting."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = 2.0 * g + rng.uniform(0, 2, g.size)
    y = between * g - (x - 2 * g) + sd * rng.standard_normal(g.size)
    return pd.DataFrame({"g": g, "h": np.tile(np.arange(rows) % 5, groups), "x": x, "y": y})


def random_data(seed: int) -> pd.DataFrame:
    """Unbalanced groups, mixtures of effects within and between levels, heavy tails."""
    rng = np.random.default_rng(seed)
    levels = int(rng.choice([4, 8, 15, 30]))
    g = np.repeat(np.arange(levels), np.maximum(2, rng.geometric(1 / rng.choice([3, 8, 20]), levels)))
    h = rng.integers(0, 4, g.size)
    mean, other = rng.choice([0, 1, 5]) * rng.normal(size=levels)[g], rng.choice([0, 1, 5]) * rng.normal(size=4)[h]
    within = rng.normal(size=g.size)
    y = (rng.normal(size=3) * rng.choice([0.0, 1.0, 3.0], 3)) @ [mean, other, within]
    y = y + rng.choice([0, 0.3, 2]) * rng.normal(size=levels)[g] + rng.choice([0.1, 1.0]) * rng.standard_t(4, g.size)
    return pd.DataFrame({"g": g, "h": h, "x": mean + other + within, "y": y})


def excess(formula: str, data: pd.DataFrame, reml: bool) -> float | None:
    """How much the default fit is above the best plain descent; None where the model is refused."""
    try:
        whole = lme4py.lmm_criterion(lme4py.lformula(formula, data), reml)
        found = lme4py.optimize_criterion(whole)
    except Lme4Error:
        return None
    criterion, structures = whole.inside, whole.inside.problem.structures
    if found.source[0].r2 < 1e-10 * criterion.problem.cross.n_obs:
        return None  # the random effects fit exactly: refused by the last step

    def local(theta: np.ndarray) -> Local | None:
        try:
            point = criterion.evaluate(theta)
            slopes = criterion.derivatives(point)
        except np.linalg.LinAlgError:
            return None
        return Local(theta, point.value, slopes.gradient, slopes.hessian)

    with limited_threads(whole.design):
        starts = [size * structures.initial() for size in SIZES]
        best = min(minimise(local, start, Control(max_evaluations=500)).value for start in starts)
    return found.value - best


def cases(seeds: int, random: int) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Model, what it is about, and data."""
    for formula in MODELS:
        for setting in SETTINGS:
            for seed in range(seeds):
                yield formula, f"{setting}, seed {seed}", simpson(*setting, seed=seed)
    for seed in range(random):
        for formula in (*MODELS, *OTHERS):
            yield formula, f"random data, seed {seed}", random_data(seed)


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--random", type=int, default=0)
    options = parser.parse_args()
    worse: dict[str, list[float]] = {}
    for formula, what, data in cases(options.seeds, options.random):
        for reml in (True, False):
            gap = excess(formula, data, reml)
            if gap is None:
                continue
            worse.setdefault(formula, []).append(gap)
            if gap > 1e-6:
                print(f"worse by {gap:.3g}: {formula}, {'REML' if reml else 'ML'}, {what}", flush=True)
    for formula, gaps in worse.items():
        print(f"{formula}: {sum(gap > 1e-6 for gap in gaps)} of {len(gaps)} worse, largest excess {max(gaps):.2g}")
    return int(any(gap > 1e-6 for gaps in worse.values() for gap in gaps))


if __name__ == "__main__":
    sys.exit(main())
