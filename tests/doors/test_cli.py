"""The command line, called in this process and once as a command of its own."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import lme4py
from lme4py.cli import main

FORMULA = "Reaction ~ Days + (Days | Subject)"
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sleep.csv"
    lme4py.load_dataset("sleepstudy").to_csv(path, index=False)
    return path


def _refused(capsys, *arguments: object) -> str:
    """Run a command that must fail, and return the one line it printed."""
    status = main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert shown.err.startswith("lme4py: ")
    assert "Traceback" not in shown.err
    return shown.err


def test_fit_prints_the_summary(capsys, sleep):
    assert main(["fit", FORMULA, "sleepstudy"]) == 0
    shown = capsys.readouterr()
    assert shown.out == sleep.summary() + "\n"
    assert shown.err == ""


def test_readme_has_the_commands():
    text = README.read_text(encoding="utf-8")
    assert f'python -m pip install . && lme4py fit "{FORMULA}" sleepstudy\n' in text
    assert 'python -m pip install ".[test]" && python -m pytest -n auto\n' in text


def test_files_of_every_kind(capsys, csv, tmp_path):
    text = csv.read_text(encoding="utf-8")
    data = lme4py.load_dataset("sleepstudy")
    compressed = tmp_path / "sleep.csv.gz"
    compressed.write_bytes(gzip.compress(text.encode()))
    tabs = tmp_path / "SLEEP.TSV"
    tabs.write_text(text.replace(",", "\t"), encoding="utf-8")
    parquet = tmp_path / "sleep.parquet"
    data.assign(Subject=data["Subject"].astype(str)).to_parquet(parquet)
    assert main(["fit", FORMULA, str(csv)]) == 0
    expected = capsys.readouterr().out
    assert "1743.63" in expected
    for path in (compressed, tabs, parquet):
        assert main(["fit", FORMULA, str(path)]) == 0
        assert capsys.readouterr().out == expected


def test_text_columns_of_a_csv_are_factors(capsys, tmp_path):
    path = tmp_path / "machines.csv"
    lme4py.load_dataset("Machines").to_csv(path, index=False)
    assert main(["fit", "score ~ Machine + (1 | Worker)", str(path)]) == 0
    assert "Machine[T.C]" in capsys.readouterr().out


def test_options_change_the_fit(capsys, csv, tmp_path):
    assert main(["fit", FORMULA, "sleepstudy", "--ml", "--ddf", "residual"]) == 0
    shown = capsys.readouterr().out
    assert "fit by maximum likelihood" in shown
    assert "P(>|t|)" in shown
    assert main(["fit", FORMULA, "sleepstudy", "--ddf", "kenward-roger"]) == 0
    assert "Kenward-Roger" in capsys.readouterr().out
    path = tmp_path / "weights.csv"
    lme4py.load_dataset("sleepstudy").assign(w=2.0, o=100.0).to_csv(path, index=False)
    assert main(["fit", FORMULA, str(path), "--weights", "w", "--offset", "o"]) == 0
    shown = capsys.readouterr().out
    assert "Weights:  from 2 to 2" in shown
    # The offset of 100 comes off the intercept, 251.405.
    assert "151.405" in shown


def test_outputs_are_written(capsys, tmp_path, sleep, agg):
    names = {kind: tmp_path / f"out.{kind}" for kind in ("json", "latex", "png")}
    arguments = ["--json", str(names["json"]), "--latex", str(names["latex"]), "--plot", str(names["png"])]
    assert main(["fit", FORMULA, "sleepstudy", *arguments]) == 0
    capsys.readouterr()
    parts = json.loads(names["json"].read_text(encoding="utf-8"))
    assert parts["criterion"] == sleep.criterion
    assert len(parts["random_effects"]["Subject"]) == 18
    assert names["latex"].read_text(encoding="utf-8") == sleep.to_latex()
    assert names["png"].read_bytes().startswith(b"\x89PNG")


def test_datasets_are_listed(capsys):
    assert main(["datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 21
    assert any(line.split()[:3] == ["sleepstudy", "180", "3"] for line in lines)


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"lme4py {lme4py.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([FORMULA, "missing.csv"], "missing.csv does not exist"),
        ([FORMULA, "sleepstudi"], "Did you mean 'sleepstudy'"),
        (["Reaction ~ Dayz + (1 | Subject)", "sleepstudy"], "Days"),
        (["Reaction ~ Days", "sleepstudy"], "random"),
        ([FORMULA, "sleepstudy", "--family", "poison"], "Did you mean 'poisson'"),
        ([FORMULA, "sleepstudy", "--family", "poisson"], "needs counts"),
        ([FORMULA, "sleepstudy", "--nagq", "5"], "choose one with --family"),
        ([FORMULA, "sleepstudy", "--family", "poisson", "--nagq", "x"], "no number of points"),
        ([FORMULA, "sleepstudy", "--ddf", "satterthwait"], "Did you mean 'satterthwaite'"),
        ([FORMULA, "sleepstudy", "--ml", "--ddf", "kenward-roger"], "leave out --ml"),
        ([FORMULA, "sleepstudy", "--weights", "w"], "'w'"),
        ([FORMULA, "sleepstudy", "--json", "no/such/place.json"], "no directory"),
        ([FORMULA, "sleepstudy", "--latex", "."], "is a directory"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    line = _refused(capsys, "fit", *arguments)
    assert words in line
    lines = line.splitlines()
    # A formula and the caret under it may follow.
    assert len(lines) == 1 or (len(lines) == 3 and set(lines[2].strip()) == {"^"})


def test_formula_error_shows_the_caret(capsys):
    lines = _refused(capsys, "fit", "Reaction ~ Days + (Days | Subject", "sleepstudy").splitlines()
    assert len(lines) == 3
    assert "Reaction ~ Days" in lines[1]
    assert set(lines[2].strip()) == {"^"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "cannot be read"),
        ("header.csv", b"y,x,g\n", "no rows"),
        ("binary.csv", b"\xff\xfe\x00\x01,\x80\n1,2\n", "cannot be read"),
        ("broken.csv.gz", b"this is not gzip", "cannot be read"),
        ("broken.parquet", b"PAR1 but no more", "cannot be read"),
        ("sheet.xlsx", b"PK", "cannot be read"),
        ("sheet.ods", b"PK", "must end in"),
    ],
)
def test_files_that_cannot_be_read(capsys, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    assert words in _refused(capsys, "fit", FORMULA, path)


def test_parquet_without_an_engine(capsys, tmp_path, monkeypatch):
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1")

    def no_engine(path):
        raise ImportError("no engine")

    monkeypatch.setattr("pandas.read_parquet", no_engine)
    assert "pip install pyarrow" in _refused(capsys, "fit", FORMULA, path)


def test_plot_without_matplotlib(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["fit", FORMULA, "sleepstudy", "--plot", str(tmp_path / "a.png")]) == 2
    assert 'pip install "lme4py[plot]"' in capsys.readouterr().err


def test_plot_of_an_unknown_format(capsys, tmp_path, agg):
    assert main(["fit", FORMULA, "sleepstudy", "--plot", str(tmp_path / "a.xyz")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_warnings_are_one_line(capsys, monkeypatch):
    def warn(*arguments, **options):
        warnings.warn("first\nsecond", lme4py.Lme4Warning, stacklevel=2)
        raise lme4py.DataError("stopped here.")

    monkeypatch.setattr("lme4py.api.lmer", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["fit", FORMULA, "sleepstudy"]) == 2
    assert capsys.readouterr().err == "lme4py: warning: first second\nlme4py: stopped here.\n"


@pytest.mark.parametrize("arguments", [[], ["fit"], ["fit", FORMULA], ["fits"], ["fit", "a", "b", "--nosuch"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("lme4py: ")


def _command(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(README.parent)}
    command = [sys.executable, "-m", "lme4py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60, **options)


def test_command_in_its_own_process(sleep):
    done = _command("fit", FORMULA, "sleepstudy")
    assert (done.returncode, done.stdout, done.stderr) == (0, sleep.summary() + "\n", "")


def test_a_summary_of_shipped_data_needs_no_pandas():
    # Its import takes longer than everything else that the command does.
    code = "import sys; from lme4py.cli import main; main(sys.argv[1:]); print({'pandas', 'pyarrow'} & {*sys.modules})"
    arguments = ("fit", "diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_closed_pipe_is_no_error():
    environment = {**os.environ, "PYTHONPATH": str(README.parent)}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lme4py", "datasets"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_generalised_model(capsys):
    arguments = ["--family", "binomial", "--nagq", "5"]
    assert main(["fit", "use ~ age + (1 | district)", "Contraception", *arguments]) == 0
    out = capsys.readouterr().out
    assert "binomial (logit)" in out
    assert "nAGQ = 5" in out


def test_files_above_a_limit_of_memory_are_streamed(capsys, tmp_path):
    pytest.importorskip("pyarrow")
    data = lme4py.load_dataset("Contraception")
    path = tmp_path / "rows.csv"
    rows = data.loc[data.index.repeat(5), ["use", "age", "district"]]
    # Rows that do not repeat: otherwise their cells would be fitted.
    rows.assign(age=rows.age + [i % 7919 / 1e4 for i in range(len(rows))]).to_csv(path, index=False)
    command = ["fit", "use ~ age + (1 | district)", str(path), "--family", "binomial"]
    assert main([*command, "--memory-limit", "1MB"]) == 0
    assert "parts by group" in capsys.readouterr().out
    assert "memory_limit" in _refused(capsys, *command, "--memory-limit", "much")


def test_an_ordinal_model(capsys, tmp_path):
    wine = lme4py.load_dataset("wine")
    path = tmp_path / "wine.csv"
    wine.assign(rating="c" + wine["rating"].astype(str)).to_csv(path, index=False)
    formula = "rating ~ temp + contact + (1 | judge)"
    options = ("--family", "ordinal", "--link", "probit", "--threshold", "symmetric", "--nagq", "5")
    assert main(["fit", formula, str(path), *options, "--levels", "c1, c2, c3, c4, c5"]) == 0
    told = capsys.readouterr().out
    expected = lme4py.clmm(formula, wine, link="probit", threshold="symmetric", nAGQ=5)
    assert f"{expected.thresholds.iloc[0]:.4f}" in told
    assert "c4|c5" in told
    assert "levels=[" in _refused(capsys, "fit", formula, path, "--family", "ordinal")
    assert "--family ordinal" in _refused(capsys, "fit", formula, "wine", "--levels", "1,2,3,4,5")


def test_report(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    assert main(["report", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--out", str(page), "--title", "Dyes"]) == 0
    assert f"The report is in {page}." in capsys.readouterr().out
    assert "<h1>Dyes</h1>" in page.read_text(encoding="utf-8")


def test_report_needs_a_file_before_it_fits(capsys, tmp_path):
    assert main(["report", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "advice"),
    [("--intpoints", "--nagq 7"), ("--REML", "--ml for maximum likelihood"), ("--html", "lme4py report")],
)
def test_options_of_other_programs_name_ours(capsys, option, advice):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff", option, "7"])
    assert stopped.value.code == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".dta", ".xlsx"])
def test_files_of_stata_and_excel(capsys, tmp_path, suffix):
    pytest.importorskip("openpyxl")
    path = tmp_path / f"dyes{suffix}"
    data = lme4py.load_dataset("Dyestuff").astype({"Batch": str})
    if suffix == ".dta":
        data.to_stata(path, write_index=False)
    else:
        data.to_excel(path, index=False)
    assert main(["fit", "Yield ~ 1 + (1 | Batch)", str(path)]) == 0
    assert "319.65" in capsys.readouterr().out


def test_files_of_a_pattern_are_streamed(capsys, tmp_path):
    data = lme4py.load_dataset("sleepstudy")
    for i, rows in enumerate((data[:90], data[90:])):
        rows.to_parquet(tmp_path / f"part{i}.parquet")
    assert main(["fit", FORMULA, str(tmp_path / "part*.parquet")]) == 0
    text = capsys.readouterr().out
    assert "1743.6" in text
    assert "2 Parquet files" in text
    rows.to_feather(tmp_path / "part.feather")
    command = ["fit", FORMULA, str(tmp_path / "part.feather"), "--subset", "Days > 1"]
    assert main([*command, "--memory-limit", "1MB"]) == 0
    assert "rows where Days > 1" in capsys.readouterr().out
    assert "no file matches the pattern" in _refused(capsys, "fit", FORMULA, tmp_path / "none*.parquet")
