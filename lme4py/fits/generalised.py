"""The frozen result of a generalised linear mixed model, and the step from a design to it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lme4py.covariance.user_theta import theta_jacobian
from lme4py.design.design import Design
from lme4py.engine.certificate import Certificate, Evaluation
from lme4py.engine.generalised.certificate import certify_glmm
from lme4py.engine.generalised.descent import GlmmOptimum
from lme4py.engine.generalised.hessian import curvature_floor, inverse_hessian
from lme4py.engine.generalised.identification import identify_glmm
from lme4py.engine.generalised.integral import IntegralCheck, check_integral
from lme4py.engine.generalised.laplace import Laplace, laplace
from lme4py.engine.generalised.limit import Limit, find_limit, range_hint
from lme4py.engine.generalised.nested_quadrature import make_quadrature
from lme4py.engine.generalised.problem import FixedSystem, GlmmProblem, ModeError, ModeFinder, make_glmm
from lme4py.engine.generalised.solve import solve_glmm
from lme4py.engine.identification.one_answer import refuse_one_answer, refuse_perfect_groups
from lme4py.engine.identification.recession import Recession
from lme4py.engine.identification.record import Identification
from lme4py.engine.optimise import Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, DesignError, OptimaWarning, OptionError, did_you_mean, warn
from lme4py.families.categories import threshold_names
from lme4py.families.registry import Family
from lme4py.families.response import ResponseData
from lme4py.fits.linear import _control, _fitted, term_names, warn_unidentified
from lme4py.frozen import Frozen, computed_once
from lme4py.linalg.types import FloatArray

__all__ = ["GlmmFit", "check_options", "fit_like", "glmm_fit", "user_jacobian"]

HESSIANS = ("observed", "expected")


@dataclass(frozen=True)
class GlmmFit(Frozen):
    """A fitted generalised linear mixed model: numbers only, everything on the user's scale.

    Attributes
    ----------
    design : Design
    family : Family
    data : ResponseData
    nAGQ : int
        0, 1 (Laplace) or the number of quadrature points per random effect; negative: not adaptive.
    hessian : str
        "observed" or "expected": the weights in the determinant of the Laplace approximation.
    criterion : float
        -2 log-likelihood, with all constants.
    beta : ndarray, shape (p,)
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
    theta : ndarray, shape (m,)
        Covariance parameters, column-major lower triangle per term.
    covariances : tuple of ndarray, each (k, k)
    modes : tuple of ndarray, each (J, k)
        Conditional modes of the random effects of each term.
    conditional_covariances : tuple of ndarray, each (J, k, k)
        Inverse curvature at the modes.
    linear_predictor : ndarray, shape (n,)
        Offset and conditional modes included.
    certificate : Certificate
    opt_log : tuple of Evaluation
    problem : GlmmProblem
        The engine's side of the model.
    phi : ndarray
        Parameters in the engine's columns.
    thresholds : ndarray, shape (K - 1,), or None
        Ordered categories: P(Y <= k) = F(thresholds[k - 1] - eta).
    identification : Identification
        Which covariance parameters are determined. Where not all are, `theta`, `covariances` and `modes` are one of
        many solutions that fit equally well.
    model_vcov : ndarray, shape (m + p + d, m + p + d), or None
        The covariance by the model where `vcov`, `parameter_vcov` and `log_dispersion_se` are robust.
    recession : Recession or None
        Where the likelihood has no maximum: which coefficients go to infinity. `beta` and `thresholds` are then finite
        numbers far out, where means and probabilities have their limits; `vcov` and `parameter_vcov` hold the
        covariances of what has a finite estimate, and nothing of the rest.
    """

    design: Design
    family: Family
    data: ResponseData
    nAGQ: int
    hessian: str
    criterion: float
    beta: FloatArray
    vcov: FloatArray
    parameter_vcov: FloatArray
    log_dispersion: float | None
    log_dispersion_se: float | None
    theta: FloatArray
    covariances: tuple[FloatArray, ...]
    modes: tuple[FloatArray, ...]
    conditional_covariances: tuple[FloatArray, ...]
    linear_predictor: FloatArray
    certificate: Certificate
    opt_log: tuple[Evaluation, ...]
    problem: GlmmProblem
    phi: FloatArray
    thresholds: FloatArray | None = None
    identification: Identification = field(default_factory=Identification)
    model_vcov: FloatArray | None = None
    recession: Recession | None = None

    @property
    def covariance_estimates(self) -> tuple[FloatArray, ...]:
        """`covariances` with NaN for what is not determined."""
        return self.identification.masked(self.covariances)

    @property
    def own_parameter_vcov(self) -> FloatArray:
        """`parameter_vcov` by the model, also where the fit was asked for a robust one."""
        return self.parameter_vcov if self.model_vcov is None else self.model_vcov

    @property
    def beta_estimates(self) -> FloatArray:
        """`beta` with infinities where the estimate is infinite and NaN where the data leave it open, shape (p,)."""
        if self.recession is None:
            return self.beta
        return self.recession.masked(np.eye(len(self.recession.names))[: self.beta.size], self.beta)

    @property
    def reml(self) -> bool:
        """False: generalised models are fitted by maximum likelihood."""
        return False

    @property
    def log_likelihood(self) -> float:
        """-criterion / 2."""
        return -0.5 * self.criterion

    @property
    def n_params(self) -> int:
        """Fixed effects, theta and the dispersion, or the free parameters of the thresholds."""
        return self.beta.size + self.theta.size + self.family.n_nuisance

    @property
    def df_resid(self) -> int:
        """Rows minus parameters."""
        return self.design.n_obs - self.n_params

    @property
    def default_ddf(self) -> str:
        """Degrees of freedom of tests and intervals of the fixed effects where none are asked for."""
        return self.design.conventions.ddf or "normal"

    @property
    def lam(self) -> Any:
        """Log dispersion, 0 without one; ordered categories: the parameters of the thresholds, shape (d,).

        Always a number to compute with: a dispersion at the end of its range is as near to it as makes no difference.
        """
        if self.thresholds is not None:
            return self.family.parameters(self.thresholds)
        if self.log_dispersion is None:
            return 0.0
        return self.log_dispersion if np.isfinite(self.log_dispersion) else self.problem.limit_lambda

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
        return self.family.fitted(self.data, self.linear_predictor, self.lam)

    @property
    def categories(self) -> tuple[Any, ...]:
        """Ordered categories: their labels, lowest first, as the user's own objects; () for other families."""
        return self.data.categories or ()

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """``("1|2", "2|3", ...)``; () for other families."""
        return threshold_names(self.categories)

    @property
    def threshold_vcov(self) -> FloatArray | None:
        """Covariance of `thresholds`, shape (K - 1, K - 1)."""
        if self.thresholds is None:
            return None
        place = self.theta.size + self.beta.size
        return self.parameter_vcov[place:, place:]

    @property
    def threshold_estimates(self) -> FloatArray | None:
        """`thresholds` with infinities and NaN as in `beta_estimates`, shape (K - 1,)."""
        if self.recession is None or self.thresholds is None:
            return self.thresholds
        return self.recession.masked(np.eye(len(self.recession.names))[self.beta.size :], self.thresholds)

    @property
    def threshold_se(self) -> FloatArray | None:
        """Standard errors of `thresholds`, NaN for those without a finite estimate, shape (K - 1,)."""
        vcov = self.threshold_vcov
        if vcov is None:
            return None
        errors = np.sqrt(np.maximum(vcov.diagonal(), 0.0))
        if self.recession is None:
            return errors
        return np.where(self.recession.limits[self.beta.size :] == 0.0, errors, np.nan)

    @computed_once
    def point(self) -> Laplace:
        """The Laplace approximation at the estimates, made again when it is first needed."""
        return self._at_estimates()

    def _at_estimates(self) -> Laplace:
        finder = ModeFinder(self.problem)
        theta, beta, lam = self.problem.split(self.phi)
        zero = np.zeros(sum(factor.size for factor in self.problem.factors))
        with limited_threads(self.design), np.errstate(all="ignore"):
            return laplace(finder, finder.find(theta, beta, lam, zero))

    @computed_once
    def integral_check(self) -> IntegralCheck:
        """The rule for the integral over the random effects, compared with a finer one at the estimates."""
        if self.nAGQ == 0:
            return IntegralCheck(0, None, reason="nAGQ=0 is no likelihood; use nAGQ=1 or more")
        try:
            # The rows of this point are not kept: a fit that was only checked stays small.
            found = self.__dict__.get("point") or self._at_estimates()
        except ModeError:
            return IntegralCheck(self.nAGQ, None, reason="the modes could not be found again at the estimates")
        to_user = user_jacobian(self.problem, self.phi)
        back = np.linalg.pinv(to_user)
        with limited_threads(self.design):
            return check_integral(
                found.finder, found, self.nAGQ, self.criterion, back @ self.own_parameter_vcov @ back.T, to_user
            )

    @property
    def laplace_error(self) -> float | None:
        """Change of the criterion at the estimates under quadrature; None where that would be expensive."""
        check = self.integral_check
        return None if self.nAGQ != 1 or check.points is None else -2.0 * check.change

    @property
    def laplace_is_poor(self) -> bool:
        """True when quadrature moves an estimate by more than half a standard error."""
        return self.nAGQ == 1 and self.integral_check.matters

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def glmm_fit(
    design: Design,
    family: Family,
    data: ResponseData | None = None,
    *,
    nAGQ: int = 1,
    hessian: str = "observed",
    start: Any = None,
    control: Control | Mapping[str, Any] | None = None,
    compare: bool = True,
    thorough: bool = True,
) -> GlmmFit:
    """Fit the model of a design.

    Parameters
    ----------
    design : Design
    family : Family
    data : ResponseData, optional
        The response, checked for this family; `design.response` when not given.
    nAGQ : int
    hessian : {"observed", "expected"}
    start : array of shape (m,), optional
        theta on the user's scale.
    control : Control or dict, optional
    compare : bool
        With more than one quadrature point, compare the integral with one of more points and warn where that matters.
    thorough : bool
        False for one of many fits to similar data: where another minimum is in sight, fewer other starts.

    Returns
    -------
    GlmmFit

    Warns
    -----
    ConvergenceWarning
        When the optimum cannot be certified, or the quadrature has too few points.
    OptimaWarning
        When another minimum was found that is hardly higher, the criterion falls below the minimum elsewhere without
        reaching one, or the predictor lies on both sides of a pole or zero of the link.
    IdentificationWarning
        When only sums of some variances are determined.

    Raises
    ------
    DesignError
        Variances that the data say nothing about, see `lme4py.engine.identification.record`; or that have no finite
        estimate, because every group gives one answer only, see `lme4py.engine.identification.one_answer`.

    Examples
    --------
    >>> from lme4py import lformula, load_dataset
    >>> from lme4py.families.registry import make_family
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> design = lformula(formula, load_dataset("cbpp"), family="binomial")
    >>> fit = glmm_fit(design, make_family("binomial", "logit"), nAGQ=9)
    >>> fit.theta.round(4), fit.certificate.converged
    (array([0.6475]), True)
    """
    settings = _control(control)
    check_options(nAGQ, hessian, fixed_points=family.has_thresholds)
    if data is None:
        data = design.response
    if data is None:
        raise OptionError("the design holds no response of a family; make it with lformula(..., family=...).")
    family.check_categories(data)
    refuse_one_answer(design, family, data)
    with limited_threads(design):
        problem = make_glmm(design, family, data, expected=hessian == "expected")
        problem = replace(problem, identification=identify_glmm(problem, design))
        warn_unidentified(problem.identification)
        finder = ModeFinder(problem)
        refine = make_quadrature(finder, nAGQ) if nAGQ not in (0, 1) else None
        inside = None if start is None else _inside_theta(problem, start)
        try:
            optimum = solve_glmm(finder, inside, settings, refine, nAGQ == 0, thorough)
        except DesignError as error:
            raise DesignError(f"{error}{range_hint(problem, design.x_names)}") from None
        hint = "" if optimum.is_minimum else range_hint(problem, design.x_names)
        if hint:
            raise DesignError(f"the criterion has no minimum.{hint}")
        fit = _make_fit(design, family, data, nAGQ, hessian, finder, optimum)
    warn_of(fit, compare, stacklevel=4)
    return fit


