"""Derivatives: of every function of the formula language, and of estimands in the parameters."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from margins_models import binary_data, binary_fit

from lme4py import Margins, all_pairwise, lmer
from lme4py.margins.estimands.grids import Parameters
from lme4py.margins.models.adapter import ModelAdapter
from lme4py.margins.models.own import OwnAdapter

EXPRESSIONS = [
    "x",
    "x * t",
    "I(x^2) + I(x^3):w",
    "log(x)",
    "log(x, 2) + log2(x) + log10(x) + log1p(x)",
    "exp(x) + expm1(-x)",
    "sqrt(x) + I(1 / x)",
    "I((x - mean(x)) / sd(x))",
    "poly(x, 3)",
    "poly(x, 3, raw = TRUE)",
    "poly(log(x), 2) * t",
    "ns(x, df = 4)",
    "bs(x, df = 5) * t",
    "ns(sqrt(x), df = 3):w",
    "scale(x) + center(x):w",
    "sin(x) + cos(x) + tan(x / 4)",
    "asin(x / 9) + acos(x / 8) + atan(x)",
    "sinh(x) + cosh(x / 2) + tanh(x)",
    "plogis(x) + pnorm(x, 1, 2) + qlogis(x / 9) + qnorm(x / 9)",
    "pmin(x, w) + pmax(x, w)",
    "ifelse(w > 1, x, 2 * x)",
    "I(w^x) + I(x^w)",
    "I(-x + 2 * x / (1 + x)) + abs(x - 2)",
    "cut(x, c(0, 2, 9)) + x + I(x > 2):x + round(x)",
    "I(x %% 2) + x",
    "cbind(x, w * x)",
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(11)
    n = 120
    return pd.DataFrame(
        {
            "x": rng.uniform(0.6, 4.4, n),
            "w": rng.uniform(0.5, 2.5, n),
            "t": rng.choice(["a", "b"], n),
            "g": rng.integers(0, 8, n),
            "y": rng.normal(size=n),
        }
    )


@pytest.mark.filterwarnings("ignore::lme4py.RankWarning")  # logarithms of two bases are one column
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_slopes_of_the_design(data, expression):
    # Points on a jump or a knot have no derivative; none of these is one.
    fit = lmer(f"y ~ {expression} + (1 | g)", data)
    adapter = OwnAdapter(fit.fit)
    session = Margins.linear_scale(fit)
    frame = session.rows.population(()).frame
    exact = adapter.slopes(frame, "x", "zero").X
    step = 1e-5

    def design(steps):
        moved = data.assign(x=data["x"] + steps * step)
        return session.adapter.rows(Margins.linear_scale(fit, at=moved).rows.population(()).frame, "zero").X

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a step beyond the boundary knots of a spline
        difference = (design(1) - design(-1)) / (2 * step)
    # Second-order differences: about 1e-9 where nothing jumps.
    inside = (data["x"] > data["x"].min() + 0.01) & (data["x"] < data["x"].max() - 0.01)
    np.testing.assert_allclose(exact[inside], difference[inside], rtol=2e-6, atol=2e-6)


def test_slopes_by_default_are_differences(data):
    fit = lmer("y ~ bs(x, df = 5) * t + log(x) + (1 | g)", data)
    adapter = OwnAdapter(fit.fit)
    frame = Margins.linear_scale(fit).rows.population(()).frame
    by_default = ModelAdapter.slopes(adapter, frame, "x", "zero")
    # Fourth-order differences over pieces of a cubic spline; a knot within a step costs some digits.
    np.testing.assert_allclose(by_default.X, adapter.slopes(frame, "x", "zero").X, atol=1e-4)


def test_functions_of_the_user_are_differenced(data):
    fit = lmer("y ~ cube(x) + (1 | g)", data, functions={"cube": lambda x: x**3})
    result = Margins.linear_scale(fit).dydx("x")
    expected = fit.params["cube(x)"] * 3 * np.mean(data["x"] ** 2)
    # Differences of fourth order are exact for a cubic but for rounding.
    np.testing.assert_allclose(result.estimate, [expected], rtol=1e-9)


REQUESTS = {
    "dydx": lambda m: m.dydx(["x", "z"]),
    "eyex": lambda m: m.eyex(["x", "z"]),
    "eydx": lambda m: m.eydx(["x", "z", "t"]),
    "dyex": lambda m: m.dyex(["x", "z"]),
    "predict": lambda m: m.predict(atexog={"t": ["a", "c"], "x": [0.0, 1.0]}),
    "contrasts": lambda m: m.contrasts(all_pairwise("t")),
    "evaluate": lambda m: m.evaluate([{"t": "a"}, {"t": "b"}], lambda a, b: a / b),
}


@pytest.mark.parametrize(
    ("link", "random", "scale", "at"),
    [
        ("logit", "zero", Margins.linear_scale, "overall"),
        ("logit", "zero", Margins.log_scale, "mean"),
        ("logit", "integrate", Margins.linear_scale, "mean"),
        ("logit", "integrate", Margins.logit_scale, "overall"),
        ("probit", "zero", Margins.logit_scale, "mean"),
        ("probit", "integrate", Margins.linear_scale, "overall"),
        ("probit", "integrate", Margins.log_scale, "mean"),
        ("cloglog", "zero", Margins.linear_scale, "mean"),
        ("cloglog", "integrate", Margins.log_scale, "mean"),
    ],
)
def test_gradients_in_all_parameters(link, random, scale, at):
    # Sixty rows have every kind of value; averages over more are sums of the same functions.
    session = scale(binary_fit(link), random=random, at=binary_data().head(60) if at == "overall" else at)
    for name, request in REQUESTS.items():
        estimand = _captured(session, request)
        start = session._inference.estimates
        exact = estimand(start, True)[1]
        by_difference = _differences(estimand, start, exact.shape[1])
        # Fourth-order differences with a step of 1e-3.
        gap = np.abs(exact - by_difference).max() / np.abs(by_difference).max()
        assert gap < 1e-8, (name, gap)


def _captured(session, request):
    held = []
    apply = session._inference.apply

    def keep(estimand, curved):
        held.append(estimand)
        return apply(estimand, curved)

    session._inference.apply = keep
    try:
        request(session)
    finally:
        session._inference.apply = apply
    return held[0]


def _differences(estimand, start, size):
    whole, p, h = np.concatenate([start.beta, start.theta]), start.beta.size, 1e-3
    columns = []
    for j in range(size):

        def at(steps, j=j):
            moved = whole.copy()
            moved[j] += steps * h
            return estimand(Parameters(moved[:p], moved[p:]), False)[0]

        columns.append((at(-2) - 8 * at(-1) + 8 * at(1) - at(2)) / (12 * h))
    return np.stack(columns, axis=1)
