"""Numerical torture: some hundred hard designs; each ends certified, flagged singular, or with a clear message.

    python benchmarks/torture.py [--out benchmarks/results/torture.md] [--only WORD] [--seed N] [--verbose]

A design fails when its fit ends in an error that is not the package's own, shows NaN anywhere, gives any warning
other than the package's own (all others are errors here), or says that it did not converge where searches from other
starting points find nothing lower.
"""

from __future__ import annotations

import argparse
import os
import re
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from torture_designs import Case, cases

import lme4py

OUTCOMES = ("certified", "singular", "error", "warning", "FAILED")
NOT_A_NUMBER = re.compile(r"\bnan\b", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    kind: str
    text: str
    seconds: float


def fit(case: Case, **more: Any) -> Any:
    """The result of a case."""
    if case.model == "lmer":
        return lme4py.lmer(case.formula, case.data, **case.options, **more)
    if case.model == "clmm":
        return lme4py.clmm(case.formula, case.data, **case.options, **more)
    return lme4py.glmer(case.formula, case.data, case.model, **case.options, **more)


def numbers(result: Any, data: pd.DataFrame) -> dict[str, Any]:
    """Everything that users read off a result first."""
    out = {
        "params": result.params,
        "bse": result.bse,
        "vcov": result.cov_params(),
        "sigma": result.sigma,
        "theta": result.theta,
        "log-likelihood": result.log_likelihood,
        "covariances": np.concatenate([c.ravel() for c in result.fit.covariances]),
        "modes": np.concatenate([b.ravel() for b in result.fit.modes]),
        "predictions": result.predict(),
        "predictions for the data": result.predict(data),
        "predictions without groups": result.predict(data, include_random=False),
    }
    if result.family == "ordinal":
        out["thresholds"] = result.thresholds
    return out


def faults(result: Any, data: pd.DataFrame) -> list[str]:
    """Names of the parts that hold NaN, or infinite values in a fit that is called converged."""
    out = []
    for name, value in numbers(result, data).items():
        array = np.asarray(value, dtype=np.float64)
        if np.isnan(array).any():
            out.append(f"NaN in {name}")
        elif result.converged and not np.isfinite(array).all():
            out.append(f"infinite values in {name}")
    if NOT_A_NUMBER.search(result.summary()):
        out.append("nan in the summary")
    return out


def lower_elsewhere(case: Case, result: Any) -> bool:
    """True when a search from another start ends lower, so that the warning of the first is true."""
    m = len(result.theta)
    for start in (np.full(m, 0.1), np.asarray(result.theta) * 1.2 + 0.05, np.full(m, 0.7)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                other = fit(case, start=start, control={"max_evaluations": 2000})
            except lme4py.Lme4Error:
                continue
        if other.log_likelihood > result.log_likelihood + 1e-6:
            return True
    return False


def judge(case: Case, result: Any, caught: list[str]) -> tuple[str, str]:
    """Kind and text of a fit that gave a result."""
    wrong = faults(result, case.data)
    if wrong:
        return "FAILED", "; ".join(wrong)
    if not result.converged:
        verdict = result.certificate.verdict
        # The reasons that the package names are checked when they are found: by linear programming.
        if "separate" in verdict or lower_elsewhere(case, result):
            return "warning", verdict
        return "FAILED", f"a false warning? {verdict}"
    if any("converge" in text for text in caught):
        return "FAILED", f"converged, but warned: {caught[0]}"
    return ("singular" if result.is_singular else "certified"), "; ".join(caught)


def run(case: Case) -> Outcome:
    """Fit a case and look at everything it gives."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.filterwarnings("always", category=lme4py.errors.Lme4Warning)
        result = None
        try:
            result = fit(case)
            kind, text = judge(case, result, [str(w.message) for w in caught])
        except Exception as error:
            refused = isinstance(error, lme4py.Lme4Error) and result is None
            kind, text = ("error", str(error)) if refused else ("FAILED", f"{type(error).__name__}: {error}")
    return Outcome(kind, text, time.perf_counter() - started)


def table(rows: pd.DataFrame, by: str) -> list[str]:
    """Counts of outcomes as Markdown."""
    lines = [f"| {by} | designs | {' | '.join(OUTCOMES).lower()} | slowest, s |", "| --- |" + " --- |" * 7]
    for name, part in [*rows.groupby(by, sort=False), ("all", rows)]:
        counts = Counter(part["kind"])
        cells = [str(counts[kind]) for kind in OUTCOMES]
        lines.append(f"| {name} | {len(part)} | {' | '.join(cells)} | {part['seconds'].max():.1f} |")
    return lines


def report(rows: pd.DataFrame) -> str:
    """The Markdown page."""
    lines = ["# Numerical torture", "", __doc__.strip().split("\n\n")[-1].replace("\n", " "), ""]
    lines += [
        "'certified': first- and second-order conditions hold; 'singular': the same, on the boundary, and the summary "
        "says which variance is zero; 'error': refused with a message that names the cause; 'warning': the fit says "
        "truly that there is no optimum. Made by `benchmarks/torture.py`.",
        "",
    ]
    lines += [*table(rows, "theme"), "", *table(rows, "model"), "", "## Errors and warnings", ""]
    for row in rows[rows["kind"].isin(["error", "warning", "FAILED"])].itertuples():
        lines.append(f"- {row.theme}, {row.name}, {row.model}: {row.kind}: {' '.join(str(row.text).split())}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0, help="other random numbers for all designs")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    chosen = [case for case in cases(arguments.seed) if arguments.only in f"{case.theme} {case.name} {case.model}"]
    found = []
    for case in chosen:
        outcome = run(case)
        found.append({"theme": case.theme, "name": case.name, "model": case.model, **vars(outcome)})
        if arguments.verbose or outcome.kind == "FAILED":
            print(
                f"{case.theme} | {case.name} | {case.model} | {case.options.get('link', '')} | {outcome.kind} | "
                f"{outcome.seconds:.2f} s | {outcome.text}",
                flush=True,
            )
    rows = pd.DataFrame(found)
    text = report(rows)
    print("\n".join(table(rows, "theme")), f"\n{rows['seconds'].sum():.0f} s in all")
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
