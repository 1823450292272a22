"""How a result was made: the function and its arguments, for `update`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from lme4py.arguments import accepted, binder, check_arguments, check_switches, switches
from lme4py.design.design import Design
from lme4py.design.source import is_unchanged
from lme4py.errors import Lme4Error, Lme4Warning, OptionError, unknown_argument
from lme4py.formula.nodes import Formula
from lme4py.formula.update import update_formula
from lme4py.frozen import freeze
from lme4py.progress import watching
from lme4py.results.checks import checked_control, checking

__all__ = ["FitCall", "completes", "records_call", "update"]

# What fits count while they work.
_STEPS = ("blocks of rows", "evaluations")
P = ParamSpec("P")
R = TypeVar("R")

# Function that fits -> what a changed formula keeps of the old text that is no part of its terms.
_COMPLETIONS: dict[str, Callable[[str, str], str]] = {}


def completes(name: str) -> Callable[[Callable[[str, str], str]], Callable[[str, str], str]]:
    """Say how a function that fits models completes a changed formula: from the old text and the new one.

    Parameters
    ----------
    name : str
        Of the function.
    """

    def register(completion: Callable[[str, str], str]) -> Callable[[str, str], str]:
        _COMPLETIONS[name] = completion
        return completion

    return register


@dataclass(frozen=True)
class FitCall:
    """A call of a function that fits models.

    Attributes
    ----------
    function : callable
        Such as `lme4py.lmer`.
    arguments : mapping of str to object
        As they were given, arrays as copies; without the data.
    source : callable, or None
        Gives the data frame: a reference, no copy. A pickled call has none: results stay small, as R's do.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    source: Callable[[], Any] | None = None

    @property
    def data(self) -> Any:
        """The data frame, None where the call has none."""
        return None if self.source is None else self.source()

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self.function, "arguments": dict(self.arguments), "source": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        freeze(self.arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> FitCall:
        return self

    def changed(self, formula: Formula, change: str | None, arguments: Mapping[str, Any]) -> Any:
        """The result of the same call with other arguments.

        Parameters
        ----------
        formula : Formula
            Of the fit.
        change : str or None
            A formula in which ``.`` stands for what was there.
        arguments : mapping
            Arguments of `function` that replace the old ones, `data` among them.
        """
        parameters = inspect.signature(self.function).parameters
        known = [name for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for name in arguments:
            # A function that hands further arguments on checks these itself.
            if name not in known and len(known) == len(parameters):
                raise unknown_argument(self.function.__name__, name, known)
        new = {**self.arguments, **arguments}
        data = new.pop("data", self.data)
        if data is None:
            raise OptionError("this result does not hold its data (it was pickled); give update() the data as data=.")
        if change is not None:
            new["formula"] = self._new_formula(formula, change, known)
        return self.function(data=data, **new)

    def _new_formula(self, formula: Formula, change: str, known: list[str]) -> str:
        if "formula" not in known:
            raise OptionError(
                f"{self.function.__name__}() takes no formula; change its arguments, such as update(x_fixed=[...]), or "
                "fit the new model with lmer() or glmer()."
            )
        text, notes = update_formula(formula, change)
        for note in notes:
            warnings.warn(note, Lme4Warning, stacklevel=5)
        completion = _COMPLETIONS.get(self.function.__name__)
        return text if completion is None else completion(self.arguments["formula"], text)


def records_call(function: Callable[P, R]) -> Callable[P, R]:
    """Give the results of a function the call that made them, for their `update` method."""
    bound, known, flags = binder(function), accepted(function), switches(function)

    @wraps(function)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
        check_arguments(function, known, kwargs)
        arguments = bound(args, kwargs)
        check_switches(flags, args, kwargs)
        control, actions = checked_control(kwargs.get("control"))
        given: Any = kwargs | ({"control": control} if actions else {})
        progress: Any = kwargs.get("progress")
        watched = watching(function.__name__, progress if progress is None else progress is True, *_STEPS)
        with checking(actions) as checks, watched:
            result: Any = function(*args, **given)
            checks.append(result)
        data = _snapshot(arguments.pop("data", None))
        made: R = result.with_call(FitCall(recorded, _own(arguments), None if data is None else lambda: data))
        return made

    return recorded


def _own(value: Any) -> Any:
    """An argument that no later change of the caller's arrays, lists or Series reaches."""
    if isinstance(value, np.ndarray):
        return freeze(value.copy())
    if isinstance(value, dict):
        return {key: _own(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_own(one) for one in value]
    is_pandas = type(value).__module__.startswith("pandas.") and hasattr(value, "copy")
    return value.copy() if is_pandas else value


def _snapshot(data: Any) -> Any:
    """The data frame without its cells: columns that are put in the place of others later are not seen here."""
    kind = type(data).__module__.split(".")[0]
    if kind == "pandas" and hasattr(data, "columns"):
        return data.copy(deep=False)
    if kind == "polars" and hasattr(data, "clone"):
        return data.clone()
    return dict(data) if isinstance(data, dict) else data


def update(call: FitCall | None, design: Design, change: str | None, arguments: Mapping[str, Any]) -> Any:
    """See `FitCall.changed`; an error for a result that no call made."""
    if call is None:
        raise Lme4Error(
            "this result was not made by a call with data and arguments (it comes from refit(), or from the modular "
            "steps), so there is nothing to update; fit the new model with the function that fits it."
        )
    if "data" not in arguments and design.source is not None and not is_unchanged(design, design.source()):
        warnings.warn(
            "the data were changed after the fit, and update() fits the model to the data as they are now; give data= "
            "to say which are meant.",
            Lme4Warning,
            stacklevel=4,
        )
    return call.changed(design.written, change, arguments)
