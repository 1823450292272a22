"""From a formula and data to the arrays of a model, and back again on new data."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from reference_data import load_reference

from lme4py.data import Column, read_frame
from lme4py.design import Design, lformula, new_fixed, new_random
from lme4py.design.rank import dependent_columns
from lme4py.errors import DataError, DesignError, FormulaError, Lme4Error, OptionError, RankWarning
from lme4py.fits.linear.steps import lmm_criterion

# Columns that R drops too are left out with a warning, of which one test is about.
pytestmark = pytest.mark.filterwarnings("ignore::lme4py.RankWarning")


@pytest.fixture
def sleep() -> pd.DataFrame:
    return load_reference("sleepstudy_x")


@pytest.fixture
def small() -> pd.DataFrame:
    """Twelve rows, labels 10, 20, ...; three groups; a factor with an unused level."""
    n = 12
    return pd.DataFrame(
        {
            "y": np.arange(n, dtype=float) ** 1.5,
            "x": np.tile([0.0, 1.0, 3.0, 4.0], 3),
            "f": pd.Categorical(["a", "b", "c"] * 4, categories=["a", "unused", "b", "c"]),
            "g": pd.Categorical(["u"] * 4 + ["v"] * 4 + ["w"] * 4, categories=["w", "v", "none", "u"]),
            "b": [True, False, True, True] * 3,
            "t": ["hi", "lo"] * 6,
            "k": np.repeat([3, 1, 2], 4),
            "w": np.linspace(0.5, 2.0, n),
        },
        index=10 * np.arange(1, n + 1),
    )


def with_missing(data: pd.DataFrame, **rows: list[int]) -> pd.DataFrame:
    data = data.copy()
    for column, positions in rows.items():
        data.iloc[positions, data.columns.get_loc(column)] = np.nan
    return data


# Missing values ---------------------------------------------------------------------------------------------


def test_one_mask_over_all_columns_of_the_formula(small: pd.DataFrame) -> None:
    data = with_missing(small, y=[0], x=[1], f=[2], g=[3], w=[4])
    design = lformula("y ~ x + (1 | g)", data)
    assert_array_equal(np.flatnonzero(~design.keep), [0, 1, 3])
    assert design.n_obs == design.X.shape[0] == design.terms[0].codes.size == 9
    design = lformula("y ~ x + f + (1 | g)", data, weights="w")
    assert_array_equal(np.flatnonzero(~design.keep), [0, 1, 2, 3, 4])
    assert design.weights is not None
    assert_array_equal(design.weights, data["w"].to_numpy()[5:])


def test_missing_entries_of_arrays_count(small: pd.DataFrame) -> None:
    weights = np.ones(12)
    weights[5] = np.nan
    offset = np.zeros(12)
    offset[7] = np.nan
    design = lformula("y ~ x + (1 | g)", small, weights=weights, offset=offset)
    assert_array_equal(np.flatnonzero(~design.keep), [5, 7])


def test_index_is_kept_for_all_rows(small: pd.DataFrame) -> None:
    design = lformula("y ~ x + (1 | g)", with_missing(small, x=[0]), na_action="exclude")
    assert list(design.index) == list(small.index)
    assert design.na_action == "exclude"
    assert design.keep.size == 12


def test_raise_counts_the_missing_values(small: pd.DataFrame) -> None:
    data = with_missing(small, y=[0, 1], x=[1])
    with pytest.raises(DataError, match=r"2 of 12 rows have missing values \(y: 2, x: 1\)"):
        lformula("y ~ x + (1 | g)", data, na_action="raise")
    assert lformula("y ~ x + (1 | g)", small, na_action="raise").n_obs == 12


def test_no_rows(small: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no rows"):
        lformula("y ~ x + (1 | g)", small.iloc[:0])
    with pytest.raises(DataError, match=r"12 of 12 rows .*no row is left"):
        lformula("y ~ x + (1 | g)", with_missing(small, x=list(range(12))))


def test_na_action_is_checked(small: pd.DataFrame) -> None:
    with pytest.raises(OptionError, match=r"na_action is 'omitt'\. Did you mean 'omit'"):
        lformula("y ~ x + (1 | g)", small, na_action="omitt")  # type: ignore[arg-type]


# Backends ---------------------------------------------------------------------------------------------------


def to_polars(data: pd.DataFrame) -> pl.DataFrame:
    """Only Enum columns have levels in a fixed order in polars."""
    levels = {name: pl.Enum(list(data[name].cat.categories)) for name in ("f", "g")}
    return pl.from_pandas(data).cast(levels)


CONVERT = {
    "polars": to_polars,
    "polars-lazy": lambda data: to_polars(data).lazy(),
    "pyarrow": pa.Table.from_pandas,
    "dict": lambda data: {name: data[name] for name in data.columns},
}


@pytest.mark.parametrize("backend", CONVERT)
def test_all_backends_give_the_same_design(backend: str, small: pd.DataFrame) -> None:
    data = with_missing(small, x=[2], g=[5])
    formula = "y ~ x * f + b + t + (x + b | g) + (1 | k:t)"
    expected = lformula(formula, data, weights="w")
    design = lformula(formula, CONVERT[backend](data), weights="w")
    assert same_design(design, expected)


def same_design(one: Design, other: Design) -> bool:
    arrays = [(one.y, other.y), (one.X, other.X), (one.keep, other.keep), (one.weights, other.weights)]
    for left, right in zip(one.terms, other.terms, strict=True):
        arrays += [(left.values, right.values), (left.codes, right.codes)]
        if (left.columns, left.group, left.levels) != (right.columns, right.group, right.levels):
            return False
    return one.x_names == other.x_names and all(np.array_equal(left, right) for left, right in arrays)


# Columns ----------------------------------------------------------------------------------------------------


def test_names_are_formulaics(small: pd.DataFrame) -> None:
    design = lformula("y ~ x + f + b + t + (0 + f | g)", small)
    assert design.x_names == ("Intercept", "x", "f[T.b]", "f[T.c]", "b[T.True]", "t[T.lo]")
    assert design.assign == (0, 1, 2, 2, 3, 4)
    assert design.fixed_labels == ("x", "f", "b", "t")
    assert design.terms[0].columns == ("f[a]", "f[b]", "f[c]")


def test_first_variable_of_a_term_varies_fastest(sleep: pd.DataFrame) -> None:
    design = lformula("Reaction ~ 0 + arm:cond + (1 | Subject)", sleep)
    assert design.x_names[:4] == ("arm[A]:cond[lo]", "arm[B]:cond[lo]", "arm[C]:cond[lo]", "arm[A]:cond[hi]")
    product = (sleep["arm"] == "B").to_numpy() * (sleep["cond"] == "lo").to_numpy()
    assert_array_equal(design.X[:, 1], product.astype(float))


def test_without_intercept_the_first_factor_is_coded_in_full(small: pd.DataFrame) -> None:
    assert lformula("y ~ 0 + x + b + f + (1 | g)", small).x_names == (
        *("x", "b[False]", "b[True]"),
        *("f[T.b]", "f[T.c]"),
    )
    # The same holds where a factor first occurs in an interaction; x is then the sum of the three columns.
    nested = lformula("y ~ 0 + x + x:f + (1 | g)", small)
    assert nested.x_names == ("x", "x:f[a]", "x:f[b]")
    assert nested.dropped == ("x:f[c]",)


def test_backquoted_columns_keep_their_name(small: pd.DataFrame) -> None:
    data = small.rename(columns={"x": "my x", "g": "my g"})
    design = lformula("y ~ `my x` + log(`my x` + 1) + (`my x` | `my g`)", data)
    assert design.x_names == ("Intercept", "my x", "log(`my x` + 1)")
    assert (design.terms[0].group, design.terms[0].columns) == ("my g", ("Intercept", "my x"))


def test_contrasts_argument(small: pd.DataFrame) -> None:
    design = lformula("y ~ f + t + (f | g)", small, contrasts={"f": "contr.sum"})
    assert design.x_names == ("Intercept", "f[S.a]", "f[S.b]", "t[T.lo]")
    assert_array_equal(design.X[:3, 1:3], [[1, 0], [0, 1], [-1, -1]])
    # lme4 applies the argument to X alone.
    assert design.terms[0].columns == ("Intercept", "f[T.b]", "f[T.c]")
    matrix = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]) - 0.5
    own = lformula("y ~ f + (1 | g)", small, contrasts={"f": matrix})
    assert own.x_names == ("Intercept", "f[1]", "f[2]")
    assert_array_equal(own.X[:3, 1:], matrix)


def test_contrasts_of_something_else(small: pd.DataFrame) -> None:
    with pytest.raises(OptionError, match=r"'ff', which is not in the formula\. Did you mean 'f'"):
        lformula("y ~ f + (1 | g)", small, contrasts={"ff": "contr.sum"})
    with pytest.raises(OptionError, match="'x', which is not a factor"):
        lformula("y ~ f + x + (1 | g)", small, contrasts={"x": "contr.sum"})
    with pytest.raises(OptionError, match="type str"):
        lformula("y ~ f + (1 | g)", small, contrasts="contr.sum")  # type: ignore[arg-type]
    design = lformula("y ~ x + (t | g)", small, contrasts={"t": "contr.sum"})
    assert design.notes == ("The contrasts for 't' have no effect: the argument is for fixed effects only.",)


def test_factor_with_one_level_left(small: pd.DataFrame) -> None:
    data = small[small["f"] == "a"]
    with pytest.raises(DesignError, match=r"'f' has only one level \('a'\)"):
        lformula("y ~ f + (1 | g)", data)
    full = lformula("y ~ 0 + f + (1 | g)", data)
    assert full.x_names == ("f[a]",)


def test_a_factor_with_too_many_levels_is_refused() -> None:
    n = 20_002
    data = {"y": np.arange(n), "id": [f"i{i // 2}" for i in range(n)], "g": np.arange(n) % 7}
    with pytest.raises(DesignError, match=r"'id' has 10001 levels.*\(1 \| id\)"):
        lformula("y ~ id + (1 | g)", data)


# Response, weights, offset ----------------------------------------------------------------------------------


def test_responses(small: pd.DataFrame) -> None:
    assert_array_equal(lformula("b ~ x + (1 | g)", small).y, small["b"].to_numpy(dtype=float))
    assert_array_equal(lformula("cbind(y, w) ~ x + (1 | g)", small).y, small[["y", "w"]].to_numpy())
    assert lformula("log(y + 1) ~ x + (1 | g)", small).response_name == "log(y + 1)"
    assert lformula("y ~ x + (1 | g)", small.assign(y=2.0)).y.tolist() == [2.0] * 12


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ("t", r"response 't' is not numeric: it is text or a factor with 2 levels \('hi', 'lo'\)"),
        ("f", "response 'f' is not numeric"),
        ("cbind(y, w, x)", "has 3 columns"),
        ("poly(y, 2)", "has 2 columns; give one, or cbind"),
    ],
)
def test_responses_that_are_refused(response: str, message: str, small: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=message):
        lformula(f"{response} ~ x + (1 | g)", small)


def test_infinite_values_are_counted(small: pd.DataFrame) -> None:
    data = small.copy()
    data.iloc[[1, 4], 0] = np.inf
    with pytest.raises(DataError, match="response 'y' has 2 infinite"):
        lformula("y ~ x + (1 | g)", data)
    with pytest.raises(DataError, match="column 'y' of the fixed effects has 2 infinite"):
        lformula("x ~ y + (1 | g)", data)
    with pytest.raises(DataError, match=r"column 'y' of \(y \| g\) has 2 infinite"):
        lformula("x ~ 1 + (y | g)", data)
    with pytest.raises(DataError, match="grouping variable 'y' has 2 infinite"):
        lformula("x ~ 1 + (1 | y)", data)
    with pytest.raises(DataError, match="2 infinite"):
        lformula("x ~ 1 + offset(y) + (1 | g)", data)


def test_values_near_the_largest_number_are_finite(small: pd.DataFrame) -> None:
    # The sum of the column overflows, the column does not.
    assert lformula("y ~ x + (1 | g)", small.assign(x=small["x"] * 4e307)).X.max() == 1.6e308


def test_weights(small: pd.DataFrame) -> None:
    by_name = lformula("y ~ x + (1 | g)", small, weights="w").weights
    by_array = lformula("y ~ x + (1 | g)", small, weights=small["w"].tolist()).weights
    assert_array_equal(by_name, small["w"])
    assert_array_equal(by_array, small["w"])
    bad = np.ones(12)
    bad[[2, 3]], bad[7] = 0.0, -1.0
    with pytest.raises(DataError, match="weights hold 1 negative and 2 zero"):
        lformula("y ~ x + (1 | g)", small, weights=bad)
    with pytest.raises(DataError, match="'ww' not found"):
        lformula("y ~ x + (1 | g)", small, weights="ww")
    with pytest.raises(DataError, match="11 values but the data have 12 rows"):
        lformula("y ~ x + (1 | g)", small, weights=np.ones(11))
    with pytest.raises(DataError, match="not numeric"):
        lformula("y ~ x + (1 | g)", small, weights="t")


def test_offsets_add_up(small: pd.DataFrame) -> None:
    design = lformula("y ~ offset(x) + offset(2 * x) + (1 | g)", small, offset="w")
    assert design.offset is not None
    # Three numbers added in one order or another: an ulp.
    assert design.offset == pytest.approx((3 * small["x"] + small["w"]).to_numpy(), rel=1e-15)
    assert design.x_names == ("Intercept",)
    assert lformula("y ~ x + (1 | g)", small).offset is None
    with pytest.raises(DataError, match="offset 't' is not numeric"):
        lformula("y ~ offset(t) + (1 | g)", small)
    with pytest.raises(DataError, match="the offset 't' is not numeric"):
        lformula("y ~ 1 + (1 | g)", small, offset="t")


# Rank -------------------------------------------------------------------------------------------------------


def test_later_columns_of_a_dependent_set_are_dropped(small: pd.DataFrame) -> None:
    data = small.assign(z=3 * small["x"] - 1, zero=0.0, constant=7.0)
    with pytest.warns(RankWarning, match="3 columns are left out of the fixed effects .*: zero, z, constant"):
        design = lformula("y ~ zero + x + z + constant + w + (1 | g)", data)
    assert design.x_names == ("Intercept", "x", "w")
    assert design.dropped == ("zero", "z", "constant")
    assert design.assign == (0, 2, 5)
    assert design.notes[0].startswith("3 columns are left out")
    assert "zero, z, constant" in design.notes[0]
    assert lformula("y ~ 0 + constant + f + (1 | g)", data).dropped == ("f[c]",)


def test_rank_does_not_depend_on_scale(small: pd.DataFrame) -> None:
    data = small.assign(tiny=small["w"] * 1e-200, huge=small["x"] * 1e200)
    design = lformula("y ~ tiny + huge + x + (1 | g)", data)
    assert design.dropped == ("x",)


@pytest.mark.parametrize(("ratio", "dropped"), [(1e-5, []), (1e-6, []), (1e-8, [2]), (1e-12, [2])])
def test_rank_tolerance_is_that_of_r(ratio: float, dropped: list[int]) -> None:
    """A column of which one step leaves less than 1e-7 counts as dependent."""
    rng = np.random.default_rng(1)
    x, e = rng.normal(size=(2, 100))
    assert dependent_columns(np.column_stack([np.ones(100), x, x + ratio * e]), True) == dropped
    assert dependent_columns(np.column_stack([np.ones(100), 2000 + x, 2000 + x + ratio * e]), True) == dropped


def test_rank_does_not_depend_on_the_origin() -> None:
    """Beside a constant a covariate may be shifted: R drops the cubic of years about 2000, and a time in seconds."""
    rng = np.random.default_rng(1)
    x, e = rng.integers(-10, 11, size=60), rng.normal(size=60)
    for origin in (0.0, 20.0, 2000.0, 10_000.0):
        powers = np.column_stack([(origin + x) ** k for k in range(4)])
        assert dependent_columns(powers, True) == []
        # Without that column the last one is determined.
        assert dependent_columns(np.column_stack([powers, powers @ [1.0, 2.0, 3.0, 4.0]]), True) == [4]
    seconds = np.column_stack([np.ones(60), 1.7e9 + x])
    assert dependent_columns(seconds, True) == []
    groups = np.eye(3)[rng.integers(0, 3, 60)]
    assert dependent_columns(np.column_stack([groups, 1.7e9 + x]), False) == []
    # What is left of it has no digits: rounding of the numbers.
    assert dependent_columns(np.column_stack([np.ones(60), 1 + 1e-14 * e]), True) == [1]
    assert dependent_columns(np.column_stack([(1e6 + x) ** k for k in range(4)]), True) == [3]


def test_cheap_and_careful_rank_check_agree() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=(60, 4))
    mixed = base @ rng.normal(size=(4, 7))
    assert dependent_columns(mixed, False) == [4, 5, 6]
    assert dependent_columns(mixed[:3], False) == [3, 4, 5, 6]
    assert dependent_columns(np.empty((5, 0)), False) == []


def test_no_fixed_effects(small: pd.DataFrame) -> None:
    design = lformula("y ~ 0 + (1 | g)", small)
    assert design.X.shape == (12, 0)
    assert design.x_names == ()


def test_more_coefficients_than_observations(small: pd.DataFrame) -> None:
    data = small.assign(id=[f"r{i}" for i in range(12)])
    with pytest.raises(DesignError, match=r"12 fixed-effects coefficients .* only 12 observations"):
        lmm_criterion(lformula("y ~ id + (1 | g)", data))
    assert lformula("y ~ id + (1 | g)", data).X.shape == (12, 12)


# Random-effects terms ---------------------------------------------------------------------------------------


def test_levels_keep_their_order_and_lose_the_unused(small: pd.DataFrame) -> None:
    design = lformula("y ~ x + (1 | g)", small)
    assert design.terms[0].levels == ("w", "v", "u")
    assert_array_equal(design.terms[0].codes, [2] * 4 + [1] * 4 + [0] * 4)
    assert design.n_groups == {"g": 3}


def test_numbers_and_booleans_group(small: pd.DataFrame) -> None:
    data = small.assign(half=small["k"] / 2, big=small["k"] * 10**9)
    for column, levels in {
        "k": (1, 2, 3),
        "half": (0.5, 1.0, 1.5),
        "big": (10**9, 2 * 10**9, 3 * 10**9),
    }.items():
        term = lformula(f"y ~ x + (1 | {column})", data).terms[0]
        assert term.levels == levels
        assert [type(level) for level in term.levels] == [type(level) for level in levels]
        assert_array_equal(term.codes, [2] * 4 + [0] * 4 + [1] * 4)
    assert lformula("y ~ x + (1 | b)", data).terms[0].levels == (False, True)


@pytest.mark.parametrize("n", [100, 30_000])
def test_numbers_far_apart_group(n: int) -> None:
    numbers = np.random.default_rng(4).choice([-0.25, 3.0, 1e12, 7e5], size=n)
    term = lformula("y ~ 1 + (1 | g)", {"y": numbers, "g": numbers}).terms[0]
    assert term.levels == (-0.25, 3.0, 7e5, 1e12)
    assert_array_equal(np.array(term.levels)[term.codes], numbers)


def test_interactions_hold_what_occurs(small: pd.DataFrame) -> None:
    term = lformula("y ~ x + (1 | t:k)", small).terms[0]
    assert term.group == "t:k"
    assert term.levels == ("hi:1", "hi:2", "hi:3", "lo:1", "lo:2", "lo:3")
    labels = [f"{t}:{k}" for t, k in zip(small["t"], small["k"], strict=True)]
    assert [term.levels[code] for code in term.codes] == labels
    nested = lformula("y ~ x + (1 | g/t)", small.iloc[[0, 1, 2, 4, 6, 8, 10, 11]]).terms
    assert [term.group for term in nested] == ["t:g", "g"]
    assert nested[0].levels == ("hi:w", "hi:v", "hi:u", "lo:w", "lo:u")


@pytest.mark.parametrize("n", [5_000, 30_000])
def test_interactions_of_many_levels(n: int) -> None:
    """The table of combinations is too large to be filled; the result must not change."""
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 3000, size=(2, n))
    term = lformula("y ~ 1 + (1 | a:b)", {"y": a * 1.0, "a": a, "b": b}).terms[0]
    assert [term.levels[code] for code in term.codes] == [f"{i}:{j}" for i, j in zip(a, b, strict=True)]
    pairs = [tuple(map(int, level.split(":"))) for level in term.levels]
    assert all(left < right for left, right in pairwise(pairs))


@pytest.mark.parametrize(
    ("bars", "groups"),
    [
        ("(1 | arm) + (1 | Subject)", ["Subject", "arm"]),
        ("(1 | Subject) + (1 | arm)", ["Subject", "arm"]),
        # lme4 reverses an ascending sort, so ties come out reversed.
        ("(1 | cond) + (1 | Subject) + (0 + Days | Subject)", ["Subject Days", "Subject Intercept", "cond"]),
        ("(1 | Subject) + (0 + Days | Subject) + (1 | cond)", ["Subject Intercept", "Subject Days", "cond"]),
    ],
)
def test_order_of_terms(bars: str, groups: list[str], sleep: pd.DataFrame) -> None:
    terms = lformula(f"Reaction ~ Days + {bars}", sleep).terms
    found = [f"{term.group} {term.columns[0]}" for term in terms]
    assert [name if " " in want else name.split()[0] for name, want in zip(found, groups, strict=True)] == groups


def test_structures(sleep: pd.DataFrame) -> None:
    design = lformula("Reaction ~ Days + diag(Days | Subject) + id(0 + arm | cond:Subject)", sleep)
    assert [(term.structure.name, term.n_theta) for term in design.terms] == [("homdiag", 1), ("diag", 2)]


def test_double_bar_with_a_factor_has_a_note(sleep: pd.DataFrame) -> None:
    assert any("diag(f | g)" in note for note in lformula("Reaction ~ arm + (arm || Subject)", sleep).notes)
    assert lformula("Reaction ~ Days + (Days || Subject)", sleep).notes == ()


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ x + (1 | id)", "'id' .* has 12 levels for 12 observations"),
        ("y ~ x + (time | pair)", r"\(=12\) <= number of random effects \(=12\) for term \(time \| pair\)"),
    ],
)
def test_terms_that_cannot_be_told_from_the_residuals(formula: str, message: str, small: pd.DataFrame) -> None:
    data = small.assign(id=range(12), pair=np.arange(12) // 2, time=np.arange(12) % 2)
    design = lformula(formula, data)
    with pytest.raises(DesignError, match=message):
        lmm_criterion(design)


def test_a_factor_needs_two_levels(small: pd.DataFrame) -> None:
    with pytest.raises(DesignError, match=r"'one' of \(1 \| one\) has only one level \('only'\).*at least 2 levels"):
        lformula("y ~ x + (1 | one)", small.assign(one="only"))


def test_as_many_random_effects_as_rows_can_be_identified(small: pd.DataFrame) -> None:
    # Slopes of a covariate that differs between the pairs, and an effect for every row beside unequal weights.
    data = small.assign(id=range(12), pair=np.arange(12) // 2, time=np.arange(12.0) ** 2)
    slopes = lformula("y ~ x + (time | pair)", data)
    rows = lformula("y ~ x + (1 | id)", data, weights=np.arange(1.0, 13.0))
    for design in (slopes, rows):
        assert lmm_criterion(design).identification.complete
    with pytest.raises(DesignError, match="12 levels for 12 observations"):
        lmm_criterion(lformula("y ~ x + (1 | id)", data, weights=np.full(12, 3.0)))


# Formula errors ---------------------------------------------------------------------------------------------


def test_random_term_is_required(small: pd.DataFrame) -> None:
    with pytest.raises(FormulaError, match=r"no random-effects term.*\(1 \| group\)"):
        lformula("y ~ x", small)
    assert lformula("y ~ x", small, require_random=False).terms == ()


def test_unknown_columns_have_suggestions(sleep: pd.DataFrame) -> None:
    for formula in ("Reaction ~ days + (1 | Subject)", "Reaction ~ log(days + 1) + (1 | Subject)"):
        with pytest.raises(Lme4Error, match=r"'days' not found.*'Days'"):
            lformula(formula, sleep)
    with pytest.raises(Lme4Error, match=r"'Subjct' not found.*'Subject'"):
        lformula("Reaction ~ Days + (1 | Subjct)", sleep)


def test_formula_must_be_text(small: pd.DataFrame) -> None:
    with pytest.raises(FormulaError, match="type int"):
        lformula(1, small)  # type: ignore[arg-type]


def test_computed_grouping_factor(sleep: pd.DataFrame) -> None:
    with pytest.raises(FormulaError, match=r"factor\(subj_int\) is computed from a column"):
        lformula("Reaction ~ Days + (1 | factor(subj_int))", sleep)
    design = lformula("Reaction ~ subj_int + (1 | factor(subj_int))", sleep)
    assert design.n_groups == {"factor(subj_int)": 18}


def test_grouping_by_several_columns_at_once(sleep: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"'poly\(Days, 2\)' has 2 columns"):
        lformula("Reaction ~ Days + (1 | poly(Days, 2))", sleep)


def test_own_functions(small: pd.DataFrame) -> None:
    design = lformula("y ~ double(x) + (1 | g)", small, functions={"double": lambda x: 2 * x})
    assert_array_equal(design.X[:, 1], 2 * small["x"])


# Replay on new data -----------------------------------------------------------------------------------------

REPLAYED = [
    "Reaction ~ Days * arm + (Days | Subject)",
    "Reaction ~ 0 + arm:cond + late + offset(off) + (late + arm || Subject)",
    "log(Reaction) ~ poly(Days, 2) * arm_chr + (scale(Days) | Subject/cond)",
    "Reaction ~ bs(Days, df = 4) + C(arm, contr.sum) + factor(subj_int) + (ns(Days, 2) | arm_chr:Subject)",
    "Reaction ~ cut(Days, 3) + I(Days > 4) + relevel(arm, ref = 'C') + (1 | subj_int) + (1 | late)",
    "Reaction ~ Days + I(2 * Days) + arm + arm_chr + (1 | cond:Subject)",
    "Reaction ~ subj_int + (1 | factor(subj_int)) + (1 | cut(Days, 2):cond) + Days",
    "Reaction ~ 0 + (1 | Subject)",
]


@pytest.mark.parametrize("formula", REPLAYED)
def test_training_data_replay_to_the_same_arrays(formula: str, sleep: pd.DataFrame) -> None:
    design = lformula(formula, sleep, offset="w")
    recipe = pickle.loads(pickle.dumps(design.recipe))
    X, offset = new_fixed(recipe, read_frame(sleep))
    assert_array_equal(X, design.X)
    assert_array_equal(offset, design.offset)
    for i, term in enumerate(design.terms):
        values, codes = new_random(recipe, read_frame(sleep), i)
        assert_array_equal(values, term.values)
        assert_array_equal(codes, term.codes)


@pytest.mark.parametrize("formula", REPLAYED)
def test_a_few_rows_replay_as_in_the_whole(formula: str, sleep: pd.DataFrame) -> None:
    """Fewer levels, fewer distinct numbers, text for factors: each row must not notice."""
    design = lformula(formula, sleep)
    rows = [171, 3, 44, 44]
    part = sleep.iloc[rows].astype({"arm": str, "Subject": str, "cond": str})
    X, _ = new_fixed(design.recipe, read_frame(part.drop(columns="Reaction")))
    assert_array_equal(X, design.X[rows])
    for i, term in enumerate(design.terms):
        values, codes = new_random(design.recipe, read_frame(part.drop(columns="Reaction")), i)
        assert_array_equal(values, term.values[rows])
        assert_array_equal(codes, term.codes[rows])


def test_unseen_groups_have_no_code(sleep: pd.DataFrame) -> None:
    recipe = lformula("Reaction ~ Days + (1 | Subject) + (1 | arm:cond)", sleep).recipe
    new = {
        "Days": [1.0, 2.0, 3.0, 4.0],
        "Subject": ["308", "new", None, "309"],
        "arm": ["A", "B", "new", "C"],
        "cond": ["lo", None, "hi", "hi"],
    }
    assert_array_equal(new_random(recipe, read_frame(new), 0)[1], [0, -1, -1, 1])
    assert_array_equal(new_random(recipe, read_frame(new), 1)[1], [0, -1, -1, 5])


def test_unseen_combinations_have_no_code(small: pd.DataFrame) -> None:
    data = small.iloc[[0, 1, 2, 3, 4, 6, 8, 9, 10]]  # no v:lo
    recipe = lformula("y ~ 1 + (1 | g:t)", data).recipe
    new = {"g": ["v", "v", "u", "w"], "t": ["lo", "hi", "lo", "lo"]}
    assert recipe.bars[0].grouping.levels == ("w:hi", "w:lo", "v:hi", "u:hi", "u:lo")
    assert_array_equal(new_random(recipe, read_frame(new), 0)[1], [-1, 2, 4, 1])


def test_unseen_levels_of_fixed_factors_are_refused(small: pd.DataFrame) -> None:
    recipe = lformula("y ~ f + t + (f | g)", small).recipe
    with pytest.raises(DataError, match=r"'t' has 1 level\(s\) in the new data .*'mid'"):
        new_fixed(recipe, read_frame({"f": ["a", "b"], "t": ["hi", "mid"]}))
    # Level "unused" was known to the training data, but no row had it.
    unused = read_frame({"f": ["a", "unused"], "t": ["hi", "lo"]})
    with pytest.raises(DataError, match=r"'f' has 1 level\(s\) .*'unused'"):
        new_fixed(recipe, unused)
    with pytest.raises(DataError, match=r"'f' has 1 level\(s\) .*'unused'"):
        new_random(recipe, unused, 0)
    # A level that only the list of categories has does no harm.
    listed = pd.DataFrame({"f": pd.Categorical(["a"], categories=["z", "a"]), "t": ["hi"]})
    assert_array_equal(new_fixed(recipe, read_frame(listed))[0], [[1, 0, 0, 0]])


def test_labels_of_another_type_are_explained(small: pd.DataFrame) -> None:
    recipe = lformula("y ~ k + (1 | g)", small.assign(k=small["k"].astype(str))).recipe
    with pytest.raises(DataError, match="of another type when the model was fitted"):
        new_fixed(recipe, read_frame({"k": [1, 2]}))


def test_kinds_of_new_columns(small: pd.DataFrame) -> None:
    recipe = lformula("y ~ x + b + (1 | g)", small).recipe
    X, _ = new_fixed(recipe, read_frame({"x": [1, 2], "b": [1, 0]}))
    assert_array_equal(X, [[1, 1, 1], [1, 2, 0]])
    with pytest.raises(DataError, match="'x' of the new data is text or a factor, but it was numeric"):
        new_fixed(recipe, read_frame({"x": ["1", "2"], "b": [True, False]}))
    with pytest.raises(DataError, match="'b' of the new data holds 2, but it was boolean"):
        new_fixed(recipe, read_frame({"x": [1, 2], "b": [1, 2]}))


def test_missing_values_in_new_data(small: pd.DataFrame) -> None:
    recipe = lformula("y ~ x + t + offset(w) + (x | g)", small).recipe
    new = {
        "x": [1.0, np.nan, 3.0, 4.0],
        "t": ["hi", "hi", None, "lo"],
        "w": [1, 2, 3, None],
        "g": ["u", "v", "w", None],
    }
    X, offset = new_fixed(recipe, read_frame(new))
    assert_array_equal(np.isnan(offset), [False, True, True, True])
    assert_array_equal(np.isnan(X).any(axis=1), [False, True, True, True])
    assert_array_equal(X[0], [1, 1, 0])
    values, codes = new_random(recipe, read_frame(new), 0)
    assert_array_equal(np.isnan(values).any(axis=1), [False, True, False, False])
    assert_array_equal(codes, [2, 1, 0, -1])
    everything = {name: [None, None] for name in ("t", "g")} | {"x": [np.nan] * 2, "w": [np.nan] * 2}
    assert np.isnan(new_fixed(recipe, read_frame(everything))[0]).all()


def test_missing_columns_in_new_data(small: pd.DataFrame) -> None:
    recipe = lformula("y ~ x + (1 | g)", small).recipe
    with pytest.raises(DataError, match=r"'x' not found.*'X'"):
        new_fixed(recipe, read_frame({"X": [1.0]}))
    with pytest.raises(DataError, match="'g' not found"):
        new_random(recipe, read_frame({"x": [1.0]}), 0)


def test_offset_argument_is_replayed_where_it_is_no_array(small: pd.DataFrame) -> None:
    frame = read_frame(small)
    by_name = lformula("y ~ x + offset(x) + (1 | g)", small, offset="w").recipe
    by_expression = lformula("y ~ x + offset(x) + (1 | g)", small, offset="w + x^2").recipe
    by_array = lformula("y ~ x + offset(x) + (1 | g)", small, offset=small["w"].to_numpy()).recipe
    assert_array_equal(new_fixed(by_name, frame)[1], small["x"] + small["w"])
    assert_array_equal(new_fixed(by_expression, frame)[1], small["x"] + (small["w"] + small["x"] ** 2))
    with pytest.raises(OptionError, match="the model has an offset that was given as an array"):
        new_fixed(by_array, frame)
    ones = Column("offset", "numeric", np.ones(12))
    assert_array_equal(new_fixed(by_array, frame, ones)[1], small["x"] + 1.0)
    assert_array_equal(new_fixed(by_name, frame, ones)[1], small["x"] + 1.0)
    assert_array_equal(new_fixed(lformula("y ~ x + (1 | g)", small).recipe, frame)[1], np.zeros(12))


def test_recipe_does_not_grow_with_the_rows(sleep: pd.DataFrame) -> None:
    formula = "Reaction ~ poly(Days, 2) * arm + (Days | Subject)"
    once = len(pickle.dumps(lformula(formula, sleep).recipe))
    tenfold = len(pickle.dumps(lformula(formula, pd.concat([sleep] * 10)).recipe))
    # The parameters of poly() may need another byte or two.
    assert abs(tenfold - once) < 50


def test_design_pickles(sleep: pd.DataFrame) -> None:
    design = lformula("Reaction ~ Days + (Days | Subject)", sleep)
    copy: Any = pickle.loads(pickle.dumps(design))
    assert same_design(copy, lformula("Reaction ~ Days + (Days | Subject)", sleep))


@pytest.fixture
def holes() -> pd.DataFrame:
    """Eight rows: the response is missing in the first, z in the second, and the third z has no logarithm."""
    frame = pd.DataFrame({"x": [9.0, 1.0, 2.0, 4.0, 3.0, 7.0, 5.0, 6.0], "g": list("aabbccdd")})
    frame["z"] = [1.0, np.nan, 2.0, 5.0, 3.0, 4.0, 1.0, 8.0]
    frame["y"] = [np.nan, 2.0, 1.0, 3.0, 2.0, 5.0, 4.0, 4.0]
    return frame


def test_transformations_learn_from_all_rows_as_in_r(holes):
    x, used = holes["x"].to_numpy(), slice(1, None)
    X = lformula("y ~ scale(x) + (1 | g)", holes).X
    # R evaluates scale(x) before it leaves out rows; rounding only.
    np.testing.assert_allclose(X[:, 1], ((x - x.mean()) / x.std(ddof=1))[used], rtol=1e-12)
    terms = "ns(x, 2) + poly(x, 2) + I(x - mean(x)) + cut(x, 2) + (1 | g)"
    whole, partial = (lformula(f"{y} ~ {terms}", holes) for y in ("x", "y"))
    assert partial.dropped == whole.dropped
    # The same columns without the row that is left out; rounding only.
    np.testing.assert_allclose(partial.X, whole.X[used], rtol=1e-12, atol=1e-12)


def test_each_call_learns_from_the_rows_its_own_columns_are_complete_in(holes):
    z, used = holes["z"].to_numpy(), slice(2, None)
    centre = np.nanmean(z)
    X = lformula("y ~ I(x * center(z)) + (1 | g)", holes).X
    # Rounding only.
    np.testing.assert_allclose(X[:, 1], (holes["x"].to_numpy() * (z - centre))[used], rtol=1e-12)


def test_rows_of_the_fit_decide_where_the_others_give_no_number(holes):
    holes.loc[0, "z"] = -1.0
    log_z = np.log(holes["z"].to_numpy()[2:])
    X = lformula("y ~ center(log(z)) + (1 | g)", holes).X
    # Rounding only.
    np.testing.assert_allclose(X[:, 1], log_z - log_z.mean(), rtol=1e-12, atol=1e-14)
