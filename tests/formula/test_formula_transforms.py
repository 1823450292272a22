"""Functions of formulas against R's numbers, on the training data and on new data."""

from __future__ import annotations

import json
import pickle
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lme4py.data.column import Column
from lme4py.errors import DataError, FormulaError, Lme4Warning
from lme4py.formula.evaluate import evaluate
from lme4py.formula.factors import _equal_breaks
from lme4py.formula.syntax import parse_expression

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "transforms.json").read_text(encoding="utf-8"))
DATA = REFERENCE["data"]


def numeric(name, values):
    return Column(name, "numeric", np.array(values, dtype=np.float64))


def text(name, values, levels=None, kind="factor"):
    levels = tuple(sorted(set(values))) if levels is None else levels
    return Column(name, kind, np.array([levels.index(value) for value in values]), levels)


def getter(*columns):
    known = {column.name: column for column in columns}

    def column(name):
        if name not in known:
            raise DataError(f"column {name!r} not found")
        return known[name]

    return column


X = np.array(DATA["x"])
COLUMN = getter(
    *(numeric(name, DATA[name]) for name in ("x", "z", "p", "k", "year")),
    text("f", DATA["f"]),
    Column("b", "boolean", (X > 3).astype(float)),
)


def run(expression, column=COLUMN, state=None):
    return evaluate(parse_expression(expression), column, {} if state is None else state, formula=expression)


def ids(case):
    return case["call"]


