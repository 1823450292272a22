"""Term algebra against R's `terms.formula`, and the reading of random-effects terms."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest

from lme4py.errors import FormulaError
from lme4py.formula import DOUBLE_BAR_NOTE, deparse, parse_formula, term_label
from lme4py.formula.nodes import Bar, Call, Formula, Name, Terms

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "terms.json").read_text(encoding="utf-8"))


def labels(terms: Terms) -> list[str]:
    return [term_label(terms, term) for term in terms.terms]


def group(bar: Bar) -> str:
    return ":".join(deparse(node) for node in bar.group)


def written(terms: Terms) -> str:
    return " + ".join(["1" if terms.intercept else "0", *labels(terms)])


def bars(text: str) -> list[tuple[str, str, str]]:
    """(terms, group, structure) of the bars of ``y ~ text``."""
    return [(written(bar.terms), group(bar), bar.structure) for bar in parse_formula("y ~ " + text).bars]


def refused(text: str, names: list[str] | None = None) -> FormulaError:
    with pytest.raises(FormulaError) as caught:
        parse_formula(text, names)
    return caught.value


def factors(formula: Formula, rows: list[str]) -> list[list[int]]:
    """R's "factors" attribute: 0 = not in the term, 1 = contrasts, 2 = one column per level."""
    table = {row: [0] * len(formula.fixed.terms) for row in rows}
    for column, (term, coding) in enumerate(zip(formula.fixed.terms, formula.fixed.coding, strict=True)):
        for index, contrasts in zip(term.variables, coding, strict=True):
            table[deparse(formula.fixed.variables[index])][column] = 1 if contrasts else 2
    return list(table.values())


@pytest.mark.parametrize("case", REFERENCE["formulas"], ids=lambda case: case["formula"])
def test_terms_as_r(case: dict[str, Any]) -> None:
    formula = parse_formula(case["formula"], REFERENCE["data_names"])
    fixed = formula.fixed
    assert labels(fixed) == case["labels"]
    assert fixed.intercept == bool(case["intercept"])
    assert [f"offset({deparse(offset)})" for offset in fixed.offsets] == case["offsets"]
    if case["labels"]:
        assert factors(formula, case["variables"]) == case["factors"]
    ours = [deparse(variable) for variable in fixed.variables]
    assert ours == [name for name in case["variables"] if name in ours]
    assert all(list(term.variables) == sorted(term.variables) for term in fixed.terms)


def test_variables_that_no_term_uses_are_dropped() -> None:
    fixed = parse_formula("y ~ b:a + c - b:a + a").fixed
    assert [deparse(variable) for variable in fixed.variables] == ["a", "c"]
    assert labels(fixed) == ["c", "a"]


def test_response() -> None:
    assert parse_formula("y ~ x").response == Name("y")
    response = parse_formula("cbind(s, n - s) ~ x").response
    assert isinstance(response, Call)
    assert deparse(response) == "cbind(s, n - s)"


def test_a_call_that_is_spelt_twice_is_one_variable() -> None:
    fixed = parse_formula("y ~ log( x ):f + log(x)").fixed
    assert labels(fixed) == ["log(x)", "log(x):f"]
    assert len(fixed.variables) == 2


def test_offsets() -> None:
    assert parse_formula("y ~ x + offset(z) + offset( z )").fixed.offsets == (Name("z"),)
    assert parse_formula("y ~ x + offset(z) - offset(z)").fixed.offsets == ()
    assert parse_formula("y ~ (x + offset(z)) + w").fixed.offsets == (Name("z"),)


