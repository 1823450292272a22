"""From the runs to the tables: medians, ratios of pairs, differences of the criterion, targets."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from bench_models import Model

# Our criterion may be above that of a rival, or above the known minimum, by this much: the bound of the certificate
# for the first, the digits to which the known values are given for the second.
WORSE = 1e-6
REFERENCE_DIGITS = 1e-4

# What the differences in the second table are, for linear and for generalised models.
WHAT_DIFFERS = {
    False: "The criterion is the REML criterion or -2 log-likelihood; a negative difference means that ours is lower.",
    True: "Log-likelihoods have all constants; a positive difference means that ours is higher. lme4's negative "
    "binomial models are compared with our fit by the expected information, which is lme4's definition of the Laplace "
    "approximation; its gamma log-likelihood has a definition of its own and is not compared.",
}

CSV_COLUMNS = (
    "model",
    "formula",
    "reml",
    "family",
    "link",
    "nagq",
    "rows",
    "program",
    "median_seconds",
    "runs",
    "all_seconds",
    "in_a_row_seconds",
    "ratio_to_ours",
    "criterion",
    "ours_minus_this",
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
)


@dataclass
class Runs:
    """All fits of one model by one program.

    Attributes
    ----------
    seconds : dict
        Round -> seconds: the fits of two programs in the same round are a pair.
    answer : dict
        What the worker told of the last fit.
    failure : str
        Why there are no (more) fits.
    peak : int or None
        Largest memory of the process during a fit, in bytes.
    added : int or None
        How much of it was not there before the fit.
    in_a_row : float or None
        Median seconds of fits without a pause between them.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    peak: int | None = None
    added: int | None = None
    in_a_row: float | None = None

    @property
    def time(self) -> float | None:
        """Median seconds."""
        return median(self.seconds.values()) if self.seconds else None

    @property
    def criterion(self) -> float | None:
        """The criterion reached."""
        return self.answer.get("criterion")

    def ratio_to(self, ours: Runs) -> float | None:
        """Median over the pairs of this program's time over ours."""
        pairs = [t / ours.seconds[r] for r, t in self.seconds.items() if r in ours.seconds]
        return median(pairs) if pairs else None


@dataclass
class Line:
    """One model with the runs of every program.

    Attributes
    ----------
    model : Model
    n_rows, column_bytes : int
    runs : dict
    split : dict
        Step of our fit -> seconds.
    expected : float or None
        Our criterion by the definition of lme4, where that differs.
    """

    model: Model
    n_rows: int
    column_bytes: int
    runs: dict[str, Runs]
    split: dict[str, float] = field(default_factory=dict)
    expected: float | None = None

    def difference(self, rival: str) -> float | None:
        """Our criterion minus that of a rival, both by the same definition."""
        ours, other = self.runs["lme4py"].criterion, self.runs[rival].criterion if rival in self.runs else None
        if rival == "lme4" and self.expected is not None:
            ours = self.expected
        return None if ours is None or other is None else ours - other


def verdicts(line: Line) -> list[tuple[str, bool]]:
    """What the model must meet, in words with the numbers, and whether it does."""
    model, ours = line.model, line.runs["lme4py"]
    if ours.time is None:
        memory = f", memory {megabytes(ours.peak)}" if ours.peak else ""
        return [(f"a fit (ours: {ours.failure}{memory})", False)]
    out = []
    if model.target is not None:
        out.append((f"time <= {seconds(model.target)} (is {seconds(ours.time)})", ours.time <= model.target))
    if model.engine_target is not None and line.split:
        engine = sum(line.split.values()) - line.split["formula_and_data"]
        out.append((f"engine <= {seconds(model.engine_target)} (is {seconds(engine)})", engine <= model.engine_target))
    count = ours.answer["evaluations"]
    if model.max_evaluations is not None:
        out.append((f"evaluations <= {model.max_evaluations} (are {count})", count <= model.max_evaluations))
    out.append(("certified optimum", bool(ours.answer["converged"])))
    return out + _optimum_verdicts(line) + _rival_verdicts(line) + _memory_verdicts(line)