@pytest.mark.parametrize("case", REFERENCE["numeric"], ids=ids)
def test_numeric(case):
    values = run(case["call"]).values
    expected = np.array(case["values"], dtype=np.float64)
    # Only the last digits of elementary functions may differ between libraries.
    np.testing.assert_allclose(values.reshape(expected.shape), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("case", REFERENCE["trained"], ids=ids)
def test_trained_transforms(case):
    state = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        train = run(case["call"], state=state)
    state = pickle.loads(pickle.dumps(state))
    # R and this code compute the same polynomials by different steps, whose rounding grows with the degree.
    np.testing.assert_allclose(train.values.reshape(np.shape(case["train"])), case["train"], rtol=0, atol=1e-10)
    for which in ("new", "far"):
        x = np.array(DATA[which])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Lme4Warning)
            values = run(case["call"], getter(numeric("x", x), numeric("year", 1990 + 4 * x)), state).values
        expected = np.array(case[which])
        np.testing.assert_allclose(values.reshape(expected.shape), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", REFERENCE["factors"], ids=ids)
def test_factors(case):
    state = {}
    value = run(case["call"], state=state)
    levels = [str(level).replace("False", "FALSE").replace("True", "TRUE") for level in value.levels]
    assert levels == case["levels"]
    assert value.values.tolist() == case["codes"]
    assert value.kind == ("ordered" if case["ordered"] else "factor")
    # On new data (the first three rows alone) the same levels come out in the same order.
    few = getter(*(COLUMN(name).take(np.arange(3)) for name in ("x", "k", "f", "b")))
    again = run(case["call"], few, state)
    assert again.levels == value.levels
    assert again.values.tolist() == case["codes"][:3]


def test_suffixes():
    assert run("poly(x, 3)").suffixes == ("[1]", "[2]", "[3]")
    assert run("bs(x)").suffixes == run("ns(x, df = 3)").suffixes == ("[1]", "[2]", "[3]")
    assert run("cbind(x, log(z + 5))").suffixes == ("[x]", "[log(z + 5)]")
    assert run("cbind(one = x, two = z)").suffixes == ("[one]", "[two]")
    assert run("cbind(site = x, x = z)").suffixes == ("[site]", "[x]")
    assert run("cbind(x, poly(z, 2))").suffixes == ("[x]", "[1]", "[2]")


def test_poly_is_orthonormal():
    basis = run("poly(year, 4)").values
    # Orthonormal columns, up to rounding.
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(basis.sum(axis=0), 0, atol=1e-12)


def test_natural_spline_is_straight_beyond_the_boundary():
    state = {}
    run("ns(x, df = 4)", state=state)
    beyond = run("ns(x, df = 4)", getter(numeric("x", [11.0, 12.0, 13.0, -3.0, -2.0, -1.0])), state).values
    # Second differences of a straight line vanish, up to rounding.
    np.testing.assert_allclose(np.diff(beyond[:3], n=2, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(beyond[3:], n=2, axis=0), 0, atol=1e-12)


def test_b_spline_beyond_the_boundary_warns_with_the_numbers():
    state = {}
    run("bs(x)", state=state)
    with pytest.warns(Lme4Warning, match=r"2 of 3 values lie outside the boundary knots 0.3 and 10"):
        run("bs(x)", getter(numeric("x", [0.0, 5.0, 11.0])), state)


@pytest.mark.parametrize("case", REFERENCE["trained"] + REFERENCE["factors"], ids=ids)
@pytest.mark.filterwarnings("ignore::lme4py.errors.Lme4Warning")
def test_new_data_without_rows(case):
    state = {}
    trained = run(case["call"], state=state)
    empty = getter(*(COLUMN(name).take(np.arange(0)) for name in ("x", "year", "k", "f", "b")))
    value = run(case["call"], empty, state)
    assert value.values.shape == (0, *trained.values.shape[1:])
    assert (value.levels, value.suffixes) == (trained.levels, trained.suffixes)


def test_python_spellings():
    np.testing.assert_array_equal(run("poly(x, 2, raw=True)").values, run("poly(x, degree = 2, raw = TRUE)").values)
    np.testing.assert_array_equal(
        run("cut(x, c(0.3, 2.5, 10), include_lowest=True)").values,
        run("cut(x, c(.3, 2.5, 10), incl = T)").values,
    )


def test_scale_of_a_matrix():
    values = run("scale(cbind(x, z))").values
    # Means and variances of standardized columns, up to rounding.
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(values.std(axis=0, ddof=1), 1, atol=1e-14)
    assert run("center(x)").values.sum() == pytest.approx(0, abs=1e-13)  # rounding
    np.testing.assert_array_equal(run("standardize(x)").values, run("scale(x)").values)


def test_summaries_keep_the_training_value():
    state = {}
    run("I(x - mean(x))", state=state)
    values = run("I(x - mean(x))", getter(numeric("x", [0.0])), state).values
    assert values[0] == pytest.approx(-X.mean(), rel=1e-15)  # one subtraction


def test_unseen_levels_stand_after_the_known_ones():
    state = {}
    assert run("factor(k)", state=state).levels == (1, 2, 4)
    value = run("factor(k)", getter(numeric("k", [3, 1, 2, 7])), state)
    assert value.levels == (1, 2, 4, 3, 7)
    assert value.values.tolist() == [3, 0, 1, 4]


def test_levels_keep_their_types():
    assert run("factor(b)").levels == (False, True)
    assert run("factor(k)").levels == (1, 2, 4)
    assert run("factor(k / 2)").levels == (0.5, 1.0, 2.0)


def test_cut_into_codes():
    assert run("cut(x, c(0, 5, 10), labels = FALSE)").values.tolist() == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2]


def test_cut_merges_intervals_of_the_same_label():
    value = run('cut(x, c(0, 2, 5, 10), labels = c("end", "middle", "end"))')
    assert value.levels == ("end", "middle")
    assert value.values.tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("breaks", "levels"),
    [
        # As R 4.2 labels them: no sign on zero, Inf as wide as -Inf, and numbers where 12 digits are too few.
        ("c(-1, -0, 11)", ("(-1,0]", "(0,11]")),
        ("c(-Inf, 1234.5, Inf)", ("(-Inf,1.23e+03]", "(1.23e+03, Inf]")),
        ("c(-1, 0, 1e-13, 11)", ("(-1,0]", "(0,1e-13]", "(1e-13,11]")),
        ("c(0, 1, 1 + 1e-13, 11)", ("Range_1", "Range_2", "Range_3")),
    ],
)
def test_cut_labels(breaks, levels):
    assert run(f"cut(x, {breaks})").levels == levels


