"""Worker that fits with lme4py."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

# The checkout goes first, so that the benchmark measures the code beside it and not an older installed copy.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import numpy as np
import scipy
from protocol import Answer, Task, serve, timed

import lme4py
from lme4py import MixedResult, lformula, lmer, lmm_criterion, make_fit, optimize_criterion


def factor_bytes(fit: Any) -> int | None:
    """Bytes of the factor: own blocks of each grouping factor, couplings, and the dense block."""
    problem = fit.problem
    structure = problem.structure
    n_values, dense = getattr(structure, "n_values", None), getattr(structure, "dense_size", None)
    if n_values is None or dense is None:
        return None
    own = sum(f.n_levels * f.n_columns**2 for f in problem.factors)
    return 8 * int(own + n_values + dense**2)


def forget() -> None:
    """Empty the caches that are keyed by arguments, such as that of parsed formulas.

    A benchmark fits the same formula again and again; what is measured is a formula that was not seen before. What
    is set up once a process, such as the list of BLAS libraries, stays.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "lme4py":
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear") and inspect.signature(value).parameters:
                    value.cache_clear()


def fit(task: Task) -> Answer:
    """Fit once: formula text and data frame in memory to the result."""
    forget()
    seconds, result, warned = timed(lambda: lmer(task.formula, task.data, reml=task.reml))
    frozen = result.fit
    return {
        "seconds": seconds,
        "criterion": frozen.criterion,
        "evaluations": len(frozen.opt_log),
        "converged": frozen.certificate.converged,
        "singular": frozen.certificate.is_singular,
        "factor_bytes": factor_bytes(frozen),
        "warnings": warned,
    }


def split(task: Task) -> Answer:
    """Fit once by the four public steps and time each."""
    forget()
    times = [perf_counter()]
    design = lformula(task.formula, task.data)
    times.append(perf_counter())
    criterion = lmm_criterion(design, reml=task.reml)
    times.append(perf_counter())
    optimum = optimize_criterion(criterion)
    times.append(perf_counter())
    MixedResult(make_fit(design, criterion, optimum))
    times.append(perf_counter())
    steps = ("formula_and_data", "problem", "optimise", "result")
    return {
        "split": dict(zip(steps, np.diff(times).tolist(), strict=True)),
        "evaluations": len(optimum.log),
    }


if __name__ == "__main__":
    versions = {
        "lme4py": lme4py.__version__,
        "Python": sys.version.split()[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    serve(fit, {"versions": versions, "pid": os.getpid()}, split=split)
