"""Predictions and residuals of models for categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lme4py.data.frame import read_frame
from lme4py.engine.identification.recession import Recession
from lme4py.errors import IdentificationWarning, OptionError, did_you_mean, warn
from lme4py.families.ordered.categories import category_label
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import chosen_alpha, constant_df, quantile
from lme4py.inference.estimates.limits import known_errors, masked, warn_rows
from lme4py.inference.prediction.averages import average_over
from lme4py.inference.prediction.categories import (
    CategoryRows,
    ModeErrors,
    category_limits,
    category_rows,
    category_table,
    coefficients_of,
    home_rows,
    mode_errors,
)
from lme4py.inference.prediction.ordinal_intervals import probability_limits
from lme4py.inference.prediction.predictor import family_of, linear_predictor, offset_column, random_variance
from lme4py.inference.prediction.rows import (
    chosen_terms,
    make_rows,
    padded,
    report_unseen,
    without_unseen,
)
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CATEGORY_TYPES",
    "ORDINAL_RESIDUALS",
    "asked_errors",
    "by_predictor",
    "categories_shown",
    "category_probabilities",
    "general_parts",
    "ordinal_residuals",
    "plain_parts",
    "predict_categories",
    "probabilities_at_limits",
    "threshold_parameters",
    "thresholds",
    "thresholds_se",
]

# Types of predictions that are not numbers on the linear scale.
CATEGORY_TYPES = ("response", "prob", "cumulative", "class")
# Probabilities that differ by this part are equal but for rounding.
_TIED = 1e-12
# How many tails away from the fit a probability is at its limit, and how near to it.
_FAR = 1e3
_SAME = 1e-6
ORDINAL_RESIDUALS = ("deviance", "probability", "score")
NO_CLASS_LIMITS = "the most probable category has no limits; use type='prob' with interval='confidence'."
NO_OBSERVATION = (
    "interval='prediction' is not available for categories: a new observation is one of the categories, and "
    "its distribution is predict(type='prob') itself (include_random='integrate' for a new group); use "
    "interval='confidence' for limits of these probabilities."
)


def predict_categories(
    fit: Fit,
    data: Any = None,
    include_random: bool | str | Iterable[str] = True,
    type: str = "prob",
    new_levels: str = "zero",
    interval: str | None = None,
    alpha: float | None = None,
    ddf: str | None = None,
    offset: str | ArrayLike | Mapping[str, Any] | None = None,
    se: bool = False,
) -> pd.DataFrame | pd.Series[Any]:
    """Probabilities of the categories, cumulative probabilities, or the most probable category.

    Parameters
    ----------
    fit : Fit
        Of ordered categories.
    data : data frame, optional
        New data; None predicts the rows that were fitted. The response is not needed.
    include_random : bool, str or iterable of str
        True adds the conditional modes of all terms, False none; names of grouping factors add theirs only;
        "integrate" averages the probabilities over the distribution of the random effects.
    type : {"response", "prob", "cumulative", "class"}
        "response" and "prob" are the same.
    new_levels : {"zero", "error", "missing"}
        Groups that were not in the fit contribute nothing, with one warning, or are refused.
    interval : {None, "confidence"}
        Limits of each probability on its own; see `lme4py.inference.prediction.ordinal_intervals`. There is none of
        the class, and no "prediction" interval.
    alpha : float, optional
        One minus the level of the interval; that of the fit when not given.
    ddf : {None, "residual", "normal"}
        Degrees of freedom of the limits; `default_ddf` of the fit when not given.
    offset : str, number or array_like, shape (n,), optional
        As in `lme4py.inference.prediction.predict.predict`.
    se : bool
        Also the standard error of each probability, by the delta method.

    Returns
    -------
    pandas.DataFrame
        One column per category, labelled by it: P(Y = k), or P(Y <= k) for "cumulative". NaN in rows of new data with
        a missing value. With an interval each category has three columns, predicted, lower and upper: the columns are
        a MultiIndex, and ``table[category]`` is the frame of one category.
    pandas.Series
        For "class": a categorical, ordered where the categories are. Where several are equally probable the first of
        them, with a warning.

    Raises
    ------
    OptionError, DataError
    """
    if type not in CATEGORY_TYPES:
        hint = did_you_mean(str(type), (*CATEGORY_TYPES, "linear"))
        allowed = ", ".join(map(repr, ("linear", *CATEGORY_TYPES)))
        raise OptionError(f"type={type!r} is not known for categories.{hint} Use one of {allowed}.")
    _check_interval(interval, type)
    if se and type == "class":
        raise OptionError(NO_CLASS_LIMITS)
    level = chosen_alpha(fit, alpha)
    chosen = chosen_terms(fit, include_random)
    average = isinstance(include_random, str) and include_random == "integrate"
    frame = None if data is None else read_frame(data)
    rows = make_rows(fit, frame, chosen, average, offset_column(fit, frame, offset))
    rows = without_unseen(rows, new_levels)
    report_unseen(fit, rows, new_levels, stacklevel=5)
    whole = rows.complete
    z = None if interval is None else float(quantile(level, constant_df(fit, ddf)))
    z = 1.0 if se and z is None else z
    if fit.family.is_plain:
        parts = plain_parts(fit, rows.take(whole), average, type == "cumulative", z)
    else:
        errors = None
        if z is not None and rows.codes:
            errors = mode_errors(fit, [one.take(whole) for one in home_rows(fit, rows)])
        parts = general_parts(fit, category_rows(fit, rows, average, whole), type == "cumulative", z, errors)
    parts = parts if z is None else asked_errors(parts, z, se, interval is not None)
    table = np.full((rows.n, len(fit.categories), len(parts)), np.nan)
    table[whole] = np.stack(parts, axis=-1)
    table, index = padded(fit, table) if frame is None else (table, frame.index)
    return categories_shown(fit, table, index, type)


def categories_shown(fit: Fit, table: FloatArray, index: pd.Index[Any], type: str) -> pd.DataFrame | pd.Series[Any]:
    """Numbers of the categories on an index.

    Parameters
    ----------
    fit : Fit
    table : ndarray, shape (n, K, c)
        Probabilities, standard errors where c is 2 or 4, and limits where it is 3 or 4.
    index : Index
    type : {"response", "prob", "cumulative", "class"}
    """
    return _most_probable(fit, table[:, :, 0], index) if type == "class" else _by_category(fit, table, index)


def by_predictor(fit: Fit, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Linear predictors of the categories beside the baseline: a column for each, or a pair of levels.

    Parameters
    ----------
    fit : Fit
    parts : sequence of DataFrame
        One for each, with the columns predicted and what was asked for beside it.
    """
    import pandas as pd

    labels = pd.Index(list(fit.categories[1:]), name=fit.design.response_name)
    if len(parts[0].columns) == 1:
        return pd.concat([part["predicted"] for part in parts], axis=1).set_axis(labels, axis=1)
    columns = pd.MultiIndex.from_product([labels, list(parts[0].columns)], names=[labels.name, None])
    return pd.concat(parts, axis=1).set_axis(columns, axis=1)


