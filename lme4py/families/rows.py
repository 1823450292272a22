"""What a family says of rows: log-likelihoods with derivatives, and where a likelihood or a parameter ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np

from lme4py.families.nuisance import Nuisance, NuisancePart, at_point
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = [
    "AtInfinity",
    "AtPoints",
    "DispersionLimit",
    "EtaDerivatives",
    "HalfRows",
    "Order",
    "RowNoise",
    "working_weight",
]

Order = Literal[0, 1, 2, 3]

# A field that the order asked for leaves out: None, but typed as the array that it otherwise is.
_ABSENT: Final[Any] = None
# Where the observed curvature is below this part of the expected one, a Newton step uses the expected one.
_CURVED: Final = 0.25


@dataclass(frozen=True, slots=True)
class EtaDerivatives:
    """Row-wise log-likelihood l and its derivatives, each of the shape of eta.

    A part that the order asked for leaves out is None. A row whose eta is outside the range of the link has
    loglik -inf and NaN for everything else. All are finite wherever the log-likelihood is.

    Attributes
    ----------
    loglik : ndarray
        l, with all constants (order 0).
    score : ndarray
        dl/deta (order 1).
    w_obs : ndarray
        -d2l/deta2 (order 2).
    w_exp : ndarray
        E(-d2l/deta2); the same array as `w_obs` for a canonical link (order 2).
    working : ndarray or callable
        `w_work`, or what makes it: few steps need it (order 2).
    dw_obs, dw_exp : ndarray
        Derivatives of the weights with respect to eta (order 3).
    d_lam, score_lam, w_obs_lam, w_exp_lam : ndarray
        Derivatives of `loglik`, `score`, `w_obs`, `w_exp` with respect to lambda (order 3; None where the
        family has no dispersion parameter); for ordered categories each a `ThresholdPart`.
    curve_lam : ndarray, shape (d, d)
        -d2l/dlambda2 summed over the rows (order 3; ordered categories only).
    """

    loglik: FloatArray
    score: FloatArray = _ABSENT
    w_obs: FloatArray = _ABSENT
    w_exp: FloatArray = _ABSENT
    working: FloatArray | Callable[[], FloatArray] = _ABSENT
    dw_obs: FloatArray = _ABSENT
    dw_exp: FloatArray = _ABSENT
    d_lam: NuisancePart = _ABSENT
    score_lam: NuisancePart = _ABSENT
    w_obs_lam: NuisancePart = _ABSENT
    w_exp_lam: NuisancePart = _ABSENT
    curve_lam: FloatArray = _ABSENT

    @property
    def w_work(self) -> FloatArray:
        """A weight for Newton steps, never negative.

        `w_obs`, but where that is negative or far below the weight of Fisher scoring, (dmu/deta)^2 / Var(y), that one.
        """
        return self.working() if callable(self.working) else self.working

    def scaled(self, weights: FloatArray) -> EtaDerivatives:
        """Every part times `weights`."""
        return self._map(lambda part: part * weights)

    def restricted(self, valid: BoolArray) -> EtaDerivatives:
        """Rows that are not `valid` as loglik -inf and NaN."""
        marked = self._map(lambda part: np.where(valid, part, np.nan))
        return replace(marked, loglik=np.where(valid, self.loglik, -np.inf))

    def point(self, number: int) -> EtaDerivatives:
        """The rows at one of B points, of derivatives of shape (..., B, n)."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        working = parts.pop("working")
        kept: dict[str, Any] = {
            name: at_point(part, number) for name, part in parts.items() if part is not None and name != "curve_lam"
        }
        if working is not None:
            kept["working"] = lambda: (working() if callable(working) else working)[number]
        return EtaDerivatives(**kept)

    def _map(self, change: Callable[[FloatArray], FloatArray]) -> EtaDerivatives:
        done: dict[int, FloatArray] = {}
        parts = {}
        for field in fields(self):
            part = getattr(self, field.name)
            if callable(part):
                part = part()
            if part is not None:
                # An array that two names share is changed once and stays shared.
                if id(part) not in done:
                    done[id(part)] = change(part)
                parts[field.name] = done[id(part)]
        return EtaDerivatives(**parts)


