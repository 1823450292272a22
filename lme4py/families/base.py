"""What every kind of response is: all facts about it, in one class.

`Family` holds what every response has, and refuses by name what a family does not have. A new family is one module
with a subclass of a class built on it: `lme4py.families.mean_response.MeanResponse`, a response with a mean that the
link leads to, or `lme4py.families.mean_family.MeanFamily`, whose log-likelihood is written in that mean.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from lme4py.data.column import Column
from lme4py.errors import OptionError
from lme4py.families.coercion import no_zero_weights, one_column, refuse_constant, refuse_outside
from lme4py.families.links import Link
from lme4py.families.nuisance import Nuisance
from lme4py.families.other_parameters import OtherParameters
from lme4py.families.response import ResponseData
from lme4py.families.rows import AtInfinity, AtPoints, DispersionLimit, EtaDerivatives, HalfRows, Order, RowNoise
from lme4py.families.several.facts import OneResponse
from lme4py.families.shares import VarianceKind, observation_kind
from lme4py.formula.values import Value
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Family", "Kind"]

Kind = Literal["count", "trials", "positive", "proportion", "real", "ordered", "unordered"]


@dataclass(frozen=True)
class Family(AtInfinity, AtPoints, OtherParameters, OneResponse):
    """A response distribution with its link; `make_family` gives one.

    Attributes
    ----------
    name : str
    kind : {"count", "trials", "positive", "proportion", "real", "ordered"}
        Which numbers a response can be: whole numbers from 0; successes of trials; above 0; inside 0 .. 1; any; one of
        some ordered categories.
    link : Link
    n_dispersion : int
        0 or 1 dispersion parameters, estimated on the log scale: lambda.
    parameter : str
        What exp(lambda) is called: "phi", "sigma2", "theta", "alpha"; "" without one.
    has_residual : bool
        exp(lambda) is the variance of a residual, and is printed with the variances.
    stata_inverts : bool
        Stata reports one over exp(lambda), by the name `stata_parameter`.
    default_link : str
    canonical : bool
        Whether observed and expected weights are the same.
    log_concave : bool
        Whether w_obs >= 0 for every eta and every response.
    weights_multiply : bool
        Prior weights multiply the log-likelihood of a row; False: they divide its dispersion.
    ratios : frozenset of str
        Which of the ratios that exp(beta) can be with some link (`Link.ratio`) make sense for the family.
    more_variable : str
        For messages: a family with more variation around the same mean; "" where the dispersion is a parameter.
    support, advice : str
        For messages: the responses that are possible, and what to do about others.
    separates : str
        What coefficients that go to infinity tell apart.
    has_expected : bool
        Whether the expected weights are known; they are asked for by ``hessian="expected"`` only.
    many_dispersions : bool
        `derivatives` takes a log dispersion for each of B responses, (B, 1), beside predictors (B, n).
    instead : str
        For messages: where to look for what a family does not have.
    """

    link: Link

    has_residual: ClassVar[bool] = False
    stata_inverts: ClassVar[bool] = False
    stata_parameter: ClassVar[str] = ""
    canonical_link: ClassVar[str] = ""
    concave_links: ClassVar[frozenset[str]] = frozenset()
    more_variable: ClassVar[str] = ""
    instead: ClassVar[str] = ""
    many_dispersions: ClassVar[bool] = False

    has_expected: ClassVar[bool] = True

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
    def n_dispersion(self) -> int:
        return 0

    @property
    def parameter(self) -> str:
        return ""

    @property
    def weights_multiply(self) -> bool:
        return True

    @property
    def ratios(self) -> frozenset[str]:
        return frozenset()

    @property
    def support(self) -> str:
        return "other values"

    @property
    def advice(self) -> str:
        return "correct or remove these rows, or use another family"

    @property
    def separates(self) -> str:
        return "responses from each other"

    @property
    def nuisance_order(self) -> Order:
        """The order of `derivatives` that holds `d_lam`."""
        return 3

    @property
    def limit(self) -> DispersionLimit | None:
        """The end of the range of the dispersion; None where it has none that matters."""
        return None

    def lacks(self, what: str) -> OptionError:
        """The error of something that the family does not have, by its name."""
        end = f"; {self.instead}" if self.instead else ""
        return OptionError(f"the {self.name} family has no {what}{end}.")

    @property
    def variant(self) -> str:
        """What summaries say beside the name: which structure the thresholds have; "" where there is nothing to say."""
        return ""

    # --- what follows from the kind

    @property
    def mean_is_link(self) -> bool:
        """Whether the mean of a response is the inverse link of its conditional predictor."""
        return True

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the linear predictors."""
        return ("conditional",)

    @property
    def n_coefficients(self) -> int:
        """Coefficients of the linear predictors after the first, which come first in lambda."""
        return 0

    def shown_params(self, values: dict[str, float]) -> dict[str, float]:
        """Parameters beside the dispersion as users know them, from those of the family by their names."""
        return values

    @property
    def base_name(self) -> str:
        """Name of the family without a zero part."""
        return self.name

    def place(self, component: str) -> slice:
        """Where the coefficients of a linear predictor after the first are in lambda."""
        raise self.lacks(f"part {component!r}")

    @property
    def stacked(self) -> tuple[str, ...]:
        """Names of the linear predictors after the first that have random effects.

        `derivatives` then also takes the predictors of all rows one below the other, without the fixed effects of the
        further ones, which are in lambda, and gives what belongs to each in the same order
        (`lme4py.engine.generalised.stacking`).
        """
        return ()

    def with_all_stacked(self) -> Family:
        """The same with a place in the stack for predictors without random effects too, these last."""
        return self

    @property
    def is_joint(self) -> bool:
        """Whether the coefficients of all linear predictors stand together in beta, their rows one below the other."""
        return False

    def offset_labels(self, data: ResponseData) -> tuple[str, ...]:
        """Categories that can have an offset of their own, the baseline first; () where there is one for all."""
        return ()

    @property
    def is_plain(self) -> bool:
        """Whether probabilities of categories are differences of means of one linear predictor less thresholds."""
        return True

    @property
    def event(self) -> str:
        """Ordered categories: HTML of what the thresholds are about."""
        return ""

    @property
    def homes(self) -> tuple[str, ...]:
        """Names of the linear predictors with random effects that categories depend on."""
        return ("conditional",)

    @property
    def enough_starts(self) -> int | None:
        """Other starts after which no more are followed, where all have led to one minimum; None follows them all."""
        return None

    def room(self, eta: FloatArray, change: FloatArray) -> float:
        """The part of a step, at most 1, that surely stays inside the range of the link.

        Parameters
        ----------
        eta, change : ndarray, shape (D n,)
        """
        return self.link.room(eta, change)

    def scale_columns(self, data: ResponseData) -> tuple[slice, FloatArray] | None:
        """Where the effects on the log scale of ordered categories are in lambda, and their columns, (n, q)."""
        return None

    def trouble(self, data: ResponseData, eta: FloatArray, lam: Any) -> str:
        """Why parameters have no finite estimate, though neither eta alone nor `limits` say it; or ""."""
        return ""

    def no_maximum(self, data: ResponseData) -> str:
        """Why parameters beside eta may have no maximum inside their ranges, where none was found; or ""."""
        return ""

    @property
    def is_count(self) -> bool:
        """Whether responses are whole numbers."""
        return self.kind in ("count", "trials")

    @property
    def has_trials(self) -> bool:
        """Whether a response is a number of successes out of the trials of its row."""
        return self.kind == "trials"

    @property
    def has_thresholds(self) -> bool:
        """Whether thresholds between ordered categories stand in the place of an intercept."""
        return self.kind == "ordered"

    @property
    def has_unit(self) -> bool:
        """Whether a response can have a unit of measurement."""
        return self.kind in ("positive", "real")

    @property
    def has_no_link(self) -> bool:
        """Whether the linear predictor is the mean, and the response any number: as in a linear model."""
        return self.kind == "real" and self.link.is_identity

    @property
    def mean_range(self) -> tuple[float, float]:
        """The ends of what a mean can be."""
        if self.kind in ("trials", "proportion", "ordered", "unordered"):
            return 0.0, 1.0
        return (-np.inf if self.kind == "real" else 0.0), np.inf

    @property
    def mean_name(self) -> str:
        """What a mean is, in words."""
        words = dict.fromkeys(("trials", "ordered", "unordered"), "probability") | {"proportion": "mean proportion"}
        return words.get(self.kind, "mean count" if self.kind == "count" else "mean")

    @property
    def ratio(self) -> str | None:
        """What exp(beta) is: "odds_ratio", "rate_ratio", or None where it is no ratio with a name."""
        return self.link.ratio if self.link.ratio in self.ratios else None

    # --- parameters of the likelihood beside eta

    @property
    def constant(self) -> FloatArray | None:
        """Ordered categories: the direction of the parameters that takes up a constant in eta; else None."""
        return None

    @property
    def threshold_matrix(self) -> FloatArray | None:
        """Ordered categories: thresholds = A gamma, shape (K - 1, d); else None."""
        return None

    @property
    def user_matrix(self) -> FloatArray | None:
        """Derivative of the parameters beside eta as users know them in lambda; None where they are the same.

        Of ordered categories: the coefficients of further parts, then all thresholds, (d', d).
        """
        return None

    def alpha(self, lam: Nuisance) -> FloatArray | None:
        """Ordered categories: thresholds, shape (K - 1,); else None."""
        return None

    def parameters(self, alpha: FloatArray) -> FloatArray:
        """Ordered categories: gamma of thresholds that have the structure, shape (d,)."""
        raise self.lacks("thresholds")

    @property
    def n_nuisance(self) -> int:
        """Parameters of the likelihood beside eta: those of the thresholds, others, and last the log dispersion."""
        return self.n_dispersion

    def limiting(self) -> Family:
        """The family at the end of the range of the dispersion: itself where there is no other."""
        return self

    @property
    def limiting_words(self) -> str:
        """`limiting` in words at the beginning of a sentence: "A Poisson model"."""
        model = "" if self.limit is None else self.limit.model
        return f"A{model.removeprefix('the')}" if model.startswith("the ") else model

    def extends(self, other: Family) -> bool:
        """Whether `other` is this family at the end of the range of its dispersion."""
        limiting = self.limiting()
        return limiting is not self and limiting.name == other.name

    # --- log-likelihood

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

    @abstractmethod
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
            False leaves `w_exp` and its derivatives out where they are expensive.

        Returns
        -------
        EtaDerivatives
        """

    def loglik(self, data: ResponseData, eta: FloatArray, lam: Any = 0.0) -> FloatArray:
        """Log-likelihood of each row, shape of eta; -inf outside the range of the link."""
        return self.derivatives(data, eta, lam, 0).loglik

    def valid(self, eta: FloatArray) -> BoolArray:
        """True where eta is finite and inside the range of the link, shape of eta."""
        return self.link.valid(eta)

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
        """The response as the numbers that the family works on.

        Parameters
        ----------
        value : Value
            The evaluated left-hand side on the n rows used; unused levels of a factor are gone.
        name : str
            As the user wrote it, for messages.
        weights : ndarray, shape (n,), optional
            Prior weights.
        levels : iterable, optional
            Ordered categories, lowest first.
        column : Column, optional
            The column that the response is, where it is one.

        Returns
        -------
        ResponseData

        Raises
        ------
        DataError
            Values that the family cannot have, or a response without information.
        """
        if levels is not None:
            raise self.lacks("levels: these are for ordered categories, which clmm() fits")
        no_zero_weights(weights)
        y = self._read(value, name)
        refuse_outside(self.outside(y), y, name, self.name, self.support, self.advice)
        self._refuse_uninformative(y, name)
        return ResponseData(y, None, weights)

    def _read(self, value: Value, name: str) -> FloatArray:
        """The numbers of a response, one for each row."""
        return one_column(value, name)

    def outside(self, y: FloatArray) -> BoolArray:
        """Responses that are impossible, shape (n,)."""
        raise self.lacks("check of its responses")

    def _refuse_uninformative(self, y: FloatArray, name: str) -> None:
        refuse_constant(y, name)

    def coerce_again(self, values: FloatArray, data: ResponseData, name: str, proportions: bool) -> ResponseData:
        """A new response for the rows of an old one, as the family works on it.

        Parameters
        ----------
        values : ndarray, shape (n,) or (n, 2)
            As the old one was given.
        data : ResponseData
            The old one.
        name : str
        proportions : bool
            The old one was given as proportions, with the numbers of trials as weights.
        """
        return self.coerce(Value("matrix" if values.ndim == 2 else "numeric", values), name, data.weights)

    def check_categories(self, data: ResponseData) -> None:
        """Refuse a response of ordered categories for a family that has none, and one of other categories."""
        if data.categories:
            raise OptionError(
                f"the response holds {len(data.categories)} ordered categories, which the {self.name} family cannot "
                "use; fit it with clmm()."
            )

    # --- infinity

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
        raise self.lacks("account of where its likelihood stays as coefficients go to infinity")

    def tail(self, lam: Nuisance, data: ResponseData) -> float:
        """Distance between eta and a threshold from which on rows have no digits left."""
        return self.link.tail

    # --- moments

    def mean(self, eta: FloatArray) -> FloatArray:
        """Mean mu (binomial: the probability), shape of eta."""
        raise self.lacks("mean")

    def fitted(self, data: ResponseData, eta: FloatArray, lam: Any) -> FloatArray:
        """Fitted values: the mean; for ordered categories the probability of the one observed; shape of eta."""
        return self.mean(eta)

    def variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """Var(y) of a row of weight 1 (binomial: of one trial), shape of mu."""
        raise self.lacks("variance")

    def unit_variance(self, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """The variance function V(mu) of R's families: the variance without the factor phi."""
        return self.variance(mu, lam)

    def observation_kind(self, method: str) -> VarianceKind:
        """How the variance of one observation on the scale of the link is had.

        Nakagawa, Johnson & Schielzeth (2017, *J. R. Soc. Interface* 14:20170213, table 1).

        Parameters
        ----------
        method : {"theoretical", "lognormal", "trigamma", "delta"}

        Raises
        ------
        OptionError
            Where the method is none of the family and its link.
        """
        return observation_kind(self, method)

    # --- distribution

    def cdf(self, y: FloatArray, eta: FloatArray, lam: Any, data: ResponseData) -> FloatArray:
        """P(Y <= y), shape of eta.

        Parameters
        ----------
        y : ndarray, shape (n,)
            In the form of `data.y` (binomial: successes).
        eta : ndarray, shape (..., n)
        lam : float or ndarray
        data : ResponseData
            Trials and weights of the rows.
        """
        raise self.lacks("distribution function")

    def simulate(self, eta: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """New responses in the form of `data.y` (binomial: counts; ordered categories: positions), shape (n,).

        NaN throughout where some row has no mean, or one so large that no response can be drawn.

        Parameters
        ----------
        eta : ndarray, shape (n,)
        lam : float or ndarray
        data : ResponseData
            Trials and weights of the rows.
        rng : numpy.random.Generator
        """
        if not self.valid(eta).all():
            return np.full(eta.shape, np.nan)
        return self._simulate(eta, lam, data, rng)

    def _simulate(self, eta: FloatArray, lam: Any, data: ResponseData, rng: np.random.Generator) -> FloatArray:
        """`simulate` for valid eta."""
        raise self.lacks("way to draw new responses")

    # --- starts

    def start_eta(self, data: ResponseData) -> FloatArray:
        """Linear predictor to start from, shape (n,): of means near the responses, inside the range."""
        raise self.lacks("linear predictor to start from")

    def middle_eta(self, data: ResponseData) -> FloatArray:
        """Linear predictor of the mean of all means near the responses, shape (n,)."""
        mean = float(np.mean(self.fitted(data, self.start_eta(data), 0.0)))
        middle: FloatArray = self.link.eta(np.full(data.n_obs, mean))
        return middle

    def start_nuisance(self, data: ResponseData, eta: FloatArray) -> Any:
        """lambda to start from given linear predictors, shape (n,)."""
        return float(self.start_lambda(data, self.mean(eta))) if self.n_dispersion else 0.0

    def start_lambda(self, data: ResponseData, mu: FloatArray) -> float:
        """Moment estimate of lambda given means mu, shape (n,); 0 without a dispersion parameter."""
        return 0.0

    def lambda_unit(self, data: ResponseData) -> float:
        """lambda at which the dispersion is as large as the rest of the variation: what `limit` counts from."""
        return 0.0

    @abstractmethod
    def row_noise(self, data: ResponseData) -> RowNoise | None:
        """The noise that an effect of every row cannot be told from; None where the data can tell the two apart."""

    def pearson_at(self, data: ResponseData, mu: FloatArray, eta: FloatArray, lam: Any) -> FloatArray:
        """Pearson residuals of rows with these means and conditional linear predictors, shape (n,).

        Parameters
        ----------
        data : ResponseData
        mu, eta : ndarray, shape (n,)
        lam : float or ndarray
        """
        return self.pearson(data, mu, lam)

    def pearson(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """Pearson residuals sqrt(w / V(mu)) (y - mu), as R's glm, shape (n,)."""
        raise self.lacks("Pearson residuals")

    def deviance_residuals(self, data: ResponseData, mu: FloatArray, lam: float = 0.0) -> FloatArray:
        """sign(y - mu) sqrt(w d), d the unit deviance as in R's glm, shape (n,)."""
        raise self.lacks("deviance residuals")
