"""What the operating system says of memory, and memory that was freed handed back to it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["available_memory", "give_back_freed", "keep_freed"]

# What is taken as free where the system does not tell.
_UNKNOWN = 8.0 * 2**30
# Just below the largest block after which glibc moves its limits.
_LARGEST_KEPT = 32 * 2**20 - 2**16


@cache
def keep_freed() -> None:
    """Let the C library keep up to 64 MiB of freed memory for the next array (Linux with glibc; nothing elsewhere).

    Arrays of some thousand rows and more are otherwise mapped afresh each time, or what they leave at the end of the
    heap is given back at once: touching new pages then costs ten times the arithmetic. glibc raises its limits by
    itself to twice the largest mapped block that was freed; this one is never touched, so it takes no memory.
    """
    np.empty(_LARGEST_KEPT, dtype=np.uint8)


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


def available_memory() -> float:
    """Bytes that this process can still take: of the machine, of its container and of its own limit.

    Examples
    --------
    >>> available_memory() > 0
    True
    """
    limits = [_of_machine(), _of_container(Path("/sys/fs/cgroup")), _of_process()]
    known = [limit for limit in limits if limit is not None]
    return max(0.0, min(known)) if known else _UNKNOWN


def _of_machine() -> float | None:
    """Free memory; on Linux with what caches would give back."""
    found = _table(Path("/proc/meminfo")).get("MemAvailable:")
    if found is not None:
        return 1024.0 * found
    helped = _of_psutil()
    if helped is not None:
        return helped
    if sys.platform == "win32":
        return _of_windows()
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        if "SC_AVPHYS_PAGES" in os.sysconf_names:
            return float(os.sysconf("SC_AVPHYS_PAGES") * page)
        # macOS does not say what is free; inactive pages are given back when they are needed.
        return 0.5 * float(os.sysconf("SC_PHYS_PAGES") * page)
    except (ValueError, OSError, AttributeError):
        return None


def _of_psutil() -> float | None:
    """What the package psutil says, where it is installed; no dependency of this one."""
    try:
        import psutil
    except ImportError:
        return None
    return float(psutil.virtual_memory().available)


def _of_windows() -> float | None:
    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page", "free_page", "virtual", "free_virtual")),
            ("extended", ctypes.c_ulonglong),
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    library = getattr(ctypes, "windll", None)
    if library is None or not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return float(status.free)


def _of_container(root: Path) -> float | None:
    """What is left of the limit of the control group, version 2 or 1."""
    names = ("memory.max", "memory.current", "memory.stat")
    old = tuple(f"memory/{name}" for name in ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"))
    for limit_name, used_name, stat_name in (names, old):
        limit, used = _number(root / limit_name), _number(root / used_name)
        if limit is None or used is None or limit > 2.0**60:
            continue
        # Cached files are given back when memory is needed.
        stat = _table(root / stat_name)
        return limit - used + stat.get("total_inactive_file", stat.get("inactive_file", 0.0))
    return None


def _of_process() -> float | None:
    """What is left of the limit on the address space (``ulimit -v``)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit in (resource.RLIM_INFINITY, -1):
            return None
        pages = float(Path("/proc/self/statm").read_text("ascii").split()[0])
        return float(limit) - pages * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _table(path: Path) -> dict[str, float]:
    """Names and numbers of a file with one pair a line."""
    try:
        lines = path.read_text("ascii").splitlines()
        return {words[0]: float(words[1]) for words in map(str.split, lines) if len(words) > 1}
    except (OSError, ValueError):
        return {}
