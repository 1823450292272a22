"""The joint covariance of estimates and conditional modes of crossed effects that have no factor.

As `lme4py.fits.answers.joint`, with z'Kz from systems that are solved exactly: rows cost one for each level and column
that they have, whatever the number of rows of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lme4py.engine.factor.crossed import CrossedAt
from lme4py.engine.factor.crossed_inverse import row_variances
from lme4py.engine.linear.problem import Unfactored
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error
from lme4py.fits.answers.joint import JointVariance
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray
from lme4py.progress import watching

__all__ = ["SolvedJoint", "solved_joint"]

# Residuals of the systems, relative.
_EXACT = 1e-10


@dataclass(frozen=True)
class SolvedJoint(JointVariance):
    """The parts of the joint covariance in the engine's columns.

    As in `JointVariance`, with ``at``, whose products the systems are solved with. There are no weights of the rows of
    the fit: leverages of all of them would be a system for every level.
    """

    at: CrossedAt = field(kw_only=True)

    def _random(self, Z: list[FloatArray], codes: list[Any]) -> FloatArray:
        with limited_threads(self.design), watching("errors of predictions", None, "systems"):
            try:
                return row_variances(self.at, codes, Z, _EXACT)
            except np.linalg.LinAlgError as error:
                raise Lme4Error(
                    f"errors of predictions are not known ({error}): fit the model with control={{'block': 'exact'}}, "
                    "where the factor fits into memory."
                ) from None


def solved_joint(
    fit: Fit,
    at: CrossedAt,
    T: list[FloatArray],
    columns: tuple[FloatArray, tuple[FloatArray, ...]],
    moves: FloatArray,
    vcov: FloatArray,
    scale: float,
) -> SolvedJoint:
    """The joint covariance of a fit.

    Parameters
    ----------
    fit : Fit
    at : CrossedAt
    T : list of ndarray
        By grouping factor.
    columns : tuple of (ndarray, tuple of ndarray)
        C and S.
    moves : ndarray, shape (Q, p + d)
        What the modes lose when a coefficient inside rises by one, or what stands behind the fixed effects in `vcov`.
    vcov : ndarray, shape (p + d, p + d)
        On the user's scale.
    scale : float
    """
    C, S = columns
    p, size = C.shape[0], moves.shape[1]
    whole = np.eye(size)
    whole[:p, :p] = C
    back = np.linalg.inv(whole)
    tables = at.tables
    swept: Any = Unfactored()
    inside = back @ vcov @ back.T / scale
    return SolvedJoint(
        fit.design, tables.factors, T, np.zeros(0), whole[:p], S, tables.split(moves), inside, [], scale, swept, at=at
    )
