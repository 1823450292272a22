"""The likelihood with one parameter held at a value: what a profile minimises.

The criterion with sigma not profiled out,

    d(Sigma, sigma) = log|M| + r2 / sigma^2 + df log(2 pi sigma^2) - sum(log w)    [+ log|X'V^-1X| for REML],

is a function of the relative covariance matrices Sigma_t. Holding a standard deviation, a correlation or sigma at a
value is a choice of coordinates for theta and sigma (a `Coordinates`), in which everything else is free; holding a
fixed effect is a linear change of the columns [X y], which leaves a model with one column of X less. So each
constrained minimum is an unconstrained one with an analytic gradient, and the ends of the range (a standard deviation
of 0, a correlation of -1 or 1) are ordinary points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.chain_levels import ChainLevels
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.penalised import make_criterion
from lme4py.engine.linear.problem import Problem
from lme4py.engine.optimise import Control, Local, minimise
from lme4py.fits.answers.holding import Minimum
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import other_minima
from lme4py.fits.parameters import Parameter, fit_values, profile_range
from lme4py.linalg.held_direction import HeldDirection
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Constrained", "Coordinates", "LinearHolding"]


@dataclass(frozen=True)
class _Local:
    """One term at some coordinates, with the first and second derivatives of theta in the d coordinates that move it.

    Attributes
    ----------
    structure : CovarianceStructure
    theta : ndarray, shape (m,)
    first : ndarray, shape (d, m)
    second : ndarray, shape (d, d, m), or None
        None where theta are coordinates themselves.
    coordinates : ndarray of int, shape (d,)
    R : ndarray, shape (k, k), or None
        Sigma in the engine's columns is R Sigma(theta) R'; None is the identity.
    along : ndarray, shape (m,), or None
        Derivative of theta in the held value.
    """

    structure: CovarianceStructure
    theta: FloatArray
    first: FloatArray | None
    second: FloatArray | None
    coordinates: IntArray
    R: FloatArray | None = None
    along: FloatArray | None = None

    def changes(self) -> FloatArray:
        """dSigma in the coordinates, (d, k, k), in the engine's columns."""
        moves = self.structure.covariance_tangents(self.theta)
        moves = moves if self.first is None else np.tensordot(self.first, moves, 1)
        return moves if self.R is None else self.R @ moves @ self.R.T

    def slopes(self, G: FloatArray) -> FloatArray:
        """Derivatives in theta from those in Sigma in the engine's columns."""
        return self.structure.covariance_pullback(self.theta, self._own(G))

    def curvature(self, G: FloatArray) -> FloatArray:
        """The part of the Hessian in the coordinates that is from the curvature of Sigma, (d, d)."""
        inner = self.structure.curvature(self.theta, self._own(G))
        if self.first is None or self.second is None:
            return inner
        out: FloatArray = self.first @ inner @ self.first.T + self.second @ self.slopes(G)
        return out

    def _own(self, G: FloatArray) -> FloatArray:
        own: FloatArray = G if self.R is None else self.R.T @ G @ self.R
        return own


@dataclass(frozen=True)
class _ChainLocal(_Local):
    """A chain of many times: what changes is known in (s, phi), and so are derivatives.

    Attributes
    ----------
    slope : ndarray, shape (2,)
        Derivatives of (s, phi) in the engine's columns in theta.
    """

    slope: FloatArray = field(default_factory=lambda: np.ones(2))

    @property
    def _inside(self) -> FloatArray:
        return self.theta * self.slope

    def changes(self) -> FloatArray:
        return np.diag(self.slope) if self.first is None else self.first * self.slope

    def slopes(self, G: FloatArray) -> FloatArray:
        return self.structure.covariance_pullback(self._inside, G) * self.slope

    def curvature(self, G: FloatArray) -> FloatArray:
        inner = self.structure.curvature(self._inside, G) * np.outer(self.slope, self.slope)
        if self.first is None or self.second is None:
            return inner
        out: FloatArray = self.first @ inner @ self.first.T + self.second @ self.slopes(G)
        return out


@dataclass(frozen=True)
class _Place:
    """All terms at some coordinates, theta and log sigma inside."""

    terms: list[_Local]
    theta: FloatArray
    log_sigma: float