def _by_category(fit: Fit, table: FloatArray, index: pd.Index[Any]) -> pd.DataFrame:
    """A column for each category; of several numbers each, (n, K, c), a pair of levels (category, number)."""
    import pandas as pd

    columns: pd.Index[Any] = pd.Index(list(fit.categories), name=fit.design.response_name)
    if table.shape[2] > 1:
        numbers = ["predicted", *["std_error"] * (table.shape[2] % 2 == 0), *["lower", "upper"] * (table.shape[2] > 2)]
        columns = pd.MultiIndex.from_product([columns, numbers], names=[columns.name, None])
    return pd.DataFrame(table.reshape(len(table), -1), index=index, columns=columns)


def _most_probable(fit: Fit, table: FloatArray, index: pd.Index[Any]) -> pd.Series[Any]:
    import pandas as pd

    missing = np.isnan(table).any(axis=1)
    shares = np.where(np.isnan(table), -1.0, table)
    top = shares >= (1.0 - _TIED) * shares.max(axis=1, keepdims=True)
    tied = (top.sum(axis=1) > 1) & ~missing
    if tied.any():
        first = int(np.flatnonzero(tied)[0])
        names = " and ".join(
            category_label(level) for level, own in zip(fit.categories, top[first], strict=True) if own
        )
        warn(
            f"{int(tied.sum())} of {tied.size} rows have several most probable categories (the first of these rows: "
            f"{names}); the first of them in the order of the categories is given. See type='prob'.",
            IdentificationWarning,
        )
    codes = np.where(missing, -1, top.argmax(axis=1))
    kind = pd.CategoricalDtype(list(fit.categories), ordered=fit.family.has_thresholds)
    values = pd.Categorical.from_codes(codes.astype(np.int64), dtype=kind)
    return pd.Series(values, index=index, name="predicted")


def asked_errors(parts: list[FloatArray], z: float, se: bool, interval: bool) -> list[FloatArray]:
    """Of probabilities with limits that are normal on the logit scale: errors and limits where these are asked for.

    Parameters
    ----------
    parts : list of ndarray
        Probabilities, lower and upper limits.
    z : float
        Normal quantile of the limits.
    se, interval : bool
    """
    p, lower, upper = parts
    with np.errstate(divide="ignore", invalid="ignore"):
        error = p * (1.0 - p) * (special.logit(upper) - special.logit(p)) / z
    # What is certain has no error.
    error = np.where(np.isnan(error) & ~np.isnan(upper), 0.0, error)
    return [p, *([error] if se else []), *([lower, upper] if interval else [])]


