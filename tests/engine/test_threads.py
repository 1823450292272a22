"""BLAS thread limits: set while a small model is fitted, restored afterwards, shared by fits in threads."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import lme4py
from lme4py.engine import threads
from lme4py.frozen import computed_once


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


def test_a_limit_within_a_limit_does_nothing():
    design = lme4py.lformula("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
    with threads.limited_threads(design):
        assert isinstance(threads.limited_threads(design), nullcontext)
    assert not isinstance(threads.limited_threads(design), nullcontext)


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


@contextmanager
def several_threads():
    """Two threads for BLAS, also on a machine with one core; yields the counts."""
    before = [library.get_num_threads() for library in threads._libraries()]
    threads._set_threads([2] * len(before))
    try:
        yield [2] * len(before)
    finally:
        threads._set_threads(before)


def counts() -> list[int]:
    return [library.get_num_threads() for library in threads._libraries()]


def interrupted_at(place: int) -> KeyboardInterrupt | None:
    """Ctrl-C at one of the places where Python looks for signals; None where there are fewer places.

    These are the beginning of a Python function and the end of a call of a C function.
    """
    seen = 0

    def profiler(frame, event, argument):
        nonlocal seen
        if event in ("call", "c_return"):
            seen += 1
            if seen == place:
                raise KeyboardInterrupt

    sys.setprofile(profiler)
    try:
        with threads.single_thread(1):
            pass
    except KeyboardInterrupt as interrupt:
        return interrupt
    finally:
        sys.setprofile(None)
    return None


def test_interrupt_at_any_place_leaves_blas_as_it_was(monkeypatch):
    # An interrupt of a destructor is reported there, and goes no further.
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    with several_threads() as before:
        # Interrupts are kept, as an interactive session keeps the last one: their tracebacks hold frames alive.
        kept = [interrupted_at(1)]
        while kept[-1] is not None:
            kept.append(interrupted_at(len(kept) + 1))
            assert counts() == before, len(kept)
            assert not threads._users
            assert threads._lock.acquire(blocking=False)
            threads._lock.release()
        assert len(kept) > 10


@contextmanager
def busy_thread(work: Callable[[threading.Event, threading.Event], None]):
    """A thread in the middle of `work`, which sets the first event there and waits for the second."""
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=(inside, leave))
    thread.start()
    assert inside.wait(60)
    try:
        yield
    finally:
        leave.set()
        thread.join()


def status_of_child(task: Callable[[], bool]) -> int:
    """Exit status of a forked process: 0 where `task` is true, 1 where not, and a signal where it hangs."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in processes with threads, which is the point here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if task() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_a_fork_while_another_thread_fits_takes_back_its_limit(sleepstudy):
    def fit(inside, leave):
        with threads.single_thread(1):
            inside.set()
            leave.wait()

    def fits_in_child() -> bool:
        free = counts() == before and not threads._users
        result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
        return free and result.converged and counts() == before

    with several_threads() as before, busy_thread(fit):
        assert status_of_child(fits_in_child) == 0
        assert counts() == [1] * len(before)
    assert not threads._users


@needs_fork
def test_a_fork_while_another_thread_holds_the_lock_does_not_hang(sleepstudy):
    def hold(inside, leave):
        with threads._lock:
            inside.set()
            leave.wait()

    with busy_thread(hold):
        assert status_of_child(lambda: lme4py.lmer("Reaction ~ 1 + (1 | Subject)", sleepstudy).converged) == 0


@needs_fork
def test_a_fork_while_another_thread_computes_a_kept_value_does_not_hang():
    class Slow:
        wait: Callable[[], None] = staticmethod(lambda: None)

        @computed_once
        def value(self) -> int:
            self.wait()
            return 7

    def compute(inside, leave):
        slow = Slow()
        slow.wait = lambda: (inside.set(), leave.wait())
        assert slow.value == 7

    with busy_thread(compute):
        assert status_of_child(lambda: Slow().value == 7) == 0


@needs_fork
def test_a_fork_inside_a_limit_keeps_it():
    with several_threads() as before:
        with threads.single_thread(1):
            assert status_of_child(lambda: counts() == [1] * len(before)) == 0
        assert counts() == before
