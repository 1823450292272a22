"""Arguments that the functions of the formula front door share, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from lme4py.arguments import check_bool
from lme4py.data.hints import data_from_text
from lme4py.data.sources import is_path
from lme4py.data.sources.address import shown_address
from lme4py.design.build import NaAction
from lme4py.errors import OptionError, did_you_mean

__all__ = ["check_call", "check_mappings"]


def check_call(formula: object, data: object, progress: object, na_action: object) -> None:
    """Refuse what is no formula, no data or no option."""
    if not isinstance(formula, str):
        hint = " The formula comes first, then the data." if isinstance(data, str) else ""
        raise OptionError(f'`formula` is of type {type(formula).__name__}; give text such as "y ~ x + (x | g)".{hint}')
    if isinstance(data, str) and not is_path(data):
        shown = shown_address(data)
        raise OptionError(f"`data` is the text {shown!r}; give a data frame, such as {data_from_text(shown)}.")
    if progress is not None:
        check_bool("progress", progress)
    allowed = get_args(NaAction)
    if na_action not in allowed:
        hint = did_you_mean(str(na_action), allowed)
        raise OptionError(f"na_action={na_action!r} is not known.{hint} Use one of {', '.join(allowed)}.")


def check_mappings(contrasts: object, functions: object) -> None:
    """Refuse contrasts and functions that are no dict."""
    for name, value, example in (
        ("contrasts", contrasts, '{"treatment": "contr.sum"}'),
        ("functions", functions, '{"halve": lambda x: x / 2}'),
    ):
        if value is not None and not isinstance(value, Mapping):
            raise OptionError(f"`{name}` is of type {type(value).__name__}; give a dict such as {example}.")
    if isinstance(functions, Mapping):
        _check_functions(functions)


def _check_functions(functions: Mapping[Any, Any]) -> None:
    for name, function in functions.items():
        if not isinstance(name, str) or not callable(function):
            raise OptionError(
                f"`functions` holds {name!r}: {function!r}; each name must be text and each value a function."
            )
