"""More than one minimum: other starts, and what is looked at between and beyond them.

The criterion can have one minimum at or near zero, where the regression between groups explains the group means, and
another far out, where the regression within groups rules (Simpson's paradox). Where the variance of a factor is very
large, the profile over beta is the regression within its levels, at the price of one evaluation. If that regression
agrees with the one that ignores the groups, and no variance is near zero, there is no reason for a second minimum. Else
the variances of the modes far out are a second start; small models are also searched from each factor and each effect
alone, and along lines through the optimum and far beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import scipy.linalg

from lme4py.covariance import CovarianceStructures
from lme4py.engine.certificate import Rival
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.hessian import LARGE
from lme4py.engine.linear.problem import Problem
from lme4py.engine.linear.start import moment_start
from lme4py.engine.optimise import Local, Optimum, trust_region_step
from lme4py.errors import DesignError
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

# Relative standard deviations this large leave nothing but the regression within groups.
_FAR = 1e3
# A smaller relative standard deviation is near zero.
_NEAR = 0.02
# Between what the relative standard deviations lie from which other correlations are tried.
_SIZES = ((0.05, 0.15), (0.5, 1.5), (30.0, 100.0))
# Standard deviations to start from, in columns of unit size.
_LOWEST, _HIGHEST = 0.05, 1e5
# Two starts whose standard deviations differ by less than this factor, in every direction, lead to the same minimum;
# where an evaluation costs much, the factor is larger.
_SAME_BASIN, _SAME_LARGE = 1.5, 4.0
# With a larger dense block, or more random effects than `LARGE`, an evaluation costs too much for a search.
_DENSE = 400
# With more effects than this they are not tried one by one.
_MAX_EFFECTS = 6
# A smaller curvature, in units of theta, is none.
_FLAT = 1e-3
# Powers of two by which standard deviations are multiplied in a scan.
_SCAN = (-10.0, -7.0, -5.0, -3.5, -2.0, -1.0, 1.0, 2.0, 3.5, 5.0, 7.0, 10.0)


def compare(
    criterion: Criterion,
    optimum: Optimum,
    what: str,
    descend: Callable[[FloatArray], Optimum],
    local: Callable[[FloatArray], Local | None],
) -> Optimum:
    """The best of an optimum and of what other starts lead to, with a list of what was compared.

    Parameters
    ----------
    criterion : Criterion
    optimum : Optimum
        Of the first descent.
    what : str
        Its start, in words.
    descend, local : callable
        A whole descent from a start; value and derivatives at one point.
    """
    search = _Search(criterion, optimum, what, descend, local)
    if not is_large(criterion.problem):
        search.correlations()
    label, theta = next(outer_points(criterion.problem))
    point = search.look(label, theta)
    if point is not None and not _suspicious(criterion, optimum, point):
        return search.result()
    if is_large(criterion.problem):
        search.glance(label, point)
    else:
        search.everywhere()
    if point is not None and point.value < search.best.value:
        search.follow(f"far out {label}", theta)
    return search.result()


def _suspicious(criterion: Criterion, optimum: Optimum, point: Point) -> bool:
    """Is there a reason to look for a second minimum?"""
    problem = criterion.problem
    return (
        point.value < optimum.value
        or is_near_zero(problem, optimum.theta)
        # Chi-squared with one degree of freedom for each coefficient when both estimate the same.
        or disagreement(criterion, point) > 4.0 + 1.5 * problem.n_fixed
    )


def is_large(problem: Problem) -> bool:
    """Whether an evaluation costs too much for many of them."""
    return problem.symbolic.dense_size > _DENSE or sum(factor.size for factor in problem.factors) > LARGE


def is_near_zero(problem: Problem, theta: FloatArray) -> bool:
    """Whether a variance, or a direction of a covariance matrix, is at zero or near it."""
    return problem.structures.depth(theta) < _NEAR


def disagreement(criterion: Criterion, point: Point) -> float:
    """Rise of the residual sum of squares, in units of sigma^2, when beta is the regression that ignores the groups.

    Parameters
    ----------
    criterion : Criterion
    point : Point
        Far out, where beta is the regression within groups.
    """
    corner, p = criterion.problem.base.corner, criterion.problem.n_fixed
    # The columns are orthonormal, times the square root of n.
    change = point.RX @ (point.beta - corner[:p, p] / corner.diagonal()[:p])
    return float(change @ change) / criterion.variance(point.r2)


# --- points far out, and starts from there ---------------------------------------------------------------------------


def outer_points(problem: Problem) -> Iterator[tuple[str, FloatArray]]:
    """Where variances are very large: intercepts of all factors, of each factor, all effects, each effect alone."""
    structures = problem.structures
    intercepts = [_intercepts(problem, f) for f in range(len(problem.factors))]
    names = [factor.name for factor in problem.factors]
    together = np.sum(intercepts, axis=0)
    yield f"within {' and '.join(names)}", structures.scaled(together, _FAR)
    if len(names) > 1:
        yield from (
            (f"within {name}", structures.scaled(own, _FAR)) for name, own in zip(names, intercepts, strict=True)
        )
    everything = structures.initial()
    if np.array_equal(everything, together):
        return
    yield "within levels, all effects free", structures.scaled(everything, _FAR)
    effects = structures.axes()
    if len(effects) <= _MAX_EFFECTS:
        scaled = (structures.scaled(theta, _FAR) for theta in effects)
        yield from ((f"effect {number} alone", theta) for number, theta in enumerate(scaled, start=1))


def _intercepts(problem: Problem, f: int) -> FloatArray:
    """theta of unit standard deviations for the constant columns of a factor; for all if none is constant."""
    structures, terms = problem.structures, problem.factors[f].terms
    constant = [t for t in terms if problem.constants[t] is not None]
    theta = structures.scaled(structures.initial(), 0.0)
    for t in constant or terms:
        structure, column = structures.each[t], problem.constants[t]
        theta[structures.slices[t]] = structure.initial() if column is None else structure.alone(column)
    return theta


def outer_start(criterion: Criterion, point: Point) -> FloatArray:
    """theta from the variances of the modes far out, and of the residuals there.

    Parameters
    ----------
    criterion : Criterion
    point : Point
        At one of `outer_points`.
    """
    problem = criterion.problem
    n, p = problem.cross.n_obs, problem.n_fixed
    # Columns that are constant within groups are hardly informed there.
    within = int((np.linalg.eigvalsh(point.RX.T @ point.RX) > 1e-5 * n).sum()) if p else 0
    modes = point.modes()
    free = sum(int(np.count_nonzero(b)) for b in modes)
    sigma2 = point.r2 / max(n - free - within, 1) if problem.known is None else problem.known
    roots = [np.zeros((0, 0))] * len(point.T)
    for f, (factor, b) in enumerate(zip(problem.factors, modes, strict=True)):
        values = b.reshape(factor.n_columns, factor.n_levels)
        covariance = values @ values.T / (sigma2 * max(factor.n_levels - (p - within), 1)) - _noise(problem, f)
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            squares, vectors = np.linalg.eigh(covariance[columns, columns])
            roots[term] = vectors * np.sqrt(np.maximum(squares, 0.0))
    structures = problem.structures
    return structures.as_start(structures.theta_of_factors(roots), _LOWEST, _HIGHEST)


def starts(criterion: Criterion) -> Iterator[tuple[str, FloatArray]]:
    """The starts of a search: by moments, and from all points far out.

    Parameters
    ----------
    criterion : Criterion
    """
    yield "moments", moment_start(criterion.problem)
    for what, theta in outer_points(criterion.problem):
        point = _evaluate(criterion, theta)
        if point is not None:
            yield what, outer_start(criterion, point)


def _evaluate(criterion: Criterion, theta: FloatArray) -> Point | None:
    try:
        point = criterion.evaluate(theta)
    except np.linalg.LinAlgError:
        return None
    point.discard()
    return point


def _noise(problem: Problem, f: int) -> FloatArray:
    """Mean covariance of the modes far out when all variances of the factor are zero, relative to sigma^2."""
    A = problem.cross.diagonal[f]
    k, J = A.shape[0], A.shape[2]
    _, inverse = small.spd_inverse(A + np.eye(k)[:, :, None] / _FAR**2)
    # A level with too few rows for all its effects has no variance in some direction.
    noise: FloatArray = small.product(small.product(inverse, A), inverse).sum(axis=2) / J
    return noise


# --- the search ------------------------------------------------------------------------------------------------------


class _Search:
    """The best minimum so far, and what it was compared with."""

    def __init__(
        self,
        criterion: Criterion,
        optimum: Optimum,
        what: str,
        descend: Callable[[FloatArray], Optimum],
        local: Callable[[FloatArray], Local | None],
    ) -> None:
        self.criterion, self.descend, self.local = criterion, descend, local
        self.problem, self.structures = criterion.problem, criterion.problem.structures
        self.best, self.what = optimum, what
        self.known = [np.array(optimum.log[0].theta), optimum.theta]
        self.rivals: list[Rival] = []

    def result(self) -> Optimum:
        """The best minimum with the list."""
        return replace(self.best, compared=tuple(self.rivals))

    def look(self, what: str, theta: FloatArray) -> Point | None:
        """The criterion far out."""
        point = _evaluate(self.criterion, theta)
        if point is not None:
            self.rivals.append(Rival(f"far out {what}", point.value))
        return point

    def glance(self, what: str, point: Point | None) -> None:
        """At most one more evaluation, and a descent if that shows the way to a lower minimum."""
        if point is None:
            return
        theta = outer_start(self.criterion, point)
        if self._is_known(theta, _SAME_LARGE):
            return
        here = self.local(theta)
        if here is None:
            return
        _, fall = trust_region_step(here.gradient, here.hessian, 0.5 * float(np.linalg.norm(theta)))
        if here.value - fall < self.best.value:
            self.follow(what, theta)
        else:
            self.rivals.append(Rival(what, here.value))

    def everywhere(self) -> None:
        """All starts, and scans."""
        outer = None
        for what, theta in starts(self.criterion):
            self.start(what, theta)
            outer = theta if outer is None and what != "moments" else outer
        # A line is all there is to one parameter.
        if self.structures.n_theta > 1 and is_near_zero(self.problem, self.best.theta):
            self.start("unit variances", self.structures.initial())
            self.start("correlations reversed", self._reversed())
        if outer is not None:
            self.scan(outer)

    def correlations(self) -> None:
        """Starts with other correlations, for structures in which the criterion need not have one minimum."""
        for what, theta in self.structures.other_correlations(self.best.theta, _SIZES):
            self.start(what, theta)

    def start(self, what: str, theta: FloatArray) -> None:
        """Descend from a start unless it belongs to a minimum that is known."""
        if not self._is_known(theta):
            self.follow(what, theta)

    def follow(self, what: str, theta: FloatArray) -> None:
        """Descend from a start."""
        try:
            found = self.descend(theta)
        except DesignError:  # no value there
            return
        self.known += [np.array(found.log[0].theta), found.theta]
        # Below this the two are the same minimum.
        if found.value < self.best.value - 1e-9 * max(1.0, 1e-2 * abs(found.value)):
            self.best, found, self.what, what = found, self.best, what, self.what
        self.rivals.append(Rival(what, found.log[0].criterion, found.value, is_minimum=_is_curved(found)))

    def _is_known(self, theta: FloatArray, within: float = _SAME_BASIN) -> bool:
        return any(_same_basin(self.structures, theta, other, within) for other in self.known)

    def _reversed(self) -> FloatArray:
        """theta with the signs of covariances reversed, and off the boundary."""
        factors = [np.where(np.eye(T.shape[0]) > 0, T, -T) for T in self.structures.factors(self.best.theta)]
        return self.structures.as_start(self.structures.theta_of_factors(factors), _LOWEST)

    def scan(self, outer: FloatArray) -> None:
        """Look along multiples of the optimum, and of what is not zero far out where the optimum is."""
        structures = self.structures
        here, far = structures.split(self.best.theta), structures.split(outer)
        zero = [float(np.abs(T).max()) < _NEAR for T in structures.factors(self.best.theta)]
        if not all(zero):
            self._scan("multiples of the optimum", here, [True] * len(zero), 1.0)
        if any(zero):
            moved = [o if z else own for z, own, o in zip(zero, here, far, strict=True)]
            self._scan("variances that are zero", moved, zero, 0.0)

    def _scan(self, what: str, theta: list[FloatArray], moves: list[bool], here: float) -> None:
        """Values with the covariances of the terms that move multiplied by c^2; the optimum is at c = `here`."""
        sizes = np.sort([here, *(2.0**power for power in _SCAN)])
        own = list(zip(self.structures.each, theta, moves, strict=True))
        thetas = [np.concatenate([s.scaled(t, float(c)) if move else t for s, t, move in own]) for c in sizes]
        best, values = self.best.value, []
        for c, point_theta in zip(sizes, thetas, strict=True):
            point = None if c == here else _evaluate(self.criterion, point_theta)
            values.append(best if c == here else np.inf if point is None else point.value)
        seen = [value for c, value in zip(sizes, values, strict=True) if c != here and np.isfinite(value)]
        for i in _dips(values):
            if sizes[i] != here:
                self.start(f"{what}, {sizes[i]:g} times", thetas[i])
        if seen:
            self.rivals.append(Rival(what, min(seen), None, len(seen)))


def _is_curved(found: Optimum) -> bool:
    """Does the criterion rise in every direction, and not only on its way to infinity?"""
    units = np.maximum(1.0, np.abs(found.theta))
    return float(np.linalg.eigvalsh(units[:, None] * found.hessian * units)[0]) > _FLAT


def _dips(values: list[float]) -> list[int]:
    """Positions that are lower than both neighbours."""
    padded = [np.inf, *values, np.inf]
    return [i for i in range(len(values)) if padded[i] > padded[i + 1] < padded[i + 2]]


def _same_basin(structures: CovarianceStructures, theta: FloatArray, other: FloatArray, within: float) -> bool:
    """Do the standard deviations of two theta differ by less than a factor in every direction?"""
    for T, S in zip(structures.factors(theta), structures.factors(other), strict=True):
        floor = _LOWEST**2 * np.eye(T.shape[0])
        ratios = scipy.linalg.eigh(T @ T.T + floor, S @ S.T + floor, eigvals_only=True)
        if float(ratios[0]) < within**-2 or float(ratios[-1]) > within**2:
            return False
    return True
