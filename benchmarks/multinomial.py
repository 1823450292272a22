"""CPU time of a multinomial logit with correlated random effects: 5,000 rows, 4 categories, 300 groups.

    OMP_NUM_THREADS=1 python benchmarks/multinomial.py

Nothing that fits this model by maximum likelihood runs beside it here.

"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

import lme4py

ROWS, GROUPS, TIMES = 5000, 300, 5


def choices(seed: int = 1) -> pd.DataFrame:
    """Choices among four alternatives, persons with tastes of their own."""
    rng = np.random.default_rng(seed)
    person, x = rng.integers(0, GROUPS, ROWS), rng.standard_normal(ROWS)
    taste = rng.multivariate_normal(np.zeros(3), 0.5 * np.eye(3) + 0.3, GROUPS)[person]
    utility = np.column_stack([np.zeros(ROWS), taste + np.array([0.2, -0.3, 0.0]) + np.outer(x, [0.5, -0.5, 1.0])])
    choice = (utility + rng.gumbel(size=utility.shape)).argmax(axis=1)
    return pd.DataFrame({"y": np.array(list("ABCD"))[choice], "x": x, "person": person})


def main() -> None:
    """Print the CPU seconds of each of several fits; the first one imports what it needs."""
    data = choices()
    for _ in range(TIMES):
        start = time.process_time()
        fit = lme4py.glmer("y ~ x + (1 | person)", data, family="multinomial")
        print(f"{time.process_time() - start:.3f} s CPU, log-likelihood {fit.log_likelihood:.4f}, {fit.converged}")


if __name__ == "__main__":
    main()
