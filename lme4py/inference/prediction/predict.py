"""Predictions from a fit, linear or generalised, for its own rows or for new data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.design.given import number_column
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.rows import Rows
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.limits import limit_mean, recession_of, warn_rows
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.inference.prediction.rows import chosen_terms, make_rows, on_data_index, padded, report_unseen
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "at_limits",
    "included_variance",
    "linear_predictor",
    "offset_column",
    "on_data_index",
    "predict",
    "random_variance",
    "variance_slopes",
]


def predict(
    fit: Fit,
    data: Any = None,
    include_random: bool | str | Iterable[str] = True,
    type: str = "response",
    new_levels: str = "zero",
    interval: str | None = None,
    alpha: float | None = None,
    weights: str | ArrayLike | None = None,
    ddf: str | None = None,
    offset: str | ArrayLike | None = None,
) -> pd.Series[float] | pd.DataFrame:
    """Predicted means or linear predictors, with intervals where these are asked for.

    Parameters
    ----------
    fit : Fit
    data : data frame, optional
        New data with the columns of the formula; None predicts the rows that were fitted.
    include_random : bool, str or iterable of str
        True adds the conditional modes of all terms, False none; names of grouping factors add theirs only;
        "integrate" averages the mean over the distribution of the random effects (the same as False in a linear
        model).
    type : {"response", "linear"}
        Means, or linear predictors; the same for a linear model. Ordered categories: see
        `lme4py.inference.prediction.ordinal.predict_categories` for "response", "prob", "cumulative" and "class".
    new_levels : {"zero", "error"}
        What to do with groups that were not in the training data: contribute nothing, with one warning that counts
        them, or raise.
    interval : {None, "confidence", "prediction"}
        Limits of the predicted mean, or of a new observation; see `lme4py.inference.prediction.intervals`.
    alpha : float, optional
        One minus the level of the interval; that of the fit when not given.
    weights : str or array_like, shape (n,), optional
        For prediction intervals on new data: their prior weights (numbers of trials of a binomial model). The default
        is the column or the expression that the fit took them from.
    ddf : str, optional
        Degrees of freedom of the limits; `default_ddf` of the fit when not given.
    offset : str, number or array_like, shape (n,), optional
        For new data: takes the place of the `offset` argument of the fit (the ``offset()`` terms of the formula stay).
        The default is the column or the expression of the fit; where that was an array, this must be given.

    Returns
    -------
    pandas.Series, or pandas.DataFrame predicted, lower, upper
        On the data's own index; NaN in rows of new data with a missing value. Probabilities of ordered categories: see
        `lme4py.inference.prediction.ordinal.predict_categories`.

    Raises
    ------
    OptionError, DataError

    Warns
    -----
    ConvergenceWarning
        Rows whose linear predictor goes to infinity (separation): they have the limit of the mean, and no interval.
    """
    import pandas as pd

    if fit.categories and type != "linear":
        from lme4py.inference.prediction.ordinal import predict_categories

        return predict_categories(fit, data, include_random, type, new_levels, interval, alpha, ddf, offset)
    _check(type, new_levels, interval)
    if interval == "prediction" and not fit.normal_errors:
        _check_observation(fit, type)
    level = chosen_alpha(fit, alpha)
    chosen = chosen_terms(fit, include_random)
    average = isinstance(include_random, str) and include_random == "integrate"
    frame = None if data is None else read_frame(data)
    if frame is None and weights is not None:
        raise OptionError("`weights` is for new data; the rows of the fit have its own. Give data=, or leave it out.")
    rows = make_rows(fit, frame, chosen, interval is not None or average, offset_column(fit, frame, offset))
    report_unseen(fit, rows, new_levels)
    whole = rows.complete
    parts = [_predicted(fit, rows.take(whole), len(chosen) if data is None else None, average, type)]
    names = ["predicted"]
    if interval is not None:
        from lme4py.inference.prediction.intervals import limits

        parts += limits(fit, rows.take(whole), whole, interval, type, average, level, weights, ddf)
        names += ["lower", "upper"]
    parts = at_limits(fit, rows.take(whole), parts, type)
    table = np.full((rows.n, len(parts)), np.nan)
    table[whole] = np.column_stack(parts)
    table, index = padded(fit, table) if frame is None else (table, frame.index)
    if interval is None:
        return pd.Series(table[:, 0], index=index, name="predicted")
    return pd.DataFrame(table, index=index, columns=names)


def offset_column(fit: Fit, frame: Frame | None, offset: str | ArrayLike | None) -> Column | None:
    """The `offset` argument of a prediction on the rows of new data; None where there is none.

    Parameters
    ----------
    fit : Fit
    frame : Frame or None
    offset : str, number, array_like or None
    """
    if offset is None:
        return None
    if frame is None:
        raise OptionError("`offset` is for new data; the rows of the fit have its own. Give data=, or leave it out.")
    recipe = fit.design.recipe
    return number_column(offset, "offset", frame, recipe.functions, dict(recipe.state))


def _check_observation(fit: Fit, type: object) -> None:
    if fit.categories:
        from lme4py.inference.prediction.ordinal import NO_OBSERVATION

        raise OptionError(NO_OBSERVATION)
    if type == "linear":
        raise OptionError(
            "interval='prediction' is that of a new observation, which is on the scale of the response; use "
            "type='response', or interval='confidence'."
        )


def _check(type: object, new_levels: object, interval: object) -> None:
    for name, value, allowed in (
        ("type", type, ("response", "linear")),
        ("new_levels", new_levels, ("zero", "error")),
        ("interval", interval, (None, "confidence", "prediction")),
    ):
        if value not in allowed:
            hint = did_you_mean(str(value), [word for word in allowed if word])
            raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}.{hint}")


def _predicted(fit: Fit, rows: Rows, own_terms: int | None, average: bool, type: str) -> FloatArray:
    # The numbers of the fit itself, without rounding on the way.
    eta = fit.linear_predictor if own_terms == len(fit.design.terms) else linear_predictor(fit, rows)
    if fit.family.link.is_identity or type == "linear":
        return eta
    if average:
        return averaged_mean(fit.family.link, eta, random_variance(fit, rows)).f
    return fit.family.mean(eta)


def at_limits(fit: Fit, rows: Rows, parts: list[FloatArray], type: str) -> list[FloatArray]:
    """Predictions without a finite linear predictor: their limits, without an interval."""
    recession = recession_of(fit)
    if recession is None:
        return parts
    limits = recession.limits_of(rows.X)
    warn_rows(recession, limits, interval=len(parts) > 1)
    away = limits != 0.0
    ends = limits if type == "linear" else limit_mean(fit, limits)
    return [np.where(away, ends if i == 0 else np.nan, part) for i, part in enumerate(parts)]


def linear_predictor(fit: Fit, rows: Rows) -> FloatArray:
    """x'beta + offset plus the conditional modes of the terms that `rows` has groups for, shape (n,)."""
    eta: FloatArray = rows.X @ fit.beta + rows.offset
    for t, codes in rows.codes.items():
        known = codes >= 0
        if known.all():
            eta = eta + np.einsum("nk,nk->n", rows.values[t], fit.modes[t][codes])
        else:
            eta[known] += np.einsum("nk,nk->n", rows.values[t][known], fit.modes[t][codes[known]])
    return eta


