"""Numbers that stay what they were: arrays that cannot be written to, and values computed once.

A fit is a record of one moment. Its arrays are read-only, so that no later statement can change a number that a
table, a test or a prediction is computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, overload

import numpy as np

__all__ = ["Frozen", "computed_once", "freeze"]

T = TypeVar("T")

# Levels and labels can be a million long, and hold no arrays.
_LABELS = (str, int, float, bool, bytes, type(None), np.generic)
# Whose objects are looked into: the package's own, and the sparse matrices it holds.
_OWN = ("lme4py.", "scipy.sparse.")


def freeze(value: T) -> T:
    """Make every array that `value` leads to read-only.

    Parameters
    ----------
    value : object
        An array, or anything that holds arrays: a container, an object of this package, a sparse matrix, a pandas
        index. Objects of other kinds are left alone.

    Returns
    -------
    object
        The same one.

    Examples
    --------
    >>> numbers = freeze({"beta": np.zeros(2)})["beta"]
    >>> numbers.flags.writeable
    False
    """
    _freeze(value, set())
    return value


def _freeze(value: Any, seen: set[int]) -> None:
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
        return
    parts = _parts(value)
    if parts is None or id(value) in seen:
        return
    seen.add(id(value))
    for part in parts:
        _freeze(part, seen)


def _parts(value: Any) -> Iterable[Any] | None:
    """What an object holds; None for one that is not looked into."""
    if isinstance(value, list | tuple):
        return () if value and isinstance(value[0], _LABELS) and isinstance(value[-1], _LABELS) else value
    if isinstance(value, Mapping):
        return value.values()
    kind = type(value)
    if kind.__module__.startswith(_OWN):
        slots = [name for one in kind.__mro__ for name in _slots(one) if hasattr(value, name)]
        return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in slots)]
    return _index_arrays(value) if kind.__module__.startswith("pandas.") else None


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _index_arrays(value: Any) -> Iterable[Any] | None:
    """The arrays behind the labels of rows."""
    import pandas as pd

    if isinstance(value, pd.MultiIndex):
        return [*value.levels, *value.codes]
    if isinstance(value, pd.RangeIndex):
        return ()
    if isinstance(value, pd.Index):
        return [value.values]
    return None


class Frozen:
    """A record whose arrays are read-only: from its creation on, and after it was copied or unpickled."""

    def __post_init__(self) -> None:
        freeze(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        freeze(self)


class computed_once(Generic[T]):  # noqa: N801 - used as a decorator, as `property` is
    """A property that is computed when it is first asked for, kept, and read-only.

    `functools.cached_property` of Python 3.11 holds one lock for all instances while it computes: a process that is
    forked in the meantime inherits the lock and waits for ever. Here two threads may both compute a value, and the
    first one counts.

    Parameters
    ----------
    function : callable
        From the instance to the value.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.name = function.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> computed_once[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> computed_once[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__.setdefault(self.name, freeze(self.function(instance)))
        return value
