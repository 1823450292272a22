"""The engine's side of a generalised linear mixed model with priors."""

from __future__ import annotations

from lme4py.fits.generalised.model import GeneralisedModel
from lme4py.fits.penalised import Penalised

__all__ = ["PenalisedGeneralisedModel"]


class PenalisedGeneralisedModel(Penalised, GeneralisedModel):  # type: ignore[misc]
    """The engine's side of a penalised generalised linear mixed model.

    Parameters
    ----------
    fit : PenalisedGeneralisedFit
    """
