"""The programs in turn on every model of a suite."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench_extras import busy_ratio, exponent, write_growth
from bench_lines import Line, Runs, seconds
from bench_models import Model, Store, growth_model
from bench_programs import Program, Stopped, memory_of, reset_peak, thread_environment
from bench_suites import Plan, Suite

# A first fit that takes longer than this counts; a shorter one is a warm-up.
WARM_UP_BELOW = 2.0
# Data of this size come into a new process, so that its memory is that of the fit alone.
NEW_PROCESS = ("large", "crossed")


class Bench:
    """The running programs, the data and the runs so far."""

    def __init__(self, suite: Suite, plan: Plan, store: Store, programs: dict[str, Program]) -> None:
        self.suite, self.plan, self.store, self.programs = suite, plan, store, programs

    def ready(self, program: Program, model: Model) -> None:
        """Bring a worker to where the next request can be "fit"."""
        if model.size in NEW_PROCESS and program.loaded != model.name:
            program.stop()
        new = program.pid < 0
        program.start()
        if new:
            # Everything that is set up once a process: imports, byte code, the first call of each library.
            self.store.prepare(self.suite.first)
            program.ask(f"load {self.suite.first.name}", 60.0)
            program.ask(f"fit {self.suite.first.name}", 60.0)
        if program.loaded != model.name:
            self.store.prepare(model)
            program.ask(f"load {model.name}", 120.0)
            program.loaded = model.name

    def once(self, program: Program, model: Model, runs: Runs, limit: float) -> float | None:
        """One fit; None, with the reason in `runs.failure`, when there is none."""
        try:
            self.ready(program, model)
            before = memory_of(program.pid, "VmRSS")
            reset_peak(program.pid)
            answer = program.ask(f"fit {model.name}", limit)
        except Stopped as reason:
            runs.failure = str(reason)
            runs.peak = program.most or None
            return None
        if "error" in answer:
            runs.failure = answer["error"]
            return None
        runs.answer = answer
        peak = memory_of(program.pid, "VmHWM")
        if peak is not None and before is not None:
            runs.peak = max(runs.peak or 0, peak)
            # The first fit on the data counts: later ones find memory that the process kept.
            runs.added = peak - before if runs.added is None else max(runs.added, peak - before)
        return float(answer["seconds"])

    def line(self, model: Model) -> Line:
        """All fits of one model, the programs in turn."""
        ours, rivals = self.plan.repeats[model.size]
        able = [p for p in self.programs if model.rivals is None or p in model.rivals]
        wanted = {"lme4py": ours} | {p: rivals for p in able if p != "lme4py" and rivals}
        self.store.prepare(model)
        line = Line(model, self.store.n_rows(model), self.store.column_bytes(model), {p: Runs() for p in wanted})
        spent = dict.fromkeys(wanted, 0.0)
        for turn in range(max(wanted.values())):
            for name, count in wanted.items():
                runs = line.runs[name]
                if turn >= count or runs.failure or (turn and spent[name] + (runs.time or 0.0) > self.plan.cap):
                    continue
                self._take(name, model, runs, turn, spent)
        for more in (self._in_a_row, self._split, self._expected):
            with contextlib.suppress(Stopped):
                more(line)
        if model.size in NEW_PROCESS:
            for name in wanted:
                self.programs[name].stop()
        return line

    def _take(self, name: str, model: Model, runs: Runs, turn: int, spent: dict[str, float]) -> None:
        """One fit for the table, after a warm-up if it is the first and short."""
        for warm in (True, False) if turn == 0 else (False,):
            elapsed = self.once(self.programs[name], model, runs, self.plan.cap)
            if elapsed is None:
                return
            spent[name] += elapsed
            if not warm or elapsed > WARM_UP_BELOW:
                runs.seconds[turn] = elapsed
                return

    def _in_a_row(self, line: Line) -> None:
        """Small models once more, without the other programs in between."""
        for name, runs in line.runs.items():
            if line.model.size == "small" and line.model.action == "fit" and runs.seconds and not runs.failure:
                runs.in_a_row = self.programs[name].ask(f"row {line.model.name}", self.plan.cap).get("seconds")

    def _split(self, line: Line) -> None:
        """Where our time goes: medians of the four steps."""
        ours = line.runs["lme4py"]
        if line.model.action != "fit" or ours.time is None or ours.time > 5.0 or ours.failure:
            return
        program = self.programs["lme4py"]
        count = max(1, min(9, int(2.0 / ours.time)))
        answers = [program.ask(f"split {line.model.name}", self.plan.cap) for _ in range(count)]
        steps = answers[0].get("split", {})
        line.split = {step: median(a["split"][step] for a in answers) for step in steps}

    def _expected(self, line: Line) -> None:
        """Our criterion by lme4's definition, where that is another one (see `Line.difference`)."""
        runs = line.runs.get("lme4")
        if line.model.family == "nbinomial" and runs is not None and runs.criterion is not None:
            line.expected = self.programs["lme4py"].ask(f"expected {line.model.name}", self.plan.cap).get("criterion")

    def fit_alone(self, model: Model, program: Program | None = None) -> float:
        """Seconds of one of our fits outside the table."""
        runs = Runs()
        elapsed = self.once(program or self.programs["lme4py"], model, runs, self.plan.cap)
        if elapsed is None:
            raise Stopped(runs.failure)
        return elapsed

    def busy(self) -> str:
        """The first model beside two busy loops, the number of threads left to the libraries."""
        model = self.suite.first
        program = replace(self.programs["lme4py"], environment=thread_environment(None), _process=None, loaded=None)
        try:
            self.fit_alone(model, program)
            alone, beside = busy_ratio(lambda: float(program.ask(f"row {model.name}", self.plan.cap)["seconds"]), 9)
        finally:
            program.stop()
        met = "yes" if beside <= 3 * alone else "NO"
        return (
            f"{model.name}, threads not limited from outside: alone {seconds(alone)}, "
            f"beside two busy loops {seconds(beside)}: {beside / alone:.2f} times (target <= 3: {met})\n"
        )

    def growth(self, out: Path, stem: str) -> str:
        """Our time against the number of rows."""
        points = []
        for n in self.plan.growth:
            model = growth_model(n)
            self.fit_alone(model)
            times = [self.fit_alone(model) for _ in range(7 if n <= 100_000 else 3)]
            points.append((n, median(times)))
            print(f"growth {n:>9,} rows: {seconds(points[-1][1])}", flush=True)
        self.programs["lme4py"].stop()
        write_growth(out, stem, points)
        start = 100_000 if points[-1][0] > 300_000 else 0
        power = exponent(points, start)
        met = "yes" if power <= 1.1 else "NO"
        return (
            f"`y ~ x + (x | g)`, n / 10 groups: {seconds(points[0][1])} at {points[0][0]:,} rows, "
            f"{seconds(points[-1][1])} at {points[-1][0]:,}; from {max(start, points[0][0]):,} rows on time "
            f"grows as n^{power:.2f} (linear, that is, power <= 1.1: {met})\n\n![growth]({stem}.png)\n"
        )
