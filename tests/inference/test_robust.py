"""Cluster-robust covariances: clubSandwich's numbers, the dense formulas of the papers, and exact scores."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from influence_models import FORMULAS, MODELS, dense_covariance, having, made_up, made_up_fit, reference_result
from numpy.testing import assert_allclose
from scipy import integrate, special, stats

import lme4py
from lme4py.errors import DataError, DesignError, OptionError
from lme4py.fits.generalised.scores import _on_user_scale, _one_by_one, cluster_scores
from lme4py.fits.rows.clusters import TYPES, buckets, find_clusters, row_sums
from lme4py.inference.estimates.coefficients import wald_test
from lme4py.inference.uncertainty.robust import robust_covariance, robust_df, robust_method

NESTED = [name for name in FORMULAS if name != "crossed"]


@pytest.mark.parametrize("name", having("cluster_robust"))
def test_as_clubsandwich(name: str) -> None:
    result, expected = reference_result(name), MODELS[name]["cluster_robust"]
    for kind in ("CR0", "CR1", "CR2"):
        # Both fits are good to about 1e-9.
        assert_allclose(result.cov_params(kind), expected[kind], rtol=1e-6)
    table, columns = result.coef_table(vcov="CR2"), expected["coef_test_CR2"]["cols"]
    assert_allclose(table["std_error"], columns["SE"], rtol=1e-6)
    assert_allclose(table["df"], columns["df_Satt"], rtol=1e-6)
    assert_allclose(table["p_value"], columns["p_Satt"], rtol=1e-4)


# clubSandwich 0.5.8 for y ~ x + z + (1 | g) of the unbalanced made-up data, in R's order of the lower triangle.
UNBALANCED = {
    "CR0": (
        [0.0734974827, -0.0392572630, 0.0009926075, 0.0660454493, 0.0107966465, 0.0395764606],
        [9.8007826, 9.4167687, 6.2156564],
    ),
    "CR2": (
        [0.0857161347, -0.0445421726, -0.0007847503, 0.0736078465, 0.0132692158, 0.0505434874],
        [9.6163778, 9.2351772, 5.8487304],
    ),
    "CR3": (
        [0.0991953529, -0.0494765328, -0.0025579860, 0.0823903141, 0.0160553998, 0.0641140719],
        [9.2979196, 9.0449794, 5.4879797],
    ),
}


@pytest.mark.parametrize("kind", UNBALANCED)
def test_unbalanced_data_as_clubsandwich(kind: str) -> None:
    result = lme4py.lmer("y ~ x + z + (1 | g)", made_up())
    triangle, df = UNBALANCED[kind]
    # lme4's optimum is good to about 1e-7.
    assert_allclose(result.cov_params(kind).to_numpy()[np.triu_indices(3)], triangle, rtol=1e-5, atol=1e-8)
    assert_allclose(result.coef_table(vcov=kind)["df"], df, rtol=1e-5)


def test_joint_test_as_clubsandwich() -> None:
    """Wald_test(constraints = constrain_zero(2:3)) with CR2: the test called HTZ."""
    found = lme4py.lmer("y ~ x + z + (1 | g)", made_up()).contest(["x", "z"], vcov="CR2").iloc[0]
    # As above.
    assert found["F"] == pytest.approx(18.2821602, rel=1e-5)
    assert found["den_df"] == pytest.approx(6.932427275, rel=1e-5)
    assert found["p_value"] == pytest.approx(0.001719677141, rel=1e-4)


def dense(fit: Any, codes: np.ndarray, kind: str) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """The covariance, the matrices that give every contrast as a linear form in y, and V: the papers' formulas."""
    X, V = fit.design.X, dense_covariance(fit)
    n, p = X.shape
    inverse = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ inverse @ X)
    y = fit.design.y - (0 if fit.design.offset is None else fit.design.offset)
    e = y - X @ (M @ X.T @ inverse @ y)
    one, H = np.eye(n), X @ M @ X.T @ inverse
    m = codes.max() + 1
    meat, forms = np.zeros((p, p)), []
    for c in range(m):
        own = codes == c
        Vc, Hc, rest = V[np.ix_(own, own)], H[np.ix_(own, own)], (one - H)[own]
        A = np.eye(own.sum())
        if kind == "CR1":
            A = A * np.sqrt(m / (m - 1))
        if kind == "CR2":
            D = np.linalg.cholesky(Vc).T
            values, vectors = np.linalg.eigh(D @ (rest @ V @ rest.T) @ D.T)
            kept = values > 1e-9 * values.max()
            A = D.T @ (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T @ D
        if kind == "CR3":
            A = np.linalg.inv(np.eye(own.sum()) - Hc)
        S = X[own].T @ np.linalg.inv(Vc) @ A
        meat += np.outer(S @ e[own], S @ e[own])
        forms.append(rest.T @ S.T @ M)
    return M @ meat @ M, forms, V


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", NESTED)
def test_dense_formulas(name: str, kind: str) -> None:
    fit = made_up_fit(name)
    codes = pd.factorize(made_up()["g"])[0]
    vcov, forms, V = dense(fit, codes, kind)
    # Exact algebra on both sides.
    assert_allclose(robust_covariance(fit, kind, made_up()["g"]), vcov, rtol=1e-9)
    df = []
    for contrast in np.eye(fit.beta.size):
        P = np.array([form @ contrast for form in forms])
        G = P @ V @ P.T
        df.append(np.trace(G) ** 2 / (G * G).sum())
    assert_allclose(robust_df(fit, np.eye(fit.beta.size), kind, made_up()["g"]), df, rtol=1e-9)


def test_coarser_clusters_and_crossed_factors() -> None:
    """Clusters may be coarser than the groups; of crossed factors each must be whole."""
    fit, codes = made_up_fit("slopes"), pd.factorize(made_up()["s"])[0]
    assert_allclose(robust_covariance(fit, "CR2", made_up()["s"]), dense(fit, codes, "CR2")[0], rtol=1e-9)
    crossed = made_up_fit("crossed")
    with pytest.raises(OptionError, match=r"g, c are crossed; say with `cluster=`"):
        robust_covariance(crossed)
    for cluster, split in (("g", "c"), ("c", "g")):
        with pytest.raises(OptionError, match=f"levels of {split} have rows in several clusters of '{cluster}'"):
            robust_covariance(crossed, "CR2", cluster)


def test_cluster_that_alone_determines_a_coefficient() -> None:
    """CR2 takes the generalised inverse; CR3 does not exist."""
    data = made_up().assign(only=lambda d: (d["g"] == "4") * 1.0)
    fit = lme4py.lmer("y ~ x + only + (1 | g)", data).fit
    codes = pd.factorize(data["g"])[0]
    # Directions of B with eigenvalues of rounding size are left out on both sides.
    assert_allclose(robust_covariance(fit, "CR2", data["g"]), dense(fit, codes, "CR2")[0], rtol=1e-6, atol=1e-9)
    with pytest.raises(DesignError, match="without cluster '4' of 'g'"):
        robust_covariance(fit, "CR3")


def test_unbiased_under_the_model() -> None:
    """The average of CR2 over data from the model with V known is the model's covariance (Bell & McCaffrey)."""
    fit = made_up_fit("slopes")
    method: Any = robust_method(fit, "CR2", "g")
    b, a = method._forms(np.eye(fit.beta.size))
    expected = (b - np.einsum("crk,csk->crs", a, a)).sum(axis=0)
    C = method.C
    # Exact algebra.
    assert_allclose(expected, C @ method.M @ C.T, rtol=1e-9, atol=1e-12)


def test_f_test_of_one_row_is_the_t_test() -> None:
    result = reference_result("lmm_sleep_rs")
    one = result.contest("Days", vcov="CR2")
    t = result.coef_table(vcov="CR2").loc["Days"]
    assert one["F"].item() == pytest.approx(t["statistic"] ** 2, rel=1e-12)
    assert one["p_value"].item() == pytest.approx(t["p_value"], rel=1e-8)


def test_hotelling_test_in_balanced_data() -> None:
    """18 subjects with the same design: exactly Hotelling's T squared of their least-squares lines."""
    result = reference_result("lmm_sleep_rs")
    data = lme4py.load_dataset("sleepstudy")
    lines = np.array([np.polyfit(own["Days"], own["Reaction"], 1) for _, own in data.groupby("Subject", observed=True)])
    mean, covariance = lines.mean(axis=0), np.cov(lines.T)
    T2 = 18 * mean @ np.linalg.solve(covariance, mean)
    F = (18 - 2) / (17 * 2) * T2
    found = result.contest(["Intercept", "Days"], vcov="CR2").iloc[0]
    # The estimate of balanced data does not depend on the variances.
    assert found["F"] == pytest.approx(F, rel=1e-8)
    assert (found["num_df"], found["den_df"]) == pytest.approx((2, 16), rel=1e-8)
    assert found["p_value"] == pytest.approx(stats.f.sf(F, 2, 16), rel=1e-6)


def test_f_test_against_dense_variances() -> None:
    """The degrees of freedom of several rows from all elements of G."""
    fit = made_up_fit("slopes")
    codes = pd.factorize(made_up()["g"])[0]
    _, forms, V = dense(fit, codes, "CR1")
    L = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]])
    P = np.array([form @ L.T for form in forms])
    G = np.einsum("ins,nm,jmt->stij", P, V, P, optimize=True)
    root = np.linalg.inv(np.linalg.cholesky(np.einsum("stii->st", G)))
    G = np.einsum("sa,tb,abij->stij", root, root, G)
    total = sum((G[s, s] * G[t, t]).sum() + (G[s, t] * G[s, t].T).sum() for s in range(2) for t in range(2))
    eta = 6.0 / total
    test = robust_method(fit, "CR1", "g").f_test(L, L @ fit.beta)
    # Exact algebra on both sides.
    assert test.den_df == pytest.approx(eta - 1.0, rel=1e-9)
    assert test.scale == pytest.approx((eta - 1.0) / eta, rel=1e-9)


