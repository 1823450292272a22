"""Residuals of rows as arrays: what the engine takes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lme4py.covariance import CovarianceStructure
    from lme4py.linalg.types import FloatArray, IntArray

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
        G: columns of the logarithm of the standard deviation.
    weights : ndarray, shape (n,), or None
    """

    structures: tuple[CovarianceStructure, ...]
    subject: IntArray
    stratum: IntArray
    points: FloatArray
    log_scale: FloatArray
    weights: FloatArray | None = None

    @property
    def on_grid(self) -> bool:
        """Whether all positions are columns of the structures."""
        return all(structure.takes_positions in ("nothing", "whole numbers") for structure in self.structures)
