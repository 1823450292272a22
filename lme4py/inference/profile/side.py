"""One side of a profile: signed roots of the deviance away from the estimate, grown as far as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from lme4py.errors import DesignError, Lme4Error
from lme4py.fits.answers.holding import HeldModel, Minimum
from lme4py.linalg.types import FloatArray

__all__ = ["BetterOptimum", "ProfilePoint", "Side", "make_sides"]

# A limit is where the signed root differs from the normal quantile by less than this.
_CLOSE = 1e-7
# A profile that falls this much below the minimum shows that the fit was not the minimum.
_LOWER = 1e-6
_MAX_STEPS = 80
# A profile that rises less than this part of what is missing, this often, while the distance doubles, has no limit.
_FLAT, _FLAT_STEPS = 0.01, 8
# Steps are no smaller than this part of the coordinate, of which nothing is left in rounding below 1e-16.
_LEAST_STEP = 1e-9
# Minima are extrapolated from points that are apart by more than this part of the way.
_APART = 0.1


@dataclass(frozen=True)
class ProfilePoint:
    """A point of a profile; `zeta` is not negative, `slope` its derivative in the coordinate (absolute)."""

    minimum: Minimum
    zeta: float
    slope: float

    @property
    def v(self) -> float:
        return self.minimum.v


class BetterOptimum(Exception):
    """The profile went below the minimum of the fit; `minimum` is where, `holding` gives its coordinates a meaning."""

    def __init__(self, minimum: Minimum, holding: HeldModel) -> None:
        super().__init__("a better optimum")
        self.minimum = minimum
        self.holding = holding


@dataclass
class Side:
    """The profile of one parameter on one side of its estimate.

    Attributes
    ----------
    constrained : HeldModel
    direction : int
        -1 or 1.
    least : float
        The minimum of the criterion.
    bound : float
        End of the range of the coordinate.
    points : list of ProfilePoint
        From the estimate outwards.
    ended : bool
        The profile has reached the end of its range, or stays below what was asked for however far it is followed.
    evaluations : int
    islands : tuple of ProfilePoint
        Other local minima of the criterion. One that is below what a limit asks for belongs to the interval, which ends
        beyond it.
    joined : bool
        The last limit is beyond an island.
    """

    constrained: HeldModel
    direction: int
    least: float
    bound: float
    points: list[ProfilePoint]
    ended: bool = False
    evaluations: int = field(default=0)
    islands: tuple[ProfilePoint, ...] = ()
    joined: bool = False

    def reach(self, target: float, step: float) -> None:
        """Grow the profile until its signed root is at least `target`, or its range ends."""
        flat = 0
        for _ in range(_MAX_STEPS):
            if self.ended or self.points[-1].zeta >= target:
                return
            before = self.points[-1].zeta
            self._grow(min(target * 1.01 + 1e-3, before + step), doubled=flat > 0)
            flat = flat + 1 if self.points[-1].zeta - before < _FLAT * (target - before) else 0
            if flat >= _FLAT_STEPS and not self.ended:
                self.ended = True
                return
        raise Lme4Error(
            f"the profile of {self.constrained.parameter.name} did not reach the level that is asked for within "
            f"{_MAX_STEPS} steps; the data hardly inform this parameter. Use a larger alpha, or method='wald'."
        )

    def _grow(self, goal: float, doubled: bool) -> None:
        last = self.points[-1]
        least = _LEAST_STEP * abs(last.v)
        length = max((goal - last.zeta) / last.slope, least)
        if doubled:
            length = max(length, abs(last.v - self.points[0].v))
        for _ in range(30):
            if length < least:
                self._refuse_to_follow(last)
            v, at_bound = self._inside(last.v, length)
            try:
                point = self._evaluate(v)
            except DesignError:
                # No value there: the step was too long.
                length *= 0.3
                continue
            # A step that is far too long would leave a gap in the profile.
            if point.zeta <= goal + 1.5:
                break
            length *= max(0.1, 0.9 * (goal - last.zeta) / (point.zeta - last.zeta))
        else:
            self._refuse_to_follow(last)
        self.points.append(point)
        self.ended = at_bound

    def _refuse_to_follow(self, last: ProfilePoint) -> NoReturn:
        raise Lme4Error(
            f"the profile of {self.constrained.parameter.name} cannot be followed beyond {last.v:.6g}, where the "
            f"signed root is {last.zeta:.3f}: the criterion has no value there. Use method='wald' or 'boot'."
        )

    def _inside(self, v: float, length: float) -> tuple[float, bool]:
        moved = v + self.direction * length
        if (moved - self.bound) * self.direction < 0.0:
            return moved, False
        return (self.bound, True) if self.constrained.ends else (0.5 * (v + self.bound), False)

    def _evaluate(self, v: float) -> ProfilePoint:
        found = self.constrained.minimum(v, self._predict(v))
        self.evaluations += found.evaluations
        if found.value < self.least - _LOWER:
            raise BetterOptimum(found, self.constrained)
        zeta = float(np.sqrt(max(found.value - self.least, 0.0)))
        slope = self.direction * found.slope / (2.0 * zeta) if zeta > 1e-6 else self.points[0].slope
        return ProfilePoint(found, zeta, max(slope, 1e-3 * self.points[0].slope))

    def _predict(self, v: float) -> FloatArray:
        """Coordinates of everything else, extrapolated from the nearest points."""
        near: list[ProfilePoint] = []
        for point in sorted(self.points, key=lambda point: abs(point.v - v)):
            # Where the minima beside each other differ by more than rounding, a polynomial through them explodes.
            if all(abs(point.v - other.v) > _APART * abs(point.v - v) for other in near):
                near.append(point)
        near = near[:3]
        if abs(v - near[0].v) > 3.0 * abs(near[0].v - near[-1].v):
            # Too far for a polynomial through these points.
            near = near[:1]
        x: FloatArray = np.zeros_like(near[0].minimum.x)
        for i, point in enumerate(near):
            weight = 1.0
            for j, other in enumerate(near):
                if i != j:
                    weight *= (v - other.v) / (point.v - other.v)
            x = x + weight * point.minimum.x
        return x

    def limit(self, target: float) -> float:
        """Coordinate beyond which the signed root is above `target`; the end of the range when it stays below."""
        end, self.joined = self._limit(target), False
        for island in self.islands:
            if island.zeta < target and (island.v - end) * self.direction > 0.0:
                beyond = Side(self.constrained, self.direction, self.least, self.bound, [island])
                end, self.joined = beyond._limit(target), True
        return end

    def _limit(self, target: float) -> float:
        """Coordinate where the signed root is `target`, going outwards from the first point."""
        self.reach(target, step=target)
        if self.points[-1].zeta < target:
            return self.bound
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
            try:
                point = self._evaluate(_between(a, b, target, count))
            except DesignError:
                self._refuse_to_follow(a)
            self.points.insert(low + 1, point)
            if point.zeta < target:
                low += 1
        return self.points[low + 1].v


def _between(a: ProfilePoint, b: ProfilePoint, target: float, count: int) -> float:
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
    return a.v + float(share) * width


def make_sides(holding: HeldModel, error: float) -> tuple[Side, Side]:
    """Both sides of a profile, with the estimate alone on them.

    Parameters
    ----------
    holding : HeldModel
    error : float
        Standard error; one that is zero or not finite (boundary) is replaced by a guess.
    """
    start = holding.estimate
    scale = float(np.cos(start.v)) if holding.parameter.is_angle else 1.0
    error = error / scale if scale > 1e-6 else 0.0
    if not np.isfinite(error) or error <= 1e-6 * max(abs(start.v), 1e-300):
        error = holding.guess
    first = ProfilePoint(start, 0.0, 1.0 / error)
    islands = tuple(
        ProfilePoint(other, float(np.sqrt(max(other.value - start.value, 0.0))), 1.0 / error)
        for other in holding.others
    )
    low, high = holding.bounds
    sides = [
        Side(holding, direction, start.value, bound, [first], ended=abs(start.v - bound) <= 1e-9, islands=islands)
        for direction, bound in ((-1, low), (1, high))
    ]
    return sides[0], sides[1]
