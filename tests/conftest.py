"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hand_made
import pytest
from threadpoolctl import threadpool_limits

import lme4py
from lme4py.chunks import TINY, VARIABLE

# With tiny chunks these are not run again: they have no numbers of fits, or numbers that others have too.
_ONCE = ["test_api.py"]
collect_ignore_glob = _ONCE if TINY and os.environ[VARIABLE] != "all" else []


def pytest_configure():
    """Processes of pytest-xdist share the cores: their threads of BLAS would wait for one another."""
    # Modules and thousands of tests stay until the end: searches for garbage among them were a fifth of the time.
    gc.disable()
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers:
        threadpool_limits(max(1, (os.cpu_count() or 1) // int(workers)))


def pytest_collection_finish():
    """From here on garbage is looked for among what tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def slopes():
    """A hand-made result with a correlated intercept and slope."""
    from lme4py.results import MixedResult

    return MixedResult(hand_made.slopes_fit())


@pytest.fixture(scope="session")
def crossed():
    """A hand-made result with two factors and three terms."""
    from lme4py.results import MixedResult

    return MixedResult(hand_made.crossed_fit())


@pytest.fixture(scope="session")
def sleepstudy():
    """The sleepstudy data; tests must not change them."""
    return lme4py.load_dataset("sleepstudy")


@pytest.fixture(scope="session")
def sleep(sleepstudy):
    """The classic model of the sleepstudy data, fitted once."""
    return lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)


@pytest.fixture
def agg():
    """Matplotlib without a screen; every figure is closed afterwards."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg", force=True)
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


# What `python -m pytest -m quick` runs, in under a minute: formulas, reference fits, front doors, tables.
QUICK = {
    *("test_formula_conformance.py", "test_formula_evaluate.py", "test_formula_terms.py", "test_contrasts.py"),
    *("test_lmm_reference.py", "test_ordinal_reference.py", "test_modular.py", "test_keyword.py", "test_api.py"),
    *(
        "test_cli.py",
        "test_foreign_words.py",
        "test_report.py",
        "test_shown.py",
        "test_docstrings.py",
        "test_import.py",
    ),
}
# Large data: right in the whole suite.
SLOW = ("lmm_insteval", "in_its_own_process")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file is left out: those without a quick test are not even imported where only these are asked for."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if config.getoption("markexpr") == "quick" and is_test and collection_path.name not in QUICK else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in QUICK and not any(word in item.name for word in SLOW):
            item.add_marker(pytest.mark.quick)
