"""Unordered categories: the multinomial logit with random effects of each category beside a baseline.

    log P(Y = k) / P(Y = baseline) = eta_k,      k one of the D = K - 1 other categories

(McFadden 1974, in *Frontiers in Econometrics*, 105). The linear predictors stand one below the other, so that a row has
D of them, and their D x D blocks of weights are those of the multinomial covariance, diag(p) - pp'.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lme4py.data.column import Column
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.families.base import Family, Kind
from lme4py.families.categories.counts import category_counts, category_label, category_trials, unordered_response
from lme4py.families.coercion import no_zero_weights
from lme4py.families.links import PROBABILITY_LINKS, Link
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, HalfRows, Order, RowNoise
from lme4py.families.shares import VarianceKind, latent_kind
from lme4py.formula.values import Value
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Multinomial"]

FIRST: Final = "conditional"


@dataclass(frozen=True)
class Multinomial(Family):
    """K unordered categories; the first is the baseline.

    Attributes
    ----------
    categories : tuple
        The baseline first; () before the response is known.
    baseline : object
        The category that is asked for as the baseline; None is the first level.
    """

    link: Link = PROBABILITY_LINKS["logit"]
    categories: tuple[Any, ...] = ()
    baseline: Any = None
    name = "multinomial"
    default_link = "logit"
    ratios = frozenset({"odds_ratio"})
    has_expected = False

    @property
    def kind(self) -> Kind:
        return "unordered"

    @property
    def canonical(self) -> bool:
        return True

    @property
    def log_concave(self) -> bool:
        return True

    @property
    def is_plain(self) -> bool:
        return False

    @property
    def variant(self) -> str:
        return f"baseline {category_label(self.categories[0])}" if self.categories else ""

    @property
    def others(self) -> tuple[str, ...]:
        """Labels of the categories beside the baseline."""
        return tuple(category_label(level) for level in self.categories[1:])

    @property
    def homes(self) -> tuple[str, ...]:
        # The first linear predictor has the name that every model's first has.
        return (FIRST, *(f"category {label}" for label in self.others[1:]))

    @property
    def stacked(self) -> tuple[str, ...]:
        return self.homes[1:]

    @property
    def is_joint(self) -> bool:
        return True

    # --- the response

    def coerce(
        self,
        value: Value,
        name: str,
        weights: FloatArray | None = None,
        *,
        levels: Iterable[Any] | None = None,
        column: Column | None = None,
    ) -> ResponseData:
        if levels is not None:
            raise self.lacks("levels=, the order of categories; name the first one by baseline=")
        no_zero_weights(weights)
        data = unordered_response(value, name, weights)
        if self.baseline is None:
            return data
        found = data.categories or ()
        labels = [category_label(level) for level in found]
        if category_label(self.baseline) not in labels:
            hint = did_you_mean(str(self.baseline), labels)
            raise OptionError(f"baseline={self.baseline!r} is no category of the response.{hint} They are {found!r}.")
        place = labels.index(category_label(self.baseline))
        return _in_order(data, [place, *(k for k in range(len(found)) if k != place)])

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        K = len(self.categories)
        if data.counts is not None:
            again = category_counts(values, self.categories, "new response", data.weights)
            return replace(again, parts=data.parts)
        if not np.isin(values, np.arange(K)).all():
            raise DataError(f"the new response holds values that are no positions 0 .. {K - 1} of its categories.")
        absent = [repr(self.categories[k]) for k in range(K) if not (values == k).any()]
        if absent:
            raise DataError(f"the new response never has {', '.join(absent)}, whose coefficients are then infinite.")
        return ResponseData(values, None, data.weights, data.categories)

    def check_categories(self, data: ResponseData) -> None:
        if tuple(data.categories or ()) != self.categories:
            raise OptionError("the response has other categories than the family.")

    def offset_labels(self, data: ResponseData) -> tuple[str, ...]:
        return tuple(category_label(level) for level in data.categories or ())

    # --- likelihood

    def _log_probabilities(self, eta: FloatArray, n: int) -> FloatArray:
        """log P, (..., K, n), from eta, (..., D n)."""
        D = len(self.categories) - 1
        wide = eta.reshape(*eta.shape[:-1], D, n)
        scores = np.concatenate([np.zeros((*wide.shape[:-2], 1, n)), wide], axis=-2)
        top = scores.max(axis=-2, keepdims=True)
        total: FloatArray = scores - top - np.log(np.exp(scores - top).sum(axis=-2, keepdims=True))
        return total

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Any = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """As `Family.derivatives`, with what belongs to each linear predictor one below the other."""
        n, D = data.n_obs, len(self.categories) - 1
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            log_p = self._log_probabilities(np.asarray(eta, dtype=np.float64), n)
        shown = category_trials(data, D + 1).T
        loglik = data.weight * (data.log_arrangements + np.einsum("kn,...kn->...n", shown, log_p))
        if order == 0:
            return EtaDerivatives(loglik)
        with np.errstate(under="ignore"):
            p = np.exp(log_p[..., 1:, :])
        w = data.weight * data.totals
        score = (data.weight * shown[1:] - w * p).reshape(eta.shape)
        if order == 1:
            return EtaDerivatives(loglik, score)
        own = [p[..., d, :] for d in range(D)]
        pairs = [*((d, d) for d in range(D)), *((d, e) for d in range(D) for e in range(d + 1, D))]
        w_obs = np.concatenate([w * (own[d] * ((d == e) - own[e])) for d, e in pairs], axis=-1)
        if order == 2:
            return EtaDerivatives(loglik, score, w_obs, w_obs, w_obs)
        slopes = [np.concatenate([w * _slope(own, c, d, e) for d, e in pairs], axis=-1) for c in range(D)]
        dw = slopes[0] if D == 1 else np.array(slopes)
        return EtaDerivatives(loglik, score, w_obs, w_obs, w_obs, dw, dw)

    def of_category(self, data: ResponseData, k: int) -> ResponseData:
        """The same rows, all with category number k and weight one."""
        return ResponseData(np.full(data.n_obs, float(k)), parts=data.parts)

    def crossing(self, lam: Any, data: ResponseData) -> BoolArray:
        """No row: there are no thresholds."""
        return np.zeros(data.n_obs, dtype=bool)

    def widest(self, lam: Any, data: ResponseData) -> float:
        return 1.0

    def valid(self, eta: FloatArray) -> BoolArray:
        return np.isfinite(eta)

    def room(self, eta: FloatArray, change: FloatArray) -> float:
        return 1.0

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """Probability of the category observed; of counts the mean of those of their trials, shape (n,).

        NaN in rows without trials.
        """
        p = self.probabilities(data, eta).T
        with np.errstate(invalid="ignore"):
            mean: FloatArray = (category_trials(data, len(self.categories)).T * p).sum(axis=0) / data.totals
        return mean

    def probabilities(self, data: ResponseData, eta: FloatArray) -> FloatArray:
        """Of all categories, the baseline first, (n, K).

        Parameters
        ----------
        data : ResponseData
        eta : ndarray, shape (D n,)
        """
        p: FloatArray = np.exp(self._log_probabilities(eta, data.n_obs)).T
        return p

    def against_others(self, data: ResponseData) -> list[ResponseData]:
        """Each category against all others: binomial rows, of the trials that a row has.

        Parameters
        ----------
        data : ResponseData
        """
        trials = None if data.counts is None else data.totals
        return [ResponseData(own, trials, data.weights) for own in category_trials(data, len(self.categories)).T]

    def observation_kind(self, method: str) -> VarianceKind:
        if method != "theoretical":
            raise self.lacks(f"variance={method!r}; use variance='theoretical', that of the latent variable")
        return latent_kind(self)

    # --- infinity and starts

    separates = "the categories"

    def half_rows(self, data: ResponseData, eta: FloatArray, beyond: bool = False) -> HalfRows:
        """None: what separates categories is looked for in their contrasts."""
        return HalfRows(np.zeros(0, dtype=np.intp), np.zeros(0))

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        return None

    def start_eta(self, data: ResponseData) -> FloatArray:
        return np.zeros(data.n_obs)

    def _simulate(self, eta: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        if np.any(data.weight != 1.0):
            raise self.lacks(
                "simulation of rows with weights: one draw for a row that stands for several would spread too far; "
                "give counts of the categories as cbind(a, b, c), or repeat the rows, in place of weights="
            )
        log_p = self._log_probabilities(eta, data.n_obs)
        if data.counts is not None:
            drawn: FloatArray = rng.multinomial(data.totals.astype(np.int64), _certain(log_p)).astype(np.float64)
            return drawn
        below = np.cumsum(np.exp(log_p), axis=0)[:-1]
        codes: FloatArray = (rng.random(data.n_obs) > below).sum(axis=0).astype(np.float64)
        return codes


def _certain(log_p: FloatArray) -> FloatArray:
    """Probabilities that add up to one, (n, K)."""
    p = np.exp(log_p).T
    total: FloatArray = p / p.sum(axis=1, keepdims=True)
    return total


def _in_order(data: ResponseData, order: list[int]) -> ResponseData:
    """The response with its categories in another order."""
    names = tuple((data.categories or ())[k] for k in order)
    if data.counts is not None:
        return category_counts(data.counts[:, order], names, "response", data.weights)
    return replace(data, y=np.argsort(order)[data.codes].astype(np.float64), categories=names)


def _slope(p: list[FloatArray], c: int, d: int, e: int) -> FloatArray:
    """Derivative of p_d (1[d = e] - p_e) in eta_c; that of p_d is p_d (1[c = d] - p_c)."""
    slope: FloatArray = p[d] * (((c == d) - p[c]) * ((d == e) - p[e]) - p[e] * ((c == e) - p[c]))
    return slope
