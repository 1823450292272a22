"""The front door of generalised models, and their result object."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import ConvergenceWarning, DataError, DesignError, Lme4Warning, OptionError

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp() -> lme4py.MEGLMResult:
    return lme4py.glmer(CBPP, lme4py.load_dataset("cbpp"))


@pytest.fixture(scope="module")
def counts() -> lme4py.MEGLMResult:
    return lme4py.glmer_nb("count ~ mined + (1 | site)", lme4py.load_dataset("Salamanders"))


@pytest.fixture
def data() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 200
    g = np.repeat(np.arange(20), 10)
    x = rng.normal(size=n)
    eta = 0.4 * x + 0.6 * rng.normal(size=20)[g]
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int)
    return pd.DataFrame(
        {"y": y, "x": x, "g": g, "count": rng.poisson(np.exp(eta)), "size": rng.gamma(3, np.exp(eta) / 3)}
    )


class TestResponses:
    def test_all_forms_of_a_binary_response_agree(self, data: pd.DataFrame) -> None:
        data["flag"] = data["y"] == 1
        data["word"] = pd.Categorical(np.where(data["y"] == 1, "yes", "no"), categories=["no", "yes"])
        data["one"] = 1.0
        fits = [
            lme4py.glmer("y ~ x + (1 | g)", data),
            lme4py.glmer("flag ~ x + (1 | g)", data),
            lme4py.glmer("word ~ x + (1 | g)", data),
            lme4py.glmer("cbind(y, 1 - y) ~ x + (1 | g)", data),
            lme4py.glmer("y ~ x + (1 | g)", data, weights="one"),
        ]
        for fit in fits[1:]:
            # The same numbers by the same operations.
            np.testing.assert_allclose(fit.params, fits[0].params, rtol=1e-12)

    def test_a_proportion_with_weights(self, cbpp: lme4py.MEGLMResult) -> None:
        table = lme4py.load_dataset("cbpp").assign(p=lambda d: d["incidence"] / d["size"])
        other = lme4py.glmer("p ~ period + (1 | herd)", table, weights="size")
        assert other.log_likelihood == pytest.approx(cbpp.log_likelihood, rel=1e-12)
        assert other.n_obs == cbpp.n_obs == 56

    def test_wrong_responses_are_refused(self, data: pd.DataFrame) -> None:
        with pytest.raises(DataError, match="outside 0"):
            lme4py.glmer("count ~ x + (1 | g)", data)
        with pytest.raises(DataError, match="not whole"):
            lme4py.glmer("size ~ x + (1 | g)", data, "poisson")
        with pytest.raises(DataError, match="zero or negative"):
            lme4py.glmer("x ~ 1 + (1 | g)", data, "gamma")


class TestOptions:
    def test_unknown_options(self, data: pd.DataFrame) -> None:
        formula = "y ~ x + (1 | g)"
        with pytest.raises(OptionError, match="nAGQ"):
            lme4py.glmer(formula, data, nAGQ=-1)
        with pytest.raises(OptionError, match="nAGQ"):
            lme4py.glmer(formula, data, nAGQ=True)
        with pytest.raises(OptionError, match="Did you mean 'observed'"):
            lme4py.glmer(formula, data, hessian="observd")
        with pytest.raises(OptionError, match="family"):
            lme4py.glmer(formula, data, "binomail")
        with pytest.raises(OptionError, match="link"):
            lme4py.glmer(formula, data, link="loggit")

    def test_start_and_control(self, data: pd.DataFrame) -> None:
        plain = lme4py.glmer("y ~ x + (x | g)", data)
        started = lme4py.glmer("y ~ x + (x | g)", data, start=plain.theta, control={"max_evaluations": 50})
        assert started.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-8)
        with pytest.raises(OptionError, match="theta must hold 3"):
            lme4py.glmer("y ~ x + (x | g)", data, start=[1.0])

    def test_too_few_evaluations_are_reported(self, data: pd.DataFrame) -> None:
        with pytest.warns(ConvergenceWarning, match="Not converged"):
            result = lme4py.glmer("count ~ x + (x | g)", data, "poisson", control={"max_evaluations": 1})
        assert not result.converged


class TestResult:
    def test_coefficients(self, cbpp: lme4py.MEGLMResult) -> None:
        table = cbpp.coef_table()
        np.testing.assert_allclose(table["statistic"], cbpp.params / cbpp.bse)
        assert np.isinf(table["df"]).all()
        limits = cbpp.conf_int()
        np.testing.assert_allclose(limits["upper"] - limits["lower"], 2 * 1.959963984540054 * cbpp.bse)
        np.testing.assert_allclose(np.diag(cbpp.cov_params()), cbpp.bse**2)
        assert cbpp.aic == pytest.approx(cbpp.deviance + 2 * 5)
        assert cbpp.bic == pytest.approx(cbpp.deviance + 5 * np.log(56))

    def test_there_is_no_residual_variance(self, cbpp: lme4py.MEGLMResult) -> None:
        assert list(cbpp.variance_components) == ["var(_cons)"]
        assert cbpp.var_corr()["group"].tolist() == ["herd"]
        assert (cbpp.sigma, cbpp.dispersion, cbpp.dispersion_se) == (1.0, 1.0, None)
        assert cbpp.theta == pytest.approx(np.sqrt([cbpp.variance_components["var(_cons)"]]))

    def test_ratios(self, cbpp: lme4py.MEGLMResult, counts: lme4py.MEGLMResult) -> None:
        odds = cbpp.odds_ratios()
        np.testing.assert_allclose(np.log(odds["odds_ratio"]), cbpp.params)
        np.testing.assert_allclose(np.log(odds[["lower", "upper"]]), cbpp.conf_int())
        np.testing.assert_allclose(np.log(counts.incidence_rate_ratios()["rate_ratio"]), counts.params)
        with pytest.raises(OptionError, match="logit link"):
            counts.odds_ratios()
        with pytest.raises(OptionError, match="log link"):
            cbpp.incidence_rate_ratios()

    def test_random_effects(self, cbpp: lme4py.MEGLMResult) -> None:
        modes, sds = cbpp.ranef(conditional_se=True)
        assert modes.shape == sds.shape == (15, 1)
        assert ((sds > 0) & (sds < 0.65)).all(axis=None)
        np.testing.assert_allclose(cbpp.coef()["Intercept"], cbpp.params["Intercept"] + modes["Intercept"])

    def test_dispersion(self, counts: lme4py.MEGLMResult) -> None:
        assert counts.family == "nbinomial"
        assert counts.n_params == 4
        assert counts.dispersion_se == pytest.approx(0.078, abs=0.02)
        assert counts.dispersion == counts.sigma

    def test_gaussian_models_have_a_residual_variance(self) -> None:
        sleep = lme4py.load_dataset("sleepstudy")
        formula = "Reaction ~ Days + (Days | Subject)"
        general, linear = lme4py.glmer(formula, sleep, "gaussian"), lme4py.lmer(formula, sleep, reml=False)
        assert general.log_likelihood == pytest.approx(linear.log_likelihood, abs=1e-8)
        for key, value in linear.variance_components.items():
            # Both stop where the criterion can fall by about 1e-12.
            assert general.variance_components[key] == pytest.approx(value, rel=1e-5)

    @pytest.mark.parametrize("type_", ["response", "pearson", "deviance", "working"])
    def test_residuals(self, cbpp: lme4py.MEGLMResult, type_: str) -> None:
        residuals = cbpp.residuals(type_)
        raw = cbpp.fit.data.y / cbpp.fit.data.trials - cbpp.fittedvalues
        assert (np.sign(residuals) == np.sign(raw)).all()
        with pytest.raises(OptionError, match="residual"):
            cbpp.residuals("pearsonn")

    def test_reports(self, cbpp: lme4py.MEGLMResult, counts: lme4py.MEGLMResult) -> None:
        text = cbpp.summary()
        for part in ("binomial (logit)", "Laplace", "herd", "period[T.4]", "z value", "Converged"):
            assert part in text
        assert "Residual" not in text.replace("Residual df", "").replace("residuals", "")
        assert "observed information, as glmmTMB" in counts.summary()
        assert "theta = 0.6" in counts.summary()
        assert cbpp.tidy()["term"].tolist()[-1] == "sd__Intercept"
        assert cbpp.glance()["nAGQ"].tolist() == [1]
        assert json.loads(cbpp.to_json(random_effects=True))["family"] == "binomial"
        assert "<table" in cbpp._repr_html_()
        assert "period" in cbpp.to_markdown()
        assert "tabular" in cbpp.to_latex()
        assert "binomial (logit)" in repr(cbpp)
        assert len(cbpp.opt_log) == len(cbpp.fit.opt_log)

    def test_the_summary_says_which_approximation(self) -> None:
        table = lme4py.load_dataset("cbpp")
        assert "nAGQ = 9" in lme4py.glmer(CBPP, table, nAGQ=9).summary()
        assert "nAGQ = 0" in lme4py.glmer(CBPP, table, nAGQ=0).summary()
        assert "expected information, as lme4" in lme4py.glmer(CBPP, table, link="probit", hessian="expected").summary()

    def test_a_poor_laplace_approximation_is_flagged(self, cbpp: lme4py.MEGLMResult) -> None:
        # Half of the herds are all ill: a few rows of each say little about a wide distribution.
        rng = np.random.default_rng(1)
        g = np.repeat(np.arange(120), 3)
        table = pd.DataFrame({"y": rng.random(360) < 1 / (1 + np.exp(-3 * rng.standard_normal(120)[g])), "g": g})
        assert "Laplace approximation is poor" in lme4py.glmer("y ~ 1 + (1 | g)", table).summary()
        assert "poor" not in cbpp.summary()

    @pytest.mark.parametrize("kind", ["caterpillar", "residuals", "qq"])
    def test_plots(self, cbpp: lme4py.MEGLMResult, agg: object, kind: str) -> None:
        assert cbpp.plot(kind) is not None

    def test_pickle(self, cbpp: lme4py.MEGLMResult) -> None:
        again = pickle.loads(pickle.dumps(cbpp))
        assert again.summary() == cbpp.summary()


class TestPredict:
    def test_rows_of_the_fit(self, cbpp: lme4py.MEGLMResult) -> None:
        table = lme4py.load_dataset("cbpp")
        pd.testing.assert_series_equal(cbpp.predict(), cbpp.fittedvalues, check_names=False)
        pd.testing.assert_series_equal(cbpp.predict(table), cbpp.predict())
        linear = cbpp.predict(type="linear")
        np.testing.assert_allclose(cbpp.predict(), 1 / (1 + np.exp(-linear)))
        fixed = cbpp.model_matrix @ cbpp.params
        np.testing.assert_allclose(cbpp.predict(include_random=False, type="linear"), fixed)
        pd.testing.assert_series_equal(cbpp.predict(include_random=["herd"]), cbpp.predict())

    def test_new_levels(self, cbpp: lme4py.MEGLMResult) -> None:
        new = pd.DataFrame({"period": ["1"], "herd": ["99"]})
        with pytest.warns(Lme4Warning, match="contribute nothing"):
            value = cbpp.predict(new)
        assert value[0] == pytest.approx(1 / (1 + np.exp(-cbpp.params["Intercept"])))
        with pytest.raises(DataError, match="not in the training data"):
            cbpp.predict(new, new_levels="error")

    def test_averages_over_the_random_effects(self, cbpp: lme4py.MEGLMResult, counts: lme4py.MEGLMResult) -> None:
        # A lognormal mean has a closed form.
        factor = np.exp(0.5 * counts.variance_components["var(_cons)"])
        average = counts.predict(include_random="integrate")
        np.testing.assert_allclose(average, factor * counts.predict(include_random=False), rtol=1e-10)
        new = pd.DataFrame({"period": ["1"], "herd": ["1"]})
        sd = np.sqrt(cbpp.variance_components["var(_cons)"])
        draws = np.random.default_rng(0).normal(size=200_000) * sd
        simulated = np.mean(1 / (1 + np.exp(-(cbpp.params["Intercept"] + draws))))
        # The standard error of the simulated mean is 2e-4.
        assert cbpp.predict(new, include_random="integrate")[0] == pytest.approx(simulated, abs=1e-3)

    def test_missing_rows(self, data: pd.DataFrame) -> None:
        data = data.astype({"x": float})
        data.loc[3, "x"] = np.nan
        omitted = lme4py.glmer("y ~ x + (1 | g)", data)
        padded = lme4py.glmer("y ~ x + (1 | g)", data, na_action="exclude")
        assert len(omitted.fittedvalues) == 199
        assert np.isnan(padded.residuals()[3])
        assert np.isnan(padded.predict(data)[3])


class TestHardDesigns:
    """Designs on which other programs stop or go wrong."""

    def test_one_row_per_group(self) -> None:
        table = pd.DataFrame({"y": [0, 3, 1, 7, 1, 2], "g": list("abcdef")})
        for points in (1, 9):
            result = lme4py.glmer("y ~ 1 + (1 | g)", table, "poisson", nAGQ=points)
            assert result.converged
            assert 0.3 < result.variance_components["var(_cons)"] < 0.7

    def test_groups_of_zeros(self, data: pd.DataFrame) -> None:
        data.loc[data["g"] < 6, "count"] = 0
        result = lme4py.glmer("count ~ x + (1 | g)", data, "poisson")
        assert result.converged
        assert (result.ranef()["Intercept"].iloc[:6] < -0.5).all()

    @pytest.mark.parametrize("shift", [20.0, -20.0])
    def test_a_large_offset_moves_the_intercept_only(self, data: pd.DataFrame, shift: float) -> None:
        plain = lme4py.glmer("count ~ x + (1 | g)", data, "poisson")
        moved = lme4py.glmer("count ~ x + (1 | g)", data, "poisson", offset=np.full(len(data), shift))
        assert moved.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-8)
        assert moved.params["Intercept"] == pytest.approx(plain.params["Intercept"] - shift, abs=1e-6)

    def test_counts_of_a_million(self, data: pd.DataFrame) -> None:
        rng = np.random.default_rng(7)
        b = rng.normal(size=20)
        data["count"] = rng.poisson(1e6 * np.exp(0.3 * data["x"] + 0.7 * b[data["g"]]))
        for formula in ("count ~ x + (1 | g)", "count ~ x + (x | g)"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = lme4py.glmer(formula, data, "poisson")
            assert result.converged
            assert result.params["x"] == pytest.approx(0.3, abs=1e-3)

    def test_shifted_covariates_give_the_same_likelihood(self) -> None:
        table = lme4py.load_dataset("Contraception")
        formula = "use ~ age + I(age^2) + urban + (1 | district)"
        plain, shifted = (
            lme4py.glmer(formula, table),
            lme4py.glmer(formula, table.assign(age=table["age"] + 2000)),
        )
        # age^2 is 4e6 with a spread of 4e4: three digits of sixteen are gone.
        assert shifted.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)

    def test_eta_beyond_eight_with_probit(self, data: pd.DataFrame) -> None:
        rng = np.random.default_rng(1)
        data["z"] = 3 * data["x"]
        data.loc[5, "z"] = 30.0
        data["y"] = (rng.normal(size=len(data)) + data["z"] > 0).astype(int)
        assert lme4py.glmer("y ~ z + (1 | g)", data, link="probit").converged
        data.loc[5, "y"] = 0
        assert lme4py.glmer("y ~ z + (1 | g)", data, link="probit").converged

    def test_complementary_log_log_near_one(self, data: pd.DataFrame) -> None:
        rng = np.random.default_rng(1)
        p = -np.expm1(-np.exp(1.2 + 0.3 * data["x"]))
        data["y"] = (rng.uniform(size=len(data)) < p).astype(int)
        assert lme4py.glmer("y ~ x + (1 | g)", data, link="cloglog").converged

    def test_separation_is_named(self, data: pd.DataFrame) -> None:
        data["f"] = np.where(np.arange(len(data)) % 7 == 0, "b", "a")
        data.loc[data["f"] == "b", "y"] = 1
        with pytest.warns(ConvergenceWarning, match=r"f\[T\.b\] separates successes from failures"):
            result = lme4py.glmer("y ~ x + f + (1 | g)", data)
        assert not result.converged

    def test_laplace_breaks_down_without_a_proper_mode(self) -> None:
        rng = np.random.default_rng(3)
        n, g = 300, np.repeat(np.arange(30), 10)
        x = rng.normal(size=n)
        y = (rng.normal(size=n) + 3 * x + 0.7 * rng.normal(size=30)[g] > 0).astype(int)
        table = pd.DataFrame({"y": y, "x": x, "g": g})
        assert lme4py.glmer("y ~ x + (1 | g)", table, link="cauchit", hessian="expected").converged
        with pytest.raises(DesignError, match="use hessian='expected'"):
            lme4py.glmer("y ~ x + (1 | g)", table, link="cauchit")

    def test_no_fixed_effects(self, data: pd.DataFrame) -> None:
        for points in (0, 1, 5):
            result = lme4py.glmer("y ~ 0 + (1 | g)", data, nAGQ=points)
            assert result.converged
            assert result.params.empty

    def test_dropped_columns(self, data: pd.DataFrame) -> None:
        with pytest.warns(lme4py.RankWarning, match=r"I\(2 \* x\) is left out"):
            result = lme4py.glmer("y ~ x + I(2 * x) + (1 | g)", data)
        assert list(result.params.index) == ["Intercept", "x"]

    @pytest.mark.parametrize(
        ("family", "link"),
        [
            ("gamma", "log"),
            ("gamma", "inverse"),
            ("inverse_gaussian", "log"),
            ("inverse_gaussian", "1/mu^2"),
            ("gaussian", "log"),
        ],
    )
    def test_continuous_families(self, data: pd.DataFrame, family: str, link: str) -> None:
        data["size"] += 1.0
        result = lme4py.glmer("size ~ x + (1 | g)", data, family, link=link)
        assert result.converged
        assert result.dispersion_se is not None
        assert len(result.opt_log) <= 30

    def test_vector_valued_quadrature(self, data: pd.DataFrame) -> None:
        values = [lme4py.glmer("count ~ x + (x | g)", data, "poisson", nAGQ=q).log_likelihood for q in (11, 15)]
        # The rule has converged: 7 points are still 3e-5 away.
        assert values[0] == pytest.approx(values[1], abs=1e-5)

    def test_binary_data_without_replication_say_nothing_about_the_variance(self) -> None:
        table = pd.DataFrame({"y": [0, 1, 1, 0, 1, 0], "g": list("abcdef")})
        with pytest.raises(lme4py.DesignError, match=r"'g' of .* has 6 levels for 6 observations.*single 0/1 response"):
            lme4py.glmer("y ~ 1 + (1 | g)", table)
