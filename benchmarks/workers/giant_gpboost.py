"""One crossed linear mixed model with GPBoost, by its own iterative methods; it has no REML, so this is ML.

    PYTHON giant_gpboost.py data.npz

with the columns y, x, a and b, and an interpreter that has `gpboost` (PyPI).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.metadata import version

import gpboost
import numpy as np


def main(path: str) -> None:
    data = np.load(path)
    y, groups = data["y"], np.column_stack([data["a"], data["b"]])
    X = np.column_stack([np.ones(y.size), data["x"]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    model = gpboost.GPModel(group_data=groups, likelihood="gaussian", matrix_inversion_method="iterative")
    model.fit(y=y, X=X)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    variances = model.get_cov_pars().to_numpy().ravel()
    row = {
        "program": f"gpboost {version('gpboost')}",
        "rows": int(y.size),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "criterion": 2.0 * float(model.get_current_neg_log_likelihood()),
        "sd": np.sqrt(variances[1:]).tolist(),
        "data_gib": round(before / 2**20, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1])
