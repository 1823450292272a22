"""What stands in a fit where its rows were.

Arrays of rows are replaced by `DroppedRows`, which remember their shape and refuse everything else with an error that
says what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.errors import Lme4Error
from lme4py.families.response import ResponseData

__all__ = ["DroppedRows", "dropped", "slim_design", "slim_response"]


def _refuse(name: str) -> NoReturn:
    raise Lme4Error(
        f"this result is slim: it has no rows any more, and this needs them ({name}). Use the result that slim() was "
        "called on; a slim one predicts new data, prints, and gives estimates, random effects and Wald intervals."
    )


def _refusal(method: str) -> Callable[..., NoReturn]:
    def refuse(self: DroppedRows, *args: Any, **kw: Any) -> NoReturn:
        _refuse(self.name)

    refuse.__name__ = method
    return refuse


class DroppedRows:
    """What stands where an array was: its name and shape.

    Parameters
    ----------
    name : str
        What was dropped, for the message.
    shape : tuple of int
    """

    __slots__ = ("name", "shape")
    __hash__ = object.__hash__

    def __init__(self, name: str, shape: tuple[int, ...] = ()) -> None:
        self.name = name
        self.shape = shape

    @property
    def size(self) -> int:
        """Number of elements that the array had."""
        return int(np.prod(self.shape, dtype=np.intp))

    @property
    def ndim(self) -> int:
        """Number of axes that the array had."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.name}, shape {self.shape}: dropped by slim()>"

    def __getattr__(self, attribute: str) -> NoReturn:
        # Python's own protocols (copying, pickling) ask for names that need not exist.
        if attribute.startswith("__") and not attribute.startswith("__array"):
            raise AttributeError(attribute)
        _refuse(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return DroppedRows, (self.name, self.shape)


_OPERATORS = (
    "add sub mul matmul truediv pow neg eq ne lt le gt ge getitem setitem iter contains bool float int index array"
)
for _operator in _OPERATORS.split():
    setattr(DroppedRows, f"__{_operator}__", _refusal(f"__{_operator}__"))
for _operator in ("add", "sub", "mul", "matmul", "truediv", "pow"):
    setattr(DroppedRows, f"__r{_operator}__", _refusal(f"__r{_operator}__"))


def dropped(name: str, array: Any) -> Any:
    return None if array is None else DroppedRows(name, tuple(array.shape))


def slim_design(design: Design) -> Design:
    """A design without rows.

    Parameters
    ----------
    design : Design
    """
    names = {"y": "response", "weights": "weights", "keep": "rows used"}
    changes: dict[str, Any] = {name: dropped(what, getattr(design, name)) for name, what in names.items()}
    index: Any = DroppedRows("row labels", (len(design.index),))
    columns: Any = DroppedRows("columns of the data", (design.n_obs,))
    response = None if design.response is None else slim_response(design.response)
    conventions = replace(design.conventions, clusters=dropped("clusters of the rows", design.conventions.clusters))
    changes |= {"index": index, "source": None, "columns": columns, "response": response}
    predictors = tuple(_slim_predictor(predictor) for predictor in design.predictors)
    return replace(design, **changes, predictors=predictors, conventions=conventions)


def _slim_predictor(predictor: Predictor) -> Predictor:
    names = {"X": "model matrix", "offset": "offset"}
    changes: dict[str, Any] = {name: dropped(what, getattr(predictor, name)) for name, what in names.items()}
    return replace(predictor, **changes, terms=tuple(_slim_term(term) for term in predictor.terms))


def slim_response(data: ResponseData) -> ResponseData:
    """Without rows; the names of ordered categories stay."""
    names = {"y": "response", "trials": "numbers of trials", "weights": "weights"}
    changes: dict[str, Any] = {name: dropped(what, getattr(data, name)) for name, what in names.items()}
    return replace(data, **changes)


def _slim_term(term: RandomTerm) -> RandomTerm:
    codes, values = dropped("groups of the rows", term.codes), dropped("columns of the random effects", term.values)
    return replace(term, codes=codes, values=values)
