"""From the runs to the tables and to CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench_lines import Line, Runs, megabytes, seconds, verdicts
from bench_machine import Machine
from bench_models import Model

# What the differences in the second table are.
WHAT_DIFFERS = {
    "linear": "The criterion is the REML criterion or -2 log-likelihood; a negative difference means that ours is "
    "lower.",
    "ordinal": "A positive difference means that our log-likelihood is higher. clmm's is off in the sixth digit after "
    "the point, because its inner iterations stop early: differences up to 1e-4 are not judged.",
    "generalised": "Log-likelihoods have all constants; a positive difference means that ours is higher. lme4's "
    "negative binomial models are compared with our fit by the expected information, which is lme4's definition of the "
    "Laplace approximation; its gamma log-likelihood has a definition of its own and is not compared.",
}

CSV_COLUMNS = (
    "model",
    "formula",
    "reml",
    "family",
    "link",
    "nagq",
    "action",
    "rows",
    "program",
    "median_seconds",
    "runs",
    "all_seconds",
    "in_a_row_seconds",
    "ratio_to_ours",
    "criterion",
    "ours_minus_this",
    "largest_difference",
    "evaluations",
    "converged",
    "singular",
    "peak_bytes",
    "added_bytes",
    "column_bytes",
    "factor_bytes",
    "target_seconds",
    "targets_met",
    "failure",
    "warnings",
    "version",
    "machine",
    "date",
)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def time_table(lines: Sequence[Line], programs: Sequence[str]) -> str:
    """Median times, ratios of pairs, target and whether everything is met."""
    rivals = [p for p in programs if p != "lme4py"]
    header = ["model", "rows", "ours", *[h for r in rivals for h in (r, f"{r} / ours")], "target", "all met"]
    rows = []
    for line in lines:
        row = [label(line.model), f"{line.n_rows:,}", _cell(line.runs["lme4py"])]
        for rival in rivals:
            runs = line.runs.get(rival)
            ratio = runs.ratio_to(line.runs["lme4py"]) if runs else None
            row += [_cell(runs), "" if ratio is None else f"{ratio:.2f}"]
        met = all(ok for _, ok in verdicts(line))
        rows.append([*row, seconds(line.model.target), "yes" if met else "NO"])
    return _markdown(header, rows)


def label(model: Model) -> str:
    """A model, and what is asked of it, in words."""
    counts = model.detail.split(",")
    words = {
        "fit": "",
        "profile": "profile limits of all parameters, ",
        "bootstrap": f"{counts[0]} parametric bootstrap replicates (others: {counts[-1]}, scaled up), ",
        "kenward_roger": "Kenward-Roger F test, ",
        "grid": f"predictions at {model.detail.replace(';', ', ')}, ",
        "influence": "every row left out and refitted, ",
    }
    return f"{words[model.action]}`{model.formula}` ({model.name})"


def what_differs(model: Model) -> str:
    """What the differences in the second table are."""
    if model.family == "ordinal":
        return WHAT_DIFFERS["ordinal"]
    return WHAT_DIFFERS["generalised" if model.is_generalised else "linear"]


def action_table(lines: Sequence[Line], programs: Sequence[str]) -> str:
    """Times beside the one program that does each thing, and how far its numbers are from ours."""
    header = ["what", "rows", "ours", "beside", "its time", "ratio", "largest difference", "target", "all met"]
    rows = []
    for line in lines:
        ours = line.runs["lme4py"]
        met = "yes" if all(ok for _, ok in verdicts(line)) else "NO"
        for name in [p for p in programs if p in line.runs and p != "lme4py"] or [""]:
            runs = line.runs.get(name)
            ratio, gap = (runs.ratio_to(ours), line.disagreement(name)) if runs else (None, None)
            numbers = ["" if ratio is None else f"{ratio:.2f}", "" if gap is None else f"{gap:.0e}"]
            beside = [name, "" if runs is None else _cell(runs)]
            row = [label(line.model), f"{line.n_rows:,}", _cell(ours), *beside, *numbers]
            rows.append([*row, seconds(line.model.target), met])
    return _markdown(header, rows)


def _cell(runs: Runs | None) -> str:
    if runs is None:
        return "not run"
    if runs.time is None:
        return runs.failure
    return seconds(runs.time) + (f" (then {runs.failure})" if runs.failure else "")


def detail_table(lines: Sequence[Line], programs: Sequence[str]) -> str:
    """Our criterion minus the others', evaluations and memory."""
    rivals = [p for p in programs if p != "lme4py"]
    generalised = lines[0].model.is_generalised
    header = [
        "model",
        "log-likelihood" if generalised else "criterion",
        *[f"ours - {r}" for r in rivals],
        *[f"evaluations {p}" for p in programs],
    ]
    header += [f"memory added {p}" for p in programs] + ["columns", "our factor"]
    scale = -0.5 if generalised else 1.0
    rows = []
    for line in lines:
        ours = line.runs["lme4py"]
        row = [line.model.name, "" if ours.criterion is None else f"{scale * ours.criterion:.6f}"]
        for rival in rivals:
            difference = line.difference(rival)
            row.append("" if difference is None else f"{scale * difference:+.1e}")
        row += [str(line.runs[p].answer.get("evaluations", "")) if p in line.runs else "" for p in programs]
        row += [megabytes(line.runs[p].added) if p in line.runs else "" for p in programs]
        factor = ours.answer.get("factor_bytes")
        rows.append([*row, f"{line.column_bytes / 1e6:.2f} MB", "" if factor is None else f"{factor / 1e6:.2f} MB"])
    return _markdown(header, rows)


