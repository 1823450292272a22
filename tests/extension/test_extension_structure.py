"""A covariance structure that is defined elsewhere, not linear in theta, goes through everything.

Independent effects of k occasions whose standard deviations grow or fall by a ratio, s exp(r i): two theta for
any k, neither T nor Sigma linear in them. Everything else comes from the defaults of `CovarianceStructure`.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import lme4py
from lme4py.covariance import CovarianceStructure, NaturalParameter, register
from lme4py.covariance.jets import Jet
from lme4py.errors import Lme4Error
from lme4py.report.page.page import report_html

N, K = 40, 4


@register
class Growing(CovarianceStructure):
    """sd_i = theta_0 exp(theta_1 i)."""

    name: ClassVar[str] = "growing"
    title: ClassVar[str] = "Growing"
    column_changes: ClassVar[str] = "common"  # type: ignore[assignment]
    separable: ClassVar[bool] = True

    @property
    def theta_names(self) -> tuple[str, ...]:
        return ("sd", "rate")[: self.size]

    @property
    def has_correlations(self) -> bool:
        return False

    def _grown(self, theta: np.ndarray) -> np.ndarray:
        return np.exp(theta[1] * np.arange(self.size)) if self.size > 1 else np.ones(1)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        return np.diag(theta[0] * self._grown(theta))

    def tangents(self, theta: np.ndarray) -> np.ndarray:
        i, grown = np.arange(self.size), self._grown(theta)
        return np.array([np.diag(grown), np.diag(theta[0] * i * grown)])[: self.n_theta]

    def second_tangents(self, theta: np.ndarray) -> np.ndarray:
        i, grown = np.arange(self.size), self._grown(theta)
        mixed, own = np.diag(i * grown), np.diag(theta[0] * i**2 * grown)
        whole = np.array([[np.zeros_like(own), mixed], [mixed, own]])
        return whole[: self.n_theta, : self.n_theta]

    def initial(self) -> np.ndarray:
        return np.array([1.0, 0.0])[: self.n_theta]

    def edges(self, theta: np.ndarray) -> np.ndarray:
        return np.array([0.0, np.nan])[: self.n_theta]

    def edge_sizes(self, theta: np.ndarray) -> np.ndarray:
        return np.array([abs(theta[0]), np.inf])[: self.n_theta]

    def canonical(self, theta: np.ndarray) -> np.ndarray:
        return np.concatenate([np.abs(theta[:1]), theta[1:]])

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        sd = NaturalParameter("sd", "sd", (), 0.0, np.inf, relative=True)
        return (sd, NaturalParameter("theta", "rate", (), -np.inf, np.inf))[: self.n_theta]

    def natural_derivatives(self, theta: np.ndarray, order: int = 2) -> Jet:
        m = theta.size
        first = np.diag([np.sign(theta[0]) or 1.0, *([1.0] * (m - 1))])
        return Jet.of(np.concatenate([np.abs(theta[:1]), theta[1:]]), first, np.zeros((m, m, m)), order)


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(N), 2 * K), np.tile(np.repeat(np.arange(K), 2), N)
    b = rng.normal(size=(N, K)) * 0.8 * np.exp(0.3 * np.arange(K))
    x = rng.normal(size=g.size)
    eta = 0.5 * x + b[g, t]
    frame = pd.DataFrame({"g": g, "t": pd.Categorical([f"t{i}" for i in t]), "x": x})
    frame["y"] = eta + 0.7 * rng.normal(size=g.size)
    frame["count"] = rng.poisson(np.exp(0.5 * eta))
    frame["grade"] = pd.Categorical(np.digitize(eta + rng.logistic(size=g.size), [-1.0, 1.0]), ordered=True)
    return frame


DATA = _data()
RANDOM = "growing(0 + t | g)"


@pytest.fixture(scope="module")
def linear() -> Any:
    return lme4py.lmer(f"y ~ x + {RANDOM}", DATA)


def dense(theta: np.ndarray, reml: bool = True) -> float:
    """The criterion by dense algebra; theta are the standard deviation, the rate and log sigma."""
    X, y = np.column_stack([np.ones(len(DATA)), DATA["x"]]), DATA["y"].to_numpy()
    codes, t = DATA["g"].to_numpy(), DATA["t"].cat.codes.to_numpy()
    sd = theta[0] * np.exp(theta[1] * t)
    same = (codes[:, None] == codes) & (t[:, None] == t)
    V = np.where(same, sd[:, None] * sd, 0.0) + np.exp(2.0 * theta[2]) * np.eye(len(DATA))
    inverse = np.linalg.inv(V)
    XVX = X.T @ inverse @ X
    r = y - X @ np.linalg.solve(XVX, X.T @ inverse @ y)
    n, p = X.shape
    value = np.linalg.slogdet(V)[1] + r @ inverse @ r + (n - p if reml else n) * np.log(2.0 * np.pi)
    return float(value + (np.linalg.slogdet(XVX)[1] if reml else 0.0))


def test_the_fit_is_the_minimum_of_the_dense_criterion(linear: Any) -> None:
    parts = linear.variance_components
    own = np.array([np.sqrt(parts["var(growing)"]), parts["rate(growing)"], np.log(linear.sigma)])
    # Both are the same sums; rounding of 320 rows.
    assert dense(own) == pytest.approx(linear.fit.criterion, abs=1e-7)
    found = optimize.minimize(dense, own, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10})
    assert found.fun >= linear.fit.criterion - 1e-8
    assert linear.converged
    limits = linear.conf_int(method="profile", parm=["sd(growing | g)"])
    # At a limit the likelihood is a chi-squared quantile below its maximum; the profile is interpolated to 1e-5 of it.
    ml = lme4py.lmer(f"y ~ x + {RANDOM}", DATA, reml=False)
    for limit in ml.conf_int(method="profile", parm=["sd(growing | g)"]).iloc[0]:

        def held(rest: np.ndarray, limit: float = limit) -> float:
            return dense(np.array([limit, *rest]), reml=False)

        low = optimize.minimize(held, own[1:], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-9}).fun
        assert low - ml.deviance == pytest.approx(3.841458821, abs=1e-3)
    assert (limits.loc["sd(growing | g)", "lower"] < own[0]) & (own[0] < limits.loc["sd(growing | g)", "upper"])


def test_gradients_are_those_of_differences() -> None:
    criterion = lme4py.lmm_criterion(lme4py.lformula(f"y ~ x + {RANDOM}", DATA))
    theta, h = np.array([1.2, 0.25]), 1e-6 * np.eye(2)
    numeric = [(criterion(theta + s) - criterion(theta - s)) / 2e-6 for s in h]
    # Central differences of a value of 1e3: 1e-13 * 1e3 / 1e-6.
    np.testing.assert_allclose(criterion.gradient(theta), numeric, atol=1e-4)


METHODS: dict[str, Callable[[Any], Any]] = {
    "summary": lambda m: str(m.summary()),
    "var_corr": lambda m: m.var_corr(),
    "tidy": lambda m: m.tidy(),
    "glance": lambda m: m.glance(),
    "conf_int": lambda m: m.conf_int(parm="all"),
    "coef_table": lambda m: m.coef_table(),
    "bootstrap": lambda m: m.bootstrap(3, seed=1).replicates,
    "predict": lambda m: m.predict(DATA.head(5)),
    "integrate": lambda m: m.predict(DATA.head(5), include_random="integrate"),
    "confidence": lambda m: m.predict(DATA.head(5), interval="confidence"),
    "simulate": lambda m: m.simulate(2, seed=1),
    "ranef": lambda m: m.ranef(conditional_se=True),
    "ranef_data": lambda m: m.ranef(data=DATA.head(8)),
    "ranef_cov": lambda m: m.ranef_cov(),
    "all_parameters": lambda m: m.cov_params(parm="all"),
    "standardised": lambda m: m.ranef(standardised=True),
    "random_part": lambda m: m.predict(include_fixed=False, type="linear"),
    "given": lambda m: m.predict(DATA.head(5), given=DATA.head(8), type="linear"),
    "other_rows": lambda m: m.simulate(2, seed=1, data=DATA.head(8), params={"beta": {"x": 0.2}}),
    "power": lambda m: lme4py.power(m, "x", n_sim=2, seed=1).replicates,
    "extend": lambda m: lme4py.extend(m, within="g", n=12).simulate(1, seed=1),
    "ranova": lambda m: m.ranova(),
    "robust": lambda m: m.coef_table(vcov="CR0"),
    "slim": lambda m: m.slim(),
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "repr": lambda m: m._repr_html_(),
    "r_squared": lambda m: m.r_squared(),
    "influence": lambda m: m.influence(),
    "caterpillar": lambda m: m.plot("caterpillar"),
    "report": lambda m: report_html(m.fit, m.summary().tables),
}


@pytest.mark.parametrize("what", [*METHODS, "kenward-roger", "profile"])
def test_linear_models(linear: Any, what: str) -> None:
    if what == "kenward-roger":
        assert np.isfinite(linear.coef_table("kenward-roger").to_numpy()).all()
    elif what == "profile":
        assert np.isfinite(linear.conf_int(method="profile", parm="random").to_numpy()).all()
    else:
        _passes_or_is_refused(METHODS[what], linear)


@pytest.mark.parametrize("kind", ["poisson", "ordinal"])
def test_generalised_models(kind: str) -> None:
    if kind == "poisson":
        m = lme4py.glmer(f"count ~ x + {RANDOM}", DATA, family="poisson")
    else:
        m = lme4py.clmm(f"grade ~ x + {RANDOM}", DATA)
    assert m.converged
    phi = m.fit.phi
    assert np.isfinite(phi).all()
    for what in METHODS:
        if what != "bootstrap" or kind == "poisson":
            _passes_or_is_refused(METHODS[what], m)


def _passes_or_is_refused(method: Callable[[Any], Any], m: Any) -> None:
    """A method gives something, or says by name what it cannot do; it never stumbles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = method(m)
        except Lme4Error as error:
            found = str(error)
    assert found is not None
    assert not (isinstance(found, str) and not found)


def test_margins(linear: Any) -> None:
    done = lme4py.Margins.linear_scale(linear, random="integrate").dydx(["x"])
    # The slope of a linear model is its coefficient.
    assert done.to_frame()["estimate"].iloc[0] == pytest.approx(linear.params["x"], rel=1e-12)


def test_tests_know_it(linear: Any) -> None:
    same = lme4py.lmer("y ~ x + id(0 + t | g)", DATA)
    assert not same.fit.design.terms[0].structure.nested_in(linear.fit.design.terms[0].structure)
    with pytest.raises(Lme4Error, match="not nested"):
        lme4py.lrtest(same, linear)
    free = lme4py.lmer("y ~ x + (0 + t | g)", DATA)
    test = lme4py.lrtest(linear, free)
    assert test.df == 8
