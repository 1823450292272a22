"""Rows of Poisson responses, by NumPy and by loops, against scipy."""

import importlib.util

import numpy as np
import pytest
from scipy import stats

from lme4py.compiled.twins import Twin
from lme4py.families.blocks.poisson_rows import poisson_rows
from lme4py.families.response import ResponseData


@pytest.mark.parametrize("shape", [(0,), (1,), (40_000,), (3, 500)])
@pytest.mark.parametrize("form", ["plain", "loops", "compiled"])
def test_log_likelihood_slope_and_mean(form, shape, monkeypatch):
    if form == "compiled" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(Twin, "of", lambda self, n_rows: getattr(self, form))
    rng = np.random.default_rng(3)
    t = rng.normal(1.0, 1.5, shape)
    y = rng.poisson(np.exp(t[0] if t.ndim > 1 else t)).astype(float)
    value, slope, mu = poisson_rows(ResponseData(y), t)
    # Terms of up to a thousand, each rounded to a part in 1e16.
    np.testing.assert_allclose(value, stats.poisson.logpmf(y, np.exp(t)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mu, np.exp(t), rtol=1e-15)
    np.testing.assert_array_equal(slope, y - mu)


def test_a_mean_beyond_all_numbers_has_no_likelihood():
    with np.errstate(over="ignore"):
        value, slope, _ = poisson_rows(ResponseData(np.array([1.0])), np.array([800.0]))
    assert value == -np.inf
    assert slope == -np.inf
