"""Ordered categories: cumulative link models P(Y <= k) = F(alpha_k - eta), k = 1 .. K - 1.

F(x) = 1 - G(-x) with the inverse link G, so that P(Y > k) = G(eta - alpha_k): with two categories the model is the
binomial one with the same link. This is what R's `clmm` has with one random intercept; with several random effects,
and in its `clm`, R has cloglog and loglog the other way round.

The thresholds are linear in free parameters, alpha = A gamma (McCullagh 1980, J. R. Stat. Soc. B 42:109):

| structure   | gamma                                                                        |
| ----------- | ---------------------------------------------------------------------------- |
| flexible    | all thresholds                                                               |
| symmetric   | the central one (two for odd K), and distances from it, the same on both sides |
| symmetric2  | the same distances from zero                                                 |
| equidistant | the first threshold and the distance between neighbours                      |

Thresholds that do not increase have likelihood zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lme4py.data.column import Column
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.links import PROBABILITY_LINKS, ProbabilityLink
from lme4py.families.nuisance import DensePart, Nuisance, ThresholdPart
from lme4py.families.ordered.categories import ordinal_response
from lme4py.families.ordered.interval_rows import Intervals, RowParts, make_intervals, row_parts
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, HalfRows, Order, RowNoise, working_weight
from lme4py.families.shares import VarianceKind, latent_kind
from lme4py.formula.values import Value
from lme4py.frozen import computed_once
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ORDINAL_LINKS", "THRESHOLDS", "Ordinal", "make_ordinal"]

ORDINAL_LINKS: Final = ("logit", "probit", "cloglog", "loglog", "cauchit")
THRESHOLDS: Final = ("flexible", "symmetric", "symmetric2", "equidistant")
_NONE: Final[Any] = None


def make_ordinal(link: object = "logit", threshold: object = "flexible", n_categories: int = 3) -> Ordinal:
    """The family of a cumulative link model.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog", "loglog", "cauchit"}
    threshold : {"flexible", "symmetric", "symmetric2", "equidistant"}
    n_categories : int
        K.

    Raises
    ------
    OptionError
        For a link or a structure that does not exist.

    Examples
    --------
    >>> make_ordinal("probit", "symmetric", 5).parameter_names
    ('central.1', 'central.2', 'spacing.1')
    """
    for name, value, allowed in (("link", link, ORDINAL_LINKS), ("threshold", threshold, THRESHOLDS)):
        if value not in allowed:
            raise OptionError(
                f"clmm has no {name} {value!r}.{did_you_mean(str(value), allowed)} Use one of "
                f"{', '.join(map(repr, allowed))}."
            )
    return Ordinal(PROBABILITY_LINKS[str(link)], n_categories, str(threshold))


@dataclass(frozen=True)
class Ordinal(Family):
    """K ordered categories.

    Attributes
    ----------
    link : ProbabilityLink
        G; the latent variable has the distribution function F(x) = 1 - G(-x).
    n_categories : int
        K.
    threshold : str
        "flexible", "symmetric", "symmetric2" or "equidistant".
    """

    link: ProbabilityLink
    n_categories: int = 3
    threshold: str = "flexible"
    name = "ordinal"
    kind = "ordered"
    default_link = "logit"
    ratios = frozenset({"odds_ratio"})
    instead = (
        "use the probabilities of the categories: predict(type='prob'), predict(type='cumulative') or "
        "predict(type='class')"
    )
    # The score already holds what the thresholds need.
    nuisance_order = 1

    @property
    def is_plain(self) -> bool:
        """Whether the cuts of a row depend on it by its location alone, as differences of P(Y > k)."""
        return True

    @property
    def log_concave(self) -> bool:
        return self.link.log_concave

    @property
    def canonical(self) -> bool:
        """False: no link makes the observed and the expected weights the same."""
        return False

    @property
    def event(self) -> str:
        """HTML of what the thresholds are about."""
        return "{y} &le; k"

    @property
    def variant(self) -> str:
        return f"{self.threshold} thresholds"

    # --- thresholds

    @computed_once
    def A(self) -> FloatArray:
        """Thresholds = A gamma, shape (K - 1, d)."""
        count = self.n_categories - 1
        if self.threshold == "flexible":
            return np.eye(count)
        if self.threshold == "equidistant":
            return np.column_stack([np.ones(count), np.arange(count, dtype=np.float64)])[:, : min(count, 2)]
        half = count // 2
        spacing = np.zeros((count, half))
        for i in range(half):
            spacing[half - 1 - i, i], spacing[count - half + i, i] = -1.0, 1.0
        if self.threshold == "symmetric2":
            return spacing
        if count % 2:
            return np.column_stack([np.ones(count), spacing])
        lower: FloatArray = np.repeat(np.array([1.0, 0.0]), half)
        # The two central thresholds are free; distances start with the next pair.
        return np.column_stack([lower, 1.0 - lower, spacing[:, 1:]])

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of gamma."""
        count = self.n_categories - 1
        if self.threshold == "flexible":
            return tuple(f"{k}|{k + 1}" for k in range(1, count + 1))
        if self.threshold == "equidistant":
            return ("threshold.1", "spacing")[: self.A.shape[1]]
        central = {"symmetric": ("central.1", "central.2") if count % 2 == 0 else ("central",), "symmetric2": ()}
        first = central[self.threshold]
        return (*first, *(f"spacing.{i}" for i in range(1, self.A.shape[1] - len(first) + 1)))

    @property
    def n_nuisance(self) -> int:
        return int(self.A.shape[1])

    @property
    def constant(self) -> FloatArray | None:
        """e with A e = 1, so that a constant in eta can move into gamma; None where there is none."""
        e: Any = np.linalg.lstsq(self.A, np.ones(self.n_categories - 1), rcond=None)[0] if self.n_nuisance else None
        return np.rint(e) if e is not None and np.allclose(self.A @ e, 1.0) else None

    @property
    def threshold_matrix(self) -> FloatArray | None:
        return self.A

    @property
    def user_matrix(self) -> FloatArray:
        return self.A

    def alpha(self, lam: Nuisance) -> FloatArray:
        """Thresholds, shape (K - 1,)."""
        thresholds: FloatArray = self.A @ np.atleast_1d(np.asarray(lam, dtype=np.float64))
        return thresholds

    def parameters(self, alpha: FloatArray) -> FloatArray:
        """gamma of thresholds that have the structure, shape (d,)."""
        return np.asarray(np.linalg.lstsq(self.A, alpha, rcond=None)[0], dtype=np.float64)

    def latent_quantile(self, p: FloatArray) -> FloatArray:
        """F^-1, shape of p."""
        return -self.link.eta(1.0 - p)

    def marginal_thresholds(self, share: FloatArray) -> FloatArray:
        """Thresholds at which the categories have these probabilities in a row with eta = 0, shape (K - 1,)."""
        return np.asarray(self.latent_quantile(np.cumsum(share)[:-1]))

    def allows(self, alpha: FloatArray) -> bool:
        """Whether thresholds give every category a probability."""
        return bool((np.diff(alpha) > 0.0).all())

    # --- likelihood

    def _intervals(self, lam: Nuisance) -> Intervals | None:
        """None where the thresholds do not increase."""
        alpha = self.alpha(lam)
        if not (np.isfinite(alpha).all() and (np.diff(alpha) > 0.0).all()):
            return None
        with np.errstate(over="ignore"):
            return make_intervals(alpha)

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Nuisance = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """Log-likelihood of each row and its derivatives; `d_lam` comes with order 1, and `curve_lam` with order 3.

        Parameters
        ----------
        data : ResponseData
            `y` holds the codes 0 .. K - 1.
        eta : ndarray, shape (n,) or (N, n)
        lam : ndarray, shape (d,)
            gamma.
        order : {0, 1, 2, 3}
        expected : bool
            False has the observed weights in the place of the expected ones, which need all categories of each row.
        """
        intervals = self._intervals(lam)
        if intervals is None:
            nothing = np.full(eta.shape, np.nan)
            return EtaDerivatives(np.full(eta.shape, -np.inf), *[nothing] * 6)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            parts = row_parts(self.link.name, self.link.lower_tail, intervals, data.codes, eta, order)
            result = self._assemble(data, eta, lam, parts, order)
            return self._with_expected(result, data, eta, intervals, order) if expected and order >= 2 else result

    def _assemble(
        self, data: ResponseData, eta: FloatArray, lam: Nuisance, parts: RowParts, order: Order
    ) -> EtaDerivatives:
        w = data.weights

        def weighted(part: FloatArray, sign: float = 1.0) -> FloatArray:
            if w is not None:
                return part * w if sign > 0 else part * -w
            return part if sign > 0 else -part

        def pair(up: FloatArray, low: FloatArray, sign: float = 1.0) -> Any:
            return ThresholdPart(weighted(up, sign), weighted(low, sign), data.codes, self.A)

        loglik = weighted(np.where(np.isnan(parts.value), -np.inf, parts.value))
        if order == 0:
            return EtaDerivatives(loglik)
        score, d_lam = weighted(parts.s, -1.0), pair(parts.up, parts.low)
        if order == 1:
            return EtaDerivatives(loglik, score, d_lam=d_lam)
        w_obs = weighted(parts.ss, -1.0)
        w_work = w_obs if self.log_concave else working_weight(w_obs, weighted(self._scoring_weight(eta, lam)))
        if order == 2:
            return EtaDerivatives(loglik, score, w_obs, w_obs, w_work, d_lam=d_lam)
        dw = weighted(parts.sss)
        score_lam, w_lam = pair(parts.up_s, parts.low_s, -1.0), pair(parts.up_ss, parts.low_ss, -1.0)
        curve = self._curvature(data, parts) if eta.ndim == 1 else _NONE
        return EtaDerivatives(loglik, score, w_obs, w_obs, w_work, dw, dw, d_lam, score_lam, w_lam, w_lam, curve)

    def _with_expected(
        self, rows: EtaDerivatives, data: ResponseData, eta: FloatArray, intervals: Intervals, order: Order
    ) -> EtaDerivatives:
        """`rows` with E(-d2l/deta2) = sum_k p_k (dlog p_k / deta)^2 and its derivatives."""
        K = self.n_categories
        total, slope = np.zeros(eta.shape), np.zeros(eta.shape)
        by_threshold = np.zeros((K - 1, *eta.shape))
        for k in range(K):
            parts = row_parts(self.link.name, self.link.lower_tail, intervals, np.full(eta.shape[-1], k), eta, 3)
            p, s = np.exp(parts.value), parts.s
            # Far out p s^2 is a zero times an infinity, and zero.
            possible = p > 0.0
            total += np.where(possible, p * s * s, 0.0)
            slope -= np.where(possible, p * s * (s * s + 2.0 * parts.ss), 0.0)
            if k < K - 1:
                by_threshold[k] += np.where(possible, p * s * (parts.up * s + 2.0 * parts.up_s), 0.0)
            if k > 0:
                by_threshold[k - 1] += np.where(possible, p * s * (parts.low * s + 2.0 * parts.low_s), 0.0)
        w = data.weight
        if order < 3:
            return replace(rows, w_exp=w * total)
        in_lam = DensePart((w * by_threshold).T @ self.A)
        return replace(rows, w_exp=w * total, dw_exp=w * slope, w_exp_lam=in_lam)

    def _curvature(self, data: ResponseData, parts: RowParts) -> FloatArray:
        """-d2l/dgamma2 of all rows together, shape (d, d)."""
        K = self.n_categories
        pieces = (parts.up_up, parts.low_low, parts.up_low)
        up, low, both = (
            np.bincount(data.codes, weights=p if data.weights is None else p * data.weights, minlength=K)
            for p in pieces
        )
        B = np.diag(up[:-1] + low[1:]) + np.diag(both[1:-1], 1) + np.diag(both[1:-1], -1)
        curvature: FloatArray = -self.A.T @ B @ self.A
        return curvature

    def _scoring_weight(self, eta: FloatArray, lam: Nuisance) -> FloatArray:
        """Expected information of eta, shape of eta."""
        intervals = self._intervals(lam)
        total = np.zeros(eta.shape)
        if intervals is None:
            return total
        for k in range(self.n_categories):
            codes = np.full(eta.shape[-1], k)
            parts = row_parts(self.link.name, self.link.lower_tail, intervals, codes, eta, 1)
            total += np.exp(parts.value) * parts.s**2
        return total

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
        return ordinal_response(value, name, levels, weights, column)

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        """From positions of the categories, each of which must occur."""
        K = self.n_categories
        if not np.isin(values, np.arange(K)).all():
            raise DataError(f"the new response holds values that are no positions 0 .. {K - 1} of its categories.")
        labels = data.categories or tuple(range(K))
        absent = [repr(labels[k]) for k in range(K) if not (values == k).any()]
        if absent:
            raise DataError(
                f"the new response never has {', '.join(absent)}: a threshold has no finite estimate; fit a model with "
                "fewer categories."
            )
        return ResponseData(values, None, data.weights, data.categories)

    def check_categories(self, data: ResponseData) -> None:
        found = len(data.categories or ())
        if found != self.n_categories:
            raise OptionError(
                f"the family has {self.n_categories} ordered categories, but the response has {found or 'none'}; make "
                "the design with lformula(..., family='ordinal') and the family with as many categories."
            )

    def observation_kind(self, method: str) -> VarianceKind:
        if method == "delta":
            raise OptionError("variance='delta' is not defined for an ordinal response; use variance='theoretical'.")
        return super().observation_kind(method) if method != "theoretical" else latent_kind(self)

    # --- infinity

    separates = "the categories"

    def half_rows(self, data: ResponseData, eta: FloatArray, beyond: bool = False) -> HalfRows:
        """A row stays possible while eta falls below the threshold above it, and while it rises over the one below."""
        above, below = (np.flatnonzero(chosen) for chosen in (data.codes < self.n_categories - 1, data.codes > 0))
        threshold = np.concatenate([data.codes[above], data.codes[below] - 1])
        row = np.concatenate([above, below])
        return HalfRows(row, np.repeat([-1.0, 1.0], [above.size, below.size]), threshold)

    def answers(self, data: ResponseData) -> FloatArray | None:
        """The categories, 0 .. K - 1."""
        return data.y

    def answer_name(self, data: ResponseData, answer: float) -> str:
        return f"only {(data.categories or range(self.n_categories))[int(answer)]!r}"

    def half_columns(self, half: HalfRows, data: ResponseData) -> FloatArray | None:
        columns: FloatArray = self.A[half.threshold]
        return columns

    def rates(
        self, half: HalfRows, rows: EtaDerivatives, data: ResponseData, eta: FloatArray, lam: Nuisance
    ) -> FloatArray:
        """Slopes in the threshold of each half row."""
        part = rows.d_lam
        assert isinstance(part, ThresholdPart)
        slopes: FloatArray = np.where(half.sign < 0.0, part.upper[half.row], -part.lower[half.row])
        return slopes

    # --- probabilities

    def of_category(self, data: ResponseData, k: int) -> ResponseData:
        """The same rows, all with category number k and weight one."""
        return ResponseData(np.full(data.n_obs, float(k)), parts=data.parts)

    def crossing(self, lam: Nuisance, data: ResponseData) -> BoolArray:
        """Rows whose thresholds do not increase, so that some category has no probability there, shape (n,)."""
        return np.zeros(data.n_obs, dtype=bool)

    def widest(self, lam: Nuisance, data: ResponseData) -> float:
        """How many times as wide as a random effect what the link sees of it can be."""
        return 1.0

    def log_probabilities(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None = None) -> FloatArray:
        """log P(Y = k) of all categories, shape (..., n, K)."""
        intervals = self._intervals(lam)
        if intervals is None:
            raise DataError("the thresholds do not increase, so the categories have no probabilities.")
        flat = np.asarray(eta, dtype=np.float64)
        out = np.empty((*flat.shape, self.n_categories))
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            for k in range(self.n_categories):
                codes: IntArray = np.full(flat.shape[-1], k)
                out[..., k] = row_parts(self.link.name, self.link.lower_tail, intervals, codes, flat, 0).value
        return out

    def probabilities(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None = None) -> FloatArray:
        """P(Y = k) of all categories, shape (..., n, K).

        Parameters
        ----------
        eta : ndarray, shape (..., n)
        lam : ndarray
        data : ResponseData, optional
            The rows with their further linear predictors, where the model has these.
        """
        with np.errstate(under="ignore"):
            p: FloatArray = np.exp(self.log_probabilities(eta, lam))
        return p

    def cumulative(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None = None) -> FloatArray:
        """P(Y <= k), k = 1 .. K - 1, shape (..., n, K - 1)."""
        with np.errstate(over="ignore", under="ignore"):
            return self.link.complement(np.asarray(eta, dtype=np.float64)[..., None] - self.alpha(lam))

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Nuisance) -> FloatArray:
        """Probability of the category observed, shape (n,)."""
        with np.errstate(under="ignore"):
            p: FloatArray = np.exp(self.derivatives(ResponseData(data.y), eta, lam, 0).loglik)
        return p

    def cdf(self, y: FloatArray, eta: FloatArray, lam: Nuisance, data: ResponseData) -> FloatArray:
        below = np.concatenate([np.zeros((*np.shape(eta), 1)), self.cumulative(eta, lam)], axis=-1)
        below = np.concatenate([below, np.ones((*np.shape(eta), 1))], axis=-1)
        place = np.clip(np.floor(y) + 1.0, 0.0, self.n_categories).astype(np.intp)
        return np.take_along_axis(below, np.broadcast_to(place, np.shape(eta))[..., None], axis=-1)[..., 0]

    def row_noise(self, data: ResponseData) -> RowNoise:
        """That of the latent variable, of which a row shows one interval (or several, with weights)."""
        weights = np.maximum(data.weight * np.ones(data.n_obs), 1.0)
        return RowNoise("the variation of a single ordered response", float(weights.sum()), weights)

    def _simulate(self, eta: FloatArray, lam: Nuisance, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        above = rng.random(np.shape(eta))[..., None] > self.cumulative(eta, lam)
        codes: FloatArray = above.sum(axis=-1).astype(np.float64)
        return codes
