"""Time the mixed models of lme4py beside other programs.

    python benchmarks/lmm.py --quick
    python benchmarks/lmm.py --suite glmm --preset lead

See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import bench_report as report
from bench_extras import busy_ratio, exponent, write_growth
from bench_models import Model, Store, growth_model
from bench_programs import Program, Stopped, command_of, memory_of, reset_peak, thread_environment, total_memory
from bench_suites import SUITES, Plan, Suite

# A first fit that takes longer than this counts; a shorter one is a warm-up.
WARM_UP_BELOW = 2.0
# Data of this size come into a new process, so that its memory is that of the fit alone.
NEW_PROCESS = ("large", "crossed")


class Bench:
    """The running programs, the data and the runs so far."""

    def __init__(self, suite: Suite, plan: Plan, store: Store, programs: dict[str, Program]) -> None:
        self.suite, self.plan, self.store, self.programs = suite, plan, store, programs

    @property
    def first(self) -> Model:
        """The small model with which a new process is set up."""
        return self.suite.models[0]

    def ready(self, program: Program, model: Model) -> None:
        """Bring a worker to where the next request can be "fit"."""
        if model.size in NEW_PROCESS and program.loaded != model.name:
            program.stop()
        new = program.pid < 0
        program.start()
        if new:
            # Everything that is set up once a process: imports, byte code, the first call of each library.
            self.store.prepare(self.first)
            program.ask(f"load {self.first.name}", 60.0)
            program.ask(f"fit {self.first.name}", 60.0)
        if program.loaded != model.name:
            self.store.prepare(model)
            program.ask(f"load {model.name}", 120.0)
            program.loaded = model.name

    def once(self, program: Program, model: Model, runs: report.Runs, limit: float) -> float | None:
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

    def line(self, model: Model) -> report.Line:
        """All fits of one model, the programs in turn."""
        ours, rivals = self.plan.repeats[model.size]
        wanted = {p: ours if p == "lme4py" else rivals for p in self.programs if p == "lme4py" or rivals}
        self.store.prepare(model)
        line = report.Line(
            model, self.store.n_rows(model), self.store.column_bytes(model), {p: report.Runs() for p in wanted}
        )
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

    def _take(self, name: str, model: Model, runs: report.Runs, turn: int, spent: dict[str, float]) -> None:
        """One fit for the table, after a warm-up if it is the first and short."""
        for warm in (True, False) if turn == 0 else (False,):
            elapsed = self.once(self.programs[name], model, runs, self.plan.cap)
            if elapsed is None:
                return
            spent[name] += elapsed
            if not warm or elapsed > WARM_UP_BELOW:
                runs.seconds[turn] = elapsed
                return

    def _in_a_row(self, line: report.Line) -> None:
        """Small models once more, without the other programs in between."""
        for name, runs in line.runs.items():
            if line.model.size == "small" and runs.seconds and not runs.failure:
                runs.in_a_row = self.programs[name].ask(f"row {line.model.name}", self.plan.cap).get("seconds")

    def _split(self, line: report.Line) -> None:
        """Where our time goes: medians of the four steps."""
        ours = line.runs["lme4py"]
        if ours.time is None or ours.time > 5.0 or ours.failure:
            return
        program = self.programs["lme4py"]
        count = max(1, min(9, int(2.0 / ours.time)))
        answers = [program.ask(f"split {line.model.name}", self.plan.cap) for _ in range(count)]
        steps = answers[0].get("split", {})
        line.split = {step: median(a["split"][step] for a in answers) for step in steps}

    def _expected(self, line: report.Line) -> None:
        """Our criterion by lme4's definition, where that is another one (see `report.Line.difference`)."""
        runs = line.runs.get("lme4")
        if line.model.family == "nbinomial" and runs is not None and runs.criterion is not None:
            line.expected = self.programs["lme4py"].ask(f"expected {line.model.name}", self.plan.cap).get("criterion")

    def fit_alone(self, model: Model, program: Program | None = None) -> float:
        """Seconds of one of our fits outside the table."""
        runs = report.Runs()
        elapsed = self.once(program or self.programs["lme4py"], model, runs, self.plan.cap)
        if elapsed is None:
            raise Stopped(runs.failure)
        return elapsed

    def busy(self) -> str:
        """The first model beside two busy loops, the number of threads left to the libraries."""
        model = self.first
        program = replace(self.programs["lme4py"], environment=thread_environment(None), _process=None, loaded=None)
        try:
            self.fit_alone(model, program)
            alone, beside = busy_ratio(lambda: float(program.ask(f"row {model.name}", self.plan.cap)["seconds"]), 9)
        finally:
            program.stop()
        met = "yes" if beside <= 3 * alone else "NO"
        return (
            f"{model.name}, threads not limited from outside: alone {report.seconds(alone)}, "
            f"beside two busy loops {report.seconds(beside)}: {beside / alone:.2f} times (target <= 3: {met})\n"
        )

    def growth(self, out: Path, stem: str) -> str:
        """Our time against the number of rows."""
        points = []
        for n in self.plan.growth:
            model = growth_model(n)
            self.fit_alone(model)
            times = [self.fit_alone(model) for _ in range(7 if n <= 100_000 else 3)]
            points.append((n, median(times)))
            print(f"growth {n:>9,} rows: {report.seconds(points[-1][1])}", flush=True)
        self.programs["lme4py"].stop()
        write_growth(out, stem, points)
        start = 100_000 if points[-1][0] > 300_000 else 0
        power = exponent(points, start)
        met = "yes" if power <= 1.1 else "NO"
        return (
            f"`y ~ x + (x | g)`, n / 10 groups: {report.seconds(points[0][1])} at {points[0][0]:,} rows, "
            f"{report.seconds(points[-1][1])} at {points[-1][0]:,}; from {max(start, points[0][0]):,} rows on time "
            f"grows as n^{power:.2f} (linear, that is, power <= 1.1: {met})\n\n![growth]({stem}.png)\n"
        )


