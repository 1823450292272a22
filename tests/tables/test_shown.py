"""What results print: summaries, data frames of results, and their LaTeX."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.tables.frames import PrintedFrame, frame_table, printed
from lme4py.tables.shown import Summary
from lme4py.tables.table import Table
from lme4py.tables.text import render_text


@pytest.fixture(scope="module")
def pair():
    data = lme4py.load_dataset("sleepstudy")
    small = lme4py.lmer("Reaction ~ Days + (1 | Subject)", data)
    return small, lme4py.lmer("Reaction ~ Days + (Days | Subject)", data)


def test_a_summary_is_text_and_tables(pair):
    summary = pair[0].summary()
    assert isinstance(summary, str)
    assert repr(summary) == str(summary)
    assert "<table" in summary._repr_html_()
    assert summary.to_markdown() == pair[0].to_markdown()
    for again in (pickle.loads(pickle.dumps(summary)), copy.deepcopy(summary)):
        assert again == summary
        assert again.tables == summary.tables


def test_a_caption_makes_a_floating_table(pair):
    text = pair[0].summary().to_latex(caption="Sleep & reaction_time", label="tab:sleep")
    lines = text.splitlines()
    assert r"\caption{Sleep \& reaction\_time}" in lines
    assert r"\label{tab:sleep}" in lines
    assert text.count(r"\begin{adjustbox}") == text.count(r"\end{adjustbox}") == text.count(r"\begin{tabular}")
    assert r"\begin{table}" not in pair[0].to_latex()
    with pytest.raises(lme4py.OptionError, match="belongs to a caption"):
        pair[0].summary().to_latex(label="tab:sleep")


@pytest.mark.parametrize(
    "make",
    [
        lambda one, two: lme4py.anova(one, two),
        lambda one, two: one.anova(two),
        lambda one, two: two.anova(),
        lambda one, two: two.tidy(conf_int=True),
        lambda one, two: two.glance(),
        lambda one, two: two.augment(),
        lambda one, two: two.ranova(),
        lambda one, two: lme4py.list_datasets(),
    ],
)
def test_tables_of_results_print_whole_in_80_columns(pair, make):
    frame = make(*pair)
    lines = repr(frame).splitlines()
    # Notes are sentences wrapped at 88; every line of cells keeps to 80.
    assert max(len(line) for line in lines if line.startswith("  ")) <= 80
    shown = set(frame.columns) - set(frame.attrs.get("hidden", ()))
    words = {word for line in lines for word in line.split()}
    assert {str(name) for name in shown} <= words
    assert "..." not in repr(frame).replace("... 160 more rows", "")
    assert type(frame[list(frame.columns)]) is pd.DataFrame


def test_the_plain_p_value_is_there_and_not_printed(pair):
    table = lme4py.anova(*pair)
    assert "p_chi2" not in repr(table)
    assert table["p_chi2"].iloc[1] > table["p_value"].iloc[1]


def test_a_printed_frame_is_an_ordinary_one():
    frame = pd.DataFrame({"estimate": [1.25, np.nan], "p_value": [1e-30, 0.5], "name": ["a", None]}, index=["x", "y"])
    made = printed(frame, note="A note.", title="Title")
    pd.testing.assert_frame_equal(pd.DataFrame(made), frame)
    again = pickle.loads(pickle.dumps(made))
    assert isinstance(again, PrintedFrame)
    assert repr(again) == repr(made)
    assert repr(made).splitlines() == [
        "Title",
        "     estimate  p_value  name",
        "  x     1.250   <2e-16  a",
        "  y              0.500",
        "A note.",
    ]
    assert "<table" in made._repr_html_()


def test_wide_tables_go_on_below():
    table = Table("", ("name", "a" * 30, "b" * 30, "c" * 30), (("x", "1", "2", "3"),), ("left", *["right"] * 3))
    lines = render_text([table], 80).splitlines()
    assert [line.split()[0] for line in lines if line] == ["name", "x", "name", "x"]
    assert max(map(len, lines)) <= 80
    assert len(render_text([table]).splitlines()) == 2


def test_long_tables_say_how_much_is_left_out():
    table = frame_table(pd.DataFrame({"x": np.arange(100.0)}))
    assert len(table.rows) == 21
    assert table.rows[10][0] == "... 80 more rows"


def test_every_result_prints_and_has_a_table(pair):
    one, two = pair
    results = [
        one.influence(),
        one.all_fit(["trust-region"], n_starts=1),
        one.profile("Days"),
        one.bootstrap(10, seed=1),
        one.quantile_residuals(50, seed=1),
        lme4py.compare(one, two),
        lme4py.lrtest(one, two),
        lme4py.icc(one),
        one.certificate,
        one.check(),
        one.re_pca(),
        one.summary(),
        lme4py.Margins.linear_scale(one).predict(),
        lme4py.describe_dataset("cbpp"),
        one.fit,
        one.fit.design,
        one.slim().fit,
    ]
    for result in results:
        text = repr(result)
        assert len(text) < 2500, type(result)
        assert "array(" not in text, type(result)
        assert "dtype" not in text, type(result)
        assert result._repr_html_().count("<") > 1


def test_a_summary_needs_no_fit():
    summary = Summary([Table("Title", ("a",), (("1",),), ("right",))])
    assert summary == "Title\n  a\n  1"
