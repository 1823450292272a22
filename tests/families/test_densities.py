"""Densities in all their variables: against SciPy, derivatives against differences, distributions against sums."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import special, stats

from lme4py.families.densities import zeros
from lme4py.families.densities.calculus.jets import Degrees
from lme4py.families.densities.calculus.rows import partials
from lme4py.families.densities.calculus.special import (
    log1p_minus_slope,
    near_log1p_minus_slope,
    sigmoid,
    sigmoid_softplus,
    softplus,
)
from lme4py.families.densities.registry import DENSITIES, make_density, with_zeros
from lme4py.families.response import ResponseData

TRUNCATED = ("truncated_poisson", "truncated_nbinomial", "truncated_nbinomial1", "truncated_compois")
NAMES = (*DENSITIES, *TRUNCATED)
ZEROS = ("poisson", "nbinomial", "nbinomial1", "gamma", "beta", "truncated_poisson", "binomial", "betabinomial")
RNG = np.random.default_rng(3)


def response(density, n=24):
    y = {
        "real": RNG.normal(0.5, 1.0, n),
        "positive": RNG.gamma(2.0, 0.8, n),
        "proportion": RNG.uniform(0.05, 0.95, n),
        "count": RNG.poisson(2.0, n).astype(float),
        "trials": RNG.binomial(7, 0.4, n).astype(float),
    }[density.kind]
    if density.name in ("tweedie", "ordbeta"):
        y[:5] = 0.0
    if getattr(density, "lowest", 0) == 1:
        y = np.maximum(y, 1.0)
    return ResponseData(y, np.full(n, 7.0) if density.kind == "trials" else None)


def variables(density, n=24):
    x = [RNG.normal(0.3, 0.4, n)]
    for argument in density.variables[1:]:
        value = {"dispersion": 0.4, "df": 1.2, "power": 0.3, "zero_inflation": -0.5, "cut": -1.5, "width": 1.0}
        noise = RNG.normal(0.0, 0.2, n) if argument.linear else 0.0
        x.append(np.asarray(value[argument.name] + noise))
    if density.link.name in ("inverse", "1/mu^2", "identity") and density.kind != "real":
        x[0] = np.abs(x[0]) + 0.4
    return x


def all_densities():
    plain = [make_density(name) for name in NAMES]
    return [*plain, *(with_zeros(make_density(name)) for name in ZEROS), make_density("genpois", "identity")]


@pytest.mark.parametrize("density", all_densities(), ids=lambda d: f"{d.name}-{d.link.name}")
def test_derivatives_against_differences(density):
    data, x = response(density), variables(density)
    if density.name.startswith("hurdle") or density.name.startswith("zero_inflated"):
        y = data.y.copy()
        y[:6] = 0.0
        data = data.with_y(y)
    places = tuple(range(len(x)))
    found = partials(density, data, x, Degrees(3, places))
    h = 1e-4
    for index, value in found.items():
        if len(index) == 3:
            continue
        for place in places:
            up, down = (partials(density, data, [*x[:place], x[place] + s * h, *x[place + 1 :]], Degrees(2, places))
                        for s in (1.0, -1.0))  # fmt: skip
            slope = (up[index] - down[index]) / (2.0 * h)
            own = found[tuple(sorted((*index, place)))]
            # Central differences: h^2 times a fifth derivative, and rounding of 1e-15 / h.
            np.testing.assert_allclose(own, slope, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(slope).max())))
        assert np.isfinite(value).all()


@pytest.mark.parametrize("density", [d for d in all_densities() if d.takes_points], ids=lambda d: d.name)
def test_several_points_at_once_are_those_one_by_one(density):
    data, x = response(density), variables(density)
    if density.name.startswith("hurdle") or density.name.startswith("zero_inflated"):
        data = data.with_y(np.where(np.arange(24) < 6, 0.0, data.y))
    moves = np.array([[0.0], [0.05], [-0.1]])
    # What rows share is one number for each point.
    together = [part + moves for part in x]
    places = tuple(range(len(x)))
    for degrees in (Degrees(0, ()), Degrees(3, places), Degrees(3, places, places[1:], 1, 1)):
        found = partials(density, data, together, degrees)
        for b, move in enumerate(moves[:, 0]):
            own = partials(density, data, [part + move for part in x], degrees)
            for index, part in own.items():
                # The same operations on the same numbers.
                np.testing.assert_allclose(found[index][b], part, rtol=1e-13, atol=1e-300)


def test_densities_that_are_asked_at_one_point_at_a_time():
    # Their sums are tables for one value of a parameter.
    assert {d.name for d in all_densities() if not d.takes_points} == {"tweedie", "compois", "truncated_compois"}


@pytest.mark.parametrize("name", ["poisson", "nbinomial"])
@pytest.mark.parametrize("eta", [-40.0, -3.0, 0.3, 12.0])
def test_zeros_alone_are_zeros_among_others(name, eta):
    density = make_density(name)
    data, degrees = ResponseData(np.zeros(3)), Degrees(3, tuple(range(len(density.variables))))
    x = [np.full(3, eta), np.array(0.4)][: len(density.variables)]
    own, among = density.zero_jet(data, x, degrees), density.jet(data, x, degrees)
    for index in degrees.indices():
        # Two formulas of the same number; the general one rounds in the size of log mu.
        np.testing.assert_allclose(own.d(*index), among.d(*index), rtol=1e-12, atol=1e-300)


def test_zeros_of_two_kinds_from_one_end_to_the_other():
    mu, z = (part.ravel() for part in np.meshgrid([1e-12, 1e-3, 0.5, 3.0, 30.0, 600.0, 800.0, 5e3],
                                                  [-800.0, -690.0, -30.0, -2.0, 0.3, 4.0, 40.0]))  # fmt: skip
    density = with_zeros(make_density("poisson"))
    found = density.loglik(ResponseData(np.zeros(mu.size)), [np.log(mu), z])
    near = special.expit(-z) * -np.expm1(-mu)
    # log1p where little is taken from one, and the sum of two probabilities where much is.
    few = np.log1p(-np.minimum(near, 0.5))
    expected = np.where(near < 0.5, few, np.logaddexp(special.log_expit(z), special.log_expit(-z) - mu))
    # A sum of positive numbers loses no digits; a logarithm near -0.69 keeps them.
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("density", [d for d in all_densities() if d.log_concave], ids=lambda d: d.name)
def test_log_concave_families_are(density):
    x = [RNG.normal(0.0, 2.0, 200) for _ in density.variables]
    data = response(density, 200)
    found = partials(density, data, x, Degrees(2, tuple(range(len(x)))))
    H = np.array([[found[tuple(sorted((i, j)))] for j in range(len(x))] for i in range(len(x))])
    # Zeros of a hurdle model say nothing of the counts: a curvature of zero.
    assert (np.linalg.eigvalsh(np.moveaxis(H, 2, 0)) < 1e-12).all()


def reference(name, y, mu, d, rest):
    """Log-densities in SciPy's words; d is the dispersion on its natural scale."""
    return {
        "beta": lambda: stats.beta.logpdf(y, mu * d, (1 - mu) * d),
        "betabinomial": lambda: stats.betabinom.logpmf(y, 7, mu * d, (1 - mu) * d),
        "lognormal": lambda: stats.lognorm.logpdf(y, d, scale=mu * np.exp(-0.5 * d * d)),
        "t": lambda: stats.t.logpdf(y, rest, mu, d),
        "gamma": lambda: stats.gamma.logpdf(y, d, scale=mu / d),
        "nbinomial": lambda: stats.nbinom.logpmf(y, d, d / (d + mu)),
        "nbinomial1": lambda: stats.nbinom.logpmf(y, mu / d, 1.0 / (1.0 + d)),
        "poisson": lambda: stats.poisson.logpmf(y, mu),
        "truncated_poisson": lambda: stats.poisson.logpmf(y, mu) - np.log1p(-np.exp(-mu)),
        "truncated_nbinomial": lambda: stats.nbinom.logpmf(y, d, d / (d + mu)) - np.log1p(-((d / (d + mu)) ** d)),
    }[name]()


