"""Variances without a finite estimate: groups that give one answer, and groups that the predictors separate."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import expit, xlogy
from scipy.stats import norm

import lme4py
from lme4py.errors import DesignError

J, SIZE = 30, 5
RNG = np.random.default_rng(0)
G = np.repeat(np.arange(J), SIZE)
BETWEEN, WITHIN = RNG.standard_normal(J)[G], RNG.standard_normal(J * SIZE)
YES = (RNG.random(J) < 0.4).astype(int)
DATA = pd.DataFrame(
    {
        "g": G.astype(str),
        "x": BETWEEN,
        "w": WITHIN,
        "y": YES[G],
        "m": RNG.integers(1, 4, J * SIZE),
        "rank": RNG.integers(0, 3, J)[G],
        "school": (G % 6).astype(str),
        "item": np.tile(np.arange(SIZE), J).astype(str),
        "f": np.tile(list("ab"), J * SIZE)[: J * SIZE],
    }
).assign(wins=lambda d: d["y"] * d["m"], losses=lambda d: d["m"] - d["y"] * d["m"])


def likelihood(mean: float, sd: float) -> float:
    """Log-likelihood of the intercept-only logit model of DATA by adaptive quadrature."""
    total = 0.0
    for answer, count in ((1, YES.sum()), (0, J - YES.sum())):
        sign = 2 * answer - 1
        points = [-mean / sd] if abs(mean / sd) < 8 else None
        p = quad(lambda u, s=sign: expit(s * (mean + sd * u)) ** SIZE * norm.pdf(u), -9, 9, points=points, limit=400)[0]
        total += count * np.log(p)
    return total


def test_the_supremum_lies_at_infinity() -> None:
    """The reason for the refusal: the likelihood rises with the standard deviation, to that of one row per group."""
    p = YES.mean()
    supremum = J * float(xlogy(p, p) + xlogy(1 - p, 1 - p))
    values = [likelihood(sd * norm.ppf(p), sd) for sd in (1.0, 5.0, 20.0, 100.0, 1000.0)]
    assert (np.diff(values) > 0).all()
    assert values[-1] < supremum
    # The distance falls like 1 / sd.
    assert supremum - values[-1] < 0.05


@pytest.mark.parametrize("nAGQ", [0, 1, 5, 25])
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_one_answer_in_every_group_is_refused(nAGQ: int, link: str) -> None:
    names = r"every level of g gives one answer only \(18 only failures, 12 only successes\)"
    for formula in ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)", "cbind(wins, losses) ~ x + (1 | g)"):
        with pytest.raises(DesignError, match=names):
            lme4py.glmer(formula, DATA, link=link, nAGQ=nAGQ)


@pytest.mark.parametrize(
    ("formula", "term"),
    [
        ("y ~ x + w + (1 | g)", r"\(1 \| g\)"),
        ("y ~ x + (w | g)", r"\(w \| g\)"),
        ("y ~ x + (1 | g) + (1 | item)", r"\(1 \| g\)"),
        ("y ~ x + (1 | school/g)", r"\(1 \| g:school\)"),
        ("y ~ f + (0 + f | g)", r"\(0 \+ f \| g\)"),
    ],
)
def test_other_random_effects(formula: str, term: str) -> None:
    with pytest.raises(DesignError, match=rf"{term}: every level of .* gives one answer only"):
        lme4py.glmer(formula, DATA)


def test_ordered_categories_and_the_keyword_door() -> None:
    with pytest.raises(DesignError, match=r"gives one answer only \(9 only 0, 14 only 1, 7 only 2\)"):
        lme4py.clmm("rank ~ x + (1 | g)", DATA)
    with pytest.raises(DesignError, match="gives one answer only"):
        lme4py.melogit(DATA, "y", ["x"], "g")
    with pytest.raises(DesignError, match="gives one answer only"):
        lme4py.meologit(DATA, "rank", ["x"], "g")


def test_one_group_with_two_answers_has_a_finite_estimate() -> None:
    data = DATA.copy()
    data.loc[0, "y"] = 1 - data.loc[0, "y"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = lme4py.glmer("y ~ 1 + (1 | g)", data, nAGQ=25)
    assert 0.0 < result.variance_components["var(_cons)"] < 1e4


def test_answers_that_follow_a_slope() -> None:
    # Within every group the answers follow the sign of w, upwards or downwards: the variance of the slope is infinite.
    data = DATA.assign(y=((2 * YES - 1)[G] * WITHIN > 0).astype(int))
    with pytest.raises(DesignError, match="follow the sign of a column"):
        lme4py.glmer("y ~ w + (0 + w | g)", data)
    # The same direction in all groups is the fixed effect.
    same = DATA.assign(y=(WITHIN > 0).astype(int))
    with pytest.warns(lme4py.ConvergenceWarning, match="separate successes from failures"):
        found = lme4py.glmer("y ~ w + (0 + w | g)", same)
    assert found.params["w"] == np.inf


@pytest.mark.parametrize("seed", range(3))
def test_groups_that_the_predictors_separate(seed: int) -> None:
    """y = [x + u_g > 0] without noise: only the ratio of the slope to the standard deviation is determined."""
    rng = np.random.default_rng(seed)
    g, x, u = np.repeat(np.arange(20), 6), rng.standard_normal(120), rng.standard_normal(20)
    data = pd.DataFrame({"g": g, "x": x, "y": (x + u[g] > 0).astype(int)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            DesignError, match=r"within every level of g the fixed effects separate successes"
        ) as caught:
            lme4py.glmer("y ~ x + (1 | g)", data)
        # The limit at the true ratio, group by group: the probability of the interval of u that gives the answers.
        low = np.array([max([-9.0, *-x[(g == j) & (data["y"] == 1)]]) for j in range(20)])
        high = np.array([min([9.0, *-x[(g == j) & (data["y"] == 0)]]) for j in range(20)])
        at_truth = float(np.log(norm.cdf(high) - norm.cdf(low)).sum())
        assert float(str(caught.value).split("to -")[1].split()[0]) < -at_truth
        # With noise the same model is fitted.
        noisy = data.assign(y=(x + u[g] + 0.5 * rng.logistic(size=120) > 0).astype(int))
        assert lme4py.glmer("y ~ x + (1 | g)", noisy).converged


def test_refits_and_resamples_count_it_as_a_failure() -> None:
    # Two of six groups have both answers: with four rows each, many samples have none that has.
    g = np.repeat(np.arange(6), 4)
    y = np.where(g < 3, 0, 1)
    y[[0, 23]] = [1, 0]
    data = pd.DataFrame({"g": g.astype(str), "y": y})
    result = lme4py.glmer("y ~ 1 + (1 | g)", data)
    with pytest.raises(DesignError, match="gives one answer only"):
        result.refit((g % 2).astype(int))
    boot: Any = result.bootstrap(60, seed=1)
    assert boot.n_failed > 0
    assert any("gives one answer only" in why for _, why in boot.failures)
    assert boot.replicates["sd(Intercept | g)"].dropna().lt(40).all()  # 50 and more without this look
