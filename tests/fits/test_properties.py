"""Properties that hold for every data set: generalised and ordinal models, and what linear ones share with them.

The units, orders and labels of linear models are in test_invariance.py.
"""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

import lme4py

# The same examples every time, and few of them: each is a whole fit.
few = settings(max_examples=4, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**31)

FAMILIES = ("binomial", "poisson", "nbinomial", "gamma")
KINDS = ("lmm", *FAMILIES, "clmm")
GENERALISED = (*FAMILIES, "clmm")


def make(seed: int, n: int = 160, groups: int = 16, spread: float = 0.8) -> pd.DataFrame:
    """Unbalanced data with a response for every kind of model."""
    rng = np.random.default_rng(seed)
    g = np.concatenate([np.arange(groups), rng.integers(0, groups, n - groups)])
    x, z = rng.normal(size=n), rng.normal(size=n)
    f = rng.permutation(np.resize(["a", "b", "c"], n))
    eta = 0.2 + 0.5 * x + spread * rng.normal(size=groups)[g] + 0.3 * (f == "c")
    mean = np.exp(eta)
    return pd.DataFrame(
        {
            "lmm": eta + rng.normal(size=n),
            "binomial": (rng.logistic(size=n) < eta).astype(int),
            "poisson": rng.poisson(mean),
            "nbinomial": rng.poisson(mean * rng.gamma(2.0, 0.5, n)),
            "gamma": mean * rng.gamma(3.0, 1 / 3, n),
            "clmm": np.digitize(eta + rng.logistic(size=n), [-1.0, 0.3, 1.5]),
            "x": x,
            "z": z,
            "f": f,
            "g": [f"g{i:02d}" for i in g],
        }
    )


def fit(kind: str, data: object, right: str = "x + z + (1 | g)", **options: object) -> lme4py.MEGLMResult:
    """The model of a kind."""
    formula = f"{kind} ~ {right}"
    if kind == "lmm":
        return lme4py.lmer(formula, data, **options)
    if kind == "clmm":
        return lme4py.clmm(formula, data, **options)
    return lme4py.glmer(formula, data, kind, **options)


def fixed_part(result: lme4py.MEGLMResult) -> np.ndarray:
    """Fixed effects, and thresholds where there are any."""
    beta = result.params.to_numpy()
    return np.concatenate([beta, result.thresholds]) if result.family == "ordinal" else beta


def same_model(one: lme4py.MEGLMResult, other: lme4py.MEGLMResult) -> None:
    """Two fits of one model to the same data in another form."""
    assert one.converged
    assert other.converged
    # Both are certified: each could fall by 1e-6 at most, and in practice is within 1e-9.
    assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-7)
    # The optimisers stop where the criterion is flat to 1e-9: half the digits in the parameters.
    np.testing.assert_allclose(fixed_part(other), fixed_part(one), rtol=0, atol=2e-5)
    np.testing.assert_allclose(other.fit.covariances[0], one.fit.covariances[0], rtol=0, atol=5e-5)


# -- order of rows, levels and columns -------------------------------------------------------------


@pytest.mark.parametrize("kind", GENERALISED)
@few
@given(seed=seeds)
def test_order_of_rows_levels_and_columns(kind, seed):
    data = make(1)
    plain = fit(kind, data)
    rng = np.random.default_rng(seed)
    levels = rng.permutation(sorted(set(data["g"])))
    shuffled = data.assign(g=pd.Categorical(data["g"], levels)).sample(frac=1.0, random_state=seed)
    shuffled = shuffled[list(rng.permutation(shuffled.columns))]
    other = fit(kind, shuffled)
    same_model(plain, other)
    expected = plain.ranef().loc[list(other.ranef().index)]
    # As the parameters.
    np.testing.assert_allclose(other.ranef(), expected, rtol=0, atol=5e-5)
    np.testing.assert_allclose(other.predict().loc[data.index], plain.predict(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_terms(kind):
    data = make(2)
    one, other = fit(kind, data, "x + z + f + (1 | g)"), fit(kind, data, "(1 | g) + z + f + x")
    assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-7)  # both certified
    np.testing.assert_allclose(other.params[one.params.index], one.params, rtol=0, atol=2e-5)  # as `same_model`


# -- units of a covariate and of the response ------------------------------------------------------


@pytest.mark.parametrize("kind", GENERALISED)
@few
@given(shift=st.floats(-100, 100), exponent=st.floats(-9, 9), sign=st.sampled_from([-1.0, 1.0]))
def test_units_of_a_covariate(kind, shift, exponent, sign):
    data = make(3)
    scale = sign * 10.0**exponent
    right = "x + z + (x | g)"
    plain = fit(kind, data, right)
    moved = fit(kind, data.assign(x=(data["x"] + shift) * scale), right)
    # The same space of predictors, correlated slopes included.
    assert moved.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    assert moved.is_singular == plain.is_singular
    assert moved.params["x"] * scale == pytest.approx(plain.params["x"], abs=1e-4)  # half the digits
    assert moved.params["z"] == pytest.approx(plain.params["z"], abs=1e-4)


@few
@given(exponent=st.floats(-12, 12))
def test_unit_of_a_gamma_response(exponent):
    """With the log link a unit moves the intercept, and the density by its logarithm."""
    data = make(4)
    plain = fit("gamma", data)
    scaled = fit("gamma", data.assign(gamma=data["gamma"] * 10.0**exponent))
    known = len(data) * exponent * np.log(10.0)
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood - known, abs=1e-6)
    expected = plain.params + np.array([exponent * np.log(10.0), 0.0, 0.0])
    np.testing.assert_allclose(scaled.params, expected, rtol=0, atol=2e-5)  # as `same_model`


