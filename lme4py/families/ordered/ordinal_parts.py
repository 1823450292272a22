"""Ordered categories beyond proportional odds: effects on single thresholds, on the scale, and other structures.

With w the nominal and z the scale columns of a row,

    t_k = (alpha_k + w'nu_k - eta) / exp(z'zeta),      thresholds alpha_k + w'nu_k = A (gamma + N w)

and P(Y = k) as `lme4py.families.ordered.cuts` has it (Peterson & Harrell 1990, J. R. Stat. Soc. C 39:205, partial
proportional odds; McCullagh 1980 for the scale). Random effects are part of eta, and divided by the scale too. lambda
has the coefficients of the parts, N row by row, and then gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np

from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.families.nuisance import Nuisance, NuisanceColumns
from lme4py.families.ordered.cuts import STRUCTURES, CutParts, cut_parts, cut_probabilities
from lme4py.families.ordered.ordinal import Ordinal, make_ordinal
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, HalfRows, Order, working_weight
from lme4py.families.shares import VarianceKind
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["NOMINAL", "SCALE", "OrdinalParts", "make_ordinal_parts"]

NOMINAL: Final = "nominal"
SCALE: Final = "scale"
# A cut of this size is an end of the range for all that rows can tell.
_FAR: Final = 16.0
# Logarithms of scales end here: beyond what rows can tell.
_FARTHEST: Final = 16.0
_NONE: Final[Any] = None


def make_ordinal_parts(
    link: object,
    threshold: object,
    n_categories: int,
    structure: object = "cumulative",
    nominal: Sequence[str] = (),
    scale: Sequence[str] = (),
) -> Ordinal:
    """The family of ordered categories with these parts; the plain cumulative one where there are none.

    Parameters
    ----------
    link, threshold
        As in `make_ordinal`.
    n_categories : int
    structure : {"cumulative", "adjacent", "sequential"}
    nominal, scale : sequence of str
        Names of the columns of the parts.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> make_ordinal_parts("logit", "flexible", 3, nominal=("x",)).nuisance_names
    ('nominal: 1|2: x', 'nominal: 2|3: x')
    """
    plain = make_ordinal(link, threshold, n_categories)
    if structure not in STRUCTURES:
        hint = did_you_mean(str(structure), STRUCTURES)
        raise OptionError(f"clmm has no structure {structure!r}.{hint} Use one of {', '.join(map(repr, STRUCTURES))}.")
    if structure == "adjacent" and plain.link.name != "logit":
        raise OptionError(
            f"adjacent-category models have the logit link, and link is {link!r}; use link='logit', or "
            "structure='sequential' or 'cumulative'."
        )
    if structure == "cumulative" and not nominal and not scale:
        return plain
    return OrdinalParts(plain.link, n_categories, plain.threshold, str(structure), tuple(nominal), tuple(scale))


@dataclass(frozen=True)
class OrdinalParts(Ordinal):
    """K ordered categories with effects on thresholds or scale, or of another structure.

    Attributes
    ----------
    structure : {"cumulative", "adjacent", "sequential"}
    nominal, scale : tuple of str
        Names of the columns of each part.
    """

    structure: str = "cumulative"
    nominal: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    has_expected = False

    @property
    def single_peaked(self) -> bool:
        return super().single_peaked and not self.scale

    @property
    def variant(self) -> str:
        words = {"cumulative": "", "adjacent": "adjacent categories, ", "sequential": "sequential, "}
        return f"{words[self.structure]}{self.threshold} thresholds"

    @property
    def event(self) -> str:
        given = {"adjacent": "{y} = k | {y} = k or k + 1", "sequential": "{y} = k | {y} &ge; k"}
        return given.get(self.structure, super().event)

    @property
    def is_plain(self) -> bool:
        return False

    # --- parameters

    @property
    def components(self) -> tuple[str, ...]:
        return ("conditional", *(name for name, own in ((NOMINAL, self.nominal), (SCALE, self.scale)) if own))

    @property
    def nominal_names(self) -> tuple[str, ...]:
        """Effect of each nominal column on each free parameter of the thresholds."""
        return tuple(f"{parameter}: {column}" for parameter in self.parameter_names for column in self.nominal)

    @property
    def n_coefficients(self) -> int:
        return len(self.nominal_names) + len(self.scale)

    @property
    def nuisance_names(self) -> tuple[str, ...]:
        nominal = tuple(f"{NOMINAL}: {name}" for name in self.nominal_names)
        return (*nominal, *(f"{SCALE}: {name}" for name in self.scale))

    def place(self, component: str) -> slice:
        count = len(self.nominal_names)
        places = {NOMINAL: slice(0, count), SCALE: slice(count, count + len(self.scale))}
        if component not in self.components[1:]:
            raise OptionError(f"the model has no part {component!r}; it has {', '.join(self.components)}.")
        return places[component]

    @property
    def n_cuts(self) -> int:
        """Free parameters of the thresholds."""
        return int(self.A.shape[1])

    @property
    def n_nuisance(self) -> int:
        return self.n_coefficients + self.n_cuts

    @property
    def constant(self) -> FloatArray | None:
        own = super().constant
        return None if own is None else np.concatenate([np.zeros(self.n_coefficients), own])

    def _gamma(self, lam: Nuisance) -> FloatArray:
        values = np.atleast_1d(np.asarray(lam, dtype=np.float64))
        return values[self.n_coefficients :]

    def alpha(self, lam: Nuisance) -> FloatArray:
        """Thresholds of rows whose nominal columns are zero, shape (K - 1,)."""
        thresholds: FloatArray = self.A @ self._gamma(lam)
        return thresholds

    def marginal_thresholds(self, share: FloatArray) -> FloatArray:
        if self.structure == "cumulative":
            return super().marginal_thresholds(share)
        if self.structure == "adjacent":
            return np.log(share[:-1]) - np.log(share[1:])
        return np.asarray(self.latent_quantile(share[:-1] / (1.0 - np.cumsum(share)[:-1] + share[:-1])))

    def allows(self, alpha: FloatArray) -> bool:
        return self.structure != "cumulative" or super().allows(alpha)

    @property
    def user_matrix(self) -> FloatArray:
        q, A = self.n_coefficients, self.A
        out = np.zeros((q + A.shape[0], q + A.shape[1]))
        out[:q, :q] = np.eye(q)
        out[q:, q:] = A
        return out

    # --- cuts of rows

    def _columns(self, data: ResponseData | None, component: str) -> FloatArray:
        found = () if data is None else tuple(part for part in data.parts if part.name == component)
        if not found:
            raise self.lacks(f"probabilities of rows without the columns of their {component} part")
        return found[0].X

    def thresholds_of(self, lam: Nuisance, data: ResponseData | None) -> FloatArray:
        """Thresholds of rows, shape (n, K - 1), or (1, K - 1) where all have the same."""
        if not self.nominal:
            return self.alpha(lam)[None]
        values = np.atleast_1d(np.asarray(lam, dtype=np.float64))
        N = values[self.place(NOMINAL)].reshape(self.n_cuts, len(self.nominal))
        free = self._gamma(lam) + self._columns(data, NOMINAL) @ N.T
        thresholds: FloatArray = free @ self.A.T
        return thresholds

    def log_scale_of(self, lam: Nuisance, data: ResponseData | None) -> FloatArray:
        """log sigma of rows, shape (n,), or (1,) where all have the same."""
        if not self.scale:
            return np.zeros(1)
        self._columns(data, SCALE)
        values = np.atleast_1d(np.asarray(lam, dtype=np.float64))
        parts = () if data is None else data.parts
        part = next(part for part in parts if part.name == SCALE)
        return np.clip(part.predictor(values[self.place(SCALE)]), -_FARTHEST, _FARTHEST)

    def cuts(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None) -> FloatArray:
        """t of rows, shape (..., n, K - 1)."""
        distance = self.thresholds_of(lam, data) - np.asarray(eta, dtype=np.float64)[..., None]
        scaled: FloatArray = distance * np.exp(-self.log_scale_of(lam, data))[:, None]
        return scaled

    # --- likelihood

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Nuisance = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """As `Ordinal.derivatives`; there are no expected weights."""
        eta = np.asarray(eta, dtype=np.float64)
        if not np.isfinite(np.atleast_1d(lam)).all():
            nothing = np.full(eta.shape, np.nan)
            return EtaDerivatives(np.full(eta.shape, -np.inf), *[nothing] * 6)
        t = self.cuts(eta, lam, data)
        found = cut_parts(self.structure, self.link, data.codes, t, order)
        m = np.exp(-self.log_scale_of(lam, data))
        w = data.weight
        loglik = w * np.where(np.isnan(found.value), -np.inf, found.value)
        if order == 0:
            return EtaDerivatives(loglik)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            score = -w * m * found.first.sum(axis=-1)
            d_lam = self._part(found.first, m * w, -w * (t * found.first).sum(axis=-1), data)
            if order == 1:
                return EtaDerivatives(loglik, score, d_lam=d_lam)
            w_obs = -w * m * m * found.curvature
            w_work = w_obs if self.log_concave else working_weight(w_obs, w * m * m * self._size(found))
            if order == 2:
                return EtaDerivatives(loglik, score, w_obs, working=w_work, d_lam=d_lam)
            return self._third(data, t, found, m, EtaDerivatives(loglik, score, w_obs, working=w_work, d_lam=d_lam))

    @staticmethod
    def _size(found: CutParts) -> FloatArray:
        """Squared slope of a row, which is its information on average."""
        size: FloatArray = np.maximum(found.first.sum(axis=-1) ** 2, np.abs(found.curvature))
        return size

    def _third(
        self, data: ResponseData, t: FloatArray, found: CutParts, m: FloatArray, rows: EtaDerivatives
    ) -> EtaDerivatives:
        w = data.weight
        along = (t * found.shifted).sum(axis=-1)
        twice = (t * found.bent).sum(axis=-1)
        slope = found.first.sum(axis=-1)
        return replace(
            rows,
            dw_obs=w * m**3 * found.bent.sum(axis=-1),
            score_lam=self._part(found.shifted, -w * m * m, w * m * (slope + along), data),
            w_obs_lam=self._part(found.bent, -w * m**3, w * m * m * (2.0 * found.curvature + twice), data),
            curve_lam=self._curve(data, t, found, m) if rows.loglik.ndim == 1 else _NONE,
        )

    def _part(self, by_cut: FloatArray, size: Any, in_scale: FloatArray, data: ResponseData) -> NuisanceColumns:
        """Derivatives in lambda of something whose derivatives in thresholds are `size` times `by_cut`."""
        free = (by_cut @ self.A) * np.broadcast_to(size, by_cut.shape[:-1])[..., None]
        own = [free[..., r] for r in range(self.n_cuts)]
        parts: list[FloatArray] = []
        columns: list[FloatArray | None] = []
        if self.nominal:
            parts += own
            columns += [self._columns(data, NOMINAL)] * len(own)
        if self.scale:
            parts.append(in_scale)
            columns.append(self._columns(data, SCALE))
        return NuisanceColumns((*parts, *own), (*columns, *[None] * len(own)))

    def _curve(self, data: ResponseData, t: FloatArray, found: CutParts, m: FloatArray) -> FloatArray:
        """-d2l / dlambda2 of all rows together, shape (d, d)."""
        A, w = self.A, data.weight
        both = (A.T @ found.second @ A) * (w * m * m * np.ones(data.n_obs))[:, None, None]
        pulled = (found.second @ t[..., None])[..., 0]
        crossed = -((found.first + pulled) @ A) * (w * m * np.ones(data.n_obs))[:, None]
        own = w * ((t * found.first).sum(axis=-1) + (t * pulled).sum(axis=-1))
        wide = self._wide(data)
        blocks = []
        for X, r in wide:
            row = []
            for Y, s in wide:
                second = (
                    own
                    if r is None and s is None
                    else crossed[:, s]
                    if r is None
                    else (crossed[:, r] if s is None else both[:, r, s])
                )
                row.append(-(X.T * second) @ Y)
            blocks.append(row)
        return np.block(blocks)

    def _wide(self, data: ResponseData) -> list[tuple[FloatArray, Any]]:
        """Columns of each block of lambda, and the parameter of the thresholds that it moves; None is the scale."""
        one = np.ones((data.n_obs, 1))
        nominal = [(self._columns(data, NOMINAL), r) for r in range(self.n_cuts)] if self.nominal else []
        scale: list[tuple[FloatArray, Any]] = [(self._columns(data, SCALE), None)] if self.scale else []
        return [*nominal, *scale, *((one, r) for r in range(self.n_cuts))]

    # --- the response

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        return replace(super().coerce_again(values, data, name, proportions), parts=data.parts)

    def observation_kind(self, method: str) -> VarianceKind:
        raise self.lacks(
            "shares of the variance with nominal=, scale= or another structure: no latent variable has one scale"
        )

    # --- infinity

    @property
    def contrasts(self) -> FloatArray:
        """Means of neighbouring thresholds that decide between two categories, shape (C, K - 1).

        Adjacent categories j < k have log P(j) / P(k) = t_j + .. + t_(k-1); elsewhere each threshold is on its own.
        """
        q = self.n_categories - 1
        if self.structure != "adjacent":
            return np.eye(q)
        low, high = np.array(self._pairs).T[:, :, None]
        between = (np.arange(q) >= low) & (np.arange(q) < high)
        means: FloatArray = between / (high - low)
        return means

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(self.n_categories), 2))

    def half_rows(self, data: ResponseData, eta: FloatArray, beyond: bool = False) -> HalfRows:
        """A row stays possible while no step that it took becomes impossible, on a scale that stays where it is.

        A sequential row takes the step over every threshold below it and stops at the one above; adjacent categories
        have each other one as a neighbour, at the mean of the thresholds between them (`contrasts`).
        """
        if self.structure == "cumulative":
            return super().half_rows(data, eta, beyond)
        y = data.codes[:, None]
        if self.structure == "sequential":
            cuts = np.arange(self.n_categories - 1)
            sides = np.where(cuts < y, 1.0, np.where(cuts == y, -1.0, 0.0))
        else:
            low, high = np.array(self._pairs).T
            sides = np.where(high == y, 1.0, np.where(low == y, -1.0, 0.0))
        row, threshold = np.nonzero(sides)
        return HalfRows(row, sides[row, threshold], threshold)

    def half_columns(self, half: HalfRows, data: ResponseData) -> FloatArray | None:
        own: FloatArray = (self.contrasts @ self.A)[half.threshold]
        parts = [np.zeros((own.shape[0], len(self.scale))), own]
        if self.nominal:
            columns = self._columns(data, NOMINAL)[half.row]
            parts.insert(0, (own[:, :, None] * columns[:, None, :]).reshape(own.shape[0], -1))
        return np.hstack(parts)

    def silent(self, data: ResponseData, rest: BoolArray) -> FloatArray | None:
        if not self.scale:
            return None
        Z = self._columns(data, SCALE)
        kept = np.linalg.svd(Z[rest] / np.maximum(np.abs(Z).max(axis=0), 1e-300), full_matrices=True)
        still = kept[2][int((kept[1] > 1e-9 * max(float(kept[1].max(initial=0.0)), 1e-300)).sum()) :].T
        out = np.zeros((self.n_nuisance, still.shape[1]))
        out[self.place(SCALE)] = still
        return out

    def tail(self, lam: Nuisance, data: ResponseData) -> float:
        return float(self.link.tail * np.exp(self.log_scale_of(lam, data)).max())

    def rates(
        self, half: HalfRows, rows: EtaDerivatives, data: ResponseData, eta: FloatArray, lam: Nuisance
    ) -> FloatArray:
        """Slopes in the cut of each half row; of adjacent categories the probability of the other one."""
        t = self.cuts(eta, lam, data)
        if self.structure == "adjacent":
            low, high = np.array(self._pairs).T[:, half.threshold]
            slopes = cut_probabilities(self.structure, self.link, t)[half.row, np.where(half.sign > 0.0, low, high)]
        else:
            slopes = cut_parts(self.structure, self.link, data.codes, t, 1).first[half.row, half.threshold]
        size = data.weight * np.exp(-self.log_scale_of(lam, data)) * np.ones(data.n_obs)
        rates: FloatArray = np.abs(slopes) * size[half.row]
        return rates

    def scale_columns(self, data: ResponseData) -> tuple[slice, FloatArray] | None:
        return (self.place(SCALE), self._columns(data, SCALE)) if self.scale else None

    def trouble(self, data: ResponseData, eta: FloatArray, lam: Any) -> str:
        """Why effects on thresholds or scale have no finite estimate, or ""."""
        thresholds = self.thresholds_of(lam, data)
        if float(np.abs(thresholds - np.median(thresholds)).max()) > 2.0 * _FAR and self.structure != "cumulative":
            return "a threshold goes to infinity: some category is never, or always, passed in some rows"
        if self.nominal and float(np.abs(thresholds - np.median(thresholds)).max()) > 2.0 * _FAR:
            return (
                "effects of the nominal part go to infinity: its columns tell rows that never have some category from "
                "others; merge categories, or leave columns out"
            )
        if self.scale and float(np.abs(self.log_scale_of(lam, data)).max()) > _FAR:
            return "effects of the scale part go to infinity: some rows are all of one category; leave columns out"
        return ""

    # --- probabilities

    def probabilities(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None = None) -> FloatArray:
        """P(Y = k) of all categories, shape (..., n, K); NaN where thresholds of a row cross.

        Parameters
        ----------
        eta : ndarray, shape (..., n)
        lam : ndarray
        data : ResponseData
            With the columns of the parts.
        """
        return cut_probabilities(self.structure, self.link, self.cuts(eta, lam, data))

    def log_probabilities(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None = None) -> FloatArray:
        with np.errstate(divide="ignore"):
            return np.log(self.probabilities(eta, lam, data))

    def cumulative(self, eta: FloatArray, lam: Nuisance, data: ResponseData | None = None) -> FloatArray:
        """P(Y <= k), k = 1 .. K - 1, shape (..., n, K - 1)."""
        t = self.cuts(eta, lam, data)
        if self.structure != "cumulative":
            return np.cumsum(cut_probabilities(self.structure, self.link, t), axis=-1)[..., :-1]
        with np.errstate(over="ignore", under="ignore"):
            return self.link.complement(-t)

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Nuisance) -> FloatArray:
        """Probability of the category observed, shape (n,)."""
        with np.errstate(under="ignore"):
            p: FloatArray = np.exp(self.derivatives(replace(data, weights=None), eta, lam, 0).loglik)
        return p

    def cdf(self, y: FloatArray, eta: FloatArray, lam: Nuisance, data: ResponseData) -> FloatArray:
        inside = self.cumulative(eta, lam, data)
        ends = np.zeros((*inside.shape[:-1], 1)), np.ones((*inside.shape[:-1], 1))
        below = np.concatenate([ends[0], inside, ends[1]], axis=-1)
        place = np.clip(np.floor(y) + 1.0, 0.0, self.n_categories).astype(np.intp)
        return np.take_along_axis(below, np.broadcast_to(place, np.shape(eta))[..., None], axis=-1)[..., 0]

    def crossing(self, lam: Nuisance, data: ResponseData) -> BoolArray:
        if self.structure != "cumulative" or not self.nominal:
            return np.zeros(data.n_obs, dtype=bool)
        return np.asarray((np.diff(self.thresholds_of(lam, data), axis=1) <= 0.0).any(axis=1))

    def widest(self, lam: Nuisance, data: ResponseData) -> float:
        return float(np.exp(-self.log_scale_of(lam, data)).max())

    def _simulate(self, eta: FloatArray, lam: Nuisance, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        if self.crossing(lam, data).any():
            raise DataError(
                f"the thresholds of {int(self.crossing(lam, data).sum())} rows do not increase with their nominal "
                "effects, so that categories have no probabilities there and nothing can be drawn."
            )
        above = rng.random(np.shape(eta))[..., None] > self.cumulative(eta, lam, data)
        codes: FloatArray = above.sum(axis=-1).astype(np.float64)
        return codes
