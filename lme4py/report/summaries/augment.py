"""One row of data with what the model says about it, as broom.mixed's augment()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import in_row_order
from lme4py.data.frame import read_frame
from lme4py.design.responses.responses import is_long
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.diagnostics.leverage import cooks_distance, hatvalues
from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.estimates.limits import masked
from lme4py.inference.prediction.predict import predict
from lme4py.inference.prediction.rows import on_data_index
from lme4py.report.plots.training import observed_response, training_columns
from lme4py.report.plots.typical import cells
from lme4py.report.summaries.parts import is_ordinal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["augment"]

FloatArray = NDArray[np.float64]
# Leverages of more rows are not worth waiting for where nobody asked for them.
_MOST_ROWS = 20_000


def augment(
    fit: Fit, data: Any = None, newdata: Any = None, prefix: str = "", leverage: bool | None = None
) -> pd.DataFrame:
    """The rows of the fit with fitted, resid, hat, cooksd, fixed, mu, offset, weights, ... beside them.

    Parameters
    ----------
    fit : Fit
    data : data frame, optional
        The training data, whose columns come first; without it those that the formula uses.
    newdata : data frame, optional
        Other data: only the columns fitted, fixed and mu are added.
    prefix : str
        Put before the new names: ``"."`` gives broom's own.
    leverage : bool, optional
        Add hat and cooksd; None adds them to fits of up to 20,000 rows.

    Returns
    -------
    pandas.DataFrame
        On the data's own index. `fitted`: linear predictor with the conditional modes (what lme4's predict() gives);
        `resid`: response residuals of a linear model and of models with further parts, deviance residuals of other
        generalised ones; `hat`, `cooksd`:
        leverages and Cook's distances (see `leverage`); `fixed`: linear predictor without random effects; `mu`, `eta`:
        mean, and for generalised models the linear predictor; `offset`, `weights`; `sqrt_xwt`, `sqrt_rwt`: square
        roots of the weights of the rows of X and of the residuals; `wtres`: weighted residuals sqrt_rwt (y - mu). Of
        unordered categories `fitted`, `resid`, `fixed`, `mu` and `offset` have a column for each category that they are
        known of, such as ``mu_A``: linear predictors those beside the baseline, probabilities and residuals all. Of
        several responses a row for each, and `newdata` the columns of each, such as ``mu_y1``.

    Raises
    ------
    OptionError
        A column of the data has the name of a new one, or the number of rows is wrong.
    """
    if newdata is not None:
        if data is not None:
            raise OptionError("give `data` (the training data) or `newdata`, not both.")
        return _beside(_all_columns(newdata), _of_new(fit, newdata), prefix)
    own = _of_categories(fit) if fit.family.is_joint else _of_rows(fit)
    if leverage is None:
        known = not (fit.categories or _has_parts(fit) or fit.pseudo_likelihood)
        leverage = known and fit.design.n_obs <= _MOST_ROWS
    if leverage and fit.categories:
        raise fit.family.lacks("leverages of rows in augment(); leave leverage= out, and see influence()")
    if leverage:
        own = _with_leverage(fit, own)
    frame = _plain_columns(fit) if data is None else _used_rows(fit, data)
    series = {name: on_data_index(_any(fit), values, name) for name, values in own.items()}
    return _beside(frame, series, prefix)


def _any(fit: Fit) -> Any:
    return fit


def _beside(frame: pd.DataFrame, columns: dict[str, Any], prefix: str) -> pd.DataFrame:
    taken = [prefix + name for name in columns if prefix + name in frame.columns]
    if taken:
        raise OptionError(
            f"the data already have the column(s) {', '.join(map(repr, taken))}; rename them, or give a prefix such as "
            "prefix='.'."
        )
    from lme4py.tables.frames import printed

    return printed(frame.assign(**{prefix + name: np.asarray(values) for name, values in columns.items()}))


def _all_columns(data: Any) -> pd.DataFrame:
    """The user's columns as pandas, on the index that predictions have."""
    import narwhals.stable.v1 as nw
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    frame = read_frame(data)
    native = nw.from_native(data, pass_through=True)
    if isinstance(native, nw.LazyFrame):
        native = native.collect()
    table = native.to_pandas() if isinstance(native, nw.DataFrame) else pd.DataFrame(data)
    return table.set_axis(frame.index, axis=0)


def _used_rows(fit: Fit, data: Any) -> pd.DataFrame:
    """The data of the fit, their rows in its order."""
    design, frame = fit.design, _all_columns(data)
    whole = design.na_action == "exclude"
    if design.responses is not None and not is_long(design.responses, read_frame(data)):
        D = len(design.responses.labels)
        if len(frame) * D != design.keep.size:
            raise OptionError(
                f"`data` has {len(frame)} rows but the model was fitted to data of {design.keep.size // D}; give the "
                "data of the fit, or other data as `newdata`."
            )
        tall = frame.iloc[np.repeat(np.arange(len(frame)), D)].set_axis(design.index, axis=0)
        return tall if whole else tall.loc[design.keep]
    if read_frame(data).labelled and len(frame) in (design.n_rows, design.n_obs):
        frame = in_row_order(frame, "data", design, None if whole else design.keep)
    if len(frame) == design.keep.size:
        return frame if whole else frame.loc[design.keep]
    if len(frame) == design.n_obs and not whole:
        return frame
    raise OptionError(
        f"`data` has {len(frame)} rows but the model was fitted to {design.n_obs} of {design.keep.size} rows; give the "
        "data of the fit, or other data as `newdata`."
    )


