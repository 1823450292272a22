"""The criterion of a generalised model with one parameter held at a value: what a profile minimises.

Each parameter is held in columns of the random effects in which it is simple: with the columns of its term in an order
that their covariance structure chooses, and only scaled, the parameter is one of the structure's own
(`lme4py.covariance.holding`), and everything else stays free. A fixed effect or a threshold is a linear condition,
which an orthogonal basis solves; the dispersion is one coordinate. So all constrained minima are unconstrained ones in
coordinates x, with phi = phi(x, v) and the gradient that of the criterion times A = dphi/dx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lme4py.covariance import CovarianceStructures
from lme4py.covariance.holding import Holding
from lme4py.engine.generalised.criteria import JointCriterion, off_limit
from lme4py.engine.generalised.descent import minimise_scaled
from lme4py.engine.generalised.integrals.nested_quadrature import refinement
from lme4py.engine.generalised.laplace import Laplace, flat_mode, is_at_pole
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.optimise import Control, Local, Optimum
from lme4py.errors import DesignError, OptionError
from lme4py.fits.answers.holding import Minimum
from lme4py.fits.generalised.fit import GeneralisedFit, covariances_of
from lme4py.fits.generalised.refit import other_minima
from lme4py.fits.parameters import Parameter, profile_range
from lme4py.linalg.types import FloatArray

__all__ = ["GlmmConstrained"]

# A minimum is good to this; the signed root of a limit (about 2) then to a quarter of it.
_TOLERANCE = 1e-7
# A first step where there is no standard error, in units of a column of unit size.
_GUESS = 0.3
# Points whose modes are kept as starts.
_KEPT = 8


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
        self.unit = 1.0
        self.holding: Holding | None = None
        if parameter.term >= 0:
            self._hold(fit)
        self.size = self.phi.size
        if parameter.kind in ("sigma", "dispersion"):
            self._place_dispersion()
        elif self.holding is None:
            self._place_linear()

    def _hold(self, fit: GeneralisedFit) -> None:
        """Columns of the term in which the parameter is one of the structure's own, on another scale."""
        parameter, t = self.parameter, self.parameter.term
        structure = fit.problem.structures.each[t].user
        natural = structure.natural_parameters[parameter.natural]
        holding = structure.hold(parameter.natural)
        own = fit.problem.S[t]
        if np.count_nonzero(own - np.diag(own.diagonal())) or (np.diff(holding.order) < 0).any():
            self.problem = _with_columns(fit, t, holding)
            self.moved = True
            self.phi = self.inside(fit, fit.phi)
        self.own = self.problem.structures.slices[t]
        self.holding = holding.about(self.phi[self.own])
        if natural.relative:
            # The rows of S are those of the user's columns.
            self.unit = float(np.linalg.norm(self.problem.S[t][natural.columns[0] if natural.columns else 0]))

    def inside(self, fit: GeneralisedFit, phi: FloatArray) -> FloatArray:
        """Parameters of the fit's problem as those of the chart's."""
        if not self.moved:
            return phi
        t, m = self.parameter.term, fit.problem.n_theta
        parts = fit.problem.structures.split(phi[:m])
        change = np.asarray(np.linalg.solve(self.problem.S[t], fit.problem.S[t]))
        parts[t] = fit.problem.structures.each[t].user.to_user(parts[t], change)
        return np.concatenate([*parts, phi[m:]])

    def _place_dispersion(self) -> None:
        """v = exp(lambda / power), which is zero at the limit of the dispersion."""
        self.index = self.size - 1
        self.power = 2.0 if self.parameter.kind == "sigma" else -1.0 if self.parameter.reciprocal else 1.0
        self.unit = float(np.exp(self.problem.lambda_inwards(1.0) / self.power))

    def _place_linear(self) -> None:
        """The parameter as a'(beta, thresholds), and an orthogonal basis whose other vectors leave it alone."""
        problem, parameter = self.problem, self.parameter
        m, p = problem.n_theta, problem.n_fixed
        self.a = np.zeros(self.size - m)
        if parameter.kind == "fixed":
            self.a[:p] = problem.C[parameter.first]
        elif parameter.kind == "other":
            self.a[p + parameter.first] = 1.0
        else:
            row = problem.family.user_matrix[problem.family.n_coefficients + parameter.first]
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
        if self.holding is not None:
            return self.unit * self.holding.value(phi[self.own])
        return float(self.a @ phi[self.problem.n_theta :])

    def start(self, phi: FloatArray) -> FloatArray:
        """Free coordinates of a point."""
        kind, m = self.parameter.kind, self.problem.n_theta
        if kind in ("fixed", "threshold", "other"):
            return np.concatenate([phi[:m], self.across.T @ phi[m:]])
        if self.holding is None:
            return np.delete(phi, self.index)
        return np.concatenate([phi[: self.own.start], self.holding.start(phi[self.own]), phi[self.own.stop :]])

    def place(self, x: FloatArray, v: float) -> _Place:
        """phi at coordinates x with the parameter at v, and its derivatives."""
        kind, size, m = self.parameter.kind, self.size, self.problem.n_theta
        along = np.zeros(size)
        if kind in ("fixed", "threshold", "other"):
            along[m:] = self.a / float(self.a @ self.a)
            A = np.zeros((size, size - 1))
            A[:m, :m] = np.eye(m)
            A[m:, m:] = self.across
            return _Place(v * along + A @ x, A, along)
        if kind in ("sigma", "dispersion"):
            lam = self.problem.end_of_dispersion if v <= 0.0 else self.power * float(np.log(v))
            if self.problem.beyond_limit(lam):
                lam = self.problem.end_of_dispersion
            along[self.index] = self.power / v if v > 0.0 else 0.0
            return self._inserted(x, lam, along)
        if self.holding is None:
            raise TypeError(f"a parameter of kind {kind!r} has no place")
        return self._held(self.holding, x, v)

    def _inserted(self, x: FloatArray, value: float, along: FloatArray) -> _Place:
        A = np.delete(np.eye(self.size), self.index, axis=1)
        return _Place(np.insert(x, self.index, value), A, along)

    def _held(self, holding: Holding, x: FloatArray, v: float) -> _Place:
        """The theta of the term as functions of its own coordinates and v."""
        start, stop, d = self.own.start, self.own.stop, holding.size
        jet = holding.theta(x[start : start + d], v / self.unit)
        phi = np.concatenate([x[:start], jet.value, x[start + d :]])
        A, along = np.zeros((self.size, x.size)), np.zeros(self.size)
        A[:start, :start], A[stop:, start + d :] = np.eye(start), np.eye(self.size - stop)
        A[start:stop, start : start + d], along[start:stop] = jet.first[:d].T, jet.first[d] / self.unit
        return _Place(phi, A, along)


