"""Terms with one variance and one covariance: the fits, the profile."""

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.covariance import CovarianceStructures, make_structure
from lme4py.covariance.kinds.compound import mean_and_contrasts

SLEEP = lme4py.load_dataset("sleepstudy").assign(D=lambda d: (d["Days"] - 4.5) / 3)
MACHINES = lme4py.load_dataset("Machines")


def test_the_engine_has_the_mean_and_contrasts():
    for k in (1, 2, 5):
        H = mean_and_contrasts(k)
        np.testing.assert_allclose(H.T @ H, np.eye(k), atol=1e-15)
        np.testing.assert_allclose(H[:, 0], 1.0 / np.sqrt(k), rtol=1e-15)
    design = lme4py.lformula("Reaction ~ D + homcs(D | Subject)", SLEEP)
    criterion = lme4py.lmm_criterion(design)
    theta = np.array([1.4, 0.7])
    assert criterion.to_inside(theta).shape == (2,)
    # There and back: a few roundings.
    np.testing.assert_allclose(criterion.to_user(criterion.to_inside(theta)), theta, rtol=1e-13)
    h = 1e-6 * np.eye(2)
    numeric = [(criterion(theta + s) - criterion(theta - s)) / 2e-6 for s in h]
    # Central differences of a value of 1e3: 1e-13 * 1e3 / 1e-6.
    np.testing.assert_allclose(criterion.gradient(theta), numeric, atol=1e-4)


def test_theta_of_the_user_moves_with_that_of_the_engine():
    S = 0.7 * mean_and_contrasts(3)
    user = CovarianceStructures((make_structure("homcs", 3),))
    inside = user.in_columns([S])
    theta = np.array([1.2, 0.4])

    def mapped(values):
        return user.theta_of_factors([S @ T for T in inside.factors(values)])

    numeric = np.array([(mapped(theta + s) - mapped(theta - s)) / 2e-6 for s in 1e-6 * np.eye(2)]).T
    # Linear but for the sign: rounding / 1e-6.
    np.testing.assert_allclose(user.to_user_jacobian(theta, [S]), numeric, atol=1e-8)


# nlme::lme(Reaction ~ D, random = list(Subject = pdCompSymm(~ 1 + D))) and pdIdent; tolerance 1e-12 of its optimiser.
@pytest.mark.parametrize(
    ("structure", "reml", "expected"),
    [
        ("homcs", False, -881.928262497),
        ("homcs", True, -876.340461272),
        ("id", False, -885.012394559),
        ("id", True, -879.254009423),
    ],
)
def test_log_likelihoods_of_nlme(structure, reml, expected):
    result = lme4py.lmer(f"Reaction ~ D + {structure}(1 + D | Subject)", SLEEP, reml=reml)
    # nlme prints twelve digits.
    assert result.log_likelihood == pytest.approx(expected, abs=1e-8)
    if structure == "homcs" and not reml:
        parts = result.variance_components
        # nlme prints five digits.
        assert parts["var(_cons)"] == parts["var(D)"] == pytest.approx(815.44, abs=5e-3)
        assert parts["cov(_cons,D)"] == pytest.approx(477.02, abs=5e-3)


@pytest.fixture(scope="module")
def twins():
    """Compound symmetry, and the same as an intercept with nested ones."""
    one = lme4py.lmer("score ~ Machine + homcs(0 + Machine | Worker)", MACHINES, reml=False)
    two = lme4py.lmer("score ~ Machine + (1 | Worker/Machine)", MACHINES, reml=False)
    return one, two


def test_compound_symmetry_is_a_nested_intercept(twins):
    one, two = twins
    assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-8)
    assert one.n_params == two.n_params
    a, b = one.variance_components, two.variance_components
    # Both minima are flat to their certified bound.
    assert a["cov(Machine[A],Machine[B])"] == pytest.approx(b["var(_cons|Worker)"], rel=1e-6)
    total = b["var(_cons|Worker)"] + b["var(_cons|Machine:Worker)"]
    assert a["var(Machine[A])"] == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(one.fittedvalues, two.fittedvalues, rtol=1e-8)
    np.testing.assert_allclose(one.coef_table()["df"], two.coef_table()["df"], rtol=1e-5)
    three = lme4py.lmer(one.formula, MACHINES).coef_table("kenward-roger")
    four = lme4py.lmer(two.formula, MACHINES).coef_table("kenward-roger")
    np.testing.assert_allclose(three, four, rtol=1e-5)


def test_profile_limits(twins):
    one, two = twins
    names = ["Intercept", "sigma"]
    # The likelihood is the same function of these as long as the covariance is positive.
    np.testing.assert_allclose(
        one.conf_int(method="profile", parm=names), two.conf_int(method="profile", parm=names), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["sd(Intercept | Subject)", "cor(Intercept, D | Subject)"])