def random_variance(fit: Fit, rows: Rows) -> FloatArray:
    """z'Sigma z summed over the terms without groups in `rows`, and over rows of unknown groups, shape (n,)."""
    total = np.zeros(rows.n)
    for t, Z in rows.values.items():
        part = np.einsum("na,ab,nb->n", Z, fit.covariances[t], Z)
        total += np.where(rows.codes[t] < 0, part, 0.0) if t in rows.codes else part
    return total


def included_variance(fit: Fit, rows: Rows) -> FloatArray:
    """z'Sigma z of the terms whose groups `rows` has, where a group is unknown, shape (n,)."""
    values = {t: Z for t, Z in rows.values.items() if t in rows.codes}
    return random_variance(fit, Rows(rows.X, rows.offset, values, rows.codes, rows.frame))


def variance_slopes(fit: Fit, rows: Rows) -> FloatArray:
    """Derivatives of z'Sigma z, summed over all terms, in theta, shape (n, m)."""
    # From the design, which slim results have too.
    structures = fit.design.structures
    columns = []
    for t, (structure, theta) in enumerate(zip(structures.each, structures.split(fit.theta), strict=True)):
        Z = rows.values[t]
        columns += [np.einsum("na,ab,nb->n", Z, change, Z) for change in structure.covariance_tangents(theta)]
    return np.column_stack(columns)
