"""Fixed effects and modes of the working linear model of one step, given its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lme4py.engine.factor.sweep import Swept, SweptBorder
from lme4py.linalg.small import solve
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    from lme4py.engine.generalised.problem import GlmmProblem

__all__ = ["FixedSystem", "WeightedFixed"]


class WeightedFixed(NamedTuple):
    """Products of W X: all that a step needs of the rows of the fixed effects.

    Attributes
    ----------
    projected : list of ndarray, each (k J, p)
        Z'WX, for each grouping factor.
    gram : ndarray, shape (p, p)
        X'WX.
    """

    projected: list[FloatArray]
    gram: FloatArray

    @classmethod
    def of(cls, problem: GlmmProblem, swept: Swept, w: FloatArray) -> WeightedFixed:
        """Those of weights and their factor."""
        return cls(*problem.products.weighted_cross(w, problem.X, swept if problem.has_ones else None))

    @property
    def whole(self) -> FloatArray:
        """Z'WX of all grouping factors, (Q, p)."""
        return self.projected[0] if len(self.projected) == 1 else np.concatenate(self.projected)


class FixedSystem:
    """Generalised least squares of working columns on X under V = W^-1 + Z Sigma Z'.

    Parameters
    ----------
    problem : GlmmProblem
    swept : Swept
    w : ndarray, shape (n,), or (n_pairs n,)
    sums : tuple of ndarray, shapes (Q,) and (p,), or None
        Products of Z and X with W times the working response; None where that is zero.
    fixed : WeightedFixed, optional
        Of these weights, where it is known.
    """

    def __init__(
        self,
        problem: GlmmProblem,
        swept: Swept,
        w: FloatArray,
        sums: tuple[FloatArray, FloatArray] | None,
        fixed: WeightedFixed | None = None,
    ) -> None:
        products, p = problem.products, problem.n_fixed
        if sums is None:
            sums = np.zeros(sum(factor.size for factor in problem.factors)), np.zeros(p)
        gathered, beside = sums
        projected, cross = WeightedFixed.of(problem, swept, w) if fixed is None else fixed
        self.problem = problem
        self.swept = swept
        columns = zip(projected, products.split(gathered) or [gathered], strict=True)
        self.border: SweptBorder = swept.sweep_border(
            [np.concatenate([of_x, own[:, None]], axis=1) for of_x, own in columns]
        )
        taken = self.border.cross(self.border)[:p]
        corner: Any = cross - taken[:, :p]
        self.cross = 0.5 * (corner + corner.T)  # X'V^-1X
        self.solution: FloatArray = solve(self.cross, beside - taken[:, p])

    def residual_modes(self) -> tuple[FloatArray, FloatArray]:
        """u = M^-1 Lambda'Z'W r and Lambda u of the residuals r from X."""
        weights = np.append(-self.solution, 1.0)[:, None]
        return self.problem.products.spherical(self.swept, self.border, weights)
