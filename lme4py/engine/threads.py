"""BLAS threads: one while the blocks are small, since waking threads costs more than the work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lme4py.design.design import Design

# Dense blocks from this size on are faster with all threads; below, threads of several BLAS libraries in one
# process get in each other's way (NumPy and SciPy each bring their own).
_LARGE = 2500


@cache
def _libraries() -> list[Any]:
    """The BLAS libraries of this process; their own functions are called, which takes a tenth of `limit`'s time."""
    from threadpoolctl import ThreadpoolController

    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


_lock = threading.Lock()
_users = 0
_before: list[int] = []


def _set_threads(counts: list[int]) -> None:
    for library, count in zip(_libraries(), counts, strict=True):
        library.set_num_threads(count)


@contextmanager
def _limit() -> Iterator[None]:
    # Fits in several threads share one limit: the first sets it and the last takes it back, otherwise one of them
    # would restore the limit of another.
    global _users, _before
    with _lock:
        if _users == 0:
            _before = [library.get_num_threads() for library in _libraries()]
            _set_threads([1] * len(_before))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set_threads(_before)


def limited_threads(design: Design) -> Any:
    """Context in which BLAS uses one thread unless the model has large dense blocks.

    Parameters
    ----------
    design : Design
    """
    sizes = sorted({term.group: term.n_levels * term.n_columns for term in design.terms}.values())
    if sum(sizes[:-1]) >= _LARGE or design.X.shape[1] >= _LARGE:
        return nullcontext()
    return _limit()


def single_thread(size: int) -> Any:
    """Context in which BLAS uses one thread unless matrices have more rows than this is worth.

    Parameters
    ----------
    size : int
        Rows of the largest matrix.
    """
    return nullcontext() if size >= _LARGE else _limit()
