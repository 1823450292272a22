"""Ordinal mixed models from column names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import read_frame
from lme4py.errors import Lme4Warning
from lme4py.families.ordered.categories import MAX_CATEGORIES
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.fits.parameters import check_names
from lme4py.fits.survey.steps import survey_fit
from lme4py.inference.uncertainty.robust import with_vce
from lme4py.keyword.model import KeywordModel
from lme4py.keyword.options import control
from lme4py.results import MEGLMResult
from lme4py.results.call import records_call

if TYPE_CHECKING:
    from lme4py.keyword.generalised import Columns, Group, Slopes, Values

__all__ = ["meologit", "meoprobit"]


@records_call
def meologit(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    cov_type: str = "unstructured",
    offset: Values = None,
    nAGQ: int = 1,
    maxiter: int = 300,
    tol: float = 1e-6,
    alpha: float = 0.05,
    *,
    threshold: str = "flexible",
    levels: Iterable[Any] | None = None,
    crossed: bool = False,
    weights: Values = None,
    vce: str | None = None,
    ddf: str | None = None,
    pweights: Mapping[str | None, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
) -> MEGLMResult:
    """Fit a mixed ordered logistic regression from column names, as Stata's ``meologit``.

    Parameters
    ----------
    data : data frame
        pandas, polars, pyarrow, a dict of arrays, or anything else that narwhals reads.
    y : str
        An ordered categorical column, or numbers (in ascending order). Text is ordered by appearance and an unordered
        categorical by its categories, with a warning that prints the order. Categories without rows are left out.
    x_fixed, group, x_random, cov_type, offset, nAGQ, maxiter, tol, alpha, crossed, weights, vce, ddf
        As in `meglm`, like `pweights`, `pwscale` and `survey`. The thresholds take the place of the constant.
    threshold : {"flexible", "symmetric", "symmetric2", "equidistant"}
        As in `clmm`.
    levels : iterable, optional
        The categories from the lowest to the highest.

    Returns
    -------
    MEGLMResult
        With `thresholds`.

    Warns
    -----
    Lme4Warning
        Where the order of the categories is taken from the data.

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting.

    Examples
    --------
    >>> from lme4py import load_dataset, meologit
    >>> result = meologit(load_dataset("wine"), "rating", ["temp", "contact"], "judge")
    >>> result.params.round(3).to_dict()
    {'temp[T.warm]': 3.063, 'contact[T.yes]': 1.835}
    >>> round(result.log_likelihood, 4)
    -81.5654
    """
    keywords = {"offset": offset, "weights": weights, "alpha": alpha, "ddf": ddf, "vce": vce, "levels": levels}
    keywords |= {"pweights": pweights, "pwscale": pwscale, "survey": survey}
    model = KeywordModel(data, y, x_fixed, group, x_random, cov_type, crossed, **keywords)
    return _fitted(model, "logit", threshold, nAGQ, maxiter, tol)


@records_call
def meoprobit(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    cov_type: str = "unstructured",
    offset: Values = None,
    nAGQ: int = 1,
    maxiter: int = 300,
    tol: float = 1e-6,
    alpha: float = 0.05,
    *,
    threshold: str = "flexible",
    levels: Iterable[Any] | None = None,
    crossed: bool = False,
    weights: Values = None,
    vce: str | None = None,
    ddf: str | None = None,
    pweights: Mapping[str | None, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
) -> MEGLMResult:
    """Fit a mixed ordered probit regression from column names, as Stata's ``meoprobit``; see `meologit`.

    Parameters
    ----------
    data, y, x_fixed, group, x_random, cov_type, offset, nAGQ, maxiter, tol, alpha, threshold, levels, crossed
        As in `meologit`.
    weights, vce, ddf, pweights, pwscale, survey
        As in `meologit`.

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, meoprobit
    >>> result = meoprobit(load_dataset("wine"), "rating", ["temp", "contact"], "judge")
    >>> result.link, list(result.thresholds.index)
    ('probit', ['1|2', '2|3', '3|4', '4|5'])
    """
    keywords = {"offset": offset, "weights": weights, "alpha": alpha, "ddf": ddf, "vce": vce, "levels": levels}
    keywords |= {"pweights": pweights, "pwscale": pwscale, "survey": survey}
    model = KeywordModel(data, y, x_fixed, group, x_random, cov_type, crossed, **keywords)
    return _fitted(model, "probit", threshold, nAGQ, maxiter, tol)


def _fitted(model: KeywordModel, link: str, threshold: str, nAGQ: int, maxiter: int, tol: float) -> MEGLMResult:
    make_ordinal(link, threshold)
    check_options(nAGQ, "observed", fixed_points=True)
    settings = control(maxiter, tol)
    if model.levels is None:
        model = replace(model, levels=assumed_order(model.data, model.y))
    design, chosen = model.design("ordinal")
    categories = () if design.response is None else design.response.categories
    family = make_ordinal(link, threshold, len(categories or ()))
    check_names(design, family, stata=True)
    request = model.request
    if request is not None:
        return MEGLMResult(survey_fit(design, family, request, nAGQ=nAGQ, control=settings).speaking(chosen))
    fit = glmm_fit(design, family, nAGQ=nAGQ, control=settings)
    return MEGLMResult(with_vce(fit.speaking(chosen)))


def assumed_order(data: Any, y: Any) -> list[Any] | None:
    """The categories of a column without an order of its own, lowest first, with one warning; None for all others.

    Parameters
    ----------
    data : data frame
    y : str
        Text is taken in the order of its first appearance, an unordered categorical in that of its categories.
    """
    frame = None if isinstance(data, str) else read_frame(data)
    if frame is None or not isinstance(y, str) or y not in frame or frame.kind(y) not in ("text", "factor"):
        return None
    column = frame.column(y)
    order = _order_of(column)
    if order is None:
        return None
    how = "of their first appearance" if column.kind == "text" else "of the categorical, which is unordered"
    shown = [repr(level) for level in order]
    warnings.warn(
        f"the categories of the response {y!r} are taken in the order {how}: {' < '.join(shown)}. For another order "
        f"give them from the lowest to the highest, as in levels=[{', '.join(shown)}].",
        Lme4Warning,
        stacklevel=5,
    )
    return order


def _order_of(column: Column) -> list[Any] | None:
    """Levels in the order that is assumed; None where the order is not in doubt, or nothing is left to order."""
    found, first = np.unique(column.values, return_index=True)
    first, found = first[found >= 0], found[found >= 0]
    # Fewer, and more, are refused with words of their own.
    if column.declared or not 3 <= found.size <= MAX_CATEGORIES:
        return None
    if column.kind == "text":
        found = found[np.argsort(first)]
    order = [column.levels[int(code)] for code in found]
    numbers = all(isinstance(level, int | float | np.number) for level in order)
    return None if numbers and order == sorted(order) else order
