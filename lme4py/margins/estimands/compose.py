"""How the function of `Margins.evaluate` is called, and what its values are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Caller"]


class Caller:
    """Calls `compose` in the way that it is written for."""

    def __init__(self, compose: Callable[..., Any], names: list[str] | None, size: int) -> None:
        self.compose, self.names = compose, names
        self.spread = size > 1 and required_arguments(compose) == size
        self.keys: list[str] | None = None

    def numbers(self, y: NDArray[Any]) -> Any:
        """The value as an array."""
        if self.spread:
            value = self.compose(*y)
        elif self.names is not None:
            value = self.compose(dict(zip(self.names, y, strict=True)))
        else:
            value = self.compose(y)
        if isinstance(value, Mapping):
            self.keys = [str(key) for key in value]
            return np.array(list(value.values()))
        return value

    def labels(self, size: int) -> list[str]:
        """One label for each number."""
        if self.keys is not None:
            return self.keys
        name = getattr(self.compose, "__name__", "value")
        name = "value" if name == "<lambda>" else name
        return [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]


def required_arguments(function: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)