@few
@given(exponent=st.floats(-12, 12), shift=st.floats(-10, 10))
def test_units_of_a_gaussian_response_of_a_generalised_model(exponent, shift):
    """Estimates follow the unit, and the judgement on the variances does not depend on it."""
    data = make(5)
    unit = 10.0**exponent
    plain = lme4py.glmer("lmm ~ x + z + (1 | g)", data, "gaussian")
    scaled = lme4py.glmer("lmm ~ x + z + (1 | g)", data.assign(lmm=(data["lmm"] + shift) * unit), "gaussian")
    assert scaled.converged
    assert not scaled.is_singular
    known = len(data) * exponent * np.log(10.0)
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood - known, abs=1e-6)  # both certified
    # Half the digits.
    np.testing.assert_allclose(scaled.params / unit - [shift, 0, 0], plain.params, rtol=0, atol=2e-5)
    np.testing.assert_allclose(scaled.fit.covariances[0] / unit**2, plain.fit.covariances[0], rtol=1e-4)
    np.testing.assert_allclose(scaled.bse / unit, plain.bse, rtol=1e-5)


@few
@given(seed=seeds)
def test_names_of_ordered_categories(seed):
    """Any increasing labels give the same model, and the order reversed the same with the opposite sign."""
    data = make(6)
    plain = fit("clmm", data)
    values = np.sort(np.random.default_rng(seed).choice(1000, 4, replace=False))
    same_model(plain, fit("clmm", data.assign(clmm=values[data["clmm"]])))
    reverse = fit("clmm", data.assign(clmm=3 - data["clmm"]))
    assert reverse.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)  # both certified
    np.testing.assert_allclose(reverse.params, -plain.params, rtol=0, atol=2e-5)
    np.testing.assert_allclose(reverse.thresholds, -plain.thresholds[::-1], rtol=0, atol=2e-5)


# -- no variance: ordinary models ------------------------------------------------------------------


def scoring(X: np.ndarray, kind: str, y: np.ndarray) -> np.ndarray:
    """Iteratively reweighted least squares for binomial, poisson and gamma models (log link for the last two)."""
    beta = np.zeros(X.shape[1])
    beta[0] = np.log(y.mean() / (1 - y.mean())) if kind == "binomial" else np.log(y.mean())
    for _ in range(50):
        eta = X @ beta
        mu = 1 / (1 + np.exp(-eta)) if kind == "binomial" else np.exp(eta)
        w = {"binomial": mu * (1 - mu), "poisson": mu, "gamma": np.ones_like(mu)}[kind]
        derivative = mu * (1 - mu) if kind == "binomial" else mu
        beta = np.linalg.solve((X.T * w) @ X, X.T @ (w * (eta + (y - mu) / derivative)))
    return beta


def without_groups(kind: str, seed: int) -> pd.DataFrame:
    """The same rows in every group: nothing varies between groups, so that their variance is zero."""
    base = make(seed, n=40, groups=2, spread=0.0)
    return pd.concat([base.assign(g=f"g{i}") for i in range(6)], ignore_index=True)


