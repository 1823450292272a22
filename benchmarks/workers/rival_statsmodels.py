"""Worker that fits with statsmodels' MixedLM."""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from typing import Any

import numpy as np
import statsmodels.formula.api as smf
from protocol import Answer, Task, serve, timed

# How statsmodels' documentation writes crossed and nested factors: components of variance within one group.
COMPONENTS = {
    "(1 | plate) + (1 | sample)": (None, {"plate": "0 + C(plate)", "sample": "0 + C(sample)"}),
    "(1 | batch/cask)": ("batch", {"cask": "0 + C(cask)"}),
}


def arguments(task: Task) -> dict[str, Any]:
    """The formula in statsmodels' language.

    Raises
    ------
    NotImplementedError
        For crossed factors of many levels, which it would hold as one dense matrix of all rows.
    """
    fixed, random = task.formula.split(" + (", 1)
    random = f"({random}"
    if random in COMPONENTS:
        group, components = COMPONENTS[random]
        whole = {"groups": np.zeros(len(task.data))} if group is None else {"groups": group, "re_formula": "1"}
        return {"formula": fixed, "vc_formula": components, **whole}
    single = re.fullmatch(r"\(([^|]+) \| (\w+)\)", random)
    if single is None:
        raise NotImplementedError("no crossed factors of this size")
    slopes = "" if single[1] == "1" else f" + {single[1]}"
    return {"formula": fixed, "groups": single[2], "re_formula": f"1{slopes}"}


def fit(task: Task) -> Answer:
    """Fit once with the default optimisers."""
    options = arguments(task)
    seconds, result, warned = timed(lambda: smf.mixedlm(data=task.data, **options).fit(reml=task.reml))
    return {
        "seconds": seconds,
        "criterion": -2.0 * float(result.llf),
        "converged": bool(result.converged),
        "warnings": warned,
    }


if __name__ == "__main__":
    serve(fit, {"versions": {"statsmodels": version("statsmodels")}, "pid": os.getpid()})
