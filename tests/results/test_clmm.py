"""clmm(): the response, invariances, predictions and everything else that a user sees."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from reference_data import load_reference
from scipy import special, stats

import lme4py
from lme4py.errors import DataError, FormulaError, Lme4Warning, OptionError

FORMULA = "rating ~ temp + contact + (1 | judge)"


@pytest.fixture(scope="module")
def wine() -> pd.DataFrame:
    return lme4py.load_dataset("wine")


@pytest.fixture(scope="module")
def result(wine: pd.DataFrame) -> lme4py.MEGLMResult:
    return lme4py.clmm(FORMULA, wine)


@pytest.fixture(scope="module")
def ratings() -> pd.DataFrame:
    return load_reference("sim_ord")


def same(a: lme4py.MEGLMResult, b: lme4py.MEGLMResult, rtol: float = 1e-6) -> None:
    # Both fits stop where the criterion can fall by 1e-12.
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(a.params, b.params, rtol=rtol)
    np.testing.assert_allclose(a.thresholds, b.thresholds, rtol=rtol)
    np.testing.assert_allclose(a.thresholds_se, b.thresholds_se, rtol=1e-4)  # differences of gradients


class TestResponse:
    def test_numbers_are_sorted(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        numbers = lme4py.clmm(FORMULA, wine.assign(rating=wine["rating"].astype(int) * 10))
        same(numbers, result)
        assert numbers.categories == (10, 20, 30, 40, 50)
        assert list(numbers.thresholds.index) == ["10|20", "20|30", "30|40", "40|50"]

    def test_text_needs_its_order(self, ratings: pd.DataFrame) -> None:
        text = ratings.assign(y=ratings["y"].astype(object))
        with pytest.raises(DataError, match=r"'y' is text.*levels=\['high', 'low', 'mid', 'top'\]"):
            lme4py.clmm("y ~ x + (1 | rater)", text)
        given = lme4py.clmm("y ~ x + (1 | rater)", text, levels=["low", "mid", "high", "top"])
        same(given, lme4py.clmm("y ~ x + (1 | rater)", ratings))
        assert given.categories == ("low", "mid", "high", "top")

    def test_unordered_categories_need_their_order(self, ratings: pd.DataFrame) -> None:
        unordered = ratings.assign(y=ratings["y"].cat.as_unordered())
        with pytest.raises(DataError, match="unordered categorical"):
            lme4py.clmm("y ~ x + (1 | rater)", unordered)
        same(
            lme4py.clmm("y ~ x + (1 | rater)", unordered, levels=("low", "mid", "high", "top")),
            lme4py.clmm("y ~ x + (1 | rater)", ratings),
        )

    def test_categories_that_are_numbers_have_an_order(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        labels = pd.Categorical(wine["rating"].astype(int), categories=[3, 1, 2, 5, 4])
        same(lme4py.clmm(FORMULA, wine.assign(rating=labels)), result)

    def test_levels_may_reverse_an_order(self, ratings: pd.DataFrame) -> None:
        back = lme4py.clmm("y ~ x + (1 | rater)", ratings, levels=["top", "high", "mid", "low"])
        forward = lme4py.clmm("y ~ x + (1 | rater)", ratings)
        np.testing.assert_allclose(back.params, -forward.params, rtol=1e-6)
        assert list(back.thresholds.index) == ["top|high", "high|mid", "mid|low"]

    def test_unused_categories_are_left_out_with_a_note(self, ratings: pd.DataFrame) -> None:
        some = ratings[ratings["y"] != "mid"]
        fitted = lme4py.clmm("y ~ x + (1 | rater)", some)
        assert fitted.categories == ("low", "high", "top")
        assert "category 'mid' of the response 'y' does not occur" in fitted.summary()
        listed = lme4py.clmm("y ~ x + (1 | rater)", some, levels=["none", "low", "mid", "high", "top"])
        assert "2 categories of the response 'y' do not occur" in listed.summary()
        assert "does not occur" not in lme4py.clmm("y ~ x + (1 | rater)", ratings).summary()

    def test_categories_whose_rows_are_incomplete(self, ratings: pd.DataFrame) -> None:
        gaps = ratings.assign(x=ratings["x"].mask(ratings["y"] == "top"))
        fitted = lme4py.clmm("y ~ x + (1 | rater)", gaps)
        assert fitted.categories == ("low", "mid", "high")
        assert "'top'" in fitted.summary()

    def test_too_few_categories(self, ratings: pd.DataFrame) -> None:
        two = ratings[ratings["y"].isin(["low", "top"])]
        with pytest.raises(DataError, match=r"two categories.*'low', 'top'.*glmer\(\.\.\., family='binomial'\)"):
            lme4py.clmm("y ~ x + (1 | rater)", two)
        with pytest.raises(DataError, match="only the category 'low'"):
            lme4py.clmm("y ~ x + (1 | rater)", ratings[ratings["y"] == "low"])
        with pytest.raises(DataError, match="two categories"):
            lme4py.clmm("b ~ x + (1 | rater)", ratings.assign(b=ratings["y"] == "low"))

    def test_measurements_are_no_categories(self, ratings: pd.DataFrame) -> None:
        with pytest.raises(DataError, match=r"distinct values, more than the 100.*lmer"):
            lme4py.clmm("x ~ tr + (1 | rater)", ratings.assign(x=np.arange(360.0)))

    def test_faulty_levels(self, ratings: pd.DataFrame) -> None:
        with pytest.raises(OptionError, match="`levels` names 'low' twice"):
            lme4py.clmm("y ~ x + (1 | rater)", ratings, levels=["low", "low", "mid"])
        with pytest.raises(DataError, match="rows of the response 'y' have values that `levels` does not name: 'top'"):
            lme4py.clmm("y ~ x + (1 | rater)", ratings, levels=["low", "mid", "high"])
        with pytest.raises(OptionError, match="give a list"):
            lme4py.clmm("y ~ x + (1 | rater)", ratings, levels="low")

    def test_other_data_frames(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        frame = pl.DataFrame(
            {
                **{name: wine[name].astype(str).tolist() for name in ("temp", "contact", "judge")},
                "rating": pl.Series(wine["rating"].astype(str).tolist(), dtype=pl.Enum(list("12345"))),
            }
        )
        same(lme4py.clmm(FORMULA, frame), result)
        same(lme4py.clmm(FORMULA, frame.with_columns(pl.col("rating").cast(pl.String).cast(pl.Int8))), result)


class TestFormulaAndOptions:
    def test_no_intercept_among_the_columns(self, result: lme4py.MEGLMResult) -> None:
        assert list(result.params.index) == ["temp[T.warm]", "contact[T.yes]"]
        assert result.fit.design.X.shape == (72, 2)

    @pytest.mark.parametrize("formula", ["rating ~ 0 + temp + (1 | judge)", "rating ~ temp - 1 + (1 | judge)"])
    def test_the_intercept_cannot_be_removed(self, wine: pd.DataFrame, formula: str) -> None:
        with pytest.raises(FormulaError, match="thresholds in its place"):
            lme4py.clmm(formula, wine)

    def test_no_fixed_effects(self, wine: pd.DataFrame) -> None:
        fitted = lme4py.clmm("rating ~ 1 + (1 | judge)", wine)
        assert fitted.converged
        assert fitted.params.empty
        assert len(fitted.thresholds) == 4
        assert fitted.predict(type="prob").shape == (72, 5)
        assert "1|2" in fitted.summary()

    def test_contrasts_change_the_parameters_only(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        sums = lme4py.clmm(FORMULA, wine, contrasts={"temp": "contr.sum", "contact": "contr.sum"})
        assert sums.log_likelihood == pytest.approx(result.log_likelihood, abs=1e-9)
        np.testing.assert_allclose(-2.0 * sums.params, result.params, rtol=1e-6)
        # Deviations from the means: the thresholds move by half of both effects.
        np.testing.assert_allclose(sums.thresholds + result.params.sum() / 2.0, result.thresholds, rtol=1e-6)

    def test_columns_that_the_constant_determines(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        with pytest.warns(lme4py.RankWarning, match="The column one is left out"):
            fitted = lme4py.clmm("rating ~ one + temp + contact + (1 | judge)", wine.assign(one=3.0))
        same(fitted, result)
        assert "one" in fitted.summary()

    @pytest.mark.parametrize("nAGQ", [0, -1, 2.5, True])
    def test_faulty_numbers_of_points(self, wine: pd.DataFrame, nAGQ: Any) -> None:
        with pytest.raises(OptionError, match=r"nAGQ=.*must be 1"):
            lme4py.clmm(FORMULA, wine, nAGQ=nAGQ)

    def test_quadrature_of_crossed_factors_is_refused(self, wine: pd.DataFrame) -> None:
        for nAGQ in (5, -5):
            with pytest.raises(OptionError, match="needs one grouping factor"):
                lme4py.clmm("rating ~ temp + (1 | judge) + (1 | bottle)", wine, nAGQ=nAGQ)

    def test_unknown_link_and_structure(self, wine: pd.DataFrame) -> None:
        with pytest.raises(OptionError, match="no link 'log'"):
            lme4py.clmm(FORMULA, wine, link="log")
        with pytest.raises(OptionError, match=r"no threshold 'equidist'\. Did you mean 'equidistant'"):
            lme4py.clmm(FORMULA, wine, threshold="equidist")

    def test_the_steps_check_that_they_fit(self, wine: pd.DataFrame) -> None:
        from lme4py.families.ordered.ordinal import make_ordinal
        from lme4py.families.registry import make_family
        from lme4py.fits.generalised.steps import glmm_fit

        design = lme4py.lformula(FORMULA, wine, family="ordinal")
        with pytest.raises(OptionError, match="family has 4 ordered categories, but the response has 5"):
            glmm_fit(design, make_ordinal("logit", "flexible", 4))
        with pytest.raises(OptionError, match="5 ordered categories, which the poisson family cannot use"):
            glmm_fit(design, make_family("poisson"))
        assert glmm_fit(design, make_ordinal("logit", "flexible", 5)).n_params == 7

    def test_a_start(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        same(lme4py.clmm(FORMULA, wine, start=[2.0]), result)


class TestInvariance:
    @pytest.mark.parametrize(
        ("link", "mirror"), [("logit", "logit"), ("probit", "probit"), ("cauchit", "cauchit"), ("cloglog", "loglog")]
    )
    @pytest.mark.parametrize("threshold", ["flexible", "equidistant"])
    def test_categories_in_reverse(self, ratings: pd.DataFrame, link: str, mirror: str, threshold: str) -> None:
        formula = "y ~ x + tr + (1 | rater) + (1 | item)"
        forward = lme4py.clmm(formula, ratings, link=link, threshold=threshold)
        levels = ["top", "high", "mid", "low"]
        back = lme4py.clmm(formula, ratings, link=mirror, threshold=threshold, levels=levels)
        assert back.log_likelihood == pytest.approx(forward.log_likelihood, abs=1e-8)
        # Both fits stop where the criterion can fall by 1e-12.
        np.testing.assert_allclose(back.params, -forward.params, rtol=1e-5)
        np.testing.assert_allclose(back.thresholds, -forward.thresholds.to_numpy()[::-1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(back.fit.theta, forward.fit.theta, rtol=1e-5)
        np.testing.assert_allclose(back.fit.modes[0], -forward.fit.modes[0], rtol=1e-4, atol=1e-5)

    def test_weights_are_frequencies(self, ratings: pd.DataFrame) -> None:
        repeated = ratings.loc[ratings.index.repeat(ratings["wt"])].reset_index(drop=True)
        for options in ({"nAGQ": 1}, {"nAGQ": 3, "link": "probit", "threshold": "symmetric"}):
            same(
                lme4py.clmm("y ~ x + (1 | rater)", ratings, weights="wt", **options),
                lme4py.clmm("y ~ x + (1 | rater)", repeated, **options),
                rtol=1e-5,
            )

    def test_an_offset_is_a_known_effect(self, ratings: pd.DataFrame) -> None:
        free = lme4py.clmm("y ~ x + tr + (1 | rater)", ratings)
        known = lme4py.clmm("y ~ tr + (1 | rater)", ratings, offset=free.params["x"] * ratings["x"])
        assert known.log_likelihood == pytest.approx(free.log_likelihood, abs=1e-8)
        np.testing.assert_allclose(known.thresholds, free.thresholds, rtol=1e-5)

    def test_rows_in_another_order(self, ratings: pd.DataFrame) -> None:
        formula = "y ~ x + tr + (x | rater)"
        same(lme4py.clmm(formula, ratings), lme4py.clmm(formula, ratings.sample(frac=1.0, random_state=1)), rtol=1e-5)


class TestPredictions:
    def test_probabilities(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        p = result.predict(type="prob")
        assert list(p.columns) == list("12345")
        assert p.index.equals(wine.index)
        pd.testing.assert_frame_equal(p, result.predict())
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-14)  # a sum of five numbers
        eta = result.predict(type="linear").to_numpy()[:, None]
        cut = special.expit(result.thresholds.to_numpy() - eta)
        np.testing.assert_allclose(p, np.diff(np.hstack([0 * eta, cut, 0 * eta + 1.0])), rtol=1e-10)
        np.testing.assert_allclose(result.predict(type="cumulative").iloc[:, :-1], cut, rtol=1e-13)
        assert (result.predict(type="cumulative")["5"] == 1.0).all()
        observed = p.to_numpy()[np.arange(72), wine["rating"].cat.codes]
        np.testing.assert_allclose(result.fittedvalues, observed, rtol=1e-13)

    def test_classes(self, result: lme4py.MEGLMResult) -> None:
        chosen = result.predict(type="class", include_random=False)
        assert chosen.cat.ordered
        assert list(chosen.cat.categories) == list("12345")
        p = result.predict(type="prob", include_random=False)
        assert (chosen.astype(str) == p.idxmax(axis=1)).all()

    def test_averages_over_the_random_effects(self, ratings: pd.DataFrame) -> None:
        fitted = lme4py.clmm("y ~ x + (x | rater) + (1 | item)", ratings, link="probit")
        z = np.column_stack([np.ones(len(ratings)), ratings["x"]])
        by_group = {term.group: cov for term, cov in zip(fitted.fit.design.terms, fitted.fit.covariances, strict=True)}
        variance = np.einsum("na,ab,nb->n", z, by_group["rater"], z) + by_group["item"][0, 0]
        eta = ratings["x"].to_numpy() * fitted.params["x"]
        # A probit model stays one when normal effects are averaged out.
        expected = stats.norm.cdf((fitted.thresholds.to_numpy() - eta[:, None]) / np.sqrt(1.0 + variance)[:, None])
        ours = fitted.predict(type="cumulative", include_random="integrate").iloc[:, :-1]
        np.testing.assert_allclose(ours, expected, atol=1e-10)  # 41 points
        p = fitted.predict(type="prob", include_random="integrate")
        np.testing.assert_allclose(np.cumsum(p.to_numpy(), axis=1)[:, :-1], expected, atol=1e-10)

    def test_new_data(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        new = pd.DataFrame({"temp": ["warm", "cold"], "contact": ["no", "yes"], "judge": ["3", "99"]}, index=["a", "b"])
        with pytest.warns(Lme4Warning, match="judge: 1 of 2 rows"):
            p = result.predict(new, type="prob")
        assert list(p.index) == ["a", "b"]
        row = wine.index[(wine["temp"] == "warm") & (wine["contact"] == "no") & (wine["judge"] == "3")][0]
        np.testing.assert_allclose(p.loc["a"], result.predict(type="prob").loc[row], rtol=1e-12)
        fixed = result.predict(new, type="prob", include_random=False)
        np.testing.assert_allclose(p.loc["b"], fixed.loc["b"], rtol=1e-12)
        with pytest.raises(DataError, match="judge: 1 of 2 rows"):
            result.predict(new, type="class", new_levels="error")

    def test_rows_with_missing_values(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        new = wine.head(3).assign(temp=wine["temp"].head(3).mask(np.array([False, True, False])))
        p = result.predict(new, type="prob")
        assert p.iloc[1].isna().all()
        assert p.iloc[[0, 2]].notna().all(axis=None)
        assert result.predict(new, type="class").isna().tolist() == [False, True, False]

    def test_rows_left_out(self, ratings: pd.DataFrame) -> None:
        gaps = ratings.assign(x=ratings["x"].mask(ratings.index < 3))
        padded = lme4py.clmm("y ~ x + (1 | rater)", gaps, na_action="exclude").predict(type="prob")
        assert padded.shape == (360, 4)
        assert padded.iloc[:3].isna().all(axis=None)
        assert lme4py.clmm("y ~ x + (1 | rater)", gaps).predict(type="prob").shape == (357, 4)

    def test_what_is_refused(self, result: lme4py.MEGLMResult) -> None:
        with pytest.raises(OptionError, match="Did you mean 'prob'"):
            result.predict(type="probs")
        for type in ("prob", "cumulative", "class", "linear"):
            with pytest.raises(OptionError, match=r"interval='prediction' is not available.*'integrate'"):
                result.predict(type=type, interval="prediction")
        with pytest.raises(OptionError, match="category has no limits"):
            result.predict(type="class", interval="confidence")
        with pytest.raises(OptionError, match="Did you mean 'confidence'"):
            result.predict(interval="confidense")
        with pytest.raises(OptionError, match="alpha"):
            result.predict(interval="confidence", alpha=2)


class TestResults:
    def test_thresholds(self, result: lme4py.MEGLMResult) -> None:
        assert list(result.thresholds.index) == ["1|2", "2|3", "3|4", "4|5"]
        assert result.thresholds.index.equals(result.thresholds_se.index)
        fit = result.fit
        # Order: theta, beta, thresholds.
        np.testing.assert_allclose(np.sqrt(np.diag(fit.parameter_vcov))[3:], result.thresholds_se)
        np.testing.assert_allclose(np.sqrt(np.diag(fit.parameter_vcov))[1:3], result.bse)

    def test_structured_thresholds(self, wine: pd.DataFrame) -> None:
        fitted = lme4py.clmm(FORMULA, wine, threshold="symmetric")
        own = fitted.threshold_parameters()
        assert list(own.index) == ["central.1", "central.2", "spacing.1"]
        assert fitted.fit.parameter_vcov.shape == (7, 7)
        assert np.linalg.matrix_rank(fitted.fit.parameter_vcov) == 6
        assert fitted.n_params == 6
        cuts = fitted.thresholds.to_numpy()
        assert cuts[3] - cuts[2] == pytest.approx(own.loc["spacing.1", "estimate"])
        assert cuts[1] - cuts[0] == pytest.approx(own.loc["spacing.1", "estimate"])

    def test_a_threshold_fixed_at_zero(self, ratings: pd.DataFrame) -> None:
        fitted = lme4py.clmm("y ~ x + tr + (1 | rater)", ratings, threshold="symmetric2")
        assert fitted.thresholds["mid|high"] == 0.0
        assert fitted.thresholds_se["mid|high"] == 0.0
        assert "mid|high" in fitted.summary()
        assert "nan" not in fitted.summary().lower()
        json.dumps(fitted.to_dict(), allow_nan=False)

    def test_odds_ratios(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        table = result.odds_ratios()
        np.testing.assert_allclose(table["odds_ratio"], np.exp(result.params))
        with pytest.raises(OptionError, match="logit link"):
            lme4py.clmm(FORMULA, wine, link="probit").odds_ratios()

    def test_conditional_modes(self, result: lme4py.MEGLMResult) -> None:
        modes, sds = result.ranef(conditional_se=True)
        assert modes.shape == sds.shape == (9, 1)
        # The published example: judge 1 in R's clmm.
        assert modes.iloc[0, 0] == pytest.approx(1.696172, abs=1e-5)
        assert sds.iloc[0, 0] == pytest.approx(0.553840, abs=1e-5)

    def test_residuals(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        p = result.predict(type="prob").to_numpy()
        codes = wine["rating"].cat.codes.to_numpy()
        below = np.array([row[:k].sum() for row, k in zip(p, codes, strict=True)])
        above = np.array([row[k + 1 :].sum() for row, k in zip(p, codes, strict=True)])
        np.testing.assert_allclose(result.residuals("probability"), below - above, atol=1e-14)
        deviance = result.residuals("deviance")
        np.testing.assert_allclose(deviance**2, -2.0 * np.log(result.fittedvalues), rtol=1e-10)
        assert (np.sign(deviance) == np.sign(below - above)).all()
        # The scores of a mode add up to the mode itself over the variance.
        by_judge = result.residuals("score").groupby(wine["judge"].to_numpy()).sum()
        modes = result.ranef()["Intercept"] / result.variance_components["var(_cons)"]
        np.testing.assert_allclose(by_judge.to_numpy(), modes.loc[list(by_judge.index)].to_numpy(), atol=1e-6)
        for type_ in ("response", "pearson", "working"):
            with pytest.raises(OptionError, match="no mean to subtract"):
                result.residuals(type_)

    def test_reports(self, result: lme4py.MEGLMResult) -> None:
        text = result.summary()
        for part in ("ordinal (logit), flexible thresholds", "Thresholds", "1|2", "-1.6237", "0.6824", "Converged"):
            assert part in text
        assert "ordinal (logit)" in repr(result)
        for other in (result.to_markdown(), result.to_latex(), result._repr_html_()):
            assert "Thresholds" in other
        tidy = result.tidy()
        assert (tidy["effect"] == "threshold").sum() == 4
        assert result.glance().loc[0, "log_likelihood"] == result.log_likelihood
        plain = json.loads(json.dumps(result.to_dict(random_effects=True), allow_nan=False))
        assert [row["term"] for row in plain["thresholds"]] == list(result.thresholds.index)

    def test_fixed_nodes_are_named(self, wine: pd.DataFrame) -> None:
        assert "non-adaptive Gauss-Hermite" in lme4py.clmm(FORMULA, wine, nAGQ=-9).summary()

    def test_pickle(self, result: lme4py.MEGLMResult) -> None:
        again = pickle.loads(pickle.dumps(result))
        assert again.thresholds.equals(result.thresholds)
        assert again.summary() == result.summary()
        pd.testing.assert_frame_equal(again.predict(type="prob"), result.predict(type="prob"))

    def test_simulate_and_refit(self, wine: pd.DataFrame, result: lme4py.MEGLMResult) -> None:
        new = result.simulate(1, seed=1).iloc[:, 0]
        assert set(new) <= set("12345")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = result.refit(new)
            direct = lme4py.clmm(FORMULA, wine.assign(rating=pd.Categorical(new, list("12345"), ordered=True)))
        same(again, direct, rtol=1e-5)

    def test_other_models_have_no_thresholds(self) -> None:
        binary = lme4py.glmer("use ~ age + (1 | district)", lme4py.load_dataset("Contraception"))
        assert binary.categories == ()
        assert binary.fit.thresholds is None
        assert binary.fit.threshold_names == ()
        assert binary.thresholds is None
        assert binary.thresholds_se is None