@pytest.mark.parametrize("kind", ["lmm", "binomial", "poisson", "gamma"])
@few
@given(seed=seeds)
def test_zero_variance_is_the_ordinary_model(kind, seed):
    data = without_groups(kind, seed)
    result = fit(kind, data, "x + z + (1 | g)", **({"reml": False} if kind == "lmm" else {}))
    assert result.converged
    assert result.is_singular
    assert result.theta.tolist() == [0.0]
    X, y = np.column_stack([np.ones(len(data)), data["x"], data["z"]]), data[kind].to_numpy(dtype=float)
    beta = np.linalg.lstsq(X, y, rcond=None)[0] if kind == "lmm" else scoring(X, kind, y)
    # Rounding for least squares; the others stop when nothing is to be gained above 1e-13, half the digits.
    np.testing.assert_allclose(result.params, beta, rtol=0, atol=1e-12 if kind == "lmm" else 1e-6)
    assert (result.ranef().to_numpy() == 0.0).all()
    if kind == "poisson":
        mu = np.exp(X @ beta)
        # The Laplace approximation is exact without random effects.
        assert result.log_likelihood == pytest.approx(float((y * np.log(mu) - mu - gammaln(y + 1)).sum()), abs=1e-9)
        bse = np.sqrt(np.diag(np.linalg.inv((X.T * mu) @ X)))
        np.testing.assert_allclose(result.bse, bse, rtol=1e-5)  # a difference Hessian


@few
@given(seed=seeds)
def test_zero_variance_of_ordered_categories(seed):
    """Without covariates the thresholds are the logits of the cumulative shares."""
    data = without_groups("clmm", seed)
    result = fit("clmm", data, "1 + (1 | g)")
    assert result.theta.tolist() == [0.0]
    share = np.cumsum(np.bincount(data["clmm"]))[:-1] / len(data)
    np.testing.assert_allclose(result.thresholds, np.log(share / (1 - share)), rtol=0, atol=1e-6)  # as above


# -- coding of X -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=seeds, contrast=st.sampled_from(["contr.sum", "contr.helmert", "contr.SAS", "contr.poly"]))
def test_coding_of_a_factor(kind, seed, contrast):
    """Another basis of the same columns; the REML criterion moves by the determinant of the change of basis."""
    data = make(7)
    plain = fit(kind, data, "f * x + (1 | g)")
    other = fit(kind, data, "f * x + (1 | g)", contrasts={"f": contrast})
    known = 0.0
    if kind == "lmm":
        # X_other = X A: log|X'V^-1X| gains 2 log|A|.
        A = np.linalg.lstsq(plain.fit.design.X, other.fit.design.X, rcond=None)[0]
        known = float(np.linalg.slogdet(A)[1])
    assert other.log_likelihood == pytest.approx(plain.log_likelihood - known, abs=1e-7)  # both certified
    np.testing.assert_allclose(other.predict(), plain.predict(), rtol=0, atol=1e-4)  # half the digits


# -- weights and repeated rows ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["binomial", "poisson", "nbinomial", "clmm"])
@few
@given(seed=seeds)
def test_integer_weights_are_repeated_rows(kind, seed):
    data = make(8)
    weights = np.random.default_rng(seed).integers(1, 4, len(data))
    repeated = data.loc[np.repeat(data.index, weights)].reset_index(drop=True)
    same_model(fit(kind, data, weights=weights), fit(kind, repeated))


@few
@given(seed=seeds)
def test_trials_are_repeated_rows(seed):
    """m trials with k successes are m rows; the binomial coefficient is known."""
    rng = np.random.default_rng(seed)
    data = make(9).assign(m=lambda d: rng.integers(1, 6, len(d)))
    data["k"] = rng.binomial(data["m"], 1 / (1 + np.exp(-data["x"])))
    rows = pd.concat([data.assign(y=1, times=data["k"]), data.assign(y=0, times=data["m"] - data["k"])])
    rows = rows.iloc[np.repeat(np.arange(len(rows)), rows["times"])]
    grouped = lme4py.glmer("cbind(k, m - k) ~ x + (1 | g)", data)
    single = lme4py.glmer("y ~ x + (1 | g)", rows.reset_index(drop=True))
    coefficient = float((gammaln(data["m"] + 1) - gammaln(data["k"] + 1) - gammaln(data["m"] - data["k"] + 1)).sum())
    assert grouped.log_likelihood - coefficient == pytest.approx(single.log_likelihood, abs=1e-7)  # both certified
    np.testing.assert_allclose(grouped.params, single.params, rtol=0, atol=2e-5)  # as `same_model`
    np.testing.assert_allclose(grouped.bse, single.bse, rtol=1e-4)  # difference Hessians