def test_dot() -> None:
    names = ["Reaction", "Days", "Subject", "w"]
    formula = parse_formula("Reaction ~ . - w - Subject + (1 | Subject)", names)
    assert labels(formula.fixed) == ["Days"]
    assert [bar.label for bar in formula.bars] == ["(1 | Subject)"]
    assert labels(parse_formula("y ~ .", ["y", "body mass", "T"]).fixed) == ["`body mass`", "`T`"]
    assert labels(parse_formula("T ~ .", ["T", "x"]).fixed) == ["x"]
    assert labels(parse_formula("y ~ `.`", ["y", "x"]).fixed) == ["`.`"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("(1 | g)", [("1", "g", "us")]),
        ("x + (x | g)", [("1 + x", "g", "us")]),
        ("((1 + x) | g)", [("1 + x", "g", "us")]),
        ("((x | g))", [("1 + x", "g", "us")]),
        ("((x | g) + z) + w", [("1 + x", "g", "us")]),
        ("(x - 1 | g)", [("0 + x", "g", "us")]),
        ("(0 + f:x | g)", [("0 + f:x", "g", "us")]),
        ("(1 | g) + (0 + x | g)", [("1", "g", "us"), ("0 + x", "g", "us")]),
        ("(1 | a:b)", [("1", "a:b", "us")]),
        ("(1 | a/b)", [("1", "b:a", "us"), ("1", "a", "us")]),
        ("(1 | (a/b))", [("1", "b:a", "us"), ("1", "a", "us")]),
        ("(1 | a/b/c)", [("1", name, "us") for name in ("c:b:a", "b:a", "a")]),
        ("(1 | a/(b/c))", [("1", name, "us") for name in ("c:b:a", "b:a", "a")]),
        ("(1 | a/b:c)", [("1", name, "us") for name in ("b:c:a", "a")]),
        ("(1 | a:b/c)", [("1", name, "us") for name in ("c:a:b", "a:b")]),
        ("(1 | a*b)", [("1", name, "us") for name in ("a", "b", "a:b")]),
        ("(1 | a:a)", [("1", "a", "us")]),
        ("(1 | factor(a))", [("1", "factor(a)", "us")]),
        ("(1 | interaction(a, b))", [("1", "interaction(a, b)", "us")]),
        ("(1 | `my group`)", [("1", "`my group`", "us")]),
        ("(x || g)", [("1", "g", "us"), ("0 + x", "g", "us")]),
        ("(0 + x || g)", [("0 + x", "g", "us")]),
        ("(1 || g)", [("1", "g", "us")]),
        ("(x*f || g)", [(terms, "g", "us") for terms in ("1", "0 + x", "0 + f", "0 + x:f")]),
        (
            "(x || a/b)",
            [(terms, name, "us") for terms in ("1", "0 + x") for name in ("b:a", "a")],
        ),
        ("diag(x | g)", [("1 + x", "g", "diag")]),
        ("diag(0 + f | g)", [("0 + f", "g", "diag")]),
        ("diag((x | g))", [("1 + x", "g", "diag")]),
        ("id(x | a/b)", [("1 + x", "b:a", "id"), ("1 + x", "a", "id")]),
        ("us(x | g)", [("1 + x", "g", "us")]),
        ("z + z | g", [("1 + z", "g", "us")]),
        ("z || g", [("1", "g", "us"), ("0 + z", "g", "us")]),
        ("x", []),
    ],
)
def test_bars(text: str, result: list[tuple[str, str, str]]) -> None:
    assert bars(text) == result


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("(1 | g)", "1"),
        ("0 + (1 | g)", "0"),
        ("x + (1 | g) - 1", "0 + x"),
        ("z + z | g", "1"),
        ("(1 | g) + x*f + (0 + x | h)", "1 + x + f + x:f"),
        ("log(a | b) + (1 | g)", "1 + log(a | b)"),
        ("I(diag(a)) + diag(x | g)", "1 + I(diag(a))"),
    ],
)
def test_fixed_part_without_the_bars(text: str, fixed: str) -> None:
    assert written(parse_formula("y ~ " + text).fixed) == fixed


def test_labels_and_spans_of_bars() -> None:
    text = "y ~ x + (0+x*f || a/b) + diag( x | a:c )"
    formula = parse_formula(text)
    assert [bar.label for bar in formula.bars] == [
        *(
            "(0 + x || b:a)",
            "(0 + x || a)",
            "(0 + f || b:a)",
            "(0 + f || a)",
            "(0 + x:f || b:a)",
            "(0 + x:f || a)",
        ),
        "diag(x | a:c)",
    ]
    assert [text[slice(*bar.span)] for bar in formula.bars][-2:] == ["(0+x*f || a/b)", "diag( x | a:c )"]


