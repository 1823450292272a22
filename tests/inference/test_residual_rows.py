"""Predictions, leverages and deletions of models with a residual structure, against dense algebra and lmer()."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import DataError, DesignError, OptionError

BASE = "y ~ arm * visit + base"


def _trial(n: int = 24, seed: int = 3) -> pd.DataFrame:
    """Two arms, four visits at irregular times, missing visits, one subject of one row, rows in no order."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"id": np.repeat(np.arange(n), 4), "k": np.tile(np.arange(1, 5), n)})
    table["arm"] = np.where(table["id"] % 2, "b", "a")
    table["visit"] = "V" + table["k"].astype(str)
    table["time"] = table["k"] + rng.uniform(-0.4, 0.4, len(table))
    table["base"] = np.repeat(rng.normal(size=n), 4)
    table["w"] = rng.uniform(0.5, 2.0, len(table))
    L = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(range(4), range(4))))
    errors = (rng.normal(size=(n, 4)) @ L.T).ravel()
    table["y"] = 5.0 + np.repeat(rng.normal(size=n), 4) + 0.5 * table["k"] + 0.3 * table["base"] + errors
    kept = (rng.random(len(table)) > 0.18) | (table["k"] == 1)
    kept &= (table["id"] != 3) | (table["k"] == 1)
    return table[kept].sample(frac=1.0, random_state=1)


@pytest.fixture(scope="module")
def data():
    return _trial()


def _dense(data, sd, rho, time, scale=1.0, random=0.0):
    """V and R of all rows, by the definition."""
    same = np.equal.outer(data["id"].to_numpy(), data["id"].to_numpy())
    t = data[time].to_numpy(dtype=float)
    size = sd * np.broadcast_to(scale, t.shape)
    R = same * rho ** np.abs(np.subtract.outer(t, t)) * np.outer(size, size)
    return R + random**2 * same, R


def _by_hand(fit, data, time, weights=False):
    """V and R at the estimates of a model with ar1 or car1 residuals, variance=ident(arm)."""
    table = fit.residual_table().set_index("parameter")["estimate"]
    ratio = np.exp(fit.fit.scale_coefficients[0])
    scale = np.where(data["arm"] == "b", ratio, 1.0) / (np.sqrt(data["w"].to_numpy()) if weights else 1.0)
    random = float(np.sqrt(fit.fit.covariances[0][0, 0])) if fit.fit.design.terms else 0.0
    return _dense(data, table.iloc[0], table.iloc[1], time, scale, random)


CASES = {
    "ar1 lmm": (BASE + " + (1 | id)", {"residual": "ar1(k | id)", "variance": "ident(arm)", "weights": "w"}, "k"),
    "ar1 gls": (BASE, {"residual": "ar1(k | id)", "variance": "ident(arm)", "weights": "w"}, "k"),
    "car1 gls": (BASE, {"residual": "car1(time | id)", "variance": "ident(arm)"}, "time"),
}


