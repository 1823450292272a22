"""Conditional AIC by its definition; elimination by the tests it is made of; cross-validation by hand."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from scipy import stats

from lme4py import allfit, caic, clmm, cross_validate, extend, glmer, lmer, load_dataset, step
from lme4py.errors import Lme4Error, Lme4Warning, OptionError


@pytest.mark.parametrize(
    ("formula", "data", "rows", "weights", "reml"),
    [
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", 36, False, True),
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy", 50, True, False),
        ("Yield ~ 1 + (1 | Batch)", "Dyestuff2", 30, False, True),
    ],
)
def test_degrees_of_freedom_are_the_derivative_of_the_fitted_values(formula, data, rows, weights, reml):
    frame = load_dataset(data).iloc[:rows].assign(w=np.linspace(0.5, 2.0, rows))
    fit = lmer(formula, frame, weights="w" if weights else None, reml=reml)
    y = fit.fit.design.y
    total, h = 1.0, 1e-3 * y.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        for i in range(rows):
            up, down = y.copy(), y.copy()
            up[i] += h
            down[i] -= h
            total += (fit.refit(up).fit.fitted[i] - fit.refit(down).fit.fitted[i]) / (2 * h)
    found = caic(fit)
    # Central differences of searches that stop within 1e-12 of a minimum.
    assert found.df == pytest.approx(total, abs=1e-4)
    w = frame["w"] if weights else 1.0
    density = stats.norm.logpdf(y, fit.fittedvalues, fit.sigma / np.sqrt(w))
    assert found == pytest.approx(2 * found.df - 2 * density.sum())
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.df) == (found, found.df)


def test_conditional_aic_is_refused_by_name():
    with pytest.raises(OptionError, match="linear mixed models"):
        caic(glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp")))
    with pytest.raises(OptionError, match="this model has none"):
        caic(lmer("Yield ~ 1", load_dataset("Dyestuff"), fixed_only=True))


def test_elimination_follows_its_tests():
    rng = np.random.default_rng(3)
    data = load_dataset("sleepstudy").assign(z=rng.normal(size=180), h=rng.integers(0, 9, 180))
    full = lmer("Reaction ~ Days + z + (Days | Subject) + (z | h)", data)
    found = step(full)
    assert found.model.formula == "Reaction ~ Days + (Days | Subject)"
    assert found.steps["term"].tolist()[-1] == "z"
    assert found.steps["kind"].tolist() == ["random"] * (len(found.steps) - 1) + ["fixed"]
    first = full.ranova()["p_value"].drop("<none>")
    assert found.steps["p_value"].iloc[0] == pytest.approx(first.max())
    assert found.steps["term"].iloc[0] == first.idxmax()
    last = lmer("Reaction ~ Days + z + (Days | Subject)", data).drop1()["p_value"]["z"]
    assert found.steps["p_value"].iloc[-1] == pytest.approx(last, rel=1e-6)  # two searches
    assert step(found.model).steps.empty
    counts = glmer("count ~ mined + spp + (1 | site)", load_dataset("Salamanders"), family="poisson")
    assert step(counts).model.formula == counts.formula


def test_cross_validation_leaves_out_whole_groups():
    data = load_dataset("sleepstudy")
    fit = lmer("Reaction ~ Days + (Days | Subject)", data)
    found = cross_validate(fit, groups="Subject", k=18)
    assert found.folds["n_obs"].tolist() == [10] * 18
    out = data["Subject"] == "308"
    alone = lmer("Reaction ~ Days + (Days | Subject)", data[~out])
    rows = found.predictions[out]
    np.testing.assert_allclose(rows["predicted"], alone.predict(data[out], include_random=False), rtol=1e-8)
    limits = alone.predict(data[out], include_random=False, interval="prediction", ddf="normal")
    np.testing.assert_allclose(
        rows["std_dev"], (limits["upper"] - limits["predicted"]) / stats.norm.ppf(0.975), rtol=1e-8
    )
    fold = found.folds.loc[rows["fold"].iloc[0]]
    density = stats.norm.logpdf(rows["observed"], rows["predicted"], rows["std_dev"])
    assert fold["log_score"] == pytest.approx(density.mean())
    draws = np.random.default_rng(0).normal(size=(2, 200_000))
    x, y = rows["predicted"].iloc[0] + rows["std_dev"].iloc[0] * draws
    # E|X - y| - E|X - X'| / 2 by Monte Carlo; the mean over the fold has the one row's formula.
    one = np.abs(x - rows["observed"].iloc[0]).mean() - 0.5 * np.abs(x - y).mean()
    s, z = rows["std_dev"].iloc[0], (rows["observed"].iloc[0] - rows["predicted"].iloc[0]) / rows["std_dev"].iloc[0]
    closed = s * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert one == pytest.approx(closed, rel=0.02)
    assert found.scores["rmse"] == pytest.approx(
        np.sqrt(((found.predictions["observed"] - found.predictions["predicted"]) ** 2).mean())
    )
    cows = cross_validate(glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp")), k=3)
    assert set(cows.folds) == {"n_groups", "n_obs", "rmse", "mae"}
    with pytest.raises(OptionError, match="at most"):
        cross_validate(fit, k=40)
    crossed = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("Penicillin"))
    with pytest.raises(OptionError, match="crossed; say with `groups=`"):
        cross_validate(crossed)


def test_categories_have_scores_of_their_probabilities():
    wine = load_dataset("wine")
    found = cross_validate(clmm("rating ~ temp + (1 | judge)", wine), k=3)
    fold = int(found.predictions["fold"].iloc[0])
    out = found.predictions["fold"] == fold
    alone = clmm("rating ~ temp + (1 | judge)", wine[~out])
    p = alone.predict(wine[out], include_random="integrate", type="prob").to_numpy()
    np.testing.assert_allclose(found.predictions.loc[out, ["1", "2", "3", "4", "5"]], p, rtol=1e-8)
    codes = wine["rating"].cat.codes[out].to_numpy()
    shown = (codes[:, None] == np.arange(5)).astype(float)
    want = {
        "log_score": np.log(p[np.arange(len(codes)), codes]).mean(),
        "brier": ((shown - p) ** 2).sum(axis=1).mean(),
        "accuracy": (p.argmax(axis=1) == codes).mean(),
        "rps": ((shown - p).cumsum(axis=1) ** 2).sum(axis=1).mean(),
    }
    assert found.folds.loc[fold, list(want)].to_dict() == pytest.approx(want)
    one = wine.loc[wine["rating"] == "5", "judge"].iloc[0]
    rare = clmm("rating ~ temp + (1 | judge)", wine[(wine["rating"] != "5") | (wine["judge"] == one)])
    with pytest.raises(Lme4Error, match="in the groups of fold"):
        cross_validate(rare, k=3)


def test_models_without_random_effects():
    """Least squares has steps, folds of any column, plain weights and sums of squares as other linear models have."""
    data = load_dataset("sleepstudy").assign(z=np.sin(np.arange(180)))
    fit = lmer("Reaction ~ Days + z", data, fixed_only=True)
    assert step(fit).model.formula == "Reaction ~ Days"
    assert (fit.weights("working") == 1.0).all()
    X = fit.fit.design.X
    rest = fit.fit.design.y - X @ np.linalg.lstsq(X, fit.fit.design.y, rcond=None)[0]
    table = fit.drop1()
    assert table.loc["z", "sum_sq"] == pytest.approx(table.loc["z", "F"] * (rest @ rest) / 177)
    with pytest.raises(OptionError, match="no grouping factor; say with `groups=`"):
        cross_validate(fit)
    found = cross_validate(fit, groups="Subject", k=18)
    out = data["Subject"] == "308"
    beta = np.linalg.lstsq(X[~out], data["Reaction"][~out], rcond=None)[0]
    np.testing.assert_allclose(found.predictions["predicted"][out], X[out] @ beta, rtol=1e-9)
    with pytest.raises(OptionError, match="without random effects"):
        extend(fit, within="Days", n=3)
    with pytest.raises(OptionError, match="no groups to draw"):
        fit.bootstrap(2, seed=1).conf_int(type="bca")
    counts = glmer("count ~ mined + cover", load_dataset("Salamanders"), family="poisson", fixed_only=True)
    root = np.sqrt(counts.fittedvalues.to_numpy())[:, None] * counts.fit.design.X
    hat = (root @ np.linalg.pinv(root)).diagonal()
    np.testing.assert_allclose(counts.hatvalues(), hat, rtol=1e-6)
    assert len(counts.augment()) == 644


def test_allfit_is_the_method():
    fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    assert str(allfit(fit, n_starts=1, seed=1)).startswith("6 of 6 runs")
