"""Generalised models of streamed rows with crossed factors, or groups that do not fit, equal those in memory."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from streamed_fits import same

import lme4py
from lme4py.data.frame import read_frame
from lme4py.data.sources.memory import MemorySource
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.generalised.streamed.table import PassingRows, SummedElements
from lme4py.errors import Lme4Error, OptionError

CONTROL = {"rows": "stream", "memory_limit": "3MB"}


def rows(n: int = 4000) -> pd.DataFrame:
    rng = np.random.default_rng(12)
    x, g, h = rng.normal(size=n), rng.integers(60, size=n), rng.integers(15, size=n)
    data = pd.DataFrame({"x": x, "g": g, "h": [f"h{i}" for i in h], "k": g // 6, "w": rng.integers(1, 4, n)})
    eta = 0.4 * x + rng.normal(size=60)[g] + (0.6 + 0.3 * x) * rng.normal(size=15)[h]
    data["b"] = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    data["c"], data["z"] = rng.poisson(np.exp(0.5 * eta)), 0.1 * rng.normal(size=n)
    data["o"] = np.digitize(eta + rng.logistic(size=n), [-1.0, 0.5, 2.0])
    data["p"] = np.exp(0.3 * eta) * rng.gamma(4.0, 0.25, n)
    data.loc[[3, 1500], "x"] = np.nan
    return data


DATA = rows()


@pytest.mark.parametrize(
    ("formula", "family", "options"),
    [
        ("b ~ x + (1 | g) + (x | h)", "binomial", {}),
        ("c ~ x + offset(z) + (1 | k / g) + (1 | h)", "poisson", {"weights": "w"}),
        ("p ~ x + (1 | g) + (1 | h)", "gamma", {"link": "log"}),
        ("b ~ x + (1 | g) + (1 | h)", "binomial", {"link": "probit", "hessian": "expected"}),
        ("b ~ x + (1 | g) + (1 | h)", "binomial", {"link": "cauchit"}),
    ],
)
def test_crossed_factors_are_those_in_memory(formula: str, family: str, options: dict[str, Any]) -> None:
    whole = lme4py.glmer(formula, DATA, family, **options)
    ours = lme4py.glmer(formula, MemorySource(read_frame(DATA), 701), family, control=CONTROL, **options)
    same(ours, whole)
    assert "passes over files" in ours.rows.where


def test_ordinal_models() -> None:
    whole = lme4py.clmm("o ~ x + (1 | g) + (1 | h)", DATA)
    ours = lme4py.clmm("o ~ x + (1 | g) + (1 | h)", DATA, control=CONTROL)
    same(ours, whole)
    assert_allclose(ours.thresholds, whole.thresholds, atol=1e-7)


def test_groups_that_do_not_fit() -> None:
    """Parts of whole groups would be larger than the limit: one group has nearly all rows."""
    data = DATA.assign(g=np.where(np.arange(len(DATA)) % 12, 0, 1 + DATA.index % 7)).dropna()
    control = {"rows": "stream", "memory_limit": "1MB"}
    whole = lme4py.glmer("c ~ x + (1 | g)", data, "poisson")
    ours = lme4py.glmer("c ~ x + (1 | g)", data, "poisson", control=control)
    same(ours, whole)
    assert "passes over files" in ours.rows.where
    with pytest.raises(OptionError, match="nAGQ=5 takes quadrature over the groups one by one, but a group of g alone"):
        lme4py.glmer("c ~ x + (1 | g)", data, "poisson", nAGQ=5, control=control)


def test_what_follows_a_fit() -> None:
    formula = "b ~ x + (1 | g) + (1 | h)"
    whole, ours = lme4py.glmer(formula, DATA, "binomial"), lme4py.glmer(formula, DATA, "binomial", control=CONTROL)
    assert_allclose(ours.predict(DATA.head(20)), whole.predict(DATA.head(20)), rtol=1e-6)
    # Hessians are differences of gradients.
    assert_allclose(ours.conf_int(parm="all"), whole.conf_int(parm="all"), rtol=1e-4)
    smaller = lme4py.glmer("b ~ x + (1 | g)", DATA, "binomial", control=CONTROL)
    assert_allclose(lme4py.lrtest(smaller, ours).chi2, smaller.criterion - ours.criterion)
    assert "passes over files" in str(ours.summary())
    with pytest.raises(Lme4Error, match="streamed"):
        ours.residuals()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nAGQ": 5}, "the grouping factors h and g are crossed"),
        (
            {"control": CONTROL | {"memory_limit": "1MB"}, "formula": "b ~ x + (x + z | g) + (x + z | h)"},
            "g .60 levels., h",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    arguments = {"formula": "b ~ x + (1 | g) + (1 | h)", "data": DATA, "family": "binomial", "control": CONTROL}
    with pytest.raises(OptionError, match=words):
        lme4py.glmer(**(arguments | options))  # type: ignore[arg-type]


def test_rows_for_which_the_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    with pytest.raises(OptionError, match=r"3,998 rows of memory take .* in files of this machine, .* set .* TMPDIR"):
        lme4py.glmer("b ~ x + (1 | g) + (1 | h)", DATA, "binomial", control=CONTROL)


def test_elements_of_parts_are_those_of_all_rows() -> None:
    """Sums over parts, products with them and their derivative in the weights, against rows in memory."""
    rng = np.random.default_rng(4)
    n, levels, widths = 90, (9, 5), (2, 1)
    codes = tuple(np.r_[np.arange(J), rng.integers(J, size=n - J)] for J in levels)
    Z = tuple(rng.normal(size=(n, k)) for k in widths)
    factors = tuple(Factor(f"f{i}", levels[i], widths[i], (i,), (slice(0, widths[i]),)) for i in range(2))
    keys = codes[0] * levels[1] + codes[1]
    pairs, place = np.unique(keys, return_inverse=True)
    table, whole = SummedElements(factors, {(0, 1): pairs}, n), WeightedProducts(codes, Z, factors)
    w, b = rng.uniform(0.5, 2.0, n), rng.normal(size=sum(f.size for f in factors))
    v, gathered, spread, h = np.zeros(table.rows.size), np.zeros(b.size), np.zeros(n), np.zeros(n)
    T = [np.array([[0.7, 0.0], [0.2, 0.4]]), np.array([[0.9]])]
    halves = [slice(0, 31), slice(31, n)]
    parts = [
        PassingRows(
            np.zeros((w[s].size, 0)), w[s], tuple(z[s] for z in Z), tuple(c[s] for c in codes), {(0, 1): place[s]}, 0
        )
        for s in halves
    ]
    for s, part in zip(halves, parts, strict=True):
        table.rows.take_in(part, w[s], v)
        table.rows.gather(part, w[s], gathered)
        spread[s] = table.rows.random_part(part, b)
    # Sums in another order.
    assert_allclose(gathered, whole.gather(w), rtol=1e-13)
    assert_allclose(spread, whole.spread(b), rtol=1e-12)
    assert_allclose(table.times(v, b), whole.gather(w * whole.spread(b)), rtol=1e-11)
    swept, theirs = table.factor_of(T, table.base_of(v)), whole.factorize(T, w)
    assert_allclose(swept.log_det, theirs.log_det, rtol=1e-13)
    dv, _, _ = table.element_derivatives(swept)
    for s, part in zip(halves, parts, strict=True):
        h[s] = table.rows.row_derivative(part, dv)
    assert_allclose(h, whole.log_det_derivatives(theirs)[0], rtol=1e-10)
