"""The likelihood of a model with a residual structure with one parameter held at a value: what a profile minimises.

A held coefficient is a linear change of the columns [X y]. A held standard deviation or correlation is a choice of
coordinates of its structure (`lme4py.covariance.holding`), which par is a smooth function of: its derivatives are
taken by differences, which cost no evaluation of the likelihood, whose own ones are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.holding import Holding
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.engine.optimise import Control, Local, minimise
from lme4py.errors import DesignError
from lme4py.fits.answers.holding import Minimum
from lme4py.fits.parameters import Parameter, fit_values, profile_range
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.problem import make_problem
from lme4py.linalg.held_direction import HeldDirection
from lme4py.linalg.types import FloatArray

__all__ = ["ResidualHolding"]

_STEP, _BEND = 1e-5, 1e-3
_CONTROL = Control(max_evaluations=100, tolerance=1e-9)


@dataclass(frozen=True)
class _Block:
    """The structure that has the held parameter: its place in par, and coordinates of it."""

    structure: CovarianceStructure
    holding: Holding
    place: slice
    term: int

    def about(self, theta: FloatArray) -> _Block:
        """The same with coordinates that are good about theta on the user's scale."""
        turned = self._turned(self.structure, theta, self.holding.structure, self.holding.order)
        return replace(self, holding=self.holding.about(turned))

    def start(self, theta: FloatArray) -> FloatArray:
        """Free coordinates from theta on the user's scale."""
        return self.holding.start(self._turned(self.structure, theta, self.holding.structure, self.holding.order))

    def theta(self, x: FloatArray, s: float) -> FloatArray:
        """theta on the user's scale."""
        back = np.argsort(self.holding.order)
        return self._turned(self.holding.structure, self.holding.theta(x, s).value, self.structure, back)

    @staticmethod
    def _turned(old: CovarianceStructure, theta: FloatArray, new: CovarianceStructure, order: np.ndarray) -> FloatArray:
        if np.array_equal(order, np.arange(order.size)):
            return theta
        return new.theta_of_factor(old.factor(theta)[order])


def _in_user_columns(fit: ResidualFit) -> ResidualFit:
    """The same fit, whose parameters inside belong to the columns of the variance as they are.

    There sigma, the standard deviation at their origin, is a parameter of the residual structure alone.
    """
    part = replace(fit.residual.part, log_scale=fit.residual.part.user_columns, centre=None, unit=None)
    residual = replace(fit.residual, part=part)
    problem = make_problem(fit.design, residual, fit.reml)
    par = problem.to_inside(fit.theta)
    point = problem.criterion.evaluate(par)
    if point is None:
        raise DesignError(
            "the likelihood cannot be evaluated with the residual standard deviation at the origin of the covariates "
            "of the variance as a parameter; take their means off them for a profile of sigma."
        )
    hessian = problem.criterion.derivatives(point)[1]
    return replace(fit, residual=residual, problem=problem, par=par, hessian=hessian)


