"""CPU time of the small and the tall models, beside what they are to take.

    python benchmarks/milliseconds.py                      # all of it: two minutes
    python benchmarks/milliseconds.py --models sleepstudy cbpp
    python benchmarks/milliseconds.py --save before.json   # and later --against before.json
    python benchmarks/milliseconds.py --compiled 1         # with numba for all sizes; 0 without; auto as users have it

Every number is the least of many, in CPU time of one thread (small fits hold the linear algebra to one; set
OPENBLAS_NUM_THREADS=1 for the rest), so that other work on the machine changes it little. Fits go through `lmer()` and
`glmer()` on a pandas data frame; the first one is a warm-up. A formula that was fitted before is parsed already;
`--forget` empties the caches before every fit, outside the time. `--against` also compares the criterion, coefficients
and standard errors of every fit with those of the saved run, relative to their size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE / "workers")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from bench_data import Factor, columns_of  # noqa: E402
from python_lme4py import forget  # noqa: E402

import lme4py  # noqa: E402
from lme4py.compiled.twins import choice  # noqa: E402

SLEEP = "Reaction ~ Days + (Days | Subject)"
CONTRACEPTION = "use ~ age + I(age^2) + urban + livch + (urban | district)"
VERBAGG = "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)"


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    name, data, formula : str
    family : str
        Empty for a linear mixed model.
    goal : float
        CPU milliseconds.
    count : int
        How often it is timed.
    """

    name: str
    data: str
    formula: str
    family: str
    goal: float
    count: int

    def fit(self, frame: pd.DataFrame) -> Any:
        """The result, through the front door."""
        if self.family:
            return lme4py.glmer(self.formula, frame, family=self.family)
        return lme4py.lmer(self.formula, frame)


LINES = (
    Line("sleepstudy", "sleepstudy", SLEEP, "", 0.9, 300),
    Line("penicillin", "Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", "", 1.1, 300),
    Line("cbpp", "cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial", 2.2, 100),
    Line("contraception_slope", "Contraception", CONTRACEPTION, "binomial", 7.0, 40),
    Line("salamanders_nb", "Salamanders", "count ~ spp * mined + (1 | site)", "nbinomial", 7.5, 40),
    Line("verbagg", "VerbAgg", VERBAGG, "binomial", 30.0, 20),
    Line("logit_200k", "logit_200k", "y ~ x + (1 | g)", "binomial", 230.0, 9),
    Line("poisson_1m", "poisson_1m", "y ~ x + (1 | g)", "poisson", 800.0, 5),
    Line("slope_1m", "one_factor_1m", "y ~ x + (x | g)", "", 105.0, 9),
    Line("slope_5m", "one_factor:5000000:500000", "y ~ x + (x | g)", "", 900.0, 4),
)


def frame_of(data: str) -> pd.DataFrame:
    """The data as a pandas data frame, factors as categoricals."""
    columns = columns_of(data)
    out = {}
    for name, values in columns.items():
        if isinstance(values, Factor):
            levels = values.levels or tuple(map(str, range(1, values.n_levels + 1)))
            out[name] = pd.Categorical.from_codes(values.codes, list(levels), ordered=values.ordered)
        else:
            out[name] = values
    return pd.DataFrame(out)


def least(call: Callable[[], Any], count: int, before: Callable[[], None] | None = None) -> float:
    """Least CPU milliseconds of some calls after one that does not count."""
    call()
    times = []
    for _ in range(count):
        if before is not None:
            before()
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def numbers(result: Any) -> list[float]:
    """Criterion, coefficients, their standard errors and the covariance parameters."""
    fit = result.fit
    parts = [[fit.criterion], fit.beta, np.sqrt(np.diag(fit.vcov)), fit.theta]
    return [float(value) for part in parts for value in np.ravel(part)]


def summary_ms(count: int = 100) -> float:
    """`str()` of the result for sleepstudy; every text is of a fit of its own, made outside the time."""
    frame, times = frame_of("sleepstudy"), []
    for _ in range(count):
        result = lme4py.lmer(SLEEP, frame)
        start = time.process_time()
        str(result)
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def command_ms(count: int = 7) -> float:
    """Milliseconds on the clock of the README's first command, in a process of its own."""
    times = []
    # As it is where the package was installed: with compiled modules.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    words = [sys.executable, "-m", "lme4py", "fit", SLEEP, "sleepstudy"]
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=_HERE.parent, env=environment)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def largest_change(new: list[float], old: list[float]) -> float:
    """The largest relative difference; infinite where there are not as many numbers."""
    if len(new) != len(old):
        return float("inf")
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(new, old, strict=True))


def main() -> None:
    """Time, print, save."""
    parser = argparse.ArgumentParser(description="CPU time of small and tall models beside their goals.")
    others = ("summary", "command")
    parser.add_argument("--models", nargs="+", choices=[line.name for line in LINES] + list(others))
    parser.add_argument("--forget", action="store_true", help="parse the formula in every fit")
    parser.add_argument("--save", type=Path, help="JSON file for times and numbers")
    parser.add_argument("--against", type=Path, help="compare with such a file")
    parser.add_argument("--compiled", choices=("auto", "0", "1"), default="auto", help="loops that numba compiles")
    options = parser.parse_args()
    with choice(options.compiled):
        run(options)


def run(options: argparse.Namespace) -> None:
    """What the command line asks for."""
    others = ("summary", "command")
    wanted = options.models or [line.name for line in LINES] + list(others)
    before = json.loads(options.against.read_text()) if options.against else {}
    found: dict[str, dict[str, Any]] = {}
    print(f"{'':22}{'ms':>9}{'goal':>9}{'before':>9}{'change of numbers':>20}")
    for line in LINES:
        if line.name in wanted:
            frame = frame_of(line.data)
            ms = least(lambda line=line, frame=frame: line.fit(frame), line.count, forget if options.forget else None)
            found[line.name] = {"ms": ms, "numbers": numbers(line.fit(frame))}
            show(line.name, line.goal, found[line.name], before)
    for name, goal, measure in (("summary", 0.7, summary_ms), ("command", 450.0, command_ms)):
        if name in wanted:
            found[name] = {"ms": measure()}
            show(name, goal, found[name], before)
    if options.save:
        options.save.write_text(json.dumps(found))


def show(name: str, goal: float, found: dict[str, Any], before: dict[str, dict[str, Any]]) -> None:
    """Print one line."""
    old = before.get(name)
    text = f"{name:22}{found['ms']:9.2f}{goal:9.1f}"
    if old is not None:
        text += f"{old['ms']:9.2f}"
        if "numbers" in found:
            text += f"{largest_change(found['numbers'], old['numbers']):20.1e}"
    print(text, flush=True)


if __name__ == "__main__":
    main()
