"""What stands in a fit where its rows were.

Arrays of rows are replaced by `DroppedRows`, which remember their shape and refuse everything else with an error that
says what happened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lme4py.design.absent import AbsentRows
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.engine.linear.problem import StreamedDesign
from lme4py.families.response import ResponseData
from lme4py.fits.conventions import Conventions

__all__ = ["DroppedRows", "dropped", "slim_conventions", "slim_design", "slim_response"]


_SLIM = (
    "this result is slim: it has no rows any more, and this needs them ({name}). Use the result that slim() was "
    "called on; a slim one predicts new data, prints, and gives estimates, random effects and Wald intervals."
)


class DroppedRows(AbsentRows):
    """Rows that `slim` has dropped.

    Parameters
    ----------
    name : str
        What was dropped, for the message.
    shape : tuple of int
    """

    __slots__ = ()

    def __init__(self, name: str, shape: tuple[int, ...] = ()) -> None:
        super().__init__(name, shape, _SLIM)

    def __repr__(self) -> str:
        return f"<{self.name}, shape {self.shape}: dropped by slim()>"

    def __reduce__(self) -> tuple[Any, ...]:
        return DroppedRows, (self.name, self.shape)


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
    labels: Any = DroppedRows("row labels", (len(design.index),))
    columns: Any = DroppedRows("columns of the data", (design.n_obs,))
    response = None if design.response is None else slim_response(design.response)
    changes |= {"row_labels": labels, "source": None, "lazy": None, "columns": columns, "response": response}
    if isinstance(design, StreamedDesign):
        changes["problem"] = None
    predictors = tuple(_slim_predictor(predictor) for predictor in design.predictors)
    return replace(design, **changes, predictors=predictors)


def slim_conventions(conventions: Conventions) -> Conventions:
    """Conventions without the clusters of the rows.

    Parameters
    ----------
    conventions : Conventions
    """
    return replace(conventions, clusters=dropped("clusters of the rows", conventions.clusters))


def _slim_predictor(predictor: Predictor) -> Predictor:
    names = {"X": "model matrix", "offset": "offset"}
    changes: dict[str, Any] = {name: dropped(what, getattr(predictor, name)) for name, what in names.items()}
    return replace(predictor, **changes, terms=tuple(_slim_term(term) for term in predictor.terms))


def slim_response(data: ResponseData) -> ResponseData:
    """Without rows; the names of ordered categories stay."""
    names = {"y": "response", "trials": "numbers of trials", "weights": "weights"}
    changes: dict[str, Any] = {name: dropped(what, getattr(data, name)) for name, what in names.items()}
    columns = {"X": "columns of further parts", "offset": "offset of further parts"}
    slim = [replace(p, **{name: dropped(what, getattr(p, name)) for name, what in columns.items()}) for p in data.parts]
    return replace(data, **changes, parts=tuple(slim))


def _slim_term(term: RandomTerm) -> RandomTerm:
    codes, values = dropped("groups of the rows", term.codes), dropped("columns of the random effects", term.values)
    return replace(term, codes=codes, values=values)
