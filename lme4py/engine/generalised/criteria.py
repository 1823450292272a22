"""The criteria that a generalised linear mixed model minimises, each with its starting modes.

The joint criterion is -2 log-likelihood (Laplace or quadrature) in (theta, beta, log dispersion); the profiled one, of
nAGQ = 0, has beta in the mode together with u.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lme4py.engine.generalised.laplace import Laplace, average_information, laplace
from lme4py.engine.generalised.problem import TOLERANCE, ModeError, ModeFinder
from lme4py.engine.optimise import Local
from lme4py.linalg.types import FloatArray

__all__ = ["JointCriterion", "ProfiledCriterion"]

# Newton decrement that is good enough for one point of a central difference.
BESIDE = 1e-9


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

    def evaluate(self, phi: FloatArray, beside: bool = False) -> tuple[Laplace, float, FloatArray] | None:
        """Laplace, value and gradient; None where there is no mode.

        Parameters
        ----------
        phi : ndarray
        beside : bool
            A point right beside the best one, for a central difference: the first-order prediction of the mode is so
            good that the errors of two opposite points cancel.
        """
        problem = self.finder.problem
        theta, beta, lam = problem.split(phi)
        if problem.beyond_limit(lam):
            return None
        tolerance = BESIDE if beside else TOLERANCE
        for u in self._starts(phi):
            try:
                with np.errstate(all="ignore"):
                    mode = self.finder.find(theta, beta, lam, u, tolerance=tolerance, order=3 if beside else 2)
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

    def _starts(self, phi: FloatArray) -> list[FloatArray]:
        zero = np.zeros(sum(factor.size for factor in self.finder.problem.factors))
        if self.base is None:
            return [zero]
        with np.errstate(all="ignore"):
            predicted = self.finder.predict(self.base, phi)
        candidates = [predicted] if np.isfinite(predicted).all() else []
        return [*candidates, self.base.mode.u, zero]

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
    """

    def __init__(self, finder: ModeFinder, beta: FloatArray) -> None:
        self.finder = finder
        self.start_beta = beta
        self.base: Laplace | None = None

    def evaluate(self, x: FloatArray, tolerance: float = 1e-15) -> Laplace | None:
        problem = self.finder.problem
        m = problem.n_theta
        lam = problem.nuisance(x[m:])
        if problem.beyond_limit(lam):
            return None
        zero = np.zeros(sum(factor.size for factor in problem.factors))
        starts = [(self.start_beta, zero)]
        if self.base is not None:
            starts.insert(0, (self.base.mode.beta, self.base.mode.u))
        for beta, u in starts:
            try:
                with np.errstate(all="ignore"):
                    mode = self.finder.find(x[:m], beta, lam, u, joint=True, tolerance=tolerance)
                    found = laplace(self.finder, mode, profiled=True)
                    possible = np.isfinite(found.value) and np.isfinite(found.gradient).all()
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
            solved = np.linalg.solve(of_beta, cross)
        except np.linalg.LinAlgError:
            # Of a coefficient that has run away (separated rows) nothing is left but zeros: it takes no part.
            solved = np.linalg.pinv(of_beta, hermitian=True) @ cross
        rest: FloatArray = inside - cross.T @ solved
        return rest
