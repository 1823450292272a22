"""What must not change: units, origins, the order of rows and levels, labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dense_models import DESIGNS, make_design, make_term, random_theta
from hypothesis import given, settings
from hypothesis import strategies as st

import lme4py

FORMULA = "Reaction ~ Days + (Days | Subject)"

# The same examples every time, and few of them: each is a whole fit.
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def crossed_data() -> pd.DataFrame:
    """Unbalanced, with two crossed factors, a slope and weights."""
    rng = np.random.default_rng(5)
    n = 240
    g, h = rng.integers(0, 24, n), rng.integers(0, 7, n)
    x, z = rng.normal(size=n), rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=24)[g] + 0.6 * rng.normal(size=24)[g] * x + rng.normal(size=7)[h]
    labels = {"g": [f"g{i:02d}" for i in g], "h": [f"h{i}" for i in h]}
    return pd.DataFrame({"y": y + rng.normal(size=n), "x": x, "z": z, "w": rng.integers(1, 5, n), **labels})


CROSSED = "y ~ x + z + (x | g) + (1 | h)"


# -- the published examples ------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("shift", [50.0, 500.0, 2000.0, -1e5])
def test_origin_of_days(sleepstudy, shift, reml):
    plain = lme4py.lmer(FORMULA, sleepstudy, reml=reml)
    moved = lme4py.lmer(FORMULA, sleepstudy.assign(Days=sleepstudy["Days"] + shift), reml=reml)
    # The determinant of the change of X is one: both criteria stay.  1e-7 is asked for.
    assert moved.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
    assert moved.converged
    # Twelve digits of beta are lost to the origin at most; predictions lose none of them.
    np.testing.assert_allclose(moved.predict(), plain.predict(), rtol=1e-8)
    assert moved.params["Days"] == pytest.approx(plain.params["Days"], rel=1e-8)
    assert moved.sigma == pytest.approx(plain.sigma, rel=1e-7)
    assert moved.variance_components["var(Days)"] == pytest.approx(plain.variance_components["var(Days)"], rel=1e-5)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("scale", [1e4, 1e-5, -3.0, 1e9])
def test_unit_of_days(sleepstudy, scale, reml):
    plain = lme4py.lmer(FORMULA, sleepstudy, reml=reml)
    scaled = lme4py.lmer(FORMULA, sleepstudy.assign(Days=sleepstudy["Days"] * scale), reml=reml)
    # log|X'V^-1X| gains 2 log|scale|.
    known = np.log(abs(scale)) if reml else 0.0
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood - known, abs=1e-7)
    assert scaled.converged
    np.testing.assert_allclose(scaled.predict(), plain.predict(), rtol=1e-8)
    np.testing.assert_allclose(scaled.params, plain.params / [1, scale], rtol=1e-8)
    np.testing.assert_allclose(scaled.bse, plain.bse / [1, abs(scale)], rtol=1e-6)
    expected = plain.ranef().to_numpy() / [1, scale]
    np.testing.assert_allclose(scaled.ranef(), expected, rtol=0, atol=1e-6 * np.abs(expected).min(axis=0).max())


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("scale", [1e6, 1e-6, -2.0])
def test_unit_of_the_response(sleepstudy, scale, reml):
    plain = lme4py.lmer(FORMULA, sleepstudy, reml=reml)
    scaled = lme4py.lmer(FORMULA, sleepstudy.assign(Reaction=sleepstudy["Reaction"] * scale), reml=reml)
    known = (180 - 2 * reml) * np.log(abs(scale))
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood - known, abs=1e-7)
    np.testing.assert_allclose(scaled.predict(), plain.predict() * scale, rtol=1e-8)
    np.testing.assert_allclose(scaled.theta, plain.theta, rtol=0, atol=1e-7)
    assert scaled.converged


def test_origin_of_the_response(sleepstudy):
    plain = lme4py.lmer(FORMULA, sleepstudy)
    moved = lme4py.lmer(FORMULA, sleepstudy.assign(Reaction=sleepstudy["Reaction"] + 1e6))
    # The data themselves keep 1e-10 only after the shift.
    assert moved.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    np.testing.assert_allclose(moved.predict() - 1e6, plain.predict(), rtol=1e-8)


# -- any change of units ---------------------------------------------------------------------------

shifts = st.floats(-1000, 1000)
scales = st.sampled_from([-1.0, 1.0]).flatmap(lambda sign: st.floats(-4, 4).map(lambda e: sign * 10.0**e))


@few
@given(x_shift=shifts, x_scale=scales, y_shift=shifts, y_scale=scales, reml=st.booleans())
def test_any_units(crossed_data, x_shift, x_scale, y_shift, y_scale, reml):
    plain = lme4py.lmer(CROSSED, crossed_data, reml=reml)
    x, y = crossed_data["x"], crossed_data["y"]
    changed = crossed_data.assign(x=(x + x_shift) * x_scale, y=(y + y_shift) * y_scale)
    moved = lme4py.lmer(CROSSED, changed, reml=reml)
    n, p = 240, 3
    known = (n - p if reml else n) * np.log(abs(y_scale)) + reml * np.log(abs(x_scale))
    # Adding 1000 to numbers of order one costs the data themselves three digits: 1e-13 each, times n.
    assert moved.log_likelihood == pytest.approx(plain.log_likelihood - known, abs=1e-7)
    predicted = moved.predict() / y_scale - y_shift
    np.testing.assert_allclose(predicted, plain.predict(), rtol=0, atol=1e-7)
    assert moved.converged
    assert moved.is_singular == plain.is_singular


@few
@given(scale=scales, structure=st.sampled_from(["diag(x | g)", "(x || g)"]))
def test_scale_with_uncorrelated_slopes(crossed_data, scale, structure):
    """A shift is another model here, a scale is not."""
    formula = f"y ~ x + {structure}"
    plain = lme4py.lmer(formula, crossed_data, reml=False)
    scaled = lme4py.lmer(formula, crossed_data.assign(x=crossed_data["x"] * scale), reml=False)
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
    np.testing.assert_allclose(scaled.predict(), plain.predict(), rtol=0, atol=1e-7)


def test_shift_with_uncorrelated_slopes_is_another_model(crossed_data):
    """The engine must not centre where that changes the model."""
    moved = crossed_data.assign(x=crossed_data["x"] + 5)
    for formula in ("y ~ x + diag(x | g)", "y ~ x + (x || g)", "y ~ x + (0 + x | g)", "y ~ 0 + x + (x | g)"):
        plain = lme4py.lmer(formula, crossed_data, reml=False)
        assert abs(lme4py.lmer(formula, moved, reml=False).log_likelihood - plain.log_likelihood) > 0.1


@few
@given(c=st.floats(-50, 50), scale=scales)
def test_any_basis_of_the_same_columns(crossed_data, c, scale):
    """(1, x) and (x + c, x scale) with no intercept of its own span the same effects."""
    plain = lme4py.lmer("y ~ x + (x | g)", crossed_data, reml=False)
    basis = crossed_data.assign(a=1 + c * crossed_data["x"], b=scale * crossed_data["x"])
    other = lme4py.lmer("y ~ 0 + a + b + (0 + a + b | g)", basis, reml=False)
    assert other.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
    np.testing.assert_allclose(other.predict(), plain.predict(), rtol=0, atol=1e-7)


# -- order and labels ------------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 2**31))
def test_order_of_rows(crossed_data, seed):
    plain = lme4py.lmer(CROSSED, crossed_data, weights="w")
    shuffled = crossed_data.sample(frac=1.0, random_state=seed)
    other = lme4py.lmer(CROSSED, shuffled, weights="w")
    # Sums in another order: rounding only.
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-9)
    np.testing.assert_allclose(other.params, plain.params, rtol=1e-7)
    np.testing.assert_allclose(other.predict().sort_index(), plain.predict(), rtol=0, atol=1e-7)
    for group in ("g", "h"):
        np.testing.assert_allclose(other.ranef()[group], plain.ranef()[group], rtol=0, atol=1e-7)


@few
@given(seed=st.integers(0, 2**31))
def test_order_of_levels(crossed_data, seed):
    rng = np.random.default_rng(seed)
    plain = lme4py.lmer(CROSSED, crossed_data)
    reordered = crossed_data.copy()
    for name in ("g", "h"):
        levels = rng.permutation(sorted(set(crossed_data[name])))
        reordered[name] = pd.Categorical(crossed_data[name], categories=levels)
    other = lme4py.lmer(CROSSED, reordered)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-9)  # sums in another order
    for group in ("g", "h"):
        modes = other.ranef()[group]
        assert list(modes.index) == list(reordered[group].cat.categories)
        expected = plain.ranef()[group].loc[list(modes.index)]
        np.testing.assert_allclose(modes, expected, rtol=0, atol=1e-7)


@few
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["numbers", "words"]))
def test_labels(crossed_data, seed, kind):
    rng = np.random.default_rng(seed)
    plain = lme4py.lmer(CROSSED, crossed_data)
    levels = sorted(set(crossed_data["g"]))
    names = rng.choice(10**6, len(levels), replace=False).tolist()
    mapping = dict(zip(levels, names if kind == "numbers" else [f"level {v}" for v in names], strict=True))
    other = lme4py.lmer(CROSSED, crossed_data.assign(g=crossed_data["g"].map(mapping)))
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-9)  # sums in another order
    np.testing.assert_allclose(other.predict(), plain.predict(), rtol=0, atol=1e-7)
    expected = plain.ranef()["g"].rename(index=mapping)
    np.testing.assert_allclose(other.ranef()["g"].loc[expected.index], expected, rtol=0, atol=1e-7)


def test_unused_levels(crossed_data):
    plain = lme4py.lmer(CROSSED, crossed_data)
    more = crossed_data.assign(g=pd.Categorical(crossed_data["g"], ["a0", *sorted(set(crossed_data["g"])), "z9"]))
    other = lme4py.lmer(CROSSED, more)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-10)
    assert other.n_groups == plain.n_groups


def test_order_of_terms(crossed_data):
    formulas = [
        "y ~ x + z + (x | g) + (1 | h)",
        "y ~ (1 | h) + z + (x | g) + x",
        "y ~ z + x + (0 + x + 1 | g) + (1 | h)",
    ]
    first, *others = (lme4py.lmer(formula, crossed_data) for formula in formulas)
    for other in others:
        assert other.criterion == pytest.approx(first.criterion, abs=1e-9)
        np.testing.assert_allclose(other.params[first.params.index], first.params, rtol=1e-7)


@pytest.mark.parametrize("contrast", ["contr.sum", "contr.helmert", "contr.SAS", "contr.poly"])
def test_contrasts_do_not_change_the_fit(contrast):
    data = lme4py.load_dataset("Machines")
    formula = "score ~ Machine + (Machine | Worker)"
    plain = lme4py.lmer(formula, data, reml=False)
    other = lme4py.lmer(formula, data, reml=False, contrasts={"Machine": contrast})
    # Another basis of the same columns: the same optimum.
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(other.predict(), plain.predict(), rtol=1e-7)


# -- weights ---------------------------------------------------------------------------------------


@few
@given(exponent=st.floats(-6, 6), reml=st.booleans())
def test_scale_of_weights(crossed_data, exponent, reml):
    """Weights c w with sigma^2 c: the same model."""
    c = 10.0**exponent
    plain = lme4py.lmer(CROSSED, crossed_data, weights="w", reml=reml)
    other = lme4py.lmer(CROSSED, crossed_data, weights=crossed_data["w"].to_numpy() * c, reml=reml)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-7)
    assert other.sigma**2 / c == pytest.approx(plain.sigma**2, rel=1e-8)
    for ours, theirs in zip(other.fit.covariances, plain.fit.covariances, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)
    np.testing.assert_allclose(other.predict(), plain.predict(), rtol=0, atol=1e-7)


def test_weights_of_one_change_nothing(crossed_data):
    plain = lme4py.lmer(CROSSED, crossed_data)
    other = lme4py.lmer(CROSSED, crossed_data, weights=np.ones(240))
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-10)


@few
@given(seed=st.integers(0, 2**31), name=st.sampled_from(["slope", "crossed, slopes", "nested chain and crossed"]))
def test_integer_weights_are_repeated_rows_at_the_same_theta(seed, name):
    """The cross-products, hence all but the residual degrees of freedom, are those of repeated rows."""
    weights = np.random.default_rng(seed).integers(1, 4, DESIGNS[name].n_obs)
    base = DESIGNS[name]
    repeats = np.repeat(np.arange(base.n_obs), weights)
    weighted = replace(base, weights=weights.astype(float))
    terms = [make_term(t.group, t.codes[repeats], t.values[repeats], t.structure.name) for t in base.terms]
    repeated = make_design(base.y[repeats], base.X[repeats], terms)
    theta = random_theta(base, 3)
    one, other = (lme4py.lmm_criterion(design, reml=False) for design in (weighted, repeated))
    a, b = (c.inside.evaluate(c.to_inside(theta)) for c in (one, other))
    scale_a, scale_b = one.inside.problem.scaling, other.inside.problem.scaling
    # The same sums: rounding only.
    np.testing.assert_allclose(scale_a.beta(a.beta), scale_b.beta(b.beta), rtol=1e-9)
    r2 = [c.y_scale**2 * c.weight_scale * point.r2 for c, point in ((scale_a, a), (scale_b, b))]
    assert r2[0] == pytest.approx(r2[1], rel=1e-10)
    # -2 log L = log|M| + n (1 + log(2 pi r2 / n)) - sum(log w).
    n, m = base.n_obs, repeats.size
    log_M = one(theta) - n * (1 + np.log(2 * np.pi * r2[0] / n)) + np.log(weights).sum()
    assert other(theta) == pytest.approx(log_M + m * (1 + np.log(2 * np.pi * r2[0] / m)), abs=1e-8)


# -- offset ----------------------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 2**31), size=st.floats(0, 100))
def test_offset_is_subtracted(crossed_data, seed, size):
    offset = size * np.random.default_rng(seed).normal(size=240)
    plain = lme4py.lmer(CROSSED, crossed_data)
    other = lme4py.lmer(CROSSED, crossed_data.assign(y=crossed_data["y"] + offset), offset=offset)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(other.predict() - offset, plain.predict(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(other.residuals(), plain.residuals(), rtol=0, atol=1e-7)


# -- starting values -------------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 2**31), size=st.floats(-2, 1.5))
def test_any_start(crossed_data, seed, size):
    plain = lme4py.lmer(CROSSED, crossed_data)
    start = 10.0**size * np.random.default_rng(seed).normal(size=4)
    other = lme4py.lmer(CROSSED, crossed_data, start=start)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-8)  # both certified below 1e-9
    assert (other.theta[[0, 2, 3]] >= 0).all()


def on_a_grid(seed: int) -> pd.DataFrame:
    """Responses in steps of 2^-12 and a covariate in steps of 1/8: multiples of 2^30 are added without rounding."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(12), 6), np.round(8 * rng.normal(size=72)) / 8
    y = x + rng.normal(size=12)[g] + rng.normal(size=72)
    return pd.DataFrame({"y": np.round(y * 2**12) / 2**12, "x": x, "g": g})