class Coordinates:
    """Coordinates of all variance parameters with one of them held at v.

    v is a natural parameter of a covariance structure on the user's scale, that over sigma ("ratio"), or the arc sine
    of a correlation: in the angle the likelihood is smooth at the ends of the range too.

    Parameters
    ----------
    problem : Problem
    parameter : Parameter
        A "fixed" one holds none of the variance parameters.
    """

    def __init__(self, problem: Problem, parameter: Parameter) -> None:
        self.problem = problem
        self.parameter = parameter
        self.root = float(np.sqrt(problem.scaling.weight_scale))
        # sigma of the user is this many times sigma inside.
        self.sigma_unit = problem.scaling.y_scale * self.root
        self.free_sigma = parameter.kind != "sigma"
        self.unit = 1.0
        if parameter.term >= 0:
            self._hold(parameter)

    def _hold(self, parameter: Parameter) -> None:
        S = self.problem.scaling.S[parameter.term]
        structure = self.problem.structures.each[parameter.term].user
        natural = structure.natural_parameters[parameter.natural]
        self.holding = structure.hold(parameter.natural)
        # Rows in units of a column of unit size, so that the trust region is as round as in the engine's columns.
        units = np.linalg.norm(S, axis=1)[self.holding.order]
        P = np.eye(S.shape[0])[:, self.holding.order]
        self.to_engine = (P / units).T @ S / self.root
        self.R = np.linalg.inv(self.to_engine)
        self.relative = natural.relative
        if natural.relative:
            self.unit = float(np.linalg.norm(S[natural.columns[0] if natural.columns else 0]))

    def about(self, theta: FloatArray) -> None:
        """Take coordinates that are good about theta inside, shape (m,)."""
        if self.parameter.term >= 0:
            self.holding = self.holding.about(self._held_theta(self.problem.structures.split(theta)))

    def _held_theta(self, parts: list[FloatArray]) -> FloatArray:
        """theta of the held term in the columns of its coordinates, from those of all terms inside."""
        t = self.parameter.term
        return self.problem.structures.each[t].user.to_user(parts[t], self.to_engine)

    def start(self, theta: FloatArray, log_sigma: float) -> FloatArray:
        """Free coordinates of a point given inside."""
        parts = self.problem.structures.split(theta)
        t = self.parameter.term
        if t >= 0:
            parts[t] = self.holding.start(self._held_theta(parts))
        if self.free_sigma:
            parts.append(np.array([log_sigma]))
        return np.concatenate(parts) if parts else np.zeros(0)

    def place(self, x: FloatArray, v: float) -> _Place:
        """Everything at coordinates x, shape (d,)."""
        log_sigma = float(x[-1]) if self.free_sigma else float(np.log(v / self.sigma_unit))
        terms, parts, position = [], [], 0
        for t, structure in enumerate(self.problem.structures.each):
            held = t == self.parameter.term
            d = self.holding.size if held else structure.n_theta
            own, coordinates = x[position : position + d], np.arange(position, position + d)
            if held:
                local = self._held(own, coordinates, x.size - 1, v, log_sigma)
                if isinstance(structure, ChainLevels):
                    local = self._of_chain(structure, local)
                parts.append(structure.user.to_engine(local.theta, self.to_engine))
            else:
                kind = _ChainLocal if isinstance(structure, ChainLevels) else _Local
                local = kind(structure, own, None, None, coordinates)
                parts.append(own)
            terms.append(local)
            position += d
        return _Place(terms, np.concatenate([np.zeros(0), *parts]), log_sigma)

    def _of_chain(self, structure: ChainLevels, local: _Local) -> _Local:
        """The same of a chain, whose theta on the user's scale is that inside with another unit of s."""
        slope = np.array([1.0 / self.to_engine[0, 0], 1.0])
        own = (local.theta, local.first, local.second, local.coordinates, None, local.along)
        return _ChainLocal(structure, *own, slope)

    def _held(self, x: FloatArray, coordinates: IntArray, last: int, v: float, log_sigma: float) -> _Local:
        """The term whose parameter is held; on the user's scale it is sigma times what the structure knows."""
        absolute = self.relative and self.parameter.kind != "ratio"
        size = float(np.exp(-log_sigma)) / (self.unit * self.sigma_unit) if absolute else 1.0 / self.unit
        s = v * size
        jet = self.holding.theta(x, s)
        d = x.size
        along = size * jet.first[d]
        if not absolute:
            return _Local(
                self.holding.structure, jet.value, jet.first[:d], jet.second[:d, :d], coordinates, self.R, along
            )
        # ds / d log sigma = -s.
        change = np.eye(d + 1)
        change[d, d] = -s
        first = change @ jet.first
        second = np.einsum("ai,ijm,bj->abm", change, jet.second, change)
        second[d, d] += s * jet.first[d]
        return _Local(self.holding.structure, jet.value, first, second, np.append(coordinates, last), self.R, along)