def _plain_columns(fit: Fit) -> pd.DataFrame:
    import pandas as pd

    design = fit.design
    columns = {name: cells(column, column.values) for name, column in training_columns(fit).items()}
    if design.response_name not in columns and design.y.ndim == 1:
        # A response that is an expression, as log(y).
        columns = {design.response_name: observed_response(fit), **columns}
    table = pd.DataFrame(columns)
    if design.na_action != "exclude":
        return table.set_axis(design.index[design.keep], axis=0)
    # By position, because row labels may occur twice.
    place = np.where(design.keep, np.cumsum(design.keep) - 1, -1)
    return table.reindex(place).set_axis(design.index, axis=0)


def _of_new(fit: Fit, newdata: Any) -> dict[str, Any]:

    same = _any(fit)
    if fit.family.is_joint:
        linear = {"fitted": True, "fixed": False}
        own = {name: predict(same, newdata, random, "linear") for name, random in linear.items()}
        return _by_category(own | {"mu": predict(same, newdata, True, "prob")})
    columns = {
        "fitted": predict(same, newdata, True, "linear"),
        "fixed": predict(same, newdata, False, "linear"),
    }
    if not is_ordinal(fit):
        columns["mu"] = predict(same, newdata, True, "response")
    # Rows with several responses have a column for each.
    wide = any(table.ndim == 2 for table in columns.values())
    return _by_category(columns) if wide else columns


def _by_category(tables: dict[str, Any]) -> dict[str, Any]:
    """Columns ``fitted_B``, ``mu_A``, ...: a quantity and the category, or response, that it belongs to."""
    return {f"{name}_{label}": table[label] for name, table in tables.items() for label in table}


def _of_categories(fit: Fit) -> dict[str, FloatArray]:
    """What is known of each row used and each unordered category, shape (n,) each."""
    design, same = fit.design, _any(fit)
    n = design.n_obs
    labels, others = list(fit.categories), list(fit.categories[1:])
    known = np.zeros((n, len(others))) if design.stacked_offset is None else design.stacked_offset.reshape(-1, n).T
    fixed = (design.X @ fit.beta).reshape(-1, n).T + known
    tables = {
        "fitted": (others, same.linear_predictor.reshape(-1, n).T),
        "resid": (labels, residual_values(fit, "deviance")),
        "fixed": (others, fixed),
        "mu": (labels, same.family.probabilities(same.data, same.linear_predictor)),
        "offset": (others, known),
    }
    out = {
        f"{name}_{label}": column
        for name, (of, table) in tables.items()
        for label, column in zip(of, table.T, strict=True)
    }
    return out | {"weights": np.asarray(np.ones(n) if design.weights is None else design.weights)}


def _has_parts(fit: Fit) -> bool:
    """Whether means or variances do not follow from the linear predictor alone: there are no working weights."""
    return not fit.family.mean_is_link or fit.family.n_coefficients > 0


def _of_rows(fit: Fit) -> dict[str, FloatArray]:
    """What is known about each row used, shape (n,) each."""
    design, same = fit.design, _any(fit)
    offset = np.zeros(design.n_obs) if design.offset is None else design.offset
    weights = np.ones(design.n_obs) if design.weights is None else design.weights
    fixed = masked(fit, design.X, design.X @ fit.beta + offset)
    if fit.normal_errors:
        root, resid = np.sqrt(weights), residual_values(fit)
        parts = {"fitted": fit.fitted, "resid": resid, "fixed": fixed, "mu": fit.fitted, "offset": offset}
        return parts | {"sqrt_xwt": root, "sqrt_rwt": root, "weights": weights, "wtres": root * resid}
    eta = masked(fit, design.X, same.linear_predictor)
    if is_ordinal(fit):
        return {"fitted": eta, "fixed": fixed, "eta": eta, "offset": offset, "weights": weights}
    mu = fit.fitted
    if _has_parts(fit):
        resid = residual_values(same, "response")
        known = {"fitted": eta, "resid": resid, "fixed": fixed, "mu": mu, "eta": eta}
        return known | {"offset": offset, "weights": weights}
    counts = 1.0 if same.data.trials is None else same.data.trials
    root = np.sqrt(same.data.weight * counts / same.family.unit_variance(mu, same.lam))
    slope = same.family.link.derivatives(same.linear_predictor)[1]
    return {
        "fitted": eta,
        "resid": residual_values(same, "deviance"),
        "fixed": fixed,
        "mu": mu,
        "eta": eta,
        "offset": offset,
        "sqrt_xwt": np.abs(slope) * root,
        "sqrt_rwt": root,
        "weights": np.asarray(same.data.weight * counts * np.ones(design.n_obs)),
        "wtres": residual_values(same, "pearson"),
    }


def _with_leverage(fit: Fit, own: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """`own` with hat and cooksd after the residuals."""
    head = {name: own[name] for name in ("fitted", "resid")}
    found = {"hat": hatvalues(fit), "cooksd": cooks_distance(fit)}
    return head | found | {name: values for name, values in own.items() if name not in head}
