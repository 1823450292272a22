"""BLAS threads: one while the blocks are small, since waking threads costs more than the work."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lme4py.linalg.memory import keep_freed

if TYPE_CHECKING:
    from lme4py.design.design import Design

# Dense blocks from this size on are faster with all threads; below, threads of several BLAS libraries in one
# process get in each other's way (NumPy and SciPy each bring their own).
_LARGE = 2500


@cache
def _libraries() -> list[Any]:
    """The BLAS libraries of this process; their own functions are called, which takes a tenth of `limit`'s time."""
    # Loaded first, so that both are found: NumPy and SciPy have a BLAS library each.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


# Fits in several threads share one limit: the first user sets it and the last takes it back, otherwise one of them
# would restore the limit of another. Each user is a key, with the thread that it runs in.
_lock = threading.RLock()
_users: dict[int, int] = {}
_before: list[int] = []
_is_set = False


def _set_threads(counts: list[int]) -> None:
    for library, count in zip(_libraries(), counts, strict=True):
        # From threadpoolctl 3.7 on `set_num_threads` ignores all threads but the one that called it first, which may
        # not be the one that ends a limit.
        getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


def _begin(key: int) -> None:
    global _before, _is_set
    with _lock:
        _users[key] = threading.get_ident()
        if not _is_set:
            _before = [library.get_num_threads() for library in _libraries()]
            _is_set = True
            _set_threads([1] * len(_before))


def _end(key: int, *_: object) -> None:
    """End a use. After an interrupt at any line of it, a second call does what is left."""
    global _is_set
    with _lock:
        _users.pop(key, None)
        if _is_set and not _users:
            _set_threads(_before)
            _is_set = False


class _Use:
    """One user of the limit; the use ends when nothing refers to it any more."""

    def __del__(self) -> None:
        _end(id(self))


class _Limit:
    """Context in which BLAS uses one thread, whatever ends it.

    Ctrl-C while BLAS computes raises KeyboardInterrupt at the next call, which may be the very call that takes the
    limit back. So two things end a use: ``__exit__``, and the end of the `_Use`. Only what the with statement holds
    refers to that: the traceback of the interrupt keeps frames, and `self` of a method would be in one of them.
    """

    def __init__(self) -> None:
        self._use: _Use | None = _Use()
        self._key = id(self._use)

    @property
    def __enter__(self) -> Any:
        return partial(_begin, self._key)

    @property
    def __exit__(self) -> Any:
        end: Any = partial(_end, self._key)
        end.use, self._use = self._use, None
        return end


def limited_threads(design: Design) -> Any:
    """Context in which BLAS uses one thread unless the model has large dense blocks.

    Parameters
    ----------
    design : Design
    """
    if threading.get_ident() in _users.values():
        # The use around this one lasts longer.
        return nullcontext()
    keep_freed()
    sizes = sorted({term.group: term.n_levels * term.n_columns for term in design.terms}.values())
    if sum(sizes[:-1]) >= _LARGE or design.X.shape[1] >= _LARGE:
        return nullcontext()
    return _Limit()


def single_thread(size: int) -> Any:
    """Context in which BLAS uses one thread unless matrices have more rows than this is worth.

    Parameters
    ----------
    size : int
        Rows of the largest matrix.
    """
    return nullcontext() if size >= _LARGE else _Limit()


def _after_fork() -> None:
    """A child process has the thread that forked and none of the others: their uses end, and a lock that one held."""
    global _lock
    _lock = threading.RLock()
    for key, thread in list(_users.items()):
        if thread != threading.get_ident():
            _end(key)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
