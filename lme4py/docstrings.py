"""Docstrings that are written once: a method that hands its object to a function carries the words of that function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["carries"]

F = TypeVar("F", bound=Callable[..., Any])

# Sections of numpydoc in their order. Examples show a function as it is called, and are not carried.
_SECTIONS = ("Parameters", "Returns", "Raises", "Warns", "Notes", "References", "Examples")
_HEADING = re.compile(r"^([A-Z][a-z]+)\n-{3,}\n", flags=re.MULTILINE)
_EMPTY = inspect.Parameter.empty
_ENTRY = re.compile(r"^(?=\S)", flags=re.MULTILINE)


def carries(function: Callable[..., Any]) -> Callable[[F], F]:
    """Give a method the docstring of the function that it calls.

    The parameters are those that the method has, in its order. What the method's own docstring says takes the place of
    what the function's says, section by section and parameter by parameter; the examples are the method's own.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        A decorator.

    Examples
    --------
    >>> def area(shape: object, unit: str = "m") -> float:
    ...     '''The area of a shape.
    ...
    ...     Parameters
    ...     ----------
    ...     shape : Shape
    ...     unit : str
    ...         Of length.
    ...     '''
    ...     return 1.0
    >>> class Shape:
    ...     @carries(area)
    ...     def area(self, unit: str = "m") -> float:
    ...         return area(self, unit)
    >>> print(Shape.area.__doc__)
    The area of a shape.
    <BLANKLINE>
    Parameters
    ----------
    unit : str
        Of length.
    """
    given = _sections(inspect.getdoc(function) or "")
    given.pop("Examples", None)

    def carry(method: F) -> F:
        own = _sections(inspect.getdoc(method) or "")
        parameters = _of_signature(method, _entries(given.get("Parameters")) | _entries(own.get("Parameters")))
        found = given | own
        if parameters:
            found["Parameters"] = "\n".join(parameters)
        else:
            found.pop("Parameters", None)
        method.__doc__ = _written(found)
        return method

    return carry


def _sections(text: str) -> dict[str, str]:
    """What stands above all sections, under "", and the sections by name."""
    first, *rest = _HEADING.split(text)
    found = {"": first.strip()} if first.strip() else {}
    return found | {name: body.rstrip() for name, body in zip(rest[::2], rest[1::2], strict=True)}


def _entries(section: str | None) -> dict[str, tuple[str, str]]:
    """For each name what stands to the right of the names of its entry, and the names that share it."""
    found: dict[str, tuple[str, str]] = {}
    for entry in _ENTRY.split(section or ""):
        if entry.strip():
            head, newline, body = entry.rstrip().partition("\n")
            names, colon, kind = head.partition(" : ")
            found |= {name.strip().lstrip("*"): (names, f"{colon}{kind}{newline}{body}") for name in names.split(",")}
    return found


def _of_signature(method: Callable[..., Any], entries: dict[str, tuple[str, str]]) -> list[str]:
    """The entries of the parameters of a method, in its order; what several parameters share comes once."""
    out: dict[tuple[str, str], list[str]] = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name in entries:
            out.setdefault(entries[name], []).append(str(parameter.replace(default=_EMPTY, annotation=_EMPTY)))
    return [f"{', '.join(names)}{rest}" for (_, rest), names in out.items()]


def _written(sections: dict[str, str]) -> str:
    parts = [sections.get("", "")]
    parts += [f"{name}\n{'-' * len(name)}\n{sections[name]}" for name in _SECTIONS if name in sections]
    return "\n\n".join(part for part in parts if part)
