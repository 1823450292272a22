"""The second modular step of generalised models: the function that is minimised."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.engine.generalised.criteria import JointCriterion, ProfiledCriterion
from lme4py.engine.generalised.identification import identify_glmm
from lme4py.engine.generalised.integrals.nested_quadrature import refinement
from lme4py.engine.generalised.limit import range_hint
from lme4py.engine.generalised.making.make import make_glmm
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.search import solve_glmm
from lme4py.engine.generalised.starts.start import find_start
from lme4py.engine.identification.one_answer import refuse_one_answer
from lme4py.engine.optimise import Block, Control
from lme4py.engine.threads import limited_threads
from lme4py.errors import DesignError, OptionError, did_you_mean
from lme4py.fits.generalised.given_start import read_start
from lme4py.fits.optimisers import OWN, start_by_name
from lme4py.fits.steps import warn_unidentified

if TYPE_CHECKING:
    from lme4py.design.design import Design
    from lme4py.engine.generalised.optimum import GlmmOptimum
    from lme4py.engine.optimise import Control
    from lme4py.families.registry import Family
    from lme4py.families.response import ResponseData
    from lme4py.linalg.types import FloatArray

__all__ = ["GlmmCriterion", "check_options", "glmm_criterion"]

# What is said of fits with reml=True that have no value anywhere.
_FINITE = " With reml=True all fixed effects need finite estimates: see what reml=False says of them."

HESSIANS = ("observed", "expected")


class GlmmCriterion:
    """-2 log-likelihood of a generalised model as a function of its parameters on the user's scale.

    They stand in one vector: theta (m), beta (p), and what the family has beside them: the log dispersion, or the free
    parameters of the thresholds. With ``nAGQ=0`` or ``reml`` beta is part of the mode, and not of the vector.

    Parameters
    ----------
    design : Design
    family : Family
    data : ResponseData
    nAGQ : int
    hessian : str
    copies : tuple of ndarray, each (J,), or None
        How many levels each level of a grouping factor stands for.
    reml : bool
        Integrate over the fixed effects too.
    block : {"auto", "exact", "iterative"}
        As in `make_glmm`.

    Attributes
    ----------
    identification : Identification
        Which covariance parameters are determined.
    n_parameters : int
    """

    def __init__(
        self,
        design: Design,
        family: Family,
        data: ResponseData,
        nAGQ: int = 1,
        hessian: str = "observed",
        copies: tuple[FloatArray | None, ...] = (),
        reml: bool = False,
        block: Block = "exact",
    ):
        refuse_one_answer(design, family, data)
        self.design, self.family, self.data = design, family, data
        self.nAGQ, self.hessian = nAGQ, hessian
        problem = make_glmm(design, family, data, expected=hessian == "expected", copies=copies, block=block)
        if problem.penalty is not None and problem.penalty.has_fixed and nAGQ == 0:
            raise OptionError("fixef_prior needs nAGQ=1 or more: with nAGQ=0 the fixed effects are no parameters.")
        if reml:
            refuse_restricted(problem, nAGQ)
        self.profiled = nAGQ == 0 or reml
        self.problem: GlmmProblem = replace(problem, identification=identify_glmm(problem, design), restricted=reml)
        self.identification = self.problem.identification
        warn_unidentified(self.identification)
        self.finder = ModeFinder(self.problem)
        self.refine = refinement(self.finder, nAGQ)

    @property
    def n_parameters(self) -> int:
        """Length of the vector of parameters."""
        return self.problem.n_theta + (0 if self.profiled else self.problem.n_fixed) + self.problem.n_nuisance

    def __call__(self, parameters: Any) -> float:
        """Value at a vector of parameters, shape (n_parameters,).

        Raises
        ------
        OptionError
            A vector of another length, or where the modes of the random effects cannot be found.
        """
        return self._evaluate(parameters)[0]

    def gradient(self, parameters: Any) -> FloatArray:
        """Analytic gradient at a vector of parameters, shape (n_parameters,)."""
        _, inside, phi = self._evaluate(parameters)
        problem, m, p = self.problem, self.problem.n_theta, self.problem.n_fixed
        jacobian = np.eye(phi.size)
        jacobian[:m, :m] = problem.structures.user.to_user_jacobian(phi[:m], problem.S)
        if self.profiled:
            keep = np.r_[:m, m + p : phi.size]
            jacobian = jacobian[np.ix_(keep, keep)]
        else:
            jacobian[m : m + p, m : m + p] = problem.C
            constant = self.family.constant
            if problem.shift is not None and constant is not None:
                jacobian[m + p :, m : m + p] = -np.outer(constant, problem.shift)
        return np.asarray(np.linalg.solve(jacobian.T, inside), dtype=np.float64)

    def _evaluate(self, parameters: Any) -> tuple[float, FloatArray, FloatArray]:
        """Value, gradient inside, and the parameters in the engine's columns."""
        given = np.asarray(parameters, dtype=np.float64)
        if given.shape != (self.n_parameters,):
            problem = self.problem
            parts = f"{problem.n_theta} of theta"
            parts += f", {problem.n_fixed} fixed effects" if not self.profiled else ""
            parts += f", {problem.n_nuisance} of the family" if problem.n_nuisance else ""
            raise OptionError(
                f"the criterion takes {self.n_parameters} parameters ({parts}), and got an array of shape "
                f"{given.shape}."
            )
        phi = self._inside(given)
        with limited_threads(self.design), np.errstate(all="ignore"):
            found = self._profiled(phi) if self.profiled else self._joint(phi)
        if found is None:
            raise OptionError(
                f"the criterion cannot be evaluated at {given.tolist()}: there are no modes of the random effects, or "
                "means beyond floating point; give other numbers."
            )
        return found[0], found[1], phi

    def _joint(self, phi: FloatArray) -> tuple[float, FloatArray] | None:
        found = JointCriterion(self.finder, self.refine).evaluate(phi)
        return None if found is None else (found[1], found[2])

    def _profiled(self, phi: FloatArray) -> tuple[float, FloatArray] | None:
        m, p = self.problem.n_theta, self.problem.n_fixed
        found = ProfiledCriterion(self.finder, phi[m : m + p]).evaluate(np.r_[phi[:m], phi[m + p :]])
        return None if found is None else (found.value, found.gradient)

    def _inside(self, given: FloatArray) -> FloatArray:
        """The parameters in the engine's columns; beta is 0 where it is part of the mode."""
        problem, m, p = self.problem, self.problem.n_theta, self.problem.n_fixed
        theta = self.to_inside(given[:m])
        beta = np.linalg.solve(problem.C, given[m : m + p]) if not self.profiled else np.zeros(p)
        lam = given[m:] if self.profiled else given[m + p :]
        constant = self.family.constant
        if problem.shift is not None and constant is not None:
            lam = lam + constant * float(problem.shift @ beta)
        return np.concatenate([theta, beta, lam])

    def to_inside(self, theta: Any) -> FloatArray:
        """theta of the same covariances in the engine's columns.

        Parameters
        ----------
        theta : array_like, shape (m,)
        """
        user = self.problem.structures.user
        return user.to_engine(user.check(theta), self.problem.S)

    def _start_by_name(self, given: dict[str, Any] | None, control: Control) -> dict[str, Any]:
        """Where a named optimiser ends from the usual start, or from that given."""
        with limited_threads(self.design):
            first = replace(find_start(self.problem), **(given or {}))
        parts = [first.theta, first.beta, np.atleast_1d(first.lam)[: self.problem.n_nuisance]]
        here = np.concatenate([np.atleast_1d(part) for part in parts])
        m, p = self.problem.n_theta, self.problem.n_fixed
        keep = np.r_[:m, m + p : here.size] if self.profiled else np.arange(here.size)
        x = start_by_name(_Inside(self), here[keep], control)
        found: dict[str, Any] = {"theta": x[:m]}
        if not self.profiled:
            found["beta"] = x[m : m + p]
        lam = x[m:] if self.profiled else x[m + p :]
        if lam.size:
            found["lam"] = lam if np.ndim(first.lam) else float(lam[0])
        return found

    def optimise(self, start: Any, control: Control, thorough: bool = True) -> GlmmOptimum:
        """The minimum.

        Parameters
        ----------
        start : array_like of shape (m,), dict, or None
            theta on the user's scale; or parts by name, see `read_start`.
        control : Control
        thorough : bool
            False for one of many fits to similar data.

        Returns
        -------
        GlmmOptimum
        """
        if control.block == "iterative":
            raise OptionError(
                "this criterion has the exact factor of its crossed random effects; control['block'] is 'iterative' in "
                "glmer() and glmm_fit() only."
            )
        given = read_start(self, start)
        if control.optimizer != OWN:
            given = self._start_by_name(given, control)
        names = self.design.x_names
        with limited_threads(self.design):
            try:
                optimum = solve_glmm(self.finder, given, control, self.refine, self.profiled, thorough)
            except DesignError as error:
                finite = _FINITE * self.problem.restricted
                raise DesignError(f"{error}{finite}{range_hint(self.problem, names)}") from None
            hint = "" if optimum.is_minimum else range_hint(self.problem, names)
        if hint:
            raise DesignError(f"the criterion has no minimum.{hint}")
        return optimum


