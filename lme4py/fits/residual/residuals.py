"""Residuals of a model with a residual structure."""

from __future__ import annotations

from lme4py.engine.marginal.effects import whitened
from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.residual.fit import ResidualFit
from lme4py.linalg.types import FloatArray

__all__ = ["structured_residuals"]

TYPES = ("response", "working", "pearson", "scaled", "normalized")


def structured_residuals(fit: ResidualFit, type: str = "response") -> FloatArray:
    """Residuals of the rows used, shape (n,).

    Parameters
    ----------
    fit : ResidualFit
    type : {"response", "working", "pearson", "scaled", "normalized"}
        y - fitted; divided by the residual standard deviation of the row ("pearson" and "scaled", as nlme's Pearson
        residuals); or whitened by the residual covariance, L^-1 (y - fitted) with L L' the covariance of the residuals
        of a subject in the order of its positions ("normalized", as in nlme): independent with variance 1 where the
        model is right.

    Raises
    ------
    OptionError
    """
    if type not in TYPES:
        raise OptionError(
            f"type={type!r} is no kind of residual of a model with a residual "
            f"structure.{did_you_mean(str(type), TYPES)} "
            f"Use one of {', '.join(TYPES)}."
        )
    raw = fit.design.y - fit.fitted
    if type in ("response", "working"):
        return raw
    if type != "normalized":
        return raw / fit.residual_sd
    criterion = fit.problem.criterion
    with limited_threads(fit.design):
        found = whitened(criterion, fit.point, raw)
    return found / criterion.scaling.y_scale
