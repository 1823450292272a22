"""The table model, its four renderers, the summary, tidy data frames and comparisons."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import hand_made
import numpy as np
import pytest

import lme4py
from lme4py.errors import OptionError
from lme4py.report.summaries.summary import coefficient_table, random_effects_table, summary_tables
from lme4py.results import MixedResult
from lme4py.tables.html import render_html
from lme4py.tables.latex import escape as latex_escape
from lme4py.tables.latex import render_latex
from lme4py.tables.markdown import render_markdown
from lme4py.tables.numbers import format_column, format_integer, format_p_value, format_value
from lme4py.tables.table import Table
from lme4py.tables.text import render_text

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
    ):
        assert line in sleep.summary().splitlines()
    # The last sentence, wrapped at the width of the summary.
    assert " ".join(sleep.summary().split()).endswith(sleep.certificate.verdict)
    assert "1743.63" in sleep.summary()


def test_summary_says_how_many_rows_were_dropped():
    full = hand_made.slopes_design()
    keep = np.ones(26, dtype=bool)
    keep[[0, 9]] = False
    fit = hand_made.dense_fit(replace(full, keep=keep), np.array([1.0, 0.1, 0.2]))
    assert "24 of 26 rows used, 2 dropped (missing values)" in MixedResult(fit).summary()


def test_summary_ends_with_notes_and_verdict():
    made = hand_made.slopes_design(notes=("column z is left out: x determines it",), dropped=("z",))
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
    made = made.with_predictor(X=np.empty((24, 0)), names=(), assign=())
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


# --- tidy, glance, augment ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cbpp():
    """The classic generalised model."""
    return lme4py.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp"), family="binomial"
    )


@pytest.fixture(scope="module")
def wine():
    """The classic ordinal model."""
    return lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine"))


def test_tidy_names_the_random_part(sleep):
    table = sleep.tidy(effects="ran_pars").set_index("term")
    assert table.loc["sd__Days", "estimate"] == pytest.approx(np.sqrt(sleep.variance_components["var(Days)"]))
    squares = sleep.tidy(effects="ran_pars", scales="vcov").set_index("term")
    assert squares.index.tolist() == ["var__Intercept", "var__Days", "cov__Intercept.Days", "var__Observation"]
    assert squares.loc["cov__Intercept.Days", "estimate"] == sleep.variance_components["cov(_cons,Days)"]


def test_tidy_of_levels(sleep):
    table = sleep.tidy(effects=("fixed", "ran_vals"), conf_int=True)
    assert table.columns.tolist()[:4] == ["effect", "group", "level", "term"]
    modes, sds = sleep.ranef(conditional_se=True)
    own = table[(table["effect"] == "ran_vals") & (table["term"] == "Days")].set_index("level")
    assert own.index.tolist() == modes.index.tolist()
    np.testing.assert_array_equal(own["estimate"], modes["Days"])
    np.testing.assert_allclose(own["conf_high"] - own["estimate"], 1.959963985 * sds["Days"], rtol=1e-8)  # ten digits
    coefficients = sleep.tidy(effects="ran_coefs")
    assert coefficients["estimate"].tolist()[:18] == sleep.coef()["Intercept"].tolist()


def test_tidy_limits_belong_to_the_tests(sleep):
    table = sleep.tidy(conf_int=True, conf_level=0.9).set_index("term")
    limits = sleep.conf_int(0.1, ddf="satterthwaite")
    # 1 - 0.9 is not exactly 0.1.
    np.testing.assert_allclose(table.loc[limits.index, ["conf_low", "conf_high"]], limits, rtol=1e-12)
    random = sleep.conf_int(0.1, parm="random")
    np.testing.assert_allclose(table[table["effect"] == "ran_pars"][["conf_low", "conf_high"]], random, rtol=1e-12)


def test_tidy_by_profile(sleep):
    table = sleep.tidy(effects="ran_pars", conf_int=True, conf_method="profile").set_index("term")
    # R's confint(): 14.38, 37.72 for the intercepts, printed with two decimals.
    assert table.loc["sd__Intercept", ["conf_low", "conf_high"]].astype(float).round(2).tolist() == [14.38, 37.72]


def test_tidy_exponentiates(cbpp):
    table = cbpp.tidy(effects="fixed", conf_int=True, exponentiate=True).set_index("term")
    ratios = cbpp.odds_ratios()
    np.testing.assert_allclose(table["estimate"], ratios["odds_ratio"], rtol=1e-14)  # rounding only
    np.testing.assert_allclose(table["conf_low"], ratios["lower"], rtol=1e-12)  # rounding only
    np.testing.assert_allclose(table["std_error"], table["estimate"] * cbpp.bse, rtol=1e-14)  # rounding only


def test_tidy_of_an_ordinal_model(wine):
    table = wine.tidy(conf_int=True)
    cuts = table[table["effect"] == "threshold"]
    assert cuts["term"].tolist() == ["1|2", "2|3", "3|4", "4|5"]
    assert cuts["estimate"].tolist() == list(wine.fit.thresholds)
    assert wine.to_dict()["thresholds"][0]["term"] == "1|2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effects": "ran_val"}, "Did you mean 'ran_vals'"),
        ({"effects": ()}, "empty"),
        ({"scales": "sd"}, "'sdcor' or 'vcov'"),
        ({"conf_int": True, "conf_level": 95}, "`conf_level` is 95"),
    ],
)
def test_tidy_refuses(sleep, options, message):
    with pytest.raises(OptionError, match=message):
        sleep.tidy(**options)


def test_glance_agrees_with_the_result(cbpp):
    row = cbpp.glance().iloc[0]
    assert (row["family"], row["link"], row["nAGQ"]) == ("binomial", "logit", 1)
    for name in ("n_obs", "log_likelihood", "deviance", "aic", "bic", "df_resid", "sigma"):
        assert row[name] == getattr(cbpp, name)


def test_augment_of_a_weighted_linear_model_agrees_with_r(sleepstudy):
    weights = 1.0 + np.arange(1, 181) % 3
    table = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy, weights=weights).augment(sleepstudy)
    # lme4 1.1-31: predict(), residuals(), hatvalues(), cooks.distance() and the fields of its response module, first
    # rows; its optimiser leaves the sixth digit open.
    expected = {
        "fitted": [255.1923, 272.9184, 290.6444],
        "resid": [-5.632313, -14.213676, -39.843840],
        "hat": [0.23369986, 0.25779782, 0.06383075],
        "cooksd": [0.01067635, 0.11992990, 0.04888799],
        "mu": [255.1923, 272.9184, 290.6444],
        "sqrt_xwt": [1.414214, 1.732051, 1.0],
        "sqrt_rwt": [1.414214, 1.732051, 1.0],
        "weights": [2.0, 3.0, 1.0],
        "wtres": [-7.965293, -24.618810, -39.843840],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name].iloc[:3], values, rtol=2e-4, err_msg=name)
    assert table.columns.tolist()[:3] == sleepstudy.columns.tolist()


def test_augment_of_a_generalised_model_agrees_with_r(cbpp):
    table = cbpp.augment()
    expected = {
        "fitted": [-0.8087134, -1.8006384, -1.9369296],
        "resid": [-1.437708, 0.988472, 2.356688],
        "fixed": [-1.398343, -2.390268, -2.526559],
        "mu": [0.3081647, 0.1417734, 0.1259856],
        "sqrt_xwt": [1.7276542, 1.2083394, 0.9954992],
        "sqrt_rwt": [8.103473, 9.930984, 9.040690],
        "weights": [14.0, 12.0, 9.0],
        "wtres": [-1.339566, 1.074797, 2.879088],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name].iloc[:3], values, rtol=5e-4, err_msg=name)  # R's optimiser
    assert (table["eta"] == table["fitted"]).all()


def _with_gaps():
    data = lme4py.load_dataset("sleepstudy").sample(frac=1.0, random_state=4)
    data.loc[data.index[[3, 50]], "Reaction"] = np.nan
    return data.rename(index=lambda label: f"row {label}")


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_augment_pairs_rows_that_are_sorted_and_missing(na_action):
    data = _with_gaps()
    result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", data, na_action=na_action)
    table = result.augment(data)
    assert len(table) == (180 if na_action == "exclude" else 178)
    np.testing.assert_allclose(table["Reaction"] - table["fitted"], table["resid"], atol=1e-9)  # rounding of 300
    bare = result.augment()
    assert bare.index.equals(table.index)
    np.testing.assert_array_equal(bare["Days"].dropna(), table.loc[bare["Days"].notna(), "Days"])
    assert (bare["Subject"].dropna().astype(str) == table.loc[bare["Subject"].notna(), "Subject"].astype(str)).all()


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_augment_of_rows_with_the_same_label(na_action):
    data = _with_gaps().set_axis(["a", "b"] * 90, axis=0)
    table = lme4py.lmer("log(Reaction) ~ Days + (1 | Subject)", data, na_action=na_action).augment()
    seen = table.dropna()
    assert len(seen) == 178
    np.testing.assert_allclose(np.log(seen["Reaction"]), seen["fitted"] + seen["resid"], rtol=1e-12)  # rounding only
    np.testing.assert_array_equal(seen["log(Reaction)"], np.log(seen["Reaction"]))


def test_augment_of_other_data(sleep, sleepstudy):
    table = sleep.augment(newdata=sleepstudy.head(4), prefix=".")
    assert table.columns.tolist() == [*sleepstudy.columns, ".fitted", ".fixed", ".mu"]
    np.testing.assert_array_equal(table[".fixed"], sleep.predict(sleepstudy.head(4), include_random=False))


def test_augment_takes_any_data_frame(sleep, sleepstudy):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"Subject": sleepstudy["Subject"].astype(str).tolist(), "y": sleepstudy["Reaction"]})
    assert sleep.augment(frame)["fitted"].tolist() == sleep.fit.fitted.tolist()


def test_augment_takes_factors_back_from_the_design():
    data = lme4py.load_dataset("Contraception")
    result = lme4py.glmer("use ~ age + urban + livch + (1 | district)", data, family="binomial")
    table = result.augment()
    for name in ("age", "urban", "livch", "district"):
        assert table[name].astype(str).tolist() == data[name].astype(str).tolist() or name == "age"
    np.testing.assert_array_equal(table["age"], data["age"])
    sums = lme4py.glmer(
        "use ~ urban * livch + (1 | district)", data, contrasts={"livch": "contr.helmert"}, nAGQ=0
    ).augment()
    assert sums["livch"].astype(str).tolist() == data["livch"].astype(str).tolist()


def test_augment_of_an_ordinal_model(wine):
    table = wine.augment()
    assert table["rating"].astype(str).tolist() == lme4py.load_dataset("wine")["rating"].astype(str).tolist()
    assert "resid" not in table


def test_augment_refuses(sleep, sleepstudy):
    with pytest.raises(OptionError, match="5 rows but the model was fitted to 180"):
        sleep.augment(sleepstudy.head(5))
    with pytest.raises(OptionError, match="'fitted'"):
        sleep.augment(sleepstudy.assign(fitted=0.0))
    with pytest.raises(OptionError, match="not both"):
        sleep.augment(sleepstudy, newdata=sleepstudy)


# --- several models -----------------------------------------------------------------------------------------


def test_compare(sleep, sleepstudy):
    other = lme4py.lmer("Reaction ~ 1 + (1 | Subject)", sleepstudy)
    found = lme4py.compare(other, sleep, names=["null", "slopes"])
    lines = {line[: line.find("  ", 3)].strip(): line for line in str(found).splitlines()}
    assert "10.467 (1.546)" in lines["Days"]
    assert lines["SD (Days | Subject)"].split()[-1] == "5.922"
    assert lines["Method"].split() == ["Method", "REML", "REML"]
    assert "cannot be compared" in str(found)
    frame = found.to_frame()
    assert frame.loc[("fixed", "Days"), ("slopes", "std_error")] == sleep.bse["Days"]
    assert frame.loc[("model", "AIC"), ("null", "estimate")] == other.aic
    for text in (found._repr_html_(), found.to_markdown(), found.to_latex()):
        assert "SD (Residual)" in text
    assert r"$10.467$ ($1.546$)" in found.to_latex()


def test_compare_of_different_kinds(sleep, cbpp, wine):
    found = lme4py.compare(sleep, cbpp, wine)
    assert "different responses or rows" in str(found)
    assert "1|2" in str(found)
    assert "ordinal (logit)" in str(found)


def test_compare_says_nothing_where_likelihoods_compare(sleepstudy):
    fits = [lme4py.lmer(f"Reaction ~ {x} + (1 | Subject)", sleepstudy, reml=False) for x in ("1", "Days")]
    assert "cannot be compared" not in str(lme4py.compare(*fits))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([], {}, "no model"),
        ([3], {}, "got int"),
        (["sleep"], {"names": ["a", "b"]}, "one name for each of the 1"),
        (["sleep", "sleep"], {"names": ["a", "a"]}, "twice"),
    ],
)
def test_compare_refuses(sleep, arguments, options, message):
    with pytest.raises(OptionError, match=message):
        lme4py.compare(*(sleep if one == "sleep" else one for one in arguments), **options)


def test_plug_in_protocol_of_maketables(sleep, wine):
    table = sleep.__maketables_coef_table__
    assert table.columns.tolist() == ["b", "se", "t", "p", "ci95l", "ci95u"]
    assert table.loc["Days", "b"] == sleep.params["Days"]
    assert table["p"].tolist() == sleep.pvalues.tolist()
    assert wine.__maketables_coef_table__.index.tolist()[-1] == "4|5"
    assert sleep.__maketables_depvar__ == "Reaction"
    assert sleep.__maketables_stat__("N") == 180
    assert sleep.__maketables_stat__("SD (Residual)") == sleep.sigma
    assert sleep.__maketables_stat__("r2") is None
    keys = sleep.__maketables_default_stat_keys__
    assert set(keys) <= set(sleep.__maketables_stat_labels__)
    # The names of statsmodels, by which maketables finds a result first.
    assert (sleep.nobs, sleep.llf, sleep.endog_names) == (180, sleep.log_likelihood, "Reaction")


def test_latex_sets_tables_apart(sleep):
    text = sleep.to_latex()
    assert text.count(r"\par\medskip") == len(summary_tables(sleep.fit, "satterthwaite")) - 1


def test_compare_shows_correlations_with_two_decimals(sleep):
    found = lme4py.compare(sleep)
    line = next(line for line in str(found).split("\n") if "Cor. (" in line)
    assert line.split()[-1] == "0.07"


def test_summaries_show_the_shares_of_the_variance(sleep):
    text = str(sleep.summary())
    shares = sleep.r_squared()
    line = next(line for line in text.splitlines() if "R² marginal" in line)
    numbers = text.splitlines()[text.splitlines().index(line) + 1].split()
    own = shares["var_random"] / (shares["var_random"] + shares["var_residual"])
    assert numbers == [f"{shares['marginal']:.3f}", f"{shares['conditional']:.3f}", f"{own:.3f}"]
    assert numbers == next(
        line.split() for line in str(sleep.slim().summary()).splitlines() if line.split()[:1] == numbers[:1]
    )
    # A zero part has the measure of its own; effects of categories have none, and their summary no such table.
    zero = lme4py.glmer(
        "count ~ mined + (1 | site)", lme4py.load_dataset("Salamanders"), "poisson", ziformula="~ mined"
    )
    lines = str(zero.summary()).splitlines()
    place = next(i for i, line in enumerate(lines) if "R² marginal" in line)
    assert lines[place + 1].split()[0] == f"{zero.r_squared()['marginal']:.3f}"
    nominal = lme4py.clmm("rating ~ temp + (1 | judge)", lme4py.load_dataset("wine"), nominal="~ contact")
    assert "R² marginal" not in str(nominal.summary())
    # With several factors it is the share of all of them; icc() gives one at a time, and says which.
    assert "ICC, all effects" not in str(sleep.summary())
    both = lme4py.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lme4py.load_dataset("Penicillin"))
    assert "ICC, all effects" in str(both.summary())
