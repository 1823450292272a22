"""The frozen result of a generalised linear mixed model, and the step from a design to it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.design.response import ResponseData
from lme4py.engine.certificate import Certificate, Evaluation
from lme4py.engine.families import Family
from lme4py.engine.glmm import FixedSystem, GlmmProblem, ModeFinder, make_glmm
from lme4py.engine.glmm_certificate import certify_glmm
from lme4py.engine.glmm_hessian import curvature_floor, inverse_hessian
from lme4py.engine.glmm_laplace import Laplace, laplace
from lme4py.engine.glmm_solve import GlmmOptimum, solve_glmm
from lme4py.engine.nested_quadrature import find_nesting, make_quadrature
from lme4py.engine.optimize import Control
from lme4py.engine.separation import describe_separation
from lme4py.engine.threads import limited_threads
from lme4py.engine.types import FloatArray
from lme4py.errors import ConvergenceWarning, OptionError, did_you_mean
from lme4py.fit import _control, _fitted

__all__ = ["GlmmFit", "check_options", "glmm_fit"]

HESSIANS = ("observed", "expected")


@dataclass(frozen=True)
class GlmmFit:
    """A fitted generalised linear mixed model: numbers only, everything on the user's scale.

    Attributes
    ----------
    design : Design
    family : Family
    data : ResponseData
    nAGQ : int
        0, 1 (Laplace) or the number of quadrature points per random effect.
    hessian : str
        "observed" or "expected": the weights in the determinant of the Laplace approximation.
    criterion : float
        -2 log-likelihood, with all constants.
    beta : ndarray, shape (p,)
    vcov : ndarray, shape (p, p)
        Beta block of the inverse of half the Hessian of `criterion` in (theta, beta, log dispersion); for
        nAGQ = 0 (X'V^-1X)^-1.
    log_dispersion, log_dispersion_se : float or None
        None for families without a dispersion parameter.
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
    """

    design: Design
    family: Family
    data: ResponseData
    nAGQ: int
    hessian: str
    criterion: float
    beta: FloatArray
    vcov: FloatArray
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
        """Fixed effects, theta and the dispersion."""
        return self.beta.size + self.theta.size + self.family.n_dispersion

    @property
    def df_resid(self) -> int:
        """Rows minus parameters."""
        return self.design.n_obs - self.n_params

    @property
    def lam(self) -> float:
        """Log dispersion, 0 without one."""
        return 0.0 if self.log_dispersion is None else self.log_dispersion

    @property
    def dispersion(self) -> float:
        """Dispersion parameter of the family (1 without one)."""
        return float(self.family.dispersion(self.lam))

    @property
    def sigma(self) -> float:
        """Scale as glmmTMB's ``sigma()`` gives it (1 without a dispersion parameter)."""
        return float(self.family.sigma(self.lam))

    @property
    def fitted(self) -> FloatArray:
        """Means of the rows used (probabilities for the binomial family), conditional modes included."""
        return self.family.mean(self.linear_predictor)

    @cached_property
    def point(self) -> Laplace:
        """The Laplace approximation at the estimates, made again when it is first needed."""
        finder = ModeFinder(self.problem)
        theta, beta, lam = self.problem.split(self.phi)
        zero = np.zeros(sum(factor.size for factor in self.problem.factors))
        with limited_threads(self.design), np.errstate(all="ignore"):
            return laplace(finder, finder.find(theta, beta, lam, zero))

    @cached_property
    def laplace_error(self) -> float | None:
        """Change of the criterion at the estimates under quadrature; None where that would be expensive."""
        problem = self.problem
        k = sum(factor.n_columns for factor in problem.factors)
        # Three points are not reliably better than Laplace when the centres move with an outer effect.
        points = 5 if k == 1 or len(problem.factors) > 1 else 3
        splits = len(problem.factors) == 1 or find_nesting(problem) is not None
        if self.nAGQ != 1 or not splits or k > 2 or points**k * problem.n_obs > 1_000_000:
            return None
        return make_quadrature(ModeFinder(problem), points).value(self.point) - self.criterion

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def laplace_is_poor(self) -> bool:
        """True when quadrature changes the criterion by more than a tenth of a log-likelihood unit."""
        return self.laplace_error is not None and abs(self.laplace_error) > 0.2


def glmm_fit(
    design: Design,
    family: Family,
    data: ResponseData | None = None,
    *,
    nAGQ: int = 1,
    hessian: str = "observed",
    start: Any = None,
    control: Control | Mapping[str, Any] | None = None,
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

    Warns
    -----
    ConvergenceWarning
        When the optimum cannot be certified.
    """
    settings = _control(control)
    check_options(nAGQ, hessian)
    if data is None:
        data = design.response
    if data is None:
        raise OptionError("the design holds no response of a family; make it with lformula(..., family=...).")
    with limited_threads(design):
        problem = make_glmm(design, family, data, expected=hessian == "expected")
        finder = ModeFinder(problem)
        refine = make_quadrature(finder, nAGQ) if nAGQ > 1 else None
        inside = None if start is None else _inside_theta(problem, start)
        optimum = solve_glmm(finder, inside, settings, refine, profiled=nAGQ == 0)
        fit = _make_fit(design, family, data, nAGQ, hessian, finder, optimum)
    if not fit.certificate.converged:
        warnings.warn(fit.certificate.verdict, ConvergenceWarning, stacklevel=3)
    return fit


def check_options(nAGQ: object, hessian: object) -> None:
    """Refuse what is no number of points or no kind of information."""
    if isinstance(nAGQ, bool) or not isinstance(nAGQ, int | np.integer) or int(nAGQ) < 0:
        raise OptionError(f"nAGQ={nAGQ!r} must be 0, 1 (Laplace), or a number of quadrature points such as 9.")
    if hessian not in HESSIANS:
        hint = did_you_mean(str(hessian), HESSIANS)
        raise OptionError(
            f"hessian={hessian!r} is not known.{hint} Use 'observed' (as glmmTMB) or 'expected' (as lme4)."
        )


def _inside_theta(problem: GlmmProblem, start: Any) -> FloatArray:
    templates = problem.templates
    T = templates.factors(templates.check(start))
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
    theta, inside_beta, lam = problem.split(optimum.phi)
    beta = problem.C @ inside_beta
    covariances, factors = [], []
    for T, S in zip(problem.templates.factors(theta), problem.S, strict=True):
        root = S @ T
        factors.append(root)
        covariances.append(root @ root.T)
    modes = _user_modes(problem, optimum.found)
    names = [(term.label, term.columns) for term in design.terms]
    vcov, lam_se = _covariance(problem, optimum, profiled=nAGQ == 0)
    return GlmmFit(
        design=design,
        family=family,
        data=data,
        nAGQ=int(nAGQ),
        hessian=hessian,
        criterion=optimum.value,
        beta=beta,
        vcov=vcov,
        log_dispersion=lam if problem.n_dispersion else None,
        log_dispersion_se=lam_se,
        theta=problem.templates.theta_of_factors(factors),
        covariances=tuple(covariances),
        modes=modes,
        conditional_covariances=_user_conditional(problem, optimum.found),
        linear_predictor=_fitted(design, beta, modes),
        certificate=certify_glmm(problem, optimum, names, describe_separation(design, data, family, beta, vcov)),
        opt_log=optimum.log,
        problem=problem,
        phi=optimum.phi,
    )


def _covariance(problem: GlmmProblem, optimum: GlmmOptimum, profiled: bool) -> tuple[FloatArray, float | None]:
    """Covariance of beta on the user's scale, and the standard error of log dispersion."""
    m, p, d = problem.n_theta, problem.n_fixed, problem.n_dispersion
    inverse = 2.0 * inverse_hessian(optimum.hessian, curvature_floor(optimum.found))
    last = float(np.sqrt(inverse[-1, -1])) if d else None
    if profiled:
        mode = optimum.found.mode
        system = FixedSystem(problem, mode.swept, mode.w, np.zeros(problem.n_obs))
        inside = np.linalg.inv(system.cross) if p else np.zeros((0, 0))
    else:
        inside = inverse[m : m + p, m : m + p]
    return problem.C @ inside @ problem.C.T, last


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
