"""The runs of one model by every program: medians, ratios of pairs, differences, and what must be met."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench_models import Model

# Our criterion may be above that of a rival, or above the known minimum, by this much: the bound of the certificate
# for the first, the digits to which the known values are given for the second.
WORSE = 1e-6
# The log-likelihood that clmm tells is off in the sixth digit after the point: its inner iterations stop early.
WORSE_ORDINAL = 1e-4
REFERENCE_DIGITS = 1e-4


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

    def disagreement(self, rival: str) -> float | None:
        """How far the numbers of an action are from a rival's: the most of any block, relative to its largest."""
        ours, other = self.runs["lme4py"].answer.get("values"), self.runs[rival].answer.get("values")
        if ours is None or other is None:
            return None
        return max((_relative(a, b) for a, b in zip(ours, other, strict=True)), default=0.0)


def _relative(ours: list[float], other: list[float]) -> float:
    """Largest difference of two blocks of numbers over the largest number; infinite where one is not a number."""
    gaps = [abs(a - b) for a, b in zip(ours, other, strict=True)]
    if not all(map(math.isfinite, gaps)):
        return math.inf
    return max(gaps) / max(map(abs, other))


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
    count = ours.answer.get("evaluations")
    if model.max_evaluations is not None and count is not None:
        out.append((f"evaluations <= {model.max_evaluations} (are {count})", count <= model.max_evaluations))
    if model.action == "fit":
        out.append(("certified optimum", bool(ours.answer["converged"])))
    return out + _optimum_verdicts(line) + _rival_verdicts(line) + _memory_verdicts(line)


def _optimum_verdicts(line: Line) -> list[tuple[str, bool]]:
    ours = line.runs["lme4py"].criterion
    tolerance = WORSE_ORDINAL if line.model.family == "ordinal" else WORSE
    out = []
    if line.model.reference is not None and ours is not None:
        above = ours - line.model.reference
        out.append((f"known minimum {line.model.reference} (ours {above:+.1e})", above <= REFERENCE_DIGITS))
    for name in line.runs:
        if name == "lme4py":
            continue
        if (worse := line.difference(name)) is not None:
            out.append((f"not above {name} (ours {worse:+.1e})", worse <= tolerance))
        gap, allowed = line.disagreement(name), line.model.agreement
        if gap is not None and allowed is not None:
            out.append((f"numbers of {name} to {allowed:.0e} (differ by {gap:.1e})", gap <= allowed))
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
