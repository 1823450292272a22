"""Conditional modes of the groups of other rows, the parameters being those of a fit."""

from __future__ import annotations

from lme4py.design.design import Design
from lme4py.design.residual.part import ResidualPart
from lme4py.engine.marginal import effects
from lme4py.engine.threads import limited_threads
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.prediction import joined
from lme4py.linalg.types import FloatArray

__all__ = ["modes_of_rows"]


def modes_of_rows(
    fit: ResidualFit, rows: Design, residual: ResidualPart
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Modes (J, k) and conditional covariances (J, k, k) of each term.

    Parameters
    ----------
    fit : ResidualFit
    rows : Design
        With their responses.
    residual : ResidualPart
        Theirs.
    """
    with limited_threads(rows):
        criterion, point = joined(fit, rows, residual, own=False)
        inside = effects.modes(criterion, point)
        spread = effects.conditional_covariances(criterion, point, include_fixed=False)
    size = criterion.scaling.y_scale
    modes = tuple(size * b @ S.T for b, S in zip(inside, fit.problem.S, strict=True))
    return modes, tuple(fit.problem.outside(t, cov) for t, cov in enumerate(spread))
