"""The criterion of a generalised model with one parameter held at a value: what a profile minimises.

Each parameter is held in columns of the random effects in which it is simple. With the columns of its term in an order
where the held one comes first, and only scaled, the factor of their covariance is S T with S diagonal, so that

    sd of the first column      T[0, 0] = v / S[0, 0]
    correlation of the first    T[1, 0] = r sin(v),  T[1, 1] = r cos(v)        (v the arc sine of the correlation)
    two columns

and everything else stays free. A fixed effect or a threshold is a linear condition, which an orthogonal basis solves;
the dispersion is one coordinate. So all constrained minima are unconstrained ones in coordinates x, with
phi = phi(x, v) and the gradient that of the criterion times A = dphi/dx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.engine.generalised.criteria import JointCriterion
from lme4py.engine.generalised.descent import minimise_scaled, off_limit
from lme4py.engine.generalised.laplace import FLAT_MODE, Laplace, is_at_pole
from lme4py.engine.generalised.nested_quadrature import make_quadrature
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.optimise import Control, Local, Optimum
from lme4py.errors import DesignError, OptionError
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.refit import other_minima
from lme4py.fits.holding import Minimum
from lme4py.fits.parameters import Parameter
from lme4py.linalg.small import lower_factor
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["GlmmConstrained", "covariances_of"]

# A minimum is good to this; the signed root of a limit (about 2) then to a quarter of it.
_TOLERANCE = 1e-7
# A first step where there is no standard error, in units of a column of unit size.
_GUESS = 0.3
# Points whose modes are kept as starts.
_KEPT = 8


def covariances_of(problem: GlmmProblem, phi: FloatArray) -> list[FloatArray]:
    """Covariances of all terms on the user's scale."""
    T = problem.templates.factors(phi[: problem.n_theta])
    roots = [S @ t for S, t in zip(problem.S, T, strict=True)]
    return [root @ root.T for root in roots]


@dataclass(frozen=True)
class _Place:
    """phi at coordinates x and v, with its derivatives A (r, r - 1) in x and `along` (r,) in v."""

    phi: FloatArray
    A: FloatArray
    along: FloatArray


