"""Time lme4py beside other programs: one command runs every comparison.

    python benchmarks/run.py --preset quick
    python benchmarks/run.py

See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import bench_report as report
import giants
from bench_lines import Line, seconds, verdicts
from bench_machine import Machine
from bench_models import Store
from bench_plot import plot_ratios
from bench_programs import Program, Stopped, command_of, thread_environment, total_memory
from bench_readme import write_readme
from bench_run import Bench
from bench_suites import SUITES, Plan, Suite

Text = dict[str, str]
GIANTS = "giants"
HERE = Path(__file__).resolve().parent

PAIRED = (
    "Median times, the programs in turn (A B A B ...); the ratio is the median over the pairs, above 1 where ours is "
    "faster. "
)
FITS = "A fit is from the formula text, with the data frame in memory, to the result."
ACTIONS = (
    "Models are fitted beforehand, outside the time. The largest difference is that of any number from the other "
    "program's, relative to the largest number of its kind; for bootstraps, of their standard deviations."
)


def write_results(out: Path, stem: str, lines: Sequence[Line], bench: Bench, machine: Machine, text: Text) -> Path:
    """CSV, Markdown and plot of what is there so far."""
    names = list(bench.programs)
    report.write_csv(out / f"{stem}.csv", lines, machine)
    tables = action_parts(lines, names) if bench.suite.first.action != "fit" else fit_parts(lines, names)
    parts = [text["heading"], *tables]
    if plot_ratios(out / f"{stem}.png", lines, names, bench.suite.title, machine.caption):
        parts.insert(2, f"![Time of the other programs over ours]({stem}.png)\n")
    parts += [f"## {title}\n\n{body}" for title, body in text.items() if title != "heading"]
    path = out / f"{stem}.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def action_parts(lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    """The tables of what is asked of fitted models."""
    return [PAIRED + ACTIONS + "\n", report.action_table(lines, names), "## Not met\n", report.missed(lines)]


def fit_parts(lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    """The tables of fits."""
    tables = [
        PAIRED + FITS + "\n",
        report.time_table(lines, names),
        "## Not met\n",
        report.missed(lines),
        "## Optimum, evaluations, memory\n",
        f"{report.what_differs(lines[0].model)} "
        "Memory is what the process had at its peak during the fit above what it had before, data loaded.\n",
        report.detail_table(lines, names),
        "## Small models, fits in a row\n",
        "Median of 15 fits by one program without a pause: caches of the processor are warm and no garbage is "
        "collected in between. The first table has one fit at a time, the programs in turn, and decides about the "
        "targets.\n",
        report.row_table(lines, names),
    ]
    if any(line.split for line in lines):
        tables += ["## Where our time goes\n", report.split_table(lines)]
    return tables


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time lme4py beside other programs.")
    text = "default: all but 'giants', which takes half an hour (benchmarks/giants.py; seconds a case: --cap)"
    parser.add_argument("--suite", nargs="+", choices=[*SUITES, GIANTS], default=list(SUITES), help=text)
    names = "; ".join(f"{name}: {', '.join(m.name for m in suite.models)}" for name, suite in SUITES.items())
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help=names)
    parser.add_argument("--preset", choices=list(SUITES["lmm"].plans), default="standard")
    parser.add_argument("--repeats", type=int, help="how often every program does each thing")
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS and of the rivals (default 1)")
    parser.add_argument("--rivals", help="comma-separated; 'none' for ours only (default: all of the suite)")
    parser.add_argument("--cap", type=float, help="seconds that one program may take for one model")
    parser.add_argument("--extras", help="of busy, growth; 'none' for neither (default: both for linear models)")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "lme4py-benchmarks")
    parser.add_argument("--data", type=Path, help="folder for the data (default: a temporary one)")
    parser.add_argument("--readme", action="store_true", help="run nothing; write the table of README.md from results/")
    options = parser.parse_args(arguments)
    suites = [SUITES[name] for name in options.suite if name != GIANTS]
    options.rivals = None if options.rivals is None else [r for r in options.rivals.split(",") if r and r != "none"]
    known = {"models": [m.name for s in suites for m in s.models], "rivals": [r for s in suites for r in s.rivals]}
    for what, names_known in known.items():
        if unknown := [name for name in getattr(options, what) or [] if name not in names_known]:
            parser.error(f"unknown {what} {', '.join(unknown)}; there are {', '.join(dict.fromkeys(names_known))}")
    return options


def make_plan(options: argparse.Namespace, suite: Suite) -> Plan:
    """The preset with what the command line changes."""
    plan = suite.plans[options.preset]
    if options.models:
        plan = replace(plan, models=tuple(m for m in suite.models if m.name in options.models))
    plan = replace(plan, repeats=suite.plans["standard"].repeats | plan.repeats)
    if options.repeats:
        plan = replace(plan, repeats=dict.fromkeys(plan.repeats, (options.repeats, options.repeats)))
    return replace(plan, cap=options.cap) if options.cap else plan


def start_programs(options: argparse.Namespace, suite: Suite, folder: Path) -> dict[str, Program]:
    """Ours and the rivals that are wanted and available."""
    wanted = [r for r in suite.rivals if options.rivals is None or r in options.rivals]
    environment = thread_environment(options.threads)
    limit = int(0.8 * total_memory())
    programs = {}
    for name in ("lme4py", *wanted):
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
    return " ".join(["python benchmarks/run.py", *shown])


def stem_of(options: argparse.Namespace, suite: str) -> str:
    """Name of the files, so that a part of the models does not overwrite a run of all."""
    part = "some-" if options.models else "quick-" if options.preset == "quick" else ""
    return f"{suite}-{part}threads{options.threads}"


def run(options: argparse.Namespace, name: str, folder: Path) -> None:
    """Measure a suite and write the results after each model."""
    suite = SUITES[name]
    plan, stem = make_plan(options, suite), stem_of(options, name)
    if not plan.models:
        return
    programs = start_programs(options, suite, folder)
    bench = Bench(suite, plan, Store(folder), programs)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for program in programs.values():
            bench.ready(program, suite.first)
        measure(bench, options, stem)
    finally:
        for program in programs.values():
            program.stop()


def measure(bench: Bench, options: argparse.Namespace, stem: str) -> None:
    """Every model, then the extras."""
    machine = Machine({k: v for program in bench.programs.values() for k, v in program.versions.items()})
    text = {"heading": machine.heading(bench.suite.title, options.threads, shown_command(sys.argv[1:]))}
    lines: list[Line] = []
    for model in bench.plan.models:
        lines.append(bench.line(model))
        print_line(lines[-1])
        write_results(options.out, stem, lines, bench, machine, text)
    extras = options.extras or bench.suite.extras
    if "busy" in extras:
        text["Beside two busy loops"] = or_reason(bench.busy)
        print(text["Beside two busy loops"], flush=True)
    if "growth" in extras and bench.plan.growth:
        text["Growth"] = or_reason(lambda: bench.growth(options.out, f"{stem}-growth"))
        print(text["Growth"], flush=True)
    print("written:", write_results(options.out, stem, lines, bench, machine, text), flush=True)


def or_reason(measure: Callable[[], str]) -> str:
    """What a measurement says, or why there is none: the tables are kept in any case."""
    try:
        return measure()
    except Stopped as reason:
        return f"not measured: {reason}\n"


def print_line(line: Line) -> None:
    """One line of progress."""
    cells = [f"{name} {seconds(r.time) or r.failure}" for name, r in line.runs.items()]
    print(f"{line.model.name:16s}", "; ".join(cells), flush=True)
    for text, ok in verdicts(line):
        if not ok:
            print(f"{'':16s} NOT MET: {text}", flush=True)


def main() -> None:
    """Entry point."""
    options = parse_arguments()
    if options.readme:
        write_readme(HERE.parent / "README.md", options.out)
        return
    start = time.monotonic()
    for name in options.suite:
        if name == GIANTS:
            giants.main([], options.cap)
            continue
        if options.data is not None:
            (options.data / name).mkdir(parents=True, exist_ok=True)
            run(options, name, options.data / name)
            continue
        with tempfile.TemporaryDirectory(prefix="lme4py-benchmark-") as folder:
            run(options, name, Path(folder))
    print(f"took {time.monotonic() - start:.0f} s on {os.cpu_count()} cores", flush=True)


if __name__ == "__main__":
    main()
