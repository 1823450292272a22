"""The frozen result of a generalised linear mixed model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from lme4py.engine.generalised.integrals.integral import IntegralCheck, check_integral
from lme4py.engine.generalised.integrals.nested_quadrature import Rule, refinement
from lme4py.engine.generalised.laplace import Laplace, laplace
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem, ModeError, ModeFinder
from lme4py.engine.identification.recession import Recession
from lme4py.engine.identification.record import Identification
from lme4py.engine.threads import limited_threads
from lme4py.families.ordered.categories import threshold_names
from lme4py.families.registry import Family
from lme4py.families.response import ResponseData
from lme4py.fits.base import Approximation, Fit
from lme4py.fits.derived import derived
from lme4py.fits.method import Ddf
from lme4py.fits.steps import response_with_modes
from lme4py.linalg.types import FloatArray

__all__ = ["GeneralisedFit", "PenalisedGeneralisedFit", "penalised_fit", "user_jacobian"]


@dataclass(frozen=True, kw_only=True)
class GeneralisedFit(Fit):
    """A fitted generalised linear mixed model: numbers only, everything on the user's scale.

    Beside those of `Fit`:

    Attributes
    ----------
    family : Family
    data : ResponseData
    nAGQ : int
        0, 1 (Laplace) or the number of quadrature points per random effect; negative: not adaptive.
    hessian : str
        "observed" or "expected": the weights in the determinant of the Laplace approximation.
    vcov : ndarray, shape (p, p)
        Beta block of the inverse of half the Hessian of `criterion` in (theta, beta, log dispersion); for
        nAGQ = 0 (X'V^-1X)^-1.
    parameter_vcov : ndarray, shape (m + p + d, m + p + d)
        Covariance of (theta, beta, log dispersion), theta as in `theta`, d = 1 for families with a dispersion
        parameter and 0 for the others: the inverse of half the Hessian of `criterion`. Ordered categories have all
        K - 1 thresholds in the last place, whatever their structure. Parameters on the boundary (a zero on the
        diagonal of an unstructured T with the zeros below it, a zero eigenvalue of other structures) are held fixed:
        their rows and columns are zero, and so are those of directions that change nothing. Never NaN. For nAGQ = 0
        beta has the covariance `vcov`, and zeros with theta and the dispersion, whose own block is the inverse of
        half the Hessian of the profiled criterion.
    log_dispersion, log_dispersion_se : float or None
        None for families without a dispersion parameter. At the end of its range (see `dispersion_limit`) the log
        dispersion is inf or -inf, and its standard error NaN.
    conditional_covariances : tuple of ndarray, each (J, k, k)
        Inverse curvature at the modes.
    linear_predictor : ndarray, shape (n,)
        Offset and conditional modes included.
    problem : GlmmProblem
        The engine's side of the model.
    phi : ndarray
        Parameters in the engine's columns.
    thresholds : ndarray, shape (K - 1,), or None
        Ordered categories: P(Y <= k) = F(thresholds[k - 1] - eta).
    model_vcov : ndarray, shape (m + p + d, m + p + d), or None
        The covariance by the model where `vcov`, `parameter_vcov` and `log_dispersion_se` are robust.
    recession : Recession or None
        Where the likelihood has no maximum: which coefficients go to infinity. `beta` and `thresholds` are then finite
        numbers far out, where means and probabilities have their limits; `vcov` and `parameter_vcov` hold the
        covariances of what has a finite estimate, and nothing of the rest.
    restricted : bool
        The criterion is -2 log-likelihood integrated over the fixed effects too; `beta` is the mode then, and its
        covariance (X'V^-1X)^-1 + J Var(theta, log dispersion) J', with J the derivative of the mode.
    others : tuple of float
        The parameters of the family that are neither a dispersion nor thresholds (`Family.nuisance_names`), on scales
        without bounds.
    """

    kind: ClassVar[str] = "generalised linear mixed model"
    ddf_methods: ClassVar[tuple[Ddf, ...]] = ("residual", "normal")
    normal_errors: ClassVar[bool] = False
    robust_variances: ClassVar[bool] = True

    family: Family
    data: ResponseData
    nAGQ: int
    hessian: str
    parameter_vcov: FloatArray
    log_dispersion: float | None
    log_dispersion_se: float | None
    conditional_covariances: tuple[FloatArray, ...]
    linear_predictor: FloatArray
    problem: GlmmProblem
    phi: FloatArray
    thresholds: FloatArray | None = None
    identification: Identification = field(default_factory=Identification)
    model_vcov: FloatArray | None = None
    recession: Recession | None = None
    others: tuple[float, ...] = ()
    restricted: bool = False

    @property
    def own_parameter_vcov(self) -> FloatArray:
        """`parameter_vcov` by the model, also where the fit was asked for a robust one."""
        return self.parameter_vcov if self.model_vcov is None else self.model_vcov

    @property
    def reml(self) -> bool:
        """Whether the criterion integrates over the fixed effects too."""
        return self.restricted

    @property
    def n_params(self) -> int:
        """Fixed effects, theta and the dispersion, or the free parameters of the thresholds."""
        return self.beta.size + self.theta.size + (0 if self.dispersion_is_known else self.family.n_nuisance)

    @property
    def dispersion_is_known(self) -> bool:
        """Whether the dispersion is at a value that the user gave, and no parameter."""
        return self.design.log_dispersion is not None

    @property
    def default_ddf(self) -> str:
        """Degrees of freedom of tests and intervals of the fixed effects where none are asked for."""
        return self.conventions.ddf or "normal"

    @property
    def lam(self) -> Any:
        """Log dispersion, 0 without one; ordered categories: the parameters of the thresholds, shape (d,).

        Always a number to compute with: a dispersion at the end of its range is as near to it as makes no difference.
        """
        if self.thresholds is not None:
            return np.concatenate([self.others, self.family.parameters(self.thresholds)])
        own: tuple[float, ...] = ()
        if self.log_dispersion is not None:
            own = (self.log_dispersion if np.isfinite(self.log_dispersion) else self.problem.limit_lambda,)
        if self.others:
            return np.array([*self.others, *own])
        return own[0] if own else 0.0

    @property
    def approximation(self) -> Approximation:
        """`nAGQ` and `hessian`."""
        return Approximation(self.nAGQ, self.hessian)

    @property
    def theta_unit(self) -> float:
        """1."""
        return 1.0

    @property
    def has_residual(self) -> bool:
        """Whether the dispersion of the family is a residual variance."""
        return self.family.has_residual and not self.dispersion_is_known

    @property
    def dispersion_limit(self) -> str:
        """What the model is where the dispersion is at the end of its range, such as "the Poisson model"; else ""."""
        at_limit = self.log_dispersion is not None and not np.isfinite(self.log_dispersion)
        return self.problem.limit_model if at_limit else ""

    @property
    def distribution(self) -> Family:
        """The distribution of the response: the family, or its limit where the dispersion is there."""
        return self.family.limiting() if self.dispersion_limit else self.family

    @property
    def dispersion(self) -> float:
        """Dispersion parameter of the family (1 without one)."""
        return float(self.family.dispersion(self.log_dispersion or 0.0))

    @property
    def sigma(self) -> float:
        """Scale as glmmTMB's ``sigma()`` gives it (1 without a dispersion parameter)."""
        return float(self.family.sigma(self.log_dispersion or 0.0))

    @property
    def fitted(self) -> FloatArray:
        """Means of the rows used (probabilities for the binomial family), conditional modes included.

        For ordered categories the probability of the category observed, as R's clmm has it.
        """
        return self.family.fitted(self.response, self.linear_predictor, self.lam)

    @property
    def response(self) -> ResponseData:
        """`data` with the conditional modes of further linear predictors in their offsets."""
        return response_with_modes(self.design, self.data, self.modes)

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """``("1|2", "2|3", ...)``; () for other families."""
        return threshold_names(self.categories) if self.family.has_thresholds else ()

    @property
    def threshold_vcov(self) -> FloatArray | None:
        """Covariance of `thresholds`, shape (K - 1, K - 1)."""
        if self.thresholds is None:
            return None
        place = self.theta.size + self.beta.size + self.family.n_coefficients
        return self.parameter_vcov[place:, place:]

    @property
    def threshold_estimates(self) -> FloatArray | None:
        """`thresholds` with infinities and NaN as in `beta_estimates`, shape (K - 1,)."""
        if self.recession is None or self.thresholds is None:
            return self.thresholds
        place = self.beta.size + self.family.n_coefficients
        return self.recession.masked(np.eye(len(self.recession.names))[place:], self.thresholds)

    @property
    def threshold_se(self) -> FloatArray | None:
        """Standard errors of `thresholds`, NaN for those without a finite estimate, shape (K - 1,)."""
        vcov = self.threshold_vcov
        if vcov is None:
            return None
        errors = np.sqrt(np.maximum(vcov.diagonal(), 0.0))
        if self.recession is None:
            return errors
        place = self.beta.size + self.family.n_coefficients
        return np.where(self.recession.limits[place:] == 0.0, errors, np.nan)

    @derived
    def point(self) -> Laplace:
        """The Laplace approximation at the estimates, made again when it is first needed."""
        return self._at_estimates()

    def _at_estimates(self) -> Laplace:
        finder = ModeFinder(self.problem)
        theta, beta, lam = self.problem.split(self.phi)
        zero = np.zeros(sum(factor.size for factor in self.problem.factors))
        with limited_threads(self.design), np.errstate(all="ignore"):
            mode = finder.find(theta, beta, lam, zero, joint=self.restricted, exact=True)
            return laplace(finder, mode, profiled=self.restricted)

    @derived
    def in_blocks(self) -> GeneralisedFit:
        """The same fit with a block of all times for each group where it has their sparse inverse; else itself.

        Raises
        ------
        DesignError
            The blocks do not fit into memory.
        """
        if self.problem.chain is None:
            return self
        problem = make_glmm(self.design, self.family, self.data, self.problem.expected, chains=False)
        return replace(self, problem=replace(problem, restricted=self.problem.restricted))

    @derived
    def integral_check(self) -> IntegralCheck:
        """The rule for the integral over the random effects, compared with a finer one at the estimates."""
        if self.nAGQ == 0:
            return IntegralCheck(0, None, reason="nAGQ=0 is no likelihood; use nAGQ=1 or more")
        if self.restricted:
            return IntegralCheck(1, None, reason="it is one over the fixed effects too")
        if not self.design.terms:
            return IntegralCheck(self.nAGQ, None, reason="the model has no random effects, and no integral")
        try:
            # The rows of this point are not kept: a fit that was only checked stays small.
            found = self.point if GeneralisedFit.point.known(self) else self._at_estimates()
        except ModeError:
            return IntegralCheck(self.nAGQ, None, reason="the modes could not be found again at the estimates")
        to_user = user_jacobian(self.problem, self.phi)
        back = np.linalg.pinv(to_user)
        with limited_threads(self.design):
            return check_integral(
                found.finder, found, self.nAGQ, self.criterion, back @ self.own_parameter_vcov @ back.T, to_user
            )

    def cluster_rule(self, finder: ModeFinder) -> Rule | None:
        """What takes the place of Laplace's approximation in the likelihood of one cluster; None for nothing.

        Parameters
        ----------
        finder : ModeFinder
            Of the rows of the cluster.

        Returns
        -------
        callable or None
        """
        return refinement(finder, self.nAGQ)

    @property
    def laplace_error(self) -> float | None:
        """Change of the criterion at the estimates under quadrature; None where that would be expensive."""
        check = self.integral_check
        return None if self.nAGQ != 1 or check.points is None else -2.0 * check.change

    @property
    def laplace_is_poor(self) -> bool:
        """True when quadrature moves an estimate by more than half a standard error."""
        return self.nAGQ == 1 and self.integral_check.matters


@dataclass(frozen=True, kw_only=True)
class PenalisedGeneralisedFit(GeneralisedFit):
    """A generalised linear mixed model with priors: the mode of its posterior density.

    Beside those of `GeneralisedFit`:

    Attributes
    ----------
    criterion : float
        What was minimised: -2 log-likelihood and `prior` together.
    prior : float
        -2 log density of the priors at the mode, without the normalising constants of those of variances.
    """

    kind: ClassVar[str] = "penalised generalised linear mixed model"
    penalised: ClassVar[bool] = True

    prior: float

    @property
    def log_likelihood(self) -> float:
        """Of the data alone, at the mode."""
        return -0.5 * (self.criterion - self.prior)


def penalised_fit(fit: GeneralisedFit, prior: float) -> PenalisedGeneralisedFit:
    """The fit as one with priors.

    Parameters
    ----------
    fit : GeneralisedFit
    prior : float
        -2 log density of the priors at the mode.
    """
    return PenalisedGeneralisedFit(**{f.name: getattr(fit, f.name) for f in fields(fit) if f.init}, prior=prior)


def covariances_of(problem: GlmmProblem, phi: FloatArray) -> list[FloatArray]:
    """Covariances of all terms on the user's scale.

    Parameters
    ----------
    problem : GlmmProblem
    phi : ndarray, shape (m + p + d,)
    """
    parts = problem.structures.split(phi[: problem.n_theta])
    own = zip(problem.structures.each, parts, problem.S, strict=True)
    return [structure.whole_covariance(theta, S) for structure, theta, S in own]


def user_jacobian(problem: GlmmProblem, phi: FloatArray) -> FloatArray:
    """Derivative of (theta, beta, log dispersion or all thresholds) on the user's scale in the engine's parameters.

    Parameters
    ----------
    problem : GlmmProblem
    phi : ndarray, shape (m + p + d,)
        theta, beta, log dispersion or free parameters of the thresholds, in the engine's columns.

    Returns
    -------
    ndarray, shape (m + p + d', m + p + d)
        d' = K - 1 for ordered categories, else d. Rows of parameters on the boundary are zero.
    """
    m, p = problem.n_theta, problem.n_fixed
    known = problem.family.user_matrix
    last = np.eye(problem.n_nuisance) if known is None else known
    to_user = np.zeros((m + p + last.shape[0], phi.size))
    to_user[:m, :m] = problem.structures.user.to_user_jacobian(phi[:m], problem.S)
    to_user[m : m + p, m : m + p] = problem.C
    to_user[m + p :, m + p :] = last
    to_user[:, problem.held(phi)] = 0.0
    if problem.shift is not None:
        to_user[m + p + problem.family.n_coefficients :, m : m + p] = -problem.shift
    return to_user
