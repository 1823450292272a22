"""Generalised and ordinal models with a term of many times: the sparse inverse against blocks of all times.

Expected values: the same model with dense blocks, which `LONG` chooses; differences.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import lformula
from lme4py.covariance import CovarianceStructures, make_structure
from lme4py.engine.factor import chain_terms
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.forecast import tell_blocks
from lme4py.engine.generalised.laplace import laplace
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.errors import Lme4Warning, OptionError
from lme4py.families.registry import make_family
from lme4py.fits.generalised.criterion import glmm_criterion
from lme4py.fits.kinds import model_of
from lme4py.inference.prediction.between import Interpolation

GROUPS, TIMES = 7, 10


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Unbalanced groups with times missing, an offset and numbers of trials."""
    rng = np.random.default_rng(2)
    steps = rng.standard_normal((GROUPS, TIMES))
    b = np.zeros((GROUPS, TIMES))
    for t in range(TIMES):
        b[:, t] = steps[:, t] if t == 0 else 0.8 * b[:, t - 1] + 0.6 * steps[:, t]
    kept = rng.random(GROUPS * TIMES) > 0.25
    t, g = np.tile(np.arange(TIMES), GROUPS)[kept], np.repeat(np.arange(GROUPS), TIMES)[kept]
    x = rng.standard_normal(t.size)
    eta = 0.5 + 0.3 * x + 0.6 * b.ravel()[kept]
    trials = rng.integers(1, 6, t.size)
    return pd.DataFrame(
        {
            "x": x,
            "f": [f"t{i:02d}" for i in t],
            "u": t**1.1,
            "g": g,
            "h": rng.integers(0, 5, t.size),
            "off": np.linspace(-0.3, 0.3, t.size),
            "y": rng.poisson(np.exp(eta)),
            "p": rng.gamma(3.0, np.exp(eta) / 3.0) + 1e-3,
            "trials": trials,
            "s": rng.binomial(trials, 1.0 / (1.0 + np.exp(-eta))),
            "o": np.clip(np.round(1.5 + eta + rng.logistic(size=t.size)), 0, 3).astype(int),
        }
    )


@pytest.fixture
def short(monkeypatch):
    """Few times are many."""
    monkeypatch.setattr(chain_terms, "LONG", 5)


CASES = [
    ("y ~ x + offset(off) + ar1(0 + f | g)", "poisson", "log", "observed"),
    ("y ~ x + ou(numFactor(u) + 0 | g) + (x | h)", "negative_binomial", "log", "observed"),
    ("cbind(s, trials - s) ~ x + ar1(0 + f | g) + (1 | h)", "binomial", "probit", "expected"),
    ("p ~ x + ar1(0 + f | g)", "gamma", "log", "observed"),
    ("p ~ x + ou(numFactor(u) + 0 | g)", "gamma", "log", "expected"),
]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("formula", "family", "link", "hessian"), CASES)
def test_value_and_gradient_are_those_of_dense_blocks(data, formula, family, link, hessian):
    design = lformula(formula, data, family=family)
    criterion = glmm_criterion(design, make_family(family, link), nAGQ=1, hessian=hessian)
    chained = criterion.finder.problem
    dense = make_glmm(design, criterion.family, criterion.data, hessian == "expected", chains=False)
    assert chained.chain is not None
    assert dense.chain is None
    rng = np.random.default_rng(5)
    sizes = (chained.n_theta, chained.n_fixed, chained.n_nuisance)
    for _ in range(2):
        theta = chained.structures.initial() + rng.normal(0.0, 0.4, sizes[0])
        phi = np.concatenate([theta, rng.normal(0.0, 0.3, sizes[1]), rng.normal(-0.3, 0.2, sizes[2])])
        first, second = (_at(problem, phi) for problem in (chained, dense))
        # Both modes are found until a Newton step would lower -2 log f by 1e-15.
        assert first.value == pytest.approx(second.value, abs=1e-9)
        assert first.gradient == pytest.approx(second.gradient, rel=1e-7, abs=1e-7)


def _at(problem, phi):
    finder, (theta, beta, lam) = ModeFinder(problem), problem.split(phi)
    return laplace(finder, finder.find(theta, beta, lam, np.zeros(sum(f.size for f in problem.factors))))


@pytest.mark.usefixtures("short")
def test_the_gradient_holds_at_no_variance_and_near_a_correlation_of_one(data):
    design = lformula("y ~ x + ar1(0 + f | g)", data, family="poisson")
    problem = glmm_criterion(design, make_family("poisson"), nAGQ=1).finder.problem
    for theta in ([0.0, 0.4], [0.6, 0.5 * np.pi - 0.05]):
        phi, step = np.array([*theta, 0.4, 0.2]), 1e-5
        found = _at(problem, phi).gradient
        for i, move in enumerate(step * np.eye(4)):
            slope = (_at(problem, phi + move).value - _at(problem, phi - move).value) / (2.0 * step)
            # A central difference of values that are good to 1e-12.
            assert found[i] == pytest.approx(slope, abs=2e-6)


