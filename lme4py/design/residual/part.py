"""Residuals of rows as arrays: what the engine takes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lme4py.covariance import CovarianceStructure
    from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ResidualPart"]


@dataclass(frozen=True)
class ResidualPart:
    """The residuals.

    Attributes
    ----------
    structures : tuple of CovarianceStructure
        One for each stratum.
    subject : ndarray of int, shape (n,)
        Rows of different subjects have independent residuals.
    stratum : ndarray of int, shape (n,)
        The same for all rows of a subject.
    points : ndarray, shape (n, d)
        Positions of the rows, as `CovarianceStructure.covariance` takes points.
    log_scale : ndarray, shape (n, r)
        G: columns of the logarithm of the standard deviation, centred and of unit size where they are numbers.
    weights : ndarray, shape (n,), or None
    centre, unit : ndarray, shape (r,), or None
        The user's columns are centre + unit * G; None for G itself.
    """

    structures: tuple[CovarianceStructure, ...]
    subject: IntArray
    stratum: IntArray
    points: FloatArray
    log_scale: FloatArray
    weights: FloatArray | None = None
    centre: FloatArray | None = None
    unit: FloatArray | None = None

    @property
    def units(self) -> FloatArray:
        """`unit`, with its ones, shape (r,)."""
        return np.ones(self.log_scale.shape[1]) if self.unit is None else self.unit

    @property
    def shifts(self) -> FloatArray:
        """centre / unit, (r,): coefficients take so much off the logarithm of the standard deviation at the origin."""
        return np.zeros(self.log_scale.shape[1]) if self.centre is None else self.centre / self.units

    @property
    def user_columns(self) -> FloatArray:
        """The columns of the logarithm of the standard deviation as the user has them, shape (n, r)."""
        return self.log_scale if self.centre is None else self.log_scale * self.units + self.centre

    @property
    def on_grid(self) -> bool:
        """Whether all positions are columns of the structures."""
        return all(structure.takes_positions in ("nothing", "whole numbers") for structure in self.structures)

    def take(self, rows: IntArray | BoolArray) -> ResidualPart:
        """Some of the rows.

        Parameters
        ----------
        rows : ndarray of int or bool
        """
        weights = None if self.weights is None else self.weights[rows]
        return replace(
            self,
            subject=self.subject[rows],
            stratum=self.stratum[rows],
            points=self.points[rows],
            log_scale=self.log_scale[rows],
            weights=weights,
        )

    def then(self, other: ResidualPart) -> ResidualPart:
        """These rows, then others of the same structures.

        Parameters
        ----------
        other : ResidualPart
        """
        both = (self.weights, other.weights)
        weights = None
        if any(one is not None for one in both):
            sizes = (len(self.subject), len(other.subject))
            weights = np.concatenate([np.ones(n) if w is None else w for w, n in zip(both, sizes, strict=True)])
        return replace(
            self,
            subject=np.concatenate([self.subject, other.subject]),
            stratum=np.concatenate([self.stratum, other.stratum]),
            points=np.concatenate([self.points, other.points]),
            log_scale=np.concatenate([self.log_scale, other.log_scale]),
            weights=weights,
        )
