"""Reading and writing of formula expressions."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lme4py.errors import FormulaError
from lme4py.formula import deparse, names_in, parse_expression, parse_formula
from lme4py.formula.nodes import Argument, Binary, Call, Name, Number, Paren, Text, Unary
from lme4py.formula.syntax import MAX_DEPTH
from lme4py.formula.tokens import MAX_LENGTH

a, b, c, x = Name("a"), Name("b"), Name("c"), Name("x")


def under_caret(error: FormulaError) -> str:
    """The part of the formula that the caret marks."""
    assert error.formula is not None
    assert error.start is not None
    return error.formula[error.start : error.end]


def refused(text: str) -> FormulaError:
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a + b * c", Binary("+", a, Binary("*", b, c))),
        ("a - b - c", Binary("-", Binary("-", a, b), c)),
        ("a ^ b ^ c", Binary("^", a, Binary("^", b, c))),
        ("a ** b", Binary("^", a, b)),
        ("-a^b", Unary("-", Binary("^", a, b))),
        ("a^-b", Binary("^", a, Unary("-", b))),
        ("-a:b", Binary(":", Unary("-", a), b)),
        ("a %in% b * c", Binary("*", Binary("%in%", a, b), c)),
        ("a %in% b:c", Binary("%in%", a, Binary(":", b, c))),
        ("a / b %% c", Binary("/", a, Binary("%%", b, c))),
        ("a %/% b:c", Binary("%/%", a, Binary(":", b, c))),
        ("!a == b", Unary("!", Binary("==", a, b))),
        ("!a & b", Binary("&", Unary("!", a), b)),
        ("a + !b + c", Binary("+", a, Unary("!", Binary("+", b, c)))),
        ("a & b | c", Binary("|", Binary("&", a, b), c)),
        ("a || b && c", Binary("||", a, Binary("&&", b, c))),
        ("a > b + c", Binary(">", a, Binary("+", b, c))),
        ("(a)", Paren(a)),
        ("a ~ b", Binary("~", a, b)),
        ("~ a", Unary("~", a)),
        ("f()", Call("f", ())),
        ("f(a, k = 'u')", Call("f", (Argument(None, a), Argument("k", Text("u"))))),
        ("f(`my k` = a == b)", Call("f", (Argument("my k", Binary("==", a, b)),))),
        ("f('k' = 1)", Call("f", (Argument("k", Number(1.0)),))),
        ("f(a | b)", Call("f", (Argument(None, Binary("|", a, b)),))),
        ("True", Name("TRUE")),
        ("None", Name("NULL")),
        ("`body mass`", Name("body mass")),
        ("Informed.liking", Name("Informed.liking")),
        (".x", Name(".x")),
        ("größe", Name("größe")),
        ("'it\\'s \\n'", Text("it's \n")),
        ('"a(b"', Text("a(b")),
        ("\ta\n+\r\n b ", Binary("+", a, b)),
    ],
)
def test_expressions(text: str, node: object) -> None:
    assert parse_expression(text) == node


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("2.5", 2.5), (".5", 0.5), ("1e-3", 1e-3), ("1L", 1.0), ("2.", 2.0), ("1E+2", 100.0)],
)
def test_numbers(text: str, value: float) -> None:
    assert parse_expression(text) == Number(value)


def test_spans_and_equality_without_them() -> None:
    wide, narrow = parse_expression("log( x ) + a"), parse_expression("log(x)+a")
    assert wide == narrow
    assert hash(wide) == hash(narrow)
    assert wide.span == (0, 12)
    assert isinstance(wide, Binary)
    assert wide.right.span == (11, 12)


@pytest.mark.parametrize(
    "text",
    [
        "I(Days/2 + 1)",
        "sin(2 * pi * Time)",
        "poly(Days, 3, raw = TRUE)",
        "I(Days^2)",
        "ns(Days, knots = c(3, 6), Boundary.knots = c(0, 9))",
        "-x",
        "Days > 4",
        'relevel(arm, ref = "C")',
        "`body mass` + 4.5",
        "a %in% b",
        "a%%b",
        "a%/%b",
        "a:b",
        "a^-2",
        "(-x)^2",
        "!a",
        "a + !b",
        "a && b || c",
        "y ~ x",
        "~x",
        "f(`a b` = 2)",
        "`a\\`b`",
        "`TRUE`",
        '"quote \\" and \\\\"',
        "`my f`(x)",
    ],
)
def test_deparse_keeps_the_spelling_of_r(text: str) -> None:
    assert deparse(parse_expression(text)) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1e5", "1e+05"),
        ("100000", "1e+05"),
        ("123456", "123456"),
        ("0.0001", "1e-04"),
        ("0.00012", "0.00012"),
        ("1e-5", "1e-05"),
        ("0.1", "0.1"),
        ("1e15", "1e+15"),
        ("123456789012", "123456789012"),
        ("1e-300", "1e-300"),
        ("1234567.5", "1234567.5"),
        ("3L", "3"),
        ("0", "0"),
        ("poly( Days,3,raw=True )", "poly(Days, 3, raw = TRUE)"),
        ("'u'", '"u"'),
        ("a**2", "a^2"),
    ],
)
def test_deparse_normalises(text: str, written: str) -> None:
    assert deparse(parse_expression(text)) == written


def test_deparse_adds_parentheses_to_trees_made_by_hand() -> None:
    assert deparse(Binary("*", Binary("+", a, b), c)) == "(a + b) * c"
    assert deparse(Binary("-", a, Binary("-", b, c))) == "a - (b - c)"
    assert deparse(Binary("^", Binary("^", a, b), c)) == "(a^b)^c"
    assert deparse(Binary("^", Unary("-", a), b)) == "(-a)^b"
    assert deparse(Number(-2.0)) == "-2"


def test_names_in() -> None:
    node = parse_expression("sin(2 * pi * Time) + f(x, base = b) + C(arm, contr.sum) + x + TRUE + T")
    assert names_in(node) == ("Time", "x", "b", "arm")
    assert names_in(parse_expression("T + pi"), known=["T"]) == ("T",)
    assert names_in(parse_expression("`pi` * r")) == ("pi", "r")


@pytest.mark.parametrize(
    "text",
    [
        "C(x, Sum)",
        "C(x, contr.sum)",
        "C(x, contr.diff)",
        "C(x, contr = Sum)",
        "C(contr = Sum, x)",
        "C(x = x, Sum)",
        "C(x, Treatment(b))",
        "I(C(x, Sum))",
    ],
)
def test_contrasts_are_no_columns(text: str) -> None:
    assert names_in(parse_expression(text), known=["x", "Sum", "b"]) == ("x",)
    # Another function's second argument is a column, and so is an expression inside of C().
    assert names_in(parse_expression(f"log(x, Sum) + {text} + C(f(y, b))")) == ("x", "Sum", "y", "b")


@pytest.mark.parametrize(
    ("text", "marked", "word"),
    [
        ("y ~ x[1]", "[", "make a column first"),
        ("y ~ x + d$z", "$", "data$x"),
        ("y ~ {x}", "{", "one expression"),
        ("y ~ x; z", ";", "one expression"),
        ("y ~ d@z", "@", "name of the column"),
        ("y ~ f(\\(x) x)", "\\", "compute such a column"),
        ("y ~ x <- 3", "<-", "space"),
        ("y ~ x -> z", "->", "assigns nothing"),
        ("y := x", ":=", "assigns nothing"),
        ("y ~ stats::poly(x, 2)", "::", "without its package"),
        ("y ~ x %o% z", "%o%", "%in%"),
        ("y ~ lambda + x", "lambda", "backquotes"),
        ("y ~ function(x) x", "function", "backquotes"),
        ("y ~ __class__", "__class__", "refused"),
        ("y ~ x.__class__", "x.__class__", "refused"),
        ("y ~ `__class__`", "`__class__`", "refused"),
        ("y ~ f(__dict__ = 1)", "__dict__", "refused"),
        ("y ~ x + 'open", "'", "not closed"),
        ("y ~ `open", "`", "not closed"),
        ("y ~ x \u2212 1", "\u2212", "write `-`"),
        ("y ~ x\u200b", "\u200b", "U+200B"),
        ("y ~ cafe\u0301", "\u0301", "backquotes"),
        ("y ~ x # why", "#", "comments"),
        ("y ~ ``", "``", "no name"),
        ("y ~ 'a\\q'", "\\q", "backslash"),
        ("y ~ 1e999 * x", "1e999", "too large"),
        ("y ~ x z", "z", "operator is missing"),
        ("y ~ 2x", "x", "operator is missing"),
        ("y ~ f(x)(z)", "(", "operator is missing"),
        ("y ~ x + ", "", "after `+`"),
        ("y ~ x + * z", "*", "after `+`"),
        ("y ~ (x + z", "(", "not closed"),
        ("y ~ f(x", "(", "not closed"),
        ("y ~ x)", ")", "no opening"),
        ("y ~ ()", ")", "empty"),
        ("y ~ f(x,)", ")", "after `,`"),
        ("y ~ f(,x)", ",", "after `(`"),
        ("y ~ f(k = 1, k = 2)", "k", "twice"),
        ("y ~ f(k = )", ")", "after `=`"),
        ("y ~ x, z", ",", "comma"),
        ("y = x", "=", "write `==`"),
        ("y ~ x ~ z", "~", "only one"),
        ("~ x ~ z", "~", "only one"),
        ("y ~ f(x ~ z)", "~", "inside parentheses"),
        ("y ~ a < b < c", "<", "chained"),
        ("y ~ (1 | )", ")", "grouping factor"),
        ("y ~ ( | g)", "|", "on the left of the bar"),
        ("y ~ | g", "|", "on the left of the bar"),
        ("y ~", "", "after `~`"),
    ],
)
def test_errors_point_at_the_fault(text: str, marked: str, word: str) -> None:
    error = refused(text)
    assert under_caret(error) == marked
    assert word in error.message


def test_the_caret_stands_under_the_fault() -> None:
    lines = str(refused("y ~ x +\tz[1]")).splitlines()
    assert lines[1].index("[") == lines[2].index("^")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_formula(text: str) -> None:
    assert "empty" in refused(text).message


def test_not_a_text() -> None:
    with pytest.raises(FormulaError, match="not int"):
        parse_formula(3)  # type: ignore[arg-type]


def test_look_alikes_are_other_names() -> None:
    cyrillic = parse_expression("\u0430")
    assert cyrillic != a
    assert names_in(cyrillic) == ("\u0430",)
    assert names_in(parse_expression("`cafe\u0301`")) == ("cafe\u0301",)


def nested(depth: int) -> str:
    return "(" * depth + "x" + ")" * depth


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH + 1),
        nested(20_000),
        "f(" * 2_000 + "x" + ")" * 2_000,
        "-" * 50_000 + "x",
        "!" * 50_000 + "x",
        "x" + "^x" * 40_000,
        "I(x" + " + x" * 20_000 + ")",
        "x > 1" + " + x" * 20_000,
        "x" + " & x" * 20_000,
        "(1 | g" + "/g" * 20_000 + ")",
        "((1 | g)" + " + x" * 200 + ") & z",
        "(" * 50_000,
        "~" * 50_000,
        "'" * 49_999,
        "a|" * 40_000 + "a",
        "(" + "a|" * 40_000 + "a)",
    ],
)
def test_deep_nesting_is_an_error(text: str) -> None:
    # Quadratic work on 100,000 characters would take minutes.
    with pytest.raises(FormulaError):
        parse_formula("y ~ " + text)


def test_nesting_below_the_limit_is_read() -> None:
    formula = parse_formula("y ~ " + nested(MAX_DEPTH - 5))
    assert formula.fixed.variables == (x,)
    deep = parse_expression("I(x" + " + x" * (MAX_DEPTH - 5) + ")")
    assert parse_expression(deparse(deep)) == deep
    assert pickle.loads(pickle.dumps(deep)) == deep


def test_length_limit() -> None:
    assert str(MAX_LENGTH) in refused("y ~ x" + " " * MAX_LENGTH).message


PIECES = """a b x y g f ( ) ( ) + - * / : ^ ~ | || & ! == < > , = 0 1 2 2.5 1e-7 'u' "v" `ab` . log( I( diag(
us( offset( c( %in% %% TRUE pi -1 1L [ $ <- ; \\"""
OPERATORS = """+ - * / : ^ %in% %% %/% == != < <= > >= & | || &&"""
pieces = st.sampled_from(PIECES.split())
# Random pieces rarely make a formula; these start like one and so reach the algebra more often.
formula_like = st.lists(pieces, max_size=25).map(lambda words: "y ~ " + " ".join(words))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(pieces, max_size=30).map(" ".join), formula_like))
def test_any_text_is_a_formula_or_a_formula_error(text: str) -> None:
    formula = None
    with contextlib.suppress(FormulaError):
        formula = parse_formula(text, ["a", "b", "y"])
    # Nothing but a FormulaError is caught, so reaching this line is the test.
    assert formula is None or formula.text == text


names = st.one_of(
    st.sampled_from(["a", "x.1", ".z", "_u", "T", "TRUE", "body mass", "lambda", "a`b", "a\\b", "größe", "True", "1x"]),
    st.text(min_size=1, max_size=6).filter(lambda name: "__" not in name),
)
leaves = st.one_of(
    names.map(lambda name: Name(name, True)),
    st.floats(min_value=0, allow_infinity=False, allow_nan=False).map(Number),
    st.text(max_size=8).map(Text),
)


def grow(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    operators = st.sampled_from(OPERATORS.split())
    inner = children.map(Paren)  # type: ignore[arg-type]
    arguments = st.lists(children.map(lambda value: Argument(None, value)), max_size=3).map(tuple)  # type: ignore[arg-type]
    return st.one_of(
        inner,
        st.builds(Unary, st.sampled_from("-+!"), inner),
        st.builds(Binary, operators, inner, inner),
        st.builds(Call, names, arguments),
        st.builds(lambda name, value: Call("f", (Argument(name, value),)), names, children),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(leaves, grow, max_leaves=12))
def test_deparsed_trees_are_read_back(node: object) -> None:
    assert parse_expression(deparse(node)) == node  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=12).map(" ".join))
def test_deparsed_texts_are_read_back(text: str) -> None:
    try:
        node = parse_expression(text)
    except FormulaError:
        return
    assert parse_expression(deparse(node)) == node