def warn_of(fit: GlmmFit, compare: bool, stacklevel: int) -> None:
    """Warn of an optimum that is not certified or not the lowest, or of a quadrature with too few points.

    Parameters
    ----------
    fit : GlmmFit
    compare : bool
        Look at the quadrature, and speak of infinite estimates: the likelihood of their limit is one like others.
    stacklevel : int
    """
    if not fit.certificate.converged and (compare or fit.recession is None):
        warnings.warn(fit.certificate.verdict, ConvergenceWarning, stacklevel=stacklevel)
    elif compare and (fit.certificate.caution or fit.certificate.second is not None):
        warn(fit.certificate.verdict, OptimaWarning)
    elif compare and fit.nAGQ not in (0, 1) and fit.integral_check.matters:
        warnings.warn(str(fit.integral_check), ConvergenceWarning, stacklevel=stacklevel)


def fit_like(
    fit: GlmmFit, design: Design, data: ResponseData | None = None, start: Any = None, thorough: bool = True
) -> GlmmFit:
    """The model of another design, fitted as `fit` was; how good its integral is, was said of `fit`.

    Parameters
    ----------
    fit : GlmmFit
    design : Design
    data : ResponseData, optional
        That of `fit` when not given.
    start : array of shape (m,), optional
        theta on the user's scale.
    thorough : bool
        As in `glmm_fit`.
    """
    response = fit.data if data is None else data
    return glmm_fit(
        design,
        fit.family,
        response,
        nAGQ=fit.nAGQ,
        hessian=fit.hessian,
        start=start,
        compare=False,
        thorough=thorough,
    )


