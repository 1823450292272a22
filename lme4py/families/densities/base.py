"""What every family is: the facts about one kind of response, in one class.

A family is written in its *variables*: the conditional linear predictor first, then (where it has them) the log
dispersion and further parameters, each on a scale without bounds. `Density.jet` gives the log-likelihood of each row
with its derivatives in these variables. Which of them are linear predictors of the model and which are single
nuisance parameters is decided by `RowModel`, not here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, Index, Part, degrees_of
from lme4py.families.links import Derivatives, Link, LogMean, MeanLink, PowerMean, ProbabilityLink
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = [
    "CONDITIONAL",
    "DISPERSION",
    "Density",
    "DensityArgument",
    "End",
    "Kind",
    "Scale",
    "ScaledDensity",
    "Values",
    "VarianceMethod",
    "at",
    "clipped_log",
    "substitute",
]

# One array for each variable of a family; their shapes broadcast to (..., n).
Values = Sequence[FloatArray]
Scale = Literal["identity", "log", "logit", "power"]
VarianceMethod = Literal["delta", "lognormal", "trigamma", "latent"]
Kind = Literal["count", "trials", "positive", "proportion", "real", "ordered", "unordered"]

CONDITIONAL: Final = "conditional"
DISPERSION: Final = "dispersion"

_NATURAL: Final[dict[str, tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]]] = {
    # The parameter itself, its slope, and the way back.
    "identity": (float, lambda value: 1.0, float),
    "log": (lambda value: float(np.exp(value)), lambda value: float(np.exp(value)), lambda p: float(np.log(p))),
    "logit": (
        lambda value: float(special.expit(value)),
        lambda value: float(special.expit(value) * special.expit(-value)),
        lambda p: float(special.logit(p)),
    ),
    "power": (
        lambda value: 1.0 + float(special.expit(value)),
        lambda value: float(special.expit(value) * special.expit(-value)),
        lambda p: float(special.logit(p - 1.0)),
    ),
}


@dataclass(frozen=True)
class DensityArgument:
    """One argument of a row's log-likelihood.

    Attributes
    ----------
    name : str
        "conditional", "zero_inflation", "dispersion", "power", ...: the name of its linear predictor.
    parameter : str
        What it is called on its natural scale: "mu", "phi", "shape", "power".
    scale : {"identity", "log", "logit", "power"}
        The variable is this function of the parameter; "power" is logit(parameter - 1).
    linear : bool
        Whether it may have a linear predictor; False for single parameters.
    default : float, optional
        The variable where it is no linear predictor (a scale effect of zero); None: it is then a parameter.
    """

    name: str
    parameter: str
    scale: Scale
    linear: bool = True
    default: float | None = None

    def natural(self, value: float) -> float:
        """The parameter."""
        return _NATURAL[self.scale][0](value)

    def slope(self, value: float) -> float:
        """d parameter / d variable, for standard errors."""
        return _NATURAL[self.scale][1](value)

    def of(self, parameter: float) -> float:
        """The variable that has this parameter."""
        return _NATURAL[self.scale][2](parameter)


@dataclass(frozen=True)
class End:
    """The model at an end of a variable.

    Attributes
    ----------
    variable : str
    sign : {-1, 1}
        The variable goes to minus or plus infinity.
    model : str
        For messages: "the Poisson model".
    simpler : bool
        It is a distribution of its own, not responses without variation.
    far : float
        Size of the variable from which on the model is that one for all that data can tell; for variables beside the
        dispersion.
    """

    variable: str
    sign: int
    model: str
    simpler: bool = False
    far: float = np.inf


@dataclass(frozen=True)
class Density(ABC):
    """A response distribution with its link.

    Attributes
    ----------
    link : Link
        From the conditional linear predictor to the mean.
    name : str
    kind : {"count", "trials", "positive", "proportion", "real", "ordered", "unordered"}
    default_link, links : str, tuple of str
    support, advice : str
        For messages: the responses that are possible, and what to do about others.
    dispersion_means : str
        What the dispersion parameter is; "" for families without one.
    ratio : str or None
        What exp(beta) is for a log or logit link.
    weights_multiply : bool
        Prior weights multiply the log-likelihood; False: they divide the dispersion.
    limits : tuple of End
        The models that are approached as a variable goes to plus or minus infinity.
    sources : str
        Where the parametrisation is from.
    """

    link: Link

    # --- facts; a subclass states each as an attribute of the class

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def kind(self) -> Kind: ...

    @property
    @abstractmethod
    def default_link(self) -> str: ...

    @property
    @abstractmethod
    def links(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def support(self) -> str: ...

    @property
    def advice(self) -> str:
        return "correct or remove these rows, or use another family"

    @property
    def dispersion_means(self) -> str:
        return ""

    @property
    def ratio(self) -> str | None:
        return None

    @property
    def weights_multiply(self) -> bool:
        return True

    @property
    def limits(self) -> tuple[End, ...]:
        return ()

    @property
    def sources(self) -> str:
        return ""

    @property
    def mean_is_link(self) -> bool:
        """Whether the mean is the inverse link of the first variable."""
        return True

    @property
    def log_concave(self) -> bool:
        """Whether the log-likelihood of every response is concave in all variables together."""
        return False

    @property
    def takes_points(self) -> bool:
        """Whether `jet` takes the variables of several points at once: (B, n), and (B, 1) of those that rows share."""
        return False

    @property
    def has_zeros(self) -> bool:
        """Whether a response of 0 has a probability of its own."""
        return self.kind in ("count", "trials")

    @property
    def is_hurdle(self) -> bool:
        """Whether zeros come from a process of their own only."""
        return False

    # --- variables

    @property
    @abstractmethod
    def variables(self) -> tuple[DensityArgument, ...]:
        """The arguments of the log-likelihood of a row, the conditional linear predictor first."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.variables)

    @property
    def always(self) -> tuple[str, ...]:
        """The linear predictors that every model of this family has."""
        return (CONDITIONAL,)

    # --- log-likelihood

    @abstractmethod
    def jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """Log-likelihood of each row (all constants, no weights that multiply) with its derivatives.

        Parameters
        ----------
        data : ResponseData
            n rows.
        x : sequence of ndarray
            The variables, in the order of `variables`, of shapes that broadcast to (..., n).
        degrees : Degrees
            Which derivatives to form; variables that are not active are constants.

        Returns
        -------
        DensityJet
            In the variables 0, 1, ...
        """

    def zero_jet(self, data: ResponseData, x: Values, degrees: Degrees) -> DensityJet:
        """`jet` of rows whose responses are all 0."""
        return self.jet(data, x, degrees)

    def valid(self, x: Values) -> BoolArray:
        """Where the conditional predictor is finite and inside the range of the link."""
        return self.link.valid(x[0])

    def moved_inside(self, x: Values, valid: BoolArray) -> list[FloatArray]:
        """The variables with valid ones in the place of those that are not."""
        return [np.where(valid, x[0], self.inner()), *map(np.asarray, x[1:])]

    def inner(self) -> float:
        """Some valid conditional predictor."""
        return float(self.link.eta(np.array(0.5)))

    def loglik(self, data: ResponseData, x: Values) -> FloatArray:
        """Log-likelihood of each row without weights that multiply, shape (..., n)."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            return self.jet(data, x, degrees_of(0, ())).value

    # --- the response

    @abstractmethod
    def outside(self, data: ResponseData) -> BoolArray:
        """Rows whose response is impossible, shape (n,)."""

    def lacking(self, data: ResponseData) -> str:
        """Which responses are missing without which a parameter has no finite estimate, and what to do; or ""."""
        return ""

    def stays_likely(self, data: ResponseData, mean: float) -> BoolArray:
        """Rows whose likelihood does not fall to zero as the mean goes to `mean`, an end of its range, shape (n,)."""
        if self.kind == "trials":
            return np.asarray((data.failures if mean else data.y) == 0.0)
        return np.asarray((data.y == 0.0) & (mean == 0.0))

    def trouble(self, data: ResponseData, x: Values) -> str:
        """Why variables have no finite estimates, where `limits` do not say it; or ""."""
        return ""

    def no_maximum(self, data: ResponseData) -> str:
        """As in `lme4py.families.base.Family`."""
        return ""

    def dispersion_unit(self, data: ResponseData) -> float:
        """Log dispersion at which it is as large as the rest of the variation."""
        return 0.0

    def shown_params(self, values: dict[str, float]) -> dict[str, float]:
        """Parameters beside the dispersion as users know them, from their natural values."""
        return values

    @property
    def without_dispersion(self) -> Density | None:
        """The distribution at the end of the range of the dispersion, where that is one of its own."""
        return None

    # --- moments

    def mean(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """E(y) (for trials: the probability), shape (..., n)."""
        with np.errstate(over="ignore", under="ignore"):
            return self.link.mean(x[0])

    def mean_jet(self, x: Values, degrees: Degrees, data: ResponseData | None = None) -> DensityJet:
        """`mean` with its derivatives in the variables.

        Parameters
        ----------
        x : sequence of ndarray
            As in `jet`.
        degrees : Degrees
        data : ResponseData, optional
        """
        if not self.mean_is_link:
            raise OptionError(f"the {self.name} family has no derivatives of a mean that is none of one predictor.")
        with np.errstate(over="ignore", under="ignore"):
            chain = self.link.derivatives(np.asarray(x[0]))
        return DensityJet.kept(degrees, {(0,) * k: part for k, part in enumerate(chain)})

    @property
    def conditional(self) -> Density:
        """The distribution whose mean is that of the conditional predictor: the untruncated one of truncated counts."""
        return self

    @abstractmethod
    def variance(self, x: Values, data: ResponseData | None = None) -> FloatArray:
        """Var(y) of a row of weight 1 (or of the weights of `data`), shape (..., n); for trials of the count."""

    def zero_probability(self, x: Values, data: ResponseData) -> FloatArray:
        """P(Y = 0) of each row, shape (..., n)."""
        if self.kind in ("positive", "proportion", "real"):
            return np.zeros(np.broadcast_shapes(*(np.shape(part) for part in x)))
        probability: FloatArray = np.exp(self.loglik(data.with_y(np.zeros_like(data.y)), x))
        return probability

    # --- distribution

    @abstractmethod
    def cdf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        """P(Y <= y), shape of y and x together."""

    @abstractmethod
    def sf(self, y: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        """P(Y > y), accurate where it is small."""

    @abstractmethod
    def quantile(self, p: FloatArray, x: Values, data: ResponseData) -> FloatArray:
        """The smallest y with P(Y <= y) >= p."""

    @abstractmethod
    def simulate(self, x: Values, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """New responses in the form of `data.y`, shape (n,)."""

    # --- starts

    @abstractmethod
    def start_eta(self, data: ResponseData) -> FloatArray:
        """A conditional linear predictor near the responses, inside the range, shape (n,)."""

    def start_rest(self, data: ResponseData, eta: FloatArray) -> tuple[float, ...]:
        """Moment estimates of the variables after the first, given the conditional predictor."""
        return ()


class ScaledDensity(Density):
    """A family with a log dispersion as its second variable."""

    @property
    def parameter(self) -> str:
        """What the dispersion parameter is called."""
        return "phi"

    @property
    def variables(self) -> tuple[DensityArgument, ...]:
        return (DensityArgument(CONDITIONAL, "mu", "identity"), DensityArgument(DISPERSION, self.parameter, "log"))


# --- helpers


def substitute(jet: DensityJet, chain: Derivatives) -> DensityJet:
    """From derivatives in t to derivatives in eta, where t(eta) took the place of variable 0.

    Parameters
    ----------
    jet : DensityJet
        In (t, other variables).
    chain : tuple of four ndarrays
        t and its three derivatives in eta.
    """
    _, t1, t2, t3 = chain
    given = jet.parts
    parts: dict[Index, Part] = {index: part for index, part in given.items() if 0 not in index}
    for index in jet.degrees.indices():
        times = index.count(0)
        rest = index[times:]
        p1, p2, p3 = (given.get((0,) * k + rest, 0.0) for k in (1, 2, 3))
        if times == 1:
            parts[index] = p1 * t1
        elif times == 2:
            parts[index] = p2 * (t1 * t1) + p1 * t2
        elif times == 3:
            parts[index] = p3 * (t1 * t1 * t1) + 3.0 * p2 * (t1 * t2) + p1 * t3
    return DensityJet(parts, jet.degrees)


def through_log_mean(jet: DensityJet, link: Link, eta: FloatArray) -> DensityJet:
    """From derivatives in log mu to derivatives in eta."""
    if isinstance(link, LogMean):
        return jet
    return substitute(jet, mean_link(link).log_mean(eta))


def through_mean(jet: DensityJet, link: Link, eta: FloatArray) -> DensityJet:
    """From derivatives in mu to derivatives in eta."""
    if isinstance(link, PowerMean) and link.power == 1.0:
        return jet
    return substitute(jet, link.derivatives(eta))


def log_mean(link: Link, eta: FloatArray) -> FloatArray:
    """log mu."""
    return eta if isinstance(link, LogMean) else mean_link(link).log_mean(eta)[0]


def mean_link(link: Link) -> MeanLink:
    """The link as one to a mean on the half-line."""
    if not isinstance(link, MeanLink):
        raise OptionError(f"the link '{link.name}' leads to a probability; this family needs log, identity or sqrt.")
    return link


def probability_link(link: Link) -> ProbabilityLink:
    """The link as one to a probability."""
    if not isinstance(link, ProbabilityLink):
        raise OptionError(f"the link '{link.name}' leads to the half-line; this family needs logit, probit or cloglog.")
    return link


def at(x: Values, rows: IntArray | slice) -> list[FloatArray]:
    """The variables of some rows; a variable that is one number for all rows (of each point) stays it."""
    return [part if part.ndim == 0 or part.shape[-1] == 1 else part[..., rows] for part in map(np.asarray, x)]


def clipped_log(value: float, low: float = 1e-4, high: float = 1e4) -> float:
    """log of a moment estimate, kept inside a range where the likelihood still has a slope."""
    return float(np.log(np.clip(value if np.isfinite(value) else high, low, high)))