def write_results(out: Path, stem: str, lines: Sequence[report.Line], bench: Bench, text: dict[str, str]) -> Path:
    """CSV and Markdown of what is there so far."""
    names = list(bench.programs)
    report.write_csv(out / f"{stem}.csv", lines)
    parts = [
        text["heading"],
        "Median times of paired runs, formula text and data frame in memory to result; the ratio is the median over "
        "the pairs, above 1 where ours is faster.\n",
        report.time_table(lines, names),
        "## Not met\n",
        report.missed(lines),
        "## Optimum, evaluations, memory\n",
        f"{report.WHAT_DIFFERS[bench.suite.models[0].is_generalised]} "
        "Memory is what the process had at its peak during the fit above what it had before, data loaded.\n",
        report.detail_table(lines, names),
        "## Small models, fits in a row\n",
        "Median of 15 fits by one program without a pause: caches of the processor are warm and no garbage is "
        "collected in between. The first table has one fit at a time, the programs in turn, and decides about the "
        "targets.\n",
        report.row_table(lines, names),
        "## Where our time goes\n",
        report.split_table(lines),
    ]
    parts += [f"## {title}\n\n{body}" for title, body in text.items() if title != "heading"]
    path = out / f"{stem}.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time lme4py's mixed models beside other programs.")
    parser.add_argument("--suite", choices=list(SUITES), default="lmm", help="linear or generalised (default lmm)")
    names = "; ".join(f"{name}: {', '.join(m.name for m in suite.models)}" for name, suite in SUITES.items())
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help=names)
    parser.add_argument("--repeats", type=int, help="fits of every model by every program")
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS and of the rivals (default 1)")
    parser.add_argument("--rivals", help="comma-separated; 'none' for ours only (default: all of the suite)")
    parser.add_argument("--preset", choices=list(SUITES["lmm"].plans), default="full")
    parser.add_argument("--quick", action="store_true", help="the same as --preset quick")
    parser.add_argument("--cap", type=float, help="seconds that one program may take for one model")
    parser.add_argument("--extras", help="of busy, growth; 'none' for neither (default: both for linear models)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument(
        "--name", help="stem of the files (default SUITE-threadsN, SUITE-quick-threadsN, SUITE-some-threadsN)"
    )
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "lme4py-benchmarks")
    parser.add_argument("--data", type=Path, help="folder for the data (default: a temporary one)")
    options = parser.parse_args(arguments)
    suite = SUITES[options.suite]
    options.rivals = [r for r in (options.rivals or ",".join(suite.rivals)).split(",") if r and r != "none"]
    options.extras = options.extras or suite.extras
    for what, known in (("models", [m.name for m in suite.models]), ("rivals", suite.rivals)):
        if unknown := [name for name in getattr(options, what) if name not in known]:
            parser.error(f"unknown {what} {', '.join(unknown)}; --suite {options.suite} has {', '.join(known)}")
    return options


