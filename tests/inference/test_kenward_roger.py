"""F tests in small designs: against the exact analysis of variance, Hotelling's test, and pbkrtest."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE
from scipy import special, stats

import lme4py
from lme4py.errors import Lme4Warning, OptionError
from lme4py.inference.uncertainty.kenward_roger import f_scale

# F and its p-value are those of the optimum; the optimiser leaves variances good to about 1e-7.
TOLERANCE = 1e-6


def crossed(**sizes: int) -> pd.DataFrame:
    """Every combination of the levels of the factors, once."""
    rows = itertools.product(*(range(size) for size in sizes.values()))
    return pd.DataFrame(rows, columns=list(sizes)).astype(str)


def respond(frame: pd.DataFrame, effects: dict[tuple[str, ...], float], seed: int) -> pd.DataFrame:
    """Normal effects of every combination of factors, with these standard deviations, and a residual of 0.5."""
    rng = np.random.default_rng(seed)
    y = 0.5 * rng.normal(size=len(frame))
    for names, sd in effects.items():
        codes = frame.groupby(list(names), sort=False).ngroup().to_numpy()
        y += sd * rng.normal(size=codes.max() + 1)[codes]
    return frame.assign(y=y)


def sum_of_squares(frame: pd.DataFrame, names: tuple[str, ...]) -> float:
    """Of the interaction of these factors (of the factor, if it is one) in a balanced design."""
    effect = np.zeros(len(frame))
    for size in range(len(names) + 1):
        for part in itertools.combinations(names, size):
            mean = frame.groupby(list(part))["y"].transform("mean") if part else frame["y"].mean()
            effect += (-1.0) ** (len(names) - size) * np.asarray(mean, float)
    return float(effect @ effect)


def exact(frame: pd.DataFrame, term: tuple[str, ...], df: int, error: float, error_df: int) -> tuple[float, ...]:
    F = sum_of_squares(frame, term) / df / (error / error_df)
    return df, error_df, F, float(special.fdtrc(df, error_df, F))


def expect(table: pd.DataFrame, term: str, exactly: tuple[float, ...]) -> None:
    np.testing.assert_allclose(table.loc[term, ["num_df", "den_df", "F", "p_value"]], exactly, rtol=TOLERANCE)


def fitted(formula: str, make: Any) -> tuple[pd.DataFrame, Any]:
    """The first of a few data sets whose variances are all positive: the exact tests are those of such estimates."""
    for seed in range(20):
        data = make(seed)
        result = lme4py.lmer(formula, data)
        if not result.is_singular:
            return data, result
    raise AssertionError("no data set has positive variances")


def both(result: Any) -> list[pd.DataFrame]:
    return [result.anova(ddf=ddf) for ddf in ("kenward-roger", "satterthwaite")]


SPLIT_PLOTS = [(b, w, s) for b in (2, 3, 4) for w in (2, 3, 4) for s in (2, 3)]
BLOCKS = [(b, t) for b in (2, 3, 4, 5) for t in (2, 3, 4, 5)]
NESTED = [(t, g, n) for t in (2, 3, 4) for g in (2, 3) for n in (2, 3)]
CROSSED = [(a, b, n) for a in (2, 3, 4) for b in (2, 3, 4) for n in (2,)]


def test_there_are_fifty_five_designs():
    assert len(SPLIT_PLOTS) + len(BLOCKS) + len(NESTED) + len(CROSSED) == 55


@pytest.mark.parametrize(("b", "w", "s"), SPLIT_PLOTS)
def test_split_plots(b, w, s):
    def make(seed):
        return respond(crossed(b=b, w=w, s=s), {("b",): 2.0, ("b", "w"): 1.0, ("w",): 1.0}, seed)

    frame, result = fitted("y ~ w * s + (1 | b / w)", make)
    whole = sum_of_squares(frame, ("b", "w"))
    sub = sum_of_squares(frame, ("b", "s")) + sum_of_squares(frame, ("b", "w", "s"))
    sub_df = w * (b - 1) * (s - 1)
    for table in both(result):
        expect(table, "w", exact(frame, ("w",), w - 1, whole, (b - 1) * (w - 1)))
        expect(table, "s", exact(frame, ("s",), s - 1, sub, sub_df))
        expect(table, "w:s", exact(frame, ("w", "s"), (w - 1) * (s - 1), sub, sub_df))


@pytest.mark.parametrize(("b", "t"), BLOCKS)
def test_randomised_blocks(b, t):
    frame, result = fitted("y ~ t + (1 | b)", lambda seed: respond(crossed(b=b, t=t), {("b",): 2.0, ("t",): 1.0}, seed))
    for table in both(result):
        expect(table, "t", exact(frame, ("t",), t - 1, sum_of_squares(frame, ("b", "t")), (b - 1) * (t - 1)))


@pytest.mark.parametrize(("t", "g", "n"), NESTED)
def test_groups_within_treatments(t, g, n):
    def make(seed):
        return respond(crossed(t=t, g=g, n=n), {("t", "g"): 1.5, ("t",): 1.0}, seed)

    frame, result = fitted("y ~ t + (1 | t:g)", make)
    error = sum_of_squares(frame, ("g",)) + sum_of_squares(frame, ("t", "g"))
    for table in both(result):
        expect(table, "t", exact(frame, ("t",), t - 1, error, t * (g - 1)))


@pytest.mark.parametrize(("a", "b", "n"), CROSSED)
def test_a_fixed_and_a_random_factor(a, b, n):
    def make(seed):
        return respond(crossed(a=a, b=b, n=n), {("b",): 2.0, ("a", "b"): 1.0, ("a",): 1.0}, seed)

    frame, result = fitted("y ~ a + (1 | b) + (1 | a:b)", make)
    for table in both(result):
        expect(table, "a", exact(frame, ("a",), a - 1, sum_of_squares(frame, ("a", "b")), (a - 1) * (b - 1)))


@pytest.mark.parametrize("plots", [(1, 1, 2), (1, 2, 2), (1, 1, 1, 2)])
def test_unequal_numbers_of_whole_plots_with_one_and_two_degrees_of_freedom(plots):
    t, n = len(plots), 3
    labels = np.repeat(np.arange(t), plots)
    frame = pd.DataFrame({"t": np.repeat(labels, n).astype(str), "p": np.repeat(np.arange(labels.size), n)})
    data, result = fitted("y ~ t + (1 | p)", lambda seed: respond(frame, {("p",): 1.0, ("t",): 0.5}, seed))
    means = data.groupby(["t", "p"])["y"].mean().groupby("t")
    error = float(sum(((part - part.mean()) ** 2).sum() for _, part in means))
    count, mean = means.size(), means.mean()
    between = float((count * (mean - (count * mean).sum() / count.sum()) ** 2).sum())
    F = between / (t - 1) / (error / (sum(plots) - t))
    for table in both(result):
        expect(table, "t", (t - 1, sum(plots) - t, F, float(special.fdtrc(t - 1, sum(plots) - t, F))))


@pytest.mark.parametrize("levels", [3, 4, 5, 6, 9])
def test_random_lines_are_hotellings_test(levels):
    """The lines of balanced groups are independent vectors: (J - q) / (q (J - 1)) T^2 is F(q, J - q)."""
    x, g = np.tile(np.linspace(-1, 1, 6), levels), np.repeat(np.arange(levels), 6)

    def make(seed):
        rng = np.random.default_rng(seed)
        lines = rng.normal(size=(levels, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
        return pd.DataFrame({"g": g, "x": x, "y": lines[g, 0] + lines[g, 1] * x + 0.3 * rng.normal(size=x.size)})

    data, result = fitted("y ~ x + (x | g)", make)
    X = np.column_stack([np.ones(6), x[:6]])
    own = np.linalg.lstsq(X, data["y"].to_numpy().reshape(levels, 6).T, rcond=None)[0].T
    T2 = levels * own.mean(axis=0) @ np.linalg.solve(np.cov(own.T), own.mean(axis=0))
    F = T2 * (levels - 2) / (2 * (levels - 1))
    row = result.contest(["Intercept", "x"], "kenward-roger").iloc[0]
    found = [row["den_df"], row["F"], row["p_value"]]
    np.testing.assert_allclose(found, [levels - 2, F, stats.f.sf(F, 2, levels - 2)], rtol=1e-5)


@pytest.mark.parametrize("q", [2, 3, 5, 12])
@pytest.mark.parametrize("kind", ["variance", "covariance"])
def test_exact_cases_have_no_special_degrees_of_freedom(q, kind):
    """One unknown variance with nu degrees of freedom, and an unknown covariance matrix with nu."""
    for nu in (0.5, 1.0, 1.5, 2.0 - 1e-9, 2.0, 2.0 + 1e-9, 3.0, 4.0, 4.0 + 1e-10, 7.3, 1e9):
        if kind == "variance":
            found, scale, m = f_scale(np.eye(q)[None], np.array([[2.0 / nu]])), 1.0, nu
        else:
            # The elements of a Wishart matrix over its degrees of freedom, nu + q - 1 of them.
            df, places = nu + q - 1, [(i, j) for i in range(q) for j in range(i + 1)]
            changes = np.zeros((len(places), q, q))
            for own, (i, j) in zip(changes, places, strict=True):
                own[i, j] = own[j, i] = 1.0
            W = np.diag([(2.0 if i == j else 1.0) / df for i, j in places])
            found, scale, m = f_scale(changes, W), nu / df, nu
        assert found.is_sound
        # Rounding; the differences of 1e-9 from two and four degrees of freedom show through.
        np.testing.assert_allclose([found.scale, found.den_df], [scale, m], rtol=1e-7)


def test_no_uncertainty_of_the_variances_is_a_chi_squared_test():
    found = f_scale(np.eye(3)[None], np.zeros((1, 1)))
    assert (found.scale, found.den_df, found.is_sound) == (1.0, np.inf, True)


SMALL: dict[str, Any] = json.loads((REFERENCE / "kenward_roger.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len(SMALL["tests"])))
def test_unbalanced_designs_agree_with_pbkrtest(number):
    test = SMALL["tests"][number]
    frame = pd.DataFrame(test["data"]).astype({"b": str, "w": str, "s": str})
    result = lme4py.lmer(test["formula"], frame)
    L = np.eye(result.params.size)[[name.startswith(test["term"] + "[") for name in result.params.index]]
    ratio = abs(test["scaling"] - 1.0)
    if test["ddf"] > 2.7 or ratio < 1e-9:
        row = result.contest(L, "kenward-roger").iloc[0]
        # Optima known to 1e-7, and derivatives of them.
        np.testing.assert_allclose(row[["F", "den_df", "p_value"]], [test["F"], test["ddf"], test["p"]], rtol=1e-5)
        return
    # pbkrtest scales F by 0.0015, and its p-value is 0.9998, where the moments do not exist.
    with pytest.warns(Lme4Warning, match="Kenward and Roger's F test of . coefficients"):
        row = result.contest(L, "kenward-roger").iloc[0]
    np.testing.assert_allclose(row["den_df"], test["ddf"] if test["ddf"] > 2.0 else np.nan, rtol=1e-5)


def test_a_zero_variance_keeps_its_degrees_of_freedom():
    """Kenward and Roger count a variance that is estimated as zero: the degrees of freedom are those of the stratum."""
    rng = np.random.default_rng(4)
    frame = crossed(b=2, w=3, s=4).assign(y=rng.normal(size=24))
    y = frame["y"] - frame.groupby(["b", "w"])["y"].transform("mean") + frame.groupby("b")["y"].transform("mean")
    result = lme4py.lmer("y ~ w * s + (1 | b / w)", frame.assign(y=y))
    assert result.is_singular
    assert result.anova(ddf="kenward-roger").loc["w", "den_df"] == pytest.approx(2.0, rel=1e-9)


def test_a_rank_deficient_hypothesis_is_that_of_its_rank():
    data = respond(crossed(b=2, w=3, s=2), {("b",): 2.0, ("b", "w"): 1.0}, 3)
    result = lme4py.lmer("y ~ w + (1 | b / w)", data)
    L = np.array([[0, 1, 0], [0, 0, 1], [0, 1, -1], [0, 2, 5]])
    few, many = result.contest(L[:2], "kenward-roger"), result.contest(L, "kenward-roger")
    # The same hypothesis in other rows: rounding.
    np.testing.assert_allclose(many.drop(columns=["sum_sq"]), few.drop(columns=["sum_sq"]), rtol=1e-9)
    assert many["num_df"].iloc[0] == 2
    assert many["den_df"].iloc[0] == pytest.approx(2.0, rel=1e-9)


@pytest.mark.parametrize("formula", ["y ~ 0 + (1 | b)", "y ~ 0 + (1 | b / w)", "y ~ 0 + (1 | b) + (1 | s)"])
def test_a_model_without_fixed_effects_has_empty_tables(formula):
    data = respond(crossed(b=6, w=3, s=3), {("b",): 2.0, ("b", "w"): 1.0}, 3)
    result = lme4py.lmer(formula, data)
    for ddf in ("kenward-roger", "satterthwaite", "residual", "normal"):
        assert result.coef_table(ddf).shape == (0, 5)
        assert result.anova(ddf=ddf).shape == (0, 6)
        assert "no fixed effects" in str(result.summary(ddf=ddf))
    for call in (lambda: result.contest([[]]), lambda: result.wald_test([[]]), lambda: result.contest("Intercept")):
        with pytest.raises(OptionError, match="no fixed effect"):
            call()
