"""Other starts: is the minimum in which a descent has ended the lowest?

Gradient and Hessian prove a local minimum. theta = 0 is a stationary point of every model; where the regressions within
and between groups disagree, the criterion has one minimum near zero and another far out; log-likelihoods that are not
concave, and dispersions beside random effects, have minima of their own. Where one of these is in sight, descents from
other starts are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.engine.certificate import EXCLUDED, Rival, second_minimum
from lme4py.engine.generalised.descent import Descents, Way
from lme4py.engine.generalised.fixed_system import FixedSystem
from lme4py.engine.generalised.laplace import Laplace, flat_mode
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import GlmmProblem, ModeError, ModeFinder
from lme4py.engine.generalised.rivals import Candidate, candidates, other_correlations
from lme4py.engine.generalised.starts.start import Start, find_start
from lme4py.engine.optimise import Control
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray

__all__ = ["Search", "far_aside", "solve_glmm"]

# Up to this many rows a dispersion and random effects are looked at together.
FEW = 200
# Relative standard deviations below this are near zero.
NEAR_ZERO = 0.1
# Where the working linear model is asked for the regression within groups, as a multiple of the estimates.
ASIDE = 25.0
# Descents from other starts need not be exact, nor long.
_LOOSE, _PATIENCE = 1e-4, 60
# Factorizations of all other descents of a fit, and of one of many fits.
_BUDGET, _LITTLE = 3000, 1000
# And where a few starts that agree are enough.
_FEW_STARTS = 500
# What one start may take of it, and how many that take all of that (they run away) take nothing from the others.
_TURN, _LOST = 750, 2
# Differences of the criterion that are worth a closer look.
BARELY = 1e-3
# Logarithms of scales beyond this are those of scales that are zero or infinite.
_COLLAPSED = 10.0
# Loose descents end this near to their minima.
_LOOSELY = 0.1


class Search:
    """Descents from several starts.

    Parameters
    ----------
    descents : Descents
    thorough : bool
        False for one of many fits to similar data, such as those of a bootstrap: fewer other starts.

    Attributes
    ----------
    usual : Start
        Moment estimates.
    ways : list of Way
        Where all descents have ended.
    compared : list of Rival
        The other starts, in words.
    """

    def __init__(self, descents: Descents, thorough: bool = True) -> None:
        self.descents, self.problem, self.thorough = descents, descents.problem, thorough
        self.usual = find_start(self.problem)
        self.ways: list[Way] = []
        self.compared: list[Rival] = []
        self._ends: dict[Callable[[], GlmmOptimum], GlmmOptimum | None] = {}
        self._failure = DesignError("the criterion cannot be evaluated at any start; simplify the random effects.")
        self._began = self.usual

    def begin(self, start: Start, beside: bool = False) -> Way | None:
        """Descend from the first start; None where it leads nowhere.

        Parameters
        ----------
        start : Start
        beside : bool
            In all parameters at once.
        """
        self._began = start
        try:
            way = self.descents.beside(start) if beside else self.descents.down(start)
        except DesignError as error:
            self._failure = error
            return None
        self.ways.append(way)
        return way

    def is_open(self, phi: FloatArray, found: Laplace, value: float) -> bool:
        """Whether another minimum is in sight of an end.

        Parameters
        ----------
        phi : ndarray
        found : Laplace
        value : float
            All of the end.
        """
        problem = self.problem
        if not problem.factors and (problem.family.single_peaked or problem.family.has_thresholds):
            # All starts are one.
            return False
        return (
            not problem.family.single_peaked
            # Few rows can be explained by the random effects, or by the dispersion.
            or bool(problem.n_nuisance and problem.n_obs <= FEW and not problem.family.has_thresholds)
            # Without random effects the criterion would be as low.
            or self.usual.value < value + BARELY
            or _near_zero(problem, phi)
            or bool(problem.held(phi).any())
            or self._disagree(found, value)
            or self._usual_is_lower(value)
        )

    def _disagree(self, found: Laplace, value: float) -> bool:
        """Whether the regression within groups is another one than the one found, in the working linear model.

        Far from zero the fixed effects are those within groups. The quadratic form of their difference from the
        estimates is chi-squared, with at most p degrees of freedom, where both estimate the same.
        """
        problem = self.problem
        p = problem.n_fixed
        if not p:
            return False
        mode = found.mode
        w = mode.rows.w_work
        try:
            swept = problem.products.factorize(problem.scaled(mode.T, ASIDE), w)
            sums = problem.products.weighted_sums(mode.b, problem.X, mode.beta, w, mode.rows.score)
            system = FixedSystem(problem, swept, w, sums)
        except np.linalg.LinAlgError:
            return True
        change = system.solution - mode.beta
        predicted = value + _predicted(found, system)
        self.compared.append(Rival("far from zero", predicted, points=0))
        return predicted < value or bool(far_aside(float(change @ system.cross @ change), p))

    def _usual_is_lower(self, value: float) -> bool:
        """Whether the descent began somewhere else than usual, and the usual start alone is lower than its end."""
        if self._began is self.usual:
            return False
        there = self.descents.glance(self.usual)
        return there is not None and there.value < value

    def look_elsewhere(self) -> None:
        """Follow the other starts."""
        self.compared = [one for one in self.compared if one.reached is not None]
        quick = self.descents.hasty(_PATIENCE)
        best = min(self.ways, key=lambda way: way.value, default=None)
        least, near = (np.inf, None) if best is None else (best.value, best.found.mode)
        self._follow(quick, candidates(quick, self.usual, self._began, least, self.thorough, near))

    def _follow(self, descents: Descents, starts: Iterator[Candidate]) -> None:
        """Descend from starts, as long as not too much has been tried."""
        finder = descents.finder
        budget = self._budget()
        last, turn = finder.factorizations + budget, min(budget // 2, _TURN)
        longest = last + _LOST * turn
        for candidate in starts:
            began = finder.factorizations
            finder.most = min(last, began + turn)
            way = self._followed(descents, candidate)
            if finder.factorizations > began + turn:
                last = min(last + turn, longest)
            if way is not None:
                self.compared.append(Rival(candidate.what, way.first, way.value))
                if all(way is not other for other in self.ways):
                    self.ways.append(way)
            if finder.factorizations > last or self._agree():
                break
        finder.most = np.inf

    def _budget(self) -> int:
        """Factorizations of all other descents: fewer where the family says how many starts are enough."""
        if self._enough is not None:
            return _FEW_STARTS
        return _BUDGET if self.thorough else _LITTLE

    @property
    def _enough(self) -> int | None:
        """Starts that are enough where they agree; few rows have minima that only some of many starts lead to."""
        return None if self.thorough and self.problem.n_obs <= FEW else self.problem.family.enough_starts

    def _agree(self) -> bool:
        """Whether as many starts as the family asks for have all led to the lowest end so far, and none to another."""
        enough = self._enough
        if enough is None or len(self.compared) < enough:
            return False
        least = min(way.value for way in self.ways)
        return all(one.reached is not None and abs(one.reached - least) < BARELY for one in self.compared)

    def _followed(self, descents: Descents, candidate: Candidate) -> Way | None:
        """Where a candidate leads; None where the criterion has no value."""
        try:
            if candidate.beside:
                return descents.beside(candidate.start, self.ways, _LOOSE)
            return descents.down(candidate.start, self.ways, _LOOSE)
        except (DesignError, ModeError, np.linalg.LinAlgError):
            return None

    def lowest(self) -> Way:
        """The lowest end.

        Raises
        ------
        DesignError
            No start leads anywhere.
        """
        if not self.ways:
            raise self._failure
        return min(self.ways, key=lambda way: way.value)

    def best(self, start: Start, beside: bool = False) -> GlmmOptimum:
        """Descend from a start, and from others where there is reason to; the lowest minimum of all.

        A criterion that has no minimum (separated responses, rows that are met exactly) falls for ever: its end is no
        rival of a proper minimum, and is given only where there is no such.

        Parameters
        ----------
        start : Start
        beside : bool

        Raises
        ------
        DesignError
        """
        way = self.begin(start, beside)
        best = None
        if way is not None:
            # Beside its end the criterion may have no value, while another way leads to a proper minimum. Where the
            # expected information is there instead, the refusal says so.
            best = self._finished(way)
            if self.problem.family.has_expected:
                if best is None:
                    raise self._failure
                self._refuse_pole(best)
        broken = way is not None and best is None
        if way is not None and best is not None:
            self.ways = [way.known_better(best)]
        if best is not None and self.problem.scale_depth(best.found.mode.lam) > _COLLAPSED:
            # Every other way to a scale of zero or infinity is as long.
            return best
        if best is not None and self.thorough:
            self._follow(self.descents.hasty(_PATIENCE), other_correlations(self.problem, self.usual, best.phi))
            best = self._lowest_minimum(best)
        if best is None or not best.is_minimum or self.is_open(best.phi, best.found, best.value):
            self.look_elsewhere()
            best = self._lowest_minimum(best)
        if broken and not best.is_minimum:
            raise self._failure
        best, ends = self._told_apart(best)
        self._refuse_pole(best)
        fine = [one for one in ends if one.reached is None or one.reached >= best.value]
        lowest = self.lowest()
        # Beyond the edge of a pole the criterion falls for ever, however high its edge is.
        lower = lowest.value < best.value - BARELY or any(self.descents.at_pole(way.found) for way in self.ways)
        return replace(
            best,
            compared=tuple(fine),
            falls=lower or len(fine) < len(ends),
            at_pole=self.descents.at_pole(lowest.found),
        )

    def _refuse_pole(self, end: GlmmOptimum) -> None:
        """Nothing at the edge of a pole is an estimate."""
        if not end.is_minimum and self.descents.at_pole(end.found):
            raise DesignError(flat_mode(self.problem))

    def _told_apart(self, best: GlmmOptimum) -> tuple[GlmmOptimum, list[Rival]]:
        """The lowest minimum, and the other starts; ends a little above are followed until they are minima or not."""
        near = [_levelled(one, best.value) for one in self.compared]
        if second_minimum(near, best.value) is None:
            return best, near
        ends = self.others(best, EXCLUDED)
        best = min((best, *ends), key=lambda end: end.value)
        minima = [end.value for end in ends]
        return best, [_judged(_levelled(one, best.value), best.value, minima) for one in self.compared]

    def others(self, best: GlmmOptimum, within: float = np.inf) -> list[GlmmOptimum]:
        """Other minima in which descents have ended, the lowest first.

        Parameters
        ----------
        best : GlmmOptimum
            The lowest one.
        within : float
            Ends that are further above it are left out.
        """
        found: list[GlmmOptimum] = []
        for way in sorted(self.ways, key=lambda one: one.value):
            known = [best.value, *(other.value for other in found)]
            if not 0.0 <= way.value - best.value < within or min(abs(way.value - value) for value in known) < BARELY:
                continue
            end = self._finished(way)
            if end is not None and end.is_minimum and min(abs(end.value - value) for value in known) > BARELY:
                found.append(end)
        return found

    def _finished(self, way: Way) -> GlmmOptimum | None:
        """The certified end of a way, made once; None where the criterion has no value around it."""
        if way.finish not in self._ends:
            try:
                self._ends[way.finish] = way.finish()
            except DesignError as error:
                self._failure, self._ends[way.finish] = error, None
        return self._ends[way.finish]

    def _lowest_minimum(self, best: GlmmOptimum | None) -> GlmmOptimum:
        for way in sorted(self.ways, key=lambda one: one.value):
            if best is not None and best.is_minimum and way.value > best.value - BARELY:
                break
            end = self._finished(way)
            if end is not None and (best is None or (end.is_minimum, -end.value) > (best.is_minimum, -best.value)):
                best = end
        if best is None:
            raise self._failure
        return best


def _levelled(rival: Rival, value: float) -> Rival:
    """A loose descent that has ended at the minimum itself, at its value."""
    same = rival.reached is not None and abs(rival.reached - value) < BARELY
    return replace(rival, reached=value) if same else rival


def _judged(rival: Rival, value: float, minima: list[float]) -> Rival:
    """Whether an end a little above `value` is one of the minima."""
    if rival.reached is None or not BARELY <= rival.reached - value < EXCLUDED:
        return rival
    return replace(rival, is_minimum=min((abs(rival.reached - one) for one in minima), default=np.inf) < _LOOSELY)


# -- reasons to look elsewhere -----------------------------------------------------------------------------------


def far_aside(distance: Any, p: int) -> Any:
    """Whether a quadratic form that is chi-squared with at most p degrees of freedom is too large for chance.

    Parameters
    ----------
    distance : float or ndarray
    p : int
    """
    return distance > p + 3.0 * np.sqrt(2.0 * p) + 4.0


def _near_zero(problem: GlmmProblem, phi: FloatArray) -> bool:
    return problem.structures.depth(phi[: problem.n_theta]) < NEAR_ZERO


def _predicted(found: Laplace, system: FixedSystem) -> float:
    """Change of the criterion of the working linear model from the mode to other variances."""
    problem, mode = found.finder.problem, found.mode
    products, w = problem.products, mode.rows.w_work
    u, b = system.residual_modes()
    moved = problem.X @ (system.solution - mode.beta) + products.spread(b - mode.b)
    # The working residuals are score / w, so that w r^2 needs no division.
    square = float(problem.stack.weigh(w, moved) @ moved)
    prior = products.penalty(u) - products.penalty(mode.u)
    fit = square - 2.0 * float(mode.rows.score @ moved) + prior
    return fit + system.swept.log_det - found.swept.log_det


def solve_glmm(
    finder: ModeFinder,
    start: Mapping[str, Any] | None,
    control: Control,
    refine: Callable[[Laplace], tuple[float, FloatArray]] | None = None,
    profiled: bool = False,
    thorough: bool = True,
) -> GlmmOptimum:
    """Minimise the criterion: descend from the start, and from others where there is reason to.

    Parameters
    ----------
    finder : ModeFinder
    start : mapping or None
        Fields of the start that are given: theta, beta, lam in the engine's columns.
    control : Control
    refine : callable, optional
        For nAGQ > 1.
    profiled : bool
        nAGQ = 0.
    thorough : bool
        False for one of many fits to similar data, such as those of a bootstrap: fewer other starts.
    """
    search = Search(Descents(finder, control, refine, profiled), thorough)
    return search.best(search.usual if start is None else replace(search.usual, **start))
