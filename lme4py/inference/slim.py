"""A fit without what grows with the number of rows: small enough to ship, and able to print and to predict.

Arrays of rows are replaced by `DroppedRows`, which remember their shape and refuse everything else with an error that
says what happened. What the summary, the tests and the standard errors need of the rows is computed before they go, and
kept in the places where the functions of `inference` look for what they have computed before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

import numpy as np

from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.errors import Lme4Error
from lme4py.families.response import ResponseData
from lme4py.fits.generalised import GlmmFit
from lme4py.fits.linear import Fit
from lme4py.frozen import Frozen
from lme4py.inference.estimates.modes import conditional_covariances
from lme4py.inference.estimates.row_summary import no_random_test, row_summary
from lme4py.inference.uncertainty.derivatives import variance_derivatives
from lme4py.inference.uncertainty.parameter_derivatives import variance_information

__all__ = ["DroppedRows", "SlimFit", "SlimGlmmFit", "is_slim", "slim_fit"]


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


@dataclass(frozen=True)
class _WithoutRows(Frozen):
    """What a fit without rows has in their place.

    Attributes
    ----------
    kept : dict
        What was computed from the rows before they were dropped, by the name of its place.
    """

    kept: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        self.__dict__.update(self.kept)
        super().__post_init__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, **state["kept"]})


@dataclass(frozen=True)
class SlimFit(_WithoutRows, Fit):
    """A linear mixed model without its rows."""


@dataclass(frozen=True)
class SlimGlmmFit(_WithoutRows, GlmmFit):
    """A generalised linear mixed model without its rows."""


def is_slim(fit: Fit | GlmmFit) -> bool:
    """True for a fit without rows."""
    return isinstance(fit, _WithoutRows)


def slim_fit(fit: Fit | GlmmFit) -> Fit | GlmmFit:
    """The same fit without anything that grows with the number of rows.

    Parameters
    ----------
    fit : Fit or GlmmFit

    Returns
    -------
    SlimFit or SlimGlmmFit
        A slim fit is returned as it is.
    """
    if is_slim(fit):
        return fit
    return _slim_linear(fit) if isinstance(fit, Fit) else _slim_generalised(fit)


def _slim_linear(fit: Fit) -> SlimFit:
    kept = {
        **_kept(fit),
        "_variance_derivatives": variance_derivatives(fit),
        "_conditional_covariances": conditional_covariances(fit),
        "_conditional_covariances_with_fixed": conditional_covariances(fit, include_fixed=True),
    }
    changes = {"fitted": _dropped("fitted values", fit.fitted), "problem": DroppedRows("the equations of the model")}
    return SlimFit(**_state(fit) | changes | {"design": _slim_design(fit.design), "kept": kept})


def _slim_generalised(fit: GlmmFit) -> SlimGlmmFit:
    kept = {**_kept(fit), "integral_check": fit.integral_check}
    changes = {
        "linear_predictor": _dropped("linear predictor", fit.linear_predictor),
        "problem": DroppedRows("the equations of the model"),
        "data": _slim_response(fit.data),
    }
    return SlimGlmmFit(**_state(fit) | changes | {"design": _slim_design(fit.design), "kept": kept})


def _kept(fit: Fit | GlmmFit) -> dict[str, Any]:
    """What both kinds of model keep."""
    kept: dict[str, Any] = {"_row_summary": row_summary(fit), "_variance_information": variance_information(fit)}
    if fit.design.conventions.stata:
        # Their summary ends with this test.
        kept["_no_random_test"] = no_random_test(fit)
    return kept


def _state(fit: Fit | GlmmFit) -> dict[str, Any]:
    return {f.name: getattr(fit, f.name) for f in fields(fit)}


def _dropped(name: str, array: Any) -> Any:
    return None if array is None else DroppedRows(name, tuple(array.shape))


def _slim_design(design: Design) -> Design:
    names = {"y": "response", "weights": "weights", "keep": "rows used"}
    changes: dict[str, Any] = {name: _dropped(what, getattr(design, name)) for name, what in names.items()}
    index: Any = DroppedRows("row labels", (len(design.index),))
    columns: Any = DroppedRows("columns of the data", (design.n_obs,))
    response = None if design.response is None else _slim_response(design.response)
    conventions = replace(design.conventions, clusters=_dropped("clusters of the rows", design.conventions.clusters))
    changes |= {"index": index, "source": None, "columns": columns, "response": response}
    predictors = tuple(_slim_predictor(predictor) for predictor in design.predictors)
    return replace(design, **changes, predictors=predictors, conventions=conventions)


def _slim_predictor(predictor: Predictor) -> Predictor:
    names = {"X": "model matrix", "offset": "offset"}
    changes: dict[str, Any] = {name: _dropped(what, getattr(predictor, name)) for name, what in names.items()}
    return replace(predictor, **changes, terms=tuple(_slim_term(term) for term in predictor.terms))


def _slim_response(data: ResponseData) -> ResponseData:
    """Without rows; the names of ordered categories stay."""
    names = {"y": "response", "trials": "numbers of trials", "weights": "weights"}
    changes: dict[str, Any] = {name: _dropped(what, getattr(data, name)) for name, what in names.items()}
    return replace(data, **changes)


def _slim_term(term: RandomTerm) -> RandomTerm:
    codes, values = _dropped("groups of the rows", term.codes), _dropped("columns of the random effects", term.values)
    return replace(term, codes=codes, values=values)
