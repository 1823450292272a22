"""The likelihood with one parameter held at a value: what a profile minimises.

The criterion with sigma not profiled out,

    d(Sigma, sigma) = log|M| + r2 / sigma^2 + df log(2 pi sigma^2) - sum(log w)    [+ log|X'V^-1X| for REML],

is a function of the relative covariance matrices Sigma_t = M_t M_t'. Holding a standard deviation, a correlation or
sigma at a value is a choice of coordinates for M_t and sigma (a `Chart`), in which everything else is free; holding a
fixed effect is a linear change of the columns [X y], which leaves a model with one column of X less. So each
constrained minimum is an unconstrained one with an analytic gradient, and the ends of the range (a standard deviation
of 0, a correlation of -1 or 1) are ordinary points.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lme4py.covariance.templates import Template
from lme4py.engine.linear.criterion import Criterion, Point, Problem
from lme4py.engine.optimise import Control, Local, minimise
from lme4py.fits.holding import Minimum
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import other_minima
from lme4py.fits.parameters import Parameter, fit_values
from lme4py.linalg.small import lower_factor
from lme4py.linalg.types import FloatArray

__all__ = ["Chart", "Constrained", "CovarianceCriterion", "LinearHolding"]


class CovarianceCriterion(Criterion):
    """The criterion with the average information in the elements of Sigma instead of theta."""

    def _sigma_changes(self, point: Point, term: int) -> list[FloatArray]:
        return list(self.problem.templates.templates[term].covariance_directions)

    def information(self, point: Point) -> tuple[FloatArray, FloatArray]:
        """y'P V_i P V_j P y and y'P V_i P y for all covariance directions (Gilmour et al. 1995)."""
        return self.average_information(point)

    def with_columns(self, M: FloatArray) -> CovarianceCriterion:
        """The model whose columns are [X y] M, shape (p + 1, p' + 1); the random effects are the same."""
        problem = self.problem
        border = tuple(B @ M for B in problem.base.border)
        corner = M.T @ problem.base.corner @ M
        moved = copy.copy(self)
        moved.problem = replace(
            problem,
            base=replace(problem.base, border=border, corner=corner),
            cross=replace(problem.cross, corner=corner),
        )
        return moved


@dataclass(frozen=True)
class _TermChart:
    """M = R (v F / sigma + sum_i x_i B_i), or without sigma, with B_i possibly depending on v.

    With `turned`, F is F(x_0), an angle, and B is zero: dF/dx_0 = turned, d2F/dx_0^2 = -F.

    Attributes
    ----------
    R : ndarray, shape (k, k)
    B : ndarray, shape (d, k, k)
    dB : ndarray, shape (d, k, k), or None
        Derivative of B in v.
    F, turned : ndarray, shape (k, k), or None
    """

    R: FloatArray
    B: FloatArray
    dB: FloatArray | None = None
    F: FloatArray | None = None
    turned: FloatArray | None = None


@dataclass(frozen=True)
class _Map:
    """M of every term, log sigma (inside), and their derivatives in the free coordinates."""

    M: list[FloatArray]
    log_sigma: float
    dM: list[tuple[int, int, FloatArray]]  # (coordinate, term, derivative)
    second: list[tuple[int, int, int, FloatArray]]  # (coordinate, coordinate, term, second derivative)
    dv: list[tuple[int, FloatArray]]  # term, dM / dv


class Chart:
    """Coordinates of all variance parameters with one of them held at v.

    v is a standard deviation on the user's scale ("sd"), or that over sigma ("ratio"), or the arc sine of a
    correlation: in the angle the likelihood is smooth at the ends of the range too.

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
        if parameter.term >= 0:
            self._order_columns(parameter)

    def _order_columns(self, parameter: Parameter) -> None:
        S = self.problem.scaling.S[parameter.term]
        first = [parameter.first, parameter.second] if parameter.kind == "corr" else [parameter.first]
        k = S.shape[0]
        structure = self.problem.templates.templates[parameter.term].structure
        self.order = first + [i for i in range(k) if i not in first] if structure == "unstructured" else list(range(k))
        # Rows in units of a column of unit size, so that the trust region is as round as in the engine's columns.
        self.units = np.linalg.norm(S, axis=1)[self.order]
        self.held = self.order.index(parameter.first)
        P = np.eye(k)[:, self.order]
        self.R = self.root * np.linalg.solve(S, P * self.units)

    def start(self, theta: FloatArray, log_sigma: float) -> FloatArray:
        """Free coordinates of a point given inside."""
        parts = []
        for t, T in enumerate(self.problem.templates.factors(theta)):
            template = self.problem.templates.templates[t]
            if t != self.parameter.term:
                parts.append(template.theta(T))
                continue
            user = lower_factor(np.asarray(np.linalg.solve(self.R, T)))
            if template.structure != "unstructured":
                parts.append(self._start_of_eigenvalues(template, user))
            elif self.parameter.kind != "corr":
                parts.append(template.theta(user)[1:])
            else:
                elements = [user[0, 0], np.hypot(user[1, 0], user[1, 1])]
                parts.append(np.concatenate([elements, self._below(user)]))
        if self.free_sigma:
            parts.append(np.array([log_sigma]))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _start_of_eigenvalues(self, template: Template, user: FloatArray) -> FloatArray:
        if template.structure == "diagonal":
            return np.delete(user.diagonal(), self.held)
        if template.n_theta == 1:
            return np.zeros(0)
        theta = Template(template.size, "exchangeable").theta_of_factor(user)
        if self.parameter.kind == "corr":
            return np.array([float(np.linalg.norm(user[0]))])
        return np.array([float(np.arctan2(theta[0], theta[1] * np.sqrt(template.size - 1.0)))])

    @staticmethod
    def _below(T: FloatArray) -> FloatArray:
        return np.concatenate([np.zeros(0)] + [T[r, : r + 1] for r in range(2, T.shape[0])])

    def _term(self, t: int, v: float, x: FloatArray) -> _TermChart:
        template = self.problem.templates.templates[t]
        k = template.size
        if t != self.parameter.term:
            return _TermChart(np.eye(k), np.array(template.directions))
        if template.structure == "tied" and k > 1:
            return self._exchangeable_term(k, v, x)
        if self.parameter.kind != "corr":
            return self._sd_term(template.structure, k)
        B = np.zeros((2 + (k * (k + 1)) // 2 - 3, k, k))
        dB = np.zeros_like(B)
        B[0, 0, 0] = 1.0
        B[1, 1, :2] = np.sin(v), np.cos(v)
        dB[1, 1, :2] = np.cos(v), -np.sin(v)
        places = [(r, c) for r in range(2, k) for c in range(r + 1)]
        for i, (r, c) in enumerate(places):
            B[2 + i, r, c] = 1.0
        return _TermChart(self.R, B, dB)

    def _exchangeable_term(self, k: int, v: float, x: FloatArray) -> _TermChart:
        """One variance and one covariance: the eigenvalues are 1 + (k - 1) rho and 1 - rho times the variance.

        With the standard deviation held, the free coordinate is the angle of the roots of the two parts of the
        variance; with the correlation held, it is the standard deviation.
        """
        mean, rest = np.full((k, k), 1.0 / k), np.eye(k) - 1.0 / k
        if self.parameter.kind == "corr":
            rho = float(np.sin(v))
            large, small = np.sqrt(max(1.0 + (k - 1.0) * rho, 1e-300)), np.sqrt(max(1.0 - rho, 0.0))
            B = large * mean + small * rest
            # d sqrt(1 - sin v) = -sqrt(1 + sin v) / 2, also where the root is zero.
            dB = 0.5 * (k - 1.0) * np.cos(v) / large * mean - 0.5 * np.sqrt(1.0 + rho) * rest
            return _TermChart(self.R, B[None], dB[None])
        parts = self._unit() * np.sqrt(k) * np.array([mean, rest / np.sqrt(k - 1.0)])
        F = np.sin(x[0]) * parts[0] + np.cos(x[0]) * parts[1]
        turned = np.cos(x[0]) * parts[0] - np.sin(x[0]) * parts[1]
        return _TermChart(self.R, np.zeros((1, k, k)), None, F, turned)

    def _unit(self) -> float:
        """The user's sd is `units` times the row, times sigma of the user."""
        unit = 1.0 / float(self.units[self.held])
        return unit / self.sigma_unit if self.parameter.kind == "sd" else unit

    def _sd_term(self, structure: str, k: int) -> _TermChart:
        unit = self._unit()
        F = np.zeros((k, k))
        if structure in ("identity", "tied"):
            F[np.diag_indices(k)] = unit
            return _TermChart(self.R, np.zeros((0, k, k)), None, F)
        F[self.held, self.held] = unit
        if structure == "diagonal":
            places = [(r, r) for r in range(k) if r != self.held]
        else:
            places = [(r, c) for c in range(k) for r in range(c, k)][1:]
        B = np.zeros((len(places), k, k))
        for i, (r, c) in enumerate(places):
            B[i, r, c] = 1.0
        return _TermChart(self.R, B, None, F)

    def map(self, x: FloatArray, v: float) -> _Map:
        """Everything at coordinates x, shape (d,)."""
        log_sigma = float(x[-1]) if self.free_sigma else float(np.log(v / self.sigma_unit))
        position = 0
        out = _Map([], log_sigma, [], [], [])
        for t in range(len(self.problem.templates.templates)):
            chart = self._term(t, v, x[position:])
            d = chart.B.shape[0]
            own = x[position : position + d]
            M = chart.R @ np.tensordot(own, chart.B, 1)
            out.dM.extend((position + i, t, chart.R @ chart.B[i]) for i in range(d))
            if chart.F is not None:
                absolute = self.parameter.kind == "sd"
                size = float(np.exp(-log_sigma)) if absolute else 1.0
                unit = size * chart.R @ chart.F
                M = M + v * unit
                out.dv.append((t, unit))
                if absolute:
                    out.dM.append((x.size - 1, t, -v * unit))
                    out.second.append((x.size - 1, x.size - 1, t, v * unit))
                if chart.turned is not None:
                    turned = v * size * chart.R @ chart.turned
                    out.dM.append((position, t, turned))
                    out.second.append((position, position, t, -v * unit))
                    if absolute:
                        out.second.extend([(position, x.size - 1, t, -turned), (x.size - 1, position, t, -turned)])
            if chart.dB is not None:
                out.dv.append((t, chart.R @ np.tensordot(own, chart.dB, 1)))
            out.M.append(M)
            position += d
        return out


class Constrained:
    """Minimum over everything else with one parameter held.

    Parameters
    ----------
    criterion : CovarianceCriterion
    parameter : Parameter
    starts : sequence of ndarray, each (m,)
        theta inside of other local minima: each minimum is looked for from these too.
    """

    def __init__(self, criterion: CovarianceCriterion, parameter: Parameter, starts: Sequence[FloatArray] = ()) -> None:
        self.criterion = criterion
        self.starts = starts
        self.parameter = parameter
        self.ends = parameter.kind != "sigma"
        self.problem = criterion.problem
        self.chart = Chart(criterion.problem, parameter)
        if parameter.kind == "fixed":
            self._turn_columns()

    def _turn_columns(self) -> None:
        """An orthogonal basis of the coefficients inside whose last element alone moves the one that is held."""
        scaling = self.problem.scaling
        a = scaling.y_scale * scaling.C[self.parameter.first]
        self.length = float(np.linalg.norm(a))
        basis = np.linalg.qr(np.column_stack([a, np.eye(a.size)]))[0]
        self.free, self.held = basis[:, 1:], a / self.length

    def start(self, theta: FloatArray, log_sigma: float) -> FloatArray:
        """Free coordinates of a point inside."""
        return self.chart.start(theta, log_sigma)

    def _criterion(self, v: float) -> CovarianceCriterion:
        """The criterion as a function of the variance parameters alone."""
        if self.parameter.kind != "fixed":
            return self.criterion
        p = self.problem.n_fixed
        M = np.zeros((p + 1, p))
        M[:p, : p - 1] = self.free
        M[:p, -1] = -self._along(v) * self.held
        M[p, -1] = 1.0
        return self.criterion.with_columns(M)

    def _along(self, v: float) -> float:
        return (v - float(self.problem.scaling.b0[self.parameter.first])) / self.length

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
            other = minimise(local, self.start(theta, 0.5 * float(np.log(point.r2 / criterion.df))), control)
            found = other if other.value < found.value - 10.0 * tolerance else found
        point, mapped, G, sigma2 = found.source
        slope = self._slope(criterion, v, point, mapped, G, sigma2)
        return Minimum(v, found.theta, found.value, slope, point.theta, mapped.log_sigma, len(found.log))

    def _local(self, criterion: CovarianceCriterion, x: FloatArray, v: float) -> Local | None:
        mapped = self.chart.map(x, v)
        templates = self.problem.templates
        # Out of this range the exponential or the factor leaves floating point.
        if abs(mapped.log_sigma) > 40.0 or max(float(np.abs(M).max()) for M in mapped.M) > 1e8:
            return None
        sigma2 = float(np.exp(2.0 * mapped.log_sigma))
        try:
            point = criterion.evaluate(templates.theta_of_factors(mapped.M))
        except np.linalg.LinAlgError:
            return None
        df = criterion.df
        value = point.value + df * (np.log(df * sigma2 / point.r2) - 1.0) + point.r2 / sigma2
        G = self._sigma_gradient(criterion, point, sigma2)
        gradient, J = self._chain(mapped, G, x.size)
        q, slope = criterion.information(point)
        hessian = J.T @ q @ J / sigma2
        if self.chart.free_sigma:
            gradient[-1] += 2.0 * df - 2.0 * point.r2 / sigma2
            cross = 2.0 * (slope @ J) / sigma2
            hessian[-1] += cross
            hessian[:, -1] += cross
            hessian[-1, -1] += 4.0 * point.r2 / sigma2
        self._add_curvature(hessian, mapped, G)
        point.swept.release()
        return Local(x, float(value), gradient, 0.5 * (hessian + hessian.T), (point, mapped, G, sigma2))

    def _sigma_gradient(self, criterion: CovarianceCriterion, point: Point, sigma2: float) -> list[FloatArray]:
        """Derivative in Sigma of each term with sigma^2 held: only the part of r2 differs from the profiled one."""
        G = criterion.sigma_gradient(point)
        change = criterion.df / point.r2 - 1.0 / sigma2
        if change == 0.0:
            return G
        _, g = point.swept.back_substitute(point.border, np.append(-point.beta, 1.0)[:, None])
        for f, factor in enumerate(self.problem.factors):
            values = g[f].reshape(factor.n_columns, factor.n_levels)
            gram = values @ values.T
            for term, columns in zip(factor.terms, factor.columns, strict=True):
                G[term] = G[term] + change * gram[columns, columns]
        return G

    def _chain(self, mapped: _Map, G: list[FloatArray], size: int) -> tuple[FloatArray, FloatArray]:
        """Gradient in x, and the Jacobian of the covariance elements in x."""
        templates = self.problem.templates
        gradient = np.zeros(size)
        J = np.zeros((templates.n_theta, size))
        for i, t, dM in mapped.dM:
            half = dM @ mapped.M[t].T
            gradient[i] += 2.0 * float(np.sum(G[t] * half))
            change = half + half.T
            template = templates.templates[t]
            J[templates.slices[t], i] += template.coefficients(change)
        return gradient, J

    @staticmethod
    def _add_curvature(hessian: FloatArray, mapped: _Map, G: list[FloatArray]) -> None:
        """The part of the Hessian from the curvature of Sigma = M M'; exact."""
        for i, t, dM in mapped.dM:
            moved = 2.0 * G[t] @ dM
            for j, other, dN in mapped.dM:
                if other == t:
                    hessian[i, j] += float(np.sum(moved * dN))
        for i, j, t, d2M in mapped.second:
            hessian[i, j] += 2.0 * float(np.sum((G[t] @ mapped.M[t]) * d2M))

    def _slope(
        self,
        criterion: CovarianceCriterion,
        v: float,
        point: Point,
        mapped: _Map,
        G: list[FloatArray],
        sigma2: float,
    ) -> float:
        """Derivative of the minimum in v (envelope theorem)."""
        if self.parameter.kind == "sigma":
            return (2.0 * criterion.df - 2.0 * point.r2 / sigma2) / v
        if self.parameter.kind == "fixed":
            return self._fixed_slope(v, point) / sigma2
        return sum(2.0 * float(np.sum((G[t] @ mapped.M[t]) * dM)) for t, dM in mapped.dv)

    def _fixed_slope(self, v: float, point: Point) -> float:
        """Derivative of r2 in the held coefficient: -2 x'V^-1 (y - X beta)."""
        beta = self.free @ point.beta + self._along(v) * self.held
        b, _ = point.swept.back_substitute(point.border, np.append(-point.beta, 1.0)[:, None])
        p = self.problem.n_fixed
        column = self.held @ self.problem.base.corner[:p] @ np.append(-beta, 1.0)
        for border, modes in zip(self.problem.base.border, b, strict=True):
            column -= float((border[:, :p] @ self.held) @ modes[:, 0])
        return -2.0 * float(column) / self.length


def make_constrained(problem: Problem, reml: bool, parameter: Parameter) -> Constrained:
    """The constrained criterion of one parameter.

    Parameters
    ----------
    problem : Problem
    reml : bool
        Must be False for a fixed effect, whose restricted likelihood does not depend on it.
    parameter : Parameter
    """
    return Constrained(CovarianceCriterion(problem, reml), parameter)


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
        super().__init__(CovarianceCriterion(fit.problem, reml), parameter, [other.theta_inside for other in minima])
        self.fit = fit
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
        parameter, fit = self.parameter, self.fit
        if parameter.kind == "corr":
            term = fit.design.terms[parameter.term]
            if term.structure == "exchangeable":
                return float(np.arcsin(-1.0 / (term.n_columns - 1))), 0.5 * np.pi
            return -0.5 * np.pi, 0.5 * np.pi
        return (-np.inf if parameter.kind == "fixed" else 0.0), np.inf

    @property
    def guess(self) -> float:
        """Size of a first step where there is no standard error."""
        parameter, fit = self.parameter, self.fit
        unit = 1.0 if parameter.term < 0 else float(self.chart.units[self.chart.held])
        if parameter.kind == "corr":
            return 0.3
        levels = fit.design.terms[parameter.term].n_levels if parameter.term >= 0 else 1
        sigma = 1.0 if parameter.kind == "ratio" else fit.sigma
        return sigma * unit * float(np.sqrt(1.0 / (levels * max(fit.design.n_obs / levels, 1.0) ** 0.5)))

    def _sigma(self, minimum: Minimum) -> float:
        return float(np.exp(minimum.log_sigma)) * self.problem.scaling.y_scale

    def covariances(self, minimum: Minimum) -> list[FloatArray]:
        """Covariances of all terms at a minimum, on the user's scale."""
        factors = self.problem.templates.factors(minimum.theta)
        roots = [self._sigma(minimum) * S @ T for S, T in zip(self.problem.scaling.S, factors, strict=True)]
        return [root @ root.T for root in roots]

    def residual_change(self, minimum: Minimum) -> float:
        """Residual variance there less that of the fit."""
        return self._sigma(minimum) ** 2 * self.problem.scaling.weight_scale - self.fit.sigma**2
