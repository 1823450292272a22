"""Animal models: ten generations, each from a hundredth of the animals before as sires and half of them as dams.

python benchmarks/giants.py pedigree pedigree-two
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

GENERATIONS = 10
# Animals and formula; the second one has two traits, with any residual covariance between them.
HERDS = {
    "pedigree": (1_000_000, "y ~ x + (1 | animal)"),
    "pedigree-two": (200_000, "y ~ 0 + trait + trait:x + (0 + trait | animal) + rr(0 + trait | own, 1)"),
}
GENETIC = np.array([[1.0, 0.4], [0.4, 0.8]])
RESIDUAL = np.array([[2.0, 0.5], [0.5, 1.5]])


def parents(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sires and dams, -1 in the first generation."""
    per = n // GENERATIONS
    sire, dam = np.full(n, -1), np.full(n, -1)
    for g in range(1, GENERATIONS):
        before = (g - 1) * per + rng.permutation(per)
        own = slice(g * per, (g + 1) * per)
        sire[own] = rng.choice(before[: max(2, per // 100)], per)
        dam[own] = rng.choice(before[per // 100 :][: per // 2], per)
    return sire, dam


def known(codes: np.ndarray) -> list[int | None]:
    return [None if code < 0 else code for code in codes.tolist()]


def records(n: int, sire: np.ndarray, dam: np.ndarray, inbreeding: np.ndarray, n_traits: int) -> pd.DataFrame:
    """One record of each trait of every animal after the first generation."""
    rng = np.random.default_rng(2)
    per = n // GENERATIONS
    own = np.where(sire < 0, 1.0, 0.5 - 0.25 * (inbreeding[sire] + inbreeding[dam]))
    effects = np.sqrt(own)[:, None] * (rng.standard_normal((n, 2)) @ np.linalg.cholesky(GENETIC).T)
    for start in range(per, n, per):
        rows = slice(start, start + per)
        effects[rows] += 0.5 * (effects[sire[rows]] + effects[dam[rows]])
    who = np.arange(per, n)
    x = rng.standard_normal(who.size)
    residual = rng.standard_normal((who.size, 2)) @ np.linalg.cholesky(RESIDUAL).T
    y = np.array([10.0, 5.0]) + x[:, None] * [1.0, 0.5] + effects[who] + residual
    if n_traits == 1:
        return pd.DataFrame({"animal": who, "x": x, "y": y[:, 0]})
    columns = {"animal": np.tile(who, 2), "x": np.tile(x, 2), "trait": np.repeat(["a", "b"], who.size)}
    return pd.DataFrame({**columns, "own": columns["animal"], "y": y.T.ravel()})


def herd_case(name: str) -> dict[str, object]:
    """One animal model with the reliabilities of all animals, in this process."""
    import resource

    import lme4py

    n, formula = HERDS[name]
    sire, dam = parents(n, np.random.default_rng(1))
    pedigree = lme4py.Pedigree(range(n), known(sire), known(dam))
    cpu = time.process_time()
    inbreeding = pedigree.inbreeding().to_numpy()
    for_inbreeding = time.process_time() - cpu
    data = records(n, sire, dam, inbreeding, 2 if "own" in formula else 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    fit = lme4py.lmer(formula, data, relmat={"animal": pedigree})
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for_modes = time.process_time()
    reliability = fit.ranef(reliability=True)[1]
    reliability = reliability["animal"] if isinstance(reliability, dict) else reliability
    return {
        "case": name,
        "rows": len(data),
        "animals": n,
        "inbreeding_cpu_s": round(for_inbreeding, 2),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "reliabilities_cpu_s": round(time.process_time() - for_modes, 2),
        "evaluations": len(fit.opt_log),
        "criterion": fit.criterion,
        "covariances": [c.round(4).tolist() for c in fit.fit.covariances],
        "residual": fit.sigma**2,
        "mean_reliability": reliability.to_numpy().mean(axis=0).round(4).tolist(),
        "data_gib": round(before / 2**20, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