def _pair(make, monkeypatch):
    """A fit by the sparse inverse and one by dense blocks."""
    found = []
    for long in (5, 10**6):
        monkeypatch.setattr(chain_terms, "LONG", long)
        found.append(make())
    assert found[0].fit.problem.chain is not None
    assert found[1].fit.problem.chain is None
    return found


def test_all_that_a_poisson_fit_says(data, monkeypatch):
    made = _pair(lambda: lme4py.glmer("y ~ x + ar1(0 + f | g) + (1 | h)", data, family="poisson"), monkeypatch)
    new = pd.DataFrame({"x": 0.1, "f": ["t03", "t00", "t09"], "g": [0, 1, 2], "h": [1, 2, 3]})

    def numbers(fit):
        own = model_of(fit.fit)
        blocks = [*own.conditional_covariances(), *own.conditional_covariances(include_fixed=True)]
        return {
            "estimates": [fit.log_likelihood, *fit.fit.beta, *fit.fit.theta],
            "errors": np.sqrt(np.diag(fit.fit.parameter_vcov)),
            "modes": np.concatenate([b.ravel() for b in fit.fit.modes]),
            "conditional": np.concatenate([b.ravel() for b in blocks]),
            "predictions": fit.predict(new, interval="confidence").to_numpy(),
            "leverage": np.asarray(fit.hatvalues()),
            "simulated": np.asarray(fit.simulate(1, seed=1), dtype=float),
            "bootstrap": fit.conf_int(method="boot", n_boot=2, seed=2).to_numpy(),
            "slim": np.asarray(fit.slim().predict(new)),
        }

    chained, dense = (numbers(fit) for fit in made)
    for name, values in dense.items():
        # Both optima are good to about 1e-6 of a standard error.
        assert np.asarray(chained[name]) == pytest.approx(np.asarray(values), rel=2e-5, abs=2e-5), name


def test_profile_and_robust_errors_of_an_ordinal_model(data, monkeypatch):
    chained, dense = _pair(lambda: lme4py.clmm("o ~ x + ar1(0 + f | g)", data), monkeypatch)
    assert chained.log_likelihood == pytest.approx(dense.log_likelihood, abs=1e-8)
    names = ["sd(ar1 | g)", "x"]
    limits = [fit.profile(names, alpha=0.2).conf_int(alpha=0.2).to_numpy() for fit in (chained, dense)]
    # A limit is where the signed root is met to 1e-7.
    assert limits[0] == pytest.approx(limits[1], abs=1e-5)
    robust = [fit.coef_table(vcov="CR0").to_numpy(float) for fit in (chained, dense)]
    assert robust[0] == pytest.approx(robust[1], rel=2e-5, abs=2e-5)  # as good as the optima


@pytest.mark.usefixtures("short")
def test_quadrature_is_refused_by_name(data):
    with pytest.raises(OptionError, match=r"ar1\(\) has one for each of 10 times"):
        lme4py.glmer("y ~ x + ar1(0 + f | g)", data, family="poisson", nAGQ=7)


def test_a_time_between_many_others_has_weights_on_its_neighbours_alone():
    times = np.sort(np.random.default_rng(1).uniform(0.0, 10.0, 200))
    ou = make_structure("ou", times.size, times)
    theta = ou.theta_of_natural(np.array([1.0, 30.0]))
    design = SimpleNamespace(terms=(SimpleNamespace(structure=ou),), structures=CovarianceStructures((ou,)))
    fit = SimpleNamespace(design=design, theta=theta, covariances=(ou.covariance(theta),))
    half = 0.5 * (times[100] - times[99])
    (row,) = Interpolation(fit, 0)(np.array([times[99] + half]))
    assert np.flatnonzero(row).tolist() == [99, 100]
    # In the middle of two times: one correlation over one plus that between them.
    weight = np.exp(-half / 30.0) / (1.0 + np.exp(-2.0 * half / 30.0))
    assert row[[99, 100]] == pytest.approx([weight, weight], rel=1e-9)


def test_blocks_that_take_minutes_are_told():
    with pytest.warns(Lme4Warning, match=r"g take 50 blocks of 500 x 500 .* about 3 minutes"):
        tell_blocks((Factor("g", 50, 500, (0,), (slice(None),)),))
    tell_blocks((Factor("g", 100_000, 3, (0,), (slice(None),)),))