def test_coding_of_bars() -> None:
    interaction = parse_formula("y ~ (f*h || g)").bars[-1].terms
    assert interaction.coding == ((False, False),)
    assert parse_formula("y ~ (f*h | g)").bars[0].terms.coding == ((True,), (True,), (True, True))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("y ~ (x || g) + (z || h)", DOUBLE_BAR_NOTE),
        ("y ~ x^2", "`x^2` means only `x`; for the power write `I(x^2)`."),
        ("y ~ x - z", "`- z` removes nothing: the formula has no such term before it."),
        ("y ~ x | g", "The bar has no parentheses, so the whole right-hand side is one random-effects term."),
    ],
)
def test_notes(text: str, note: str) -> None:
    assert parse_formula(text).notes == (note,)


@pytest.mark.parametrize("text", ["y ~ x + (x | g)", "y ~ (1 || g)", "y ~ a*b - a - 1", "y ~ (a + b)^2"])
def test_no_notes(text: str) -> None:
    assert parse_formula(text).notes == ()


@pytest.mark.parametrize(
    ("text", "marked", "word"),
    [
        ("~ x + (1 | g)", "~", "no response"),
        ("x + (1 | g)", "x + (1 | g)", "no `~`"),
        ("1 ~ x", "1", "response"),
        ("'y' ~ x", "'y'", "response"),
        (". ~ x", ".", "response"),
        ("y ~ y + x", "y", "response"),
        ("y ~ x:y", "y", "response"),
        ("log(y) ~ x + log( y )", "log( y )", "response"),
        ("y ~ (y | g)", "y", "response"),
        ("y ~ (1 | y)", "y", "response"),
        ("y ~ .", ".", "name the columns"),
        ("y ~ log(.)", ".", "inside an expression"),
        ("y ~ (. | g)", ".", "name the columns"),
        ("y ~ x + 2", "2", "I(x + 2)"),
        ("y ~ 2 * x", "2", "arithmetic"),
        ("y ~ 1:x", "1:x", "both sides"),
        ("y ~ 1 * x", "1 * x", "both sides"),
        ("y ~ x:1", "x:1", "both sides"),
        ("y ~ 1/x", "1/x", "both sides"),
        ("y ~ -a:b + a", "-a:b", "both sides"),
        ("y ~ (a + b)^1.5", "1.5", "whole number"),
        ("y ~ (a + b)^c", "c", "whole number"),
        ("y ~ (a + b)^0", "0", "whole number"),
        ("y ~ a^2^2", "2^2", "whole number"),
        ("y ~ 'x'", "'x'", "without quotes"),
        ("y ~ TRUE", "TRUE", "write `1`"),
        ("y ~ NULL + x", "NULL", "not a term"),
        ("y ~ x - (1 | g)", "(1 | g)", "cannot be subtracted"),
        ("y ~ -(1 | g)", "(1 | g)", "cannot be subtracted"),
        ("y ~ x*(1 | g)", "(1 | g)", "no interactions"),
        ("y ~ (1 | g):x", "(1 | g)", "no interactions"),
        ("y ~ (x + (1 | g))^2", "(1 | g)", "no interactions"),
        ("y ~ x:diag(1 | g)", "diag(1 | g)", "no interactions"),
        ("y ~ ((1 | a) | b)", "(1 | a)", "within another"),
        ("y ~ (1 | (a | b))", "a | b", "one bar"),
        ("y ~ x + (1 | g) | h", "(1 | g)", "within another"),
        ("y ~ x + 1 | g + 1 | h", "x + 1 | g + 1", "parentheses"),
        ("y ~ (x | a + b)", "a + b", "(x | a) + (x | b)"),
        ("y ~ (1 | a %in% b)", "a %in% b", "a:b"),
        ("y ~ (1 | a - b)", "a - b", "cannot join"),
        ("y ~ (1 | a^2)", "a^2", "write `a`"),
        ("y ~ (1 | a + 1)", "1", "must be a column"),
        ("y ~ (g | 1)", "1", "must be a column"),
        ("y ~ (1 | 'g')", "'g'", "must be a column"),
        ("y ~ (1 | .)", ".", "not a grouping factor"),
        ("y ~ (1 | TRUE)", "TRUE", "not a grouping factor"),
        ("y ~ (0 | g)", "0", "no columns"),
        ("y ~ (x - x - 1 | g)", "x - x - 1", "no columns"),
        ("y ~ (1 | g) + (1 | g)", "(1 | g)", "twice"),
        ("y ~ (1 | a/b) + (1 | a)", "(1 | a)", "twice"),
        ("y ~ (1 | a:b) + (1 | b:a)", "(1 | b:a)", "twice"),
        ("y ~ (x || g) + (1 | g)", "(1 | g)", "twice"),
        ("y ~ diag(x || g)", "diag(x || g)", "single bar"),
        ("y ~ rr(x | g, d = x)", "x", "cannot be an option"),
        ("y ~ offset(z):x", "offset(z)", "no interactions"),
        ("y ~ offset(z, 2)", "offset(z, 2)", "one expression"),
        ("y ~ x - offset(z)", "offset(z)", "offset(-(z))"),
        ("y ~ (1 + offset(z) | g)", "offset(z)", "random-effects"),
    ],
)
def test_refused(text: str, marked: str, word: str) -> None:
    error = refused(text)
    assert word in error.message
    assert text[error.start : error.end] == marked


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("(1 | a + b + c)", "(1 | a) + (1 | b) + (1 | c)"),
        ("(x | a + (b + c))", "(x | a) + (x | b) + (x | c)"),
        ("(1 | a/b + c)", "(1 | a/b) + (1 | c)"),
        ("(1 | a + b:c)", "(1 | a) + (1 | b:c)"),
        ("(1 | (a + b)/c)", "(1 | a/c) + (1 | b/c)"),
        ("(x || a + b)", "(x || a) + (x || b)"),
        ("diag(x | a + b + c)", "diag(x | a) + diag(x | b) + diag(x | c)"),
        ("(1 | a + b + a)", "(1 | a) + (1 | b)"),
    ],
)
def test_advice_about_several_grouping_factors_can_be_followed(text: str, advice: str) -> None:
    assert refused(f"y ~ {text}").message.endswith(f"write `{advice}`")
    parse_formula(f"y ~ {advice}")


