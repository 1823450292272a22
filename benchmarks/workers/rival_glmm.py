"""Worker that fits with the package `glmm` of PyPI (Rust)."""

from __future__ import annotations

import os
from importlib.metadata import version

import glmm
import pandas as pd
from protocol import Answer, Task, serve, timed


def data_of(task: Task) -> pd.DataFrame:
    """The data with a response of two levels as the numbers 0 and 1, the only form that glmm takes."""
    response = task.formula.split("~")[0].strip()
    if isinstance(task.data.dtypes.get(response), pd.CategoricalDtype):
        return task.data.assign(**{response: task.data[response].cat.codes.astype(float)})
    return task.data


def fit(task: Task) -> Answer:
    """Fit once, without the degrees of freedom and the refits for tests: no other program computes them in the fit."""
    if task.family == "gaussian":
        options = {"reml": task.reml, "satterthwaite": False}
    else:
        family = task.family.replace("nbinomial", "negativebinomial")
        options = {"family": family, "link": task.link, "nagq": task.nagq, "anova_test": "Wald"}
    data = data_of(task)
    seconds, result, warned = timed(lambda: glmm.fit(data, task.plain_formula, **options))
    return {
        "seconds": seconds,
        "criterion": -2.0 * float(result.loglik),
        "evaluations": int(result.n_eval),
        "converged": bool(result.converged),
        "singular": bool(result.singular),
        "warnings": warned,
    }


if __name__ == "__main__":
    serve(fit, {"versions": {"glmm": version("glmm")}, "pid": os.getpid()})