def test_too_few_clusters() -> None:
    data = made_up()
    fit = lme4py.lmer("y ~ x + z + w + o + (1 | s)", data).fit
    with pytest.raises(DesignError, match="4 clusters are too few for a robust test of 5"):
        robust_method(fit, "CR2").f_test(np.eye(5), fit.beta)
    with pytest.raises(DesignError, match="too few for a robust test of 5"):
        wald_test(fit, np.eye(5), vcov="CR1")


def test_flows_into_tests_and_intervals() -> None:
    result = reference_result("lmm_sleep_ri")
    V = result.cov_params("CR1").to_numpy()
    beta = result.params.to_numpy()
    assert result.wald_test(["Intercept", "Days"], vcov="CR1")["chi2"] == pytest.approx(beta @ np.linalg.solve(V, beta))
    limits = result.conf_int(vcov="CR1", ddf="residual").loc["Days"]
    half = stats.t.isf(0.025, 178) * np.sqrt(V[1, 1])
    assert_allclose(limits, [beta[1] - half, beta[1] + half], rtol=1e-12)
    # Degrees of freedom of the robust covariance unless others are asked for.
    width = result.conf_int(vcov="CR2").loc["Days"]
    assert width["upper"] - beta[1] == pytest.approx(stats.t.isf(0.025, 17) * np.sqrt(V[1, 1]), rel=1e-6)
    assert result.coef_table(vcov="CR2", ddf="normal")["df"].tolist() == [np.inf, np.inf]