class Constrained:
    """Minimum over everything else with one parameter held.

    Parameters
    ----------
    criterion : Criterion
    parameter : Parameter
    starts : sequence of ndarray, each (m,)
        theta inside of other local minima: each minimum is looked for from these too.
    """

    def __init__(self, criterion: Criterion, parameter: Parameter, starts: Sequence[FloatArray] = ()) -> None:
        self.criterion = criterion
        self.starts = starts
        self.parameter = parameter
        self.ends = parameter.kind != "sigma"
        self.problem = criterion.problem
        self.chart = Coordinates(criterion.problem, parameter)
        if parameter.kind == "fixed":
            scaling = self.problem.scaling
            a = scaling.y_scale * scaling.C[parameter.first]
            self.direction = HeldDirection(a, float(scaling.b0[parameter.first]))

    def start(self, theta: FloatArray, log_sigma: float) -> FloatArray:
        """Free coordinates of a point inside."""
        return self.chart.start(theta, log_sigma)

    def _criterion(self, v: float) -> Criterion:
        """The criterion as a function of the variance parameters alone."""
        if self.parameter.kind != "fixed":
            return self.criterion
        return self.criterion.with_columns(self.direction.columns(v))

    def minimum(self, v: float, x: FloatArray, tolerance: float = 1e-9) -> Minimum:
        """Minimise from the coordinates x.

        Parameters
        ----------
        v : float
            On the user's scale; the arc sine of a correlation.
        x : ndarray
        tolerance : float
            Stop when the value is predicted to fall by less.
        """
        criterion = self._criterion(v)
        control = Control(max_evaluations=100, tolerance=tolerance)

        def local(x: FloatArray) -> Local | None:
            return self._local(criterion, x, v)

        found = minimise(local, x, control)
        for theta in self.starts:
            point = criterion.evaluate(theta)
            other = minimise(local, self.start(theta, 0.5 * float(np.log(criterion.variance(point.r2)))), control)
            found = other if other.value < found.value - 10.0 * tolerance else found
        if self.parameter.term >= 0:
            self.chart.holding.check_slope(found.steepest)
        point, placed, G, sigma2 = found.source
        slope = self._slope(criterion, v, point, placed, G, sigma2)
        return Minimum(v, found.theta, found.value, slope, point.theta, placed.log_sigma, len(found.log))

    def _local(self, criterion: Criterion, x: FloatArray, v: float) -> Local | None:
        placed = self.chart.place(x, v)
        if not np.isfinite(placed.theta).all():
            return None
        T = self.problem.structures.factors(placed.theta)
        # Out of this range the exponential or the factor leaves floating point.
        if abs(placed.log_sigma) > 40.0 or not max(float(np.abs(M).max()) for M in T) <= 1e8:
            return None
        sigma2 = float(np.exp(2.0 * placed.log_sigma))
        try:
            point = criterion.evaluate_factors(T, placed.theta)
        except np.linalg.LinAlgError:
            return None
        df = criterion.df
        value = point.value
        if self.problem.known is None:
            value += df * (np.log(df * sigma2 / point.r2) - 1.0) + point.r2 / sigma2
        G = self._sigma_gradient(criterion, point, sigma2)
        q, slope = criterion.average_information(point, [term.changes() for term in placed.terms])
        # Several changes may belong to one coordinate.
        J = np.zeros((slope.size, x.size))
        J[np.arange(slope.size), np.concatenate([term.coordinates for term in placed.terms])] = 1.0
        hessian = J.T @ q @ J / sigma2
        gradient = np.zeros(x.size)
        for term, g in zip(placed.terms, G, strict=True):
            slopes = term.slopes(g)
            gradient[term.coordinates] += slopes if term.first is None else term.first @ slopes
            hessian[np.ix_(term.coordinates, term.coordinates)] += term.curvature(g)
        if self.problem.known is not None:
            # The coordinate of sigma stays where it is.
            gradient[-1], hessian[-1], hessian[:, -1], hessian[-1, -1] = 0.0, 0.0, 0.0, 1.0
        elif self.chart.free_sigma:
            gradient[-1] += 2.0 * df - 2.0 * point.r2 / sigma2
            cross = 2.0 * (slope @ J) / sigma2
            hessian[-1] += cross
            hessian[:, -1] += cross
            hessian[-1, -1] += 4.0 * point.r2 / sigma2
        point.swept.release()
        return Local(x, float(value), gradient, 0.5 * (hessian + hessian.T), (point, placed, G, sigma2))

    def _sigma_gradient(self, criterion: Criterion, point: Point, sigma2: float) -> list[FloatArray]:
        """Derivative in Sigma of each term with sigma^2 held: only the part of r2 differs from the profiled one."""
        G = criterion.sigma_gradient(point)
        change = 1.0 / criterion.variance(point.r2) - 1.0 / sigma2
        if change == 0.0 or criterion.problem.known is not None:
            return G
        g = point.solved(np.append(-point.beta, 1.0)[:, None])
        chained = point.chain
        for f, factor in enumerate(self.problem.factors):
            if chained is not None and f == chained.sweeper.chain:
                term = factor.terms[0]
                G[term] = G[term] + change * chained.forms(g[f])
                continue
            values = g[f].reshape(factor.n_columns, factor.n_levels)
            gram = factor.gram(values)
            for term, columns in zip(factor.terms, factor.columns, strict=True):
                G[term] = G[term] + change * gram[columns, columns]
        return G

    def _slope(
        self,
        criterion: Criterion,
        v: float,
        point: Point,
        placed: _Place,
        G: list[FloatArray],
        sigma2: float,
    ) -> float:
        """Derivative of the minimum in v (envelope theorem)."""
        if self.parameter.kind == "sigma":
            return (2.0 * criterion.df - 2.0 * point.r2 / sigma2) / v
        if self.parameter.kind == "fixed":
            return self._fixed_slope(v, point) / sigma2
        pairs = zip(placed.terms, G, strict=True)
        return sum(float(term.along @ term.slopes(g)) for term, g in pairs if term.along is not None)

    def _fixed_slope(self, v: float, point: Point) -> float:
        """Derivative of r2 in the held coefficient: -2 x'V^-1 (y - X beta)."""
        beta, held = self.direction.beta(v, point.beta), self.direction.held
        b = point.modes()
        p = self.problem.n_fixed
        column = held @ self.problem.base.corner[:p] @ np.append(-beta, 1.0)
        for border, modes in zip(self.problem.base.border, b, strict=True):
            column -= float((border[:, :p] @ held) @ modes[:, 0])
        return -2.0 * float(column) / self.direction.length