def make_plan(options: argparse.Namespace) -> Plan:
    """The preset with what the command line changes."""
    suite = SUITES[options.suite]
    plan = suite.plans["quick" if options.quick else options.preset]
    if options.models:
        plan = replace(plan, models=tuple(m for m in suite.models if m.name in options.models))
    plan = replace(plan, repeats=suite.plans["lead"].repeats | plan.repeats)
    if options.repeats:
        plan = replace(plan, repeats=dict.fromkeys(plan.repeats, (options.repeats, options.repeats)))
    return replace(plan, cap=options.cap) if options.cap else plan


def start_programs(options: argparse.Namespace, folder: Path) -> dict[str, Program]:
    """Ours and the rivals that are wanted and available."""
    environment = thread_environment(options.threads)
    limit = int(0.8 * total_memory())
    programs = {}
    for name in ("lme4py", *options.rivals):
        command = command_of(name, options.venvs)
        if command is not None:
            programs[name] = Program(name, command, folder, environment, limit)
    return programs


def shown_command(arguments: Sequence[str]) -> str:
    """The command line without the folders of this machine."""
    shown, skip = [], False
    for argument in arguments:
        if skip or argument.split("=")[0] in ("--venvs", "--out", "--data"):
            skip = not skip and "=" not in argument
            continue
        shown.append(argument)
    return " ".join(["python benchmarks/lmm.py", *shown])


def default_stem(options: argparse.Namespace) -> str:
    """Name of the files, so that a part of the models does not overwrite a run of all."""
    part = "some-" if options.models else "quick-" if options.quick or options.preset == "quick" else ""
    return f"{options.suite}-{part}threads{options.threads}"


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure everything and write the results after each model."""
    suite, plan = SUITES[options.suite], make_plan(options)
    store, programs = Store(folder), start_programs(options, folder)
    bench = Bench(suite, plan, store, programs)
    stem = options.name or default_stem(options)
    options.out.mkdir(parents=True, exist_ok=True)
    versions: dict[str, str] = {}
    for program in programs.values():
        bench.ready(program, bench.first)
        versions |= program.versions
    text = {"heading": report.heading(suite.title, versions, options.threads, shown_command(sys.argv[1:]))}
    lines: list[report.Line] = []
    try:
        for model in plan.models:
            lines.append(bench.line(model))
            print_line(lines[-1])
            write_results(options.out, stem, lines, bench, text)
        if "busy" in options.extras:
            text["Beside two busy loops"] = or_reason(bench.busy)
            print(text["Beside two busy loops"], flush=True)
        if "growth" in options.extras and plan.growth:
            text["Growth"] = or_reason(lambda: bench.growth(options.out, f"{stem}-growth"))
            print(text["Growth"], flush=True)
        print("written:", write_results(options.out, stem, lines, bench, text), flush=True)
    finally:
        for program in programs.values():
            program.stop()


def or_reason(measure: Callable[[], str]) -> str:
    """What a measurement says, or why there is none: the tables are kept in any case."""
    try:
        return measure()
    except Stopped as reason:
        return f"not measured: {reason}\n"


def print_line(line: report.Line) -> None:
    """One line of progress."""
    cells = [f"{name} {report.seconds(r.time) or r.failure}" for name, r in line.runs.items()]
    print(f"{line.model.name:16s}", "; ".join(cells), flush=True)
    for text, ok in report.verdicts(line):
        if not ok:
            print(f"{'':16s} NOT MET: {text}", flush=True)


def main() -> None:
    """Entry point."""
    options = parse_arguments()
    start = time.monotonic()
    if options.data is not None:
        options.data.mkdir(parents=True, exist_ok=True)
        run(options, options.data)
    else:
        with tempfile.TemporaryDirectory(prefix="lme4py-benchmark-") as name:
            run(options, Path(name))
    print(f"took {time.monotonic() - start:.0f} s on {os.cpu_count()} cores", flush=True)


if __name__ == "__main__":
    main()
