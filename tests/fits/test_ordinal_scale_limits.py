"""Scales of ordered categories that go to zero or to infinity, and categories that never occur between others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit, xlogy

import lme4py
from lme4py.errors import ConvergenceWarning, DesignError

COUNTS = np.array([30, 40, 20, 10])
# The middle of the latent distribution is inside of the second category: cumulative shares .3, .7, .9.
PLAIN = pd.DataFrame({"y": np.repeat([1, 2, 3, 4], COUNTS), "z": 0.0})
THRESHOLDS = logit(np.cumsum(COUNTS)[:-1] / 100.0)
LOGLIK = float(xlogy(COUNTS, COUNTS / 100.0).sum())


def _fit(rows, formula="y ~ 1", **options):
    data = pd.concat([PLAIN, rows], ignore_index=True)
    with pytest.warns(ConvergenceWarning, match="goes to"):
        return lme4py.clmm(formula, data, **{"scale": "~ z", "fixed_only": True, **options})


@pytest.mark.parametrize(
    ("rows", "limit", "beside"),
    [
        # All inside of one category: their probability goes to one.
        (pd.DataFrame({"y": [2] * 25, "z": 1.0}), -np.inf, 0.0),
        # The lowest and the highest category: F(0) each.
        (pd.DataFrame({"y": [1, 4] * 10, "z": 1.0}), np.inf, 20 * np.log(0.5)),
        (pd.DataFrame({"y": [2] * 25, "z": -1.0}), np.inf, 0.0),
    ],
)
def test_the_limit_is_that_of_the_other_rows(rows, limit, beside):
    fit = _fit(rows)
    table = fit.coef_table(component="scale")
    assert table.loc["z", "estimate"] == limit
    assert np.isnan(table.loc["z", "std_error"])
    assert not fit.converged
    assert f"scale: z goes to {limit:+}".replace("inf", "inf") in fit.certificate.verdict
    # Far along, what is left to the limit is below rounding of the criterion.
    assert fit.log_likelihood == pytest.approx(LOGLIK + beside, abs=1e-5)
    # One scale of the others: shares, with their binomial errors.
    np.testing.assert_allclose(fit.thresholds, THRESHOLDS, atol=1e-5)
    share = np.cumsum(COUNTS)[:-1] / 100.0
    np.testing.assert_allclose(fit.thresholds_se, 1.0 / np.sqrt(100.0 * share * (1.0 - share)), rtol=1e-3)
    assert "NaN" in str(fit.summary()) or "inf" in str(fit.summary())
    interval = fit.conf_int(component="scale")
    assert interval.isna().all(axis=None)


def test_two_levels_can_go_two_ways():
    rows = pd.concat(
        [pd.DataFrame({"y": [2] * 12, "f": "b"}), pd.DataFrame({"y": [1, 4] * 6, "f": "c"})], ignore_index=True
    )
    data = pd.concat([PLAIN.assign(f="a"), rows], ignore_index=True)
    with pytest.warns(ConvergenceWarning, match=r"scale: f\[T.c\] goes to \+inf; scale: f\[T.b\] goes to -inf"):
        fit = lme4py.clmm("y ~ 1", data, scale="~ f", fixed_only=True)
    # A scale of e^16 is 1e-7 short of infinite.
    assert fit.log_likelihood == pytest.approx(LOGLIK + 12 * np.log(0.5), abs=1e-5)
    assert fit.coef_table(component="scale")["std_error"].isna().all()


def test_rows_that_hold_the_others_leave_no_standard_errors():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(150)
    y = np.digitize(0.8 * x + rng.logistic(size=150), [-1.5, 0.5, 1.5]) + 1
    data = pd.DataFrame({"y": np.where(np.arange(150) % 3 == 0, 2, y), "x": x, "z": (np.arange(150) % 3 == 0) * 1.0})
    with pytest.warns(ConvergenceWarning, match="Single rows at the ends of their categories"):
        fit = lme4py.clmm("y ~ x", data, scale="~ z", fixed_only=True)
    assert np.isfinite(fit.params["x"])
    assert fit.coef_table(component="all")["std_error"].isna().all()
    inside = fit.predict(data[data["z"] == 1.0])
    # In the limit each of them lies inside of its category.
    np.testing.assert_allclose(inside.iloc[:, 1], 1.0, atol=1e-3)


def test_a_scale_with_an_estimate_keeps_it():
    wine = lme4py.load_dataset("wine")
    fit = lme4py.clmm("rating ~ temp + contact", wine, scale="~ contact", fixed_only=True)
    assert fit.converged
    few = PLAIN.assign(z=(np.arange(100) < 3) * 1.0)
    # Three rows of one category at an end: more of them there is as likely on a scale that is smaller.
    again = lme4py.clmm(
        "y ~ z", few.assign(y=np.where(few["z"] == 1.0, [1, 2, 4] + [1] * 97, few["y"])), scale="~ z", fixed_only=True
    )
    assert again.converged
    assert np.isfinite(again.coef_table(component="scale")["std_error"]).all()


RNG = np.random.default_rng(4)
N = 240
Z = (np.arange(N) % 3 == 0) * 1.0
Y = np.digitize(0.5 * RNG.standard_normal(N) + RNG.logistic(size=N), [-1.2, 0.0, 1.2]) + 1


@pytest.mark.parametrize(
    ("absent", "words"), [([2], "category '2' between others"), ([2, 3], "categories '2', '3' between others")]
)
def test_a_category_between_others_that_is_absent_is_refused(absent, words):
    data = pd.DataFrame({"y": np.where((Z == 1.0) & np.isin(Y, absent), 4, Y), "z": Z, "g": np.arange(N) % 12})
    with (
        pytest.raises(DesignError, match=words) as found,
        pytest.warns(ConvergenceWarning),
    ):
        lme4py.clmm("y ~ 1 + (1 | g)", data, nominal="~ z")
    assert "nominal effects of z" in str(found.value)
    assert "80 of 240 rows" in str(found.value)
    # The same effects have a limit where steps, or neighbours, are modelled: the category is passed by.
    with pytest.warns(ConvergenceWarning, match="go(es)? to"):
        lme4py.clmm("y ~ 1", data, nominal="~ z", structure="sequential", fixed_only=True)
    test = lme4py.clmm("y ~ z", data, fixed_only=True).proportional_odds()
    assert np.isnan(test.loc["z", "chi2"])
    assert "between others" in test.attrs["note"]


@pytest.mark.parametrize(("absent", "other", "name", "limit"), [(1, 2, "1|2: z", -np.inf), (4, 3, "3|4: z", np.inf)])
def test_an_absent_end_is_a_limit(absent, other, name, limit):
    data = pd.DataFrame({"y": np.where((Z == 1.0) & (absent == Y), other, Y), "z": Z})
    with pytest.warns(ConvergenceWarning, match="goes to"):
        fit = lme4py.clmm("y ~ 1", data, nominal="~ z", fixed_only=True)
    assert fit.coef_table(component="nominal").loc[name, "estimate"] == limit
    counts = [np.bincount(data["y"][data["z"] == level], minlength=5)[1:] for level in (0.0, 1.0)]
    # Free thresholds of each level: the shares of the categories.
    want = sum(float(xlogy(own, own / own.sum()).sum()) for own in counts)
    assert fit.log_likelihood == pytest.approx(want, abs=1e-6)
