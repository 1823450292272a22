"""Where descents to the minimum of a generalised linear mixed model end, and whether another is on its way there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from lme4py.engine.certificate import CONVERGED, Evaluation, Rival
from lme4py.engine.generalised.hessian import ScaledEigen, curvature_floor, scaled_eigen
from lme4py.engine.generalised.laplace import Laplace
from lme4py.engine.optimise import Local
from lme4py.frozen import computed_once
from lme4py.linalg.types import FloatArray

__all__ = ["Basin", "GlmmOptimum", "joined"]

# Ends that are nearer than this, in units of the curvature, are the same.
_MERGED = 0.3
# A point is in a basin up to this rise of -2 log-likelihood above its minimum,
_HIGHEST = 4.0
# and where value and gradient are those of the parabola around the minimum but for this part, and a little.
_PART, _LITTLE = 0.3, 0.01


@dataclass(frozen=True)
class GlmmOptimum:
    """Where the optimiser stopped; everything in the engine's columns.

    Attributes
    ----------
    phi : ndarray, shape (m + p + d,)
        theta, beta and log dispersion.
    found : Laplace
        Value and gradient there; for nAGQ > 1 those of the Laplace criterion at the same point.
    value : float
        -2 log-likelihood.
    gradient : ndarray, shape (m + p + d,), or (m + d,) for nAGQ = 0
    hessian : ndarray
        Of the same size, from differences of analytic gradients.
    log : tuple of Evaluation
    descends : bool
        The criterion is lower beside this point.
    compared : tuple of Rival
        Other starts, none of which led to a lower minimum.
    falls : bool
        From another start the criterion fell lower, but to no minimum.
    at_pole : bool
        The lowest point that any start led to is at the edge of where the approximation exists.
    """

    phi: FloatArray
    found: Laplace
    value: float
    gradient: FloatArray
    hessian: FloatArray
    log: tuple[Evaluation, ...]
    descends: bool = False
    compared: tuple[Rival, ...] = ()
    falls: bool = False
    at_pole: bool = False

    @computed_once
    def curvatures(self) -> ScaledEigen:
        """Principal curvatures of the Hessian."""
        return scaled_eigen(self.hessian, curvature_floor(self.found, self.found.finder.problem.units))

    @property
    def bound(self) -> float:
        """How much the criterion could still fall."""
        return self.curvatures.newton(self.gradient)[1]

    @property
    def is_minimum(self) -> bool:
        """Whether this is a local minimum as far as gradient and Hessian tell."""
        return self.bound < CONVERGED and not self.descends and not self.curvatures.bends_down


def joined(first: tuple[Evaluation, ...], second: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
    """One log after another.

    Parameters
    ----------
    first, second : tuple of Evaluation
    """
    return first + tuple(replace(e, number=e.number + len(first)) for e in second)


@dataclass(frozen=True)
class Basin:
    """The surroundings of a point in which a descent has ended.

    Attributes
    ----------
    centre : ndarray, shape (r,)
    value : float
    gradient : ndarray, shape (r,)
    hessian : ndarray, shape (r, r)
        Of the criterion, or a model of it.
    """

    centre: FloatArray
    value: float
    gradient: FloatArray
    hessian: FloatArray

    def with_hessian(self, whole: FloatArray, m: int, p: int) -> Basin:
        """The same with the Hessian of a criterion in which fixed effects are profiled out; itself where it has them.

        Parameters
        ----------
        whole : ndarray
            In theta (m of them), fixed effects (p) and the rest.
        m, p : int
        """
        outer = np.r_[:m, m + p : whole.shape[0]]
        if self.centre.size != outer.size:
            return self
        inner, beside = whole[m : m + p, m : m + p], whole[m : m + p, outer]
        profiled = whole[np.ix_(outer, outer)] - beside.T @ np.linalg.lstsq(inner, beside, rcond=None)[0]
        return replace(self, hessian=profiled)

    def holds(self, here: Local) -> bool:
        """Whether the criterion between a point and the centre is, by its value and gradient, one parabola.

        Parameters
        ----------
        here : Local
            Of the same criterion.
        """
        if here.theta.shape != self.centre.shape or here.value > self.value + _HIGHEST:
            return False
        move = here.theta - self.centre
        turned = self.hessian @ move
        square = float(move @ turned)
        rise = here.value - self.value - float(self.gradient @ move)
        if abs(rise - 0.5 * square) > 0.5 * _PART * square + _LITTLE:
            return False
        miss = here.gradient - self.gradient - turned
        try:
            solved = scipy.linalg.cho_solve(scipy.linalg.cho_factor(self.hessian), miss)
        except np.linalg.LinAlgError:
            return False
        return float(miss @ solved) <= _PART**2 * square + _LITTLE

    def ends(self, point: FloatArray, hessian: FloatArray) -> bool:
        """Whether the end of another descent is the centre, in units of the curvature there.

        Parameters
        ----------
        point : ndarray, shape (r,)
        hessian : ndarray, shape (r, r)
        """
        if point.shape != self.centre.shape:
            return False
        unit = np.sqrt(np.maximum(np.abs(hessian.diagonal()), 1e-6))
        return bool((np.abs(point - self.centre) * unit < _MERGED).all())
