"""What every response distribution shares: the chain rule from its own variable to eta, and the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np

from lme4py.design.response import ResponseData
from lme4py.families.links import Derivatives, Link, LogMean, MeanLink, PowerMean
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = [
    "DispersionLimit",
    "EtaDerivatives",
    "Family",
    "HalfRows",
    "MeanFamily",
    "Order",
    "Pieces",
    "RowNoise",
    "natural",
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
    w_work : ndarray
        A weight for Newton steps, never negative: `w_obs`, but where that is negative or far below the weight
        of Fisher scoring, (dmu/deta)^2 / Var(y), the latter (order 2).
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
    w_work: FloatArray = _ABSENT
    dw_obs: FloatArray = _ABSENT
    dw_exp: FloatArray = _ABSENT
    d_lam: Any = _ABSENT
    score_lam: Any = _ABSENT
    w_obs_lam: Any = _ABSENT
    w_exp_lam: Any = _ABSENT
    curve_lam: FloatArray = _ABSENT

    def scaled(self, weights: FloatArray) -> EtaDerivatives:
        """Every part times `weights`."""
        return self._map(lambda part: part * weights)

    def restricted(self, valid: BoolArray) -> EtaDerivatives:
        """Rows that are not `valid` as loglik -inf and NaN."""
        marked = self._map(lambda part: np.where(valid, part, np.nan))
        return replace(marked, loglik=np.where(valid, self.loglik, -np.inf))

    def _map(self, change: Callable[[FloatArray], FloatArray]) -> EtaDerivatives:
        done: dict[int, FloatArray] = {}
        parts = {}
        for field in fields(self):
            part = getattr(self, field.name)
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
        Ordered categories: which threshold.
    """

    row: IntArray
    sign: FloatArray
    threshold: IntArray | None = None

    def values(self, eta: FloatArray, alpha: FloatArray | None) -> FloatArray:
        """sign times eta less the threshold, shape (R,)."""
        cut = 0.0 if self.threshold is None or alpha is None else alpha[self.threshold]
        result: FloatArray = self.sign * (eta[self.row] - cut)
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
    distribution : str
        The distribution of the response there; "" where nothing of it is left.
    stand_in : float
        lambda - unit at which the likelihood is that of the limit in double precision, and still free of cancellation.
    tail : float
        lambda - unit from which on the slope in lambda vanishes exponentially.
    start : float
        lambda - unit of the farthest start that still has a slope.
    """

    dispersion: float
    model: str
    distribution: str
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


@dataclass(slots=True)
class Pieces:
    """Log-likelihood and derivatives in the variable t that is natural for the distribution: mu or log mu.

    Attributes
    ----------
    value, d1, d2, d3 : ndarray
        l and its derivatives with respect to t.
    info, d_info : ndarray
        E(-d2l/dt2), and its derivative with respect to t.
    quasi : ndarray
        (dmu/dt)^2 / Var(y).
    d_lam, d1_lam, d2_lam, info_lam : ndarray
        Derivatives of value, d1, d2, info with respect to lambda.
    """

    value: FloatArray
    d1: FloatArray = _ABSENT
    d2: FloatArray = _ABSENT
    d3: FloatArray = _ABSENT
    info: FloatArray = _ABSENT
    d_info: FloatArray = _ABSENT
    quasi: FloatArray = _ABSENT
    d_lam: FloatArray = _ABSENT
    d1_lam: FloatArray = _ABSENT
    d2_lam: FloatArray = _ABSENT
    info_lam: FloatArray = _ABSENT


@dataclass(frozen=True)
class Family(ABC):
    """A response distribution with its link; `make_family` gives one.

    Attributes
    ----------
    name : str
    link : Link
    n_dispersion : int
        0 or 1 dispersion parameters, estimated on the log scale: lambda.
    parameter : str
        What exp(lambda) is called: "phi", "sigma2", "theta", "alpha"; "" without one.
    stata_inverts : bool
        Stata reports one over exp(lambda), by the name `stata_parameter`.
    default_link : str
    canonical : bool
        Whether observed and expected weights are the same.
    log_concave : bool
        Whether w_obs >= 0 for every eta and every response.
    """

    link: Link

    name: ClassVar[str]
    default_link: ClassVar[str]
    n_dispersion: ClassVar[int] = 0
    parameter: ClassVar[str] = ""
    stata_inverts: ClassVar[bool] = False
    stata_parameter: ClassVar[str] = ""
    # Poisson, binomial, negative binomial: prior weights multiply the log-likelihood of the row.
    weights_multiply: ClassVar[bool] = True
    canonical_link: ClassVar[str] = ""
    concave_links: ClassVar[frozenset[str]] = frozenset()
    # The order of `derivatives` that holds `d_lam`.
    nuisance_order: ClassVar[Order] = 3
    # Every family with a dispersion parameter has one.
    limit: ClassVar[DispersionLimit | None] = None

    @property
    def constant(self) -> FloatArray | None:
        """Ordered categories: the direction of the parameters that takes up a constant in eta; else None."""
        return None

    @property
    def n_nuisance(self) -> int:
        """Parameters of the likelihood beside eta: the log dispersion, or those of the thresholds."""
        return self.n_dispersion

    @property
    def canonical(self) -> bool:
        return self.link.name == self.canonical_link

    @property
    def log_concave(self) -> bool:
        return self.link.name in self.concave_links

    @property
    def single_peaked(self) -> bool:
        """Whether the likelihood of a linear predictor has one maximum only, whatever the responses."""
        return self.log_concave and not self.link.has_pole

    # --- log-likelihood

    def derivatives(
        self,
        data: ResponseData,
        eta: FloatArray,
        lam: Any = 0.0,
        order: Order = 3,
        *,
        expected: bool = True,
    ) -> EtaDerivatives:
        """Log-likelihood of each row and its derivatives.

        Parameters
        ----------
        data : ResponseData
            n rows.
        eta : ndarray, shape (n,) or (K, n)
        lam : float
            Log of the dispersion parameter; ignored where the family has none. An array for ordered categories.
        order : {0, 1, 2, 3}
            0 log-likelihood; 1 and score; 2 and weights, what PIRLS needs; 3 and the derivatives of the weights
            and those with respect to lambda, what the gradient of the Laplace criterion needs.
        expected : bool
            False leaves `w_exp` and its derivatives out where they are expensive (nbinomial1 only).

        Returns
        -------
        EtaDerivatives
        """
        valid = self.valid(eta)
        everywhere = bool(valid.all())
        inside = eta if everywhere else np.where(valid, eta, self._inner_eta())
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            result = self._derivatives(data, inside, lam, order, expected)
            if self.weights_multiply and data.weights is not None:
                result = result.scaled(data.weights)
        return result if everywhere else result.restricted(valid)

    def loglik(self, data: ResponseData, eta: FloatArray, lam: Any = 0.0) -> FloatArray:
        """Log-likelihood of each row, shape of eta; -inf outside the range of the link."""
        return self.derivatives(data, eta, lam, 0).loglik

    @abstractmethod
    def _derivatives(
        self, data: ResponseData, eta: FloatArray, lam: float, order: Order, expected: bool
    ) -> EtaDerivatives:
        """`derivatives` for valid eta, without the weights that multiply."""

    def _inner_eta(self) -> float:
        """Some valid eta."""
        return float(self.link.eta(np.array(0.5)))

    def valid(self, eta: FloatArray) -> BoolArray:
        """True where eta is finite and inside the range of the link, shape of eta."""
        return self.link.valid(eta)

    # --- infinity

    # What coefficients that go to infinity tell apart.
    separates: ClassVar[str] = "responses from each other"

    @abstractmethod
    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """Rows whose likelihood does not fall to zero as the mean goes to `mean`, an end of its range, shape (n,)."""

    def half_rows(self, data: ResponseData, eta: FloatArray, beyond: bool = False) -> HalfRows:
        """The sides on which each row stays likely; rows that say nothing (on both sides at once) are left out.

        Parameters
        ----------
        data : ResponseData
        eta : ndarray, shape (n,)
            Its sign decides where both sides are possible.
        beyond : bool
            Count the ends of a range that is bounded too.
        """
        nowhere = np.zeros(data.n_obs, dtype=bool)
        ends = self.link.extremes if beyond else self.link.ends
        down, up = (nowhere if end is None else self.stays_likely(data, end) for end in ends)
        says = np.flatnonzero(~self.says_nothing(data))
        # A side that is possible at both ends (a mean of zero at both) is the one on which the predictor is.
        sign = np.where(up & ~(down & (eta < 0.0)), 1.0, np.where(down, -1.0, 0.0))[says]
        return HalfRows(says, sign)

    def rates(self, half: HalfRows, rows: EtaDerivatives) -> FloatArray:
        """How much the log-likelihood of each half row still changes: its slope or its curvature, shape (R,).

        Parameters
        ----------
        half : HalfRows
        rows : EtaDerivatives
            With score and weights; for ordered categories with `d_lam`.
        """
        # Where the likelihood need not rise all the way, a slope of zero can also be the top of a row.
        rate: FloatArray = np.maximum(np.abs(rows.score), np.abs(rows.w_obs))[half.row]
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

    # --- moments

    def mean(self, eta: FloatArray) -> FloatArray:
        """Mean mu (binomial: the probability), shape of eta."""
        with np.errstate(over="ignore", under="ignore"):
            return self.link.mean(eta)

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """Fitted values: the mean; for ordered categories the probability of the one observed; shape of eta."""
        return self.mean(eta)

    def eta_of(self, mu: FloatArray) -> FloatArray:
        """Linear predictor of a mean inside the range, shape of mu."""
        return self.link.eta(mu)

    @abstractmethod
    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """Var(y) of a row of weight 1 (binomial: of one trial), shape of mu."""

    def unit_variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """The variance function V(mu) of R's families: the variance without the factor phi."""
        return self.variance(mu, lam)

    def dispersion(self, lam: float) -> float:
        """The dispersion parameter exp(lambda); 1 where the family has none."""
        return float(np.exp(lam)) if self.n_dispersion else 1.0

    def sigma(self, lam: float) -> float:
        """The number that glmmTMB's ``sigma()`` gives; 1 where the family has no dispersion parameter."""
        return self.dispersion(lam)

    # --- starts

    @abstractmethod
    def start_mean(self, data: ResponseData) -> FloatArray:
        """Means inside the range, near the responses, shape (n,)."""

    def start_eta(self, data: ResponseData) -> FloatArray:
        """Linear predictor to start from, shape (n,): of means near the responses, inside the range."""
        return self.eta_of(self.start_mean(data))

    def start_lambda(self, data: ResponseData, mu: FloatArray) -> float:
        """Moment estimate of lambda given means mu, shape (n,); 0 without a dispersion parameter."""
        return 0.0

    def lambda_unit(self, data: ResponseData) -> float:
        """lambda at which the dispersion is as large as the rest of the variation: what `limit` counts from."""
        return 0.0

    # --- what random effects can be told from

    @abstractmethod
    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """The noise that an effect of every row cannot be told from; None where the data can tell the two apart."""

    # --- residuals and simulation

    def pearson(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """Pearson residuals sqrt(w / V(mu)) (y - mu), as R's glm, shape (n,)."""
        result: FloatArray = np.sqrt(data.weight / self.unit_variance(mu, lam)) * (data.y - mu)
        return result

    def deviance_residuals(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """sign(y - mu) sqrt(w d), d the unit deviance as in R's glm, shape (n,)."""
        deviance = np.maximum(self._unit_deviance(data, mu, lam), 0.0)
        result: FloatArray = np.sign(self._response(data) - mu) * np.sqrt(data.weight * deviance)
        return result

    def _response(self, data: ResponseData) -> FloatArray:
        return data.y

    @abstractmethod
    def _unit_deviance(self, data: ResponseData, mu: FloatArray, lam: float) -> FloatArray: ...

    @abstractmethod
    def simulate(self, mu: FloatArray, lam: float, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """New responses with means mu, in the form of `data.y` (binomial: counts), shape (n,)."""


@dataclass(frozen=True)
class MeanFamily(Family):
    """A family whose log-likelihood is written in t = log mu (or t = mu), with any link by the chain rule."""

    link: MeanLink
    uses_log_mean: ClassVar[bool] = True

    @abstractmethod
    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        """Log-likelihood and derivatives with respect to t."""

    def _inner_eta(self) -> float:
        return 1.0

    def _base(self, eta: FloatArray) -> Derivatives | None:
        """t with three derivatives; None where t is eta itself."""
        link = self.link
        if self.uses_log_mean:
            return None if isinstance(link, LogMean) else link.log_mean(eta)
        return None if isinstance(link, PowerMean) and link.power == 1.0 else link.derivatives(eta)

    def _derivatives(
        self, data: ResponseData, eta: FloatArray, lam: float, order: Order, expected: bool
    ) -> EtaDerivatives:
        base = self._base(eta)
        p = self._pieces(data, eta if base is None else base[0], lam, order, expected)
        if base is not None:
            p = _chain(p, base, order)
        if order == 0:
            return EtaDerivatives(p.value)
        if order == 1:
            return EtaDerivatives(p.value, p.d1)
        return self._assemble(p, order)

    def _assemble(self, p: Pieces, order: Order) -> EtaDerivatives:
        """Names and signs of `EtaDerivatives` for pieces in eta."""
        if self.canonical:
            w_obs = w_work = p.info
        else:
            w_obs = -p.d2
            w_work = w_obs if self.log_concave else working_weight(w_obs, p.quasi)
        if order == 2:
            return EtaDerivatives(p.value, p.d1, w_obs, p.info, w_work)
        dw_obs = p.d_info if self.canonical else -p.d3
        result = EtaDerivatives(p.value, p.d1, w_obs, p.info, w_work, dw_obs, p.d_info)
        if self.n_dispersion == 0:
            return result
        w_obs_lam = p.info_lam if self.canonical else -p.d2_lam
        return replace(result, d_lam=p.d_lam, score_lam=p.d1_lam, w_obs_lam=w_obs_lam, w_exp_lam=p.info_lam)


def working_weight(observed: FloatArray, scoring: FloatArray) -> FloatArray:
    """`observed` where it is large enough beside the weight of Fisher scoring, else the latter."""
    return np.where(observed > _CURVED * scoring, observed, scoring)


def natural(lam: float) -> FloatArray:
    """exp(lambda), as an array."""
    return np.exp(np.asarray(lam, dtype=np.float64))


def _chain(p: Pieces, base: Derivatives, order: Order) -> Pieces:
    """From derivatives with respect to t to derivatives with respect to eta; absent parts stay absent."""
    _, t1, t2, t3 = base
    result = Pieces(p.value, d_lam=p.d_lam)
    if order >= 1:
        result.d1 = p.d1 * t1
    if order >= 2:
        square = t1 * t1
        result.d2 = p.d2 * square + p.d1 * t2
        result.quasi = p.quasi * square
        result.info = _ABSENT if p.info is None else p.info * square
    if order >= 3:
        result.d3 = p.d3 * square * t1 + 3.0 * p.d2 * t1 * t2 + p.d1 * t3
        result.d_info = _ABSENT if p.info is None else p.d_info * square * t1 + 2.0 * p.info * t1 * t2
        if p.d_lam is not None:
            result.d1_lam = p.d1_lam * t1
            result.d2_lam = p.d2_lam * square + p.d1_lam * t2
            result.info_lam = _ABSENT if p.info is None else p.info_lam * square
    return result
