"""The decision between the two forms of a function, and what makes machine code of loops."""

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py import glmer
from lme4py.compiled import twins
from lme4py.compiled.groups import group_sum
from lme4py.compiled.twins import Twin, choice, with_loops
from lme4py.errors import OptionError

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


def _loops(x):
    return np.array([2.0])


@with_loops(_loops, "f1")
def which(x):
    """1 from NumPy, 2 from loops."""
    return np.array([1.0])


@pytest.fixture
def no_numba(monkeypatch):
    monkeypatch.setattr(twins, "_numba", lambda: (None, "ImportError: it is not there"))


def test_a_choice_that_is_none_is_refused_by_name():
    with pytest.raises(OptionError, match="LME4PY_COMPILED is 'yes'; it can be auto, 0, 1"), choice("yes"):
        pass


def test_small_data_stay_with_numpy_unless_all_are_to_be_compiled(monkeypatch):
    monkeypatch.setattr(twins, "_LEAST", 5)
    monkeypatch.setattr(which, "compiled", which.loops)
    for text, size, form in (("auto", 4, 1.0), ("auto", 5, 2.0), ("1", 4, 2.0), ("0", 5, 1.0)):
        with choice(text):
            assert which(np.zeros(size)) == form, (text, size)


@pytest.mark.usefixtures("no_numba")
def test_without_numba_everything_is_numpy_and_asking_for_loops_says_why_not(monkeypatch):
    monkeypatch.setattr(twins, "_LEAST", 0)
    own = with_loops(_loops, "f1")(which.plain)
    with choice("auto"):
        assert own(np.zeros(3)) == 1.0
    with choice("1"), pytest.raises(OptionError, match=r"ImportError: it is not there.*lme4py\[fast\]"):
        own(np.zeros(3))


def test_the_choice_of_before_comes_back():
    before = twins._choice
    with pytest.raises(ZeroDivisionError), choice("0"):
        raise ZeroDivisionError
    assert twins._choice == before


def test_twins_are_pickled_by_name():
    assert pickle.loads(pickle.dumps(group_sum)) is group_sum


@needs_numba
def test_arrays_of_other_layouts_and_types_are_copied():
    codes = np.array([0, 9, 1, 9, 1, 9], dtype=np.int32)[::2]
    x = np.arange(6, dtype=np.float32)[::2]
    np.testing.assert_array_equal(group_sum.compiled(codes, x, 2), [0.0, 6.0])


@needs_numba
def test_arrays_may_be_read_only():
    codes, x = np.array([0, 1]), np.array([1.0, 2.0])
    codes.setflags(write=False)
    x.setflags(write=False)
    np.testing.assert_array_equal(group_sum.compiled(codes, x, 2), x)


@needs_numba
def test_where_nothing_can_be_written_the_code_is_kept_for_the_process(monkeypatch):
    import numba

    asked = []
    original = numba.jit

    def jit(*args, cache, **settings):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(*args, cache=cache, **settings)

    monkeypatch.setattr(numba, "jit", jit)
    own = with_loops(_loops, "f1")(which.plain)
    assert own.compiled(np.zeros(1)) == 2.0
    assert asked == [True, False]


@needs_numba
def test_threads_get_the_same_sums():
    rng = np.random.default_rng(1)
    codes, x = rng.integers(0, 50, 5000), rng.normal(size=5000)
    own = with_loops(group_sum.loops, "i1 f1 i")(group_sum.plain)
    found = []
    threads = [threading.Thread(target=lambda: found.append(own.compiled(codes, x, 50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sums in found:
        np.testing.assert_array_equal(sums, group_sum.plain(codes, x, 50))
    assert len(found) == 4


def test_numba_is_not_imported_for_a_small_fit():
    code = (
        "import sys; from lme4py import lmer, load_dataset; lmer('Reaction ~ Days + (Days | Subject)', "
        "load_dataset('sleepstudy')); print('numba' in sys.modules)"
    )
    names = ("LME4PY_COMPILED", "LME4PY_TINY_CHUNKS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["PYTHONPATH"] = str(Path(lme4py.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(7)
    g, x, z = rng.integers(0, 15, 300), rng.normal(size=300), rng.normal(2.0, size=300)
    eta = 0.2 + 0.4 * x + 0.6 * rng.normal(size=15)[g]
    trials = rng.integers(0, 6, 300)
    chance = 1.0 / (1.0 + np.exp(-eta))
    columns = {"g": g, "x": x, "z": z, "n": trials, "k": rng.binomial(trials, chance), "offset": 0.1 * z}
    return pd.DataFrame(columns | {"y": (rng.random(300) < chance).astype(float), "count": rng.poisson(np.exp(eta))})


MODELS = {
    "logit": {"formula": "y ~ x + (1 | g)", "family": "binomial"},
    "trials": {"formula": "cbind(k, n - k) ~ x + z + (1 | g)", "family": "binomial"},
    "profiled": {"formula": "y ~ x + (1 | g)", "family": "binomial", "nAGQ": 0},
    "quadrature": {"formula": "y ~ x + (1 | g)", "family": "binomial", "nAGQ": 5},
    "slope": {"formula": "y ~ x + (x | g)", "family": "binomial"},
    "poisson": {"formula": "count ~ x + (1 | g)", "family": "poisson", "offset": "offset"},
    "negative binomial": {"formula": "count ~ x + (1 | g)", "family": "nbinom2"},
}


@pytest.mark.parametrize("form", ["loops", pytest.param("compiled", marks=needs_numba)])
@pytest.mark.parametrize("model", MODELS)
def test_fits_are_the_same(counts, model, form, monkeypatch):
    found = []
    for one in ("plain", form):
        monkeypatch.setattr(Twin, "of", lambda self, n_rows, one=one: getattr(self, one))
        found.append(glmer(data=counts, **MODELS[model]).fit)
    plain, other = found
    # The same descents, with sums in another order: what they differ by is the rounding of 300 terms.
    np.testing.assert_allclose(other.criterion, plain.criterion, rtol=1e-12)
    np.testing.assert_allclose(other.beta, plain.beta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other.theta, plain.theta, rtol=1e-8)
    # Of differences of gradients, steps of a thousandth of a standard error.
    np.testing.assert_allclose(other.vcov, plain.vcov, rtol=1e-7, atol=1e-9)
