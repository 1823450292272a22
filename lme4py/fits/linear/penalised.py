"""The engine's side of a linear mixed model with priors."""

from __future__ import annotations

from lme4py.fits.linear.model import LinearModel
from lme4py.fits.penalised import Penalised

__all__ = ["PenalisedLinearModel"]


class PenalisedLinearModel(Penalised, LinearModel):  # type: ignore[misc]
    """The engine's side of a penalised linear mixed model.

    Parameters
    ----------
    fit : PenalisedLinearFit
    """
