"""BLAS threads: one while the blocks are small, since waking threads costs more than the work."""

from __future__ import annotations

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
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def _limit() -> Iterator[None]:
    with _controller().limit(limits=1, user_api="blas"):
        yield


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