class _Inside:
    """The criterion and its gradient in the engine's columns."""

    def __init__(self, criterion: GlmmCriterion) -> None:
        self.criterion = criterion

    def _found(self, x: FloatArray) -> tuple[float, FloatArray]:
        own, m, p = self.criterion, self.criterion.problem.n_theta, self.criterion.problem.n_fixed
        with limited_threads(own.design), np.errstate(all="ignore"):
            found = own._joint(x) if not own.profiled else own._profiled(np.concatenate([x[:m], np.zeros(p), x[m:]]))
        if found is None:
            raise OptionError("the criterion has no value there.")
        return found

    def __call__(self, x: FloatArray) -> float:
        return self._found(x)[0]

    def gradient(self, x: FloatArray) -> FloatArray:
        return self._found(x)[1]


def glmm_criterion(
    design: Design,
    family: Family,
    data: ResponseData | None = None,
    *,
    nAGQ: int = 1,
    hessian: str = "observed",
    copies: tuple[FloatArray | None, ...] = (),
    reml: bool = False,
    block: Block = "exact",
) -> GlmmCriterion:
    """Second modular step of a generalised or ordinal model: the function that is minimised.

    Parameters
    ----------
    design : Design
        Made with ``lformula(..., family=...)``.
    family : Family
    data : ResponseData, optional
        The response, checked for this family; `design.response` when not given.
    nAGQ : int
        0, 1 (Laplace) or a number of quadrature points.
    hessian : {"observed", "expected"}
    copies : tuple of ndarray, each (J,), or None
        How many levels each level of a grouping factor stands for; () where that is one.
    reml : bool
        Integrate over the fixed effects too, as REML does (Laplace's approximation only).
    block : {"auto", "exact", "iterative"}
        What is made of crossed effects: a factor, or nothing, as `glmm_fit` asks for.

    Returns
    -------
    GlmmCriterion
        Call it with (theta, beta, log dispersion); `gradient` is analytic.

    Raises
    ------
    DesignError
        Variances that the data say nothing about, or that have no finite estimate.

    Warns
    -----
    IdentificationWarning
        When only sums of some variances are determined.

    Examples
    --------
    >>> from lme4py import lformula, load_dataset, make_fit, optimize_criterion
    >>> from lme4py.families.registry import make_family
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> design = lformula(formula, load_dataset("cbpp"), family="binomial")
    >>> criterion = glmm_criterion(design, make_family("binomial", "logit"))
    >>> round(criterion([0.64, -1.4, -1.0, -1.1, -1.6]), 4)
    184.0664
    >>> fit = make_fit(design, criterion, optimize_criterion(criterion))
    >>> fit.theta.round(4), round(fit.criterion, 3)
    (array([0.6423]), 184.053)
    """
    check_options(nAGQ, hessian, fixed_points=family.has_thresholds)
    if hessian == "expected" and not family.has_expected:
        raise family.lacks("expected weights; use hessian='observed'")
    if data is None:
        data = design.response
    if data is None:
        raise OptionError("the design holds no response of a family; make it with lformula(..., family=...).")
    family.check_categories(data)
    with limited_threads(design):
        return GlmmCriterion(design, family, data, nAGQ, hessian, copies, reml, block)


def refuse_restricted(problem: GlmmProblem, nAGQ: int) -> None:
    """Refuse what has no restricted likelihood.

    Parameters
    ----------
    problem : GlmmProblem
    nAGQ : int

    Raises
    ------
    OptionError
    """
    why = ""
    if nAGQ != 1:
        why = f"nAGQ={nAGQ} beside reml=True, whose integral over the fixed effects is Laplace's; use nAGQ=1"
    elif problem.penalty is not None:
        why = "priors beside reml=True are not there for generalised models; leave one of them out"
    elif problem.family.is_joint or problem.family.has_thresholds:
        why = f"reml=True is not there for the {problem.family.name} family; use maximum likelihood, reml=False"
    elif not problem.factors:
        why = "reml=True needs random effects or smooths; leave it out"
    if why:
        raise OptionError(f"{why}.")


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