@pytest.fixture(scope="module")
def fits(data):
    return {name: lme4py.lmer(formula, data, **options) for name, (formula, options, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_leverages_and_deletions_are_those_of_dense_algebra(fits, data, name):
    fit, (_, options, time) = fits[name], CASES[name]
    V, R = _by_hand(fit, data, time, "weights" in options)
    X, y = fit.fit.design.X, fit.fit.design.y
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.inv(X.T @ Vi @ X) @ X.T @ Vi
    found = fit.influence()
    # Estimates that are read from a table with all digits: rounding of some inverses.
    assert found.leverage.to_numpy() == pytest.approx(1.0 - np.diag(R @ P), abs=1e-9)
    labels = np.arange(len(data)) % 7  # groups that share subjects
    for units, unit in ((None, 5), ("id", 2), (labels, 3)):
        codes = np.arange(len(data)) if units is None else data["id"].to_numpy() if units is labels else units
        codes = labels if units is labels else data["id"].to_numpy() if units is not None else codes
        kept = codes != unit
        Vk = np.linalg.inv(V[np.ix_(kept, kept)])
        beta = np.linalg.solve(X[kept].T @ Vk @ X[kept], X[kept].T @ Vk @ y[kept])
        row = fit.influence(units).fixef.iloc[unit] if units is None else fit.influence(units).fixef.loc[unit]
        assert row.to_numpy() == pytest.approx(beta, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_missing_rows_given_others_are_those_of_dense_algebra(data, name):
    formula, options, time = CASES[name]
    draw = np.random.default_rng(1).random(len(data))
    first, given, wanted = data[draw < 0.7], data[(draw >= 0.7) & (draw < 0.85)], data[draw >= 0.85]
    fit = lme4py.lmer(formula, first, **options)
    whole = pd.concat([first, given, wanted])
    V, R = _by_hand(fit, whole, time, "weights" in options)
    X = lme4py.lformula(BASE, whole, require_random=False).X
    o, t = np.arange(len(first) + len(given)), np.arange(len(first) + len(given), len(whole))
    C, r = V[np.ix_(t, o)] @ np.linalg.inv(V[np.ix_(o, o)]), R[np.ix_(t, o)] @ np.linalg.inv(R[np.ix_(o, o)])
    beta = fit.params.to_numpy()
    mean = X[t] @ beta + C @ (whole["y"].to_numpy()[o] - X[o] @ beta)
    moved = X[t] - C @ X[o]
    fixed = np.einsum("ij,jk,ik->i", moved, fit.cov_params().to_numpy(), moved)
    observed = fixed + np.diag(V)[t] - np.einsum("ij,ij->i", C, V[np.ix_(t, o)])
    expected = observed - np.diag(R)[t] + np.einsum("ij,ij->i", r, R[np.ix_(t, o)])
    rows = wanted.drop(columns="y")
    limits = fit.predict(rows, given=given, interval="prediction", se=True)
    # Rounding of some inverses.
    assert limits["predicted"].to_numpy() == pytest.approx(mean, abs=1e-9)
    half = 0.5 * (limits["upper"] - limits["lower"]).to_numpy()
    assert half == pytest.approx(1.959963984540054 * np.sqrt(observed), abs=1e-7)
    assert limits["std_error"].to_numpy() == pytest.approx(np.sqrt(expected), abs=1e-7)
    # Rows of the fit among those given count once.
    again = fit.predict(rows, given=pd.concat([first, given]))
    assert again.to_numpy() == pytest.approx(mean, abs=1e-9)
    own = fit.predict(rows, given=True)
    assert own.to_numpy() == pytest.approx(fit.predict(rows, given=first).to_numpy(), abs=1e-12)


def test_subjects_that_came_after_the_fit(data):
    """A new subject's rows know each other: the same prediction as of a subject of the fit without rows there."""
    fit = lme4py.lmer(BASE, data, residual="us(visit | id)")
    new = data[(data["id"] == 0) & (data["visit"].isin(["V1", "V2"]))].assign(id=99)
    wanted = new.iloc[:1].assign(visit="V4").drop(columns="y")
    R = fit.residual_covariance()
    c, V = R.loc["V4", new["visit"]].to_numpy(), R.loc[new["visit"], new["visit"]].to_numpy()
    left = new["y"].to_numpy() - fit.predict(new, include_random=False).to_numpy()
    by_hand = fit.predict(wanted, include_random=False).iloc[0] + c @ np.linalg.solve(V, left)
    assert fit.predict(wanted, given=new).iloc[0] == pytest.approx(by_hand, abs=1e-10)
    # Another subject is told nothing by these rows.
    other = fit.predict(wanted.assign(id=98), given=new).iloc[0]
    assert other == pytest.approx(fit.predict(wanted, include_random=False).iloc[0], abs=1e-12)


def test_a_later_visit_of_counted_times(data):
    """ar1 reaches beyond the visits of the fit; an unstructured matrix does not."""
    fit = lme4py.lmer("y ~ arm + k + base", data, residual="ar1(k | id)")
    rho = fit.residual_table().set_index("parameter")["estimate"].iloc[1]
    last = data[data["k"] == 4].iloc[:1]
    error = float((last["y"] - fit.predict(last, include_random=False)).iloc[0])
    later = last.assign(k=6).drop(columns="y")
    plain = float(fit.predict(later, include_random=False).iloc[0])
    assert fit.predict(later, given=True).iloc[0] == pytest.approx(plain + rho**2 * error, abs=1e-9)
    us = lme4py.lmer(BASE, data, residual="us(visit | id)")
    with pytest.raises(DataError, match="visit"):
        us.predict(last.assign(visit="V6"), given=True)


def test_limits_without_an_effect_of_the_dispersion_are_those_of_lmer(data):
    a = lme4py.lmer(BASE + " + (1 | id)", data, dispformula="~ 1")
    b = lme4py.lmer(BASE + " + (1 | id)", data)
    rows = data.head(5).drop(columns="y")
    # Two optimisers of one criterion agree to 1e-8 or so; the derivatives are by differences in both.
    for interval in ("confidence", "prediction"):
        for random in (True, False):
            x, z = (f.predict(rows, interval=interval, include_random=random) for f in (a, b))
            assert x.to_numpy() == pytest.approx(z.to_numpy(), abs=1e-6)
    for group, method, most in ((None, None, 1e-6), ("id", None, 1e-6), ("id", "refit", 1e-4)):
        x, z = (f.influence(group, method=method).to_frame() for f in (a, b))
        assert x.to_numpy() == pytest.approx(z.to_numpy(), abs=most)
    x, z = a.augment().select_dtypes("number"), b.augment().select_dtypes("number")
    assert x.to_numpy() == pytest.approx(z.to_numpy(), abs=1e-6)


def test_prediction_limits_have_the_variance_of_the_row(data):
    fit = lme4py.lmer(BASE, data, residual="us(visit | id)")
    rows = data.head(4)
    mean, new = (fit.predict(rows, interval=kind, ddf="normal") for kind in ("confidence", "prediction"))
    wide, narrow = (((one["upper"] - one["lower"]) / 2.0 / 1.959963984540054) ** 2 for one in (new, mean))
    own = np.diag(fit.residual_covariance().loc[rows["visit"], rows["visit"]])
    assert (wide - narrow).to_numpy() == pytest.approx(own, rel=1e-9)
    twice = lme4py.lmer(BASE, data, residual="ar1(k | id)", variance="power(fitted)")
    limits = twice.predict(rows, interval="prediction", ddf="normal")
    sd = twice.sigma * np.abs(limits["predicted"]) ** twice.fit.scale_coefficients[0]
    half = (limits["upper"] - limits["lower"]) / 2.0 / 1.959963984540054
    error = twice.predict(rows, se=True)["std_error"]
    assert (half**2 - error**2).to_numpy() == pytest.approx(sd.to_numpy() ** 2, rel=1e-8)


def test_degrees_of_freedom_of_a_sum_of_variances(data):
    """One subject a row: the variance of a new observation is sigma^2 (1 + x'(X'X)^-1 x), with n - p degrees."""
    rows = data.drop_duplicates("id")
    fit = lme4py.lmer("y ~ base", rows, dispformula="~ 1", fixed_only=True)
    limits = fit.predict(rows.head(2), interval="prediction", ddf="satterthwaite")
    from scipy import stats

    X = np.column_stack([np.ones(len(rows)), rows["base"]])
    spread = fit.sigma * np.sqrt(1.0 + np.einsum("ij,jk,ik->i", X, np.linalg.inv(X.T @ X), X)[:2])
    half = stats.t.ppf(0.975, len(rows) - 2) * spread
    # Numerical derivatives of the variances.
    assert ((limits["upper"] - limits["lower"]) / 2.0).to_numpy() == pytest.approx(half, rel=1e-7)


def test_modes_of_other_rows(data):
    fit = lme4py.lmer(BASE + " + (1 | id)", data, residual="ar1(k | id)")
    own, sd = fit.ranef(conditional_se=True)
    again, sd_again = fit.ranef(data=data, conditional_se=True)
    assert again.loc[own.index].to_numpy() == pytest.approx(own.to_numpy(), abs=1e-10)
    assert sd_again.loc[own.index].to_numpy() == pytest.approx(sd.to_numpy(), abs=1e-10)


def test_what_is_refused_by_name(data):
    order = lme4py.lmer(BASE, data, residual="ar1(1 | id)")
    with pytest.raises(OptionError, match="counts the rows"):
        order.predict(data.head(2), given=True)
    fit = lme4py.lmer(BASE, data, residual="us(visit | id)")
    with pytest.raises(DataError, match="another response"):
        fit.predict(data.head(2), given=data.head(3).assign(y=0.0))
    plain = lme4py.lmer(BASE + " + (1 | id)", data)
    with pytest.raises(OptionError, match="given=True"):
        plain.predict(data.head(2), given=True)
    by_group = lme4py.lmer(BASE, data, residual="ar1(k | id)", variance="ident(arm)")
    with pytest.raises(DataError, match="arm"):
        by_group.predict(data.head(2).assign(arm="c"), interval="prediction")


def test_rows_without_a_structure_are_told_by_their_groups_alone(data):
    """Of independent residuals, rows given move the modes: as lmer() with the same variances."""
    a = lme4py.lmer(BASE + " + (1 | id)", data, dispformula="~ 1")
    b = lme4py.lmer(BASE + " + (1 | id)", data)
    new = data.head(6).assign(id=lambda d: d["id"] + 100)
    # Two optimisers of one criterion.
    x, z = (f.predict(new, given=new, interval="prediction") for f in (a, b))
    assert x.to_numpy() == pytest.approx(z.to_numpy(), abs=1e-6)


def test_margins_without_random_effects_are_the_same_wherever_these_stand(data):
    fit = lme4py.lmer(BASE, data, residual="homcs(visit | id)")
    wanted = [
        lme4py.Margins.linear_scale(fit, random=random).predict(atexog={"arm": ["a", "b"]}).to_frame()["estimate"]
        for random in ("zero", "integrate", "conditional")
    ]
    assert wanted[0].tolist() == wanted[1].tolist() == wanted[2].tolist()


def test_clusters_of_a_model_without_groups_have_to_be_named(data):
    fit = lme4py.lmer(BASE, data, variance="ident(arm)")
    with pytest.raises(OptionError, match="no grouping factor"):
        fit.coef_table(vcov="CR2")
    assert np.isfinite(fit.coef_table(vcov="CR2", cluster="id")["std_error"]).all()


def test_narrow_inference_is_that_of_lmer_without_an_effect_of_the_dispersion(data):
    a = lme4py.lmer("y ~ arm + k + base + (k | id)", data, dispformula="~ 1")
    b = lme4py.lmer("y ~ arm + k + base + (k | id)", data)
    grid = {"arm": ["a", "b"]}
    x, z = (lme4py.Margins.linear_scale(f, random="conditional").predict(atexog=grid) for f in (a, b))
    numbers = [one.to_frame().select_dtypes("number").to_numpy() for one in (x, z)]
    # Two optimisers of one criterion; the derivatives are by differences in one of them.
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5, abs=1e-6)
    assert x.joint_test()["df_denom"] == pytest.approx(z.joint_test()["df_denom"], rel=1e-5)


def test_shares_of_one_residual_variance(data):
    a = lme4py.lmer("y ~ arm + k + base + (1 | id)", data, dispformula="~ 1")
    b = lme4py.lmer("y ~ arm + k + base + (1 | id)", data)
    one, two = lme4py.icc(a), lme4py.icc(b)
    # Two optimisers of one criterion.
    for name in ("estimate", "se", "ci_lower", "ci_upper"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-6)
    assert a.r_squared() == pytest.approx(b.r_squared(), rel=1e-6)
    ar1 = lme4py.lmer("y ~ arm + k + base + (1 | id)", data, residual="ar1(k | id)")
    parts = ar1.variance_components
    share = parts["var(_cons)"] / (parts["var(_cons)"] + parts["var(Residual)"])
    assert lme4py.icc(ar1).estimate == pytest.approx(share, rel=1e-10)
    for options in ({"variance": "ident(arm)"}, {"residual": "hetar1(visit | id)"}):
        fit = lme4py.lmer(BASE + " + (1 | id)", data, **options)
        with pytest.raises(OptionError, match="no residual variance in common"):
            lme4py.icc(fit)
        with pytest.raises(OptionError, match="no residual variance in common"):
            fit.r_squared()


def test_what_is_left_where_the_residual_part_alone_is_singular():
    """A correlation at its end beside a random intercept: V has an inverse, the residual part of it has none."""
    rng = np.random.default_rng(5)
    n, k = 20, 4
    y = 5.0 + 2.0 * rng.normal(size=n)[:, None] + rng.normal(size=(n, k)) * [1.0, 1.5, 1.0, 2.0]
    y[:, 1] -= 0.5 * (y[:, 2] - 5.0)
    data = pd.DataFrame(
        {"id": np.repeat([f"s{i}" for i in range(n)], k), "v": np.tile(list("abcd"), n), "y": y.ravel()}
    )
    fit = lme4py.lmer("y ~ v + (1 | id)", data, residual="cs(v | id)")
    assert fit.is_singular
    with pytest.raises(DesignError, match="it is singular at the estimates"):
        fit.residuals("normalized")
    R, S = fit.residual_covariance().to_numpy(), float(fit.covariances["(1 | id)"].iloc[0, 0])
    draws = fit.simulate(4_000, seed=1).to_numpy().reshape(n, k, -1)
    left = draws - draws.mean(axis=2, keepdims=True)
    # 80,000 products: correlations to about .005.
    assert np.einsum("iab,icb->ac", left, left) / (n * 4_000) == pytest.approx(R + S, abs=0.05 * np.max(R + S))
    # The second visit from the others of a subject, by the partitioned covariance.
    rest, V = [0, 2, 3], R + S
    new = data.assign(id="new " + data["id"])
    given = fit.predict(new[new["v"] == "b"].drop(columns="y"), given=new[new["v"] != "b"])
    mean = fit.predict(data.head(k), include_random=False).to_numpy()
    own = mean[1] + (y[:, rest] - mean[rest]) @ np.linalg.solve(V[np.ix_(rest, rest)], V[rest, 1])
    # The same linear predictors by matrices of 3 rows.
    assert given.to_numpy() == pytest.approx(own, rel=1e-8)


def test_the_covariance_of_one_subject_has_its_own_times_scales_and_weights():
    data = lme4py.load_dataset("Orthodont")
    data = data.assign(t=data.age + 0.1 * np.arange(len(data)) % 0.7, w=1.0 + np.arange(len(data)) % 3)
    fit = lme4py.lmer("distance ~ age", data, residual="exp(t | Subject)", variance="ident(Sex)", weights="w")
    own = data[data.Subject == "F02"].sort_values("t")
    table = fit.residual_table().set_index("parameter")["estimate"]
    sd = table["sd"] * np.exp(table["ident(Sex)[Female]"]) / np.sqrt(own.w.to_numpy())
    R = np.exp(-np.abs(np.subtract.outer(own.t.to_numpy(), own.t.to_numpy())) / table["range"])
    found = fit.residual_covariance(subject="F02")
    # The same formula.
    assert found.to_numpy() == pytest.approx(sd[:, None] * R * sd, rel=1e-10)
    assert found.index.tolist() == own.index.tolist()
    assert fit.residual_correlation(subject="F02").to_numpy() == pytest.approx(R, rel=1e-10)
    with pytest.raises(OptionError, match="Give a subject="):
        fit.residual_covariance()
    with pytest.raises(OptionError, match="no subject of exp"):
        fit.residual_covariance(subject="F2")
