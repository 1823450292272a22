"""The registry of the kinds of fit: which model stands behind each.

A new kind is a subclass of `Fit`, a subclass of `Model`, and a line here, or a call of `register`.
"""

from __future__ import annotations

from lme4py.fits.base import Fit
from lme4py.fits.generalised.fit import GeneralisedFit, PenalisedGeneralisedFit
from lme4py.fits.generalised.model import GeneralisedModel
from lme4py.fits.generalised.penalised import PenalisedGeneralisedModel
from lme4py.fits.linear.fit import LinearFit, PenalisedLinearFit
from lme4py.fits.linear.model import LinearModel
from lme4py.fits.linear.penalised import PenalisedLinearModel
from lme4py.fits.model import Model
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.model import ResidualModel

__all__ = ["model_of", "register"]

_MODELS: dict[type[Fit], type[Model]] = {
    LinearFit: LinearModel,
    PenalisedLinearFit: PenalisedLinearModel,
    GeneralisedFit: GeneralisedModel,
    PenalisedGeneralisedFit: PenalisedGeneralisedModel,
    ResidualFit: ResidualModel,
}


def register(fit: type[Fit], model: type[Model]) -> None:
    """Add a kind of fit.

    Parameters
    ----------
    fit : type
        A subclass of `Fit`.
    model : type
        A subclass of `Model`, made from such a fit.
    """
    _MODELS[fit] = model


def model_of(fit: Fit) -> Model:
    """The engine's side of a fit.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Model

    Raises
    ------
    TypeError
        A kind of fit that is not registered.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).fit
    >>> model_of(fit).conditional_covariances()[0].shape
    (6, 1, 1)
    """
    for kind in type(fit).__mro__:
        if kind in _MODELS:
            return _MODELS[kind](fit)
    raise TypeError(f"{type(fit).__name__} is no registered kind of fit.")
