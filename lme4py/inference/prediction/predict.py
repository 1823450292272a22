"""Predictions from a fit, linear or generalised, for its own rows or for new data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lme4py.data.frame import Frame, read_frame
from lme4py.design.responses.responses import beside_each_other, is_long, rows_of
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.inference.prediction.categories import home_rows
from lme4py.inference.prediction.given import predict_given
from lme4py.inference.prediction.intervals import limits
from lme4py.inference.prediction.ordinal import (
    CATEGORY_TYPES,
    NO_CLASS_LIMITS,
    NO_OBSERVATION,
    by_predictor,
    predict_categories,
)
from lme4py.inference.prediction.parts import needs_parts, predict_parts
from lme4py.inference.prediction.predictor import at_limits, linear_predictor, offset_column, random_variance
from lme4py.inference.prediction.predictor_error import predictor_error
from lme4py.inference.prediction.responses import predicted_by_family
from lme4py.inference.prediction.rows import (
    chosen_columns,
    chosen_terms,
    make_rows,
    masked_columns,
    padded,
    report_unseen,
    without_unseen,
)
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict"]


def predict(
    fit: Fit,
    data: Any = None,
    include_random: bool | str | Iterable[str] | Mapping[str, str | Iterable[str]] = True,
    type: str = "response",
    new_levels: str = "zero",
    interval: str | None = None,
    alpha: float | None = None,
    weights: str | ArrayLike | None = None,
    ddf: str | None = None,
    offset: str | ArrayLike | Mapping[str, Any] | None = None,
    se: bool = False,
    given: Any = None,
    include_fixed: bool = True,
) -> pd.Series[Any] | pd.DataFrame:
    """Predictions on the index of `data`: means or linear predictors, with intervals where these are asked for.

    Parameters
    ----------
    fit : Fit
    data : data frame, optional
        New data; the rows of the fit when not given.
    include_random : bool, list of str, dict, or "integrate"
        All random effects, none, those of the named grouping factors, of a dict only the named effects of each factor
        (``{"Subject": ["Intercept"]}``), or means averaged over their distribution (in a linear model the same as
        none).
    type : {"response", "linear", "conditional", "zprob", "dispersion", "variance"}
        Means (probabilities for the binomial family) or linear predictors; of a model with further parts also the mean
        of its conditional part, the probability of its zero part, the dispersion, and the variance of a response.
        Categories: "response" or "prob" gives a DataFrame with the probability of each category, "cumulative"
        P(Y <= k), and "class" the most probable category. Unordered ones have a linear predictor for each category
        beside the baseline, and "linear" a column for each.
    new_levels : {"zero", "error", "missing"}
        Levels that were not in the fit contribute nothing, with one warning, or are refused, or their rows are NaN.
    interval : {None, "confidence", "prediction"}
        "confidence": limits of the mean; the uncertainty of the conditional modes counts where random effects are
        included, by their joint covariance with the fixed effects, and z'Sigma z for groups that were not in the
        fit. "prediction": limits of one new observation, of a known group where its random effects are included,
        else of a new group; the residual variance is that of the row's weight. Categories have
        "confidence" only: limits of each probability, which stay between 0 and 1.
    alpha : float, optional
        One minus the level of the interval; when not given 0.05, or that of the keyword front door.
    weights : str or array of shape (n,), optional
        For prediction intervals on new data: prior weights, or numbers of trials; those that the fit took from a
        column or an expression when not given.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Degrees of freedom of the limits; None is `default_ddf`. Satterthwaite's stand in for Kenward and Roger's
        where random effects or new observations are predicted. "prediction" limits of generalised models are
        quantiles of the response, and have none.
    offset : str, number or array of shape (n,), optional
        For new data: the offset in the place of the `offset` argument of the fit. It must be given where that was
        an array; a column or an expression is found again in the new data.
    se : bool
        Add a column std_error: of the mean, with the uncertainty that "confidence" limits have (by the delta method
        through the link).
    given : data frame or True, optional
        Rows with responses that came after the fit: the modes of their groups, old and new ones, are updated by them at
        the estimates of the fit, without a refit. Limits are normal. Of a model with a residual structure the response
        of a row is predicted given those of its subject: a missing visit given the observed ones. Rows of the fit may
        be among the rows given (each counts once); True stands for the rows of the fit alone.
    include_fixed : bool
        False leaves out the fixed effects and offsets: the random part alone (R's ``random.only``), on the scale of
        the linear predictor.

    Returns
    -------
    Series, or DataFrame predicted, lower, upper where an interval is asked for
        Probabilities of categories with an interval have a MultiIndex of columns, (category, predicted),
        (category, lower), (category, upper), so that ``table[category]`` is the frame of one category. NaN in
        rows of new data with a missing value. Of several responses a DataFrame with a column for each, or a
        MultiIndex (response, predicted), ...; rows of data with a column "response" are taken as they are, a row for
        one response.

    Raises
    ------
    OptionError, DataError

    Warns
    -----
    ConvergenceWarning
        Rows whose linear predictor goes to infinity (separation): they have the limit of the mean, and no interval.
    """
    if weights is not None and not isinstance(weights, str) and fit.design.responses is not None:
        weights = np.repeat(np.asarray(weights, dtype=np.float64), len(fit.design.responses.labels))
    asked = (include_random, type, new_levels, interval, alpha, weights, ddf, offset, se, given, include_fixed)
    responses, rows = fit.design.responses, data if data is None else rows_of(fit.design, data)
    if responses is not None and fit.family.has_rows_of_several:
        if given is not None:
            raise fit.family.lacks("predictions given other rows; use ranef() and predict()")

        def one(view: Fit, part: Frame) -> pd.Series[Any] | pd.DataFrame:
            return _predicted_rows(view, part, *asked)

        found = predicted_by_family(fit, responses, rows, one)
        if rows is None and fit.design.na_action == "exclude":
            found = found.reindex(fit.design.index)
    else:
        found = _predicted_rows(fit, rows, *asked)
    if responses is None or (data is not None and is_long(responses, read_frame(data))):
        return found
    return beside_each_other(found if data is not None else _all_long(fit, found), responses.labels)


def _all_long(fit: Fit, found: pd.Series[float] | pd.DataFrame) -> pd.Series[Any] | pd.DataFrame:
    """Predictions of the long rows used among those of all wide rows that have one."""
    design = fit.design
    if design.na_action == "exclude":
        return found
    import pandas as pd

    D = len(design.responses.labels) if design.responses else 1
    table = pd.DataFrame(found)
    whole = np.full((design.keep.size, table.shape[1]), np.nan)
    whole[design.keep] = table.to_numpy()
    kept = np.repeat(design.keep.reshape(-1, D).any(axis=1), D)
    made = pd.DataFrame(whole[kept], index=design.index[kept], columns=table.columns)
    return made.iloc[:, 0] if isinstance(found, pd.Series) else made


def _predicted_rows(
    fit: Fit,
    data: Any,
    include_random: Any,
    type: str,
    new_levels: str,
    interval: str | None,
    alpha: float | None,
    weights: Any,
    ddf: str | None,
    offset: Any,
    se: bool,
    given: Any,
    include_fixed: bool,
) -> pd.Series[Any] | pd.DataFrame:
    """`predict` with rows as the model has them."""
    import pandas as pd

    if given is not None:
        _check_given(fit, data, include_random, type, interval, weights, ddf, offset, include_fixed, se)
        level = chosen_alpha(fit, alpha)
        return predict_given(
            fit, read_frame(data), None if given is True else rows_of(fit.design, given), type, interval, level, se
        )
    partly = isinstance(include_random, Mapping)
    if partly or not include_fixed:
        _check_part(fit, include_random, type, interval, include_fixed)
    if fit.categories and type != "linear":
        return predict_categories(fit, data, include_random, type, new_levels, interval, alpha, ddf, offset, se)
    if type == "conditional" and not fit.family.n_coefficients and fit.family.mean_is_link:
        # All of the mean.
        type = "response"
    if needs_parts(fit, type, interval):
        own = None if data is None else offset_column(fit, read_frame(data), offset)
        return predict_parts(fit, data, include_random, type, new_levels, interval, own, alpha, se, weights)
    _check(type, interval)
    if interval == "prediction" and not fit.normal_errors:
        _check_observation(fit, type)
    level = chosen_alpha(fit, alpha)
    masks = chosen_columns(fit, include_random) if isinstance(include_random, Mapping) else {}
    chosen = list(masks) if partly else chosen_terms(fit, include_random)
    average = isinstance(include_random, str) and include_random == "integrate"
    frame = None if data is None else read_frame(data)
    if frame is None and weights is not None:
        raise OptionError("`weights` is for new data; the rows of the fit have its own. Give data=, or leave it out.")
    rows = make_rows(fit, frame, chosen, interval is not None or average or se, offset_column(fit, frame, offset))
    rows = without_unseen(rows, new_levels)
    report_unseen(fit, rows, new_levels)
    # Categories have a linear predictor each.
    each = home_rows(fit, rows) if fit.family.is_joint else [rows]
    own_terms = len(chosen) if data is None and include_fixed and not partly and len(each) == 1 else None
    tables = []
    for home in each:
        part = masked_columns(home, masks)
        if not include_fixed:
            part = replace(part, X=np.zeros_like(part.X), offset=np.where(np.isfinite(part.offset), 0.0, np.nan))
        whole = part.complete
        numbers = {"predicted": _predicted(fit, part.take(whole), own_terms, average, type)}
        if se:
            numbers["std_error"] = _standard_errors(fit, part.take(whole), type, average, ddf)
        if interval is not None:
            ends = limits(fit, part.take(whole), whole, interval, type, average, level, weights, ddf)
            numbers |= dict(zip(("lower", "upper"), ends, strict=True))
        parts = at_limits(fit, part.take(whole), list(numbers.values()), type)
        table = np.full((part.n, len(parts)), np.nan)
        table[whole] = np.column_stack(parts)
        table, index = padded(fit, table) if frame is None else (table, frame.index)
        tables.append(pd.DataFrame(table, index=index, columns=list(numbers)))
    if fit.family.is_joint:
        return by_predictor(fit, tables)
    return tables[0] if len(tables[0].columns) > 1 else tables[0]["predicted"]


def _standard_errors(fit: Fit, rows: RowArrays, type: str, average: bool, ddf: str | None) -> FloatArray:
    """Of means or linear predictors, shape (n,)."""
    plain = fit.family.link.is_identity or type == "linear"
    if average and not plain:
        raise OptionError("se=True is not there for averaged means; ask for interval='confidence'.")
    error = np.sqrt(predictor_error(fit, rows, ddf=ddf).variance)
    if plain:
        return error
    slope: FloatArray = np.abs(fit.family.link.derivatives(linear_predictor(fit, rows))[1])
    return slope * error


def _check_part(fit: Fit, include_random: Any, type: str, interval: Any, include_fixed: bool) -> None:
    """Refuse what part of a linear predictor does not have."""
    if interval == "prediction":
        raise OptionError(
            "interval='prediction' is that of a new observation, which has all effects; use interval='confidence' for "
            "part of them."
        )
    if include_fixed:
        return
    if isinstance(include_random, str) or (isinstance(include_random, bool) and not include_random):
        raise OptionError(f"include_fixed=False with include_random={include_random!r} leaves nothing to predict.")
    if type != "linear" and not (type == "response" and fit.family.link.is_identity):
        raise OptionError("the random part alone is on the scale of the linear predictor; use type='linear'.")


def _check_given(
    fit: Fit,
    data: Any,
    include_random: Any,
    type: str,
    interval: Any,
    weights: Any,
    ddf: Any,
    offset: Any,
    include_fixed: bool,
    se: bool,
) -> None:
    """What predictions given other rows cannot have."""
    _check(type, interval, ("response", *CATEGORY_TYPES, "linear") if fit.categories else ("response", "linear"))
    if fit.categories and interval == "prediction":
        raise OptionError(NO_OBSERVATION)
    if (se or interval is not None) and type == "class":
        raise OptionError(NO_CLASS_LIMITS)
    if data is None:
        raise OptionError("given= needs data=: the rows to predict.")
    others = {"weights": weights, "ddf": ddf, "offset": offset}
    others |= {"include_random": include_random, "include_fixed": include_fixed}
    for name, value in others.items():
        if value is not (True if name.startswith("include") else None):
            raise OptionError(f"{name}={value!r} does not go with given=; leave it out.")


def _check_observation(fit: Fit, type: object) -> None:
    if fit.categories:
        raise OptionError(NO_OBSERVATION)
    if type == "linear":
        raise OptionError(
            "interval='prediction' is that of a new observation, which is on the scale of the response; use "
            "type='response', or interval='confidence'."
        )


def _check(type: object, interval: object, types: tuple[str, ...] = ("response", "linear")) -> None:
    for name, value, allowed in (
        ("type", type, types),
        ("interval", interval, (None, "confidence", "prediction")),
    ):
        if value not in allowed:
            hint = did_you_mean(str(value), [word for word in allowed if word])
            raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}.{hint}")


def _predicted(fit: Fit, rows: RowArrays, own_terms: int | None, average: bool, type: str) -> FloatArray:
    # The numbers of the fit itself, without rounding on the way.
    eta = fit.linear_predictor if own_terms == len(fit.design.terms) else linear_predictor(fit, rows)
    if fit.family.link.is_identity or type == "linear":
        return eta
    if average:
        return averaged_mean(fit.family.link, eta, random_variance(fit, rows)).f
    return fit.family.mean(eta)