def check_options(nAGQ: object, hessian: object, fixed_points: bool = False) -> None:
    """Refuse what is no number of points or no kind of information.

    Parameters
    ----------
    nAGQ, hessian : object
    fixed_points : bool
        Ordered categories: negative numbers of points are allowed (R's clmm: quadrature that is not adaptive), 0 is
        not.
    """
    whole = isinstance(nAGQ, int | np.integer) and not isinstance(nAGQ, bool)
    if fixed_points and (not whole or nAGQ in (0, -1)):
        raise OptionError(
            f"nAGQ={nAGQ!r} must be 1 (Laplace), a number of points of adaptive quadrature such as 9, or that number "
            "with a minus sign for quadrature that is not adaptive."
        )
    if not whole or (int(nAGQ) < 0 and not fixed_points):  # type: ignore[call-overload]
        raise OptionError(f"nAGQ={nAGQ!r} must be 0, 1 (Laplace), or a number of quadrature points such as 9.")
    if hessian not in HESSIANS:
        hint = did_you_mean(str(hessian), HESSIANS)
        raise OptionError(
            f"hessian={hessian!r} is not known.{hint} Use 'observed' (as glmmTMB) or 'expected' (as lme4)."
        )


def _inside_theta(problem: GlmmProblem, start: Any) -> FloatArray:
    templates = problem.templates
    T = templates.user.factors(templates.check(start))
    inside: Any = [np.linalg.solve(S, t) for S, t in zip(problem.S, T, strict=True)]
    return templates.theta_of_factors(inside)