class ResidualHolding:
    """The likelihood of a fit with one parameter held.

    Parameters
    ----------
    fit : ResidualFit
        By maximum likelihood where `reml` is False.
    parameter : Parameter
    reml : bool
        Which criterion.
    """

    def __init__(self, fit: ResidualFit, parameter: Parameter, reml: bool) -> None:
        if parameter.kind == "sigma" and fit.residual.part.centre is not None:
            fit = _in_user_columns(fit)
        self.fit, self.parameter, self.reml = fit, parameter, reml
        self.criterion = fit.problem.criterion
        self.ends = parameter.kind not in ("sigma", "fixed")
        self.block = None if parameter.kind == "fixed" else self._block()
        if parameter.kind == "fixed":
            scaling = self.criterion.scaling
            a = scaling.y_scale * scaling.C[parameter.first]
            self.direction = HeldDirection(a, float(scaling.beta[parameter.first]))
        value = float(fit_values(fit, [parameter])[0])
        v = float(np.arcsin(value)) if parameter.kind == "corr" else value
        self.unit = np.ones(fit.par.size - (self.block is not None))
        x = self._start()
        self.unit = self._units(x, v)
        self.estimate = Minimum(v, x / self.unit, fit.criterion, 0.0, fit.par, 0.0, 0)
        self.others: list[Minimum] = []

    def _block(self) -> _Block:
        model, t = self.criterion.model, self.parameter.term
        if t >= 0:
            structure = self.fit.design.terms[t].structure
            return _Block(structure, structure.hold(self.parameter.natural), model.slices[t], t)
        structure = self.fit.residual.part.structures[0]
        return _Block(
            structure,
            structure.hold(structure.natural_place("sd", ())),
            self.fit.problem.residual_slice(0),
            -1,
        )

    # --- coordinates ------------------------------------------------------------------------------------------------

    def _start(self) -> FloatArray:
        """Free coordinates of the fit."""
        par = self.fit.par
        if self.block is None:
            return par
        place, theta = self.block.place, self._to_user(par[self.block.place])
        self.block = self.block.about(theta)
        own = self.block.start(theta)
        return np.concatenate([par[: place.start], own, par[place.stop :]])

    def _to_user(self, par: FloatArray) -> FloatArray:
        assert self.block is not None
        if self.block.term >= 0:
            return self.fit.problem.theta_of_term(self.block.term, par)
        return self.block.structure.scaled(par, self.criterion.scaling.y_scale)

    def _par(self, x: FloatArray, v: float) -> FloatArray:
        """par at free coordinates and the held value."""
        if self.block is None:
            return x
        block, d = self.block, self.block.holding.size
        first = block.place.start
        theta = block.theta(x[first : first + d], v)
        if block.term >= 0:
            own = self.fit.problem.par_of_term(block.term, theta)
        else:
            own = block.structure.scaled(theta, 1.0 / self.criterion.scaling.y_scale)
        return np.concatenate([x[:first], own, x[first + d :]])

    def _units(self, x: FloatArray, v: float) -> FloatArray:
        """What the free coordinates are counted in, so that the likelihood is round in them."""
        found = self._local(x, v)
        if found is None or not x.size:
            return np.ones(x.size)
        curves = np.abs(found.hessian.diagonal())
        return np.asarray(1.0 / np.sqrt(np.maximum(curves, 1e-8 * max(float(curves.max()), 1e-300))))

    def _criterion(self, v: float) -> MarginalCriterion:
        if self.block is not None:
            return self.criterion
        return self.criterion.with_columns(self.direction.columns(v))

    # --- minima -----------------------------------------------------------------------------------------------------

    def minimum(self, v: float, x: FloatArray) -> Minimum:
        """Minimise over everything else from the coordinates x.

        Parameters
        ----------
        v : float
            On the user's scale; the arc sine of a correlation.
        x : ndarray
        """
        criterion = self._criterion(v)

        def local(scaled: FloatArray) -> Local | None:
            return self._local(scaled * self.unit, v, criterion)

        if not x.size:
            found = local(x)
            if found is None:
                raise DesignError("the likelihood cannot be evaluated at this value.")
            at, value, count = x, found.value, 1
        else:
            best = minimise(local, x, _CONTROL, learn=_nothing)
            at, value, count = best.theta, best.value, len(best.log)
        par = self._par(at * self.unit, v)
        slope = self._slope(criterion, at * self.unit, v)
        return Minimum(v, at, self.criterion.value_outside(value), slope, par, 0.0, count)

    def _local(self, x: FloatArray, v: float, criterion: MarginalCriterion | None = None) -> Local | None:
        """The criterion with its derivatives in the coordinates, in their units."""
        own = self._criterion(v) if criterion is None else criterion
        par = self._par(x, v)
        point = own.evaluate(par) if np.isfinite(par).all() else None
        if point is None:
            return None
        gradient, hessian = own.derivatives(point)
        if self.block is not None:
            J = self._jacobian(x, v)
            bend = self._bend(x, v, gradient)
            gradient, hessian = J @ gradient, J @ hessian @ J.T + bend
        u = self.unit
        return Local(x / u, point.value, gradient * u, hessian * np.outer(u, u), point)

    def _own(self) -> range:
        """Free coordinates that par is no identity in."""
        assert self.block is not None
        first = self.block.place.start
        return range(first, first + self.block.holding.size)

    def _jacobian(self, x: FloatArray, v: float) -> FloatArray:
        """d par / dx, (d, m)."""
        assert self.block is not None
        m, place = self.fit.par.size, self.block.place
        J = np.zeros((x.size, m))
        before = np.arange(place.start)
        J[before, before] = 1.0
        after = np.arange(place.stop, m)
        J[after - 1, after] = 1.0
        for i in self._own():
            step = np.zeros(x.size)
            step[i] = _STEP * max(abs(float(x[i])), self._size(i))
            J[i] = (self._par(x + step, v) - self._par(x - step, v)) / (2.0 * step[i])
        return J

    def _size(self, i: int) -> float:
        return float(self.unit[i]) if self.unit.size and self.unit[i] != 1.0 else 0.1

    def _bend(self, x: FloatArray, v: float, gradient: FloatArray) -> FloatArray:
        """sum_k g_k d2 par_k / dx dx', (d, d)."""
        out = np.zeros((x.size, x.size))
        steps = {}
        for i in self._own():
            steps[i] = np.zeros(x.size)
            steps[i][i] = _BEND * max(abs(float(x[i])), self._size(i))
        for i, a in steps.items():
            for j, b in steps.items():
                if j <= i:
                    corners = [self._par(x + p * a + q * b, v) @ gradient * p * q for p in (-1, 1) for q in (-1, 1)]
                    out[i, j] = out[j, i] = sum(corners) / (4.0 * a[i] * b[j])
        return out

    def _slope(self, criterion: MarginalCriterion, x: FloatArray, v: float) -> float:
        """Derivative of the minimum in v (envelope theorem)."""
        point = criterion.evaluate(self._par(x, v))
        assert point is not None
        if self.block is None:
            return self._fixed_slope(v, point.par, point.beta)
        step = _STEP * max(abs(v), 1e-3 * abs(self.estimate.v) or 1e-3)
        low = v - step if v - step > 0.0 or self.parameter.kind == "corr" else v
        along = (self._par(x, v + step) - self._par(x, low)) / (v + step - low)
        return float(criterion.derivatives(point)[0] @ along)

    def _fixed_slope(self, v: float, par: FloatArray, free: FloatArray) -> float:
        """-2 x'V^-1 (y - X beta), x the direction that is held."""
        beta, held = self.direction.beta(v, free), self.direction.held
        point = self.criterion.evaluate(par, derivatives=False)
        assert point is not None
        total = 0.0
        for batch, inverse in zip(self.criterion.batches, point.inverse, strict=True):
            own = inverse[batch.of_class]
            left = own @ (batch.data[..., -1] - batch.data[..., :-1] @ beta)[..., None]
            total += float(np.sum((own @ (batch.data[..., :-1] @ held)[..., None]) * left))
        return -2.0 * total / self.direction.length

    # --- what a profile asks ------------------------------------------------------------------------------------------

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the coordinate."""
        if self.parameter.term < 0:
            return (-np.inf if self.parameter.kind == "fixed" else 0.0), np.inf
        return profile_range(self.fit.design, self.parameter)

    @property
    def guess(self) -> float:
        """Size of a first step where there is no standard error."""
        if self.parameter.kind == "corr":
            return 0.3
        scale = float(np.median(self.fit.residual_sd))
        return scale / float(np.sqrt(np.sqrt(self.fit.design.n_obs)))

    def covariances(self, minimum: Minimum) -> list[FloatArray]:
        """Covariances of all terms at a minimum, on the user's scale."""
        return list(self.fit.problem.covariances(minimum.theta))

    def residual_change(self, minimum: Minimum) -> float:
        """Residual variance there less that of the fit; 0 where rows have none in common."""
        if not self.fit.has_residual:
            return 0.0
        first = self.fit.problem.residual_sd(minimum.theta)[0] / self.fit.residual_sd[0]
        return float(self.fit.sigma**2 * (first**2 - 1.0))


def _nothing(*_: object) -> None:
    """The Hessian is known: there is nothing to learn from a step."""
