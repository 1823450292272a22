"""Evaluation of expressions: operators, constants, errors with a caret, and nothing that runs."""

from __future__ import annotations

import timeit

import numpy as np
import pytest

from lme4py.data.column import Column
from lme4py.errors import DataError, FormulaError, Lme4Error
from lme4py.formula.evaluate import KNOWN_FUNCTIONS, evaluate
from lme4py.formula.nodes import Call, Name, Node
from lme4py.formula.syntax import parse_expression

COLUMNS = {
    "x": Column("x", "numeric", np.array([1.0, -2.0, 3.0, 0.0])),
    "y": Column("y", "numeric", np.array([2.0, 4.0, 6.0, 8.0])),
    "arm": Column("arm", "factor", np.array([0, 1, 2, 1]), ("ctl", "low", "high")),
    "other": Column("other", "factor", np.array([2, 1, 0, 1]), ("high", "low", "ctl")),
    "size": Column("size", "ordered", np.array([0, 1, 2, 1]), ("S", "M", "L")),
    "word": Column("word", "text", np.array([1, 0, 1, 0]), ("a", "b")),
    "flag": Column("flag", "boolean", np.array([1.0, 0.0, 1.0, 0.0])),
    "gap": Column("gap", "numeric", np.array([1.0, np.nan, 3.0, 4.0])),
    "a b": Column("a b", "numeric", np.array([1.0, 2.0, 3.0, 4.0])),
}


def column(name):
    if name not in COLUMNS:
        raise DataError(f"column {name!r} not found")
    return COLUMNS[name]


def run(expression, *, state=None, functions=None, getter=column):
    node = parse_expression(expression)
    return evaluate(node, getter, {} if state is None else state, functions=functions, formula=expression)


@pytest.mark.parametrize(
    ("expression", "kind", "values"),
    [
        ("x", "numeric", [1, -2, 3, 0]),
        ("`a b`", "numeric", [1, 2, 3, 4]),
        ("flag", "boolean", [1, 0, 1, 0]),
        ("(x)", "numeric", [1, -2, 3, 0]),
        ("x + y", "numeric", [3, 2, 9, 8]),
        ("x - 2 * y / 4", "numeric", [0, -4, 0, -4]),
        ("-x^2", "numeric", [-1, -4, -9, 0]),
        ("x ** 2", "numeric", [1, 4, 9, 0]),
        ("x %% 2", "numeric", [1, 0, 1, 0]),
        ("x %/% 2", "numeric", [0, -1, 1, 0]),
        ("+x", "numeric", [1, -2, 3, 0]),
        ("flag + TRUE", "numeric", [2, 1, 2, 1]),
        ("x > 0", "boolean", [1, 0, 1, 0]),
        ("0 < x", "boolean", [1, 0, 1, 0]),
        ("x != 0 & y < 7", "boolean", [1, 1, 1, 0]),
        ("x < 0 | y == 8", "boolean", [0, 1, 0, 1]),
        ("x < 0 && y == 4", "boolean", [0, 1, 0, 0]),
        ("!flag", "boolean", [0, 1, 0, 1]),
        ('arm == "low"', "boolean", [0, 1, 0, 1]),
        ('"low" != arm', "boolean", [1, 0, 1, 0]),
        ('word == "b"', "boolean", [1, 0, 1, 0]),
        ("arm == other", "boolean", [1, 1, 1, 1]),
        ('size >= "M"', "boolean", [0, 1, 1, 1]),
        ('"M" > size', "boolean", [1, 0, 0, 0]),
        ('arm %in% c("ctl", "high")', "boolean", [1, 0, 1, 0]),
        ("y %in% c(2, 8)", "boolean", [1, 0, 0, 1]),
        ("ifelse(x > 0, log(x), 0)", "numeric", [0, 0, np.log(3), 0]),
        ("ifelse(flag, TRUE, FALSE)", "boolean", [1, 0, 1, 0]),
        ("is.na(gap)", "boolean", [0, 1, 0, 0]),
        ("is.na(log(x))", "boolean", [0, 1, 0, 0]),
        ("is.na(gap) | gap > 3", "boolean", [0, 1, 0, 1]),
        ("!is.na(gap) & gap > 3", "boolean", [0, 0, 0, 1]),
        ("mean(y)", "numeric", [5, 5, 5, 5]),
        ("mean(y) > 4", "boolean", [1, 1, 1, 1]),
        ("x * NA^0", "numeric", [1, -2, 3, 0]),
    ],
)
def test_values(expression, kind, values):
    value = run(expression)
    assert value.kind == kind
    # Elementary arithmetic: the numbers are exact, but for the logarithm's last digit.
    np.testing.assert_allclose(value.values, values, rtol=1e-15)


