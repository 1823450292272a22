"""Bars for long work, and interruptions that keep what was done.

What works in steps calls `tick`; whoever starts the work says with `watching` that its steps are counted. A bar is made
when the work has taken a second, so that short work pays nothing for it.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from lme4py.errors import Lme4Warning, OptionError

__all__ = ["announce", "check_progress", "keeping", "tick", "watching"]

_DELAY = 1.0
# Seconds from which on work is announced.
_LONG = 60.0


class _Watch:
    """Counts the steps of some kinds, and shows them."""

    def __init__(self, what: str, units: tuple[str, ...], total: int | None, at_once: bool) -> None:
        self.what, self.units, self.total = what, units, total
        self.due = time.monotonic() + (0.0 if at_once else _DELAY)
        self.count, self.unit = 0, ""
        self.bar: Any = None

    def step(self, unit: str, n: int) -> None:
        self.count = self.count + n if unit == self.unit else n
        started, self.unit = unit == self.unit, unit
        if self.bar is None:
            if time.monotonic() >= self.due:
                self.bar = _bar(f"{self.what}, {unit}", self.total, self.count)
            return
        if not started:
            self.bar.reset()
            self.bar.set_description(f"{self.what}, {unit}")
        self.bar.update(n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


_current: ContextVar[_Watch | None] = ContextVar("_current", default=None)


_silent: ContextVar[bool] = ContextVar("_silent", default=False)


def announce(what: str, seconds: float) -> None:
    """Say on standard error how long work will take, where that is more than a minute; not with ``progress=False``.

    Parameters
    ----------
    what : str
    seconds : float
        As forecast.
    """
    if seconds > _LONG and not _silent.get():
        print(f"lme4py: {what}: about {seconds / 60.0:,.0f} min (forecast; Ctrl-C interrupts).", file=sys.stderr)


def tick(unit: str, n: int = 1) -> None:
    """Some steps are done.

    Parameters
    ----------
    unit : str
        What they are: "evaluations", "blocks of rows", "replicates", ...
    n : int
    """
    watch = _current.get()
    if watch is not None and unit in watch.units:
        watch.step(unit, n)


@contextmanager
def watching(what: str, progress: bool | None, *units: str, total: int | None = None) -> Iterator[None]:
    """Show a bar of the steps that are done inside; nothing where another bar is being shown.

    Parameters
    ----------
    what : str
        The name of the work.
    progress : bool or None
        True shows the bar at once, False never; None after a second, in a terminal and in a notebook.
    *units : str
        Kinds of steps that count.
    total : int, optional
        How many there are.
    """
    if progress is False:
        silence = _silent.set(True)
        try:
            yield
        finally:
            _silent.reset(silence)
        return
    if _current.get() is not None or not (progress or _is_seen()):
        yield
        return
    watch = _Watch(what, units, total, bool(progress))
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
        watch.close()


class keeping:  # noqa: N801 - used as `with keeping(...)`
    """Where the work inside is interrupted (Ctrl-C), what is done is kept, with a warning.

    Where nothing is done yet, it is an interruption as any other.

    Parameters
    ----------
    what : str
        In words: "replicates", "parameters", ...
    total : int

    Attributes
    ----------
    done : int
        To be counted inside.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, KeyboardInterrupt) or self.done == 0:
            return False
        warnings.warn(
            f"interrupted: {self.done} of {self.total} {self.what} are done, and the result holds these only.",
            Lme4Warning,
            stacklevel=4,
        )
        return True


def check_progress(progress: object) -> None:
    """Refuse what is neither a bool nor None.

    Parameters
    ----------
    progress : object
    """
    if progress is not None and not isinstance(progress, bool):
        raise OptionError(f"`progress` is {progress!r}; give True, False or None.")


def _is_seen() -> bool:
    """Whether somebody looks: standard error is a terminal, or this is a notebook."""
    if getattr(sys.stderr, "isatty", lambda: False)():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _bar(text: str, total: int | None, done: int) -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets a notebook gets a bar of text, and a complaint.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm(total=total, initial=done, desc=text, leave=False)
