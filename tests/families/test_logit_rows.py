"""Rows of binomial responses with the logit link, in both tails, against formulas in extended precision."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from lme4py.compiled.twins import Twin
from lme4py.families.blocks.logit_rows import logit_rows
from lme4py.families.response import ResponseData

ETA = np.array([0.0, -1e-8, 0.3, -2.0, 5.0, -30.0, 30.0, -45.0, 45.0, -200.0, 200.0, -700.0, 700.0, 3.0, -3.0, 1.0])


def exact(y: np.ndarray, m: np.ndarray, eta: np.ndarray) -> list[np.ndarray]:
    """Log-likelihood without its constant and three more, in extended precision."""
    y, m, eta = (part.astype(np.longdouble) for part in (y, m, eta))
    e = np.exp(-np.abs(eta))
    larger, smaller = 1 / (1 + e), e / (1 + e)
    F, S = np.where(eta > 0, larger, smaller), np.where(eta > 0, smaller, larger)
    log_F, log_S = np.minimum(eta, 0) - np.log1p(e), -np.maximum(eta, 0) - np.log1p(e)
    return [y * log_F + (m - y) * log_S, y * S - (m - y) * F, m * F * S, m * F * S * (S - F)]


@pytest.fixture(params=["plain", "loops", "compiled"])
def form(request, monkeypatch):
    if request.param == "compiled" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(Twin, "of", lambda self, n_rows: getattr(self, request.param))


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("points", [1, 9, 3000])
@pytest.mark.parametrize("with_trials", [False, True])
def test_against_extended_precision(with_trials: bool, points: int) -> None:
    # Eight rows of many points: elements of a block of one row are 64 bytes apart.
    eta = ETA if points == 1 else np.tile(ETA[:8], (points, 1)) * np.linspace(0.1, 1.0, points)[:, None]
    n = eta.shape[-1]
    trials = np.tile([1.0, 5.0, 12.0, 3.0], n // 4) if with_trials else np.ones(n)
    y = np.minimum(np.arange(n) % 3, trials)
    y[[0, 5]] = trials[[0, 5]]
    data = ResponseData(y, trials=trials if with_trials else None)
    found = logit_rows(data, eta, 3)
    wanted = exact(y, trials, eta)
    wanted[0] = wanted[0] + data.log_choose
    parts = (found.loglik, found.score, found.w_obs, found.dw_obs)
    for part, right, few in zip(parts, wanted, (1e-15, 1e-15, 0.0, 1e-15), strict=True):
        # A dozen operations, each rounded to 1.1e-16; nearly equal terms (y S and f F, S and F) relative to these.
        np.testing.assert_allclose(part, right.astype(float), rtol=3e-15, atol=few * trials.max())
    for order in (0, 1, 2):
        less = logit_rows(data, eta, order)
        for name in ("loglik", "score", "w_obs", "dw_obs")[: order + 1]:
            np.testing.assert_array_equal(getattr(less, name), getattr(found, name))
        assert (less.dw_obs is None, less.w_obs is None, less.score is None) == (True, order < 2, order < 1)
