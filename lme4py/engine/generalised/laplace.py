"""The Laplace criterion of a generalised linear mixed model and its exact gradient.

With s = d log f / d eta, h the diagonal of Z Lambda M^-1 Lambda'Z', c = h dW/deta, a = H^-1 Lambda'Z'c, where H has
the observed weights, and r = c - W_obs Z Lambda a,

    d / d beta   = X'(r - 2 s)
    d / d theta  = (r - 2 s)'Z dLambda u + a'dLambda'Z's + 2 tr(M^-1 Lambda'Z'WZ dLambda)
    d / d lambda = -2 dlogf/dlambda + h'dW/dlambda + (Z Lambda a)'ds/dlambda     (each element)

The restricted criterion integrates over beta too, with a flat density, by Laplace's approximation around the joint mode
of (beta, u), whose Hessian has log|M| + log|X'V^-1X|, V = W^-1 + Z Sigma Z':

    -2 log L_R = -2 log f + |u|^2 + log|M| + log|X'V^-1X| - p log(2 pi)

(Wood 2011, JRSS B 73:3; glmmTMB's REML = TRUE). With Xr = X - Z Lambda M^-1 Lambda'Z'WX the diagonal h grows by that of
Xr (X'V^-1X)^-1 Xr', and the derivative in Sigma by -Z'V^-1X (X'V^-1X)^-1 X'V^-1Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.fixed_system import FixedSystem
from lme4py.engine.generalised.problem import GlmmProblem, Mode, ModeError, ModeFinder
from lme4py.engine.generalised.products import predicted
from lme4py.families.nuisance import as_columns, total
from lme4py.frozen import computed_once
from lme4py.linalg.small import bordered
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.engine.generalised.penalty import GlmmPenaltyPoint

# The prior alone has curvature 1; below 1 / FLAT of it the likelihood of a group has no proper mode.
FLAT = 50.0
# Points with more than this part of it lie at the edge.
_EDGE = 0.8
# Points of a rule that is close to the integral where Laplace's approximation has its pole, and how many random effects
# it integrates together.
FINE_RULE, _MOST_TOGETHER = "nAGQ=15 or more", 3


def flat_mode(problem: GlmmProblem) -> str:
    """Why the approximation breaks down where a family is not log-concave, and what to do.

    Parameters
    ----------
    problem : GlmmProblem
    """
    if problem.family.has_expected:
        instead = "use hessian='expected', or another link"
    elif splits_into_groups(problem):
        instead = f"integrate by quadrature ({FINE_RULE}), or simplify the random effects"
    else:
        instead = "simplify the random effects, or use another link or family"
    return (
        "the observed information of a group nearly vanishes at its mode (the likelihood is not log-concave with this "
        f"link), and the Laplace approximation breaks down there; {instead}."
    )


def splits_into_groups(problem: GlmmProblem) -> bool:
    """Whether a rule of `FINE_RULE` integrates the likelihood: a few random effects of independent groups at a time.

    Parameters
    ----------
    problem : GlmmProblem
    """
    if problem.chain is not None or problem.restricted or len(problem.factors) != 1:
        return False
    factor = problem.factors[0]
    return factor.relation is None and factor.n_columns <= _MOST_TOGETHER


class AtMode(Protocol):
    """What derivatives in theta need to know of a mode: see `lme4py.engine.generalised.problem.Mode`."""

    @property
    def theta(self) -> FloatArray: ...

    @property
    def T(self) -> list[FloatArray]: ...

    @property
    def u(self) -> FloatArray: ...

    @property
    def score(self) -> FloatArray: ...


@dataclass(frozen=True)
class Laplace:
    """The Laplace criterion at a point; derivatives are made when they are first asked for.

    Attributes
    ----------
    finder : ModeFinder
    mode : Mode
    rows : EtaDerivatives
        Of order 3 at the mode.
    swept : Swept
        The factor M.
    profiled : bool
        The mode is one of (beta, u), as for nAGQ = 0.
    """

    finder: ModeFinder
    mode: Mode
    rows: Any
    swept: Swept
    profiled: bool

    @property
    def value(self) -> float:
        """-2 log-likelihood."""
        return self.mode.objective + self.swept.log_det

    @computed_once
    def _log_det(self) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        return self.finder.problem.products.log_det_derivatives(self.swept)

    @property
    def G(self) -> list[FloatArray]:
        """Derivative of log|M| in Sigma of each factor, (k, k)."""
        return self._log_det[1]

    @property
    def diagonal(self) -> list[FloatArray]:
        """Blocks of Lambda M^-1 Lambda' of each factor, (k, k, J)."""
        return self._log_det[2]

    @computed_once
    def gradient(self) -> FloatArray:
        """In (theta, beta, lambda), or (theta, lambda) when beta is profiled."""
        return self._gradient()

    def _gradient(self) -> FloatArray:
        problem, products, mode, rows = self.finder.problem, self.finder.problem.products, self.mode, self.rows
        h, G, _ = self._log_det
        expected = problem.uses_expected
        c = problem.stack.gradient(h, rows.dw_exp if expected else rows.dw_obs)
        if self.profiled and problem.n_fixed:
            system = FixedSystem(problem, mode.swept, mode.w, (products.gather(c), problem.X.T @ c), mode.fixed)
            (a, b_a), beta = system.residual_modes(), system.solution
        else:
            (a, b_a), beta = products.solve(mode.swept, c), np.empty(0)
        gathered, beside = products.weighted_sums(-b_a, problem.X, -beta, mode.w, c)
        parts = [theta_slope(problem, mode, G, gathered, a)]
        if not self.profiled:
            parts.append(beside - 2.0 * (problem.X.T @ rows.score))
        if problem.n_nuisance:
            moved = predicted(products.spread(b_a), problem.X, beta)
            lam_w = rows.w_exp_lam if expected else rows.w_obs_lam
            parts.append(-2.0 * total(rows.d_lam) + total(lam_w, h) + total(rows.score_lam, moved))
        return np.concatenate(parts)