class _Chart:
    """The problem in which a parameter is simple, and the coordinates of everything else.

    Parameters
    ----------
    fit : GeneralisedFit
    parameter : Parameter
    """

    def __init__(self, fit: GeneralisedFit, parameter: Parameter) -> None:
        self.parameter = parameter
        self.problem = fit.problem
        self.phi = fit.phi
        self.moved = False
        if parameter.term >= 0:
            term = fit.design.terms[parameter.term]
            if term.structure == "unstructured" and term.n_columns > 1:
                self._reorder(fit, term)
        self.size = self.phi.size
        self.unit = 1.0
        if parameter.kind in ("sd", "corr"):
            self._place_variance()
        elif parameter.kind in ("sigma", "dispersion"):
            self._place_dispersion()
        else:
            self._place_linear()

    def _reorder(self, fit: GeneralisedFit, term: RandomTerm) -> None:
        parameter, t = self.parameter, self.parameter.term
        first = [parameter.first] if parameter.kind == "sd" else [parameter.first, parameter.second]
        order = first + [i for i in range(term.n_columns) if i not in first]
        self.problem = _with_columns(fit, t, np.array(order))
        self.moved = True
        self.phi = self.inside(fit, fit.phi)

    def inside(self, fit: GeneralisedFit, phi: FloatArray) -> FloatArray:
        """Parameters of the fit's problem as those of the chart's."""
        if not self.moved:
            return phi
        t, theta = self.parameter.term, []
        for i, T in enumerate(fit.problem.templates.factors(phi[: fit.problem.n_theta])):
            template = fit.problem.templates.templates[i]
            moved: FloatArray = np.asarray(np.linalg.solve(self.problem.S[t], fit.problem.S[t] @ T)) if i == t else T
            theta.append(template.theta(lower_factor(moved) if i == t else T))
        return np.concatenate([*theta, phi[fit.problem.n_theta :]])

    def _place_variance(self) -> None:
        problem, parameter = self.problem, self.parameter
        place = problem.templates.slices[parameter.term]
        template = problem.templates.templates[parameter.term]
        S = problem.S[parameter.term]
        # S is diagonal, up to the order of its rows, or (tied effects) a multiple of an orthogonal matrix.
        self.unit = float(np.linalg.norm(S[:, 0 if self.moved else parameter.first]))
        self.index = place.start + (parameter.first if template.structure == "diagonal" else 0)
        self.tied = template.n_theta == 2 and template.structure == "tied"
        self.columns = template.size
        if parameter.kind == "corr":
            self.pair = [place.start + 1, place.start + template.size]
        if self.tied:
            self.pair = [place.start, place.start + 1]

    def _place_dispersion(self) -> None:
        """v = exp(lambda / power), which is zero at the limit of the dispersion."""
        self.index = self.problem.n_theta + self.problem.n_fixed
        self.power = 2.0 if self.parameter.kind == "sigma" else -1.0 if self.parameter.reciprocal else 1.0
        self.unit = float(np.exp(self.problem.lambda_inwards(1.0) / self.power))

    def _place_linear(self) -> None:
        """The parameter as a'(beta, thresholds), and an orthogonal basis whose other vectors leave it alone."""
        problem, parameter = self.problem, self.parameter
        m, p = problem.n_theta, problem.n_fixed
        self.a = np.zeros(self.size - m)
        if parameter.kind == "fixed":
            self.a[:p] = problem.C[parameter.first]
        else:
            row = problem.family.A[parameter.first]
            self.a[p:] = row
            if problem.shift is not None:
                self.a[:p] = -float(row @ problem.family.constant) * problem.shift
        basis = np.linalg.qr(np.column_stack([self.a, np.eye(self.a.size)]))[0]
        self.across = basis[:, 1:]

    def value(self, phi: FloatArray) -> float:
        """The coordinate of the parameter."""
        kind = self.parameter.kind
        if kind in ("sigma", "dispersion"):
            lam = float(phi[self.index])
            return 0.0 if self.problem.at_limit(lam) else float(np.exp(lam / self.power))
        if kind not in ("sd", "corr"):
            return float(self.a @ phi[self.problem.n_theta :])
        if not self.tied:
            if kind == "sd":
                return float(abs(phi[self.index]) * self.unit)
            return float(np.arctan2(*phi[self.pair]))
        k = self.columns
        large, small = phi[self.pair] ** 2
        if kind == "sd":
            return self.unit * float(np.sqrt((large + (k - 1.0) * small) / k))
        return float(np.arcsin((large - small) / (large + (k - 1.0) * small)))

    def start(self, phi: FloatArray) -> FloatArray:
        """Free coordinates of a point."""
        kind, m = self.parameter.kind, self.problem.n_theta
        if kind in ("fixed", "threshold"):
            return np.concatenate([phi[:m], self.across.T @ phi[m:]])
        if kind in ("sigma", "dispersion") or (kind == "sd" and not self.tied):
            return np.delete(phi, self.index)
        first, second = self.pair
        out = phi.copy()
        if not self.tied:
            out[first] = np.hypot(phi[first], phi[second])
        elif kind == "sd":
            out[first] = np.arctan2(phi[first], phi[second] * np.sqrt(self.columns - 1.0))
        else:
            out[first] = np.sqrt((phi[first] ** 2 + (self.columns - 1.0) * phi[second] ** 2) / self.columns)
        return np.delete(out, second)

    def place(self, x: FloatArray, v: float) -> _Place:
        """phi at coordinates x with the parameter at v, and its derivatives."""
        kind, size, m = self.parameter.kind, self.size, self.problem.n_theta
        along = np.zeros(size)
        if kind in ("fixed", "threshold"):
            along[m:] = self.a / float(self.a @ self.a)
            A = np.zeros((size, size - 1))
            A[:m, :m] = np.eye(m)
            A[m:, m:] = self.across
            return _Place(v * along + A @ x, A, along)
        if kind in ("sigma", "dispersion"):
            lam = self.problem.limit_lambda if v <= 0.0 else self.power * float(np.log(v))
            if self.problem.beyond_limit(lam):
                lam = self.problem.limit_lambda
            along[self.index] = self.power / v if v > 0.0 else 0.0
            return self._inserted(x, lam, along)
        if kind == "sd" and not self.tied:
            along[self.index] = 1.0 / self.unit
            return self._inserted(x, v / self.unit, along)
        return self._turned(x, v)

    def _inserted(self, x: FloatArray, value: float, along: FloatArray) -> _Place:
        A = np.delete(np.eye(self.size), self.index, axis=1)
        return _Place(np.insert(x, self.index, value), A, along)

    def _turned(self, x: FloatArray, v: float) -> _Place:
        """Two theta as functions of one coordinate and v."""
        first, second = self.pair
        own = float(x[first])
        values, by_x, by_v = self._two(own, v)
        phi = np.insert(x, second, 0.0)
        A = np.delete(np.eye(self.size), second, axis=1)
        along = np.zeros(self.size)
        phi[self.pair], A[self.pair, first], along[self.pair] = values, by_x, by_v
        return _Place(phi, A, along)

    def _two(self, x: float, v: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Two theta and their derivatives in x and v."""
        if not self.tied:
            direction, turned = np.array([np.sin(v), np.cos(v)]), np.array([np.cos(v), -np.sin(v)])
            return x * direction, direction, x * turned
        k = self.columns
        if self.parameter.kind == "sd":
            size = np.sqrt(k) / self.unit * np.array([1.0, 1.0 / np.sqrt(k - 1.0)])
            direction = size * np.array([np.sin(x), np.cos(x)])
            return v * direction, v * size * np.array([np.cos(x), -np.sin(x)]), direction
        rho = float(np.sin(v))
        roots = np.sqrt(np.maximum([1.0 + (k - 1.0) * rho, 1.0 - rho], 0.0))
        # d sqrt(1 - sin v) = -sqrt(1 + sin v) / 2, also where the root is zero.
        change = np.array([0.5 * (k - 1.0) * np.cos(v) / max(roots[0], 1e-150), -0.5 * np.sqrt(1.0 + rho)])
        return x * roots, roots, x * change


def _with_columns(fit: GeneralisedFit, t: int, order: IntArray) -> GlmmProblem:
    """The problem with the columns of one term in another order and only scaled."""
    problem = fit.problem
    term = fit.design.terms[t]
    sizes = np.sqrt(np.mean(term.values**2, axis=0))[order]
    sizes = np.where(sizes > 0, sizes, 1.0)
    S = list(problem.S)
    S[t] = np.eye(term.n_columns)[:, order] / sizes
    codes = tuple(fit.design.terms[factor.terms[0]].codes for factor in problem.factors)
    columns = tuple(np.hstack([fit.design.terms[i].values @ S[i] for i in factor.terms]) for factor in problem.factors)
    products = WeightedProducts(codes, columns, problem.factors)
    return replace(problem, S=tuple(S), products=products)


class GlmmConstrained:
    """Minimum over everything else with one parameter held.

    Parameters
    ----------
    fit : GeneralisedFit
        With nAGQ >= 1.
    parameter : Parameter

    Attributes
    ----------
    estimate : Minimum
        The unconstrained minimum; its coordinate `v` is that of the parameter there.
    others : list of Minimum
        Other local minima without the constraint: each constrained minimum is looked for from there too.
    """

    ends = True
    reml = False

    def __init__(self, fit: GeneralisedFit, parameter: Parameter) -> None:
        self.parameter = parameter
        self.chart = _Chart(fit, parameter)
        self.problem = self.chart.problem
        finder = ModeFinder(self.problem)
        refine = make_quadrature(finder, fit.nAGQ) if fit.nAGQ != 1 else None
        self.criterion = JointCriterion(finder, refine)
        self._points: list[tuple[FloatArray, Laplace]] = []
        self._correction: FloatArray | None = None
        self._others: list[tuple[Minimum, Laplace]] = []
        self.estimate = self._unconstrained(fit)
        for other in other_minima(fit):
            self._add(self.chart.inside(fit, other.phi))

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the coordinate."""
        if self.parameter.kind == "corr":
            return -0.5 * np.pi, 0.5 * np.pi
        return (-np.inf if self.parameter.kind in ("fixed", "threshold") else 0.0), np.inf

    @property
    def guess(self) -> float:
        """Size of a first step where there is no standard error."""
        return _GUESS * (1.0 if self.parameter.kind in ("fixed", "threshold", "corr") else self.chart.unit)

    def covariances(self, minimum: Minimum) -> list[FloatArray]:
        """Covariances of all terms at a minimum, on the user's scale."""
        return covariances_of(self.problem, minimum.theta)

    def residual_change(self, minimum: Minimum) -> float:
        """0: a residual variance is a part of the family."""
        return 0.0

    @property
    def others(self) -> list[Minimum]:
        return [minimum for minimum, _ in self._others]

    def _add(self, phi: FloatArray) -> None:
        self.criterion.base, self.criterion.best = None, np.inf
        there = self.criterion.evaluate(phi)
        if there is not None:
            minimum = Minimum(self.chart.value(phi), self.chart.start(phi), there[1], 0.0, phi, 0.0, 0)
            self._others.append((minimum, there[0]))

    def _unconstrained(self, fit: GeneralisedFit) -> Minimum:
        phi, value = self.chart.phi, fit.criterion
        if fit.nAGQ != 1 and self.chart.moved:
            # The nodes lie along other axes: the rule has another error, and its minimum is elsewhere by as much.
            found = minimise_scaled(self.criterion.local, phi, Control(max_evaluations=100, tolerance=1e-9))
            phi, value = found.theta, found.value
        elif self.criterion.evaluate(phi) is None:
            raise OptionError("the criterion has no value at the estimates; use method='wald' or 'boot'.")
        if self.criterion.base is not None:
            self._points.append((phi, self.criterion.base))
        return Minimum(self.chart.value(phi), self.chart.start(phi), value, 0.0, phi, 0.0, 0)

    def minimum(self, v: float, x: FloatArray) -> Minimum:
        """Minimise from the coordinates x.

        Parameters
        ----------
        v : float
            On the user's scale; the arc sine of a correlation.
        x : ndarray

        Raises
        ------
        DesignError
            The criterion has no value there.
        """
        start = self.chart.place(x, v)
        if not x.size:
            return self._without_others(v, start)
        nearest = min(self._points, key=lambda point: float(np.abs(point[0] - start.phi).max()))
        self.criterion.base, self.criterion.best = nearest[1], np.inf
        found = self._lowest(v, x)
        (laplace, _, gradient), plain, place = found.source
        self._correction = found.hessian - plain
        self._points = [*self._points[-_KEPT:], (place.phi, laplace)]
        return Minimum(v, found.theta, found.value, float(gradient @ place.along), place.phi, 0.0, len(found.log))

    def _lowest(self, v: float, x: FloatArray) -> Optimum:
        """From x, and from other minima that are low enough to lead lower."""
        found = self._descended(v, x)
        for minimum, laplace in self._others:
            if minimum.value < found.value:
                self.criterion.base, self.criterion.best, self._correction = laplace, np.inf, None
                try:
                    other = self._descended(v, minimum.x)
                except DesignError:
                    continue
                found = other if other.value < found.value - 10.0 * _TOLERANCE else found
        return found

    def _descended(self, v: float, x: FloatArray) -> Optimum:
        """From x, and off the limit of a dispersion where the criterion falls from it."""
        control = Control(max_evaluations=60, tolerance=_TOLERANCE)
        found = minimise_scaled(self._local(v), x, control)
        if is_at_pole(found.source[0][0]):
            raise DesignError(FLAT_MODE)
        if self.parameter.kind in ("sigma", "dispersion"):
            return found
        inside = off_limit(self.criterion, found.source[2].phi)
        return found if inside is None else minimise_scaled(self._local(v), self.chart.start(inside), control)

    def _without_others(self, v: float, place: _Place) -> Minimum:
        """The criterion where nothing else is free."""
        here = self.criterion.evaluate(place.phi)
        if here is None:
            raise DesignError("the criterion has no value there.")
        return Minimum(v, np.zeros(0), here[1], float(here[2] @ place.along), place.phi, 0.0, 1)

    def _local(self, v: float) -> Callable[[FloatArray], Local | None]:
        def local(x: FloatArray) -> Local | None:
            place = self.chart.place(x, v)
            here = self.criterion.local(place.phi)
            if here is None:
                return None
            plain = place.A.T @ here.hessian @ place.A
            model = plain if self._correction is None else plain + self._correction
            return Local(x, here.value, place.A.T @ here.gradient, model, (here.source, plain, place))

        return local
