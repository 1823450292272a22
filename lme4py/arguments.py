"""Arguments that a function does not have get an error that knows the words of other programs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import numpy as np

from lme4py.errors import OptionError, foreign_attribute, misplaced_argument, unknown_argument

__all__ = [
    "accepted",
    "bind",
    "check_arguments",
    "check_bool",
    "check_switches",
    "no_attribute",
    "speaks",
    "speaks_throughout",
    "switches",
]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def accepted(function: Callable[..., Any]) -> frozenset[str] | None:
    """Names of the arguments of a function; None where it takes any.

    Parameters
    ----------
    function : callable
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def check_arguments(function: Callable[..., Any], known: frozenset[str] | None, given: dict[str, Any]) -> None:
    """Raise `UnknownArgumentError` for the first argument that is not known.

    Parameters
    ----------
    function : callable
    known : frozenset of str, or None
        As `accepted` gives it.
    given : dict
        Arguments by name.
    """
    if known is None:
        return
    for name in given:
        if name not in known:
            raise unknown_argument(function.__name__, name, list(inspect.signature(function).parameters))


def switches(function: Callable[..., Any]) -> dict[str, int]:
    """Arguments of a function that are True or False, and their positions; one beyond all for those by name only.

    Parameters
    ----------
    function : callable
    """
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: sys.maxsize if p.kind is p.KEYWORD_ONLY else place
        for place, p in enumerate(parameters)
        if p.annotation in ("bool", bool)
    }


def check_bool(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises
    ------
    OptionError
    """
    if not isinstance(value, (bool, np.bool_)):
        raise OptionError(f"`{name}` is {value!r}; give True or False.")


def check_switches(flags: dict[str, int], args: tuple[Any, ...], given: dict[str, Any]) -> None:
    """Refuse what is neither true nor false where a function takes nothing else: any text would count as true.

    Parameters
    ----------
    flags : dict of str to int
        As `switches` gives them.
    args : tuple
    given : dict
        Arguments by name.

    Raises
    ------
    OptionError
    """
    for name, place in flags.items():
        value = args[place] if place < len(args) else given.get(name, False)
        check_bool(name, value)


def binder(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """What binds the arguments of a function: from those of a call, by position and by name, to all by name.

    What the function takes beyond its own arguments (``**more``) stands among them. Errors are those of `bind`.

    Parameters
    ----------
    function : callable
    """
    signature = inspect.signature(function)
    own = signature.parameters.values()
    places = [one.name for one in own if one.kind is one.POSITIONAL_OR_KEYWORD]
    named = {one.name for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    needed = {one.name for one in own if one.name in named and one.default is one.empty}
    more = [one.name for one in own if one.kind is one.VAR_KEYWORD]

    def bound(args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        found = dict(zip(places, args, strict=False))
        plain = len(args) <= len(places) and found.keys().isdisjoint(given) and (more or named.issuperset(given))
        if plain and needed <= found.keys() | given.keys():
            return found | given
        arguments = bind(function, signature, args, given).arguments
        for name in more:
            arguments.update(arguments.pop(name, {}))
        return arguments

    return bound


def bind(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], given: dict[str, Any]
) -> inspect.BoundArguments:
    """The arguments of a call by name.

    Parameters
    ----------
    function : callable
    signature : Signature
        Its own; made once, since making it costs more than binding.
    args : tuple
    given : dict
        Arguments by name.

    Raises
    ------
    UnknownArgumentError
        The two do not make a call of the function.
    """
    try:
        return signature.bind(*args, **given)
    except TypeError as error:
        names = [name for name in signature.parameters if name != "self"]
        raise misplaced_argument(function.__name__, str(error), names) from None


def speaks(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose errors about unknown arguments name the argument that is meant."""
    known, flags = accepted(function), switches(function)

    @wraps(function)
    def speaking(*args: P.args, **kwargs: P.kwargs) -> R:
        check_arguments(function, known, kwargs)
        check_switches(flags, args, kwargs)
        try:
            return function(*args, **kwargs)
        except TypeError:
            # Asked only now: it costs more than many of these functions do.
            bind(function, inspect.signature(function), args, kwargs)
            raise

    return speaking


def no_attribute(instance: object, name: str, called: str = "result") -> NoReturn:
    """What `__getattr__` does: an AttributeError that knows the words of other programs.

    Parameters
    ----------
    instance : object
    name : str
    called : str
        How such an object is called in advice.
    """
    kind = type(instance)
    if hasattr(kind, name):
        # A property that is there, and raised an AttributeError of its own: that is the one to see.
        object.__getattribute__(instance, name)
    if name.startswith("_"):
        raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
    known = [word for word in dir(kind) if not word.startswith("_")]
    raise AttributeError(foreign_attribute(kind.__name__, name, known, called), name=name, obj=None)


def speaks_throughout(kind: C) -> C:
    """A class whose public methods all speak."""
    for name, member in list(vars(kind).items()):
        if name.startswith("_"):
            continue
        if inspect.isfunction(member):
            setattr(kind, name, speaks(member))
        elif isinstance(member, classmethod):
            setattr(kind, name, classmethod(speaks(member.__func__)))
    return kind
