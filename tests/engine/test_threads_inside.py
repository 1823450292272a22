"""One BLAS thread inside fits, refits, profiles and bootstraps of small models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import lme4py
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.linear.criterion import Criterion
from lme4py.fits.linear.batches.batch import BatchSolver

# Both BLAS libraries are loaded: to look for them at every evaluation took most of the time.
POOLS = ThreadpoolController()


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in POOLS.info() if pool["user_api"] == "blas"]


def spy(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, seen: list[set[int]]) -> None:
    """Record the threads of BLAS whenever a method runs."""
    original = getattr(owner, name)

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(set(blas_threads()))
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, name, watched)


LINEAR = {
    "fit": lambda result, data: lme4py.lmer("y ~ x + (x | g)", data),
    "ML": lambda result, data: lme4py.lmer("y ~ x + (1 | g) + (1 | h)", data, reml=False),
    "mixed": lambda result, data: lme4py.mixed(data, "y", "x", "g"),
    "refit": lambda result, data: result.refit(data["y"] + data["x"]),
    "update": lambda result, data: result.update(". ~ . - x"),
    "profile": lambda result, data: result.conf_int(method="profile", parm="x"),
    "bootstrap": lambda result, data: result.bootstrap(100, seed=1),
    "influence": lambda result, data: result.influence(group="g", method="refit"),
    "ranova": lambda result, data: result.ranova(),
    "lrtest": lambda result, data: lme4py.lrtest(None, result, method="bootstrap", n_sim=100, seed=1),
    "all_fit": lambda result, data: result.all_fit(["trust-region"], n_starts=2, seed=1),
    "Kenward-Roger": lambda result, data: result.conf_int(ddf="kenward-roger"),
}


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads outside fits, also on a machine whose settings allow one."""
    assert len(blas_threads()) == sum(pool["user_api"] == "blas" for pool in ThreadpoolController().info())
    with threadpool_limits(2, "blas"):
        assert set(blas_threads()) == {2}
        yield


def small_data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(8), 6), rng.normal(size=48)
    y = 1 + x + rng.normal(size=8)[g] + 0.5 * rng.normal(size=8)[g] * x + rng.normal(size=48)
    counts = rng.poisson(np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=8)[g]))
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": rng.integers(0, 5, 48), "count": counts, "cut": y > 1})


@pytest.mark.parametrize("what", LINEAR)
def test_one_thread_inside_linear_fits(what: str, two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread makes work on small blocks many times slower when the machine is busy."""
    data = small_data()
    result = lme4py.lmer("y ~ x + (x | g)", data)
    seen: list[set[int]] = []
    for owner, name in ((Criterion, "evaluate"), (Criterion, "derivatives"), (BatchSolver, "solve")):
        spy(monkeypatch, owner, name, seen)
    LINEAR[what](result, data)
    assert seen
    assert all(threads == {1} for threads in seen)
    assert set(blas_threads()) == {2}


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("count ~ x + (1 | g)", {"family": "poisson"}),
        ("cut ~ x + (1 | g)", {"family": "binomial", "nAGQ": 5}),
        ("count ~ x + (1 | g)", {"family": "nbinomial"}),
    ],
)
def test_one_thread_inside_generalised_fits(
    formula: str, options: dict[str, Any], two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    spy(monkeypatch, ModeFinder, "find", seen)
    lme4py.glmer(formula, small_data(), **options)
    assert seen
    assert all(threads == {1} for threads in seen)
    assert set(blas_threads()) == {2}
