"""What a pass over rows adds up, as functions of some rows that can be sent to where these are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from lme4py.engine.generalised.streamed.table import PassingRows, RowElements
from lme4py.families.nuisance import as_columns, total
from lme4py.linalg.types import FloatArray
from lme4py.progress import tick

__all__ = ["DerivativePass", "ElementPass", "PassingParts", "PassingSums", "PassingWay", "RowPass", "StepPass"]

# Sums by name.
PassingSums: TypeAlias = dict[str, FloatArray]
# Step of the difference for the curvature in a log dispersion.
_STEP = 1e-4


@dataclass(frozen=True)
class RowPass(ABC):
    """A function of rows at some parameters and modes, whose values add up.

    Attributes
    ----------
    elements : RowElements
    family : Family
    expected : bool
        As in `lme4py.engine.generalised.problem.GlmmProblem`.
    n_nuisance : int
    beta : ndarray, shape (p,)
    lam : float or ndarray
    b : ndarray, shape (Q,)
        Random effects.
    """

    elements: RowElements
    family: Any
    expected: bool
    n_nuisance: int
    beta: FloatArray
    lam: Any
    b: FloatArray

    @abstractmethod
    def empty(self) -> PassingSums:
        """Over no rows."""

    @abstractmethod
    def add(self, rows: PassingRows, sums: PassingSums) -> bool:
        """Add some rows; False where others cannot matter any more."""

    def _at(self, rows: PassingRows, order: int) -> tuple[FloatArray, Any]:
        """Linear predictor, and what the family makes of it."""
        eta = rows.offset + rows.X @ self.beta + self.elements.random_part(rows, self.b)
        return eta, self._of_family(rows, eta, self.lam, order)

    def _of_family(self, rows: PassingRows, eta: FloatArray, lam: Any, order: int) -> Any:
        return self.family.derivatives(rows.data, eta, lam, order, expected=order == 3 and self.expected)


@dataclass(frozen=True)
class StepPass(RowPass):
    """What a Newton step of the modes needs: log-likelihood, score (Q,), elements of Z'WZ, and size of the rounding."""

    def empty(self) -> PassingSums:
        """Over no rows."""
        return {
            "loglik": np.zeros(1),
            "noise": np.zeros(1),
            "score": np.zeros(self.elements.n_effects),
            "v": np.zeros(self.elements.size),
        }

    def add(self, rows: PassingRows, sums: PassingSums) -> bool:
        """False where the likelihood is zero."""
        eta, own = self._at(rows, 2)
        sums["loglik"] += float(own.loglik.sum())
        if not np.isfinite(sums["loglik"][0]):
            return False
        self.elements.gather(rows, own.score, sums["score"])
        self.elements.take_in(rows, own.w_obs, sums["v"])
        sums["noise"] += float(np.abs(own.w_obs) @ np.abs(eta))
        return True


@dataclass(frozen=True)
class ElementPass(RowPass):
    """Elements of Z'WZ with other weights than the observed ones.

    Attributes
    ----------
    order : int
        Of the derivatives that these weights need.
    weights : str
        Their name.
    """

    order: int
    weights: str

    def empty(self) -> PassingSums:
        """Over no rows."""
        return {"v": np.zeros(self.elements.size)}

    def add(self, rows: PassingRows, sums: PassingSums) -> bool:
        """All rows matter."""
        own = self._at(rows, self.order)[1]
        self.elements.take_in(rows, getattr(own, self.weights), sums["v"])
        return True


@dataclass(frozen=True)
class DerivativePass(RowPass):
    """What the gradient and the information need: (Q,), (Q, p), (Q, d), (p,), (p, p), (p, d), (d,) and (d, d).

    Attributes
    ----------
    dv : ndarray
        Derivative of log|M| in the elements of Z'WZ.
    """

    dv: FloatArray

    def empty(self) -> PassingSums:
        """Over no rows."""
        Q, p, d = self.elements.n_effects, self.beta.size, self.n_nuisance
        shapes = {
            "Zc": (Q,),
            "ZWX": (Q, p),
            "Zl": (Q, d),
            "Xc": (p,),
            "XWX": (p, p),
            "Xl": (p, d),
            "lam": (d,),
            "curve": (d, d),
        }
        return {name: np.zeros(shape, order="F") for name, shape in shapes.items()}

    def add(self, rows: PassingRows, sums: PassingSums) -> bool:
        """All rows matter."""
        elements = self.elements
        eta, own = self._at(rows, 3)
        expected = self.expected and not self.family.canonical
        h = elements.row_derivative(rows, self.dv)
        c = h * (own.dw_exp if expected else own.dw_obs)
        wX = own.w_obs[:, None] * rows.X
        elements.gather(rows, c, sums["Zc"])
        for place, column in zip(sums["ZWX"].T, wX.T, strict=True):
            elements.gather(rows, column, place)
        sums["Xc"] += rows.X.T @ (c - 2.0 * own.score)
        sums["XWX"] += rows.X.T @ wX
        if self.n_nuisance:
            beside = as_columns(own.score_lam)
            for place, column in zip(sums["Zl"].T, beside.T, strict=True):
                elements.gather(rows, column, place)
            sums["Xl"] += rows.X.T @ beside
            sums["lam"] += total(own.w_exp_lam if expected else own.w_obs_lam, h) - 2.0 * total(own.d_lam)
            sums["curve"] += self._curve(rows, eta, own)
        return True

    def _curve(self, rows: PassingRows, eta: FloatArray, own: Any) -> Any:
        """-d2 log f / dlambda2 at fixed eta: of the family, or by one difference for one log dispersion."""
        if own.curve_lam is not None:
            return own.curve_lam
        moved = self._of_family(rows, eta, self.lam + _STEP, 3)
        return -float((moved.d_lam - own.d_lam).sum()) / _STEP


class PassingWay(Protocol):
    """How rows go by.

    Attributes
    ----------
    traffic : int
        Bytes that have come to this process.
    """

    traffic: int

    def total(self, function: RowPass) -> PassingSums:
        """Sums over all rows."""
        ...


class PassingParts:
    """Rows that are read here, part by part.

    Parameters
    ----------
    parts : sequence of callable
        Each makes some of the rows.
    sizes : sequence of int
        Bytes that each reads.
    """

    def __init__(self, parts: Sequence[Callable[[], PassingRows]], sizes: Sequence[int]) -> None:
        self.parts, self.sizes, self.traffic = parts, sizes, 0

    def total(self, function: RowPass) -> PassingSums:
        """Sums over all rows."""
        sums = function.empty()
        for load, size in zip(self.parts, self.sizes, strict=True):
            tick("parts of rows")
            self.traffic += size
            if not function.add(load(), sums):
                break
        return sums