def plain_parts(fit: Fit, rows: RowArrays, average: bool, cumulative: bool, z: float | None) -> list[FloatArray]:
    """Probabilities of complete rows, and their limits where `z` is given: differences of P(Y > k).

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
    average, cumulative : bool
    z : float or None
        Normal quantile.
    """
    parts = [category_probabilities(fit, rows, average, cumulative=cumulative)]
    if z is not None:
        parts += probability_limits(fit, rows, z, average, cumulative=cumulative)
    return probabilities_at_limits(fit, rows, parts, average, cumulative=cumulative)


def general_parts(
    fit: Fit, rows: CategoryRows, cumulative: bool, z: float | None, errors: ModeErrors | None = None
) -> list[FloatArray]:
    """The same of models whose categories depend on a row in several ways.

    Parameters
    ----------
    fit : Fit
    rows : CategoryRows
    cumulative : bool
    z : float or None
    errors : ModeErrors, optional
        Of conditional modes that the rows have.
    """
    table = category_table(fit, rows, z is not None, moved=None if errors is None else errors.moved)
    if bool(np.isnan(table.p).any()):
        warn(
            f"the thresholds of {int(np.isnan(table.p).any(axis=1).sum())} of {rows.n} rows do not increase with their "
            "nominal effects: the curves of categories cross there, and predictions are NaN.",
            IdentificationWarning,
        )
    table = table.cumulative() if cumulative else table
    parts = [table.p]
    if z is not None:
        parts += category_limits(fit, table, z, None if errors is None else errors.random)
    return parts if fit.recession is None else _general_limits(fit, rows, fit.recession, parts, cumulative)


def _general_limits(
    fit: Fit, own: CategoryRows, recession: Recession, parts: list[FloatArray], cumulative: bool
) -> list[FloatArray]:
    """Probabilities that move along the directions of recession: where all of these lead, or NaN; no intervals."""
    estimates = coefficients_of(fit)
    far = _FAR * fit.family.tail(fit.lam, own.data)

    def at(move: FloatArray) -> FloatArray:
        table = category_table(fit, own, False, estimates + move)
        return (table.cumulative() if cumulative else table).p

    with np.errstate(all="ignore"):
        ends = np.array([at(far * direction) for direction in recession.directions])
        one = np.isclose(ends, ends[0], rtol=0.0, atol=_SAME).all(axis=0)
        away = ~one | ~np.isclose(at(-far * recession.directions[0]), ends[0], rtol=0.0, atol=_SAME)
        # Between two ends a category can have zeros at both: it still falls by a factor.
        step = fit.family.tail(fit.lam, own.data) * recession.directions[0]
        away |= ~np.isclose(at(step), at(0.0 * step), rtol=_SAME, atol=0.0)
    end = np.where(one, ends[0], np.nan)
    warn_rows(recession, np.where(away, np.where(np.isnan(end), np.nan, 1.0), 0.0), len(parts) > 1, stacklevel=6)
    return [np.where(away, end if i == 0 else np.nan, part) for i, part in enumerate(parts)]


def probabilities_at_limits(
    fit: Fit, rows: RowArrays, parts: list[FloatArray], average: bool, cumulative: bool
) -> list[FloatArray]:
    """Probabilities beside thresholds whose distance from eta is not finite: their limits, without intervals."""
    if fit.recession is None:
        return parts
    n, K = rows.n, len(fit.categories)
    cuts = np.eye(len(fit.recession.names))[fit.beta.size :]
    X = np.hstack([rows.X, np.zeros((n, K - 1))])
    limits = fit.recession.limits_of((cuts - X[:, None, :]).reshape(-1, X.shape[1])).reshape(n, K - 1)
    if not (limits != 0.0).any():
        return parts
    below = category_probabilities(fit, rows, average, cumulative=True)
    below[:, :-1] = np.select(
        [limits == np.inf, limits == -np.inf, np.isnan(limits)], [1.0, 0.0, np.nan], below[:, :-1]
    )
    away = np.hstack([limits != 0.0, np.zeros((n, 1), dtype=bool)])
    ends = below
    if not cumulative:
        ends = np.diff(below, axis=1, prepend=0.0)
        away = away | np.hstack([np.zeros((n, 1), dtype=bool), away[:, :-1]])
    warn_rows(fit.recession, np.where(away, np.where(np.isnan(ends), np.nan, 1.0), 0.0), len(parts) > 1, stacklevel=6)
    return [np.where(away, ends if i == 0 else np.nan, part) for i, part in enumerate(parts)]


