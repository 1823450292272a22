"""Profile likelihood: signed roots of the deviance for every parameter, and intervals by root finding.

REML fits are profiled by maximum likelihood, as in lme4: the restricted likelihood says nothing about fixed effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.engine.threads import limited_threads
from lme4py.engine.types import FloatArray
from lme4py.errors import Lme4Error
from lme4py.fit import Fit
from lme4py.inference.coefficients import check_alpha
from lme4py.inference.constrained import Constrained, CovarianceCriterion, Minimum
from lme4py.inference.parameters import Parameter, parameter_values, parameters, select_parameters
from lme4py.inference.refit import fit_problem, linear_fit, refit_ml
from lme4py.inference.variance_se import standard_errors

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Profile", "profile"]

# A limit is where the signed root differs from the normal quantile by less than this.
_CLOSE = 1e-7
# Steps along a profile aim at this much of the signed root.
_STEP = 0.75
# A profile that falls this much below the minimum shows that the fit was not the minimum.
_LOWER = 1e-6
_MAX_STEPS = 80


@dataclass(frozen=True)
class _Point:
    """A point of a profile; `zeta` is not negative, `slope` its derivative in the coordinate (absolute)."""

    minimum: Minimum
    zeta: float
    slope: float

    @property
    def v(self) -> float:
        return self.minimum.v


class _BetterOptimum(Exception):
    """The profile went below the minimum of the fit."""

    def __init__(self, theta: FloatArray) -> None:
        super().__init__("a better optimum")
        self.theta = theta


@dataclass
class _Side:
    """The profile of one parameter on one side of its estimate, grown as far as it is asked for."""

    constrained: Constrained
    direction: int
    least: float
    bound: float
    points: list[_Point]
    ended: bool = False
    evaluations: int = field(default=0)

    def reach(self, target: float, step: float) -> None:
        """Grow the profile until its signed root is at least `target`, or the range of the parameter ends."""
        for _ in range(_MAX_STEPS):
            if self.ended or self.points[-1].zeta >= target:
                return
            self._grow(min(target * 1.01 + 1e-3, self.points[-1].zeta + step))
        raise Lme4Error(
            f"the profile of {self.constrained.parameter.name} did not reach the level that is asked for within "
            f"{_MAX_STEPS} steps; the data hardly inform this parameter. Use a larger alpha, or method='wald'."
        )

    def _grow(self, goal: float) -> None:
        last = self.points[-1]
        length = (goal - last.zeta) / last.slope
        for _ in range(30):
            v, at_bound = self._inside(last.v, length)
            point = self._evaluate(v)
            # A step that is far too long would leave a gap in the profile.
            if point.zeta <= goal + 1.5:
                break
            length *= max(0.1, 0.9 * (goal - last.zeta) / (point.zeta - last.zeta))
        self.points.append(point)
        self.ended = at_bound

    def _inside(self, v: float, length: float) -> tuple[float, bool]:
        moved = v + self.direction * length
        if (moved - self.bound) * self.direction < 0.0:
            return moved, False
        if self.constrained.parameter.kind == "sigma":
            return 0.5 * v, False
        return self.bound, True

    def _evaluate(self, v: float) -> _Point:
        found = self.constrained.minimum(v, self._predict(v))
        self.evaluations += found.evaluations
        if found.value < self.least - _LOWER:
            raise _BetterOptimum(found.theta)
        zeta = float(np.sqrt(max(found.value - self.least, 0.0)))
        slope = self.direction * found.slope / (2.0 * zeta) if zeta > 1e-6 else self.points[0].slope
        return _Point(found, zeta, max(slope, 1e-3 * self.points[0].slope))

    def _predict(self, v: float) -> FloatArray:
        """Coordinates of everything else, extrapolated from the nearest points."""
        near = sorted(self.points, key=lambda point: abs(point.v - v))[:3]
        x: FloatArray = np.zeros_like(near[0].minimum.x)
        for i, point in enumerate(near):
            weight = 1.0
            for j, other in enumerate(near):
                if i != j:
                    weight *= (v - other.v) / (point.v - other.v)
            x = x + weight * point.minimum.x
        return x

    def limit(self, target: float) -> float:
        """Coordinate where the signed root is `target`; the end of the range when it stays below."""
        self.reach(target, step=target)
        if self.points[-1].zeta < target:
            return self.points[-1].v
        high = next(i for i, point in enumerate(self.points) if point.zeta >= target)
        if high == 0:
            return self.points[0].v
        low = high - 1
        for count in range(60):
            a, b = self.points[low], self.points[low + 1]
            if b.zeta - target < _CLOSE:
                return b.v
            if target - a.zeta < _CLOSE and low > 0:
                return a.v
            if abs(b.v - a.v) <= 1e-12 * max(abs(a.v), abs(b.v)):
                break
            point = self._evaluate(_between(a, b, target, count))
            self.points.insert(low + 1, point)
            if point.zeta < target:
                low += 1
        return self.points[low + 1].v


def _between(a: _Point, b: _Point, target: float, count: int) -> float:
    """Coordinate between two points where the signed root should be `target`: inverse cubic Hermite interpolation."""
    width, rise = b.v - a.v, b.zeta - a.zeta
    t = (target - a.zeta) / rise
    if count % 4 == 3:
        return a.v + 0.5 * width
    start = np.sign(width) * rise / (a.slope * width)
    end = np.sign(width) * rise / (b.slope * width)
    share = (3.0 - 2.0 * t) * t * t + t * (1.0 - t) * ((1.0 - t) * start - t * end)
    if not 1e-3 < share < 1.0 - 1e-3:
        share = min(max(share, 1e-9), 1.0 - 1e-9) if abs(share - t) < 0.2 else t
    return float(a.v + share * width)


@dataclass(frozen=True)
class Profile:
    """Profiles of some parameters.

    Attributes
    ----------
    fit : Fit
        The maximum-likelihood fit that is profiled.
    parameters : tuple of Parameter
    estimates : ndarray
        Maximum-likelihood estimates; NaN for a correlation with an effect that has no variance.
    note : str
        Says so when a REML fit is profiled by maximum likelihood.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> profile = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).profile()
    >>> profile.conf_int().round(2)
                     lower    upper
    term
    Intercept     1486.45  1568.55
    sd(_cons)       12.20    84.06
    sd(Residual)    38.23    67.66
    """

    fit: Fit
    parameters: tuple[Parameter, ...]
    estimates: FloatArray
    note: str
    _sides: dict[str, tuple[_Side, _Side]]

    def conf_int(self, alpha: float | None = None) -> pd.DataFrame:
        """Limits lower, upper where the deviance is the chi-squared quantile above its minimum.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; 0.05 when not given.

        Returns
        -------
        pandas.DataFrame
            One row per parameter. Where the profile reaches the end of the range (a standard deviation of 0, a
            correlation of -1 or 1) first, that is the limit.
        """
        import pandas as pd

        target = float(-special.ndtri(check_alpha(alpha) / 2.0))
        with limited_threads(self.fit.design):
            rows = [self._limits(parameter, target) for parameter in self.parameters]
        index = pd.Index([parameter.name for parameter in self.parameters], name="term")
        return pd.DataFrame(rows, columns=["lower", "upper"], index=index)

    def _limits(self, parameter: Parameter, target: float) -> tuple[float, float]:
        if parameter.name not in self._sides:
            return -1.0, 1.0
        lower, upper = (_value(parameter, side.limit(target)) for side in self._sides[parameter.name])
        return lower, upper

    def to_frame(self) -> pd.DataFrame:
        """All points: columns parameter, value, zeta (the signed root of the change of the deviance)."""
        import pandas as pd

        rows = []
        for parameter in self.parameters:
            if parameter.name not in self._sides:
                continue
            lower, upper = self._sides[parameter.name]
            rows += [(parameter.name, _value(parameter, p.v), -p.zeta) for p in reversed(lower.points)]
            rows += [(parameter.name, _value(parameter, p.v), p.zeta) for p in upper.points[1:]]
        return pd.DataFrame(rows, columns=["parameter", "value", "zeta"])

    @property
    def evaluations(self) -> int:
        """How often the criterion was evaluated."""
        return sum(side.evaluations for pair in self._sides.values() for side in pair)

    def __repr__(self) -> str:
        return f"<Profile of {len(self.parameters)} parameters>"


def _value(parameter: Parameter, v: float) -> float:
    return float(np.sin(v)) if parameter.kind == "corr" else float(v)


def profile(fit: Fit, parm: str | Sequence[str] | None = None, alpha: float | None = 0.01) -> Profile:
    """Profile the likelihood.

    Parameters
    ----------
    fit : Fit
    parm : "all", "fixed", "random", or names
    alpha : float or None
        The profiles reach the limits of intervals of level 1 - alpha; None grows them only when intervals are asked
        for.

    Returns
    -------
    Profile
    """
    fit = linear_fit(fit, "profile()")
    wanted = select_parameters(parameters(fit.design), parm)
    note = "The REML fit was refitted and profiled by maximum likelihood." if fit.reml else ""
    fit = refit_ml(fit)
    for _ in range(5):
        try:
            return _profile(fit, wanted, alpha, note)
        except _BetterOptimum as better:
            fit = fit_problem(fit.design, fit.problem, False, better.theta)
            note = (note + " A better optimum was found on the way, and the profile is about that one.").strip()
    raise Lme4Error(
        "the profile finds ever better optima: the fit has not converged. Scale the covariates, or simplify the random "
        "effects."
    )


def _profile(fit: Fit, wanted: list[Parameter], alpha: float | None, note: str) -> Profile:
    estimates = parameter_values(wanted, fit.beta, fit.covariances, fit.sigma)
    errors = standard_errors(fit, wanted)
    criterion = CovarianceCriterion(fit.problem, False)
    sides = {}
    with limited_threads(fit.design):
        for parameter, value, error in zip(wanted, estimates, errors, strict=True):
            if np.isnan(value):
                # The other effect has no variance, so that the likelihood is flat over the whole range.
                continue
            sides[parameter.name] = make_sides(fit, criterion, parameter, float(value), float(error))
            if alpha is not None:
                for side in sides[parameter.name]:
                    side.reach(float(-special.ndtri(check_alpha(alpha) / 2.0)), _STEP)
    return Profile(fit, tuple(wanted), estimates, note, sides)


def make_sides(
    fit: Fit, criterion: CovarianceCriterion, parameter: Parameter, value: float, error: float
) -> tuple[_Side, _Side]:
    """Both sides of a profile, with the estimate alone on them.

    Parameters
    ----------
    fit : Fit
        By the likelihood of `criterion`.
    criterion : CovarianceCriterion
    parameter : Parameter
    value, error : float
        Estimate and standard error; an error that is zero or not finite (boundary) is replaced by a guess.
    """
    constrained = Constrained(criterion, parameter)
    chart = constrained.chart
    log_sigma = float(np.log(fit.sigma / chart.sigma_unit))
    v = float(np.arcsin(value)) if parameter.kind == "corr" else value
    scale = float(np.cos(v)) if parameter.kind == "corr" else 1.0
    error = error / scale if scale > 1e-6 else 0.0
    if not np.isfinite(error) or error <= 1e-6 * max(abs(v), 1e-300):
        error = _guess(fit, parameter, 1.0 if parameter.term < 0 else float(chart.units[chart.held]))
    x = constrained.start(fit.theta_inside, log_sigma)
    start = Minimum(v, x, fit.criterion, 0.0, fit.theta_inside, log_sigma, 0)
    lower_bound, upper_bound = _bounds(parameter)
    first = _Point(start, 0.0, 1.0 / error)
    sides = []
    for direction, bound in ((-1, lower_bound), (1, upper_bound)):
        ended = abs(v - bound) <= 1e-9
        sides.append(_Side(constrained, direction, fit.criterion, bound, [first], ended))
    return sides[0], sides[1]


def _bounds(parameter: Parameter) -> tuple[float, float]:
    if parameter.kind == "corr":
        return -0.5 * np.pi, 0.5 * np.pi
    return (-np.inf if parameter.kind == "fixed" else 0.0), np.inf


def _guess(fit: Fit, parameter: Parameter, unit: float) -> float:
    """Size of a first step where there is no standard error."""
    if parameter.kind == "corr":
        return 0.3
    levels = fit.design.terms[parameter.term].n_levels if parameter.term >= 0 else 1
    sigma = 1.0 if parameter.kind == "ratio" else fit.sigma
    return sigma * unit * float(np.sqrt(1.0 / (levels * max(fit.design.n_obs / levels, 1.0) ** 0.5)))