def row_table(lines: Sequence[Line], programs: Sequence[str]) -> str:
    """Times of fits in a row."""
    small = [line for line in lines if line.model.size == "small"]
    rows = [
        [line.model.name, *[seconds(line.runs[p].in_a_row) if p in line.runs else "" for p in programs]]
        for line in small
    ]
    return _markdown(["model", *programs], rows)


def split_table(lines: Sequence[Line]) -> str:
    """Where our time goes."""
    steps = ("formula_and_data", "problem", "optimise", "result")
    header = ["model", "formula and data", "problem", "optimise", "result", "engine (last three)"]
    rows = []
    for line in lines:
        if line.split:
            parts = [line.split.get(step) for step in steps]
            engine = sum(line.split.values()) - line.split["formula_and_data"]
            rows.append([line.model.name, *map(seconds, parts), seconds(engine)])
    return _markdown(header, rows)


def missed(lines: Sequence[Line]) -> str:
    """Everything that is not met, one line each."""
    out = [f"- {line.model.name}: {text}" for line in lines for text, ok in verdicts(line) if not ok]
    out += [
        f"- {line.model.name}: {name}: {runs.failure}"
        for line in lines
        for name, runs in line.runs.items()
        if runs.failure and name != "lme4py"
    ]
    return "\n".join(out) + "\n" if out else "Everything is met.\n"


def write_csv(path: Path, lines: Sequence[Line], machine: Machine) -> None:
    """One row for each model and program."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for line in lines:
            for name, runs in line.runs.items():
                where = {"version": machine.versions.get(name, ""), "machine": machine.processor, "date": machine.day}
                writer.writerow(_csv_row(line, name, runs) | where)


def _csv_row(line: Line, name: str, runs: Runs) -> dict[str, Any]:
    ours = line.runs["lme4py"]
    row: dict[str, Any] = {
        "model": line.model.name,
        "formula": line.model.formula,
        "reml": line.model.reml,
        "family": line.model.family,
        "link": line.model.link,
        "nagq": line.model.nagq,
        "action": line.model.action,
        "rows": line.n_rows,
        "program": name,
        "median_seconds": runs.time,
        "runs": len(runs.seconds),
        "all_seconds": " ".join(f"{t:.6f}" for t in runs.seconds.values()),
        "in_a_row_seconds": runs.in_a_row,
        "criterion": runs.criterion,
        "peak_bytes": runs.peak,
        "added_bytes": runs.added,
        "column_bytes": line.column_bytes,
        "failure": runs.failure,
        "warnings": "; ".join(runs.answer.get("warnings", [])),
    }
    row |= {k: runs.answer.get(k) for k in ("evaluations", "converged", "singular", "factor_bytes")}
    if name == "lme4py":
        return row | {"target_seconds": line.model.target, "targets_met": all(ok for _, ok in verdicts(line))}
    row |= {"ours_minus_this": line.difference(name), "ratio_to_ours": runs.ratio_to(ours)}
    return row | {"largest_difference": line.disagreement(name)}
