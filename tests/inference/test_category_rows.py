"""Rows of models of categories: predictions with modes and given other rows, residuals, draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from scipy.special import logit, softmax

import lme4py
from lme4py.errors import DataError, IdentificationWarning, OptionError

RNG = np.random.default_rng(11)
N, J = 160, 16
G = np.repeat(np.arange(J), N // J)
X = RNG.standard_normal(N)
_U = RNG.standard_normal((J, 2))[G]
_ETA = np.column_stack([np.zeros(N), 0.3 + 0.6 * X + _U[:, 0], -0.2 - 0.5 * X + 0.7 * _U[:, 1]])
Y = np.array(["A", "B", "C"])[(_ETA + RNG.gumbel(size=(N, 3))).argmax(axis=1)]
ORDERED = np.digitize(X + _U[:, 0] + RNG.logistic(size=N), [-1.5, 0.0, 1.5])
DATA = pd.DataFrame({"y": Y, "x": X, "o": ORDERED, "z": RNG.choice([0.0, 1.0], N), "g": G.astype(str)})
CBPP = lme4py.load_dataset("cbpp").assign(healthy=lambda d: d["size"] - d["incidence"])
PAIR = lme4py.load_dataset("Contraception").query("district in ['1', '2', '3', '4', '5', '6', '7', '8']")
NEW = pd.DataFrame({"x": [-1.0, 0.4], "z": [0.0, 1.0], "g": "new"})


@pytest.fixture(scope="module")
def fit():
    return lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial")


@pytest.fixture(scope="module")
def pairs():
    """A response of two categories, as unordered ones and as a binary one."""
    formula = "use ~ age + (1 + age | district)"
    return lme4py.glmer(formula, PAIR, family="multinomial"), lme4py.glmer(formula, PAIR, family="binomial")


@pytest.fixture(scope="module")
def counts():
    many = lme4py.glmer("cbind(healthy, incidence) ~ period + (1 | herd)", CBPP, family="multinomial")
    return many, lme4py.glmer("cbind(incidence, healthy) ~ period + (1 | herd)", CBPP)


def test_limits_with_modes_are_those_of_dense_equations(fit):
    p = fit.predict(type="prob", include_random=True).to_numpy()
    own = np.column_stack([np.ones(N), X])
    D = np.kron(np.eye(2), own)
    Z = np.zeros((2 * N, 2 * J))
    for d in range(2):
        Z[d * N + np.arange(N), 2 * np.searchsorted(fit.ranef().index, DATA["g"]) + d] = 1.0
    W = np.block([[np.diag(p[:, d + 1] * ((d == e) - p[:, e + 1])) for e in range(2)] for d in range(2)])
    C = np.linalg.inv(Z.T @ W @ Z + np.kron(np.eye(J), np.linalg.inv(fit.fit.covariances[0])))
    left = D - Z @ C @ Z.T @ W @ D
    V = left @ fit.cov_params().to_numpy() @ left.T + Z @ C @ Z.T
    found, linear = (fit.predict(type=kind, interval="confidence") for kind in ("prob", "linear"))
    half = 1.959963984540054
    for i in range(0, N, 40):
        rows = [i, N + i]
        # The modes of the fit are those of its last step.
        np.testing.assert_allclose(
            (
                linear.iloc[i][[("B", "upper"), ("C", "upper")]]
                - linear.iloc[i][[("B", "predicted"), ("C", "predicted")]].to_numpy()
            )
            / half,
            np.sqrt(V[rows, rows]),
            rtol=1e-7,
        )
        slopes = np.array([[p[i, k] * ((k == d + 1) - p[i, d + 1]) for d in range(2)] for k in range(3)])
        errors = np.sqrt(np.einsum("kd,de,ke->k", slopes, V[np.ix_(rows, rows)], slopes)) / (p[i] * (1.0 - p[i]))
        for k, label in enumerate("ABC"):
            own_half = logit(found[label]["upper"].iloc[i]) - logit(p[i, k])
            assert own_half / half == pytest.approx(errors[k], rel=1e-7)


def test_two_categories_have_the_rows_of_the_binary_model(pairs, counts):
    a, b = pairs
    # Two ways to one optimum: to about 1e-9.
    close = {"rtol": 1e-6, "atol": 1e-8}
    rows = PAIR.head(12)
    np.testing.assert_allclose(
        a.predict(rows, interval="confidence")["Y"], b.predict(rows, interval="confidence"), **close
    )
    for kind in ("response", "pearson", "deviance", "working"):
        own = a.residuals(kind)
        np.testing.assert_allclose(own["Y"], b.residuals(kind), **close)
        np.testing.assert_allclose(own["N"], -b.residuals(kind), **close)
        np.testing.assert_allclose(counts[0].residuals(kind)["incidence"], counts[1].residuals(kind), **close)
    np.testing.assert_allclose(a.residuals(), a.residuals("deviance"))
    errors = a.predict(rows, type="prob", se=True)["Y"]
    np.testing.assert_allclose(errors, b.predict(rows, se=True), **close)
    new = PAIR.head(6).assign(district="new")
    found = a.predict(new, given=new, type="prob", interval="confidence")["Y"]
    np.testing.assert_allclose(found, b.predict(new, given=new, interval="confidence"), **close)
    linear = a.predict(new, given=new, type="linear", se=True)["Y"]
    np.testing.assert_allclose(linear, b.predict(new, given=new, type="linear", se=True), **close)
    more = CBPP.head(4).assign(herd="new")
    own = counts[0].predict(more, given=more, type="prob")["incidence"]
    np.testing.assert_allclose(own, counts[1].predict(more, given=more), **close)


def test_a_new_group_given_rows_is_its_joint_mode(fit):
    given = DATA.iloc[7:15].assign(g="new")
    b = fit.params.to_numpy().reshape(2, 2)
    inverse = np.linalg.inv(fit.fit.covariances[0])
    codes = given["y"].map({"A": 0, "B": 1, "C": 2}).to_numpy()

    def probabilities(x, u):
        eta = b[:, 0] + np.outer(x, b[:, 1]) + u
        return softmax(np.column_stack([np.zeros(len(x)), eta]), axis=1)

    def objective(u):
        p = probabilities(given["x"], u)
        return -np.log(p[np.arange(len(codes)), codes]).sum() + 0.5 * u @ inverse @ u

    best = optimize.minimize(objective, np.zeros(2), options={"gtol": 1e-9}).x
    # A search with differences for a gradient.
    np.testing.assert_allclose(fit.ranef(data=given).loc["new"], best, atol=1e-6)
    np.testing.assert_allclose(fit.predict(NEW, given=given, type="prob"), probabilities(NEW["x"], best), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"nominal": "~ z"}, {"scale": "~ z"}, {"structure": "adjacent"}])
def test_rows_of_other_groups_change_nothing(options):
    fit = lme4py.clmm("o ~ x + (1 | g)", DATA, **options)
    given = DATA.iloc[5:15].assign(g="new")
    for kind in ("prob", "linear", "cumulative"):
        a = fit.predict(DATA.head(4), given=given, type=kind, interval="confidence")
        # The modes of the fit are those of its last step.
        np.testing.assert_allclose(a, fit.predict(DATA.head(4), type=kind, interval="confidence"), rtol=1e-6)
    np.testing.assert_allclose(fit.ranef(data=DATA).loc[fit.ranef().index], fit.ranef(), atol=1e-7)


def test_categories_of_rows_given_are_found_by_their_names():
    """Other rows can lack categories, and have them in another order."""
    words = ["bad", "poor", "fair", "good"]
    text = DATA.assign(o=[words[code] for code in ORDERED])
    fit = lme4py.clmm("o ~ x + (1 | g)", text, levels=words)
    numbers = lme4py.clmm("o ~ x + (1 | g)", DATA)
    some = text["o"].isin(["poor", "good"])
    np.testing.assert_allclose(fit.ranef(data=text[some]), numbers.ranef(data=DATA[some]), atol=1e-7)
    other = lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial", baseline="C")
    same = lme4py.glmer("y ~ x + (1 | g)", DATA, family="multinomial")
    given = DATA[DATA["y"] != "A"].head(6).assign(g="new")
    a, b = (own.predict(NEW, given=given, type="prob") for own in (other, same))
    np.testing.assert_allclose(a[["A", "B", "C"]], b, atol=1e-5)  # two optima of one model
    with pytest.raises(DataError, match="have awful, which is no category of the fit"):
        fit.ranef(data=text.head(3).assign(o="awful"))


def test_draws_for_other_rows_have_the_averaged_probabilities(fit):
    rows = pd.concat([NEW.assign(g=f"n{i}") for i in range(400)], ignore_index=True)
    drawn = fit.simulate(10, seed=3, data=rows).to_numpy()
    want = fit.predict(NEW, include_random="integrate", type="prob").to_numpy()
    for i in range(2):
        shares = [(drawn[i::2] == label).mean() for label in "ABC"]
        # 4,000 draws: standard errors of .008.
        np.testing.assert_allclose(shares, want[i], atol=0.03)
    larger = lme4py.extend(fit, along="g", n=20)
    assert larger.n_groups == {"g": 20}
    assert set(larger.simulate(1, seed=1)["sim_1"]) == {"A", "B", "C"}


def test_draws_of_counts_for_other_rows(counts):
    rows = CBPP.head(5).assign(herd="new")
    drawn = counts[0].simulate(2, seed=1, data=rows)
    assert drawn["sim_2"].sum(axis=1).tolist() == rows["size"].tolist()
    with pytest.raises(OptionError, match="need both columns"):
        counts[0].simulate(1, data=rows.assign(healthy=np.nan))


def test_quantile_residuals_of_a_category(fit):
    table = fit.residuals("quantile", seed=2)
    own = fit.quantile_residuals(seed=2, category="B")
    pd.testing.assert_series_equal(table["B"], own.residuals, check_names=False)
    assert own.test_dispersion().p_value > 0.01
    with pytest.raises(OptionError, match="is no category"):
        fit.quantile_residuals(category="D")
    with pytest.raises(OptionError, match="unordered categories"):
        lme4py.clmm("o ~ x + (1 | g)", DATA).quantile_residuals(category=1)


def test_augment_has_columns_for_each_category(fit):
    table = fit.augment()
    np.testing.assert_allclose(table[["mu_A", "mu_B", "mu_C"]], fit.predict(type="prob"))
    np.testing.assert_allclose(table[["resid_A", "resid_B", "resid_C"]], fit.residuals("deviance"))
    np.testing.assert_allclose(table[["fixed_B", "fixed_C"]], fit.predict(type="linear", include_random=False))
    new = fit.augment(newdata=DATA.head(3), prefix=".")
    np.testing.assert_allclose(new[[".fitted_B", ".fitted_C"]], fit.predict(DATA.head(3), type="linear"))
    with pytest.raises(OptionError, match="leverages of rows"):
        fit.augment(leverage=True)


def test_ties_of_classes_are_told():
    data = pd.DataFrame({"y": list("ABC") * 8, "g": np.repeat(list("abcd"), 6)})
    fit = lme4py.glmer("y ~ 1", data, family="multinomial")
    with pytest.warns(IdentificationWarning, match=r"3 of 3 rows .* A and B and C"):
        assert fit.predict(data.head(3), type="class").tolist() == ["A", "A", "A"]