@dataclass(frozen=True)
class PenalisedLaplace(Laplace):
    """The Laplace criterion of a model with priors."""

    @property
    def value(self) -> float:
        """-2 log-likelihood - 2 log prior density."""
        return self.mode.objective + self.swept.log_det + self.penalty.value

    @computed_once
    def penalty(self) -> GlmmPenaltyPoint:
        """-2 log prior density with its derivatives."""
        problem = self.finder.problem
        if problem.penalty is None:
            raise ModeError("the problem has no priors")
        return problem.penalty.at(problem, self.mode)

    def with_penalty(self, gradient: FloatArray) -> FloatArray:
        """A gradient of the likelihood with that of the priors.

        Parameters
        ----------
        gradient : ndarray
            In (theta, beta, lambda), or (theta, lambda) when beta is profiled.
        """
        own = [self.penalty.theta] if self.profiled else [self.penalty.theta, self.penalty.beta]
        together = np.concatenate(own)
        out: FloatArray = gradient + np.pad(together, (0, gradient.size - together.size))
        return out

    def _gradient(self) -> FloatArray:
        return self.with_penalty(super()._gradient())


@dataclass(frozen=True)
class RestrictedLaplace(Laplace):
    """The Laplace approximation of the likelihood integrated over beta too, at the joint mode of (beta, u)."""

    @property
    def value(self) -> float:
        """-2 restricted log-likelihood."""
        system = self._fixed
        return super().value + restricted_part(self.finder.problem, system.cross)

    @computed_once
    def _fixed(self) -> FixedSystem:
        """X'V^-1X with the weights of the determinant."""
        problem = self.finder.problem
        w = self.rows.w_exp if problem.uses_expected else self.mode.w
        return FixedSystem(problem, self.swept, w, None)

    @computed_once
    def _log_det(self) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        problem, system = self.finder.problem, self._fixed
        products, p = problem.products, problem.n_fixed
        h, sigma, diagonal = products.log_det_derivatives(self.swept)
        if not p:
            return h, sigma, diagonal
        B, G = self.swept.back_substitute(system.border, np.eye(p + 1, p))
        L = np.linalg.cholesky(system.cross)
        half = np.linalg.solve(L, (problem.X - products.rows @ np.concatenate(B)).T)
        by_predictor = half.reshape(p, problem.stack.size, problem.n_obs)
        more = [
            (1.0 if d == e else 2.0) * np.einsum("an,an->n", by_predictor[:, d], by_predictor[:, e])
            for d, e in problem.stack.pairs
        ]
        sigma = list(sigma)
        for column in np.linalg.solve(L, np.concatenate(G).T):
            taken = forms(problem, self.mode.T, column)
            sigma = [whole - own for whole, own in zip(sigma, taken, strict=True)]
        return h + np.concatenate(more), sigma, diagonal


