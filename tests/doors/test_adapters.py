"""Fits of other packages in a session, and fits of this one in others."""

from __future__ import annotations

import importlib.util
import sys
import warnings

import numpy as np
import pytest
from margins_models import example, example_fit

import lme4py
from lme4py import Margins, OptionError, adapters, all_pairwise, pairwise
from lme4py.adapters import ModelAdapter, Rows, StatsmodelsMixedLMAdapter, to_pandas

needs_statsmodels = pytest.mark.skipif(
    importlib.util.find_spec("statsmodels") is None, reason="statsmodels is not installed"
)


def _statsmodels(formula, data, **options):
    import statsmodels.formula.api as smf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smf.mixedlm(formula, data, groups="student", **options).fit()


@needs_statsmodels
def test_formula_fit_with_its_own_covariance():
    fit = _statsmodels("score ~ age + female + treated + C(school)", example())
    session = Margins.linear_scale(fit)
    slope = session.dydx("age")
    # Numbers of the documentation; statsmodels' optimiser stops at about eight digits.
    np.testing.assert_allclose([slope.estimate[0], slope.std_error[0]], [0.2900843739, 0.0172614296], rtol=1e-7)
    pair = session.contrasts(pairwise("treated", [1, 0]))
    np.testing.assert_allclose([pair.estimate[0], pair.std_error[0]], [3.6539756379, 0.5504177746], rtol=1e-7)
    joint = session.contrasts(all_pairwise("school")).joint_test()
    # Printed with four digits.
    np.testing.assert_allclose([joint["chi2"], joint["df"], joint["p_value"]], [1.886, 3, 0.5964], atol=1e-3)


@needs_statsmodels
def test_interactions_groups_and_weights():
    fit = _statsmodels("score ~ age * treated + female + C(school)", example())
    session = Margins.linear_scale(fit)
    slope = session.dydx("age")
    # Six digits are printed.
    np.testing.assert_allclose([slope.estimate[0], slope.std_error[0]], [0.288318, 0.017215], atol=1e-6)
    np.testing.assert_allclose(session.dydx("age", over="treated").estimate, [0.315301, 0.246989], atol=1e-6)
    weights = np.where(example()["age"] > 50, 11.0, 1.0)
    weighted = Margins.linear_scale(fit, weights=weights).contrasts(pairwise("treated", [1, 0]))
    np.testing.assert_allclose(weighted.estimate, [2.7618549], rtol=1e-7)
    by_column = Margins.linear_scale(fit, weights="age").predict()
    assert by_column.n_obs.tolist() == [400]


@needs_statsmodels
def test_formulas_that_are_read_again_and_those_that_are_not():
    data = example()
    again = _statsmodels("score ~ np.log(age) + I(female * age) + treated", data)
    session = Margins.linear_scale(again)
    assert session.adapter.formula_rows is not None
    own = example_fit("score ~ log(age) + I(female * age) + treated + (1 | student)")
    np.testing.assert_allclose(session.dydx("age").estimate, Margins.linear_scale(own).dydx("age").estimate, rtol=1e-5)
    # patsy's cr() is unknown here: its own engine makes the columns, and slopes are differences.
    spline = _statsmodels("score ~ cr(age, df=3) + treated - 1", data)
    other = Margins.linear_scale(spline)
    assert other.adapter.formula_rows is None
    assert "formula engine" in other.predict().summary()
    slope, h = other.dydx("age"), 1e-3
    inner = data[(data["age"] > 21) & (data["age"] < 73)]
    rows = Margins.linear_scale(spline, at=inner)
    by_hand = (
        spline.predict(inner.assign(age=inner["age"] + h)) - spline.predict(inner.assign(age=inner["age"] - h))
    ) / (2 * h)
    # Differences of fourth order inside of a knot's step, second-order ones by hand.
    np.testing.assert_allclose(rows.dydx("age").estimate, by_hand.mean(), rtol=1e-3)
    assert np.isfinite(slope.std_error).all()


