"""Ordered categories beyond proportional odds: probabilities by their definitions, derivatives by differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lme4py.errors import OptionError
from lme4py.families.nuisance import as_columns
from lme4py.families.ordered.ordinal_parts import OrdinalParts, make_ordinal_parts
from lme4py.families.response import PartRows, ResponseData

RNG = np.random.default_rng(1)
N, K = 40, 4
W, Z = RNG.standard_normal((N, 2)), RNG.standard_normal((N, 1))
DATA = ResponseData(
    RNG.integers(0, K, N).astype(float),
    weights=RNG.uniform(0.5, 2.0, N),
    parts=(PartRows("nominal", W), PartRows("scale", Z, RNG.uniform(-0.2, 0.2, N))),
)
CASES = [
    ("cumulative", "logit", "flexible"),
    ("cumulative", "probit", "equidistant"),
    ("cumulative", "cloglog", "flexible"),
    ("cumulative", "loglog", "symmetric"),
    ("sequential", "logit", "flexible"),
    ("sequential", "cloglog", "flexible"),
    ("adjacent", "logit", "flexible"),
]


def family(structure: str, link: str, threshold: str) -> OrdinalParts:
    made = make_ordinal_parts(link, threshold, K, structure, ("a", "b"), ("c",))
    assert isinstance(made, OrdinalParts)
    return made


def parameters(own: OrdinalParts) -> np.ndarray:
    gamma = own.parameters(np.array([-1.0, 0.1, 1.2]))
    return np.concatenate([0.05 * RNG.standard_normal(len(own.nominal_names)), [0.3], gamma])


def by_definition(own: OrdinalParts, eta: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """P(Y = k), (n, K), from the words of the docstring."""
    G = own.link.mean
    F = own.cuts(eta, lam, DATA)
    if own.structure == "cumulative":
        below = np.column_stack([np.zeros(N), 1.0 - G(-F), np.ones(N)])
        return np.diff(below, axis=1)
    stop = 1.0 - G(-F)
    if own.structure == "sequential":
        passed = np.cumprod(np.column_stack([np.ones(N), 1.0 - stop]), axis=1)
        return passed * np.column_stack([stop, np.ones(N)])
    ratio = np.cumprod(np.column_stack([np.ones(N), (1.0 - stop) / stop]), axis=1)
    return ratio / ratio.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("structure", "link", "threshold"), CASES)
def test_probabilities_are_those_of_the_definition(structure, link, threshold):
    own = family(structure, link, threshold)
    lam, eta = parameters(own), RNG.standard_normal(N)
    p = own.probabilities(eta, lam, DATA)
    # Differences of probabilities near one lose a few digits.
    np.testing.assert_allclose(p, by_definition(own, eta, lam), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(np.cumsum(p, axis=1)[:, :-1], own.cumulative(eta, lam, DATA), rtol=1e-12)
    loglik = own.loglik(DATA, eta, lam)
    np.testing.assert_allclose(loglik, DATA.weights * np.log(p[np.arange(N), DATA.codes]), rtol=1e-9)


@pytest.mark.parametrize(("structure", "link", "threshold"), CASES)
def test_derivatives_are_those_of_differences(structure, link, threshold):
    own = family(structure, link, threshold)
    lam, eta, h = parameters(own), RNG.standard_normal(N), 1e-5
    rows = own.derivatives(DATA, eta, lam, 3)
    up, down = (own.derivatives(DATA, eta + s * h, lam, 3) for s in (1.0, -1.0))
    # Central differences with steps of 1e-5 of functions of size one.
    close = {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(rows.score, (up.loglik - down.loglik) / (2 * h), **close)
    np.testing.assert_allclose(rows.w_obs, -(up.score - down.score) / (2 * h), **close)
    np.testing.assert_allclose(rows.dw_obs, (up.w_obs - down.w_obs) / (2 * h), **close)
    curve = np.zeros((lam.size, lam.size))
    for i, unit in enumerate(h * np.eye(lam.size)):
        a, b = own.derivatives(DATA, eta, lam + unit, 3), own.derivatives(DATA, eta, lam - unit, 3)
        for field, value in (("loglik", "d_lam"), ("score", "score_lam"), ("w_obs", "w_obs_lam")):
            slope = (getattr(a, field) - getattr(b, field)) / (2 * h)
            np.testing.assert_allclose(as_columns(getattr(rows, value))[:, i], slope, **close)
        curve[i] = -(as_columns(a.d_lam) - as_columns(b.d_lam)).sum(axis=0) / (2 * h)
    # Sums of 40 rows.
    np.testing.assert_allclose(rows.curve_lam, curve, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_without_parts_it_is_the_cumulative_model(link):
    own = OrdinalParts(make_ordinal_parts(link, "flexible", K).link, K)
    plain = make_ordinal_parts(link, "flexible", K)
    assert not isinstance(plain, OrdinalParts)
    data, eta, lam = replace(DATA, parts=()), 3.0 * RNG.standard_normal(N), np.array([-1.0, 0.1, 1.2])
    a, b = own.derivatives(data, eta, lam, 3), plain.derivatives(data, eta, lam, 3, expected=False)
    for field in ("loglik", "score", "w_obs", "dw_obs"):
        # The same formulas at thresholds that are counted from another place.
        np.testing.assert_allclose(getattr(a, field), getattr(b, field), rtol=1e-8, atol=1e-12)
    for field in ("d_lam", "score_lam", "w_obs_lam"):
        np.testing.assert_allclose(as_columns(getattr(a, field)), as_columns(getattr(b, field)), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(a.curve_lam, b.curve_lam, rtol=1e-8, atol=1e-10)


def test_nodes_of_a_quadrature_are_rows_of_their_own():
    own = family("sequential", "logit", "flexible")
    lam, eta = parameters(own), RNG.standard_normal((3, N))
    together = own.derivatives(DATA, eta, lam, 1)
    for i in range(3):
        alone = own.derivatives(DATA, eta[i], lam, 1)
        np.testing.assert_array_equal(together.score[i], alone.score)


def test_rows_far_out_keep_their_digits():
    own = family("adjacent", "logit", "flexible")
    lam = parameters(own)
    found = own.derivatives(DATA, np.full(N, 500.0), lam, 3)
    assert np.isfinite(found.loglik).all()
    assert np.isfinite(found.score).all()
    assert np.isfinite(found.dw_obs).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("logit", "flexible", 3, "cumulativ"), "Did you mean 'cumulative'"),
        (("probit", "flexible", 3, "adjacent"), "have the logit link"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(options, words):
    with pytest.raises(OptionError, match=words):
        make_ordinal_parts(*options)


def test_rows_without_their_columns_are_refused():
    own = family("cumulative", "logit", "flexible")
    with pytest.raises(OptionError, match="without the columns of their nominal part"):
        own.probabilities(np.zeros(3), parameters(own))