def _make_fit(
    design: Design,
    family: Family,
    data: ResponseData,
    nAGQ: int,
    hessian: str,
    finder: ModeFinder,
    optimum: GlmmOptimum,
) -> GlmmFit:
    problem = finder.problem
    limit = _limit(design, finder, optimum, nAGQ)
    if limit is not None:
        optimum = limit.optimum
    theta, inside_beta, inside_lam = problem.split(optimum.phi)
    beta, lam = problem.C @ inside_beta, problem.user_nuisance(inside_beta, inside_lam)
    covariances, factors = [], []
    for T, S in zip(problem.templates.factors(theta), problem.S, strict=True):
        root = S @ T
        factors.append(root)
        covariances.append(root @ root.T)
    modes = _user_modes(problem, optimum.found)
    eta = _fitted(design, beta, modes)
    if limit is None:
        refuse_perfect_groups(design, family, data, beta, lam, covariances[0], eta)
    covariance = _covariance(problem, optimum, limit, profiled=nAGQ == 0)
    m, p = problem.n_theta, problem.n_fixed
    vcov = covariance[m : m + p, m : m + p].copy()
    return GlmmFit(
        design=design,
        family=family,
        data=data,
        nAGQ=int(nAGQ),
        hessian=hessian,
        criterion=optimum.value,
        beta=beta,
        vcov=vcov,
        parameter_vcov=covariance,
        log_dispersion=problem.reported_lambda(lam) if problem.n_dispersion else None,
        log_dispersion_se=_dispersion_error(problem, lam, covariance),
        theta=problem.templates.user.theta_of_factors(factors),
        covariances=tuple(covariances),
        modes=modes,
        conditional_covariances=_user_conditional(problem, optimum.found),
        linear_predictor=eta,
        certificate=certify_glmm(
            problem,
            optimum if limit is None else limit.inside,
            term_names(design),
            "" if limit is None else _no_maximum(limit, family),
        ),
        opt_log=optimum.log,
        problem=problem,
        phi=optimum.phi,
        thresholds=family.alpha(lam),
        identification=problem.identification if limit is None else limit.identification,
        recession=None if limit is None else limit.recession,
    )


