"""Choosing a model: backward elimination, and how well models predict groups that they have not seen."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from lme4py.arguments import speaks
from lme4py.data.frame import read_frame
from lme4py.design.names import INTERCEPTS
from lme4py.design.replay import replayed
from lme4py.errors import Lme4Error, Lme4Warning, OptionError
from lme4py.families.categories.counts import category_label, category_shares
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.refuse import (
    refuse_penalised,
    refuse_several_responses,
    refuse_smooths,
    refuse_structured,
)
from lme4py.fits.rows.clusters import find_clusters
from lme4py.inference.diagnostics.allfit import AllFitResult, all_fit
from lme4py.inference.refits.simulate import check_count, check_seed
from lme4py.linalg.types import BoolArray, FloatArray, IntArray
from lme4py.study.columns import table_of
from lme4py.tables.frames import printed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CrossValidation", "StepResult", "allfit", "cross_validate", "step"]


def allfit(result: Any, **options: Any) -> AllFitResult:
    """Fit again with several optimisers and starts, as R's ``allFit``; the same as ``result.all_fit()``.

    Parameters
    ----------
    result : MixedResult or MEGLMResult
    **options
        optimizers, n_starts, seed, max_evaluations.

    Returns
    -------
    AllFitResult

    Examples
    --------
    >>> from lme4py import allfit, lmer, load_dataset
    >>> found = allfit(lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")), n_starts=1)
    >>> type(found).__name__
    'AllFitResult'
    """
    return all_fit(_fit(result, "allfit"), **options)


def _fit(result: Any, function: str) -> Fit:
    fit = fit_of(result)
    if fit is None:
        raise OptionError(f"{function}() takes a fitted mixed model; this is of type {type(result).__name__}.")
    return fit


# --- backward elimination ---------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class StepResult:
    """What backward elimination did.

    Attributes
    ----------
    model : MixedResult or MEGLMResult
        What is left.
    steps : DataFrame
        What was left out, in order: term, kind ("random" or "fixed"), p_value.
    """

    model: Any
    steps: pd.DataFrame

    def __repr__(self) -> str:
        return f"{self.steps!r}\nModel: {self.model.formula}"


@speaks
def step(result: Any, alpha_random: float = 0.1, alpha_fixed: float = 0.05, ddf: str | None = None) -> StepResult:
    """Backward elimination: of random effects by likelihood ratios, then of fixed terms, as lmerTest's ``step``.

    At each step the term with the largest p-value above `alpha_random` (of `ranova`) or `alpha_fixed` (of `drop1`) is
    left out. One random effect stays. P-values of the model that is left do not know of the search.

    Parameters
    ----------
    result : MixedResult or MEGLMResult
        Made by a formula.
    alpha_random, alpha_fixed : float
    ddf : str, optional
        Of the F tests of linear models.

    Returns
    -------
    StepResult

    Examples
    --------
    >>> from lme4py import lmer, load_dataset, step
    >>> found = step(lmer("strength ~ 1 + (1 | batch) + (1 | sample)", load_dataset("Pastes")))
    >>> found.model.formula
    'strength ~ 1 + (1 | sample)'
    """
    fit = _fit(result, "step")
    refuse_structured(fit, "step() is", "compare models with anova()")
    refuse_penalised(fit, "step() is")
    refuse_smooths(fit, "step() is")
    model, rows = result, []
    while fit.design.terms:
        p, label, change = _worst_random(model)
        if change is None or not p > alpha_random:
            break
        rows.append((label, "random", p))
        model = model.update(change)
    while True:
        table = model.drop1(ddf=ddf) if model.fit.has_f_tests else model.drop1()
        known = table["p_value"].drop("<none>", errors="ignore").dropna()
        if not len(known) or not known.max() > alpha_fixed:
            break
        term = str(known.idxmax())
        rows.append((term, "fixed", float(known.max())))
        model = model.update(f"~ . - {term}")
    import pandas as pd

    return StepResult(model, printed(pd.DataFrame(rows, columns=["term", "kind", "p_value"]), title="Left out"))


def _worst_random(model: Any) -> tuple[float, str, str | None]:
    """The random effect with the largest p-value, and the change of the formula that leaves it out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        table = model.ranova()
    known = table["p_value"].drop("<none>", errors="ignore").dropna()
    terms = model.fit.design.terms
    if not len(known):
        return 0.0, "", None
    label = str(known.idxmax())
    slope, _, term = label.rpartition(" in ")
    if not slope:
        return float(known.max()), label, None if len(terms) == 1 else f"~ . - {label}"
    own = next(one for one in terms if one.label == term)
    variables = list(dict.fromkeys(re.sub(r"\[[^\]]*\]", "", name) for name in own.columns))
    left = [name for name in variables if name != slope]
    has_intercept = any(name in INTERCEPTS for name in left)
    inside = " + ".join(["1" if has_intercept else "0", *(name for name in left if name not in INTERCEPTS)])
    return float(known.max()), label, f"~ . - {term} + ({inside} | {own.group})"


# --- cross-validation -------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class CrossValidation:
    """How well a model predicts whole groups that it was not fitted to.

    Attributes
    ----------
    folds : DataFrame
        One row per fold: n_groups, n_obs, rmse, mae, and for linear models log_score (mean log density) and crps. Of
        categories n_groups, n_obs, log_score (mean log probability of the one observed), brier and accuracy, and rps
        (ranked probability score) of ordered ones.
    predictions : DataFrame
        Columns fold, observed, predicted of every row used, and std_dev of linear models. Of categories fold, predicted
        (the most probable one), and the probability of each.
    """

    folds: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def scores(self) -> dict[str, float]:
        """Means over the rows: rmse, mae, log_score, crps; of categories log_score, brier, accuracy, rps."""
        w = self.folds["n_obs"] / self.folds["n_obs"].sum()
        names = [str(name) for name in self.folds if name not in ("n_groups", "n_obs")]
        out = {name: float((w * self.folds[name]).sum()) for name in names}
        if "rmse" in out:
            out["rmse"] = float(np.sqrt((w * self.folds["rmse"] ** 2).sum()))
        return out

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        return f"<CrossValidation: {len(self.folds)} folds of whole groups; {told}>"


@speaks
def cross_validate(result: Any, groups: str | None = None, k: int = 5, seed: int | None = 0) -> CrossValidation:
    """Cross-validation that leaves out whole groups, with proper scores.

    Parameters
    ----------
    result : MixedResult or MEGLMResult
        Made by a formula; `weights` and `offset` as columns or expressions.
    groups : str, optional
        The grouping factor, or column of the data, whose levels are left out together; the outermost factor when they
        are nested.
    k : int
        Folds, at most the number of groups.
    seed : int or None
        Of the folds.

    Returns
    -------
    CrossValidation
        Rows of groups left out are predicted without random effects of theirs: averaged over the distribution of these.
        The log score and the continuous ranked probability score (Gneiting & Raftery 2007) of linear models are those
        of the normal distribution with the variance of a new group and a new row. The Brier score of categories is the
        sum of the squared differences of shares and probabilities, the ranked probability score that of cumulative
        ones (Epstein 1969, J. Appl. Meteorol. 8:985).

    Examples
    --------
    >>> from lme4py import cross_validate, lmer, load_dataset
    >>> found = cross_validate(lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")), k=6)
    >>> len(found.folds), 40 < found.scores["rmse"] < 60
    (6, True)
    """
    import pandas as pd

    fit = _fit(result, "cross_validate")
    refuse_structured(fit, "cross_validate() is", "compare models with anova()")
    refuse_several_responses(fit, "cross_validate() is")
    codes = find_clusters(fit.design, groups, "groups").codes
    folds = _folds(int(codes.max()) + 1, check_count("k", k, 2), check_seed(seed))
    table = table_of(fit.design)
    rows, parts = [], []
    for number in range(int(folds.max()) + 1):
        out = folds[codes] == number
        again = _refitted(result, table[~out], number)
        if fit.categories:
            scores, part = _categories_scored(fit, again.fit, table[out], out, number)
        else:
            mean, spread = _predicted(again.fit, table[out])
            observed = _observed(fit)[out]
            scores, part = _scores(observed, mean, spread), {"observed": observed, "predicted": mean}
            part |= {} if spread is None else {"std_dev": spread}
        rows.append({"n_groups": int((folds == number).sum()), "n_obs": int(out.sum()), **scores})
        parts.append(pd.DataFrame({"fold": number, **part}, index=table.index[out]))
    predictions = pd.concat(parts).sort_index()
    predictions.index = fit.design.index[fit.design.keep]
    return CrossValidation(pd.DataFrame(rows), predictions)


def _folds(levels: int, k: int, seed: int | None) -> IntArray:
    if k > levels:
        raise OptionError(f"`k` is {k}, but there are {levels} groups; give at most that many folds.")
    order = np.random.default_rng(seed).permutation(levels)
    folds = np.empty(levels, dtype=np.intp)
    folds[order] = np.arange(levels) % k
    return folds


def _refitted(result: Any, table: pd.DataFrame, number: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        try:
            return result.update(data=table)
        except Lme4Error as error:
            raise Lme4Error(f"the model cannot be fitted without the groups of fold {number}: {error}") from None


def _predicted(fit: Fit, table: pd.DataFrame) -> tuple[FloatArray, FloatArray | None]:
    """Means of rows of new groups, and of a linear model their standard deviations."""
    from lme4py.inference.prediction.predict import predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        mean = np.asarray(predict(fit, table, include_random="integrate"), dtype=np.float64)
    if not fit.normal_errors:
        return mean, None
    rows = replayed(fit.design, read_frame(table), fit.family)
    w = np.ones(rows.n_obs) if rows.weights is None else rows.weights
    variance = fit.sigma**2 / w
    for term, covariance in zip(rows.terms, fit.covariances, strict=True):
        own = np.ones(rows.n_obs) if term.relation is None else term.relation.variances[term.codes]
        variance = variance + own * np.einsum("na,ab,nb->n", term.values, covariance, term.values)
    variance = variance + np.einsum("np,pq,nq->n", rows.X, fit.vcov, rows.X)
    return mean, np.sqrt(variance)


def _categories_scored(
    fit: Fit, again: Fit, table: pd.DataFrame, out: BoolArray, number: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores of the probabilities of categories of rows of new groups, and what was predicted."""
    from lme4py.inference.prediction.predict import predict

    absent = [category_label(level) for level in fit.categories if level not in again.categories]
    if absent:
        raise Lme4Error(
            f"the category {absent[0]} occurs in the groups of fold {number} only, so that the model of the others "
            "has no probability of it; merge categories, or give another seed= or fewer folds."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        asked = (predict(again, table, include_random="integrate", type=type) for type in ("prob", "class"))
        probabilities, classes = asked
    p = np.asarray(probabilities[list(fit.categories)], dtype=np.float64)
    share = category_shares(fit.data)[out]
    # Rows of counts without trials say nothing.
    known = np.isfinite(share).all(axis=1)
    right = np.equal(p, p.max(axis=1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.where(share > 0.0, share * np.log(p), 0.0).sum(axis=1)
    by_row = {
        "log_score": log_p,
        "brier": ((share - p) ** 2).sum(axis=1),
        "accuracy": (share * right).sum(axis=1) / right.sum(axis=1),
    }
    if fit.family.has_thresholds:
        by_row["rps"] = (np.cumsum(share - p, axis=1) ** 2).sum(axis=1)
    scores = {name: float(np.mean(values[known])) for name, values in by_row.items()}
    columns = {category_label(level): own for level, own in zip(fit.categories, p.T, strict=True)}
    return scores, {"predicted": np.asarray(classes), **columns}


def _observed(fit: Fit) -> FloatArray:
    data = fit.data
    return data.y if data.trials is None else data.y / np.maximum(data.trials, 1.0)


def _scores(observed: FloatArray, mean: FloatArray, spread: FloatArray | None) -> dict[str, float]:
    error = observed - mean
    out = {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}
    if spread is None:
        return out
    z = error / spread
    crps = spread * (z * (2.0 * stats.norm.cdf(z) - 1.0) + 2.0 * stats.norm.pdf(z) - 1.0 / np.sqrt(np.pi))
    return out | {"log_score": float(np.mean(stats.norm.logpdf(z) - np.log(spread))), "crps": float(np.mean(crps))}
