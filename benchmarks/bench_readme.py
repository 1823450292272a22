"""The table of measured times in README.md, made of the CSV files of `results/`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from bench_lines import seconds
from giants import RIVAL, kept

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
R_PROGRAMS = ("lme4", "ordinal", "pbkrtest", "emmeans")
OTHERS = ("glmmTMB", "statsmodels", "mixedlm", "glmm")

# What README shows: suite -> model -> words.
SHOWN = {
    "lmm": {
        "sleepstudy": "`Reaction ~ Days + (Days \\| Subject)`",
        "hsb82": "Hsb82, random slope",
        "chem97": "Chem97, schools in areas",
        "insteval": "InstEval, students x lecturers",
        "slope_1m": "one factor, random slope",
    },
    "glmm": {
        "cbpp": "cbpp, binomial",
        "contraception_slope": "Contraception, random slope",
        "verbagg": "VerbAgg, persons x items",
        "logit_200k": "0/1 response, 20,000 groups",
    },
    "ordinal": {"wine_slope": "wine, random slope", "judges_50k": "5 categories, 2,000 judges"},
    "inference": {
        "profile_sleepstudy": "profile intervals, sleepstudy",
        "bootstrap_sleepstudy": "10,000 bootstrap replicates, sleepstudy (lme4: 500, scaled up)",
        "kr_sleepstudy": "Kenward-Roger test, sleepstudy",
        "influence_rows": "refit without each row, sleepstudy",
        "grid_56": "56 average predictions",
    },
}


# What README shows of benchmarks/giants.py: case -> words.
GIANTS = {
    "random": "20,000 x 4,226 levels, random",
    "clusters": "20,000 x 4,200 levels, 50 closed clusters",
    "chain": "20,000 x 4,200 levels, a chain of eras",
    "slope": "20,000 x 4,226 levels, random slope",
    "three": "20,000 x 5,000 x 2,000 levels",
    "movielens": "162,541 x 59,000 levels, heavy tails",
    "logit": "0/1 response, 20,000 x 4,000 levels",
    "logit-giant": "0/1 response, 100,000 x 20,000 levels",
    "pedigree": "a million animals with their pedigree",
}


def write_readme(readme: Path, results: Path) -> None:
    """Put the table between the two marks of README.

    Raises
    ------
    SystemExit
        When README has no marks.
    """
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{readme} needs the marks {BEGIN} and {END}.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{readme_table(results)}{END}{after}", encoding="utf-8")


def readme_table(results: Path) -> str:
    """Markdown of machine, date, versions and times; models without results are left out."""
    found = {suite: _read(results / f"{suite}-threads1.csv") for suite in SHOWN}
    header = ["", "rows", "lme4py", "R", *OTHERS]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for suite, models in SHOWN.items():
        for model, words in models.items():
            if rows := [row for row in found[suite] if row["model"] == model]:
                lines.append("| " + " | ".join(_cells(words, rows)) + " |")
    return _heading([row for rows in found.values() for row in rows]) + "\n".join(lines) + "\n" + _giants(results)


def _giants(results: Path) -> str:
    """The table of crossed effects and pedigrees that no other program has a factor for; "" without results."""
    rows = kept(results / "giants.jsonl")
    shown = [(case, words) for case, words in GIANTS.items() if case in rows]
    if not shown:
        return ""
    machines = sorted({f"{rows[case]['machine']}, {rows[case]['date']}" for case, _ in shown})
    load = max(rows[case].get("load") or 0.0 for case, _ in shown)
    lines = [
        f"Giants (seconds of the processor, as `benchmarks/giants.py` has them; {'; '.join(machines)}; load average up "
        f"to {load:.0f}):\n",
        "| | rows | CPU | standard error of -2 log-likelihood | peak of memory, with the data | GPBoost: CPU |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, words in shown:
        row, other = rows[case], rows.get(f"{RIVAL}{case}")
        error = row.get("criterion_se")
        cells = [words, f"{row['rows']:,}", seconds(row["cpu_s"]), "exact" if error is None else f"{error:.1g}"]
        cells += [f"{row['peak_gib']:.1f} GiB", "" if other is None else seconds(other["cpu_s"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n" + "\n".join(lines) + "\n"


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _cells(words: str, rows: Sequence[dict[str, str]]) -> list[str]:
    by_program = {row["program"]: row for row in rows}
    cells = [words, f"{int(rows[0]['rows']):,}", _time(by_program["lme4py"])]
    there = [name for name in R_PROGRAMS if name in by_program]
    time = _time(by_program[there[0]]) if there else ""
    cells.append(f"{there[0]} {time}" if time else "")
    return cells + [_time(by_program[name]) if name in by_program else "" for name in OTHERS]


def _time(row: dict[str, str]) -> str:
    """Median time, or the cap; nothing where the program cannot do it."""
    if row["median_seconds"]:
        return seconds(float(row["median_seconds"]))
    return row["failure"] if row["failure"].startswith(">") else ""


def _heading(rows: Sequence[dict[str, str]]) -> str:
    versions = {row["program"]: row["version"] for row in rows if row["version"]}
    listed = ", ".join(f"{name} {versions[name]}" for name in ("lme4py", *R_PROGRAMS, *OTHERS) if name in versions)
    machines = sorted({f"{row['machine']}, {row['date']}" for row in rows})
    return f"{listed}; one thread; {'; '.join(machines)}.\n\n"
