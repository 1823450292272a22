"""A process at times or places that the fit did not have: its conditional expectation, given those that it had."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lme4py.errors import DesignError
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray

__all__ = ["conditional_rows"]

# Eigenvalues of the covariance of the known places below this part of the largest one are rounding.
_ROUNDING = 1e-12


def conditional_rows(fit: Fit, t: int) -> Callable[[FloatArray], FloatArray | None] | None:
    """What makes rows z of new places with z'b the expectation of the process there, given its effects b.

    With C the covariance of the process, z = C(new, known) C(known, known)^-1 (simple kriging).

    Parameters
    ----------
    fit : Fit
    t : int
        Position of the term.

    Returns
    -------
    callable, or None
        From places (u,) or (u, d) to rows (u, k), or None where the structure has parameters of each place; None for a
        term without places.
    """
    term = fit.design.terms[t]
    structure = term.structure
    if structure.positions is None:
        return None
    known = structure.positions
    theta = fit.design.structures.split(fit.theta)[t]

    def rows(places: FloatArray) -> FloatArray | None:
        k = known.shape[0]
        both = np.concatenate([known, places.reshape(-1, *known.shape[1:])])
        # Times must increase.
        order = np.argsort(both, kind="stable") if both.ndim == 1 else np.arange(both.shape[0])
        try:
            wider = type(structure).build(both.shape[0], both[order], **structure.option_values)
        except DesignError:  # such as a step between whole numbers
            return None
        if wider.n_theta != structure.n_theta:
            return None
        place = np.argsort(order)
        C = wider.covariance(theta)[np.ix_(place, place)]
        inverse = np.linalg.pinv(C[:k, :k], rcond=_ROUNDING, hermitian=True)
        out: FloatArray = C[k:, :k] @ inverse
        return out

    return rows