def test_twice_points_at_the_second() -> None:
    assert refused("y ~ (1 | g) + (1 | g)").start == 14


SUM = "+".join(f"x{i}" for i in range(1_000))


@pytest.mark.parametrize(
    "text",
    [
        f"y ~ ({SUM})^8",
        f"y ~ ({SUM}) * ({SUM.replace('x', 'z')})",
        f"y ~ ({SUM}):({SUM})",
        "y ~ (a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p)^9",
        "y ~ " + "*".join(f"x{i}" for i in range(30)),
        "y ~ (" + "+".join(f"x{i}" for i in range(10_000)) + ")" + "*1" * 15_000,
        "y ~ " + "+".join(["".join(word) for word in product(ascii_letters, repeat=3)][:20_001]),
        "y ~ (1 | " + "*".join(f"g{i}" for i in range(20)) + ")",
        f"y ~ ({SUM} || g*h*i)",
    ],
)
def test_explosions_are_refused(text: str) -> None:
    # Without the limits these take minutes or all memory.
    with pytest.raises(FormulaError):
        parse_formula(text)


def test_a_long_sum_is_read() -> None:
    text = "y ~ " + SUM + " + (1 | g)"
    formula = parse_formula(text)
    assert len(formula.fixed.terms) == 1_000
    assert all(coding == (True,) for coding in formula.fixed.coding)


def test_many_dots_are_refused() -> None:
    names = [f"x{i}" for i in range(10_000)]
    assert "interactions" in refused("y ~ " + " + ".join(["."] * 1_000), names).message
