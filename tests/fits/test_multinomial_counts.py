"""Multinomial logits of counts, cbind(a, b, c), and with offsets: nnet's numbers, repeated rows, other likelihoods."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from reference_data import REFERENCE

import lme4py
from lme4py.errors import DataError, OptionError

R = json.loads((REFERENCE / "multinomial.json").read_text(encoding="utf-8"))
CELLS = pd.DataFrame(R["cells"])


def _counts(seed: int = 3, n: int = 72) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, x, z = np.repeat(np.arange(n // 6), 6), rng.standard_normal(n), rng.uniform(0.0, 1.0, n)
    eta = np.column_stack([np.zeros(n), 0.3 + 0.5 * x + z, np.full(n, -0.2)]) + rng.standard_normal((n // 6, 3))[g]
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    # Some rows have no trials: they say nothing and do no harm.
    return pd.DataFrame(rng.multinomial(rng.integers(0, 6, n), p), columns=list("abc")).assign(x=x, z=z, g=g)


WIDE = _counts()
LONG = WIDE.melt(id_vars=["x", "z", "g"], var_name="y", value_name="n").query("n > 0").reset_index(drop=True)
ROWS = LONG.loc[LONG.index.repeat(LONG["n"])].reset_index(drop=True)


@pytest.fixture(scope="module")
def fit():
    return lme4py.glmer("cbind(a, b, c) ~ x + (1 | g)", WIDE, family="multinomial")


@pytest.mark.parametrize(
    ("name", "formula", "offset"),
    [
        ("counts", "cbind(a, b, c) ~ judge + contact", None),
        ("offset", "cbind(a, b, c) ~ judge", {"a": "q", "b": "z"}),
    ],
)
def test_without_random_effects_it_is_nnet(name, formula, offset):
    found = lme4py.glmer(formula, CELLS, family="multinomial", offset=offset)
    constant = float(found.fit.data.log_arrangements.sum())
    # multinom stops at relative changes of 1e-14 of its deviance: coefficients to about 1e-6.
    assert found.log_likelihood - constant == pytest.approx(R[name]["log_likelihood"], abs=1e-8)
    np.testing.assert_allclose(found.params, R[name]["coefficients"], atol=1e-5)
    np.testing.assert_allclose(found.bse, R[name]["std_errors"], rtol=1e-4)


@pytest.mark.parametrize("points", [1, 5])
def test_counts_are_the_repeated_rows(points):
    counted = lme4py.glmer("cbind(a, b, c) ~ x + (1 | g)", WIDE, family="multinomial", nAGQ=points)
    repeated = lme4py.glmer("y ~ x + (1 | g)", ROWS, family="multinomial", nAGQ=points)
    constant = float(counted.fit.data.log_arrangements.sum())
    # The same likelihood but for a constant, summed in another order and minimised twice.
    assert counted.log_likelihood - constant == pytest.approx(repeated.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(counted.params, repeated.params, atol=1e-6)
    np.testing.assert_allclose(counted.bse, repeated.bse, rtol=1e-5)
    np.testing.assert_allclose(
        counted.coef_table(vcov="CR1")["std_error"], repeated.coef_table(vcov="CR1")["std_error"], rtol=1e-5
    )


def test_two_columns_are_the_binomial_model():
    two = lme4py.glmer("cbind(a, b) ~ x + (1 | g)", WIDE, family="multinomial")
    binomial = lme4py.glmer("cbind(b, a) ~ x + (1 | g)", WIDE)
    # The same likelihood, constants included.
    assert two.log_likelihood == pytest.approx(binomial.log_likelihood, abs=1e-10)
    np.testing.assert_allclose(two.params, binomial.params, atol=1e-10)
    np.testing.assert_allclose(two.bse, binomial.bse, rtol=1e-7)


def test_draws_have_the_totals_of_their_rows(fit):
    drawn = fit.simulate(2, seed=1)
    np.testing.assert_array_equal(drawn["sim_2"].sum(axis=1), WIDE[list("abc")].sum(axis=1))
    again = lme4py.glmer(
        "cbind(a, b, c) ~ x + (1 | g)", WIDE.assign(**dict(drawn["sim_1"].items())), family="multinomial"
    )
    # The same data: columns by their names, in any order, or by their places.
    for y in (drawn["sim_1"], drawn["sim_1"][["c", "a", "b"]], drawn["sim_1"].to_numpy()):
        np.testing.assert_allclose(fit.refit(y).params, again.params, atol=1e-7)
    mean = fit.simulate(400, seed=2, include_random=True).T.groupby(level=1).mean().T
    expected = fit.predict() * WIDE[list("abc")].sum(axis=1).to_numpy()[:, None]
    # 400 draws of at most five trials: standard errors of at most sqrt(5 / 4 / 400) = .056, and 216 of them.
    np.testing.assert_allclose(mean, expected, atol=4.5 * 0.056)
    replicates = fit.bootstrap(3, seed=1).replicates
    np.testing.assert_allclose(replicates.iloc[0][: fit.params.size], fit.refit(_draw(fit, 1)).params, atol=1e-6)
    assert fit.quantile_residuals(200, seed=1).test_uniformity().p_value > 0.01


def _draw(fit, seed):
    """The response of the first replicate of a bootstrap: its seed is the first of those of the whole."""
    return fit.simulate(1, seed=seed)["sim_1"]


def test_what_else_counts_have(fit):
    assert np.isnan(fit.fittedvalues[WIDE[list("abc")].sum(axis=1) == 0]).all()
    assert fit.drop1().loc["x", "df"] == 2
    separated = WIDE.assign(k=(WIDE["c"] > 0).astype(float))
    with pytest.raises(lme4py.Lme4Error, match=r"c: k goes to \+inf"):
        lme4py.glmer("cbind(a, b, c) ~ k", separated, family="multinomial")
    with pytest.raises(OptionError, match="needs a column for each of a, b, c"):
        fit.refit(WIDE["a"])
    with pytest.raises(DataError, match="never has 'b'"):
        lme4py.glmer("cbind(a, b, c) ~ x + (1 | g)", WIDE.assign(b=0), family="multinomial")
    with pytest.raises(DataError, match="'a' twice"):
        lme4py.glmer("cbind(a, a, c) ~ x + (1 | g)", WIDE, family="multinomial")


def test_offsets_shift_their_predictors():
    own = {"a": "x", "b": "exp(z)"}
    fits = [lme4py.glmer("y ~ 1 + (1 | g)", ROWS, "multinomial", offset=own, baseline=base) for base in "abc"]
    for other in fits[1:]:
        # One model from three sides.
        assert other.log_likelihood == pytest.approx(fits[0].log_likelihood, abs=1e-8)
        np.testing.assert_allclose(other.predict(ROWS)[list("abc")], fits[0].predict()[list("abc")], atol=1e-6)
    frame = pd.DataFrame({"a": ROWS["x"], "b": np.exp(ROWS["z"])})
    given = lme4py.glmer("y ~ 1 + (1 | g)", ROWS, "multinomial", offset=frame)
    np.testing.assert_allclose(given.params, fits[0].params, atol=1e-12)
    half = ROWS.iloc[: len(ROWS) // 2]
    chosen = lme4py.glmer("y ~ 1 + (1 | g)", ROWS, "multinomial", offset=frame, subset=np.arange(len(ROWS)) < len(half))
    cut = lme4py.glmer("y ~ 1 + (1 | g)", half, "multinomial", offset=own)
    assert chosen.log_likelihood == pytest.approx(cut.log_likelihood, abs=1e-10)


def test_one_offset_belongs_to_every_category_beside_the_baseline():
    shared = lme4py.glmer("y ~ x + offset(z) + (1 | g)", ROWS, "multinomial")
    single = lme4py.glmer("y ~ x + (1 | g)", ROWS, "multinomial", offset={"a": "-z"})
    assert shared.log_likelihood == pytest.approx(single.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(shared.params, single.params, atol=1e-7)
    assert "every category beside the baseline" in str(shared.summary())
    assert "offset of a" in str(single.summary())
    keyword = lme4py.memlogit(ROWS, "y", ["x"], "g", offset="z")
    np.testing.assert_allclose(keyword.params.sort_values(), shared.params.sort_values(), atol=1e-9)
    counted = lme4py.memlogit(WIDE, ["a", "b", "c"], ["x"], "g", offset={"a": "-z"})
    np.testing.assert_allclose(counted.params.sort_values(), shared.params.sort_values(), atol=1e-6)


def test_predictions_and_margins_move_with_the_offset_of_a_category():
    found = lme4py.glmer("y ~ x + (1 | g)", ROWS, "multinomial", offset={"b": "z"})
    new = ROWS.head(4).drop(columns="z")
    moved = found.predict(new, include_random=False, offset={"b": np.full(4, 0.7)})
    np.testing.assert_allclose(moved, found.predict(new.assign(z=0.7), include_random=False), atol=1e-12)
    h = 1e-5
    up, down = (found.predict(ROWS.assign(z=ROWS["z"] + s), include_random="integrate").mean() for s in (h, -h))
    slopes = lme4py.Margins.response(found, random="integrate").dydx("z")
    # Central differences of functions of size one.
    np.testing.assert_allclose(slopes.estimate, (up - down) / (2.0 * h), atol=1e-8)
    by_values = lme4py.glmer("y ~ x + (1 | g)", ROWS, "multinomial", offset={"b": ROWS["z"].to_numpy()})
    with pytest.raises(OptionError, match="given as an array"):
        by_values.predict(new)
    with pytest.raises(OptionError, match="columns or expressions"):
        lme4py.Margins.response(by_values)
    with pytest.raises(OptionError, match="only family='multinomial'"):
        lme4py.lmer("z ~ x + (1 | g)", ROWS, offset={"b": "x"})
    drawn = by_values.simulate(300, seed=1, include_random=True)
    share = (drawn == "b").mean(axis=1)
    # 300 draws of each row: standard errors of at most .029.
    np.testing.assert_allclose(share, by_values.predict()["b"], atol=4.5 * 0.029)


@pytest.mark.parametrize("kind", ["parametric", "cases"])
def test_two_categories_are_bootstrapped(kind):
    data = lme4py.load_dataset("Contraception").iloc[:300]
    fits = [lme4py.glmer("use ~ age + (1 | district)", data, family) for family in ("multinomial", "binomial")]
    tables = [found.bootstrap(3, seed=4, type=kind).replicates.to_numpy() for found in fits]
    if kind == "cases":
        # The same rows drawn: the same fits.
        np.testing.assert_allclose(tables[0], tables[1], rtol=1e-5, atol=1e-7)
    assert np.isfinite(tables[0]).all()


def test_cases_keep_every_category():
    """A draw of groups is a fit of their rows, all linear predictors included."""
    data = ROWS[ROWS["g"] < 8]
    found = lme4py.glmer("y ~ x + (1 | g)", data, "multinomial")
    rows = found.fit.design
    from lme4py.fits.groups import without_level

    less = without_level(rows, rows.terms[0].codes.astype(np.intp), 2)
    want = lme4py.glmer("y ~ x + (1 | g)", data[data["g"] != 2], "multinomial").fit.design
    np.testing.assert_array_equal(less.X, want.X)
