"""Worker that fits with the package `mixedlm` of PyPI (Rust)."""

from __future__ import annotations

import os
from importlib.metadata import version

import mixedlm
from protocol import Answer, Task, serve, timed


def fit(task: Task) -> Answer:
    """Fit once with the default control."""
    seconds, result, warned = timed(lambda: mixedlm.lmer(task.formula, task.data, REML=task.reml))
    evaluations = getattr(result, "function_evals", None) or result.n_iter
    return {
        "seconds": seconds,
        "criterion": float(result.deviance),
        "evaluations": int(evaluations),
        "converged": bool(result.converged),
        "warnings": warned,
    }


if __name__ == "__main__":
    serve(fit, {"versions": {"mixedlm": version("mixedlm")}, "pid": os.getpid()})
