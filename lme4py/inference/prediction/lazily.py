"""What a fit says of the rows of its source, lazily and in the source's own kind: they are gone through when asked for.

The conditional modes are joined to the rows where these are: only the fit travels, which has no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.data.sources.base import MadeColumns
from lme4py.design.absent import STREAMED
from lme4py.design.recipe import new_response
from lme4py.errors import Lme4Error, OptionError
from lme4py.fits.base import Fit
from lme4py.inference.prediction.predict import predict
from lme4py.linalg.types import FloatArray

__all__ = ["augment_lazily", "is_lazy", "predict_lazily", "residuals_lazily"]


def is_lazy(fit: Fit) -> bool:
    """Whether the rows of a fit stay where they are.

    Parameters
    ----------
    fit : Fit
    """
    return fit.design.streamed is not None


def predict_lazily(fit: Fit, arguments: Mapping[str, Any]) -> Any:
    """Predictions of the rows of the fit, in columns as `predict` names them.

    Parameters
    ----------
    fit : Fit
    arguments : mapping of str to object
        Of `predict`.

    Raises
    ------
    OptionError
        Values for each row, which cannot be matched with rows that are elsewhere.
    Lme4Error
        The source is not at hand any more, as after pickling.
    """
    for name in ("weights", "offset", "given"):
        if arguments.get(name) is not None:
            raise OptionError(f"`{name}` with rows that were streamed: give the rows too, as data=.")
    return _lazily(fit, _Predictions(fit, dict(arguments)), keep=False)


def residuals_lazily(fit: Fit, type: str = "response") -> Any:
    """Response residuals of the rows of the fit; of means of counts, trials and numbers.

    Parameters
    ----------
    fit : Fit
    type : {"response"}

    Raises
    ------
    OptionError
        Another type, or a response of several columns.
    """
    if type != "response" or fit.categories or fit.data.trials is not None:
        raise OptionError(
            "rows that were streamed have residuals of type='response', and these where the response is one number; "
            "control={'rows': 'memory'} keeps the rows for others."
        )
    return _lazily(fit, _Residuals(fit), keep=False)


def augment_lazily(fit: Fit, prefix: str = "") -> Any:
    """The rows of the source with the columns fitted and fixed, and mu and resid where the response has a mean.

    Parameters
    ----------
    fit : Fit
    prefix : str
        Put before the new names.
    """
    taken = [
        prefix + name for name in ("fitted", "fixed", "mu", "resid") if prefix + name in _source(fit).schema().names
    ]
    if taken:
        raise OptionError(f"the data already have the column(s) {', '.join(taken)}; give a prefix such as prefix='.'.")
    return _lazily(fit, _Augmented(fit, prefix), keep=True)


def _source(fit: Fit) -> Any:
    if fit.design.lazy is None:
        raise Lme4Error(STREAMED.format(name="the source, which is not kept by pickling and by slim()"))
    return fit.design.lazy


def _lazily(fit: Fit, function: Any, keep: bool) -> Any:
    source = _source(fit)
    first = next((block.frame for block in source.blocks() if block.frame.n_rows), None)
    if first is None:
        raise Lme4Error("the source has no rows any more.")
    names = tuple(function(first.take(np.arange(min(5, first.n_rows)))))
    return source.lazily(MadeColumns(function, names, keep))


@dataclass(frozen=True)
class _Predictions:
    """Columns of predictions of some rows."""

    fit: Fit
    arguments: dict[str, Any]

    def __call__(self, frame: Frame) -> dict[str, FloatArray]:
        found: Any = predict(self.fit, frame, **self.arguments)
        if found.ndim == 1:
            return {"predicted": np.asarray(found)}
        columns: list[Any] = list(found.columns)
        names = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in columns]
        return dict(zip(names, found.to_numpy().T, strict=True))


@dataclass(frozen=True)
class _Residuals:
    """Response less its mean."""

    fit: Fit

    def __call__(self, frame: Frame) -> dict[str, FloatArray]:
        mean = np.asarray(predict(self.fit, frame, True, "response"), dtype=np.float64)
        values, present = new_response(self.fit.design.recipe, frame)
        y = values.reshape(mean.size, -1)[:, 0]
        return {"residual": np.where(present, y - mean, np.nan)}


@dataclass(frozen=True)
class _Augmented:
    """Linear predictors, mean and residual."""

    fit: Fit
    prefix: str

    def __call__(self, frame: Frame) -> dict[str, FloatArray]:
        fit = self.fit
        out = {
            "fitted": np.asarray(predict(fit, frame, True, "linear")),
            "fixed": np.asarray(predict(fit, frame, False, "linear")),
        }
        if not fit.categories and fit.data.trials is None:
            out |= {
                "mu": np.asarray(predict(fit, frame, True, "response")),
                "resid": _Residuals(fit)(frame)["residual"],
            }
        return {self.prefix + name: values for name, values in out.items()}
