"""Independent effects with variances that follow from several penalties: those of a smooth of several variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.structure import AT_EDGE, CovarianceStructure
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Penalties"]


@dataclass(frozen=True, eq=False, repr=False)
class Penalties(CovarianceStructure):
    """Independent effects with variances 1 / sum_m d_mi / theta_m^2: the inverse of a sum of penalties.

    theta_m is the standard deviation of an effect that the penalty m alone holds, with d = 1 (Wood 2006, Biometrics
    62:1025). T is of the first degree in theta, and smooth but where all theta of an effect are zero at once.

    Attributes
    ----------
    values : ndarray, shape (m, k)
        d, not negative; each effect has one that is positive.
    names : tuple of str
        Of the penalties.

    Examples
    --------
    >>> d = np.array([[1.0, 0.0, 1.0], [0.0, 4.0, 4.0]])
    >>> Penalties(3, values=d, names=("x", "z")).covariance(np.array([1.0, 2.0])).diagonal()
    array([1. , 1. , 0.5])
    """

    values: FloatArray | None = None
    names: tuple[str, ...] = ()

    name: ClassVar[str] = "penalties"
    title: ClassVar[str] = "Several penalties"
    sides: ClassVar[tuple[str, ...]] = ("random",)
    separable: ClassVar[bool] = True

    @property
    def d(self) -> FloatArray:
        """Penalties of the effects, (m, k)."""
        if self.values is None:
            raise DesignError("penalties() needs the values of its penalties; it is the structure of te().")
        return self.values

    @property
    def word(self) -> str:
        return "te"

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.d.tobytes(), self.names)

    @property
    def option_values(self) -> dict[str, Any]:
        return {"values": self.values, "names": self.names}

    def subset(self, columns: IntArray) -> CovarianceStructure:
        return Penalties(len(columns), values=self.d[:, columns], names=self.names)

    @property
    def theta_names(self) -> tuple[str, ...]:
        return tuple(f"sd {name}" for name in self.names)

    @property
    def has_correlations(self) -> bool:
        return False

    # --- T --------------------------------------------------------------------------------------------------------

    def _deviations(self, theta: FloatArray) -> FloatArray:
        """Diagonal of T, (k,), with the signs of the theta that it depends on."""
        sizes = np.abs(theta)[:, None] * self._shares(theta)
        return np.asarray(self._signs(theta)[0] * sizes.min(axis=0, where=self.d > 0.0, initial=np.inf))

    def _shares(self, theta: FloatArray) -> FloatArray:
        """|T_i / theta_m|, (m, k): at most 1 / root of d_mi; 0 where T_i does not depend on theta_m."""
        size = np.abs(theta)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = size[:, None] / size[None, :]
        # Of two that are zero neither is the smaller one.
        ratio = np.where(np.isnan(ratio), 1.0, ratio)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(self.d[None] > 0.0, self.d[None] * (ratio**2)[:, :, None], 0.0)
            return np.where(self.d > 0.0, 1.0 / np.sqrt(terms.sum(axis=1)), 0.0)

    def factor(self, theta: FloatArray) -> FloatArray:
        return np.diag(self._deviations(theta))

    def _on_diagonal(self, values: FloatArray) -> FloatArray:
        out = np.zeros((*values.shape, self.size))
        place = np.arange(self.size)
        out[..., place, place] = values
        return out

    def _signs(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Signs of T_i and of the theta."""
        own = np.where(theta < 0.0, -1.0, 1.0)
        return np.where(self.d > 0.0, own[:, None], 1.0).prod(axis=0), own

    def _first(self, theta: FloatArray) -> FloatArray:
        """dT_i / dtheta_m, (m, k)."""
        signs, own = self._signs(theta)
        return np.asarray(self.d * self._shares(theta) ** 3 * signs * own[:, None])

    def _second(self, theta: FloatArray) -> FloatArray:
        """d2T_i / dtheta_m dtheta_l, (m, m, k)."""
        signs, own = self._signs(theta)
        r, size = self._shares(theta), np.abs(theta)
        inverse = np.where(size > 0.0, 1.0 / np.where(size > 0.0, size, 1.0), 0.0)
        # r_l^2 / T = r_l / theta_l; the larger of the two theta is the one that is divided by.
        part = self.d * r * inverse[:, None]
        m = theta.size
        out = np.zeros((m, m, self.size))
        for a in range(m):
            others = part.sum(axis=0) - part[a]
            out[a, a] = -3.0 * self.d[a] * r[a] ** 4 * others
            for b in range(a):
                low, high = (a, b) if size[a] <= size[b] else (b, a)
                out[a, b] = 3.0 * self.d[low] * r[low] ** 3 * self.d[high] * r[high] ** 2 * inverse[high]
                out[b, a] = out[a, b]
        return out * signs * (own[:, None] * own)[:, :, None]

    def tangents(self, theta: FloatArray) -> FloatArray:
        return self._on_diagonal(self._first(theta))

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        return self._on_diagonal(self._second(theta))

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(self._first(theta) @ D.diagonal())

    def second(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(self._second(theta) @ D.diagonal())

    # --- theta ------------------------------------------------------------------------------------------------------

    def initial(self) -> FloatArray:
        return np.ones(len(self.names))

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        """By least squares of the relative differences of 1 / variance, which is linear in 1 / theta^2."""
        from scipy.optimize import nnls

        variances = np.einsum("ab,ab->a", M, M)
        gone = variances <= 1e-16 * variances.max(initial=0.0)
        held = np.array([bool(gone[own > 0.0].all()) for own in self.d])
        used = ~gone & ~(self.d[held] > 0.0).any(axis=0)
        theta = np.zeros(held.size)
        if used.any() and not held.all():
            A = (self.d[~held][:, used] * variances[used]).T
            size = A.max(axis=0, initial=0.0)
            size = np.where(size > 0.0, size, 1.0)
            inverse = nnls(A / size, np.ones(int(used.sum())))[0] / size
            theta[~held] = 1.0 / np.sqrt(np.maximum(inverse, 1e-16 / size.max()))
        return theta

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        return size * theta

    def to_user(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.asarray(theta * S[0, 0])

    def to_engine(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.asarray(theta / S[0, 0])

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.diag(np.where(self.edge_sizes(theta) < AT_EDGE, 0.0, S[0, 0]))

    def at_random(self, sizes: FloatArray, beside: FloatArray) -> FloatArray:
        return sizes

    def canonical(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta)

    def edges(self, theta: FloatArray) -> FloatArray:
        return np.zeros(theta.size)

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta)

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        return np.clip(np.abs(theta), lowest, highest)

    def moment_basis(self) -> FloatArray:
        return self.factor(self.initial())[None]

    def span_basis(self) -> FloatArray:
        return self._on_diagonal(np.eye(self.size))

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        gone = np.abs(theta) < least
        if gone.all():
            return self.no_variance(label)
        names = " and ".join(name for name, zero in zip(self.names, gone, strict=True) if zero)
        return (f"{label} has no curvature in {names}",) if names else ()

    # --- natural parameters -----------------------------------------------------------------------------------------

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return tuple(NaturalParameter("theta", f"sd({name})", (), 0.0, np.inf, relative=True) for name in self.names)

    def theta_of_natural(self, values: FloatArray) -> FloatArray:
        self.check_natural(values)
        return np.array(values, dtype=np.float64)

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        m = theta.size
        return Jet.of(np.abs(theta), np.diag(np.where(theta < 0.0, -1.0, 1.0)), np.zeros((m, m, m)), order)
