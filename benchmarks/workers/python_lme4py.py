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
from python_actions import ACTIONS

import lme4py
from lme4py import MixedResult, clmm, glmer, glmer_nb, lformula, lmer, lmm_criterion, make_fit, optimize_criterion
from lme4py.families.registry import make_family
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.results import MEGLMResult


def factor_bytes(fit: Any) -> int | None:
    """Bytes of the factor: own blocks of each grouping factor, couplings, and the dense block."""
    problem = fit.problem
    structure = getattr(problem, "structure", None)
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


def call(task: Task, **options: Any) -> Any:
    """The public function that fits the model."""
    if task.family == "gaussian":
        return lmer(task.formula, task.data, reml=task.reml)
    options |= {"link": task.link, "nAGQ": task.nagq}
    if task.family == "ordinal":
        return clmm(task.formula, task.data, **options)
    if task.family == "nbinomial":
        return glmer_nb(task.formula, task.data, **options)
    return glmer(task.formula, task.data, task.family, **options)


def expected(task: Task) -> Answer:
    """The criterion with expected information in the Laplace approximation, which is lme4's definition."""
    return {"criterion": call(task, hessian="expected").fit.criterion}


def act(task: Task) -> Answer:
    """Do once what is asked of a model that is fitted afresh, so that nothing of an earlier time is kept in it."""
    result = call(task)
    seconds, values, warned = timed(lambda: ACTIONS[task.action](result, task.detail))
    return {"seconds": seconds, "values": values, "warnings": warned}


def fit(task: Task) -> Answer:
    """Fit once: formula text and data frame in memory to the result."""
    if task.action != "fit":
        return act(task)
    forget()
    seconds, result, warned = timed(lambda: call(task))
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


def split_generalised(task: Task) -> Answer:
    """Fit a generalised model once by its three steps and time each."""
    family = make_family(task.family, task.link)
    times = [perf_counter()]
    design = lformula(task.formula, task.data, family=family.name)
    times.append(perf_counter())
    frozen = glmm_fit(design, family, nAGQ=task.nagq)
    times.append(perf_counter())
    MEGLMResult(frozen)
    times.append(perf_counter())
    steps = ("formula_and_data", "optimise", "result")
    return {"split": dict(zip(steps, np.diff(times).tolist(), strict=True)), "evaluations": len(frozen.opt_log)}


def split(task: Task) -> Answer:
    """Fit once by the public steps and time each."""
    forget()
    if task.family != "gaussian":
        return split_generalised(task)
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
    serve(fit, {"versions": versions, "pid": os.getpid()}, split=split, expected=expected)
