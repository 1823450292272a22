"""Several responses with a family each, in rows of one response each; independent given the random effects.

The log-likelihood of a row is that of the family of its response, so that derivatives of rows are those of the families
on their own rows. lambda holds the parameters beside the linear predictor of all families, one family after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lme4py.errors import OptionError
from lme4py.families.base import Family, Kind
from lme4py.families.links import Link
from lme4py.families.mean_response import MeanResponse
from lme4py.families.nuisance import NuisanceColumns, as_columns
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, HalfRows, Order, RowNoise
from lme4py.families.shares import VarianceKind
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ByResponse", "ByResponseLink", "joined_data"]

_BY_LAMBDA: Final = ("d_lam", "score_lam", "w_obs_lam", "w_exp_lam")
_BY_ROW: Final = ("loglik", "score", "w_obs", "w_exp", "w_work", "dw_obs", "dw_exp")


class ByResponseLink(Link):
    """The links of several responses, all of them with predictors of any size: what they are called."""

    low, high = -np.inf, np.inf
    has_unit = False

    def __init__(self, labels: Sequence[str], links: Sequence[Link]) -> None:
        self.name = ", ".join(f"{label}: {link.name}" for label, link in zip(labels, links, strict=True))
        self.tail = max(link.tail for link in links)

    @property
    def extremes(self) -> tuple[float, float]:
        return -np.inf, np.inf

    @property
    def inner(self) -> float:
        return 0.0

    def averaged(self, eta: FloatArray, v: FloatArray, order: int) -> tuple[FloatArray, ...] | None:
        raise OptionError("several responses have several links; predict each by its own.")

    def mean(self, eta: FloatArray) -> FloatArray:
        raise OptionError("several responses have several links, and no mean follows from a linear predictor alone.")

    def eta(self, mu: FloatArray) -> FloatArray:
        raise OptionError("several responses have several links, and no linear predictor follows from a mean alone.")

    def derivatives(self, eta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        raise OptionError("several responses have several links; what is asked for needs one.")


def joined_data(parts: Sequence[ResponseData], codes: IntArray) -> ResponseData:
    """Responses of several families in the order of their rows.

    Parameters
    ----------
    parts : sequence of ResponseData
        Of each response.
    codes : ndarray of int, shape (n,)
        Which response each row is for.
    """

    def whole(get: Callable[[ResponseData], FloatArray | None], other: float) -> FloatArray | None:
        found = [get(part) for part in parts]
        if all(values is None for values in found):
            return None
        out = np.full(codes.size, other)
        for k, values in enumerate(found):
            if values is not None:
                out[codes == k] = values
        return out

    y = np.empty(codes.size)
    for k, part in enumerate(parts):
        y[codes == k] = part.y
    notes = tuple(note for part in parts for note in part.notes)
    trials, weights = whole(lambda part: part.trials, 1.0), whole(lambda part: part.weights, 1.0)
    return ResponseData(y, trials, weights, notes=notes, responses=codes)


@dataclass(frozen=True)
class ByResponse(Family):
    """A family for each of several responses.

    Attributes
    ----------
    labels : tuple of str
        Names of the D responses.
    families : tuple of Family
    """

    labels: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()
    default_link = ""

    @classmethod
    def of(cls, labels: Sequence[str], families: Sequence[Family]) -> ByResponse:
        """The family of these responses.

        Parameters
        ----------
        labels : sequence of str
        families : sequence of Family

        Raises
        ------
        OptionError
            A family that is not one of a mean, or a link whose predictors have a bounded range.
        """
        for label, family in zip(labels, families, strict=True):
            if not isinstance(family, MeanResponse) or family.stacked or not family.mean_is_link:
                raise OptionError(
                    f"the {family.name} family cannot be that of one of several responses ({label}); there are "
                    "gaussian, binomial, poisson, nbinomial, gamma and other families with one mean."
                )
            if family.link.low > -np.inf or family.link.high < np.inf:
                raise OptionError(
                    f"the {family.link.name} link of {label} has predictors of a bounded range, which several "
                    "responses cannot have; use link='log', or the family's own default."
                )
        return cls(ByResponseLink(labels, [family.link for family in families]), tuple(labels), tuple(families))

    # --- facts

    @property
    def name(self) -> str:
        return ", ".join(f"{label}: {family.name}" for label, family in zip(self.labels, self.families, strict=True))

    @property
    def kind(self) -> Kind:
        return "real"

    @property
    def mean_is_link(self) -> bool:
        return False

    @property
    def has_rows_of_several(self) -> bool:
        return True

    @property
    def has_one_link(self) -> bool:
        return len({(family.name, family.link.name) for family in self.families}) == 1

    @property
    def canonical(self) -> bool:
        return all(family.canonical for family in self.families)

    @property
    def log_concave(self) -> bool:
        return all(family.log_concave for family in self.families)

    @property
    def single_peaked(self) -> bool:
        return all(family.single_peaked for family in self.families)

    @property
    def has_expected(self) -> bool:  # type: ignore[override]
        return all(family.has_expected for family in self.families)

    @property
    def weights_multiply(self) -> bool:
        return all(family.weights_multiply for family in self.families)

    @property
    def separates(self) -> str:
        return "responses of one kind from others"

    # --- parameters beside eta

    @property
    def nuisance_order(self) -> Order:
        return max((family.nuisance_order for family in self.families if family.n_nuisance), default=1)

    @property
    def n_nuisance(self) -> int:
        return sum(family.n_nuisance for family in self.families)

    def place_of(self, k: int) -> slice:
        """Where the parameters of response number k are in lambda.

        Parameters
        ----------
        k : int
        """
        start = sum(family.n_nuisance for family in self.families[:k])
        return slice(start, start + self.families[k].n_nuisance)

    def lam_of(self, lam: Any, k: int) -> Any:
        """lambda of the family of response number k, as it has it.

        Parameters
        ----------
        lam : ndarray, shape (d,)
        k : int
        """
        own = np.atleast_1d(np.asarray(lam, dtype=np.float64))[self.place_of(k)]
        return 0.0 if not own.size else float(own[0]) if own.size == 1 else own

    @property
    def nuisance_names(self) -> tuple[str, ...]:
        return tuple(name for name, *_ in self._parameters())

    def _parameters(self) -> list[tuple[str, Callable[[float], float], Callable[[float], float]]]:
        """Name, value and its derivative of every parameter, from a scale without bounds."""
        out: list[tuple[str, Callable[[float], float], Callable[[float], float]]] = []
        for label, family in zip(self.labels, self.families, strict=True):
            for i, name in enumerate(family.nuisance_names):
                out.append((f"{name}({label})", *_other(family, i)))
            if family.n_dispersion:
                # Of normal responses the standard deviation, as everywhere.
                power, word = (0.5, "sigma") if family.has_residual else (1.0, family.parameter)
                out.append((f"{word}({label})", *_exponential(power)))
        return out

    def other_values(self, others: Sequence[float]) -> FloatArray:
        return np.array([value(x) for (_, value, _), x in zip(self._parameters(), others, strict=True)])

    def other_natural(self, number: int, value: float) -> float:
        return self._parameters()[number][1](value)

    def other_slopes(self, others: Sequence[float]) -> FloatArray:
        return np.diag([slope(x) for (_, _, slope), x in zip(self._parameters(), others, strict=True)])

    def other_limits(self, number: int, value: float, half: float) -> tuple[float, float]:
        """On the scale of logarithms."""
        if not value > 0.0 or not np.isfinite(half):
            return 0.0, float("inf")
        with np.errstate(over="ignore"):
            return float(value * np.exp(-half / value)), float(value * np.exp(half / value))

    def trouble(self, data: ResponseData, eta: FloatArray, lam: Any) -> str:
        """A dispersion at the end of its range, by the response."""
        for k, (label, family) in enumerate(zip(self.labels, self.families, strict=True)):
            own, part = self.lam_of(lam, k), self.data_of(data, k)
            if family.n_dispersion and family.limit is not None:
                distance = float(np.atleast_1d(own)[-1]) - family.lambda_unit(part)
                if family.limit.in_tail(distance):
                    return f"the dispersion of {label} is at the end of its range ({family.limit.model})"
            why = family.trouble(part, eta[self.rows_of(data, k)], own)
            if why:
                return f"{label}: {why}"
        return ""

    # --- rows

    def rows_of(self, data: ResponseData, k: int) -> IntArray:
        """Rows of response number k.

        Parameters
        ----------
        data : ResponseData
        k : int
        """
        if data.responses is None:
            raise self.lacks("numbers for rows that do not say which response they are for")
        codes = data.responses
        rows: IntArray = data.remember(("rows of", k), lambda: np.flatnonzero(codes == k))
        return rows

    def data_of(self, data: ResponseData, k: int) -> ResponseData:
        """What the family of response number k sees of its rows.

        Parameters
        ----------
        data : ResponseData
        k : int
        """

        def make() -> ResponseData:
            own = data.take(self.rows_of(data, k))
            return replace(own, trials=own.trials if self.families[k].has_trials else None, responses=None)

        part: ResponseData = data.remember(("data of", k), make)
        return part

    def _each(self, data: ResponseData) -> list[tuple[int, Family, IntArray, ResponseData]]:
        """Number, family, rows and data of each response that has rows."""
        found = [(k, f, self.rows_of(data, k), self.data_of(data, k)) for k, f in enumerate(self.families)]
        return [own for own in found if own[2].size]

    def _by_row(self, data: ResponseData, get: Callable[[int, Family, IntArray, ResponseData], FloatArray]) -> Any:
        """A number for each row, from those of each response."""
        out = np.empty(data.n_obs)
        for k, family, rows, own in self._each(data):
            out[rows] = get(k, family, rows, own)
        return out

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Any = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """As `Family.derivatives`, those of each family in its own rows."""
        eta = np.asarray(eta, dtype=np.float64)
        found = [
            (k, rows, family.derivatives(own, eta[..., rows], self.lam_of(lam, k), order, expected=expected))
            for k, family, rows, own in self._each(data)
        ]
        parts: dict[str, Any] = {}
        for name in _BY_ROW:
            pieces = [(rows, getattr(own, name)) for _, rows, own in found]
            if all(piece is not None for _, piece in pieces):
                parts["working" if name == "w_work" else name] = _placed(eta.shape, pieces)
        for name in _BY_LAMBDA if self.n_nuisance else ():
            columns = [self._columns(eta.shape, k, rows, getattr(own, name)) for k, rows, own in found]
            if all(own is not None for own in columns):
                parts[name] = NuisanceColumns(tuple(column for own in columns for column in own or ()))
        if order == 3 and self.n_nuisance:
            parts["curve_lam"] = self._curve(found, eta.ndim)
        return EtaDerivatives(**parts)

    def _columns(self, shape: tuple[int, ...], k: int, rows: IntArray, part: Any) -> list[FloatArray] | None:
        """Derivatives in the parameters of one family as arrays of all rows; None where they were not asked for."""
        count = self.families[k].n_nuisance
        if not count:
            return []
        if part is None:
            return None
        pieces = part.parts if isinstance(part, NuisanceColumns) else (part,)
        return [_placed(shape, [(rows, piece)]) for piece in pieces]

    def _curve(self, found: Sequence[tuple[int, IntArray, EtaDerivatives]], ndim: int) -> FloatArray | None:
        """-d2l / dlambda2 of all rows, or the size of it from squared scores where a family does not have it."""
        if ndim > 1:
            return None
        out = np.eye(self.n_nuisance)
        for k, _, own in found:
            place = self.place_of(k)
            if place.stop > place.start and own.d_lam is not None:
                scores = as_columns(own.d_lam)
                out[place, place] = scores.T @ scores if own.curve_lam is None else own.curve_lam
        return out

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        parts = [
            family.coerce_again(values[rows], own, self.labels[k], False) for k, family, rows, own in self._each(data)
        ]
        codes = np.zeros(data.n_obs, dtype=np.intp) if data.responses is None else data.responses
        return joined_data(parts, codes)

    def row_units(self, data: ResponseData) -> FloatArray:
        """Spread of the linear predictors of responses that have a unit to the nearest power of two, shape (n,)."""
        out = np.ones(data.n_obs)
        for _, family, rows, own in self._each(data):
            if family.link.has_unit and family.has_unit:
                spread = float(np.std(family.start_eta(own)))
                out[rows] = 2.0 ** np.round(np.log2(spread)) if np.isfinite(spread) and spread > 0.0 else 1.0
        return out

    # --- infinity

    def half_rows(self, data: ResponseData, eta: FloatArray, beyond: bool = False) -> HalfRows:
        found = [(rows, family.half_rows(own, eta[rows], beyond)) for _, family, rows, own in self._each(data)]
        return HalfRows(
            np.concatenate([rows[half.row] for rows, half in found]), np.concatenate([half.sign for _, half in found])
        )

    def rates(self, half: HalfRows, rows: EtaDerivatives, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        units = self.row_units(data)
        rate: FloatArray = np.maximum(np.abs(rows.score) * units, np.abs(rows.w_obs) * units**2)[half.row]
        return rate

    def says_nothing(self, data: ResponseData) -> BoolArray:
        out = np.zeros(data.n_obs, dtype=bool)
        for _, family, rows, own in self._each(data):
            out[rows] = family.says_nothing(own)
        return out

    # --- moments and draws

    def mean(self, eta: FloatArray) -> FloatArray:
        raise self.lacks("mean that follows from a linear predictor alone; use predict(), or Margins with component=")

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """Mean of each row by its own link, shape (n,)."""
        found: FloatArray = self._by_row(data, lambda k, f, rows, own: f.fitted(own, eta[rows], self.lam_of(lam, k)))
        return found

    def observation_kind(self, method: str) -> VarianceKind:
        raise self.lacks("variance of an observation in common, for shares of the variance")

    def cdf(self, y: FloatArray, eta: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        found: FloatArray = self._by_row(
            data, lambda k, f, rows, own: f.cdf(y[rows], eta[rows], self.lam_of(lam, k), own)
        )
        return found

    def _simulate(self, eta: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        found: FloatArray = self._by_row(
            data, lambda k, f, rows, own: f.simulate(eta[rows], self.lam_of(lam, k), own, rng)
        )
        return found if np.isfinite(found).all() else np.full(eta.shape, np.nan)

    def pearson_at(self, data: ResponseData, mu: FloatArray, eta: FloatArray, lam: Any) -> FloatArray:
        found: FloatArray = self._by_row(
            data, lambda k, f, rows, own: f.pearson_at(own, mu[rows], eta[rows], self.lam_of(lam, k))
        )
        return found

    def deviance_residuals(self, data: ResponseData, mu: FloatArray, lam: Any = 0.0) -> FloatArray:
        found: FloatArray = self._by_row(
            data, lambda k, f, rows, own: f.deviance_residuals(own, mu[rows], self.lam_of(lam, k))
        )
        return found

    # --- starts

    def start_eta(self, data: ResponseData) -> FloatArray:
        found: FloatArray = self._by_row(data, lambda k, family, rows, own: family.start_eta(own))
        return found

    def middle_eta(self, data: ResponseData) -> FloatArray:
        found: FloatArray = self._by_row(data, lambda k, family, rows, own: family.middle_eta(own))
        return found

    def start_nuisance(self, data: ResponseData, eta: FloatArray) -> Any:
        found = np.zeros(self.n_nuisance)
        for k, family, rows, own in self._each(data):
            if family.n_nuisance:
                found[self.place_of(k)] = family.start_nuisance(own, eta[rows])
        return found

    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """None: an effect of every row of the data is refused before where a response has noise of its own."""


def _placed(shape: tuple[int, ...], pieces: Sequence[tuple[IntArray, FloatArray]]) -> FloatArray:
    """Arrays of some rows each as one of all rows."""
    out = np.zeros(shape)
    for rows, piece in pieces:
        out[..., rows] = piece
    return out


def _exponential(power: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """exp(power lambda), with its derivative."""
    return lambda x: float(np.exp(power * x)), lambda x: power * float(np.exp(power * x))


def _other(family: Family, number: int) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """A parameter of a family that is no dispersion, with its derivative by a central difference."""
    h = 1e-6

    def slope(x: float) -> float:
        return (family.other_natural(number, x + h) - family.other_natural(number, x - h)) / (2.0 * h)

    return lambda x: family.other_natural(number, x), slope
