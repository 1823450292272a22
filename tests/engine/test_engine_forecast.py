"""Forecasts of memory, and the errors that they lead to."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from dense_models import make_design, make_term

import lme4py
from lme4py.engine.factor import forecast
from lme4py.engine.factor.forecast import check_levels, check_memory, check_products, size_words
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.linear import problem as lmm
from lme4py.errors import DesignError
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData
from lme4py.linalg import memory
from lme4py.linalg.memory import available_memory


def set_free(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    monkeypatch.setattr(forecast, "available_memory", lambda: megabytes * 2.0**20)


def crossed(n: int, sizes: tuple[int, int], k: int = 1):
    """Every level of both factors, met at random."""
    rng = np.random.default_rng(1)
    codes = [rng.permutation(np.concatenate([np.arange(J), rng.integers(0, J, n - J)])) for J in sizes]
    first = np.column_stack([np.ones(n), *rng.normal(size=(k - 1, n))])
    terms = [make_term("subject", codes[0], first), make_term("item", codes[1], np.ones(n))]
    return make_design(rng.normal(size=n), np.ones((n, 1)), terms)


def test_there_is_memory_and_the_tests_run_in_it():
    assert available_memory() > 2**20


def test_machine_without_meminfo(monkeypatch, tmp_path):
    """What macOS and other systems have: sysconf, or nothing at all."""
    monkeypatch.setattr(memory, "_table", lambda path: {})
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=77)))
    assert memory._of_machine() == 77.0
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(memory, "_of_container", lambda root: None)
    monkeypatch.setattr(memory, "_of_process", lambda: None)
    values = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000, "SC_AVPHYS_PAGES": 300}
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.os, "sysconf", values.__getitem__, raising=False)
    monkeypatch.setattr(memory.os, "sysconf_names", {"SC_AVPHYS_PAGES": 1}, raising=False)
    assert available_memory() == 300 * 4096
    monkeypatch.setattr(memory.os, "sysconf_names", {}, raising=False)
    assert available_memory() == 500 * 4096

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "sysconf", unknown, raising=False)
    assert available_memory() == 8 * 2**30
    monkeypatch.setattr(memory.sys, "platform", "win32")
    monkeypatch.setattr(memory, "_of_windows", lambda: 123.0)
    assert available_memory() == 123.0


@pytest.mark.parametrize(
    ("limit", "current", "stat"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_limits_of_containers(tmp_path, limit, current, stat):
    """Both versions of control groups; cached files count as free."""
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / current).write_text("600\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 5\n{stat} 50\n")
    assert memory._of_container(tmp_path) == 450.0
    (tmp_path / limit).write_text("max\n")
    assert memory._of_container(tmp_path) is None
    (tmp_path / limit).write_text(f"{2**63 - 4096}\n")
    assert memory._of_container(tmp_path) is None


def test_the_smallest_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "_of_machine", lambda: 3.0)
    monkeypatch.setattr(memory, "_of_container", lambda root: 2.0)
    monkeypatch.setattr(memory, "_of_process", lambda: 5.0)
    assert available_memory() == 2.0
    # A container that is over its limit has nothing left.
    monkeypatch.setattr(memory, "_of_container", lambda root: -1.0)
    assert available_memory() == 0.0


def test_words():
    assert size_words(3 * 2.0**30) == "3.0 GB"
    assert size_words(1.5 * 2.0**20) == "1.5 MB"


def test_small_needs_are_not_checked(monkeypatch):
    set_free(monkeypatch, 0.0)
    check_memory(1000.0, "a few numbers")
    with pytest.raises(DesignError, match=r"many numbers, about 2\.0 MB, and 0\.0 MB of memory are free"):
        check_memory(2 * 2.0**20, "many numbers")


def test_blocks_of_levels_name_the_largest_first(monkeypatch):
    set_free(monkeypatch, 5.0)
    factors = lmm.group_terms(crossed(30_000, (20_000, 50), 3))
    with pytest.raises(DesignError) as caught:
        check_levels(factors)
    message = str(caught.value)
    # 10 arrays of 8 bytes for 20,000 x 9 + 50 numbers.
    assert "subject (20,000 of 3 x 3), item (50 of 1 x 1), about 13.7 MB" in message
    assert "Leave one of these terms out" in message


def test_products(monkeypatch):
    set_free(monkeypatch, 5.0)
    subject, item = lmm.group_terms(crossed(3000, (200, 50)))
    with pytest.raises(DesignError, match=r"subject \(200\) and item \(50\) need 100,000 products, about 9.5 MB"):
        check_products(1e5, subject, [item])


@pytest.mark.parametrize("generalised", [False, True])
def test_a_fit_is_refused_before_it_begins(monkeypatch, generalised):
    """Two crossed factors whose dense block does not fit; both engines."""
    design = crossed(40_000, (700, 600))
    set_free(monkeypatch, 4.0)
    data = ResponseData(np.ones(design.n_obs))
    with pytest.raises(DesignError) as caught:
        make_glmm(design, make_family("poisson", None), data) if generalised else lme4py.lmm_fit(design)
    message = str(caught.value)
    for part in ("item (600)", "600 x 600", "4.0 MB of memory are free", "Leave one of these terms out"):
        assert part in message


@pytest.mark.parametrize("generalised", [False, True])
def test_structures_of_too_many_parameters_are_refused_by_name(monkeypatch, generalised):
    rng = np.random.default_rng(0)
    data = {
        "y": rng.integers(0, 5, 120),
        "g": np.repeat(np.arange(2), 60),
        "v": [str(i) for i in np.tile(range(30), 4)],
    }
    design = lme4py.lformula("y ~ 1 + us(0 + v | g)", pd.DataFrame(data))
    set_free(monkeypatch, 4.0)
    # 465 parameters: 8 x 465 x (4 x 900 + 465) bytes.
    size = r"us\(0 \+ v \| g\) has 30 columns and 465 parameters.*about 14\.4 MB, and 4\.0 MB"

    def fit() -> None:
        if generalised:
            make_glmm(design, make_family("poisson", None), ResponseData(np.ones(120)))
        lme4py.lmm_criterion(design)

    with pytest.raises(DesignError, match=size + r".*fewer parameters than us\(\)"):
        fit()