def _optimum_verdicts(line: Line) -> list[tuple[str, bool]]:
    ours = line.runs["lme4py"].criterion
    out = []
    if line.model.reference is not None and ours is not None:
        above = ours - line.model.reference
        out.append((f"known minimum {line.model.reference} (ours {above:+.1e})", above <= REFERENCE_DIGITS))
    for name in line.runs:
        worse = line.difference(name)
        if name != "lme4py" and worse is not None:
            out.append((f"not above {name} (ours {worse:+.1e})", worse <= WORSE))
    return out


def _rival_verdicts(line: Line) -> list[tuple[str, bool]]:
    """Ahead of all; of glmm only for linear models.

    From 10,000 rows on these are to be ahead of glmm, below that behind by no more than the target. For generalised
    models the ratio to glmm is reported and not judged.
    """
    ours = line.runs["lme4py"]
    out = []
    for name, runs in line.runs.items():
        ratio = runs.ratio_to(ours)
        if name == "lme4py" or ratio is None or runs.time is None or ours.time is None:
            continue
        if name == "glmm" and line.model.is_generalised:
            continue
        if name == "glmm" and line.n_rows < 10_000:
            gap = ours.time - runs.time
            allowed = line.model.target or 0.004
            words = f"within {seconds(allowed)} of glmm (behind by {1e3 * gap:.1f} ms)"
            out.append((words, gap <= allowed))
        else:
            out.append((f"ahead of {name} (its time / ours = {ratio:.2f})", ratio >= 1.0))
    return out


def _memory_verdicts(line: Line) -> list[tuple[str, bool]]:
    ours = line.runs["lme4py"]
    factor = ours.answer.get("factor_bytes")
    if line.n_rows < 400_000 or ours.added is None or factor is None:
        return []
    allowed = 4 * line.column_bytes + factor
    return [(f"memory added <= {megabytes(allowed)} (is {megabytes(ours.added)})", ours.added <= allowed)]


def seconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return ""
    if value < 0.1:
        return f"{1e3 * value:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def megabytes(value: float | None) -> str:
    """A size for people."""
    return "" if value is None else f"{value / 1e6:,.0f} MB"


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
        row = [f"`{line.model.formula}` ({line.model.name})", f"{line.n_rows:,}", _cell(line.runs["lme4py"])]
        for rival in rivals:
            runs = line.runs.get(rival)
            ratio = runs.ratio_to(line.runs["lme4py"]) if runs else None
            row += [_cell(runs), "" if ratio is None else f"{ratio:.2f}"]
        met = all(ok for _, ok in verdicts(line))
        rows.append([*row, seconds(line.model.target), "yes" if met else "NO"])
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
    rows = [[line.model.name, *[seconds(line.runs[p].in_a_row) for p in programs if p in line.runs]] for line in small]
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


def write_csv(path: Path, lines: Sequence[Line]) -> None:
    """One row for each model and program."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for line in lines:
            for name, runs in line.runs.items():
                writer.writerow(_csv_row(line, name, runs))


def _csv_row(line: Line, name: str, runs: Runs) -> dict[str, Any]:
    ours = line.runs["lme4py"]
    row: dict[str, Any] = {
        "model": line.model.name,
        "formula": line.model.formula,
        "reml": line.model.reml,
        "family": line.model.family,
        "link": line.model.link,
        "nagq": line.model.nagq,
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
    return row | {"ours_minus_this": line.difference(name), "ratio_to_ours": runs.ratio_to(ours)}


def cpu_name() -> str:
    """Model of the processor and number of cores."""
    import os

    name = platform.processor() or platform.machine()
    try:
        for entry in Path("/proc/cpuinfo").read_text().splitlines():
            if entry.startswith("model name"):
                name = entry.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of the checkout, with a mark when files differ from it."""
    here = Path(__file__).resolve().parents[1]
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return "unknown"
    changed = ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "lme4py"]
    state = subprocess.run(changed, capture_output=True, text=True).stdout.strip()
    return done.stdout.strip() + (" with changes" if state else "")


def heading(title: str, versions: dict[str, str], threads: int, command: str) -> str:
    """Versions, processor, date and command line."""
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"# {title}, {threads} thread{'s' if threads > 1 else ''}\n\n"
        f"- {what}; lme4py commit {commit()}\n- {cpu_name()}, {platform.system()} {platform.machine()}\n"
        f"- {date.today().isoformat()}\n- `{command}`\n"
    )
