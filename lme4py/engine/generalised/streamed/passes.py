"""The Laplace criterion of a model whose rows go by, here or elsewhere, whatever its grouping factors are.

A Newton step of the conditional modes needs the rows only in sums: log-likelihood, Z's and the elements of Z'WZ. So
every step of PIRLS is one pass over the rows, and a last one gives the derivatives, of which products with W and the
modes' own derivatives follow from sums as well. With h, c, a and r as in `lme4py.engine.generalised.laplace`,

    Z'r = Z'c - Z'WZ Lambda a,      X'r = X'c - (Z'WX)'Lambda a
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.engine.factor.sweep import Swept
from lme4py.engine.generalised.criteria import BESIDE, AtPoint, JointCriterion
from lme4py.engine.generalised.descent import Descents
from lme4py.engine.generalised.laplace import (
    Laplace,
    check_curvature,
    directions,
    theta_slope,
    with_dispersion,
    working_hessian,
)
from lme4py.engine.generalised.problem import MAX_HALVINGS, MAX_STEPS, TOLERANCE, GlmmProblem, ModeError, ModeFinder
from lme4py.engine.generalised.streamed.sums import (
    DerivativePass,
    ElementPass,
    PassingSums,
    PassingWay,
    RowPass,
    StepPass,
)
from lme4py.engine.generalised.streamed.table import SummedElements
from lme4py.engine.optimise import Control, Local
from lme4py.linalg.types import FloatArray

__all__ = ["PassedCriterion", "PassedDescents", "PassedValue", "StreamedMode"]

# Decrements above rounding below which a step that does not lower the objective is the last.
_LAST = 1e-8


@dataclass(frozen=True)
class _Point:
    """Sums over all rows at some modes."""

    u: FloatArray
    b: FloatArray
    objective: float
    score: FloatArray
    v: FloatArray
    noise: float


@dataclass(frozen=True)
class StreamedMode:
    """The conditional modes at some parameters.

    Attributes
    ----------
    theta, beta : ndarray
    lam : float or ndarray
    T : list of ndarray
    u, b, score : ndarray, shape (Q,)
        As in `lme4py.engine.generalised.problem.Mode`.
    v : ndarray
        Elements of Z'WZ.
    swept : Swept
    objective : float
    """

    theta: FloatArray
    beta: FloatArray
    lam: Any
    T: list[FloatArray]
    u: FloatArray
    b: FloatArray
    score: FloatArray
    v: FloatArray
    swept: Swept
    objective: float


@dataclass(frozen=True)
class PassedValue:
    """The criterion at a mode, with all that follows from sums."""

    mode: StreamedMode
    value: float
    gradient: FloatArray
    sums: PassingSums
    G: list[FloatArray]
    diagonal: list[FloatArray]


class PassedCriterion(JointCriterion):
    """-2 log-likelihood in (theta, beta, log dispersion) by passes over rows.

    Parameters
    ----------
    pilot : ModeFinder
        Of rows that are in memory, which stands for all where only the kind of model matters.
    problem : GlmmProblem
        Without rows, of all levels.
    table : SummedElements
        Its products.
    way : PassingWay
        How the rows go by.

    Attributes
    ----------
    passes : int
        How often all rows have gone by.
    """

    def __init__(self, pilot: ModeFinder, problem: GlmmProblem, table: SummedElements, way: PassingWay) -> None:
        # Something in the place of `refine`: the pilot alone cannot answer for all.
        super().__init__(pilot, lambda found: (found.value, found.gradient))
        self.problem, self.table, self.way = problem, table, way
        self.whole, self.pilot = ModeFinder(problem), JointCriterion(pilot)
        self.passes = 0
        self._known: PassedValue | None = None
        self._lowest = np.inf

    def reported(self, phi: FloatArray, known: AtPoint | None = None) -> AtPoint | None:
        """What is known: the last step of the modes is not worth a pass over the rows."""
        return known or self.evaluate(phi)

    def evaluate(self, phi: FloatArray, beside: bool = False) -> tuple[Laplace, float, FloatArray] | None:
        """The pilot, value and gradient; None where there is no mode.

        Parameters
        ----------
        phi : ndarray
        beside : bool
            As in `JointCriterion`.
        """
        found = self.at(phi, beside)
        if found is None:
            return None
        if beside and self.base is not None:
            return self.base, found.value, found.gradient
        here = self.pilot.evaluate(phi)
        if here is None:
            return None
        if found.value < self._lowest:
            self._known, self._lowest = found, found.value
        return here[0], found.value, found.gradient

    def local(self, phi: FloatArray) -> Local | None:
        """For `minimise`."""
        found = self.at(phi)
        here = None if found is None else self.pilot.evaluate(phi)
        if found is None or here is None:
            return None
        if found.value < self._lowest:
            self._known, self._lowest = found, found.value
        with np.errstate(all="ignore"):
            information = self._information(found)
        source = here[0], found.value, found.gradient
        return Local(phi, found.value, found.gradient, information, source) if np.isfinite(information).all() else None

    def at(self, phi: FloatArray, beside: bool = False) -> PassedValue | None:
        """The criterion at some parameters; None where there is no mode.

        Parameters
        ----------
        phi : ndarray
        beside : bool
            As in `JointCriterion`.
        """
        if self.problem.beyond_limit(self.problem.split(phi)[2]):
            return None
        for u in self._starting(phi):
            try:
                with np.errstate(all="ignore"):
                    found = self._value(self.mode(phi, u, BESIDE if beside else TOLERANCE))
            except (ModeError, np.linalg.LinAlgError):
                continue
            if np.isfinite(found.value) and np.isfinite(found.gradient).all():
                return found
        return None

    def _starting(self, phi: FloatArray) -> Iterator[FloatArray]:
        if self._known is not None:
            with np.errstate(all="ignore"):
                predicted = self._predicted(self._known, phi)
            if np.isfinite(predicted).all():
                yield predicted
            yield self._known.mode.u
        yield np.zeros(self.table.rows.n_effects)

    # -- the mode ------------------------------------------------------------------------------------------------

    def mode(self, phi: FloatArray, u: FloatArray, tolerance: float = TOLERANCE) -> StreamedMode:
        """Newton steps with guaranteed decrease, each a pass over the rows.

        Parameters
        ----------
        phi : ndarray
        u : ndarray, shape (Q,)
            Start.
        tolerance : float
            Newton decrement at the end.

        Raises
        ------
        ModeError
        """
        problem, table = self.problem, self.table
        theta, beta, lam = problem.split(phi)
        T = problem.factor_T(theta)
        here = self._sums(T, beta, lam, u)
        if not np.isfinite(here.objective):
            raise ModeError("the likelihood is zero at the starting values")
        for _ in range(MAX_STEPS):
            swept, v = self._factor(T, beta, lam, here)
            change = table.solve_gathered(swept, table.times(v, here.b) + here.score)[0] - here.u
            decrease = float((self.whole.spread(T, here.score, transpose=True) - here.u) @ change)
            there = None
            if decrease > tolerance:
                there = self._lower(T, beta, lam, here, change, decrease)
            if there is None:
                if v is not here.v:
                    raise ModeError("the observed information is not positive definite at the mode")
                return StreamedMode(theta, beta, lam, T, here.u, here.b, here.score, v, swept, here.objective)
            here = there
        raise ModeError(f"no mode after {MAX_STEPS} Newton steps")

    def _lower(
        self, T: list[FloatArray], beta: FloatArray, lam: Any, here: _Point, change: FloatArray, decrease: float
    ) -> _Point | None:
        """A lower point along a step; None where only rounding is left."""
        t = 1.0
        noise = 1e-13 * abs(here.objective) + 1e-15 * here.noise
        for _ in range(MAX_HALVINGS):
            there = self._sums(T, beta, lam, here.u + t * change)
            if there.objective <= here.objective - 1e-4 * t * decrease + noise:
                return there
            t *= 0.5
        if decrease < max(_LAST, noise):
            return None
        raise ModeError("the penalised likelihood does not rise along the Newton direction")

    def _factor(self, T: list[FloatArray], beta: FloatArray, lam: Any, here: _Point) -> tuple[Swept, FloatArray]:
        """The factor with the observed weights, or with positive ones where that is not positive definite."""
        table = self.table
        try:
            return table.factor_of(T, table.base_of(here.v)), here.v
        except np.linalg.LinAlgError:
            v = self._total(ElementPass, beta, lam, here.b, 2, "w_work")["v"]
            return table.factor_of(T, table.base_of(v)), v

    # -- passes --------------------------------------------------------------------------------------------------

    def _total(self, kind: type[RowPass], beta: FloatArray, lam: Any, b: FloatArray, *more: Any) -> PassingSums:
        """A pass over the rows."""
        problem = self.problem
        self.passes += 1
        return self.way.total(
            kind(self.table.rows, problem.family, problem.expected, problem.n_nuisance, beta, lam, b, *more)
        )

    def _sums(self, T: list[FloatArray], beta: FloatArray, lam: Any, u: FloatArray) -> _Point:
        """What a Newton step needs to know."""
        b = self.whole.spread(T, u)
        sums = self._total(StepPass, beta, lam, b)
        objective = float(u @ u) - 2.0 * float(sums["loglik"][0])
        objective = objective if np.isfinite(objective) else np.inf
        return _Point(u, b, objective, sums["score"], sums["v"], float(sums["noise"][0]))

    def _value(self, mode: StreamedMode) -> PassedValue:
        """Value and gradient at a mode, by a last pass."""
        problem, table = self.problem, self.table
        swept, place = mode.swept, (mode.beta, mode.lam, mode.b)
        if problem.uses_expected:
            v = self._total(ElementPass, *place, 3, "w_exp")["v"]
            swept = table.factor_of(mode.T, table.base_of(v))
        check_curvature(problem, swept)
        dv, G, diagonal = table.element_derivatives(swept)
        sums = self._total(DerivativePass, *place, dv)
        a, b_a = table.solve_gathered(mode.swept, sums["Zc"])
        parts = [
            theta_slope(problem, mode, G, sums["Zc"] - table.times(mode.v, b_a), a),
            sums["Xc"] - sums["ZWX"].T @ b_a,
        ]
        if problem.n_nuisance:
            parts.append(sums["lam"] + sums["Zl"].T @ b_a)
        return PassedValue(mode, mode.objective + swept.log_det, np.concatenate(parts), sums, G, diagonal)

    # -- what sums tell ------------------------------------------------------------------------------------------

    def _information(self, found: PassedValue) -> FloatArray:
        """As `lme4py.engine.generalised.laplace.average_information`."""
        problem, table, mode, sums = self.problem, self.table, found.mode, found.sums
        h = directions(problem, mode)
        crossed = problem.n_nuisance > 0 and not problem.has_one_dispersion
        ZWX, XWX, Xl, curve = sums["ZWX"], sums["XWX"], sums["Xl"], sums["curve"]
        beside = [ZWX, -sums["Zl"]] if crossed else [ZWX]
        products = np.concatenate([table.times(mode.v, h), *beside], axis=1)
        m = problem.n_theta
        corner = np.empty((products.shape[1], products.shape[1]))
        corner[:m] = h.T @ products
        corner[:, :m] = corner[:m].T
        corner[m:, m:] = np.block([[XWX, -Xl], [-Xl.T, curve]]) if crossed else XWX
        border = mode.swept.sweep_border(table.split(products))
        hessian = working_hessian(problem, mode, found.G, corner - border.cross(border))
        if not problem.has_one_dispersion:
            return hessian
        return with_dispersion(hessian, max(2.0 * float(curve[0, 0]), 0.1))

    def _predicted(self, known: PassedValue, phi: FloatArray) -> FloatArray:
        """First-order prediction of the modes, as `lme4py.engine.generalised.problem.ModeFinder.predict`."""
        problem, table, mode = self.problem, self.table, known.mode
        theta, beta, lam = problem.split(phi)
        dT = [new - old for new, old in zip(problem.factor_T(theta), mode.T, strict=True)]
        extra = self.whole.spread(dT, mode.score, transpose=True)
        moved = self.whole.spread(dT, mode.u) + self.whole.spread(mode.T, extra)
        gathered = -table.times(mode.v, moved) - known.sums["ZWX"] @ (beta - mode.beta)
        if problem.n_nuisance:
            gathered += known.sums["Zl"] @ np.atleast_1d(lam - mode.lam)
        return mode.u + extra + table.solve_gathered(mode.swept, gathered)[0]


class PassedDescents(Descents):
    """The ways down of a model whose rows go by.

    Parameters
    ----------
    criterion : PassedCriterion
    control : Control
    """

    def __init__(self, criterion: PassedCriterion, control: Control) -> None:
        super().__init__(criterion.finder, control, criterion.refine)
        self.whole = criterion

    def criterion(self) -> PassedCriterion:
        return self.whole
