"""Numbers that stay what they were: arrays that cannot be written to, and values computed once.

A fit is a record of one moment. Its arrays are read-only, so that no later statement can change a number that a
table, a test or a prediction is computed from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

import numpy as np

from lme4py.tables.html import render_html
from lme4py.tables.shown import facts

__all__ = ["Frozen", "computed_once", "freeze"]

T = TypeVar("T")

# Levels and labels can be a million long, and hold no arrays.
_LABELS = (str, int, float, bool, bytes, type(None), np.generic)
_LONG = 16
# Characters of a printed record, and of one value in it.
_LINE, _WORD = 160, 60
# Whose objects are looked into: the package's own, and the sparse matrices it holds.
_OWN = ("lme4py.", "scipy.sparse.")
# Trees of formulas hold names and numbers.
_TREES = "lme4py.formula.nodes"

# Annotations of fields that hold no arrays.
_WORDS = re.compile(r"(?:str|int|float|bool|bytes|None|tuple|frozenset|Literal|Kind|\"\w*\"|[\[\],|. ])+")

# From an object to what it holds. Kinds are few, and fits meet them again.
_Reader = Callable[[Any], Iterable[Any]]
_READERS: dict[type, _Reader] = {}
# Kinds that are not looked into inside of others: they hold no arrays, or have frozen themselves.
_DONE: set[type] = {str, int, float, bool, bytes, type(None), np.float64, np.int64, np.bool_, slice}


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
    waiting: list[Any] = [value]
    seen = set()
    while waiting:
        held = waiting.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        kind = type(held)
        for one in (_READERS[kind] if kind in _READERS else _new_reader(kind))(held):
            inner = type(one)
            if inner is np.ndarray:
                one.flags.writeable = False
            elif inner not in _DONE:
                waiting.append(one)
    return value


def _new_reader(kind: type) -> _Reader:
    """How objects of a class are looked into, found once."""
    reader = _READERS[kind] = _find_reader(kind)
    if reader is _nothing or issubclass(kind, Frozen):
        _DONE.add(kind)
    return reader


def _find_reader(kind: type) -> _Reader:
    if issubclass(kind, np.ndarray):
        return _freeze_array
    if issubclass(kind, list | tuple):
        return _items
    if issubclass(kind, dict):
        return dict.values
    if kind.__module__.startswith(_OWN) and kind.__module__ != _TREES:
        slots = [one.__dict__.get("__slots__", ()) for one in kind.__mro__]
        names = tuple(chain.from_iterable((name,) if isinstance(name, str) else name for name in slots))
        if not is_dataclass(kind):
            return partial(_slots, names, attrgetter(*names, "__class__")) if names else _fields
        return _record_reader(kind, names)
    if issubclass(kind, Mapping):
        return _values
    return _index_arrays if kind.__module__.startswith("pandas.") else _nothing


def _record_reader(kind: type, slots: tuple[str, ...]) -> _Reader:
    """Of a record the fields that may hold arrays: most are names and numbers."""
    own: Any = kind
    every = fields(own)
    held = [one.name for one in every if not _WORDS.fullmatch(str(one.type))]
    if slots:
        names = tuple(held) if kind.__dictoffset__ == 0 else slots
        return partial(_slots, names, attrgetter(*names, "__class__")) if names else _nothing
    if not held and own.__dataclass_params__.frozen:
        return _nothing
    return partial(_some_fields, len(every), attrgetter(*held, "__class__"))


def _nothing(_: Any) -> Iterable[Any]:
    """What objects hold whose kinds hold no arrays."""
    return ()


def _freeze_array(array: Any) -> Iterable[Any]:
    """An array."""
    array.flags.writeable = False
    return ()


def _items(value: Any) -> Iterable[Any]:
    """What a sequence holds; nothing for many labels."""
    many = len(value) > _LONG
    return () if many and isinstance(value[0], _LABELS) and isinstance(value[-1], _LABELS) else value


def _values(value: Mapping[Any, Any]) -> Iterable[Any]:
    return value.values()


def _fields(value: Any) -> Iterable[Any]:
    return getattr(value, "__dict__", {}).values()


def _some_fields(count: int, getter: Callable[[Any], tuple[Any, ...]], value: Any) -> Iterable[Any]:
    """The fields of a record that may hold arrays; all that it holds, where that is more than its fields."""
    return getter(value) if len(value.__dict__) == count else value.__dict__.values()


def _slots(names: tuple[str, ...], getter: Callable[[Any], tuple[Any, ...]], value: Any) -> Iterable[Any]:
    try:
        held: Iterable[Any] = getter(value)
    except AttributeError:  # some have no value
        held = [getattr(value, name) for name in names if hasattr(value, name)]
    return [*_fields(value), *held]


def _index_arrays(value: Any) -> Iterable[Any]:
    """The arrays behind the labels of rows."""
    import pandas as pd

    if isinstance(value, pd.MultiIndex):
        return [*value.levels, *value.codes]
    if isinstance(value, pd.RangeIndex):
        return ()
    if isinstance(value, pd.Index):
        return [value.values]
    return ()


class Frozen:
    """A record whose arrays are read-only: from its creation on, and after it was copied or unpickled.

    It prints what its fields are, arrays by their shapes.
    """

    if TYPE_CHECKING:
        # Every record is a dataclass.
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # In the place of the one that `dataclass` would make, which prints all numbers.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Frozen.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        freeze(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        freeze(self)

    def __repr__(self) -> str:
        text = ", ".join(f"{name} {said}" for name, said in self._said())
        short = text if len(text) <= _LINE else f"{text[:_LINE].rpartition(', ')[0]}, ..."
        return f"<{type(self).__name__}: {short}>"

    def _repr_html_(self) -> str:
        return render_html([facts(type(self).__name__, self._said())])

    def _said(self) -> list[tuple[str, str]]:
        """Names of the fields, and what they are."""
        return [(one.name, _described(getattr(self, one.name))) for one in fields(self) if one.repr]


def _described(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, np.ndarray) or type(value).__module__.startswith("pandas."):
        return f"{tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int | None):
        return repr(value) if len(repr(value)) <= _WORD else f"{repr(value)[:_WORD]}..."
    if isinstance(value, list | tuple | Mapping):
        inner = [_described(one) for one in (value.values() if isinstance(value, Mapping) else value[:4])]
        text = f"({', '.join(inner[:4])}{', ...' if len(value) > 4 else ''})"
        return text if len(text) <= _WORD else f"{len(value)} of them"
    return f"<{type(value).__name__}>"


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