def _check_interval(interval: object, type: str) -> None:
    if interval not in (None, "confidence", "prediction"):
        hint = did_you_mean(str(interval), ("confidence",))
        raise OptionError(f"interval must be None or 'confidence' for categories, got {interval!r}.{hint}")
    if interval == "prediction":
        raise OptionError(NO_OBSERVATION)
    if interval is not None and type == "class":
        raise OptionError(NO_CLASS_LIMITS)


def category_probabilities(fit: Fit, rows: Any, average: bool = False, cumulative: bool = False) -> FloatArray:
    """P(Y = k), or P(Y <= k), of complete rows, shape (n, K).

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        With the columns of all terms when `average`.
    average : bool
        Over the normal distribution of the random effects that `rows` has no groups for.
    cumulative : bool
    """
    family, lam = family_of(fit), fit.lam

    def table(eta: FloatArray) -> FloatArray:
        if not cumulative:
            return family.probabilities(eta, lam)
        return np.column_stack([family.cumulative(eta, lam), np.ones(eta.size)])

    eta = linear_predictor(fit, rows)
    if not average:
        return table(eta)
    return average_over(table, family.link, eta, np.sqrt(random_variance(fit, rows)))


def ordinal_residuals(fit: Fit, type: str = "deviance") -> FloatArray:
    """Residuals of the rows used, shape (n,), conditional on the modes of the random effects.

    Parameters
    ----------
    fit : Fit
    type : {"deviance", "probability", "score"}
        "probability": P(Y < y) - P(Y > y), the probability-scale residual (Shepherd, Li & Liu 2016, Can. J. Stat.
        44:463), in -1 .. 1 and of mean 0 in the model. "deviance": the root of -2 w log P(Y = y), with the sign of
        the former; the squares add up to the conditional deviance. "score": the derivative of the log-likelihood of
        the row in its linear predictor, weights included (the generalised residual of Gourieroux et al. 1987, J.
        Econometrics 34:5).

    Raises
    ------
    OptionError
        For "response", "pearson" and "working": ordered categories have no mean to subtract.
    """
    if type not in ORDINAL_RESIDUALS:
        no_mean = ("response", "pearson", "working", "scaled")
        why = (
            "ordered categories have no mean to subtract."
            if type in no_mean
            else f"it is no kind of residual.{did_you_mean(str(type), ORDINAL_RESIDUALS)}"
        )
        raise OptionError(
            f"type={type!r} is not available for ordered categories: {why} Use one of {', '.join(ORDINAL_RESIDUALS)}."
        )
    family, eta = family_of(fit), fit.linear_predictor
    if type == "score":
        return family.derivatives(fit.data, eta, fit.lam, 1).score
    inside = family.cumulative(eta, fit.lam, fit.data)
    below = np.column_stack([np.zeros(eta.size), inside, np.ones(eta.size)])
    rows, codes = np.arange(eta.size), fit.data.codes
    probability: FloatArray = below[rows, codes] - (1.0 - below[rows, codes + 1])
    if type == "probability":
        return probability
    deviance = -2.0 * family.derivatives(fit.data, eta, fit.lam, 0).loglik
    signed: FloatArray = np.sign(probability) * np.sqrt(np.maximum(deviance, 0.0))
    return signed


def thresholds(fit: Fit) -> pd.Series[float]:
    """Thresholds under their names.

    Parameters
    ----------
    fit : Fit
    """
    return _named(fit, fit.threshold_estimates, "threshold")


def thresholds_se(fit: Fit) -> pd.Series[float]:
    """Standard errors of the thresholds.

    Parameters
    ----------
    fit : Fit
    """
    return _named(fit, fit.threshold_se, "std_error")


def _named(fit: Fit, values: FloatArray | None, name: str) -> pd.Series[float]:
    import pandas as pd

    family_of(fit)
    return pd.Series(values, index=pd.Index(list(fit.threshold_names), name="term"), name=name, copy=True)


def threshold_parameters(fit: Fit) -> pd.DataFrame:
    """The free parameters of the thresholds, as R's clmm prints them: estimate and std_error.

    The thresholds themselves where these are "flexible"; else central.1, spacing.1 and the like.

    Parameters
    ----------
    fit : Fit
    """
    import pandas as pd

    family = family_of(fit)
    names = fit.threshold_names if family.threshold == "flexible" else family.parameter_names
    back = np.linalg.pinv(family.A)
    vcov: Any = fit.threshold_vcov
    before = fit.beta.size + family.n_coefficients
    rows = np.hstack([np.zeros((back.shape[0], before)), back])
    joint = np.zeros((rows.shape[1], rows.shape[1]))
    joint[before:, before:] = vcov
    columns = {
        "estimate": masked(fit, rows, fit.lam[family.n_coefficients :]),
        "std_error": known_errors(fit, rows, joint),
    }
    return pd.DataFrame(columns, index=pd.Index(list(names), name="term"))
