"""BLAS thread limits: set while a small model is fitted, restored afterwards, shared by fits in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_info

import lme4py
from lme4py.engine import threads


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_limit_is_restored():
    before = blas_threads()
    design = lme4py.lformula("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
    with threads.limited_threads(design):
        assert set(blas_threads()) == {1}
        with threads.limited_threads(design):
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_limit_is_restored_after_an_error():
    before = blas_threads()
    design = lme4py.lformula("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
    try:
        with threads.limited_threads(design):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert blas_threads() == before


def test_fits_in_threads_equal_serial_ones():
    before = blas_threads()
    data = lme4py.load_dataset("sleepstudy")

    def fit(_: int) -> lme4py.MixedResult:
        return lme4py.lmer("Reaction ~ Days + (Days | Subject)", data)

    serial = fit(0)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(fit, range(24)))
    for result in results:
        # The same operations in the same order: bit for bit.
        assert result.criterion == serial.criterion
        np.testing.assert_array_equal(result.params, serial.params)
    assert blas_threads() == before
