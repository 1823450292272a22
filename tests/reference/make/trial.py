"""The simulated trial that comes with the package, lme4py/data/datasets/trial.csv.gz.

    python tests/reference/make/trial.py

Named as analysis data of clinical trials are (CDISC ADaM): a score of depression at baseline and at four visits of two
arms in twelve sites. A subject leaves before a visit with a probability that grows with its last score (missing at
random), and single visits are missed. No person and no study stands behind it.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

OUT = Path(__file__).parents[3] / "lme4py" / "data" / "datasets" / "trial.csv.gz"
VISITS = ("Week 2", "Week 4", "Week 8", "Week 12")
WEEKS = (2, 4, 8, 12)
N, SITES = 200, 12
MEAN = np.array([-2.5, -4.5, -6.5, -7.5])
EFFECT = np.array([-0.3, -0.9, -1.8, -2.4])
COVARIANCE = np.array(
    [[16.0, 11.5, 9.5, 8.0], [11.5, 24.0, 17.5, 15.0], [9.5, 17.5, 33.0, 26.0], [8.0, 15.0, 26.0, 40.0]]
)


def make() -> pd.DataFrame:
    """One row for each subject and visit; AVAL and CHG are missing where the visit was not attended."""
    rng = np.random.default_rng(20_261)
    arm = rng.permutation(np.repeat([0, 1], N // 2))
    site = rng.integers(1, SITES + 1, N)
    sex = np.where(rng.random(N) < 0.6, "F", "M")
    age = np.clip(rng.normal(44.0, 13.0, N).round(), 18, 80).astype(int)
    base = np.clip(rng.normal(24.0, 4.0, N).round(), 14, 40)
    errors = rng.normal(size=(N, 4)) @ np.linalg.cholesky(COVARIANCE).T
    change = MEAN + arm[:, None] * EFFECT - 0.25 * (base[:, None] - 24.0) + 0.8 * (sex[:, None] == "M") + errors
    value = np.clip((base[:, None] + change).round(), 0, 52)
    seen = rng.random((N, 4)) > 0.03
    last = base.copy()
    here = np.ones(N, dtype=bool)
    for v in range(4):
        here &= rng.random(N) > 1.0 / (1.0 + np.exp(4.6 - 0.1 * last))
        seen[:, v] &= here
        last = np.where(seen[:, v], value[:, v], last)
    table = pd.DataFrame(
        {
            "USUBJID": np.repeat([f"TRIAL-{s:02d}-{i + 1:03d}" for i, s in enumerate(site)], 4),
            "SITEID": np.repeat([f"{s:02d}" for s in site], 4),
            "TRT01P": np.repeat(np.where(arm == 1, "Active", "Placebo"), 4),
            "SEX": np.repeat(sex, 4),
            "AGE": np.repeat(age, 4),
            "AVISIT": np.tile(VISITS, N),
            "AVISITN": np.tile(WEEKS, N),
            "BASE": np.repeat(base.astype(int), 4),
            "AVAL": np.where(seen, value, np.nan).ravel(),
        }
    )
    return table.assign(CHG=table["AVAL"] - table["BASE"])


def main() -> None:
    """Write the file, the same bytes each time."""
    text = make().to_csv(index=False, float_format="%g", lineterminator="\n").encode()
    OUT.write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