def restricted_part(problem: GlmmProblem, cross: FloatArray) -> float:
    """log|X'V^-1X| - p log(2 pi) in the user's columns.

    Parameters
    ----------
    problem : GlmmProblem
    cross : ndarray, shape (p, p)
        X'V^-1X in the engine's columns.
    """
    inside, scale = (float(np.linalg.slogdet(matrix)[1]) for matrix in (cross, problem.C))
    return inside - 2.0 * scale - problem.n_fixed * float(np.log(2.0 * np.pi))


def laplace(finder: ModeFinder, mode: Mode, profiled: bool = False, only_value: bool = False) -> Laplace:
    """The Laplace criterion at a mode.

    Parameters
    ----------
    finder : ModeFinder
    mode : Mode
    profiled : bool
        The mode is one of (beta, u): the criterion with nAGQ = 0.
    only_value : bool
        No derivative will be asked for.
    """
    problem = finder.problem
    if mode.w is not mode.rows.w_obs:
        raise ModeError("the observed information is not positive definite at the mode")
    enough = mode.complete or (only_value and not problem.uses_expected)
    rows = mode.rows if enough else finder.rows(mode.eta, mode.lam, 3)
    swept = problem.products.factorize(mode.T, rows.w_exp) if problem.uses_expected else mode.swept
    check_curvature(problem, swept)
    kind = Laplace if problem.penalty is None else PenalisedLaplace
    if problem.restricted:
        kind = RestrictedLaplace
    return kind(finder, mode, rows, swept, profiled)


def check_curvature(problem: GlmmProblem, swept: Swept) -> None:
    """Refuse points where a group's curvature nearly vanishes: there the approximation has a pole, not an optimum."""
    if not problem.family.log_concave and swept.largest_inverse > FLAT:
        raise ModeError(flat_mode(problem))


def is_at_pole(found: Laplace) -> bool:
    """Whether a point lies at the edge of the region where the approximation exists: the end of a fall into its pole.

    Parameters
    ----------
    found : Laplace
    """
    concave = found.finder.problem.family.log_concave
    return not concave and found.swept.largest_inverse > _EDGE * FLAT


def outer_by_factor(factors: tuple[Factor, ...], left: FloatArray, right: FloatArray) -> list[FloatArray]:
    """Sum over levels of left_j right_j' for each factor."""
    out = []
    start = 0
    for factor in factors:
        place = slice(start, start + factor.size)
        out.append(left[place].reshape(factor.n_columns, -1) @ right[place].reshape(factor.n_columns, -1).T)
        start += factor.size
    return out


