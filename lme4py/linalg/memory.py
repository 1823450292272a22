"""Memory that was freed, handed back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any


def give_back_freed() -> None:
    """Let the C library return the pages that it keeps for later (Linux with glibc; nothing elsewhere).

    Of what the preparation of a large model frees, holes of tens of megabytes stay in the heap, and a large dense block
    never fits into them. It takes about a millisecond.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return found
