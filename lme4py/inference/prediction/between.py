"""A process at times or places that the fit did not have, given what it is at those that the fit had (kriging).

With C the covariance of the process, its effect at a new place is z'b + e with z = C(new, known) C(known, known)^-1, b
the effects at the known places, and e independent of them with the variance C(new, new) - z'C(known, known) z.
"""

from __future__ import annotations

import numpy as np

from lme4py.errors import DesignError
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import Left
from lme4py.linalg.types import FloatArray

__all__ = ["Interpolation", "interpolation"]

# Eigenvalues of the covariance of the known places below this part of the largest one are rounding.
_ROUNDING = 1e-12


def interpolation(fit: Fit, t: int) -> Interpolation | None:
    """What makes rows of new places; None for a term without places.

    Parameters
    ----------
    fit : Fit
    t : int
        Position of the term.
    """
    return None if fit.design.terms[t].structure.positions is None else Interpolation(fit, t)


class Interpolation:
    """Rows z of new places, and the variances of what is left there.

    Parameters
    ----------
    fit : Fit
    t : int
        Position of a term with places.
    """

    def __init__(self, fit: Fit, t: int) -> None:
        self.structure = fit.design.terms[t].structure
        self.theta = fit.design.structures.split(fit.theta)[t]
        size = float(np.trace(self.structure.covariance(self.theta)))
        # Covariances of linear models are relative to sigma^2.
        self.unit = float(np.trace(fit.covariances[t])) / size if size > 0.0 else 0.0
        self._left: dict[bytes, tuple[float, FloatArray, FloatArray]] = {}

    def __call__(self, places: FloatArray) -> FloatArray | None:
        """Rows of places (u,) or (u, d), shape (u, k); None where the structure has parameters of each place."""
        known = self.structure.positions
        assert known is not None
        k = known.shape[0]
        both = np.concatenate([known, places.reshape(-1, *known.shape[1:])])
        # Times must increase.
        order = np.argsort(both, kind="stable") if both.ndim == 1 else np.arange(both.shape[0])
        try:
            wider = self.structure.at_places(both[order])
        except DesignError:  # such as a step between whole numbers
            return None
        if wider.n_theta != self.structure.n_theta:
            return None
        place = np.argsort(order)
        found = wider.covariance_derivatives(self.theta, order=1)
        C, dC = found.value[np.ix_(place, place)], found.first[:, place[:, None], place]
        chain = self.structure.is_chain
        inverse = np.zeros((k, k)) if chain else _inverse(C[:k, :k])
        rows = np.empty((len(C) - k, k))
        for z, own in zip(rows, range(k, len(C)), strict=True):
            if chain:
                # Beside its neighbours in time the others say nothing.
                near = np.clip(np.searchsorted(known, both[own]) + np.array([-1, 0]), 0, k - 1)
                near = np.unique(near)
                inverse = np.zeros((k, k))
                inverse[np.ix_(near, near)] = _inverse(C[np.ix_(near, near)])
            z[:] = C[own, :k] @ inverse
            self._left[z.tobytes()] = _left_at(z, C, dC, inverse, own)
        return rows

    def left(self, values: FloatArray) -> Left:
        """What is left at rows.

        Parameters
        ----------
        values : ndarray, shape (n, k)
            Rows that this made, or those of known places.
        """
        n, k, m = *values.shape, self.theta.size
        out = Left(np.zeros(n), np.zeros((n, m)), np.zeros((n, m, k)))
        for i, row in enumerate(values if self._left else ()):
            found = self._left.get(row.tobytes())
            if found is not None:
                out.variance[i], out.slopes[i], out.moves[i] = found[0] * self.unit, found[1] * self.unit, found[2]
        return out


def _inverse(C: FloatArray) -> FloatArray:
    """The inverse of covariances, which may be singular."""
    return np.asarray(np.linalg.pinv(C, rcond=_ROUNDING, hermitian=True), dtype=np.float64)


def _left_at(
    z: FloatArray, C: FloatArray, dC: FloatArray, inverse: FloatArray, own: int
) -> tuple[float, FloatArray, FloatArray]:
    """The variance that is left at a place, its derivatives (m,), and those of its weights (m, k)."""
    k = z.size
    left = float(C[own, own] - z @ C[:k, :k] @ z)
    slopes = dC[:, own, own] - 2.0 * dC[:, own, :k] @ z + np.einsum("a,sab,b->s", z, dC[:, :k, :k], z)
    moves = (dC[:, own, :k] - np.einsum("a,sab->sb", z, dC[:, :k, :k])) @ inverse
    return max(left, 0.0), slopes, moves
