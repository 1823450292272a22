"""The criteria that a generalised linear mixed model minimises, each with its starting modes.

The joint criterion is -2 log-likelihood (Laplace or quadrature) in (theta, beta, log dispersion); the profiled one, of
nAGQ = 0, has beta in the mode together with u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.certificate import CONVERGED
from lme4py.engine.generalised.laplace import Laplace, average_information, laplace
from lme4py.engine.generalised.problem import TOLERANCE, Mode, ModeError, ModeFinder
from lme4py.engine.optimise import Local
from lme4py.linalg.small import solve
from lme4py.linalg.types import FloatArray

__all__ = ["BESIDE", "INWARDS", "AtPoint", "JointCriterion", "ProfiledCriterion", "off_limit"]

# The approximation at a point, the value of the criterion and its gradient.
AtPoint: TypeAlias = tuple[Laplace, float, FloatArray]

# Newton decrement that is good enough for one point of a central difference.
BESIDE = 1e-9
# Rows of points beside each other that are evaluated together: arrays of these stay in the processor's cache.
_TOGETHER = chunk(2**13, 3)
# Parts of the unit of the dispersion at which its slope is taken beside its limit.
INWARDS = (1e-4, 1e-2)
# A mode from which Newton steps begin, and the rows there where they are known.
Begin: TypeAlias = tuple[FloatArray, Any]


class JointCriterion:
    """-2 log-likelihood in (theta, beta, log dispersion); modes start from the best point so far.

    Parameters
    ----------
    finder : ModeFinder
    refine : callable, optional
        Laplace -> (value, gradient) of a better approximation, such as quadrature.
    """

    def __init__(self, finder: ModeFinder, refine: Callable[[Laplace], tuple[float, FloatArray]] | None = None) -> None:
        self.finder = finder
        self.refine = refine
        self.base: Laplace | None = None
        self.best = np.inf

    def evaluate(self, phi: FloatArray, beside: bool = False) -> AtPoint | None:
        """Laplace, value and gradient; None where there is no mode.

        Parameters
        ----------
        phi : ndarray
        beside : bool
            A point right beside the best one, for a central difference: the first-order prediction of the mode is so
            good that the errors of two opposite points cancel.
        """
        return self._found(phi, beside)

    def reported(self, phi: FloatArray, known: AtPoint | None = None) -> AtPoint | None:
        """The same with the last step of the modes, as `ModeFinder.find` has it.

        Parameters
        ----------
        phi : ndarray
        known : tuple, optional
            What `evaluate` gave there.
        """
        begin = None if known is None else (known[0].mode.u, known[0].rows)
        return self._found(phi, False, begin, exact=True) or known

    def gradients(self, points: FloatArray) -> list[FloatArray | None]:
        """Gradients at points right beside the best one, as `evaluate` has them; None where there is no mode.

        Parameters
        ----------
        points : ndarray, shape (B, r)
            Rows in memory, if not many, are evaluated at several points at once.
        """
        problem, together = self.finder.problem, 1
        if self.refine is None and self.base is not None and problem.family.takes_points:
            together = max(_TOGETHER // problem.offset.size, 1)
        out: list[FloatArray | None] = []
        for first in range(0, points.shape[0], together):
            some = points[first : first + together]
            if together == 1 or self.base is None:
                found = [self.evaluate(phi, beside=True) for phi in some]
            else:
                begun = self._begun(some, self.base)
                found = [self._found(phi, True, begin=own) for phi, own in zip(some, begun, strict=True)]
            out += [None if one is None else one[2] for one in found]
        return out

    def _begun(self, points: FloatArray, base: Laplace) -> list[Begin]:
        """The predicted modes at points beside the best one, and the rows there."""
        finder, problem = self.finder, self.finder.problem
        with np.errstate(all="ignore"):
            modes = [finder.predict(base, phi) for phi in points]
            etas = [finder.predictor(*problem.split(phi)[:2], u) for phi, u in zip(points, modes, strict=True)]
            lam = points[:, problem.n_theta + problem.n_fixed :] if problem.n_nuisance else problem.lambda_without
            rows = problem.family.of_points(problem.data, np.array(etas), lam)
        return list(zip(modes, rows, strict=True))

    def _found(self, phi: FloatArray, beside: bool, begin: Begin | None = None, exact: bool = False) -> AtPoint | None:
        """As `evaluate`, from what is known of the mode."""
        problem = self.finder.problem
        theta, beta, lam = problem.split(phi)
        if problem.beyond_limit(lam):
            return None
        tolerance = BESIDE if beside else TOLERANCE
        for u, rows in self._starts(phi, begin):
            # Rows that are known are of order 3, and so are those where the start is expected to be the mode.
            first = 3 if beside or rows is not None or (not exact and self._is_near(u)) else 2
            try:
                with np.errstate(all="ignore"):
                    mode = self.finder.find(
                        theta, beta, lam, u, tolerance=tolerance, order=first, rows=rows, exact=exact
                    )
                    found = laplace(self.finder, mode)
                    value, gradient = (found.value, found.gradient) if self.refine is None else self.refine(found)
            except (ModeError, np.linalg.LinAlgError):
                continue
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                continue
            if not beside and value < self.best:
                self.base, self.best = found, value
            return found, value, gradient
        return None

    def _is_near(self, u: FloatArray) -> bool:
        """Whether a predicted mode is near the one that it is predicted from.

        The error of the prediction is about the square of the change, and the Newton decrement the square of the error.
        """
        if self.base is None:
            return False
        change = u - self.base.mode.u
        return float(change @ change) ** 2 < TOLERANCE

    def _starts(self, phi: FloatArray, begin: Begin | None) -> list[Begin]:
        """Where the search for the mode may begin."""
        zero = np.zeros(sum(factor.size for factor in self.finder.problem.factors))
        if self.base is None:
            return [(zero, None)]
        if begin is None:
            mode = self.base.mode
            if np.array_equal(phi, self.finder.problem.join(mode.theta, mode.beta, mode.lam)):
                begin = mode.u, self.base.rows
        if begin is None:
            with np.errstate(all="ignore"):
                begin = self.finder.predict(self.base, phi), None
        candidates = [begin] if np.isfinite(begin[0]).all() else []
        return [*candidates, (self.base.mode.u, None), (zero, None)]

    def local(self, phi: FloatArray) -> Local | None:
        """For `minimise`."""
        result = self.evaluate(phi)
        if result is None:
            return None
        found, value, gradient = result
        with np.errstate(all="ignore"):
            information = average_information(self.finder, found)
        return Local(phi, value, gradient, information, result) if np.isfinite(information).all() else None


class ProfiledCriterion:
    """The criterion with nAGQ = 0 in (theta, log dispersion): beta is part of the mode.

    Parameters
    ----------
    finder : ModeFinder
    beta : ndarray, shape (p,)
        Start.
    near : Mode, optional
        Of other parameters: the search for the first mode begins at its fixed and random effects.
    """

    def __init__(self, finder: ModeFinder, beta: FloatArray, near: Mode | None = None) -> None:
        self.finder = finder
        self.start_beta = beta
        self.near = near
        self.base: Laplace | None = None

    def evaluate(self, x: FloatArray, tolerance: float = 1e-15, only_value: bool = False) -> Laplace | None:
        """The criterion at a point; None where it, or its gradient unless `only_value`, is no number.

        Parameters
        ----------
        x : ndarray
            theta and what else is free.
        tolerance : float
            Newton decrement of the mode.
        only_value : bool
            No derivative will be asked for.
        """
        problem = self.finder.problem
        m = problem.n_theta
        lam = problem.nuisance(x[m:])
        if problem.beyond_limit(lam):
            return None
        zero = np.zeros(sum(factor.size for factor in problem.factors))
        starts = [(self.start_beta, zero)]
        if self.base is not None:
            starts.insert(0, (self.base.mode.beta, self.base.mode.u))
        elif self.near is not None:
            u = problem.spherical_effects(problem.factor_T(x[:m]), self.near.b)
            starts = starts if u is None else [(self.near.beta, u), *starts]
        for beta, u in starts:
            try:
                with np.errstate(all="ignore"):
                    mode = self.finder.find(x[:m], beta, lam, u, joint=True, tolerance=tolerance)
                    found = laplace(self.finder, mode, profiled=True, only_value=only_value)
                    possible = np.isfinite(found.value) and (only_value or np.isfinite(found.gradient).all())
            except (ModeError, np.linalg.LinAlgError):
                continue
            if not possible:
                continue
            if self.base is None or found.value < self.base.value:
                self.base = found
            return found
        return None

    def local(self, x: FloatArray, tolerance: float = 1e-15) -> Local | None:
        """For `minimise`."""
        found = self.evaluate(x, tolerance)
        if found is None:
            return None
        with np.errstate(all="ignore"):
            hessian = self._hessian(found)
        return Local(x, found.value, found.gradient, hessian, found) if np.isfinite(hessian).all() else None

    def _hessian(self, found: Laplace) -> FloatArray:
        problem = self.finder.problem
        m, p = problem.n_theta, problem.n_fixed
        full = average_information(self.finder, found)
        outer = np.r_[:m, m + p : full.shape[0]]
        inside: FloatArray = full[np.ix_(outer, outer)]
        if not p:
            return inside
        cross = full[m : m + p, outer]
        of_beta = full[m : m + p, m : m + p]
        try:
            solved = solve(of_beta, cross)
        except np.linalg.LinAlgError:
            # Of a coefficient that has run away (separated rows) nothing is left but zeros: it takes no part.
            solved = np.linalg.pinv(of_beta, hermitian=True) @ cross
        rest: FloatArray = inside - cross.T @ solved
        return rest


def off_limit(criterion: JointCriterion, phi: FloatArray) -> FloatArray | None:
    """A point with a dispersion inside its range, where the criterion falls from the limit inwards; else None.

    Parameters
    ----------
    criterion : JointCriterion
    phi : ndarray
        A minimum over everything but the dispersion.

    Notes
    -----
    In lambda there is no slope at the limit. In s = exp(-|lambda - unit|), which is proportional to the dispersion or
    its reciprocal, there is: two gradients give the parabola whose minimum is the point.
    """
    problem = criterion.finder.problem
    if not problem.at_limit(float(phi[-1])):
        return None
    slopes = []
    for share in INWARDS:
        lam = problem.lambda_inwards(share)
        there = criterion.evaluate(np.append(phi[:-1], lam))
        if there is None:
            return None
        slopes.append(-float(np.sign(problem.limit_lambda - lam)) * float(there[2][-1]) / share)
    curvature = (slopes[1] - slopes[0]) / (INWARDS[1] - INWARDS[0])
    at_limit = slopes[0] - curvature * INWARDS[0]
    if at_limit >= 0.0 or (curvature > 0.0 and 0.5 * at_limit**2 / curvature < CONVERGED):
        return None
    best = -at_limit / curvature if curvature > 0.0 else np.inf
    return np.append(phi[:-1], problem.lambda_inwards(float(np.clip(best, INWARDS[0], 0.3))))
