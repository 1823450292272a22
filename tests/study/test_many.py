"""One model for each of many responses or groups: the numbers of single fits, whatever the kind of responses."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lme4py import fit_by, fit_many, glmer, lmer, load_dataset
from lme4py.errors import DataError, FormulaError, Lme4Error, OptionError


def rows(n: int = 150, groups: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": rng.integers(0, groups, n), "x": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n)})
    data["h"] = rng.integers(0, 6, n)
    data["o"] = rng.normal(size=n) * 3.0
    return data


def responses(data: pd.DataFrame, count: int) -> np.ndarray:
    """Of very different means and sizes, and with variances of groups from nothing to most of it."""
    rng = np.random.default_rng(1)
    effects = rng.normal(size=(12, count)) * np.geomspace(0.01, 10.0, count)
    whole = rng.normal(size=(len(data), count)) + effects[data.g] + 0.5 * data.x.to_numpy()[:, None]
    return np.geomspace(1e-6, 1e6, count) * (20.0 * rng.normal(size=count) + whole)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("~ x + (1 | g)", {}),
        ("~ x + (x | g)", {"reml": False}),
        ("~ x + (1 | g) + (1 | h)", {"weights": "w"}),
        ("~ 0 + x + (1 | g)", {"offset": "o"}),
    ],
)
def test_linear_models_are_those_of_single_fits(formula, options):
    data = rows()
    Y = responses(data, 7)
    many = fit_many(formula, data, Y, **options)
    assert many.converged.all()
    for i, name in enumerate(many.names):
        single = lmer(f"y {formula}", data.assign(y=Y[:, i]), **options)
        size = max(1.0, abs(single.criterion))
        assert many.criterion[name] == pytest.approx(single.criterion, abs=1e-9 * size)
        own, table = many.coef_table().loc[name], single.coef_table()
        # The single search stops within 1e-12 of the minimum: within 1e-6 standard errors.
        np.testing.assert_allclose(own["estimate"], table["estimate"], atol=1e-6 * table["std_error"].max())
        np.testing.assert_allclose(own["std_error"], table["std_error"], rtol=1e-6)
        # Differences of gradients on one side.
        np.testing.assert_allclose(own["df"], table["df"], rtol=1e-4)
        np.testing.assert_allclose(own["p_value"], table["p_value"], rtol=1e-4, atol=1e-12)
        assert many.fits["sigma"][name] == pytest.approx(single.sigma, rel=1e-6)
        assert many.fits["singular"][name] == single.is_singular
        variances = many.variances[many.variances["response"] == name].reset_index(drop=True)
        wanted = single.var_corr().reset_index(drop=True)
        assert variances["group"].tolist() == wanted["group"].tolist()
        if not single.is_singular:
            # Variances move by the square root of what the criterion may.
            np.testing.assert_allclose(variances["sdcor"], wanted["sdcor"], rtol=1e-4, atol=1e-5)
    assert many[many.names[0]].criterion == pytest.approx(many.criterion.iloc[0], rel=1e-10)  # sums in another order


def test_every_kind_of_responses_gives_the_same(tmp_path):
    data = rows(60)
    Y = responses(data, 3)
    names = ["a", "b", "c"]
    frame = pd.DataFrame(Y, columns=names)
    wanted = fit_many("~ x + (1 | g)", data, Y, names=names)
    frame.to_parquet(tmp_path / "y.parquet")
    annotated = types.SimpleNamespace(X=sparse.csr_matrix(Y), var_names=names)
    kinds = [frame, {name: Y[:, i] for i, name in enumerate(names)}, annotated, tmp_path / "y.parquet"]
    for given in kinds:
        assert fit_many("~ x + (1 | g)", data, given).coefficients.equals(wanted.coefficients)
    assert fit_many("~ x + (1 | g)", data, sparse.csc_matrix(Y), names=names).coefficients.equals(wanted.coefficients)
    part = fit_many("~ x + (1 | g)", data, frame, names=["c", "a"])
    assert part.names == ("c", "a")
    # Two responses at once are rounded in another order than three.
    np.testing.assert_allclose(part.criterion["a"], wanted.criterion["a"], rtol=1e-12)


def test_what_fails_in_one_response_stays_there():
    data = rows(60)
    Y = responses(data, 5)
    Y[:, 1] = 4.0
    Y[:, 2] = 2.0 * data.x
    Y[5, 3] = np.nan
    many = fit_many("~ x + (1 | g)", data, Y)
    assert set(many.failures) == {"y2", "y3"}
    assert "exactly" in many.failures["y2"]
    assert many.n_failed == 2
    assert many.fits["n_obs"].tolist() == [60, 0, 0, 59, 60]
    alone = lmer("y ~ x + (1 | g)", data.assign(y=Y[:, 3]))
    assert many.criterion["y4"] == alone.criterion
    table = many.coef_table("x", adjust="bh")
    assert table.loc["y2"].isna().all()
    from scipy.stats import false_discovery_control

    known = table["p_value"].dropna()
    np.testing.assert_allclose(table["p_adjusted"].dropna(), false_discovery_control(known), rtol=1e-12)
    tidy = many.tidy(adjust="bh")
    assert {"response", "effect", "group", "term", "estimate", "p_adjusted", "converged", "singular"} <= set(tidy)
    assert tidy[tidy["response"] == "y1"]["term"].tolist() == ["Intercept", "x", "sd__Intercept", "sd__Observation"]


def generalised(family: str, count: int = 6) -> tuple[pd.DataFrame, np.ndarray]:
    """Responses of very different means, some without any variance between groups, one that cannot be fitted."""
    data = rows(200)
    rng = np.random.default_rng(2)
    effects = rng.normal(size=(12, count)) * np.linspace(0.0, 0.8, count)
    eta = np.linspace(-1.0, 2.0, count) + 0.3 * data.x.to_numpy()[:, None] + effects[data.g]
    Y = {
        "nbinomial": lambda: rng.negative_binomial(2, 2 / (2 + np.exp(eta))),
        "poisson": lambda: rng.poisson(np.exp(eta)),
        "binomial": lambda: rng.binomial(1, 1 / (1 + np.exp(-eta))),
        "gamma": lambda: rng.gamma(2.0, np.exp(eta) / 2.0),
    }[family]().astype(float)
    return data, Y


@pytest.mark.parametrize("family", ["nbinomial", "poisson", "binomial", "gamma"])
def test_generalised_models_are_those_of_single_fits(family):
    data, Y = generalised(family)
    options = {"link": "log"} if family == "gamma" else {}
    many = fit_many("~ x + (1 | g)", data, sparse.csr_matrix(Y), family=family, **options)
    assert many.converged.all()
    for i, name in enumerate(many.names):
        single = glmer("y ~ x + (1 | g)", data.assign(y=Y[:, i]), family=family, **options)
        assert many.criterion[name] == pytest.approx(single.criterion, rel=1e-9)
        own, table = many.coef_table().loc[name], single.coef_table()
        # The single search stops within 1e-13 of the minimum: within 5e-7 standard errors; errors are differences.
        np.testing.assert_allclose(own["estimate"], table["estimate"], atol=1e-6 * table["std_error"].max())
        np.testing.assert_allclose(own["std_error"], table["std_error"], rtol=1e-4)
        assert many.fits["singular"][name] == single.is_singular
        assert many.fits["sigma"][name] == pytest.approx(single.sigma, rel=1e-5)
        variances = many.variances[many.variances["response"] == name]
        np.testing.assert_allclose(variances["sdcor"], single.var_corr()["sdcor"], atol=1e-6)


def test_generalised_responses_that_fail_stay_alone():
    data, Y = generalised("poisson")
    Y[:, 1], Y[3, 2], Y[4, 3], Y[data.g != 0, 4] = 0.0, np.nan, 0.5, 0.0
    many = fit_many("~ x + (1 | g)", data, Y, family="poisson")
    assert set(many.failures) == {"y2", "y4"}
    assert "are 0" in many.failures["y2"]
    assert many.fits["n_obs"].tolist() == [200, 0, 199, 0, 200, 200]
    two = fit_many("~ x + (1 | g)", data, Y, family="poisson", n_jobs=2)
    assert two.coefficients.equals(many.coefficients)
    assert two.fits.equals(many.fits)


def test_models_that_are_fitted_one_by_one():
    data, Y = generalised("poisson", 2)
    many = fit_many("~ x + (x | g)", data, Y, family="poisson")
    single = glmer("y ~ x + (x | g)", data.assign(y=Y[:, 1]), family="poisson")
    assert many.criterion["y2"] == single.criterion
    plain = fit_many("~ x", data, Y, family="poisson", fixed_only=True)
    assert plain.converged.all()
    assert plain.variances.empty
    assert plain.tidy()["term"].tolist() == ["Intercept", "x"] * 2
    ordered = pd.DataFrame({"u": Y[:, 0].clip(0, 2), "v": Y[:, 1].clip(0, 2)})
    assert fit_many("~ x + (1 | g)", data, ordered, family="ordinal").converged.all()


def test_groups_of_rows():
    data = load_dataset("Hsb82")
    by = fit_by("mAch ~ cses + (1 | school)", data, by="sector")
    assert by.names == ("Public", "Catholic")
    for level in by.names:
        single = lmer("mAch ~ cses + (1 | school)", data[data["sector"] == level])
        np.testing.assert_array_equal(by.coef_table().loc[level]["estimate"], single.coef_table()["estimate"])
        assert by[level].n_obs == single.n_obs
    assert by.tidy()["sector"].unique().tolist() == ["Public", "Catholic"]
    with pytest.raises(OptionError, match="Did you mean 'sector'"):
        fit_by("mAch ~ cses + (1 | school)", data, by="secter")
    with pytest.raises(Lme4Error, match="none of 2 fits succeeded"):
        fit_by("mAch ~ nothing + (1 | school)", data, by="sector")


def test_processes_change_nothing():
    data = rows(60)
    Y = responses(data, 4)
    one = fit_many("~ x + (1 | g)", data, Y, ddf="kenward-roger")
    two = fit_many("~ x + (1 | g)", data, Y, ddf="kenward-roger", n_jobs=2)
    assert one.coefficients.equals(two.coefficients)


@pytest.mark.parametrize(
    ("formula", "given", "kw", "error", "message"),
    [
        ("y ~ x + (1 | g)", np.zeros((150, 2)), {}, OptionError, "without a left side"),
        ("~ x + (1 | g)", np.zeros((10, 2)), {}, DataError, "10 rows"),
        ("~ x + (1 | g)", np.zeros((150, 2)), {"names": ["a"]}, OptionError, "1 names for 2"),
        ("~ x + (1 | g)", "nowhere.parquet", {}, DataError, "cannot be read"),
        ("~ x + (1 | g)", 7, {}, OptionError, "of type int"),
        ("~ x", np.random.default_rng(0).normal(size=(150, 2)), {}, FormulaError, "no random-effects term"),
    ],
)
def test_bad_input(formula, given, kw, error, message):
    with pytest.raises(error, match=message):
        fit_many(formula, rows(), given, **kw)


def test_many_fits_show_a_bar(capsys):
    data = load_dataset("sleepstudy")
    noise = np.random.default_rng(4).normal(size=(180, 3))
    fit_many("~ Days + (1 | Subject)", data, noise, progress=True)
    assert "responses: 100%|" in capsys.readouterr().err
    with pytest.raises(OptionError, match="True, False or None"):
        fit_by("Reaction ~ 1 + (1 | Subject)", data, "Days", progress="yes")