@pytest.mark.parametrize("low", [0.0, -2.0, 1e9])
def test_cut_of_a_constant_makes_equal_pieces(low):
    state = {}
    run("cut(x, 4)", getter(numeric("x", [low, low])), state)
    edges = _equal_breaks(*state["cut(x, 4)"]["range"], 4)
    reach = abs(low) / 1000 or 1e-3
    # Sums of a large and a small number: off by the rounding of the large one.
    np.testing.assert_allclose(edges - low, reach * np.linspace(-1, 1, 5), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("seed", range(6))
def test_labels_have_the_digits_that_the_breaks_need(seed):
    rng = np.random.default_rng(seed)
    for size in (2, 5, 40, 3000):
        scale = 10.0 ** rng.integers(-8, 9)
        breaks = np.unique(np.concatenate([scale * rng.normal(size=size), rng.normal(size=size).round(seed)]))
        # R's rule, by trying: as few digits as tell all breaks apart, from 3 to 12.
        tried = ([f"{b + 0.0:.{p}g}" for b in breaks] for p in range(3, 13))
        spelled = next((texts for texts in tried if len(set(texts)) == len(texts)), None)
        listed = ", ".join(repr(float(b)) for b in breaks)
        levels = run(f"cut(x, c({listed}))", getter(numeric("x", 0.5 * (breaks[1:] + breaks[:-1])))).levels
        if spelled is None:
            assert levels == tuple(f"Range_{i}" for i in range(1, len(breaks)))
        else:
            assert levels == tuple(f"({a},{b}]" for a, b in pairwise(spelled))


def test_a_million_intervals():
    x = np.linspace(0.0, 1.0, 50)
    levels = run("cut(x, 1e6)", getter(numeric("x", x))).levels
    assert len(set(levels)) == len(levels) == 1_000_000
    assert levels[:2] == ("(-0.001,1e-06]", "(1e-06,2e-06]")
    with pytest.raises(FormulaError, match="makes 10000000 intervals; give at most 1000000"):
        run("cut(x, 1e7)", getter(numeric("x", x)))
    with pytest.raises(FormulaError, match="makes 1000000000 numbers; give at most"):
        run("cut(x, seq(0, 1, length.out = 1e9))", getter(numeric("x", x)))


def test_interactions_of_many_levels():
    a, b = ([f"{letter}{i}" for i in range(2000)] for letter in "ab")
    column = getter(text("a", a), text("b", b[::-1]))
    value = run("interaction(a, b, drop = TRUE)", column)
    assert len(value.levels) == 2000
    pairs = zip(a, b[::-1], strict=True)
    assert [value.levels[code] for code in value.values] == [f"{one}.{other}" for one, other in pairs]
    with pytest.raises(FormulaError, match=r"has 4000000 combinations of levels.*write drop = TRUE"):
        run("interaction(a, b)", column)


def test_cut_without_a_range():
    with pytest.raises(FormulaError, match="column 'x' has no finite value"):
        run("cut(x, 3)", getter(numeric("x", [])))


def test_text_becomes_numbers():
    column = getter(text("dose", ["10", "5", "10"]), text("word", ["a", "b", "a"], kind="text"))
    assert run("as.numeric(as.character(dose))", column).values.tolist() == [10, 5, 10]
    with pytest.raises(FormulaError, match=r"as.numeric\(as.character"):
        run("as.numeric(dose)", column)
    with pytest.raises(FormulaError, match="holds text"):
        run("as.numeric(word)", column)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("C(f, contr.sum)", "contr.sum"),
        ("C(f, Sum)", "contr.sum"),
        ("C(f, helmert)", "contr.helmert"),
        ("C(f, Poly)", "contr.poly"),
        ("C(f, Diff)", "contr.diff"),
        ("C(f, contr.SAS)", "contr.SAS"),
        ('C(f, "contr.sum")', "contr.sum"),
        ("C(f, contr.treatment())", "contr.treatment"),
        ('C(f, Treatment("b"))', "contr.treatment('b')"),
        ('C(f, Treatment(reference="c"))', "contr.treatment('c')"),
        ("C(f, contr.treatment(base = 2))", "contr.treatment('b')"),
        ("C(k, Treatment(4))", "contr.treatment('4')"),
        ("C(f)", None),
    ],
)
def test_contrasts(expression, kind):
    value = run(expression)
    assert value.contrasts == kind
    assert value.kind == "factor"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("poly(x, 0)", "'degree' must be a whole number >= 1, not 0"),
        ("poly(x, 2.5)", "whole number"),
        ("poly(k, 3)", r"poly\(\): degree 3 needs at least 4 distinct values, but column 'k' has 3"),
        ("poly(x, z, degree = 2)", "one variable only"),
        ("poly(x, 2, raww = TRUE)", "poly.. has no argument 'raww'.*Did you mean 'raw'"),
        ("poly(x, 2, raw = 3)", "'raw' must be TRUE or FALSE, not 3"),
        ("poly(f, 2)", "column 'f' is a factor with levels 'a', 'b', 'c', 'd'"),
        ("poly()", "argument 'x' is missing; write poly"),
        ("bs(x, df = 2)", "df = 2 is too small; this spline needs at least 3"),
        ("bs(x, df = 5, knots = 3)", "'df' or 'knots', not both"),
        ("bs(x, knots = c(3, 60))", "must lie between the boundary knots 0.3 and 10"),
        ("ns(pmin(x, 3), df = 4)", "equal the largest, 3, that a knot falls on it"),
        ("ns(x, Boundary.knots = 1)", "two different numbers"),
        ("ns(0 * x)", "only the value 0"),
        ("ns(x, 3, 4, FALSE, c(0, 1), 9)", "at most 5 arguments"),
        ("scale(0 * x)", "does not vary"),
        ("scale(x, c(1, 2))", "2 numbers for 1 columns"),
        ("scale(3)", "is a constant; give a column"),
        ("log(x, base = 1)", "'base' must be positive and not 1"),
        ("log(x, base = z)", "'base' must be one number"),
        ("log(cbind(x, z), 2, 3)", "at most 2 arguments"),
        ("log(f)", "this function needs numbers"),
        ("round(x, 1.5)", "'digits' must be a whole number"),
        ("qnorm(p, sd = 0)", "'sd' must be positive"),
        ("quantile(x, 2)", "between 0 and 1"),
        ("cut(x, c(1, 1, 2))", "not all different"),
        ("cut(x, 1)", ">= 2"),
        ("cut(x, c())", "'breaks' is empty"),
        ('cut(x, 3, labels = c("a", "b"))', "2 labels for 3 intervals"),
        ("cut(f, 3)", "this function needs numbers"),
        ('relevel(f, ref = "e")', "'e' is not a level of column 'f'; its levels are 'a', 'b', 'c', 'd'"),
        ('relevel(x, ref = "a")', "not a factor; write factor"),
        ('relevel(ordered(f), ref = "a")', "is ordered"),
        ("relevel(factor(k), ref = 2 + 2)", "4 could mean position 4 or the level 4"),
        ("relevel(f)", "argument 'ref' is missing"),
        ("factor(k, levels = c(1, 2, 2))", "names a level twice"),
        ('factor(k, labels = c("a", "b"))', "2 labels for 3 levels"),
        ("droplevels(x)", "not a factor"),
        ("interaction(f)", "two or more factors"),
        ("C(f, contr.sun)", "Did you mean 'contr.sum'"),
        ("C(f, contr.sum(2))", "takes no arguments here"),
        ('C(f, Treatment("z"))', "'z' is not a level"),
        ("C(f, Treatment(b))", 'in quotes: "b"'),
        ("C(f, 3)", "must be contrasts"),
        ("c(x, z)", "constants only"),
        ('bs(x, knots = c(1, "a"))', "mixes text and numbers"),
        ('bs(x, knots = "a")', "'knots' must be numbers"),
        ("bs(x, knots = seq(0, 5, by = -1))", "change 'by'"),
        ("ifelse(x > 3, f, 0)", "both numbers"),
        ("pmin()", "at least one column"),
        ("lag(x)", "order of the rows"),
        ("cbind()", "needs columns"),
    ],
)
def test_refused(expression, words):
    with pytest.raises(FormulaError, match=words):
        run(expression)