def test_factors_pass_through():
    value = run("arm")
    assert (value.kind, value.levels) == ("factor", ("ctl", "low", "high"))
    assert value.values is COLUMNS["arm"].values
    assert run("size").kind == "ordered"
    assert run("word").kind == "factor"
    assert run("I(arm)").levels == value.levels


def test_operators_keep_matrices():
    value = run("2 * poly(x, 2, raw = TRUE) + y")
    np.testing.assert_array_equal(value.values, np.column_stack([[4, 0, 12, 8], [4, 12, 24, 8]]))
    assert value.suffixes == ("[1]", "[2]")


def test_columns_hide_constants():
    hidden = {**COLUMNS, "pi": Column("pi", "numeric", np.array([1.0, 2.0, 3.0, 4.0]))}
    assert run("pi * 2", getter=hidden.__getitem__).values.tolist() == [2, 4, 6, 8]
    np.testing.assert_array_equal(run("x + pi").values, COLUMNS["x"].values + np.pi)


def test_levels_may_be_absent_from_new_data():
    state = {}
    run('arm == "high"', state=state)
    new = {"arm": Column("arm", "factor", np.array([0, 0]), ("low",))}
    assert run('arm == "high"', state=state, getter=new.__getitem__).values.tolist() == [0, 0]
    assert run('arm %in% c("low", "ctl")', state={'arm %in% c("low", "ctl")': {}}, getter=new.__getitem__).values.all()


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("arm + 1", "column 'arm' is a factor with levels 'ctl', 'low', 'high'; arithmetic needs numbers"),
        ("-arm", "arithmetic needs numbers"),
        ("arm & flag", "arithmetic needs numbers"),
        ("I(word * 2)", "column 'word' is a factor"),
        ('x + "a"', "not 'a'"),
        ("x + c(1, 2)", r"not c\(1, 2\)"),
        ('x == "a"', "column 'x' holds numbers"),
        (
            'arm == "hi"',
            "'hi' is not a level of column 'arm'; its levels are 'ctl', 'low', 'high'. Did you mean 'high'",
        ),
        ('arm %in% c("low", "mid")', "'mid' is not a level"),
        ('arm < "low"', "without an order"),
        ("arm == x", "compare it with one level"),
        ("arm == size", "different levels"),
        ('y %in% c("a")', "holds numbers"),
        ("y %in% x", "constants"),
        ("I(x:y)", r"interaction\(a, b\)"),
        ("cbind(x, y) + poly(y, 3, raw = TRUE)", "2 and 3 columns"),
        ("I(3)", r"`I\(3\)` has no column in it"),
        ("2 * pi", "no column in it"),
        ("I(c(1, 2))", "no column"),
        ('ifelse(x > 0, "a", 1)', "both text"),
        ("mean(x) + c(x, 1)", "constants only"),
    ],
)
def test_refused(expression, words):
    with pytest.raises(FormulaError, match=words):
        run(expression)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("log(x)", r"`log\(x\)` is not finite in 2 of 4 rows, first NaN where x = -2. A logarithm"),
        (
            "sqrt(log(y) - 5) + 1",
            r"`sqrt\(log\(y\) - 5\)` is not finite in 4 of 4 rows, first NaN where y = 2",
        ),
        ("I(1 / x)", "`1/x` is not finite in 1 of 4 rows, first Inf where x = 0. A division by 0"),
        ("exp(y * 1000)", "is not finite in 4 of 4 rows, first Inf"),
        ("log(x) > 0", r"`log\(x\)` is not finite"),
        ("cut(y, c(0, 5))", "has no level in 2 of 4 rows, first where y = 6. Widen the breaks"),
        (
            'factor(arm, levels = c("low", "ctl"))',
            "no level in 1 of 4 rows, first where arm = 'high'. List every",
        ),
        ('cut(y, c(0, 5)) == "(0,5]"', r"`cut\(y, c\(0, 5\)\)` has no level"),
        ("I(x^-1)", "`x.-1` is not finite in 1 of 4 rows, first Inf"),
        ("poly(log(x + 2), 2, raw = TRUE)", r"`log\(x \+ 2\)` is not finite in 1 of 4 rows, first -Inf"),
        ("I(!flag & (sqrt(x) > 0))", "`sqrt.x.` is not finite"),
        ("x %% 0", "first NaN"),
        ("x * NA", r"`x \* NA` is not finite in 4 of 4"),
    ],
)
def test_results_that_are_not_finite(expression, words):
    with pytest.raises(FormulaError, match=words):
        run(expression)


def test_missing_input_names_the_column():
    with pytest.raises(DataError, match="column 'gap' is not finite in 1 of 4 rows"):
        run("gap + 1")


def caret(error):
    """The part of the formula that the caret marks."""
    message = str(error.value).splitlines()
    start = message[-1].index("^")
    return message[-2][start : start + message[-1].count("^")]