SCIPY = ("beta", "betabinomial", "lognormal", "t", "gamma", "nbinomial", "nbinomial1", "poisson")


@pytest.mark.parametrize("name", [*SCIPY, "truncated_poisson", "truncated_nbinomial"])
def test_log_densities_against_scipy(name):
    density = make_density(name)
    data, x = response(density), variables(density)
    dispersion = np.exp(x[1]) if len(x) > 1 else None
    rest = np.exp(x[2]) if len(x) > 2 else None
    expected = reference(name, data.y, density.link.mean(x[0]), dispersion, rest)
    # Both to rounding; log gamma functions of SciPy lose some digits.
    np.testing.assert_allclose(density.loglik(data, x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["compois", "genpois", "truncated_compois", "truncated_nbinomial1", "betabinomial"])
def test_probabilities_add_up_and_have_the_moments(name):
    density = make_density(name)
    lowest = getattr(density, "lowest", 0)
    counts = np.arange(lowest, 8 if density.kind == "trials" else 400, dtype=float)
    data = ResponseData(counts, np.full(counts.size, 7.0) if density.kind == "trials" else None)
    x = [np.array([0.4]), *(np.array(v) for v in (0.3, 0.2)[: len(density.variables) - 1])]
    p = np.exp(density.loglik(data, x))
    one = data.take(np.arange(1))
    scale = 7.0 if density.kind == "trials" else 1.0
    # Sums of 400 rounded terms.
    assert p.sum() == pytest.approx(1.0, abs=1e-10)
    assert p @ counts == pytest.approx(scale * density.mean(x, one).item(), rel=1e-9)
    assert p @ counts**2 - (p @ counts) ** 2 == pytest.approx(density.variance(x, one).item(), rel=1e-8)
    inside = counts[:6]
    rows = data.take(np.arange(inside.size))
    np.testing.assert_allclose(density.cdf(inside, x, rows), np.cumsum(p)[: inside.size], rtol=1e-9)


def test_a_tweedie_density_is_a_sum_over_the_number_of_amounts():
    density = make_density("tweedie")
    mu, phi, power = 1.7, 1.3, 1.4
    y = np.array([0.0, 0.3, 1.0, 4.0, 11.0])
    rate, shape, scale = (
        mu ** (2 - power) / (phi * (2 - power)),
        (2 - power) / (power - 1),
        phi * (power - 1) * mu ** (power - 1),
    )
    j = np.arange(1, 120)
    terms = stats.poisson.pmf(j, rate) * stats.gamma.pdf(y[1:, None], j * shape, scale=scale)
    expected = np.concatenate([[-rate], np.log(terms.sum(axis=1))])
    x = [np.full(5, np.log(mu)), np.array(np.log(phi)), np.array(np.log((power - 1) / (2 - power)))]
    # 119 terms hold everything that counts.
    np.testing.assert_allclose(density.loglik(ResponseData(y), x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["beta", "lognormal", "t", "tweedie", "betabinomial", "compois", "genpois"])
def test_simulated_responses_have_the_moments(name):
    density, n = make_density(name), 40_000
    data = ResponseData(np.zeros(n), np.full(n, 7.0) if density.kind == "trials" else None)
    x = [np.full(n, 0.2), *(np.array(v) for v in (0.1, 2.5)[: len(density.variables) - 1])]
    y = density.simulate(x, data, np.random.default_rng(5))
    mean = density.mean(x, data)[0] * (7.0 if density.kind == "trials" else 1.0)
    variance = float(np.broadcast_to(density.variance(x, data), n)[0])
    # Four standard errors; a variance of heavy tails is known to some percent.
    assert y.mean() == pytest.approx(mean, abs=4.0 * np.sqrt(variance / n))
    assert y.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("dispersion", [-0.5, 0.4, 1.5])
@pytest.mark.parametrize("name", ["poisson", "nbinomial", "nbinomial1", "compois", "genpois", "truncated_compois"])
def test_draws_are_quantiles(name, dispersion):
    """Those of the first counts, of blocks after them, and of counts that are looked for from the mean."""
    density, n = make_density(name), 60
    data = ResponseData(np.ones(n))
    x = [np.log(np.resize([0.02, 1.0, 9.0, 60.0, 400.0], n)), *[np.array(dispersion)] * (len(density.variables) - 1)]
    u = np.random.default_rng(2).uniform(0.0005, 0.9995, n)
    np.testing.assert_array_equal(density.inverse(u, x, data), density.quantile(u, x, data))


@pytest.mark.parametrize("name", ["compois", "truncated_compois"])
def test_conway_maxwell_counts_tend_to_geometric_ones(name):
    y = np.array([1.0, 2.0, 5.0, 30.0, 100.0])
    data = ResponseData(y)
    density = make_density(name)
    limit = density.without_dispersion
    for mean in (0.1, 1.0, 8.0, 150.0):
        eta = np.full(y.size, np.log(mean))
        found = partials(density, data, [eta, np.array(30.0)], Degrees(3, (0, 1)))
        exact = partials(limit, data, [eta], Degrees(3, (0,)))
        for index, part in exact.items():
            # nu = e^-30 leaves about nu y log y.
            np.testing.assert_allclose(found[index], part, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[1,], 0.0, atol=1e-9)
    if name == "compois":
        np.testing.assert_allclose(np.exp(exact[()]), stats.nbinom.pmf(y, 1, 1 / 151.0), rtol=1e-12)
        np.testing.assert_allclose(limit.cdf(y, [eta], data), stats.nbinom.cdf(y, 1, 1 / 151.0), rtol=1e-12)
        np.testing.assert_allclose(limit.sf(y, [eta], data), stats.nbinom.sf(y, 1, 1 / 151.0), rtol=1e-12)
        np.testing.assert_allclose(limit.variance([eta]), 150.0 * 151.0, rtol=1e-12)


def test_rows_of_one_point_are_those_without_points():
    """The points of a Hessian come together; the last may be alone, and ended in an error of negative binomials."""
    density, y = make_density("nbinomial"), np.array([0.0, 3.0, 1.0, 7.0])
    data, eta, degrees = ResponseData(y), np.array([0.1, 0.9, -0.3, 1.2]), Degrees(3, (0, 1))
    together = density.jet(data, [eta[None], np.array([[0.4]])], degrees)
    alone = density.jet(data, [eta, np.array(0.4)], degrees)
    for index in degrees.indices():
        np.testing.assert_array_equal(np.broadcast_to(together.parts[index], (1, 4))[0], alone.d(*index))


def test_functions_of_the_logit_are_kept_while_only_the_mean_changes(monkeypatch):
    density = with_zeros(make_density("poisson"))
    data = ResponseData(np.array([0.0, 1.0, 0.0, 4.0]))
    z, eta = np.array([-1.0, 0.5, 2.0, 0.0]), np.zeros(4)
    asked = []
    monkeypatch.setattr(zeros, "_FEW", 4)
    monkeypatch.setattr(zeros, "sigmoid", lambda x: asked.append(x.tolist()) or sigmoid(x))
    degrees = Degrees(1, (0,))
    for shift in (0.0, 0.3):
        partials(density, data, [eta + shift, z.copy()], degrees)
    # Once for the probability of the zeros, and once at each predictor.
    assert asked.count([-1.0, 2.0]) == 1
    assert len(asked) == 3
    moved = partials(density, data, [eta, z + 2.5], degrees)
    again = partials(density, ResponseData(data.y), [eta, z + 2.5], degrees)
    np.testing.assert_array_equal(moved[()], again[()])
    assert asked.count([1.5, 4.5]) == 2


@pytest.mark.parametrize("x", [-800.0, -740.0, -30.0, -0.3, 0.0, 1e-9, 0.3, 30.0, 740.0, 800.0])
def test_both_sides_of_the_logistic_function_are_accurate(x):
    with localcontext(prec=400):
        e = Decimal(x).exp()
        known = [float(part) for part in (e / (1 + e), 1 / (1 + e), (1 + e).ln())]
    found = sigmoid_softplus(np.array([x]))
    # A few roundings; numbers below 1e-308 have fewer digits.
    np.testing.assert_allclose(np.ravel(found), known, rtol=1e-15, atol=1e-322)
    np.testing.assert_array_equal(found[:2], sigmoid(np.array([x])))
    np.testing.assert_allclose(softplus(np.array([x])), known[2:], rtol=1e-15, atol=1e-322)


def test_a_logarithm_less_its_slope_near_zero():
    x = np.array([-0.249, -1e-3, -1e-9, 1e-12, 1e-5, 0.1, 0.249])
    with localcontext(prec=60):
        known = [float((1 + Decimal(v)).ln() - Decimal(v) / (1 + Decimal(v))) for v in x.tolist()]
    # A few roundings.
    np.testing.assert_allclose(near_log1p_minus_slope(x), known, rtol=1e-15)
    np.testing.assert_array_equal(log1p_minus_slope(x), near_log1p_minus_slope(x))
