"""Bars of long work, and interruptions that keep what was done."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import pytest

import lme4py
from lme4py import progress
from lme4py.errors import Lme4Warning, OptionError
from lme4py.inference.bootstrap.task import Task
from lme4py.progress import keeping, tick, watching

SLEEP = lme4py.load_dataset("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def fit():
    return lme4py.lmer(FORMULA, SLEEP)


class Bar:
    """What a bar of tqdm is told."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, text, total, done):
        self.text, self.total, self.count, self.open = text, total, done, True
        Bar.made.append(self)

    def update(self, n):
        self.count += n

    def reset(self):
        self.count = 0

    def set_description(self, text):
        self.text = text

    def close(self):
        self.open = False


@pytest.fixture
def bars(monkeypatch):
    Bar.made = []
    monkeypatch.setattr(progress, "_bar", Bar)
    return Bar.made


@pytest.mark.parametrize(
    ("work", "text", "total"),
    [
        (lambda fit: fit.bootstrap(25, seed=1, progress=True), "bootstrap, replicates", 25),
        (lambda fit: fit.profile("fixed", progress=True), "profile, parameters", 2),
        (lambda fit: fit.all_fit(["BFGS", "Powell"], 1, progress=True), "all_fit, runs", 2),
        (lambda fit: fit.influence(np.arange(180) % 4, "refit", progress=True), "influence, units", 4),
    ],
)
def test_a_bar_counts_every_step(fit, bars, work, text, total):
    work(fit)
    (bar,) = bars
    assert (bar.text, bar.total, bar.count, bar.open) == (text, total, total, False)


def test_a_fit_counts_its_evaluations(bars):
    found = lme4py.lmer(FORMULA, SLEEP, progress=True)
    assert bars[0].text == "lmer, evaluations"
    # Those of other starts too.
    assert bars[0].count >= len(found.opt_log)


def test_rows_in_blocks_are_counted_too(bars, tmp_path):
    pytest.importorskip("pyarrow")
    SLEEP.to_parquet(tmp_path / "rows.parquet")
    lme4py.lmer(FORMULA, str(tmp_path / "rows.parquet"), progress=True)
    assert bars[0].text == "lmer, evaluations"


def test_short_work_and_work_that_nobody_sees_have_no_bar(bars, monkeypatch):
    lme4py.lmer(FORMULA, SLEEP)
    monkeypatch.setattr(progress, "_is_seen", lambda: True)
    with watching("work", None, "steps"):
        tick("steps")
    assert bars == []
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    with watching("work", None, "steps"), watching("inner", True, "steps"):
        tick("steps", 3)
        tick("others")
    with watching("work", False, "steps"):
        tick("steps")
    assert [(bar.text, bar.count) for bar in bars] == [("work, steps", 3)]


def test_the_real_bar_writes_to_standard_error(capsys):
    with watching("work", True, "steps", total=2):
        for _ in range(2):
            tick("steps")
            time.sleep(0.0)
    captured = capsys.readouterr()
    assert "work, steps" in captured.err
    assert captured.out == ""


def _stop_after(monkeypatch, owner, name, calls):
    """A function that is interrupted when it is called once more."""
    inner = getattr(owner, name)
    count = [0]

    def stopping(*args, **kw):
        count[0] += 1
        if count[0] > calls:
            raise KeyboardInterrupt
        return inner(*args, **kw)

    monkeypatch.setattr(owner, name, stopping)


def test_an_interrupted_bootstrap_keeps_its_replicates(fit, monkeypatch):
    monkeypatch.setattr(Task, "size", lambda self: 5)
    whole = fit.bootstrap(20, seed=1)
    _stop_after(monkeypatch, Task, "__call__", 2)
    with pytest.warns(Lme4Warning, match="interrupted: 10 of 20 replicates are done"):
        part = fit.bootstrap(20, seed=1)
    assert part.n == 10
    np.testing.assert_array_equal(part.replicates, whole.replicates.iloc[:10])


def test_an_interrupted_profile_keeps_its_parameters(fit, monkeypatch):
    from lme4py.inference.profile import profile as module

    _stop_after(monkeypatch, module, "make_sides", 2)
    with pytest.warns(Lme4Warning, match="interrupted: 2 of 6 parameters"):
        found = fit.profile()
    assert list(found.conf_int().index) == ["Intercept", "Days"]


def test_an_interrupted_comparison_of_optimisers_keeps_its_runs(fit, monkeypatch):
    from lme4py.inference.diagnostics import allfit

    _stop_after(monkeypatch, allfit, "_run", 1)
    with pytest.warns(Lme4Warning, match="interrupted: 1 of 2 runs"):
        assert len(fit.all_fit(["BFGS", "Powell"], 1).table) == 1


def test_interrupted_refits_without_units_are_missing(fit, monkeypatch):
    from lme4py.fits import model

    _stop_after(monkeypatch, model, "without_level", 2)
    missing = pytest.warns(Lme4Warning, match="no estimates without 2 of the 4 units")
    with missing, pytest.warns(Lme4Warning, match="interrupted: 2 of 4 units"):
        found = fit.influence(np.arange(180) % 4, "refit")
    assert np.isfinite(found.cooks_distance).sum() == 2


def test_an_interruption_before_anything_is_done_is_one():
    with pytest.raises(KeyboardInterrupt), keeping("steps", 3):
        raise KeyboardInterrupt


@pytest.mark.parametrize("call", [lambda f: f.profile(progress=1), lambda f: f.influence(progress="no")])
def test_what_progress_can_be(fit, call):
    with pytest.raises(OptionError, match="give True, False or None"):
        call(fit)
