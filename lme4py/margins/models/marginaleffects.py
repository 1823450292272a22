"""Fits of this package as models of Python's ``marginaleffects`` (optional; tried with 0.6).

``marginaleffects`` is looked for when `make_model` is called: this package neither needs nor contains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import read_frame
from lme4py.errors import OptionError
from lme4py.linalg.types import FloatArray
from lme4py.margins.models.adapter import DdfMethod, ModelAdapter, frame_of, to_pandas
from lme4py.margins.models.find import find_adapter

__all__ = ["make_model"]

_TYPES = {"numeric": "numeric", "boolean": "boolean"}


def make_model(fit: Any) -> Any:
    """An instance of ``marginaleffects``' ModelAbstract for a fit, with random effects at zero.

    Parameters
    ----------
    fit : MixedResult, MEGLMResult, or a statsmodels MixedLM fit

    Returns
    -------
    ModelAbstract
        For ``avg_slopes``, ``avg_comparisons``, ``predictions`` and their like; predictions are means. Covariance and
        degrees of freedom are those of ``fit.default_ddf``, infinite for generalised models. That package knows one
        number for all rows of a call: where rows have different degrees of freedom, the smallest.
    """
    adapter = find_adapter(fit)
    if adapter.recession is not None:
        raise OptionError(
            f"in this fit {adapter.recession.sentence} (separation), which marginaleffects cannot be told; use "
            "lme4py.Margins, which gives limits."
        )
    if adapter.has_smooths:
        raise OptionError("models with smooths are not there for marginaleffects; use lme4py.Margins.")
    if adapter.training_offset("zero") is not None:
        raise OptionError(
            "the model has an offset that was given as an array, which marginaleffects cannot know at other values of "
            "the predictors; fit the model with the offset as a column or an expression."
        )
    method = adapter.test_method(adapter.default_ddf)
    vcov = adapter.vcov if method is None else method.vcov
    abstract, vault, polars = _library()
    names = tuple(name for name in adapter.columns if name in set(adapter.variables))
    columns = {name: adapter.columns[name] for name in names}
    data = to_pandas(frame_of(columns, adapter.n_rows))
    # Its place is needed, its values are not: the response may be a transformation or two columns.
    response = next(name for name in ("response", "response_", "response__") if name not in columns)
    data.insert(0, response, np.zeros(adapter.n_rows))
    model_class = _model_class(abstract, polars, adapter, columns, method)
    filled = vault(
        coef=adapter.params,
        coefnames=np.array(adapter.names),
        formula=f"{response} ~ {' + '.join(names)}",
        formula_engine="formulaic",
        modeldata=_with_enums(polars.from_pandas(data), polars, columns),
        package="lme4py",
        vcov=vcov,
        variables_type={name: _type(column) for name, column in columns.items()},
        variable_names=[response, *names],
    )
    try:
        return model_class(fit, filled)
    except polars.exceptions.PolarsError as error:
        raise OptionError(
            f"marginaleffects failed with polars {polars.__version__} ({str(error).splitlines()[0]}); its releases so "
            "far need `pip install 'polars<2'`."
        ) from error


def _library() -> tuple[Any, Any, Any]:
    try:
        import polars
        from marginaleffects.classes import ModelAbstract, ModelVault  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise OptionError(
            f"marginaleffects (0.6 or later) could not be imported: {error}. Install it with "
            "`pip install marginaleffects`, or use lme4py.Margins, which needs no other package."
        ) from None
    return ModelAbstract, ModelVault, polars


def _with_enums(data: Any, polars: Any, columns: Mapping[str, Column]) -> Any:
    """Factors and text as enumerations with the levels that occur, in their order."""
    enums = []
    for name, column in columns.items():
        if column.is_factor:
            levels = [str(column.levels[code]) for code in np.unique(column.values).tolist()]
            enums.append(polars.col(name).cast(polars.String).cast(polars.Enum(levels)))
    return data.with_columns(enums)


def _type(column: Column) -> str:
    if column.kind == "numeric" and np.isin(column.values, (0.0, 1.0)).all():
        return "binary"
    if column.kind == "numeric" and (column.values == np.round(column.values)).all():
        return "integer"
    return _TYPES.get(column.kind, "character")


class _Watched(np.ndarray[Any, Any]):
    """A covariance that shows what it is multiplied with: the gradients of the rows of a call, which are not passed on.

    Attributes
    ----------
    seen : callable from the gradients, (r, p), or None
    """

    seen: Callable[[FloatArray], None] | None = None

    def __rmatmul__(self, left: Any) -> FloatArray:  # type: ignore[override]
        rows = np.asarray(left, dtype=np.float64)
        if self.seen is not None and rows.ndim == 2:
            self.seen(rows)
        product: FloatArray = rows @ np.asarray(self)
        return product


def _smallest_df(method: DdfMethod | None, rows: FloatArray) -> float:
    """Degrees of freedom of the row that has the fewest; infinite without a method."""
    moving = rows[np.abs(rows).max(axis=1, initial=0.0) > 0.0]
    return float(method.t_df(moving).min()) if method is not None and moving.size else np.inf


def _model_class(
    abstract: Any, polars: Any, adapter: ModelAdapter, columns: Mapping[str, Column], method: DdfMethod | None
) -> type:
    """A subclass that makes designs and predictions through the adapter."""
    own = adapter.vcov if method is None else method.vcov

    def get_exog(self: Any, newdata: Any) -> FloatArray:
        """The design, with what is known of the linear predictor as the last column."""
        frame = read_frame(newdata)
        needed = frame_of({name: frame.column(name) for name in columns}, frame.n_rows)
        rows = adapter.rows(needed, "zero")
        return np.column_stack([rows.X, rows.known])

    def get_predict(self: Any, params: Any, newdata: Any) -> Any:
        exog = np.asarray(newdata, dtype=np.float64)
        eta = exog[:, :-1] @ np.asarray(params, dtype=np.float64) + exog[:, -1]
        mean = eta if adapter.link is None else adapter.link.mean(eta)
        return polars.DataFrame({"rowid": np.arange(eta.size), "estimate": mean})

    def get_vcov(self: Any, vcov: Any = False) -> Any:
        if vcov is False or vcov is None:
            return None
        if vcov is not True:
            self.df_resid = np.inf
            return np.asarray(vcov, dtype=np.float64)
        watched = np.array(own, dtype=np.float64).view(_Watched)
        watched.seen = lambda rows: setattr(self, "df_resid", _smallest_df(method, rows))
        return watched

    # Of every coefficient, until a call says what it is about.
    first = _smallest_df(method, np.eye(adapter.params.size))
    members = {"get_exog": get_exog, "get_predict": get_predict, "get_vcov": get_vcov, "df_resid": first}
    members["get_df"] = lambda self: self.df_resid
    return type("Lme4pyModel", (abstract,), {**members, "get_autodiff_args": lambda self: None})
