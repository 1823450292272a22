"""Worker that fits with the package `glmm` of PyPI (Rust)."""

from __future__ import annotations

import os
from importlib.metadata import version

import glmm
from protocol import Answer, Task, serve, timed


def fit(task: Task) -> Answer:
    """Fit once. Degrees of freedom of tests are switched off: none of the other programs computes them in the fit."""
    seconds, result, warned = timed(lambda: glmm.fit(task.data, task.formula, reml=task.reml, satterthwaite=False))
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
