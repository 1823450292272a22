"""What all fitted models have in common: the numbers that inference and reports are computed from.

A kind of model (linear, generalised) is a subclass with little of its own. What is computed on the engine's side, and
differently for every kind, is behind `Fit.model`; so nothing to the right of this room asks which kind it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from lme4py.fits.conventions import FORMULA, Conventions
from lme4py.fits.derived import Derived
from lme4py.frozen import Frozen

if TYPE_CHECKING:
    from lme4py.design.design import Design
    from lme4py.engine.certificate import Certificate, Evaluation
    from lme4py.engine.generalised.integrals.integral import IntegralCheck
    from lme4py.engine.identification.recession import Recession
    from lme4py.engine.identification.record import Identification
    from lme4py.families.base import Family
    from lme4py.families.response import ResponseData
    from lme4py.fits.method import Ddf
    from lme4py.linalg.types import FloatArray

__all__ = ["Approximation", "Fit", "fit_of"]


class Approximation(NamedTuple):
    """How a likelihood approximates its integral over the random effects, by the names of the options.

    Attributes
    ----------
    nAGQ : int
        0, 1 (Laplace) or the number of quadrature points per random effect; negative: not adaptive.
    hessian : str
        "observed" or "expected": the weights in the determinant of the Laplace approximation.
    """

    nAGQ: int
    hessian: str


@dataclass(frozen=True, kw_only=True)
class Fit(Frozen):
    """A fitted model: numbers only, everything on the user's scale, arrays read-only.

    Attributes
    ----------
    kind : str
        The kind of model in words, for messages.
    ddf_methods : tuple of str
        The degrees of freedom that tests and intervals of the fixed effects can have.
    normal_errors : bool
        Whether a response is the linear predictor plus a normal error, so that everything is linear in it.
    robust_variances : bool
        Whether a robust covariance is one of all parameters; False where it is one of the fixed effects alone.
    penalised : bool
        Whether the criterion holds priors beside the likelihood.
    pseudo_likelihood : bool
        Whether `criterion` is one of sampling weights, which no likelihood-ratio test or information criterion has.
    design : Design
    criterion : float
        What was minimised: -2 log-likelihood, with all constants, or the REML criterion.
    beta : ndarray, shape (p,)
    vcov : ndarray, shape (p, p)
        Covariance of `beta`.
    theta : ndarray, shape (m,)
        Covariance parameters, terms in the order of the design; column-major lower triangle of an unstructured term.
    covariances : tuple of ndarray, each (k, k)
        Covariance matrix of the random effects of each term.
    modes : tuple of ndarray, each (J, k)
        Conditional modes of the random effects of each term.
    certificate : Certificate
    opt_log : tuple of Evaluation
    identification : Identification
        Which covariance parameters are determined. Where not all are, `theta`, `covariances` and `modes` are one of
        many solutions that fit equally well.
    conventions : Conventions
        How the results of the fit speak, and what they use where a call does not say.
    derived : Derived
        Numbers that were computed from this fit.
    """

    kind: ClassVar[str]
    ddf_methods: ClassVar[tuple[Ddf, ...]]
    normal_errors: ClassVar[bool]
    robust_variances: ClassVar[bool]
    penalised: ClassVar[bool] = False
    pseudo_likelihood: ClassVar[bool] = False

    design: Design
    criterion: float
    beta: FloatArray
    vcov: FloatArray
    theta: FloatArray
    covariances: tuple[FloatArray, ...]
    modes: tuple[FloatArray, ...]
    certificate: Certificate
    opt_log: tuple[Evaluation, ...]
    identification: Identification
    conventions: Conventions = FORMULA
    derived: Derived = field(default_factory=Derived, init=False, repr=False, compare=False)

    @property
    def independent_residuals(self) -> bool:
        """Whether residuals (rows, given the random effects) are independent with one variance for each weight."""
        return True

    @property
    def has_fitted_variance(self) -> bool:
        """Whether residual variances depend on the fitted values."""
        return False

    if TYPE_CHECKING:
        # What every kind of fit has, some as a field and some as a property; all of it can only be read.

        @property
        def reml(self) -> bool:
            """Whether `criterion` is the REML criterion."""

        @property
        def sigma(self) -> float:
            """Residual standard deviation of a row with weight 1, or what stands for it in the family; else 1."""

        @property
        def fitted(self) -> FloatArray:
            """Means of the rows used, offset and conditional modes included, shape (n,)."""

        @property
        def linear_predictor(self) -> FloatArray:
            """Linear predictor of the rows used, offset and conditional modes included, shape (n,)."""

        @property
        def family(self) -> Family:
            """The distribution of the response with its link."""

        @property
        def data(self) -> ResponseData:
            """The response as the family reads it."""

        @property
        def lam(self) -> Any:
            """Log dispersion, or the parameters of thresholds, shape (d,): always numbers to compute with."""

        @property
        def theta_unit(self) -> float:
            """The standard deviation that theta is relative to: `sigma`, or 1."""

        @property
        def approximation(self) -> Approximation | None:
            """How the criterion approximates the integral over the random effects; None where it is exact."""

        @property
        def integral_check(self) -> IntegralCheck | None:
            """The rule for the integral over the random effects compared with a finer one; None where it is exact."""

        @property
        def default_ddf(self) -> str:
            """Degrees of freedom of tests and intervals of the fixed effects where none are asked for."""

        @property
        def n_params(self) -> int:
            """Estimated parameters: fixed effects, theta, and those of the distribution."""

        @property
        def recession(self) -> Recession | None:
            """Where the likelihood has no maximum: which coefficients go to infinity; None where it has one."""

        @property
        def has_residual(self) -> bool:
            """Whether `sigma` is a parameter of the table of variances."""

        @property
        def log_dispersion(self) -> float | None:
            """Log of a dispersion parameter that is reported by a name of its own; None without one."""

        @property
        def log_dispersion_se(self) -> float | None:
            """Standard error of `log_dispersion`; None without one."""

        @property
        def dispersion(self) -> float:
            """Dispersion parameter of the family; 1 without one."""

        @property
        def dispersion_limit(self) -> str:
            """What the model is where the dispersion is at an end of its range: "the Poisson model"; else ""."""

        @property
        def distribution(self) -> Family:
            """The distribution of the response: the family, or its limit where the dispersion is there."""

        @property
        def thresholds(self) -> FloatArray | None:
            """Ordered categories: P(Y <= k) = F(thresholds[k - 1] - eta), shape (K - 1,); None for other responses."""

        @property
        def threshold_estimates(self) -> FloatArray | None:
            """`thresholds` with infinities and NaN as in `beta_estimates`, shape (K - 1,)."""

        @property
        def threshold_se(self) -> FloatArray | None:
            """Standard errors of `thresholds`, NaN for those without a finite estimate, shape (K - 1,)."""

        @property
        def threshold_vcov(self) -> FloatArray | None:
            """Covariance of `thresholds`, shape (K - 1, K - 1)."""

        @property
        def others(self) -> tuple[float, ...]:
            """Parameters of the family that are neither a dispersion nor thresholds, on scales without bounds."""

        @property
        def threshold_names(self) -> tuple[str, ...]:
            """``("1|2", "2|3", ...)``; () without thresholds."""

    def speaking(self, conventions: Conventions) -> Self:
        """The same fit under other conventions; numbers that were made while it was fitted stay.

        Parameters
        ----------
        conventions : Conventions

        Returns
        -------
        Fit
            Of the same kind.
        """
        if conventions is self.conventions:
            return self
        fit = replace(self, conventions=conventions)
        fit.derived.take(self.derived)
        return fit

    @property
    def has_f_tests(self) -> bool:
        """Whether denominators of tests of the fixed effects have degrees of freedom that are estimated."""
        return "satterthwaite" in self.ddf_methods

    @property
    def residual_deviations(self) -> list[tuple[str | None, float]]:
        """Residual standard deviations by name; one without a name where all rows have the same, none
        where the family has none.
        """
        return [(None, self.sigma)] if self.has_residual else []

    @property
    def residual_values(self) -> FloatArray:
        """Parameters of a residual structure and of variance functions; none where residuals have one variance."""
        return np.zeros(0)

    @property
    def categories(self) -> tuple[Any, ...]:
        """Ordered categories: their labels, lowest first, as the user's own objects; () for other responses."""
        return self.data.categories or ()

    @property
    def response(self) -> ResponseData:
        """`data` with the conditional modes of linear predictors after the first in their offsets."""
        return self.data

    @property
    def df_resid(self) -> int:
        """Rows minus parameters."""
        return self.design.n_obs - self.n_params

    @property
    def log_likelihood(self) -> float:
        """-criterion / 2 (the restricted log-likelihood for REML)."""
        return -0.5 * self.criterion

    @property
    def covariance_estimates(self) -> tuple[FloatArray, ...]:
        """`covariances` with NaN for what is not determined."""
        return self.identification.masked(self.covariances)

    @property
    def beta_estimates(self) -> FloatArray:
        """`beta` with infinities where the estimate is infinite and NaN where the data leave it open, shape (p,)."""
        if self.recession is None:
            return self.beta
        return self.recession.masked(np.eye(len(self.recession.names))[: self.beta.size], self.beta)

    @property
    def other_limits(self) -> FloatArray:
        """Of each of `others` +inf, -inf or NaN where it has no finite estimate, and 0 where it has one."""
        limits = np.zeros(len(self.others))
        p, q = self.beta.size, self.family.n_coefficients
        if self.recession is not None and len(self.recession.names) > p + q:
            limits[:q] = self.recession.limits[p : p + q]
        return limits

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def fit_of(result: object) -> Fit | None:
    """The fit of a result, or the fit itself; None for anything else.

    Parameters
    ----------
    result : object
    """
    fit = getattr(result, "fit", result)
    return fit if isinstance(fit, Fit) else None
