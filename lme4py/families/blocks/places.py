"""Where the blocks of rows are."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from types import EllipsisType

from lme4py.chunks import chunk, row_blocks

__all__ = ["block_places"]

# Elements that are worked on at a time.
_BLOCK = chunk(16_384)


def block_places(shape: tuple[int, ...]) -> Iterator[tuple[EllipsisType, slice]]:
    """Places of some rows at a time, in arrays whose last axis is that of the rows.

    Parameters
    ----------
    shape : tuple of int
        The whole array: all that stands beside a row is worked on with it.
    """
    n = shape[-1]
    if prod(shape) <= _BLOCK:
        return iter(((..., slice(None)),))
    return ((..., place) for place in row_blocks(n, max(1, _BLOCK * n // max(prod(shape), 1))))
