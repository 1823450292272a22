"""Structures that are standard deviations times a correlation matrix: Sigma = D R(phi) D, T = D C(phi), D diagonal.

theta is the standard deviations, then phi. With one of them for all columns ("homogeneous") Sigma = s^2 R is even in s,
and theta is s. With an own one for each ("heterogeneous") Sigma_ij = d_i d_j R_ij is not even in d_i, and
d_i = theta_i^2 (see `lme4py.covariance.structure`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from lme4py.covariance.chain import Chain
from lme4py.covariance.holding import Holding, NaturalHeld
from lme4py.covariance.jets import Jet
from lme4py.covariance.kinds.correlation import Correlation
from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.steps import Steps
from lme4py.covariance.structure import AT_EDGE, LEAST_UNIT, ColumnChanges, CovarianceStructure
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray

__all__ = ["Heterogeneous", "Homogeneous", "Scaled"]


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(CovarianceStructure):
    """Standard deviations times a correlation matrix.

    Parameters
    ----------
    size, positions
        As in `CovarianceStructure`.
    correlation : Correlation
        Of the same size and positions.
    """

    correlation: Correlation = field(kw_only=True)

    @classmethod
    @abstractmethod
    def correlation_of(cls, size: int, positions: FloatArray | None, **options: Any) -> Correlation:
        """The correlation of this structure; refuses options and positions that it cannot have."""

    @classmethod
    def build(cls, size: int, positions: FloatArray | None = None, **options: Any) -> CovarianceStructure:
        correlation = cls.correlation_of(size, positions, **options)
        return cls(size, correlation.positions, correlation=correlation)

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.correlation.key())

    @property
    @abstractmethod
    def n_sd(self) -> int:
        """Number of standard deviations."""

    @property
    def theta_names(self) -> tuple[str, ...]:
        return (*self._sd_names(), *self.correlation.phi_names)

    @abstractmethod
    def _sd_names(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _sd(self, theta: FloatArray) -> FloatArray:
        """Standard deviations of the columns, (k,); all of them may have the other sign."""

    @abstractmethod
    def _deviations(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        """Standard deviations of the columns, or at points (..., p), with derivatives in their theta; axes may be 1."""

    @abstractmethod
    def _of_deviations(self, sd: FloatArray) -> FloatArray:
        """theta of standard deviations of the columns that are close to these, (n_sd,)."""

    @abstractmethod
    def _columns_to_theta(self, values: FloatArray, theta: FloatArray) -> FloatArray:
        """Derivatives in the theta of the deviations from those in the deviations, (..., k) -> (..., n_sd)."""

    @abstractmethod
    def _curvature_of_deviations(self, values: FloatArray) -> FloatArray:
        """sum_a values_a d2d_a, shape (n_sd, n_sd), from values (k,)."""

    def _phi(self, theta: FloatArray) -> FloatArray:
        return theta[self.n_sd :]

    # --- T and Sigma ------------------------------------------------------------------------------------------------

    def factor(self, theta: FloatArray) -> FloatArray:
        self.correlation.check_size(f"{self.name}()")
        return self._sd(theta)[:, None] * self.correlation.root(self._phi(theta))

    def tangents(self, theta: FloatArray) -> FloatArray:
        d, phi = self._deviations(theta, order=1), self._phi(theta)
        C, dC = self.correlation.root(phi), self.correlation.root_tangents(phi)
        return np.concatenate([d.first[:, :, None] * C, d.value[:, None] * dC])

    def second_tangents(self, theta: FloatArray) -> FloatArray:
        d, phi, s = self._deviations(theta), self._phi(theta), self.n_sd
        C, dC = self.correlation.root(phi), self.correlation.root_tangents(phi)
        out = np.empty((self.n_theta, self.n_theta, self.size, self.size))
        out[:s, :s] = d.second[..., None] * C
        out[:s, s:] = d.first[:, None, :, None] * dC
        out[s:, :s] = out[:s, s:].swapaxes(0, 1)
        out[s:, s:] = d.value[:, None] * self.correlation.root_second_tangents(phi)
        return out

    def pullback(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        d, phi = self._sd(theta), self._phi(theta)
        rows = np.einsum("ab,ab->a", D, self.correlation.root(phi))
        own = self.correlation.root_pullback(phi, d[:, None] * D)
        return np.concatenate([self._columns_to_theta(rows, theta), own])

    def second(self, theta: FloatArray, D: FloatArray) -> FloatArray:
        d, phi = self._sd(theta), self._phi(theta)
        rows = np.einsum("ab,ab->a", D, self.correlation.root(phi))
        mixed = self._columns_to_theta(self.correlation.root_rows(phi, D), theta)
        own = self.correlation.root_second(phi, d[:, None] * D)
        return np.block([[self._curvature_of_deviations(rows), mixed.T], [mixed, own]])

    def covariance_derivatives(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        d, R = self._deviations(theta, points, order), self.correlation.derivatives(self._phi(theta), points, order)
        left, right = d.value[..., :, None], d.value[..., None, :]
        value = left * R.value * right
        if order == 0:
            return Jet.value_only(value)
        first = np.concatenate([_both_ways(d.first[..., :, None] * (R.value * right)), left * R.first * right])
        second = self._second_of(d, R) if order > 1 else np.zeros((1, 1, *value.shape))
        return Jet.of(value, first, second, order)

    def _second_of(self, d: Jet, R: Jet) -> FloatArray:
        """Second derivatives of d_a d_b R_ab, (m, m, ..., p, p)."""
        s, m = self.n_sd, self.n_theta
        left, right = d.value[..., :, None], d.value[..., None, :]
        moved = d.first[:, None, ..., :, None]
        out = np.empty((m, m, *R.value.shape))
        out[:s, :s] = _both_ways(d.second[..., :, None] * (R.value * right) + moved * (R.value * d.first[..., None, :]))
        out[:s, s:] = _both_ways(moved * (R.first * right))
        out[s:, :s] = out[:s, s:].swapaxes(0, 1)
        out[s:, s:] = left * R.second * right
        return out

    def covariance_pullback(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        d, phi = self._sd(theta), self._phi(theta)
        rows = 2.0 * (G * self.correlation.derivatives(phi, order=0).value) @ d
        own = self.correlation.pull(phi, d[:, None] * G * d)
        return np.concatenate([self._columns_to_theta(rows, theta), own])

    def curvature(self, theta: FloatArray, G: FloatArray) -> FloatArray:
        d, phi = self._sd(theta), self._phi(theta)
        GR = G * self.correlation.derivatives(phi, order=0).value
        # d_i' (G o R) d_j', then the part from the second derivatives of d.
        inner = self._columns_to_theta(self._columns_to_theta(GR, theta).T, theta)
        own = 2.0 * inner + self._curvature_of_deviations(2.0 * GR @ d)
        mixed = 2.0 * self._columns_to_theta(self.correlation.pull_rows(phi, G * d), theta)
        return np.block([[own, mixed.T], [mixed, self.correlation.pull_second(phi, d[:, None] * G * d)]])

    # --- chains -----------------------------------------------------------------------------------------------------

    @property
    def is_chain(self) -> bool:
        return isinstance(self.correlation, Chain)

    def precision(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        if not isinstance(self.correlation, Chain):
            return super().precision(theta)
        d = np.abs(self._sd(theta))
        if not (d > 0.0).all():
            raise DesignError(f"a variance of {self.name}() is zero, and the covariance matrix has no inverse.")
        diagonal, below, log_det = self.correlation.precision(self._phi(theta))
        return diagonal / d**2, below / (d[1:] * d[:-1]), log_det + 2.0 * float(np.log(d).sum())

    def gap_steps(self, theta: FloatArray, gaps: FloatArray) -> Steps:
        if not self.correlation.steps_in_time:
            return super().gap_steps(theta, gaps)
        return self.correlation.gap_steps(self._phi(theta), gaps)

    # --- theta from elsewhere ---------------------------------------------------------------------------------------

    def initial(self) -> FloatArray:
        return np.concatenate([np.ones(self.n_sd), self.correlation.initial()])

    def theta_of_factor(self, M: FloatArray) -> FloatArray:
        sd = np.sqrt(np.einsum("ab,ab->a", M, M))
        # What is rounding beside the largest row has no direction.
        known = sd > 1e-14 * sd.max(initial=0.0)
        rows = np.where(known[:, None], M / np.where(known, sd, 1.0)[:, None], 0.0)
        phi = self.correlation.of_rows(rows) if known.any() else self.correlation.initial()
        return np.concatenate([self._of_deviations(np.where(known, sd, 0.0)), phi])

    def scaled(self, theta: FloatArray, size: float) -> FloatArray:
        sd = size * np.abs(self._sd(theta))
        return np.concatenate([self._of_deviations(sd), self._phi(theta)])

    def canonical(self, theta: FloatArray) -> FloatArray:
        return np.concatenate([np.abs(theta[: self.n_sd]), self.correlation.canonical(self._phi(theta))])

    # --- edges ------------------------------------------------------------------------------------------------------

    def edges(self, theta: FloatArray) -> FloatArray:
        return np.concatenate([np.zeros(self.n_sd), self.correlation.edges(self._phi(theta))])

    def edge_sizes(self, theta: FloatArray) -> FloatArray:
        return np.concatenate([self._sd_sizes(theta), self.correlation.edge_sizes(self._phi(theta))])

    def units(self, theta: FloatArray) -> FloatArray:
        sd = np.maximum(np.abs(theta[: self.n_sd]), LEAST_UNIT)
        # Angles, logarithms: of the order of 1 wherever they are.
        return np.concatenate([sd, np.full(self.correlation.n_phi, 0.25)])

    def as_start(self, theta: FloatArray, lowest: float, highest: float = np.inf) -> FloatArray:
        sd = np.clip(np.abs(self._sd(theta)), lowest, highest)
        return np.concatenate([self._of_deviations(sd), self.correlation.as_start(self._phi(theta))])

    def other_starts(self, theta: FloatArray, sizes: Sequence[tuple[float, float]]) -> list[FloatArray]:
        """Correlations from within their range, at standard deviations of each size."""
        chosen = self._other_phi()
        deviations = [self.as_start(theta, *limits)[: self.n_sd] for limits in sizes]
        return [np.concatenate([sd, phi]) for sd in deviations for phi in chosen]

    def _other_phi(self) -> list[FloatArray]:
        """A few correlations from within their range; none where there is no range."""
        grid = [phi for phi in self.correlation.grid() if (self.correlation.edge_sizes(phi) > _OFF_EDGES).all()]
        places = [round(share * (len(grid) - 1)) for share in _SHARES] if grid else []
        return [grid[place] for place in dict.fromkeys(places)]

    @abstractmethod
    def _sd_sizes(self, theta: FloatArray) -> FloatArray:
        """The standard deviations themselves, (n_sd,)."""

    def boundary(
        self, theta: FloatArray, label: str, columns: Sequence[str], S: FloatArray | None = None, least: float = 1e-4
    ) -> tuple[str, ...]:
        gone = np.abs(self._sd(theta)) < least
        if gone.all():
            return self.no_variance(label)
        names = ", ".join(name for name, zero in zip(columns, gone, strict=True) if zero)
        own = (f"the variance of {names} in {label} is zero",) if names else ()
        return own + self.correlation.boundary(self._phi(theta), label, columns, least)

    def limits(self, theta: FloatArray, label: str) -> tuple[str, ...]:
        return self.correlation.limits(self._phi(theta), label)

    def boundary_derivative(self, theta: FloatArray, G: FloatArray) -> float | None:
        """Where all variances are zero, the smallest derivative in their sum along any covariance of the structure."""
        if (np.abs(self._sd(theta)) >= AT_EDGE).any():
            return super().boundary_derivative(theta, G)

        def slope(theta: FloatArray) -> tuple[float, FloatArray]:
            total = float(np.sum(self._sd(theta) ** 2))
            along = float(np.vdot(G, self.covariance(theta))) / total
            moves = self.covariance_pullback(theta, G) - along * self.covariance_pullback(theta, np.eye(self.size))
            return along, moves / total

        from scipy.optimize import minimize

        # Off the edges, where there is no slope that leads away.
        grid = [phi + 0.05 * np.cos(np.arange(phi.size)) for phi in self.correlation.grid()]
        starts = [np.concatenate([sd, phi]) for phi in grid for sd in self._sd_starts(G, phi)]
        best = sorted(starts, key=lambda start: slope(start)[0])[:_STARTS]
        found = [minimize(slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 50}) for start in best]
        return min(float(one.fun) for one in found)

    @abstractmethod
    def _sd_starts(self, G: FloatArray, phi: FloatArray) -> FloatArray:
        """Some theta of standard deviations at which tr(G Sigma) may be small, (starts, n_sd)."""

    # --- natural parameters -----------------------------------------------------------------------------------------

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        return (*self._sd_parameters(), *self.correlation.natural_parameters)

    @abstractmethod
    def _sd_parameters(self) -> tuple[NaturalParameter, ...]: ...

    @abstractmethod
    def _sd_jet(self, theta: FloatArray, order: int) -> Jet:
        """The standard deviations that are printed, (n_sd,)."""

    def natural_derivatives(self, theta: FloatArray, order: int = 2) -> Jet:
        sd, cor = self._sd_jet(theta, order), self.correlation.natural(self._phi(theta), order)
        value = np.concatenate([sd.value, cor.value])
        if order == 0:
            return Jet.value_only(value)
        s, m = self.n_sd, self.n_theta
        first, second = np.zeros((m, m)), np.zeros((m, m, m) if order > 1 else (0, 0, m))
        first[:s, :s], first[s:, s:] = sd.first, cor.first
        if order > 1:
            second[:s, :s, :s], second[s:, s:, s:] = sd.second, cor.second
        return Jet(value, first, second)

    def theta_of_natural(self, values: FloatArray) -> FloatArray:
        values = np.asarray(values, dtype=float)
        self.check_natural(values)
        return np.concatenate([self._of_sd(values[: self.n_sd]), self.correlation.of_natural(values[self.n_sd :])])

    @abstractmethod
    def _of_sd(self, sd: FloatArray) -> FloatArray:
        """theta of printed standard deviations."""

    def hold(self, place: int) -> Holding:
        """A standard deviation is a function of one theta, whatever the correlations are."""
        if place < self.n_sd:
            return NaturalHeld(self, np.arange(self.size), place, angle=False)
        return super().hold(place)

    def holding(self, values: Mapping[int, float]) -> dict[int, float]:
        s = self.n_sd
        sd = self._sd_jet(self.initial(), 0).value.copy()
        own = [place for place in values if place < s]
        sd[own] = [values[place] for place in own]
        theta = self._of_sd(sd)
        found = {place: float(theta[place]) for place in own}
        rest = {place - s: value for place, value in values.items() if place >= s}
        return found | {place + s: value for place, value in self.correlation.holding(rest).items()} if rest else found


class Homogeneous(Scaled):
    """One standard deviation for all columns: theta = (s, phi)."""

    column_changes: ClassVar[ColumnChanges] = "common"

    @property
    def is_chain_in_time(self) -> bool:
        return self.correlation.steps_in_time

    @property
    def n_sd(self) -> int:
        return 1

    def _sd_names(self) -> tuple[str, ...]:
        return ("sd",)

    def _sd(self, theta: FloatArray) -> FloatArray:
        return np.full(self.size, theta[0])

    def _deviations(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        # The same everywhere: axes of length one stand for all columns.
        shape = (1,) if points is None else (1,) * (points.ndim - self.places.ndim + 1)
        return Jet.of(theta[0] * np.ones(shape), np.ones((1, *shape)), np.zeros((1, 1, *shape)), order)

    def _of_deviations(self, sd: FloatArray) -> FloatArray:
        return np.array([np.sqrt(np.mean(sd**2))])

    def _columns_to_theta(self, values: FloatArray, theta: FloatArray) -> FloatArray:
        return np.asarray(values.sum(axis=-1, keepdims=True))

    def _curvature_of_deviations(self, values: FloatArray) -> FloatArray:
        return np.zeros((1, 1))

    def _sd_sizes(self, theta: FloatArray) -> FloatArray:
        return np.abs(theta[:1])

    def _sd_starts(self, G: FloatArray, phi: FloatArray) -> FloatArray:
        return np.ones((1, 1))

    def _sd_parameters(self) -> tuple[NaturalParameter, ...]:
        return (NaturalParameter("sd", "sd", (), 0.0, np.inf, relative=True),)

    def _sd_jet(self, theta: FloatArray, order: int) -> Jet:
        sign = np.where(theta[:1] < 0.0, -1.0, 1.0)
        return Jet.of(np.abs(theta[:1]), sign[None], np.zeros((1, 1, 1)), order)

    def _of_sd(self, sd: FloatArray) -> FloatArray:
        return sd

    def to_user(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.concatenate([theta[:1] * S[0, 0], self._phi(theta)])

    def to_engine(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.concatenate([theta[:1] / S[0, 0], self._phi(theta)])

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        slopes = np.ones(theta.size)
        slopes[0] = S[0, 0]
        return np.diag(np.where(self.edge_sizes(theta) < AT_EDGE, 0.0, slopes))

    def moment_basis(self) -> FloatArray:
        return _with_pairs(np.eye(self.size)[None], self.correlation)

    def span_basis(self) -> FloatArray:
        return self.correlation.span()


class Heterogeneous(Scaled):
    """An own standard deviation for each column: theta = (root of each, phi)."""

    column_changes: ClassVar[ColumnChanges] = "diagonal"

    @property
    def n_sd(self) -> int:
        return self.size

    def _sd_names(self) -> tuple[str, ...]:
        return tuple(f"root sd {j + 1}" for j in range(self.size))

    def _sd(self, theta: FloatArray) -> FloatArray:
        return np.asarray(theta[: self.size] ** 2)

    def _deviations(self, theta: FloatArray, points: FloatArray | None = None, order: int = 2) -> Jet:
        k = self.size
        columns = np.arange(k) if points is None else self.columns_at(points)
        value = self._sd(theta)[columns]
        if order == 0:
            return Jet.value_only(value)
        first = np.diag(2.0 * theta[:k])[:, columns]
        second = np.zeros((k if order > 1 else 1,) * 2 + (k,))
        if order > 1:
            second[np.arange(k), np.arange(k), np.arange(k)] = 2.0
        return Jet.of(value, first, second[..., columns], order)

    def _of_deviations(self, sd: FloatArray) -> FloatArray:
        return np.sqrt(sd)

    def _columns_to_theta(self, values: FloatArray, theta: FloatArray) -> FloatArray:
        return 2.0 * theta[: self.size] * values

    def _curvature_of_deviations(self, values: FloatArray) -> FloatArray:
        return np.diag(2.0 * values)

    def _sd_sizes(self, theta: FloatArray) -> FloatArray:
        return theta[: self.size] ** 2

    def other_starts(self, theta: FloatArray, sizes: Sequence[tuple[float, float]]) -> list[FloatArray]:
        """Also two columns alone, where several correlations leave room for minima without the variances of others."""
        found = super().other_starts(theta, sizes)
        if self.correlation.n_phi < 2 or not 2 < self.size <= _PAIRED:
            return found
        ends = self._other_phi()[:: len(_SHARES) - 1]
        for pair in combinations(range(self.size), 2):
            sd = np.full(self.size, sizes[0][0])
            sd[list(pair)] = np.prod(sizes[1]) ** 0.5
            found += [np.concatenate([self._of_deviations(sd), phi]) for phi in ends]
        return found

    def _sd_starts(self, G: FloatArray, phi: FloatArray) -> FloatArray:
        # Each alone, neighbours in pairs, and the eigenvector that would be best if deviations could have any sign.
        vector = np.linalg.eigh(G * self.correlation.derivatives(phi, order=0).value)[1][:, :1].T
        one = np.eye(self.size)
        return np.asarray(np.sqrt(0.1 + np.concatenate([np.abs(vector), one, one + np.roll(one, 1, axis=1)])))

    def _sd_parameters(self) -> tuple[NaturalParameter, ...]:
        return tuple(NaturalParameter("sd", "sd", (j,), 0.0, np.inf, relative=True) for j in range(self.size))

    def _sd_jet(self, theta: FloatArray, order: int) -> Jet:
        return self._deviations(theta, order=order)

    def _of_sd(self, sd: FloatArray) -> FloatArray:
        return self._of_deviations(sd)

    def to_user(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.concatenate([theta[: self.size] * np.sqrt(S.diagonal()), self._phi(theta)])

    def to_engine(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        return np.concatenate([theta[: self.size] / np.sqrt(S.diagonal()), self._phi(theta)])

    def to_user_jacobian(self, theta: FloatArray, S: FloatArray) -> FloatArray:
        slopes = np.concatenate([np.sqrt(S.diagonal()), np.ones(self.correlation.n_phi)])
        return np.diag(np.where(self.edge_sizes(theta) < AT_EDGE, 0.0, slopes))

    def moment_basis(self) -> FloatArray:
        one = np.eye(self.size)
        # Many variances are one for the start.
        own = one[:, :, None] * one[:, None] if self.size <= _OWN_VARIANCES else one[None]
        return _with_pairs(own, self.correlation)


# From so many of the best starts the least derivative at zero is looked for.
_STARTS = 5
# Correlations that other minima are sought from, off the edges by so much: where they stand in a grid over the range.
_OFF_EDGES, _SHARES = 0.2, (0.15, 0.4, 0.6, 0.85)
# With more columns than this their pairs are too many for a start each.
_PAIRED = 4
# With more columns than this the start has one variance for all.
_OWN_VARIANCES = 30


def _both_ways(half: FloatArray) -> FloatArray:
    """A matrix and its transpose."""
    return half + half.swapaxes(-1, -2)


def _with_pairs(variances: FloatArray, correlation: Correlation) -> FloatArray:
    """The variances, and one matrix for all correlations."""
    return np.concatenate([variances, correlation.pairs()[None]]) if correlation.n_phi else variances