def _no_maximum(limit: Limit, family: Family) -> str:
    """Why there is no maximum, and what is not determined in the limit."""
    text = limit.recession.describe(family.separates)
    open_ones = limit.identification.sentences
    return f"{text} Not every variance is identified: {'; '.join(open_ones)}." if open_ones else text


def _limit(design: Design, finder: ModeFinder, optimum: GlmmOptimum, nAGQ: int) -> Limit | None:
    """What the likelihood tends to where it has no maximum."""
    problem = finder.problem

    def coefficients() -> tuple[tuple[str, ...], FloatArray]:
        cuts = threshold_names(problem.data.categories or ())
        rows, columns = problem.n_fixed + len(cuts), problem.n_fixed + (problem.n_nuisance if cuts else 0)
        jacobian = user_jacobian(problem, optimum.phi)[problem.n_theta :, problem.n_theta :]
        return (*design.x_names, *cuts), jacobian[:rows, :columns]

    return find_limit(finder, optimum, coefficients, design.terms, nAGQ)


def _dispersion_error(problem: GlmmProblem, lam: Any, covariance: FloatArray) -> float | None:
    if not problem.n_dispersion:
        return None
    return float("nan") if problem.at_limit(lam) else float(np.sqrt(covariance[-1, -1]))


def _covariance(problem: GlmmProblem, optimum: GlmmOptimum, limit: Limit | None, profiled: bool) -> FloatArray:
    """Covariance of (theta, beta, log dispersion or all thresholds) on the user's scale."""
    m, p = problem.n_theta, problem.n_fixed
    inside = optimum if limit is None else limit.inside
    inverse = 2.0 * inverse_hessian(inside.hessian, curvature_floor(optimum.found, problem.unit), m)
    if profiled:
        mode = optimum.found.mode
        system = FixedSystem(problem, mode.swept, mode.w, np.zeros(problem.n_obs))
        basis = np.eye(p) if limit is None else limit.basis
        fixed = basis @ np.linalg.inv(basis.T @ system.cross @ basis) @ basis.T if p else np.zeros((0, 0))
        inverse = _with_block(inverse, fixed, m)
    elif limit is not None:
        inverse = limit.basis @ inverse @ limit.basis.T
    to_user = user_jacobian(problem, optimum.phi)
    covariance: FloatArray = to_user @ inverse @ to_user.T
    return 0.5 * (covariance + covariance.T)


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
    A = problem.family.threshold_matrix
    last = np.eye(problem.n_nuisance) if A is None else A
    to_user = np.zeros((m + p + last.shape[0], phi.size))
    to_user[:m, :m] = theta_jacobian(problem.templates, problem.S, phi[:m])
    to_user[m : m + p, m : m + p] = problem.C
    to_user[m + p :, m + p :] = last
    to_user[:, problem.held(phi)] = 0.0
    if problem.shift is not None:
        to_user[m + p :, m : m + p] = -problem.shift
    return to_user


def _with_block(outer: FloatArray, block: FloatArray, place: int) -> FloatArray:
    """`outer` with `block` put on its diagonal before position `place`."""
    rows = np.r_[:place, place + block.shape[0] : outer.shape[0] + block.shape[0]]
    inside = np.arange(place, place + block.shape[0])
    full = np.zeros((rows.size + inside.size, rows.size + inside.size))
    full[np.ix_(rows, rows)] = outer
    full[np.ix_(inside, inside)] = block
    return full


def _user_modes(problem: GlmmProblem, found: Laplace) -> tuple[FloatArray, ...]:
    """Conditional modes of each term, (J, k)."""
    out: list[FloatArray] = [np.empty(0)] * len(problem.templates.templates)
    blocks = problem.products.split(found.mode.b)
    for factor, b in zip(problem.factors, blocks, strict=True):
        values = b.reshape(factor.n_columns, factor.n_levels)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            out[term] = (problem.S[term] @ values[columns]).T
    return tuple(out)


def _user_conditional(problem: GlmmProblem, found: Laplace) -> tuple[FloatArray, ...]:
    """Diagonal blocks of Lambda M^-1 Lambda' of each term, (J, k, k)."""
    out: list[FloatArray] = [np.empty(0)] * len(problem.templates.templates)
    for factor, block in zip(problem.factors, found.diagonal, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            S = problem.S[term]
            out[term] = np.einsum("ab,bcj,dc->jad", S, block[columns, columns], S)
    return tuple(out)