@dataclass(frozen=True, slots=True)
class RowNoise:
    """A noise of the response that looks like a normal random effect of every row, or of every trial.

    Attributes
    ----------
    name : str
        For messages: "the residual variance".
    size : float
        How many independent noises there are: rows, or trials.
    weights : ndarray, shape (n,), or None
        Trials of each row, or the weights that divide its variance; None is one for each.
    exact : bool
        False where the noise is not normal on the scale of eta, or depends on the mean: then the two differ, but in the
        shape of the distribution only.
    """

    name: str
    size: float
    weights: FloatArray | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class HalfRows:
    """Sides on which eta (less a threshold) can go to infinity without making a response impossible.

    A row of a family with a mean is one of these; a row of ordered categories one for each threshold beside it.

    Attributes
    ----------
    row : ndarray of int, shape (R,)
    sign : ndarray, shape (R,)
        +1 where the likelihood stays while eta rises, -1 where it stays while eta falls, 0 where it does neither.
    threshold : ndarray of int, shape (R,), or None
        Ordered categories: which threshold, or which mean of neighbouring ones.
    """

    row: IntArray
    sign: FloatArray
    threshold: IntArray | None = None

    def values(self, eta: FloatArray, cut: FloatArray | None) -> FloatArray:
        """sign times eta less the threshold of each half row, shape (R,)."""
        result: FloatArray = self.sign * (eta[self.row] - (0.0 if cut is None else cut))
        return result


@dataclass(frozen=True, slots=True)
class DispersionLimit:
    """What a family becomes where its dispersion parameter goes to the end of its range without losing the likelihood.

    Everything is counted from a unit of the dispersion (`Family.lambda_unit`), so that units of the response do not
    matter.

    Attributes
    ----------
    dispersion : float
        The parameter at the limit: inf or 0.
    model : str
        The limit in words, such as "the Poisson model".
    stand_in : float
        lambda - unit at which the likelihood is that of the limit in double precision, and still free of cancellation.
    tail : float
        lambda - unit from which on the slope in lambda vanishes exponentially.
    start : float
        lambda - unit of the farthest start that still has a slope.
    """

    dispersion: float
    model: str
    stand_in: float
    tail: float
    start: float

    def in_tail(self, distance: float) -> bool:
        """Whether a lambda at this `distance` from the unit lies in the tail."""
        return distance >= self.tail if self.stand_in > 0.0 else distance <= self.tail

    def is_stand_in(self, distance: float) -> bool:
        """Whether a lambda at this `distance` from the unit stands for the limit."""
        return distance >= self.stand_in - 1e-6 if self.stand_in > 0.0 else distance <= self.stand_in + 1e-6

    def before_tail(self, distance: float) -> float:
        """The nearest `distance` from the unit that has a slope."""
        return min(distance, self.start) if self.stand_in > 0.0 else max(distance, self.start)


def working_weight(observed: FloatArray, scoring: FloatArray) -> FloatArray:
    """`observed` where it is large enough beside the weight of Fisher scoring, else the latter."""
    return np.where(observed > _CURVED * scoring, observed, scoring)


class AtPoints:
    """What a family says of rows at several points at once; one that has not been told how is asked at each."""

    @property
    def takes_points(self) -> bool:
        """Whether there is `of_points`."""
        return False

    def of_points(self, data: ResponseData, eta: FloatArray, lam: Any) -> list[EtaDerivatives]:
        """As `derivatives`, of order 3, at B points.

        Parameters
        ----------
        data : ResponseData
            n rows.
        eta : ndarray, shape (B, n), or (B, D n) of D predictors one below the other
        lam : ndarray, shape (B, d), or a number where the family has no parameters beside eta
        """
        raise NotImplementedError("this family is asked at one point at a time")


class AtInfinity:
    """What a family says of rows whose coefficients go to infinity; a response with a mean has nothing to add."""

    def half_columns(self, half: HalfRows, data: ResponseData) -> FloatArray | None:
        """Ordered categories: derivative of the threshold of each half row in lambda, shape (R, d); else None."""
        return None

    def silent(self, data: ResponseData, rest: BoolArray) -> FloatArray | None:
        """Directions of lambda of ordered categories, beside thresholds, that some rows do not move, (d, s); or None.

        Parameters
        ----------
        data : ResponseData
        rest : ndarray of bool, shape (n,)
            The rows.
        """
        return None

    def rates(
        self, half: HalfRows, rows: EtaDerivatives, data: ResponseData, eta: FloatArray, lam: Nuisance
    ) -> FloatArray:
        """How much the log-likelihood of each half row still changes: its slope or its curvature, shape (R,).

        Parameters
        ----------
        half : HalfRows
        rows : EtaDerivatives
            With score and weights; for ordered categories with `d_lam`.
        data : ResponseData
        eta : ndarray, shape (n,)
        lam : float or ndarray
            Where `rows` is.
        """
        # Where the likelihood need not rise all the way, a slope of zero can also be the top of a row.
        rate: FloatArray = np.maximum(np.abs(rows.score[half.row]), np.abs(rows.w_obs[half.row]))
        return rate

    def answers(self, data: ResponseData) -> FloatArray | None:
        """The answer of each row as a number, shape (n,); None where responses are no answers that can be certain."""
        return None

    def answer_name(self, data: ResponseData, answer: float) -> str:
        """What an answer is called in messages."""
        return f"{answer:g}"

    def says_nothing(self, data: ResponseData) -> BoolArray:
        """Rows without information, such as those without trials, shape (n,)."""
        return np.zeros(data.n_obs, dtype=bool)