def _with_columns(fit: GeneralisedFit, t: int, holding: Holding) -> GlmmProblem:
    """The problem with the columns of one term in another order and only scaled."""
    problem, order = fit.problem, holding.order
    term = fit.design.terms[t]
    sizes = np.sqrt(np.mean(term.values**2, axis=0))[order]
    if term.structure.shares_variance:
        sizes = np.full(sizes.size, np.sqrt(np.mean(sizes**2)))
    sizes = np.where(sizes > 0, sizes, 1.0)
    structures = list(problem.structures.each)
    structures[t] = holding.structure
    S = list(problem.S)
    S[t] = np.eye(term.n_columns)[:, order] / sizes
    codes = tuple(fit.design.terms[factor.terms[0]].codes for factor in problem.factors)
    columns = tuple(np.hstack([fit.design.terms[i].values @ S[i] for i in factor.terms]) for factor in problem.factors)
    named = problem.family.stacked
    own = [tuple(np.array(fit.design.terms[i].predictors(named))[order if i == t else ...]) for i in range(len(S))]
    places = tuple(tuple(int(p) for i in factor.terms for p in own[i]) for factor in problem.factors)
    products = WeightedProducts(codes, columns, problem.factors, places=places)
    return replace(problem, S=tuple(S), products=products, structures=CovarianceStructures(tuple(structures)))


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
        refine = refinement(finder, fit.nAGQ)
        self.criterion = JointCriterion(finder, refine)
        self._points: list[tuple[FloatArray, Laplace]] = []
        self._correction: FloatArray | None = None
        self._others: list[tuple[Minimum, Laplace]] = []
        self.design = fit.design
        self.estimate = self._unconstrained(fit)
        for other in other_minima(fit):
            self._add(self.chart.inside(fit, other.phi))

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the coordinate."""
        if self.parameter.term < 0:
            return (-np.inf if self.parameter.kind in ("fixed", "threshold", "other") else 0.0), np.inf
        return profile_range(self.design, self.parameter)

    @property
    def guess(self) -> float:
        """Size of a first step where there is no standard error."""
        return _GUESS * (1.0 if self.parameter.kind in ("fixed", "threshold", "other", "corr") else self.chart.unit)

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
            raise DesignError(flat_mode(self.problem))
        if self.chart.holding is not None:
            self.chart.holding.check_slope(found.steepest)
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
            here = self.criterion.local(place.phi) if np.isfinite(place.phi).all() else None
            if here is None:
                return None
            plain = place.A.T @ here.hessian @ place.A
            model = plain if self._correction is None else plain + self._correction
            return Local(x, here.value, place.A.T @ here.gradient, model, (here.source, plain, place))

        return local