def forms(problem: GlmmProblem, T: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    """Derivatives of g'Sigma g in Sigma of each factor, (k, k), for g of all effects, (Q,)."""
    out = outer_by_factor(problem.factors, g, problem.products.related(g))
    if problem.chain is not None:
        out[problem.chain.factor] = problem.chain.forms(T, g)
    return out


def theta_slope(
    problem: GlmmProblem, mode: AtMode, G: list[FloatArray], gathered: FloatArray, a: FloatArray
) -> FloatArray:
    """Derivative of the criterion in theta, (m,).

    Parameters
    ----------
    problem : GlmmProblem
    mode : AtMode
    G : list of ndarray
        Derivative of log|M| in Sigma of each factor.
    gathered : ndarray, shape (Q,)
        Z'r.
    a : ndarray, shape (Q,)
    """
    through_mode = outer_by_factor(problem.factors, gathered - 2.0 * mode.score, mode.u)
    through_T = outer_by_factor(problem.factors, mode.score, a)
    chain = problem.chain
    pairs = ((gathered - 2.0 * mode.score, mode.u), (mode.score, a))
    by_T = [
        chain.slopes(mode.T, pairs, g) if chain is not None and f == chain.factor else x + y + 2.0 * g @ T
        for f, (x, y, g, T) in enumerate(zip(through_mode, through_T, G, mode.T, strict=True))
    ]
    return theta_gradient(problem, mode.theta, by_T)


def theta_gradient(problem: GlmmProblem, theta: FloatArray, by_T: list[FloatArray]) -> FloatArray:
    """Derivative in theta from the one in the T of each factor."""
    parts: list[FloatArray] = [np.empty(0)] * (len(problem.structures.each) or 1)
    for factor, derivative in zip(problem.factors, by_T, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            own = theta[problem.structures.slices[term]]
            parts[term] = problem.structures.each[term].pullback(own, derivative[columns, columns])
    return np.concatenate(parts)


def average_information(finder: ModeFinder, found: Laplace) -> FloatArray:
    """Hessian in (theta, beta, lambda) of the criterion of the working linear model, shape (m + p + d, m + p + d).

    The average of observed and expected information (Gilmour et al. 1995) of the model z = X beta + Z b + e with
    variance W^-1, which the Newton steps solve; X'V^-1X for beta. Thresholds are coefficients like beta; a log
    dispersion has the curvature of the rows at fixed eta.
    """
    problem, mode = finder.problem, found.mode
    products = problem.products
    m, p = problem.n_theta, problem.n_fixed
    h = directions(problem, mode)
    fixed = mode.weighted_fixed(problem)
    # Columns Z h and X by their products with the weights: Z'WZ h and Z'WX.
    projected = np.concatenate([products.normal(mode.swept, mode.w, h), fixed.whole], axis=1)
    corner = np.empty((m + p, m + p))
    corner[:m] = h.T @ projected
    corner[m:, :m] = corner[:m, m:].T
    corner[m:, m:] = fixed.gram
    if problem.n_nuisance and not problem.has_one_dispersion:
        # -d2l / (deta dgamma) stands for W times a column.
        crossed = -as_columns(found.rows.score_lam)
        gathered = np.concatenate(products.project(crossed))
        beside = np.concatenate([h.T @ gathered, problem.X.T @ crossed])
        corner = bordered(corner, beside, found.rows.curve_lam)
        projected = np.concatenate([projected, gathered], axis=1)
    border = mode.swept.sweep_border(products.split(projected) or [projected])
    hessian = working_hessian(problem, mode, found.G, corner - border.cross(border))
    if isinstance(found, PenalisedLaplace):
        hessian[: m + p, : m + p] += found.penalty.hessian(problem, mode.theta)
    return with_dispersion(hessian, dispersion_curvature(finder, found)) if problem.has_one_dispersion else hessian


def working_hessian(problem: GlmmProblem, mode: AtMode, G: list[FloatArray], swept: FloatArray) -> FloatArray:
    """The average information from the products of its columns under V^-1.

    Parameters
    ----------
    problem : GlmmProblem
    mode : AtMode
    G : list of ndarray
        As in `theta_slope`.
    swept : ndarray, shape (m + p + d, m + p + d)
        Products of `directions`, X and derivatives of the score in parameters of thresholds.
    """
    structures, m = problem.structures, problem.n_theta
    hessian: FloatArray = 0.5 * (swept + swept.T)
    hessian[m:] *= 2.0
    hessian[:m, m:] *= 2.0
    score = forms(problem, mode.T, mode.score)
    for factor, g, s in zip(problem.factors, G, score, strict=True):
        for term, place in zip(factor.terms, factor.columns, strict=True):
            t = structures.slices[term]
            hessian[t, t] += structures.each[term].curvature(mode.theta[t], (g - s)[place, place])
    return hessian


def with_dispersion(hessian: FloatArray, curvature: float) -> FloatArray:
    """A Hessian in (theta, beta) with that of a log dispersion after it.

    Parameters
    ----------
    hessian : ndarray, shape (r, r)
    curvature : float
    """
    full = np.pad(hessian, ((0, 1), (0, 1)))
    full[-1, -1] = curvature
    return full


def dispersion_curvature(finder: ModeFinder, found: Laplace) -> float:
    """Second derivative of -2 log f in log dispersion at fixed eta: of the family, or by one difference."""
    if found.rows.curve_lam is not None:
        return max(2.0 * float(found.rows.curve_lam[0, 0]), 0.1)
    h = 1e-4
    moved = finder.rows(found.mode.eta, found.mode.lam + h, 3)
    curvature = -2.0 * float((moved.d_lam - found.rows.d_lam).sum()) / h
    return max(curvature, 0.1)


def directions(problem: GlmmProblem, mode: AtMode) -> FloatArray:
    """(dLambda Lambda' + Lambda dLambda') Z's for each theta, (Q, m); of related levels K (x) dSigma Z's."""
    structures = problem.structures
    scores = problem.products.related(mode.score)
    h = np.zeros((mode.u.size, structures.n_theta))
    start = 0
    for f, factor in enumerate(problem.factors):
        if problem.chain is not None and f == problem.chain.factor:
            own = structures.slices[problem.chain.term]
            h[problem.chain.place, own] = problem.chain.directions(mode.T, mode.score)
            start += factor.size
            continue
        J = factor.n_levels
        values = scores[start : start + factor.size].reshape(factor.n_columns, J)
        block = h[start : start + factor.size].reshape(factor.n_columns, J, -1)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            own = structures.slices[term]
            for i, dSigma in enumerate(structures.each[term].covariance_tangents(mode.theta[own])):
                block[columns, :, own.start + i] = dSigma @ values[columns]
        start += factor.size
    return h
