"""The Hessian of a criterion from differences of its gradient, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lme4py.engine.generalised.laplace import Laplace
from lme4py.linalg.small import eigen
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

# Difference steps in units of 1 / sqrt(curvature): the error of a central difference is about its square.
_DIFFERENCE = 1e-3
# The same along axes that hold several parameters, where it is about its fourth power.
_SHORT = 2e-4
# Scaled curvatures below this are none; of coefficients alone, which columns far from zero make nearly parallel.
_FLAT, _PARALLEL = 1e-7, 1e-11
# A scaled curvature below this is no rounding of zero.
_BENT = -0.1
# Differences go along the principal axes of a model whose scaled curvatures differ by more than this.
_UNEVEN = 1e-4


def difference_hessian(
    slopes: Callable[[FloatArray], FloatArray],
    phi: FloatArray,
    rough: FloatArray,
    held: BoolArray | None = None,
) -> FloatArray:
    """Hessian by central differences of analytic gradients.

    Parameters
    ----------
    slopes : callable
        Gradients at points, (B, r) to (B, r): all points are asked for in one call.
    phi : ndarray, shape (r,)
    rough : ndarray, shape (r, r)
        A Hessian model, for the steps.
    held : ndarray of bool, shape (r,), optional
        Parameters that cannot move; their rows and columns are zero.
    """
    free = np.arange(phi.size) if held is None else np.flatnonzero(~held)
    size = np.sqrt(np.maximum(np.abs(rough.diagonal()), 1e-6))
    hessian = np.zeros((phi.size, phi.size))
    if not free.size:
        return hessian
    axes = _axes(rough[np.ix_(free, free)] / np.outer(size[free], size[free]))
    if axes is not None:
        hessian[np.ix_(free, free)] = _along_axes(slopes, phi, free, axes / size[free, None])
        return hessian
    steps = np.diag(np.minimum(_DIFFERENCE / size, 0.01))[free]
    above, below = phi + steps, phi - steps
    up, down = np.split(slopes(np.concatenate([above, below])), 2)
    # The distance as it is after rounding: a parameter may be large beside its step.
    width = (above - below)[np.arange(free.size), free]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A width of zero, far out: not finite, which the caller sees.
        hessian[free] = (up - down) / width[:, None]
    if held is not None:
        hessian[:, held] = 0.0
    symmetric: FloatArray = 0.5 * (hessian + hessian.T)
    return symmetric


def _axes(scaled: FloatArray) -> FloatArray | None:
    """Directions (columns) in which the model has the curvature 1; None where the parameters themselves will do.

    Where columns are far from zero beside their spread, their coefficients and the constant are nearly one parameter:
    differences along each alone lose what tells them apart.
    """
    values, vectors = eigen(scaled)
    # A coefficient without a curvature of its own has run away, and no step along it is short.
    lost = scaled.diagonal().min() < 0.5
    if lost or not _PARALLEL < values[0] < _UNEVEN * values[-1]:
        return None
    return np.asarray(vectors / np.sqrt(values))


def _along_axes(
    slopes: Callable[[FloatArray], FloatArray], phi: FloatArray, free: IntArray, axes: FloatArray
) -> FloatArray:
    """The Hessian in the free parameters from differences along axes of about unit curvature."""
    steps = np.zeros((free.size, phi.size))
    steps[:, free] = _SHORT * axes.T
    points = [phi + steps, phi - steps, phi + 2.0 * steps, phi - 2.0 * steps]
    near, below, far, far_below = np.split(slopes(np.concatenate(points))[:, free] @ axes, 4)
    # A scale is an exponential of its coefficients: far from the origin two steps are needed for the fourth order.
    inside = (8.0 * (near - below) - (far - far_below)) / (12.0 * _SHORT)
    back = np.linalg.inv(axes)
    return np.asarray(back.T @ (0.5 * (inside + inside.T)) @ back)


def curvature_floor(found: Laplace, unit: float | FloatArray = 1.0) -> float:
    """Curvatures below this are rounding beside that of a predictor with the weights of the data.

    Parameters
    ----------
    found : Laplace
    unit : float, or ndarray of shape (n,)
        That of the problem's linear predictor, or of its rows.
    """
    w = np.abs(found.mode.w)
    size = unit**2 * w if isinstance(unit, float) else unit**2 * w[: unit.size]
    return max(1e-3 * float(size.mean()), 1e-300)


class ScaledEigen(NamedTuple):
    """The principal curvatures of a Hessian, of which more than one thing is asked.

    Attributes
    ----------
    d : ndarray, shape (r,)
        Scales of the parameters.
    values : ndarray, shape (r,)
    vectors : ndarray, shape (r, r)
        Eigenvalues and vectors of the Hessian divided by d d'.
    """

    d: FloatArray
    values: FloatArray
    vectors: FloatArray

    @property
    def bends_down(self) -> bool:
        """Whether a curvature is clearly negative, as differences do not make one of zero.

        Far outside of what the difference steps can resolve, such as across a jump, curvatures are immense: a Newton
        step then promises nothing, whatever the gradient is.
        """
        return bool(self.values.size) and float(self.values[0]) < _BENT

    def newton(self, gradient: FloatArray) -> tuple[FloatArray, float]:
        """Newton step, and how much the criterion could still fall; flat directions are left alone."""
        sizes = np.abs(self.values)
        along = self.vectors.T @ (gradient / self.d)
        inverse = 1.0 / np.maximum(sizes, _FLAT)
        bound = 0.5 * float(np.sum(along**2 * inverse))
        return -(self.vectors @ (np.where(sizes > _FLAT, inverse, 0.0) * along)) / self.d, bound


def scaled_eigen(hessian: FloatArray, floor: float) -> ScaledEigen:
    """Principal curvatures of a Hessian; none is below the floor in the scales.

    Parameters
    ----------
    hessian : ndarray, shape (r, r)
    floor : float
        Of `curvature_floor`.
    """
    d = np.sqrt(np.maximum(np.abs(hessian.diagonal()), floor))
    return ScaledEigen(d, *eigen(hessian / (d[:, None] * d)))


def newton_step(hessian: FloatArray, gradient: FloatArray, floor: float) -> tuple[FloatArray, float]:
    """Newton step, and how much the criterion could still fall; flat directions are left alone."""
    return scaled_eigen(hessian, floor).newton(gradient)


def inverse_hessian(curvatures: ScaledEigen, n_theta: int) -> FloatArray:
    """Inverse with a zero for flat directions of theta, and a very large number for those of other parameters.

    Elements of a singular T that change nothing carry no information and have no variance; a fixed effect without
    information, as after separation, is unknown.

    Parameters
    ----------
    curvatures : ScaledEigen
    n_theta : int
        theta come first.
    """
    d, values, vectors = curvatures
    share = (vectors[:n_theta] ** 2).sum(axis=0)
    least = np.where(share > 1e-3, _FLAT, _PARALLEL)
    used = np.where(values > least, 1.0 / np.maximum(values, least), np.where(share > 0.5, 0.0, 1.0 / least))
    out: FloatArray = (vectors * used) @ vectors.T / np.outer(d, d)
    return out
