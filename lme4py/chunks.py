"""How much is worked on at a time, and from which size on another way is taken; one switch makes all of it tiny.

Large arrays are worked on in chunks of rows, levels, nodes or replicates, and large problems by other algorithms than
small ones. Numbers must depend on neither. With the environment variable ``LME4PY_TINY_CHUNKS=1``, set before lme4py is
imported, every chunk has a few elements and every other way is taken from the smallest size on: what otherwise happens
with a hundred thousand rows happens in every test. Constants of these kinds are made by the first two functions of
this module and by nothing else (tests/house/test_chunks.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["TINY", "VARIABLE", "chunk", "from_size", "row_blocks"]

VARIABLE = "LME4PY_TINY_CHUNKS"
TINY = os.environ.get(VARIABLE, "") not in ("", "0")


def chunk(size: int, tiny: int = 7) -> int:
    """Number of rows, levels, nodes, replicates or array elements that are worked on at a time.

    Parameters
    ----------
    size : int
        As it is.
    tiny : int
        As it is under ``LME4PY_TINY_CHUNKS=1``: odd, so that the last chunk is shorter than the others.

    Examples
    --------
    >>> chunk(8192) in (8192, 7)
    True
    """
    return tiny if TINY else size


def from_size(size: int, tiny: int = 0) -> int:
    """Size from which on, or up to which, another algorithm of the same result is chosen.

    Parameters
    ----------
    size : int
        As it is.
    tiny : int
        As it is under ``LME4PY_TINY_CHUNKS=1``.

    Examples
    --------
    >>> from_size(20_000) in (20_000, 0)
    True
    """
    return tiny if TINY else size


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Places of at most `size` rows at a time.

    Parameters
    ----------
    n : int
        Rows.
    size : int

    Examples
    --------
    >>> list(row_blocks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