def test_profile_of_the_shared_parameters_is_the_constrained_likelihood(name):
    """At a limit the largest likelihood under the constraint lies a chi-squared quantile below the maximum."""
    from scipy import optimize

    fit = lme4py.lmer("Reaction ~ D + homcs(1 + D | Subject)", SLEEP, reml=False)
    limits = fit.conf_int(method="profile", parm=[name])
    criterion = lme4py.lmm_criterion(fit.fit.design, reml=False)
    n = fit.n_obs

    def deviance(variance, rho, sigma):
        theta = np.sqrt(variance * np.array([1.0 + rho, 1.0 - rho])) / sigma
        profiled = criterion(theta)
        r2 = np.exp((profiled - _log_det(fit, theta)) / n - 1.0 - np.log(2.0 * np.pi / n))
        return profiled + n * (np.log(n * sigma**2 / r2) - 1.0) + r2 / sigma**2

    for limit in limits.iloc[0]:

        def free(x, limit=limit):
            if name == "sd(Intercept | Subject)":
                return deviance(limit**2, np.tanh(x[0]), np.exp(x[1]))
            return deviance(np.exp(2.0 * x[0]), limit, np.exp(x[1]))

        start = [0.5, 3.2] if name == "sd(Intercept | Subject)" else [3.3, 3.2]
        found = optimize.minimize(free, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-9})
        # The limits of the profile are interpolated to about 1e-5 of the interval.
        assert found.fun - fit.deviance == pytest.approx(3.841458821, abs=1e-3)


def _log_det(fit, theta):
    """log|M| from the random-effects model matrix."""
    T = make_structure("homcs", 2).factor(theta)
    Z = fit.Zt.toarray()
    W = np.kron(np.eye(18), T.T) @ Z
    return np.linalg.slogdet(W @ W.T + np.eye(36))[1]


def test_the_lower_end_of_the_correlation():
    rng = np.random.default_rng(5)
    n, k = 60, 3
    effects = rng.normal(size=(n, k))
    effects -= effects.mean(axis=1, keepdims=True)
    level, kind = np.repeat(np.arange(n), 2 * k), np.tile(np.repeat(np.arange(k), 2), n)
    y = 2.0 * effects[level, kind] + 0.5 * rng.normal(size=level.size)
    data = pd.DataFrame({"y": y, "g": level, "f": [f"k{i}" for i in kind]})
    result = lme4py.lmer("y ~ f + homcs(0 + f | g)", data)
    assert result.converged
    assert result.is_singular
    # The end of the range, -1 / (k - 1), but for rounding.
    assert result.variance_components["corr(f[k0],f[k1])"] == pytest.approx(-0.5, abs=1e-9)
    lower = result.conf_int(method="profile", parm=["cor(f[k0], f[k1] | g)"])["lower"].iloc[0]
    assert lower == pytest.approx(-0.5, abs=1e-6)


def test_generalised_models():
    data = lme4py.load_dataset("Contraception").assign(a=lambda d: d["age"] / 10)
    result = lme4py.glmer("use ~ a + homcs(1 + a | district)", data)
    assert result.converged
    free = lme4py.glmer("use ~ a + (1 + a | district)", data)
    test = lme4py.lrtest(result, free)
    assert test.df == 1
    assert not test.boundary_corrected
    quadrature = lme4py.glmer("use ~ a + homcs(1 + a | district)", data, nAGQ=5)
    assert abs(quadrature.log_likelihood - result.log_likelihood) < 1.0
    assert np.isfinite(result.conf_int(parm="random").to_numpy()).all()


def test_other_inference():
    result = lme4py.lmer("Reaction ~ D + homcs(1 + D | Subject)", SLEEP)
    nothing = lme4py.lrtest(None, result)
    assert nothing.df == 2
    # Two independent half-lines.
    assert set(nothing.weights) == {0, 1, 2}
    assert sum(nothing.weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert list(result.ranova().index) == ["<none>", "homcs(1 + D | Subject)"]
    shared = lme4py.lmer("Reaction ~ D + id(1 + D | Subject)", SLEEP)
    assert lme4py.lrtest(shared, result).df == 1
    again = result.refit(2.0 * SLEEP["Reaction"])
    assert again.variance_components["var(D)"] == pytest.approx(4.0 * result.variance_components["var(D)"], rel=1e-6)
    assert result.simulate(3, seed=1).shape == (180, 3)
    # Both columns together: one variance is an alias of the other.
    limits = result.conf_int(parm="random")
    np.testing.assert_allclose(limits.loc["sd(Intercept | Subject)"], limits.loc["sd(D | Subject)"], rtol=1e-12)