@needs_statsmodels
def test_array_fits():
    from statsmodels.regression.mixed_linear_model import MixedLM

    data = example()
    exog = np.column_stack([np.ones(400), data["age"], data["treated"]])
    fit = MixedLM(data["score"].to_numpy(), exog, data["student"].to_numpy()).fit()
    plain = Margins.linear_scale(fit).dydx()
    assert plain.labels == ("x1", "x2: 1 - 0")
    np.testing.assert_allclose(plain.estimate, fit.fe_params[1:])
    named = Margins.linear_scale(fit, adapter=StatsmodelsMixedLMAdapter(fit, training_data=data))
    assert named.dydx().labels == ("age", "treated: 1 - 0")
    assert named.predict(over="school").scenarios["school"] == ["A", "B", "C", "D"]
    factory = Margins.linear_scale(fit, adapter=StatsmodelsMixedLMAdapter)
    np.testing.assert_allclose(factory.dydx().estimate, plain.estimate)


@needs_statsmodels
def test_missing_rows_and_conditional_means():
    data = example()
    data["age"] = data["age"].astype(float)
    data.loc[[3, 77], "age"] = np.nan
    fit = _statsmodels("score ~ age + treated", data, missing="drop")
    result = Margins.linear_scale(fit, random="conditional").predict()
    assert result.n_obs.tolist() == [398]
    np.testing.assert_allclose(result.estimate, [fit.fittedvalues.mean()], rtol=1e-12)


@needs_statsmodels
@pytest.mark.parametrize("boot", ["parametric", "clusters"])
def test_bootstrap_of_a_statsmodels_fit(boot):
    fit = _statsmodels("score ~ age", example())
    session = Margins.linear_scale(fit, method="bootstrap", boot=boot, n_boot=10, rng_seed=1)
    result = session.dydx("age")
    assert result.draws is not None
    assert result.draws.shape == (10, 1)
    # Ten refits give the size of the standard error only.
    assert 0.2 < result.std_error[0] / Margins.linear_scale(fit).dydx("age").std_error[0] < 3.0


@needs_statsmodels
def test_what_statsmodels_fits_do_not_have():
    fit = _statsmodels("score ~ age", example())
    with pytest.raises(OptionError, match=r"needs a fit of lme4py\.lmer"):
        Margins.linear_scale(fit, ddf="satterthwaite")
    with pytest.raises(OptionError, match="give a matrix"):
        Margins.linear_scale(fit, vcov="CR2")
    assert np.isfinite(Margins.linear_scale(fit, ddf="residual").dydx("age").df).all()


class _LineAdapter(ModelAdapter):
    """y = a + b x^2 by least squares: the smallest adapter."""

    names = ("a", "b")
    variables = ("x",)
    description = "least squares"

    def __init__(self, x, y):
        from lme4py.data.column import Column

        self.columns = {"x": Column("x", "numeric", x)}
        X = np.column_stack([np.ones_like(x), x**2])
        self.params = np.linalg.lstsq(X, y, rcond=None)[0]
        rest = y - X @ self.params
        self.vcov = np.linalg.inv(X.T @ X) * (rest @ rest) / (x.size - 2)

    def rows(self, frame, random):
        x = to_pandas(frame)["x"].to_numpy()
        return Rows(np.column_stack([np.ones_like(x), x**2]), np.zeros_like(x))


def test_an_adapter_of_ones_own():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 2, 50)
    adapter = _LineAdapter(x, 1 + 2 * x**2 + rng.normal(size=50))
    session = Margins.linear_scale(adapter)
    result = session.dydx("x")
    # Differences of fourth order are exact for a square but for rounding.
    np.testing.assert_allclose(result.estimate, [adapter.params[1] * 2 * x.mean()], rtol=1e-10)
    np.testing.assert_allclose(result.std_error, [np.sqrt(adapter.vcov[1, 1]) * 2 * x.mean()], rtol=1e-10)
    np.testing.assert_allclose(session.predict(atexog={"x": [2.0]}).estimate, [adapter.params @ [1, 4]])
    for options, message in (
        ({"ddf": "satterthwaite"}, "not available"),
        ({"random": "integrate"}, None),
        ({"vcov": "CR2"}, "not known"),
    ):
        if message is None:
            Margins.linear_scale(adapter, **options).predict()
            continue
        with pytest.raises(OptionError, match=message):
            Margins.linear_scale(adapter, **options)
    with pytest.raises(OptionError, match="ModelAdapter"):
        Margins.linear_scale(adapter, adapter=lambda fit: 3)
    with pytest.raises(OptionError, match="cannot be refitted"):
        Margins.linear_scale(adapter, method="bootstrap").predict()