# -- predictions, pickles, kinds of data frame -----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=seeds)
def test_predictions_for_the_data_are_the_fitted_values(kind, seed):
    data = make(seed % 1000).sample(frac=1.0, random_state=seed)
    result = fit(kind, data, "f + poly(x, 2) + (x | g)")
    by_rows, by_data = result.predict(), result.predict(data)
    assert list(by_data.index) == list(data.index)
    # The same products in another order.
    np.testing.assert_allclose(by_data, by_rows, rtol=1e-9, atol=1e-9)
    if kind != "clmm":
        np.testing.assert_allclose(by_data, result.fittedvalues, rtol=1e-9, atol=1e-9)
    copy = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copy.predict(data), by_data)
    assert copy.summary() == result.summary()
    np.testing.assert_array_equal(copy.cov_params(), result.cov_params())


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_data_frames_agree(kind):
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    data = make(10)
    columns = {name: data[name].to_numpy() for name in data.columns if name not in ("f", "g")}
    columns |= {name: data[name].tolist() for name in ("f", "g")}
    plain = fit(kind, data, "f + x + (x | g)")
    for other in (pl.DataFrame(columns), pa.table(columns), columns):
        result = fit(kind, other, "f + x + (x | g)")
        # The same arrays: bit for bit.
        assert result.log_likelihood == plain.log_likelihood
        np.testing.assert_array_equal(result.params, plain.params)
        np.testing.assert_array_equal(result.ranef(), plain.ranef())
    lazy = fit(kind, pl.DataFrame(columns).lazy(), "f + x + (x | g)")
    # A lazy frame of a linear model is streamed: its sums are made in another order, and equal to their rounding.
    assert lazy.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-14)
    np.testing.assert_allclose(lazy.params, plain.params, rtol=1e-10)
    np.testing.assert_allclose(lazy.ranef(), plain.ranef(), rtol=0, atol=1e-9)


# -- simulation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_responses_give_the_parameters_back(kind):
    """The mean of twelve refits lies within a few of its standard errors."""
    data = make(11, n=600, groups=60)
    result = fit(kind, data, "x + (1 | g)")
    draws = result.simulate(12, seed=3)
    found = np.array([fixed_part(result.refit(draws.iloc[:, i])) for i in range(12)])
    error = np.std(found, axis=0, ddof=1) / np.sqrt(12)
    # t with 11 degrees of freedom beyond 5: 4e-4 on both sides; a seed fixes the draws.
    assert (np.abs(found.mean(axis=0) - fixed_part(result)) < 5.0 * error).all()
    assert (error < 0.1).all()


# -- closed forms ----------------------------------------------------------------------------------


@few
@given(seed=seeds, groups=st.integers(3, 30), each=st.integers(2, 12), size=st.floats(0.0, 3.0))
def test_balanced_one_way_layouts(seed, groups, each, size):
    """REML is the analysis of variance, on the boundary too (Searle, Casella & McCulloch 1992, section 4.4)."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), each)
    y = 5.0 + size * rng.normal(size=groups)[g] + rng.normal(size=g.size)
    result = lme4py.lmer("y ~ 1 + (1 | g)", {"y": y, "g": g})
    means = y.reshape(groups, each).mean(axis=1)
    within = float(((y - means[g]) ** 2).sum()) / (groups * (each - 1))
    between = each * float(means.var(ddof=1))
    variance = max((between - within) / each, 0.0)
    residual = within if variance else float(y.var(ddof=1))
    # Closed forms of the balanced design; the optimiser's last steps are quadratic.
    assert result.sigma**2 == pytest.approx(residual, rel=1e-10)
    assert result.variance_components["var(_cons)"] == pytest.approx(variance, rel=1e-9, abs=1e-10 * residual)
    assert result.bse["Intercept"] ** 2 == pytest.approx((variance * each + residual) / g.size, rel=1e-10)
    assert result.is_singular == (variance == 0.0)


@few
@given(seed=seeds, subjects=st.integers(4, 15), items=st.integers(3, 9))
def test_balanced_crossed_layouts(seed, subjects, items):
    """Two crossed factors with one observation per cell: mean squares of rows, columns and the rest."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(subjects, items)) + 2 * rng.normal(size=(subjects, 1)) + 2 * rng.normal(size=items)
    s, i = np.indices(table.shape)
    result = lme4py.lmer("y ~ 1 + (1 | s) + (1 | i)", {"y": table.ravel(), "s": s.ravel(), "i": i.ravel()})
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    rest = table - rows[:, None] - columns + table.mean()
    residual = float((rest**2).sum()) / ((subjects - 1) * (items - 1))
    var_rows = float(rows.var(ddof=1)) - residual / items
    var_columns = float(columns.var(ddof=1)) - residual / subjects
    # On the boundary the mean squares are no estimates.
    assume(min(var_rows, var_columns) > 0)
    assert result.sigma**2 == pytest.approx(residual, rel=1e-9)
    assert result.variance_components["var(_cons|s)"] == pytest.approx(var_rows, rel=1e-8)
    assert result.variance_components["var(_cons|i)"] == pytest.approx(var_columns, rel=1e-8)