@pytest.mark.parametrize(
    ("expression", "marked"),
    [
        ("x + foo(y)", "foo(y)"),
        ("x + log(nosuch)", "nosuch"),
        ("y * (arm + 1)", "arm"),
        ("y + log(x)", "log(x)"),
        ("poly(x, 2, raw = 7)", "7"),
        ("poly(x, nsuch = 7)", "7"),
    ],
)
def test_caret(expression, marked):
    with pytest.raises(Lme4Error) as error:
        run(expression)
    assert caret(error) == marked


def test_unknown_column_stays_a_data_error():
    with pytest.raises(DataError, match="column 'nosuch' not found"):
        run("nosuch")
    with pytest.raises(DataError, match="column 'TRUE' not found"):
        run("`TRUE`")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("np.log(x)", r"write log\(...\)"),
        ("logg(x)", "Did you mean 'log'"),
        ("ceil(x)", "write ceiling"),
        ("quux(x)", "functions={'quux': ...}"),
        ("Q(x)", "between backquotes"),
    ],
)
def test_unknown_functions(expression, words):
    with pytest.raises(FormulaError, match=words):
        run(expression)


@pytest.mark.parametrize(
    "expression",
    [
        '__import__("os")',
        '__import__("os").system("true")',
        "x.__class__",
        "x.__class__.__bases__",
        'open("f")',
        'eval("x")',
        'exec("x")',
        'compile("x", "f", "eval")',
        'getattr(x, "y")',
        "globals()",
        "lambda: x",
        "[x for x in y]",
        "x[0]",
        "I.body(x)",
        "np.linalg.inv(x)",
        'system("true")',
        "function(x) x",
        "KNOWN_FUNCTIONS(x)",
        "log.__call__(x)",
        'f"{x}"',
    ],
)
def test_nothing_runs(expression):
    with pytest.raises((FormulaError, DataError)):
        run(expression)


def test_no_python_function_is_known():
    assert not {"eval", "exec", "open", "compile", "getattr", "__import__", "print", "input"} & set(KNOWN_FUNCTIONS)
    with pytest.raises(TypeError):
        KNOWN_FUNCTIONS["eval"] = eval


def test_users_functions():
    def mine(x, power=2.0):
        x += 0  # a copy: the data stay as they are
        return x**power

    functions = {"mine": mine, "up": lambda arm: np.array([str(level).upper() for level in arm])}
    assert run("mine(x, power = 3)", functions=functions).values.tolist() == [1, -8, 27, 0]
    assert run("mine(x) + 1", functions=functions).values.tolist() == [2, 5, 10, 1]
    assert run("up(arm)", functions=functions).levels == ("CTL", "HIGH", "LOW")
    assert run("f(flag)", functions={"f": lambda b: ~b}).kind == "boolean"
    assert run("f(x)", functions={"f": lambda x: np.column_stack([x, x])}).suffixes == ("[1]", "[2]")
    assert run("log(x)", functions={"log": lambda x: x}).values.tolist() == [1, -2, 3, 0]
    assert run("x - f(y)", functions={"f": np.max}).values.tolist() == [-7, -10, -5, -8]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x[:2], r"array of shape \(2,\); it must return one value per row \(4 rows\)"),
        (lambda x: None, "shape"),
        (lambda x: 1 / 0, "failed with ZeroDivisionError"),
        (lambda: 1, "failed with TypeError"),
        (lambda x: np.array([1j] * 4), "complex"),
        (lambda x: np.array([None] * 4), "none missing"),
        (lambda x: np.full(4, np.nan), "not finite"),
    ],
)
def test_users_functions_are_checked(function, words):
    with pytest.raises(FormulaError, match=words):
        run("f(x)", functions={"f": function})


def test_evaluation_never_changes_the_data():
    before = {name: one.values.copy() for name, one in COLUMNS.items()}
    for expression in (
        "scale(x)",
        "cut(y, 2)",
        "factor(arm)",
        "ifelse(flag, x, y)",
        "relevel(arm, 2)",
        "poly(y, 2)",
    ):
        run(expression)
    for name, values in before.items():
        np.testing.assert_array_equal(COLUMNS[name].values, values)


def test_other_nodes_are_refused():
    with pytest.raises(FormulaError, match="cannot be evaluated"):
        evaluate(Node(), column, {})
    with pytest.raises(FormulaError, match="not known"):
        evaluate(Call("nosuch", ()), column, {})


def test_a_plain_column_is_fast():
    node, state = Name("x"), {}
    seconds = min(timeit.repeat(lambda: evaluate(node, COLUMNS.__getitem__, state), number=2000, repeat=5)) / 2000
    # About one microsecond; the margin is for slow machines, yet a data frame in between would cost more.
    assert seconds < 2e-5