def test_marginaleffects_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "marginaleffects", None)
    monkeypatch.setitem(sys.modules, "marginaleffects.classes", None)
    with pytest.raises(OptionError, match="pip install marginaleffects"):
        adapters.marginaleffects_model(example_fit())


@pytest.mark.skipif(importlib.util.find_spec("marginaleffects") is None, reason="marginaleffects is not installed")
def test_marginaleffects_gives_the_same_slopes():
    import polars

    if int(polars.__version__.split(".")[0]) >= 2:
        pytest.skip("marginaleffects needs polars < 2")
    from marginaleffects import avg_slopes

    fit = example_fit()
    theirs = avg_slopes(adapters.marginaleffects_model(fit), variables="age")
    ours = Margins.linear_scale(fit).dydx("age")
    # Their slopes are differences.
    np.testing.assert_allclose(float(theirs["estimate"][0]), ours.estimate[0], rtol=1e-4)
    np.testing.assert_allclose(float(theirs["std_error"][0]), ours.std_error[0], rtol=1e-2)


@pytest.fixture
def stub(monkeypatch):
    """The two classes of marginaleffects that a model is made with, where that package is not installed."""
    import types

    class ModelAbstract:
        def __init__(self, fit, vault):
            self.fit, self.vault = fit, vault

    module = types.ModuleType("marginaleffects.classes")
    module.ModelAbstract, module.ModelVault = ModelAbstract, lambda **parts: parts
    monkeypatch.setitem(sys.modules, "marginaleffects", types.ModuleType("marginaleffects"))
    monkeypatch.setitem(sys.modules, "marginaleffects.classes", module)


def test_marginaleffects_gets_the_degrees_of_freedom_of_the_fit(stub):
    """Its standard errors are ``sum((J @ V) * J)``, and one number ``df_resid`` of the model serves all rows."""
    sleep = {"data": lme4py.load_dataset("sleepstudy"), "y": "Reaction", "x_fixed": ["Days"], "group": "Subject"}
    fits = [lme4py.lmer("Reaction ~ Days + (1 | Subject)", sleep["data"])]
    fits += [lme4py.mixed(**sleep, ddf=ddf) for ddf in ("kenward-roger", "residual", "normal")]
    for fit in fits:
        model, table = adapters.marginaleffects_model(fit), fit.coef_table()
        assert model.df_resid == pytest.approx(table["df"].min())
        V = model.get_vcov(True)
        J = np.array([[0.0, 1.0]])
        error = np.sqrt(np.sum((J @ V) * J, axis=1))
        assert error == pytest.approx(table.loc["Days", "std_error"], rel=1e-12)
        assert model.df_resid == pytest.approx(table.loc["Days", "df"], rel=1e-9)
        np.eye(2) @ V
        assert model.get_df() == pytest.approx(table["df"].min(), rel=1e-9)
        # Another covariance has no degrees of freedom of this kind.
        assert type(model.get_vcov(np.eye(2))) is np.ndarray
        assert model.df_resid == np.inf
    cbpp = lme4py.load_dataset("cbpp")
    binary = lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    assert adapters.marginaleffects_model(binary).df_resid == np.inf


def test_names_are_in_the_package():
    for name in ("Margins", "MarginsResult", "adjust", "pairwise", "reference", "grid", "did"):
        assert getattr(lme4py, name) is not None
