"""Size of t tests of a fixed effect with few clusters: naive Wald, Satterthwaite, and CR2 with its degrees of freedom.

    python benchmarks/robust_size.py [--replicates 600] [--out benchmarks/results/robust_size.md]

Data: y = u_g + e in unbalanced clusters (4 to 16 rows), a treatment given to a third of the clusters, no effect. The
model has a random intercept. In half of the settings it is right; in the others the treated clusters have twice the
residual standard deviation and a random slope that the model leaves out, which only the robust covariance sees.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import lme4py
from lme4py.inference.estimates.coefficients import coefficient_method, two_sided

CLUSTERS = (8, 12, 20, 30)
METHODS = {
    "Wald z, model": {"ddf": "normal"},
    "Satterthwaite, model": {"ddf": "satterthwaite"},
    "CR0, z": {"vcov": "CR0", "ddf": "normal"},
    "CR1, z (Stata)": {"vcov": "CR1", "ddf": "normal"},
    "CR2, Satterthwaite": {"vcov": "CR2", "ddf": "satterthwaite"},
}


def draw(rng: np.random.Generator, clusters: int, right: bool) -> pd.DataFrame:
    """One data set without an effect of the treatment or of x."""
    sizes = rng.integers(4, 17, clusters)
    g = np.repeat(np.arange(clusters), sizes)
    treated = (np.arange(clusters) % 3 == 0)[g].astype(float)
    x = rng.normal(size=g.size) + 0.5 * rng.normal(size=clusters)[g]
    y = rng.normal(size=clusters)[g] + rng.normal(size=g.size) * (1.0 if right else 1.0 + treated)
    if not right:
        y += rng.normal(size=clusters)[g] * x
    return pd.DataFrame({"y": y, "x": x, "treated": treated, "g": g.astype(str)})


def rejections(clusters: int, right: bool, replicates: int) -> pd.DataFrame:
    """Part of the replicates with p < 0.05, methods by terms."""
    rng = np.random.default_rng([clusters, right])
    counts = pd.DataFrame(0.0, index=list(METHODS), columns=["treated", "x"])
    for _ in range(replicates):
        fit = lme4py.lmer("y ~ treated + x + (1 | g)", draw(rng, clusters, right)).fit
        for name, arguments in METHODS.items():
            chosen = coefficient_method(fit, **arguments)
            statistic = fit.beta / np.sqrt(np.diag(chosen.vcov))
            counts.loc[name] += two_sided(statistic, chosen.t_df(np.eye(3)))[1:] < 0.05
    return counts / replicates


def table(replicates: int) -> str:
    """Markdown."""
    head = "| model | clusters | term | " + " | ".join(METHODS) + " |"
    lines = [head, "|" + " --- |" * (3 + len(METHODS))]
    for right in (True, False):
        for clusters in CLUSTERS:
            found = rejections(clusters, right, replicates)
            for term, column in zip(found.columns, found.to_numpy().T, strict=True):
                cells = " | ".join(f"{100 * part:.1f}" for part in column)
                lines.append(f"| {'right' if right else 'wrong'} | {clusters} | {term} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "robust_size.md")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Some data sets have no variance between clusters.
        warnings.simplefilter("ignore", lme4py.errors.Lme4Warning)
        text = table(arguments.replicates)
    error = 100 * np.sqrt(0.05 * 0.95 / arguments.replicates)
    head = (
        "# Size of tests with few clusters\n\n"
        f"Percent of {arguments.replicates} data sets without effects in which p < 0.05 (nominal 5; Monte Carlo "
        f"standard error {error:.1f}).\n`treated` varies between clusters, `x` mostly within. "
        "'wrong': the model leaves out a random slope of x and unequal residual variances.\n"
        "Made by `benchmarks/robust_size.py`.\n\n"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(head + text + "\n", encoding="utf-8")
    print(head + text)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
