"""Known covariances of levels: a pedigree of 50,000 animals, and a dense matrix of 2,000 levels.

    python benchmarks/known_covariances.py [--small]

Prints CPU and wall seconds of the fit (the pedigree's inverse included), evaluations and estimates.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

import lme4py


def pedigree(n: int, generations: int, rng: np.random.Generator) -> lme4py.Pedigree:
    """Generations of one size; a hundredth of the males and two fifths of the females of each are parents."""
    per = n // generations
    sire, dam = np.full(n, -1), np.full(n, -1)
    for g in range(1, generations):
        before, own = np.arange((g - 1) * per, g * per), slice(g * per, (g + 1) * per)
        sire[own] = rng.choice(rng.choice(before, max(2, per // 50), replace=False), per)
        dam[own] = rng.choice(rng.choice(before, 2 * per // 5, replace=False), per)
    known = [[None if p < 0 else int(p) for p in column] for column in (sire, dam)]
    return lme4py.Pedigree(range(n), *known)


def timed(name: str, formula: str, data: pd.DataFrame, make: object) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    fit = lme4py.lmer(formula, data, relmat=make() if callable(make) else make)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name}: {cpu:.1f} s CPU, {wall:.1f} s, {len(fit.opt_log)} evaluations, converged {fit.converged}")
    print(f"    {fit.variance_components}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    rng = np.random.default_rng(0)
    n, J = (2000, 200) if small else (50_000, 2000)
    family = pedigree(n, 10, rng)
    effects = family.relation.root(rng.standard_normal((n, 1)))[:, 0]
    who = np.arange(n // 10, n)
    x, herd = rng.standard_normal((2, who.size))
    data = pd.DataFrame({"animal": who, "x": x, "herd": (herd * 50).astype(int)})
    data["y"] = 10 + x + effects[who] + 1.4 * rng.standard_normal(who.size)
    family = pedigree(n, 10, np.random.default_rng(0))
    timed(f"pedigree of {n:,} animals, {who.size:,} records", "y ~ x + (1 | animal)", data, {"animal": family})
    place = rng.uniform(0, 10, (J, 2))
    K = np.exp(-np.sqrt(((place[:, None] - place[None]) ** 2).sum(axis=2)) / 2)
    sites = pd.DataFrame({"site": np.arange(J), "x": rng.standard_normal(J)})
    sites["y"] = 1 + sites["x"] + np.linalg.cholesky(K) @ rng.standard_normal(J) + 0.7 * rng.standard_normal(J)
    timed(f"dense matrix of {J:,} levels", "y ~ x + (1 | site)", sites, {"site": (K, range(J))})


if __name__ == "__main__":
    main()
