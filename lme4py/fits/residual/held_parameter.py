"""The likelihood of a model with a residual structure with one parameter of the residuals held at a value.

A standard deviation, correlation or range h(par) = v is a curved surface in the parameters. On it one of them, in which
h moves most, is a function of the others x: with a = dh, B = d2h and J = d par / dx,

    J' = (I, -a_x / a_k),   l = g_k / a_k,   gradient J g,   Hessian J (H - l B) J',   d minimum / dh = l,

where g and H are those of the criterion (Nocedal & Wright 2006, *Numerical Optimization*, section 15.3).
"""

from __future__ import annotations

import numpy as np

from lme4py.covariance.jets import Jet
from lme4py.engine.marginal.criterion import MarginalPoint
from lme4py.engine.optimise import Control, Local, minimise
from lme4py.errors import DesignError
from lme4py.fits.answers.holding import Minimum
from lme4py.fits.parameters import Parameter, fit_values
from lme4py.fits.residual.fit import ResidualFit
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ParameterHolding"]

_CONTROL = Control(max_evaluations=100, tolerance=1e-9)
# So near the end of its range, on the scale without bounds, a parameter is at the end.
_END = 1e-9
_ROUNDS, _CLOSE, _OFF = 60, 1e-13, 1e-3


class ParameterHolding:
    """The likelihood of a fit with one parameter of its residuals held.

    Parameters
    ----------
    fit : ResidualFit
        By maximum likelihood where `reml` is False.
    parameter : Parameter
        Of kind "residual".
    reml : bool
        Which criterion.
    """

    ends = True

    def __init__(self, fit: ResidualFit, parameter: Parameter, reml: bool) -> None:
        self.fit, self.parameter, self.reml = fit, parameter, reml
        self.criterion = fit.problem.criterion
        value = float(fit_values(fit, [parameter])[0])
        self.size = abs(value) or 1.0
        v = float(np.arcsin(value)) if parameter.is_angle else value
        curves = np.abs(fit.hessian.diagonal())
        self.unit = 1.0 / np.sqrt(np.maximum(curves, 1e-8 * float(curves.max())))
        self.estimate = Minimum(v, fit.par, fit.criterion, 0.0, fit.par, 0.0, 0)
        self.others: list[Minimum] = []

    # --- the parameter ----------------------------------------------------------------------------------------------

    def _jet(self, par: FloatArray) -> Jet:
        """The parameter in the user's units, with derivatives in all m parameters inside."""
        m, own = par.size, self.parameter
        value, first, second = 0.0, np.zeros(m), np.zeros((m, m))
        at, sides = self.criterion.model.slices[-1], self.criterion.model.residual
        if own.natural_parameter is None:
            place = at.start + own.second
            first[place] = 1.0 / sides.units[own.second]
            return Jet(par[place] * first[place], first, second)
        part = self.fit.problem.residual_slice(own.first)
        structure = self.criterion.model.residual.structures[own.first]
        jet = structure.natural_derivatives(par[part])
        is_size = own.natural_parameter.kind == "sd"
        unit = self.fit.problem.residual_size(par) if is_size else 1.0
        value = unit * float(jet.value[own.second])
        first[part], second[part, part] = unit * jet.first[:, own.second], unit * jet.second[..., own.second]
        if is_size:
            # `unit` is the exponential of a sum over the coefficients of the variance.
            a = -sides.shifts
            first[at], second[at, at] = value * a, value * np.outer(a, a)
            second[part, at] = np.outer(first[part], a)
            second[at, part] = second[part, at].T
        return Jet(np.asarray(value), first, second)

    def _wanted(self, v: float) -> float:
        """The value of the parameter, just inside its range."""
        natural = self.parameter.natural_parameter
        if natural is None:
            return v
        value = float(np.sin(v)) if self.parameter.is_angle else v
        if np.isfinite(natural.upper):
            edge = _END * (natural.upper - natural.lower)
            return min(max(value, natural.lower + edge), natural.upper - edge)
        return max(value, 1e-6 * self.size)

    def _miss(self, par: FloatArray, k: int, wanted: float) -> tuple[float, float]:
        """How far the held parameter is from a value, on the scale without bounds, and the derivative along k."""
        jet, natural = self._jet(par), self.parameter.natural_parameter
        value, slope = float(jet.value), float(jet.first[k])
        if natural is None:
            return value - wanted, slope
        if not natural.lower < value < natural.upper:
            return np.inf, 0.0
        return natural.unbounded(value) - natural.unbounded(wanted), slope * natural.slope(value)

    def _solved(self, par: FloatArray, k: int, wanted: float) -> FloatArray | None:
        """par with another value of parameter k, at which the held one has its value; None where there is none."""
        found = par.copy()
        miss, slope = self._miss(found, k, wanted)
        if not np.isfinite(miss):
            # At the end of its range, about which it is even.
            found[k] += _OFF * max(abs(float(found[k])), 0.1)
            miss, slope = self._miss(found, k, wanted)
        step = np.inf
        for _ in range(_ROUNDS):
            if abs(miss) < _CLOSE or abs(step) <= 1e-15 * abs(float(found[k])):
                return found
            if not np.isfinite(miss) or slope == 0.0:
                return None
            step = miss / slope
            tried = found.copy()
            for _ in range(_ROUNDS):
                tried[k] = found[k] - step
                after = self._miss(tried, k, wanted)
                if abs(after[0]) < abs(miss):
                    break
                step *= 0.5
            else:
                return found if abs(miss) < 1e3 * _CLOSE else None
            found, (miss, slope) = tried, after
        return None

    # --- minima -----------------------------------------------------------------------------------------------------

    def minimum(self, v: float, x: FloatArray) -> Minimum:
        """Minimise over everything else from the parameters x.

        Parameters
        ----------
        v : float
            On the user's scale; the arc sine of a correlation.
        x : ndarray, shape (m,)
        """
        wanted = self._wanted(v)
        k = int(np.argmax(np.abs(self._jet(x).first) * self.unit))
        free = np.delete(np.arange(x.size), k)
        unit = self.unit[free]
        kept = [x]

        def local(scaled: FloatArray) -> Local | None:
            par = kept[0].copy()
            par[free] = scaled * unit
            solved = self._solved(par, k, wanted)
            point = None if solved is None or not np.isfinite(solved).all() else self.criterion.evaluate(solved)
            if point is None:
                return None
            # The next solution starts from the last one.
            kept[0] = point.par
            gradient, hessian, _ = self._along(point, k, free)
            return Local(scaled, point.value, gradient * unit, hessian * np.outer(unit, unit), point)

        start = x[free] / unit
        if free.size:
            best = minimise(local, start, _CONTROL, learn=_nothing)
            point, count = best.source, len(best.log)
        else:
            found = local(start)
            if found is None:
                raise DesignError("the likelihood cannot be evaluated at this value.")
            point, count = found.source, 1
        slope = self._along(point, k, free)[2] * (float(np.cos(v)) if self.parameter.is_angle else 1.0)
        value = self.criterion.value_outside(point.value)
        return Minimum(v, point.par, value, slope, point.par, 0.0, count)

    def _along(self, point: MarginalPoint, k: int, free: IntArray) -> tuple[FloatArray, FloatArray, float]:
        """Gradient and Hessian on the surface in the free parameters, and the derivative of the minimum."""
        gradient, hessian = self.criterion.derivatives(point)
        jet = self._jet(point.par)
        a = float(jet.first[k]) or np.inf
        multiplier = float(gradient[k]) / a
        J = np.zeros((free.size, point.par.size))
        J[np.arange(free.size), free] = 1.0
        J[:, k] = -jet.first[free] / a
        return J @ gradient, J @ (hessian - multiplier * jet.second) @ J.T, multiplier

    # --- what a profile asks ------------------------------------------------------------------------------------------

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the coordinate."""
        natural = self.parameter.natural_parameter
        if natural is None:
            return -np.inf, np.inf
        if self.parameter.is_angle:
            return float(np.arcsin(natural.lower)), float(np.arcsin(natural.upper))
        return natural.lower, natural.upper

    @property
    def guess(self) -> float:
        """Size of a first step where there is no standard error."""
        return 0.3 if self.parameter.is_angle else 0.3 * self.size

    def covariances(self, minimum: Minimum) -> list[FloatArray]:
        """Covariances of all terms at a minimum, on the user's scale."""
        return list(self.fit.problem.covariances(minimum.theta))

    def residual_change(self, minimum: Minimum) -> float:
        """0: rows have no residual variance in common that another one would be compared with."""
        return 0.0


def _nothing(*_: object) -> None:
    """The Hessian is known: there is nothing to learn from a step."""