def assert_same(moved, plain, tolerance, se_tolerance=None):
    assert moved.sigma == pytest.approx(plain.sigma, rel=tolerance)
    # A search stops where the gradient is at its rounding: theta keeps two digits less than what is flat in it.
    np.testing.assert_allclose(moved.theta, plain.theta, rtol=100 * tolerance)
    np.testing.assert_allclose(moved.bse, plain.bse, rtol=se_tolerance or 10 * tolerance)
    assert moved.log_likelihood == pytest.approx(plain.log_likelihood, abs=100 * tolerance)


@pytest.mark.parametrize("power", [20, 30])
def test_responses_far_from_zero(power):
    data = on_a_grid(5)
    far = data.assign(y=data["y"] + 2.0**power)
    for formula in ("y ~ x + (1 | g)", "y ~ x + (x | g)"):
        plain, moved = (lme4py.lmer(formula, frame) for frame in (data, far))
        # The middle of the responses is subtracted without rounding: nothing but the last digits of what follows.
        assert_same(moved, plain, 1e-12, 1e-11)
        assert moved.params["x"] == pytest.approx(plain.params["x"], rel=1e-12)
        # The intercept itself has as many digits as a double.
        assert moved.params["Intercept"] - 2.0**power == pytest.approx(
            plain.params["Intercept"], abs=2.0 ** (power - 50)
        )
    plain, moved = (lme4py.glmer("y ~ x + (1 | g)", frame, family="gaussian") for frame in (data, far))
    assert moved.converged
    # The linear predictor has 2^(power - 52) of a residual standard deviation of one as its last digit; differences of
    # gradients over steps of 1e-3 lose three digits more.
    unit = 2.0 ** (power - 52)
    assert_same(moved, plain, max(4 * unit, 1e-9), max(1e3 * unit, 1e-6))
    assert moved.params["x"] == pytest.approx(plain.params["x"], rel=max(4 * unit, 1e-9))


@pytest.mark.parametrize("power", [20, 30])
@pytest.mark.parametrize("formula", ["y ~ 0 + x + (1 | g)", "y ~ x + (x | g)"])
def test_responses_with_a_slope_of_any_size(power, formula):
    """What the fixed effects explain is taken out before the variances are looked at, to the last digit."""
    data = on_a_grid(5)
    plain = lme4py.lmer(formula, data)
    steep = lme4py.lmer(formula, data.assign(y=data["y"] + 2.0**power * data["x"]))
    # X beta has 2^(power - 52) as its last digit, beside a residual standard deviation of one.
    assert_same(steep, plain, max(2.0 ** (power - 50), 1e-10))
