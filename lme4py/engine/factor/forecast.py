"""How much memory a model will need, compared with what there is, before anything of that size is made."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from lme4py.engine.factor.crossproducts import Factor
from lme4py.errors import DesignError

# What is taken as free where the system does not tell.
_UNKNOWN = 8.0 * 2**30
# Needs below this are not worth the question.
_SMALL = 2.0**20
# Arrays with a block for every level that are alive at one time.
_LEVEL_ARRAYS = 10
# Bytes of a listed product, with those of the arrays that it is made from.
_PRODUCT = 100.0

_ALTERNATIVES = (
    "Leave one of these terms out, fit a part of the data with fewer levels, or use a machine with more memory."
)


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


def size_words(count: float) -> str:
    """Bytes for people.

    Examples
    --------
    >>> size_words(3.2e9), size_words(5e6)
    ('3.0 GB', '4.8 MB')
    """
    return f"{count / 2**30:,.1f} GB" if count >= 0.95 * 2**30 else f"{count / 2**20:,.1f} MB"


def check_memory(need: float, what: str, other: str = "") -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    need : float
        Bytes.
    what : str
        Subject and verb of the message, with the terms, as in "the random effects of g (10 levels) need ...".
    other : str
        A sentence before the alternatives.

    Raises
    ------
    DesignError
    """
    if need < _SMALL:
        return
    free = available_memory()
    if need > free:
        raise DesignError(
            f"{what}, about {size_words(need)}, and {size_words(free)} of memory are free.{other} {_ALTERNATIVES}"
        )


def check_levels(factors: tuple[Factor, ...]) -> None:
    """Refuse grouping factors whose blocks of one level each do not fit.

    Parameters
    ----------
    factors : tuple of Factor
    """
    sizes = [8.0 * _LEVEL_ARRAYS * factor.n_levels * factor.n_columns**2 for factor in factors]
    names = ", ".join(_blocks(factors[f]) for f in sorted(range(len(factors)), key=lambda f: -sizes[f]))
    check_memory(sum(sizes), f"the random effects need blocks of numbers for {names}")


def _blocks(factor: Factor) -> str:
    k = factor.n_columns
    return f"{factor.name} ({factor.n_levels:,} of {k} x {k})"


def check_products(count: float, factor: Factor, others: list[Factor]) -> None:
    """Refuse a list of products that does not fit.

    Parameters
    ----------
    count : float
    factor : Factor
        The one that is eliminated.
    others : list of Factor
        Those it meets.
    """
    met = ", ".join(f"{other.name} ({other.size:,})" for other in others)
    check_memory(
        _PRODUCT * count, f"the random effects {factor.name} ({factor.size:,}) and {met} need {count:,.0f} products"
    )