class LinearHolding(Constrained):
    """The criterion of a fit with one parameter held.

    Parameters
    ----------
    fit : LinearFit
    parameter : Parameter
    reml : bool
        Which criterion.
    """

    def __init__(self, fit: LinearFit, parameter: Parameter, reml: bool) -> None:
        self.reml = reml
        minima = other_minima(fit)
        super().__init__(make_criterion(fit.problem, reml), parameter, [other.theta_inside for other in minima])
        self.fit = fit
        self.chart.about(fit.theta_inside)
        self.estimate = self._at(fit)
        self.others = [self._at(other) for other in minima]

    def _at(self, fit: LinearFit) -> Minimum:
        """A fit as the minimum with the parameter at its estimate."""
        log_sigma = float(np.log(fit.sigma / self.chart.sigma_unit))
        x = self.start(fit.theta_inside, log_sigma)
        return Minimum(self._coordinate(fit), x, fit.criterion, 0.0, fit.theta_inside, log_sigma, 0)

    def _coordinate(self, fit: LinearFit) -> float:
        kind, first = self.parameter.kind, self.parameter.first
        if kind == "ratio":
            return float(np.sqrt(fit.covariances[self.parameter.term][first, first])) / fit.sigma
        value = float(fit_values(fit, [self.parameter])[0])
        return float(np.arcsin(value)) if kind == "corr" else value

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the coordinate."""
        if self.parameter.term < 0:
            return (-np.inf if self.parameter.kind == "fixed" else 0.0), np.inf
        return profile_range(self.fit.design, self.parameter)

    @property
    def guess(self) -> float:
        """Size of a first step where there is no standard error."""
        parameter, fit = self.parameter, self.fit
        unit = self.chart.unit
        if parameter.kind == "corr":
            return 0.3
        levels = fit.design.terms[parameter.term].n_levels if parameter.term >= 0 else 1
        sigma = 1.0 if parameter.kind == "ratio" else fit.sigma
        return sigma * unit * float(np.sqrt(1.0 / (levels * max(fit.design.n_obs / levels, 1.0) ** 0.5)))

    def _sigma(self, minimum: Minimum) -> float:
        return float(np.exp(minimum.log_sigma)) * self.problem.scaling.y_scale

    def covariances(self, minimum: Minimum) -> list[FloatArray]:
        """Covariances of all terms at a minimum, on the user's scale."""
        structures, size = self.problem.structures, self._sigma(minimum) ** 2
        own = zip(structures.each, structures.split(minimum.theta), self.problem.scaling.S, strict=True)
        return [size * structure.whole_covariance(theta, S) for structure, theta, S in own]

    def residual_change(self, minimum: Minimum) -> float:
        """Residual variance there less that of the fit."""
        return self._sigma(minimum) ** 2 * self.problem.scaling.weight_scale - self.fit.sigma**2
