"""The table model, its four renderers, the summary and the plots."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import hand_made
import numpy as np
import pytest

import lme4py
from lme4py.errors import OptionError
from lme4py.report.html import render_html
from lme4py.report.latex import escape as latex_escape
from lme4py.report.latex import render_latex
from lme4py.report.markdown import render_markdown
from lme4py.report.numbers import format_column, format_integer, format_p_value, format_value
from lme4py.report.summary import coefficient_table, random_effects_table, summary_tables
from lme4py.report.table import Table
from lme4py.report.text import render_text
from lme4py.results import MixedResult

NASTY = Table(
    title="A & B_1",
    columns=("", "50% <x>", "a|b"),
    rows=(("x_1^2", "1.50", "-2e-05"), ("`f`[T.b]", "10.25", "n/a"), ("{$#~\\}", "0", "<2e-16")),
    align=("left", "right", "right"),
    notes=("Nothing * is _lost_.",),
)
EMPTY = Table("Fixed effects", ("", "Estimate"), (), ("left", "right"), ("There are no fixed effects.",))


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e-300, 1e-12, 4e-4, 0.0499, 0.999, 5.0, 123456.0, 1e7, 1e300])
@pytest.mark.parametrize("decimals", [0, 2, 3, 7])
def test_no_nonzero_number_is_printed_as_zero(value, decimals):
    for number in (value, -value):
        text = format_value(number, decimals)
        assert float(text) != 0
        # Two digits at least are shown, so the text is within 5 % of the number.
        assert float(text) == pytest.approx(number, rel=0.05)


def test_special_numbers():
    assert [format_value(x, 3) for x in (0.0, -0.0, float("nan"), float("inf"), float("-inf"))] == [
        "0",
        "0",
        "n/a",
        "inf",
        "-inf",
    ]


def test_columns_share_their_decimals():
    assert format_column([612.1002, 35.0717, 654.94]) == ["612.10", "35.07", "654.94"]
    assert format_column([0.0, 13.806]) == ["0", "13.81"]
    assert format_column([1.427e11, 4.5e10]) == ["1.427e+11", "4.5e+10"]
    assert format_column([6.37e-10, 3.0e-11]) == ["6.37e-10", "3e-11"]
    assert format_column([]) == []
    assert max(map(len, format_column([654321.0, 0.00012]))) < 12


def test_p_values_and_counts():
    assert [format_p_value(p) for p in (1.0, 0.05, 0.001, 0.00099, 1e-17)] == [
        "1.000",
        "0.050",
        "0.001",
        "0.00099",
        "<2e-16",
    ]
    assert format_p_value(float("nan")) == "n/a"
    assert [format_integer(x) for x in (3.0, 3.25)] == ["3", "3.2"]


# --- table and renderers ------------------------------------------------------------------------------------


def test_table_refuses_ragged_rows():
    with pytest.raises(ValueError, match="2 entries"):
        Table("t", ("a", "b"), (("1",),), ("left", "right"))


def test_text_is_aligned():
    lines = render_text([NASTY]).splitlines()
    assert lines[0] == NASTY.title
    assert lines[-1] == NASTY.notes[0]
    columns = lines[1:-1]
    # Right-aligned columns end where their heading ends.
    ends = {
        line.index(cell) + len(cell) for line, cell in zip(columns, ["50% <x>", "1.50", "10.25", " 0"], strict=True)
    }
    assert len(ends) == 1
    assert all(line == line.rstrip() for line in lines)


def test_text_counts_wide_characters_twice():
    table = Table("", ("name", "n"), (("数学", "1"), ("abcd", "2")), ("left", "right"))
    rows = render_text([table]).splitlines()[1:]
    assert rows == ["  数学  1", "  abcd  2"]


class _Cells(HTMLParser):
    """Collects the text of cells and checks that tags close in order."""

    VOID = frozenset({"br", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.paragraphs: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open:
            return
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.open[-1] == "caption":
            self.caption += data
        elif self.open[-1] == "p":
            self.paragraphs[-1] += data


def _parsed(html: str) -> _Cells:
    parser = _Cells()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_html_holds_every_cell():
    parsed = _parsed(render_html([NASTY]))
    assert parsed.rows == [list(NASTY.columns), *map(list, NASTY.rows)]
    assert parsed.caption == NASTY.title
    assert parsed.paragraphs == list(NASTY.notes)


def _markdown_cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line)
    assert cells[0] == cells[-1] == ""
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in cells[1:-1]]


def test_markdown_holds_every_cell():
    lines = render_markdown([NASTY]).splitlines()
    pipes = [line for line in lines if line.startswith("|")]
    assert _markdown_cells(pipes[0]) == list(NASTY.columns)
    assert pipes[1] == "|:---|---:|---:|"
    assert [_markdown_cells(line) for line in pipes[2:]] == [list(row) for row in NASTY.rows]
    assert lines[0] == r"**A & B\_1**"
    assert lines[-1] == r"Nothing \* is \_lost\_."


def _unescaped_braces(text: str) -> int:
    depth = 0
    for match in re.finditer(r"\\[\\{}]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        assert depth >= 0
    return depth


def test_latex_is_balanced_and_escaped():
    text = render_latex([NASTY])
    assert _unescaped_braces(text) == 0
    body = text.partition("\n")[2]
    for character in "_&%#":
        for match in re.finditer(re.escape(character), body.replace(" & ", "")):
            assert body.replace(" & ", "")[match.start() - 1] == "\\"
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert r"\begin{tabular}{lrr}" in text
    assert r"$-2 \times 10^{-5}$" in text
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(NASTY.rows)
    assert all(row.count(" & ") == 2 for row in rows)


def test_latex_escapes_each_special_character():
    assert latex_escape("a_b^2") == r"a\_b\textasciicircum{}2"
    assert latex_escape("\\") == r"\textbackslash{}"
    assert latex_escape("100% & {x}") == r"100\% \& \{x\}"


def test_a_row_that_begins_with_a_bracket_is_no_argument():
    table = Table("", ("a", "b"), (("[1]", "2"),), ("left", "right"), show_header=False)
    assert "{}[1]" in render_latex([table])


@pytest.mark.parametrize("render", [render_text, render_html, render_markdown, render_latex])
def test_empty_table_shows_its_note_only(render):
    shown = render([EMPTY])
    assert "There are no fixed effects." in shown
    assert "Estimate" not in shown


def test_all_formats_show_the_same_numbers(crossed):
    tables = summary_tables(crossed.fit)
    cells = [cell for table in tables for row in table.rows for cell in row if cell]
    html = [cell for row in _parsed(render_html(tables)).rows for cell in row]
    markdown = [c for line in render_markdown(tables).splitlines() if line[:1] == "|" for c in _markdown_cells(line)]
    latex = render_latex(tables)
    text = render_text(tables)
    for cell in cells:
        assert cell in html
        assert cell in markdown
        assert cell in text
        assert latex_escape(cell) in latex


# --- summary ------------------------------------------------------------------------------------------------


def test_summary_of_sleepstudy(sleep):
    # Every number here is also printed by R's summary().
    assert sleep.summary() == str(sleep)
    for line in (
        "Linear mixed model fit by REML",
        "  Formula:  Reaction ~ Days + (Days | Subject)",
        "  Data:     180 rows, all used",
        "  -3.954  -0.463   0.023  0.463  5.179",
        "            Days          35.07      5.922   0.07",
        "  Residual               654.94     25.592",
        "  Intercept   251.405       6.825  17.00    36.84   <2e-16",
        "  Days         10.467       1.546  17.00     6.77  3.3e-06",
        "  Subject      18        10    10   10",
        sleep.certificate.verdict,
    ):
        assert line in sleep.summary().splitlines()
    assert "1743.63" in sleep.summary()


def test_summary_says_how_many_rows_were_dropped():
    full = hand_made.slopes_design()
    keep = np.ones(26, dtype=bool)
    keep[[0, 9]] = False
    fit = hand_made.dense_fit(replace(full, keep=keep), np.array([1.0, 0.1, 0.2]))
    assert "24 of 26 rows used, 2 dropped (missing values)" in MixedResult(fit).summary()


def test_summary_ends_with_notes_and_verdict():
    made = replace(hand_made.slopes_design(), notes=("column z is left out: x determines it",), dropped=("z",))
    verdict = "Not converged: try more evaluations."
    fit = hand_made.dense_fit(made, np.array([1.0, 0.1, 0.2]), certificate=hand_made.certificate(verdict=verdict))
    lines = MixedResult(fit).summary().splitlines()
    assert lines[-2:] == ["Column z is left out: x determines it.", verdict]


def test_summary_of_ml_fit_names_the_criterion():
    text = MixedResult(hand_made.slopes_fit(reml=False)).summary()
    assert "fit by maximum likelihood" in text
    assert "-2 log-lik." in text
    assert "REML" not in text


def test_summary_shows_weights():
    made = hand_made.slopes_design(weights=np.linspace(0.5, 2.0, 24))
    assert "Weights:  from 0.5 to 2" in MixedResult(hand_made.dense_fit(made, np.array([1.0, 0.1, 0.2]))).summary()


def test_summary_without_fixed_effects():
    made = hand_made.slopes_design()
    made = replace(made, X=np.empty((24, 0)), x_names=(), assign=())
    result = MixedResult(hand_made.dense_fit(made, np.array([1.0, 0.1, 0.2])))
    assert "There are no fixed effects." in result.summary()
    assert result.params.empty
    assert result.coef_table().shape == (0, 5)


def test_p_values_come_with_ddf(slopes):
    assert "P(>|t|)" in slopes.summary()
    assert "P(>|z|)" in slopes.summary("normal")
    assert coefficient_table(slopes.fit, "normal").columns[-2:] == ("z value", "P(>|z|)")
    assert coefficient_table(slopes.fit, "residual").columns[-3:] == ("df", "t value", "P(>|t|)")
    assert "Degrees of freedom: Satterthwaite." in slopes.summary()
    assert "Kenward-Roger" in slopes.summary("kenward-roger")
    with pytest.raises(OptionError, match="not known"):
        slopes.summary(ddf="welch")


def test_exact_zero_variance_is_shown_as_zero():
    table = random_effects_table(hand_made.dense_fit(hand_made.slopes_design(), np.array([0.8, 0.0, 0.0])))
    assert table.rows[1][2:] == ("0", "0", "n/a")


def test_correlation_triangle():
    fit = lme4py.lmer("score ~ Machine + (0 + Machine | Worker)", lme4py.load_dataset("Machines")).fit
    rows = random_effects_table(fit).rows
    # As R prints it: 0.80; 0.62 0.77.
    assert [row[4:] for row in rows] == [("", ""), ("0.80", ""), ("0.62", "0.77"), ("", "")]


def test_result_reports_in_every_format(slopes):
    assert slopes.to_markdown().startswith("**Linear mixed model fit by REML**")
    assert r"\begin{tabular}" in slopes.to_latex()
    assert _parsed(slopes._repr_html_()).caption
    assert repr(slopes) == "<MixedResult: y ~ x + (x | g); REML, 24 rows, criterion 78.39>"


# --- plots --------------------------------------------------------------------------------------------------


def test_caterpillar_draws_every_random_effect(slopes, agg):
    axes = slopes.plot()
    assert [axis.get_title() for axis in axes] == ["Intercept", "x"]
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == slopes.ranef()["Intercept"].sort_values().index.tolist()


def test_caterpillar_whiskers_are_normal_intervals(slopes, agg):
    axis = slopes.plot(variable="x", sort=False)
    modes, sds = slopes.ranef(conditional_se=True)
    lines = axis.containers[0].lines[2][0].get_segments()
    ends = np.array([segment[:, 0] for segment in lines])
    # Levels run from the top downwards.
    half = 1.959963985 * sds["x"].to_numpy()[::-1]
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * half, rtol=1e-6)  # the quantile has ten digits
    assert [label.get_text() for label in axis.get_yticklabels()] == modes.index.tolist()[::-1]


def test_caterpillar_into_given_axes(crossed, agg):
    _, axis = agg.subplots()
    assert crossed.plot(variable="Intercept|h", ax=axis) is axis
    with pytest.raises(OptionError, match="choose one with `variable`"):
        crossed.plot(ax=axis)


def test_residual_and_quantile_plots(slopes, agg):
    axis = slopes.plot("residuals")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), slopes.residuals("scaled"))
    axis = slopes.plot("qq")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), np.sort(slopes.residuals("scaled")))
    axis = slopes.plot("qq", variable="x")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), np.sort(slopes.ranef()["x"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "caterpilar"}, "Did you mean 'caterpillar'"),
        ({"variable": "X"}, "Did you mean 'x'"),
        ({"kind": "residuals", "variable": "x"}, "takes no `variable`"),
        ({"kind": "qq", "variable": "z"}, "no random effect 'z'"),
        ({"alpha": 2}, "alpha"),
    ],
)
def test_plot_refuses(slopes, agg, options, message):
    with pytest.raises(OptionError, match=message):
        slopes.plot(**options)