def test_keyword_front_door() -> None:
    """A robust covariance that is asked for brings its degrees of freedom, whatever the default of the tables is."""
    result = lme4py.mixed(made_up(), "y", ["x", "z"], "g", ["x"])
    table = result.coef_table(vcov="CR2")
    assert_allclose(table["df"], robust_df(made_up_fit("slopes"), np.eye(3), "CR2", "g"), rtol=1e-4)
    assert np.isinf(result.coef_table()["df"]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.cov_params("CR4"), "no robust covariance. Did you mean 'CR"),
        (lambda r: r.coef_table(cluster="Subject"), "`cluster` is for a robust covariance"),
        (lambda r: r.coef_table(ddf="kenward-roger", vcov="CR2"), "belongs to the model's own"),
        (lambda r: r.cov_params("CR2", cluster="Subjcet"), r"Did you mean 'Subject'.*cluster=data\['Subjcet'\]"),
        (lambda r: r.cov_params("CR2", cluster=[1, 2]), "`cluster` has 2 values but the data have 180 rows"),
        (lambda r: r.cov_params("CR2", cluster=np.zeros((180, 2))), r"shape \(180, 2\)"),
        (lambda r: r.cov_params("CR2", cluster=[1] * 180), "one cluster only"),
        (lambda r: r.conf_int(method="profile", vcov="CR2"), "vcov='CR2' is for method='wald' only"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises((OptionError, DataError), match=message):
        call(reference_result("lmm_sleep_ri"))


def test_missing_labels() -> None:
    labels = made_up()["g"].astype(object)
    labels[7] = None
    with pytest.raises(DataError, match="missing in 1 of the rows used"):
        robust_covariance(made_up_fit("slopes"), "CR2", labels)


def test_labels_of_other_libraries() -> None:
    polars = pytest.importorskip("polars")
    fit, labels = made_up_fit("slopes"), made_up()["g"]
    expected = robust_covariance(fit, "CR2", labels)
    for other in (labels.to_numpy(), labels.tolist(), polars.Series("g", labels.tolist()), labels.astype("category")):
        assert_allclose(robust_covariance(fit, "CR2", other), expected, rtol=1e-12)


def test_buckets_and_sums() -> None:
    rng = np.random.default_rng(3)
    codes = rng.choice(40, 500, p=rng.dirichlet(np.full(40, 0.5)))
    codes = np.unique(codes, return_inverse=True)[1]
    size = int(codes.max()) + 1
    seen = np.zeros(codes.size)
    for which, rows, counts in buckets(codes, size, most=2000):
        for c, own, count in zip(which, rows, counts, strict=True):
            assert (codes[own] == c).all()
            seen[own[:count]] += 1
    assert (seen == 1).all()
    values = rng.normal(size=(500, 2, 3))
    expected = np.array([values[codes == c].sum(axis=0) for c in range(size)])
    # Sums in another order.
    assert_allclose(row_sums(values, codes, size), expected, atol=1e-12)
    assert find_clusters(made_up_fit("nested").design).name == "g"


# --- scores of generalised models -------------------------------------------------------------------------------

GENERALISED: dict[str, dict[str, Any]] = {
    "poisson": {"formula": "count ~ x + (1 | g)", "family": "poisson"},
    "poisson, slopes": {"formula": "count ~ x + (x | g)", "family": "poisson"},
    "binomial, nested": {"formula": "cbind(win, size - win) ~ x + (1 | s) + (1 | g)"},
    "probit, expected": {"formula": "cbind(win, size - win) ~ x + (1 | g)", "link": "probit", "hessian": "expected"},
    "negative binomial": {"formula": "count ~ x + (1 | g)", "family": "nbinomial"},
    "diagonal": {"formula": "count ~ x + diag(x | g)", "family": "poisson"},
    "equal correlations": {"formula": "count ~ x + homcs(0 + f | g)", "family": "poisson"},
    "no variances": {"formula": "noise ~ x + (1 | s) + (1 | g)", "family": "poisson"},
    "quadrature": {"formula": "cbind(win, size - win) ~ x + (1 | g)", "nAGQ": 5},
    "nested quadrature": {"formula": "cbind(win, size - win) ~ x + (1 | s) + (1 | g)", "nAGQ": 3},
}


def generalised(name: str) -> Any:
    with warnings.catch_warnings():
        # Small made-up data may lie on the boundary.
        warnings.simplefilter("ignore", lme4py.errors.Lme4Warning)
        rng = np.random.default_rng(4)
        data = made_up().assign(f=rng.integers(0, 3, 150).astype(str), noise=rng.poisson(np.ones(150)))
        return lme4py.glmer(data=data, **GENERALISED[name])


@pytest.mark.parametrize("name", GENERALISED)
def test_scores_add_up_to_zero(name: str) -> None:
    fit = generalised(name).fit
    cluster = "s" if "s" in fit.design.n_groups else "g"
    scores = cluster_scores(fit, cluster)
    # The optimum is good to about 1e-6 standard errors.
    errors = np.sqrt(np.diag(fit.parameter_vcov))
    assert np.abs(scores.sum(axis=0) * errors).max() < 1e-4
    if fit.nAGQ == 1:
        one_by_one = _on_user_scale(fit, -0.5 * _one_by_one(fit, find_clusters(fit.design, cluster)))
        # The same sums by two ways.
        assert_allclose(scores, one_by_one, rtol=1e-8, atol=1e-8)


def test_scores_of_ordinal_models() -> None:
    fit = lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine")).fit
    scores = cluster_scores(fit)
    assert scores.shape == (9, 7)
    # The optimum is good to about 1e-6.
    assert np.abs(scores.sum(axis=0)).max() < 1e-5
    one_by_one = _on_user_scale(fit, -0.5 * _one_by_one(fit, find_clusters(fit.design)))
    assert_allclose(scores, one_by_one, rtol=1e-8, atol=1e-8)


def log_likelihood(data: pd.DataFrame, theta: float, beta: np.ndarray) -> float:
    """Of one group of a logistic model with a random intercept, by numerical integration."""
    eta = beta[0] + beta[1] * data["x"].to_numpy()
    wins, size = data["win"].to_numpy(), data["size"].to_numpy()
    constant = float(np.log(special.binom(size, wins)).sum())

    def joint(u: float) -> float:
        move = eta + theta * u
        return float(np.exp(constant + (wins * move - size * np.logaddexp(0, move)).sum() - 0.5 * u * u))

    return float(np.log(integrate.quad(joint, -9, 9, epsabs=0, epsrel=1e-12, limit=200)[0] / np.sqrt(2 * np.pi)))


def test_scores_against_numerical_integration() -> None:
    data = made_up()
    fit = lme4py.glmer("cbind(win, size - win) ~ x + (1 | g)", data, nAGQ=15).fit
    scores = cluster_scores(fit)
    at = np.array([fit.theta[0], *fit.beta])
    for position, level in enumerate(fit.design.terms[0].levels[:3]):
        own = data[data["g"] == level]
        for i, step in enumerate(np.eye(3) * 1e-4):
            up, down = at + step, at - step
            slope = (log_likelihood(own, up[0], up[1:]) - log_likelihood(own, down[0], down[1:])) / 2e-4
            # Central differences of step 1e-4, and 15 points.
            assert scores[position, i] == pytest.approx(slope, abs=2e-6)


def test_robust_covariance_of_generalised_models() -> None:
    """The sandwich of all parameters; CR1 has Stata's factor m / (m - 1)."""
    result = generalised("poisson")
    fit = result.fit
    scores = cluster_scores(fit)
    sandwich = fit.parameter_vcov @ scores.T @ scores @ fit.parameter_vcov
    assert_allclose(result.cov_params("CR0"), sandwich[1:3, 1:3], rtol=1e-12)
    assert_allclose(result.cov_params("CR1"), 12 / 11 * sandwich[1:3, 1:3], rtol=1e-12)
    table = result.coef_table(vcov="CR1")
    assert table["df"].tolist() == [np.inf, np.inf]
    with pytest.raises(OptionError, match="use 'CR0', or 'CR1' as Stata"):
        result.cov_params("CR2")


def test_no_scores_without_a_likelihood() -> None:
    with pytest.raises(OptionError, match="nAGQ=1 or more"):
        lme4py.glmer("count ~ x + (1 | g)", made_up(), "poisson", nAGQ=0).cov_params("CR1")
