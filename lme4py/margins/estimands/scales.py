"""The scale of a session: on which scale predictions are averaged and compared, and how they are reported.

================  ==========================================  =======================  ==========================
scale             averaged and compared                       a prediction is shown    a difference is shown
================  ==========================================  =======================  ==========================
linear            the mean of the response                    as it is                 as it is (a difference)
log               its logarithm                               by exp (geometric mean)  by exp (a ratio)
logit             its logit                                   by expit                 by exp (an odds ratio)
link              the linear predictor                        as it is                 as it is
================  ==========================================  =======================  ==========================

A linear mixed model has no link: on the log and logit scales its response is taken to be a logarithm or a logit
already (a model of ``log(y)``), and only the report is transformed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lme4py.errors import OptionError
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.curves import Averaged, Composed, Identity, Inverse, Outer, ResponseCurve

__all__ = ["SCALES", "Scale", "assumption", "outcome_curve", "transform", "untransform", "working_curve"]

_INVERSES: Final = {"identity": "identity", "exp": "log", "expit": "logit"}


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale.

    Attributes
    ----------
    name : str
        "linear", "log", "logit" or "link".
    prediction, effect : str
        How a prediction and a difference are shown: "identity", "exp" or "expit".
    effect_name : str
        What a shown difference is.
    """

    name: str
    prediction: str
    effect: str
    effect_name: str


SCALES: Final = {
    "linear": Scale("linear", "identity", "identity", "difference"),
    "log": Scale("log", "exp", "exp", "ratio"),
    "logit": Scale("logit", "expit", "exp", "odds ratio"),
    "link": Scale("link", "identity", "identity", "difference"),
}


def transform(name: str, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How numbers are shown, and the slope of that: "identity", "exp" or "expit"."""
    with np.errstate(over="ignore"):
        value, slope, _ = Outer(name)(np.asarray(x, dtype=np.float64))
    return value, slope


def untransform(name: str, x: FloatArray) -> FloatArray:
    """The working value of a shown one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = Outer(_INVERSES[name])(np.asarray(x, dtype=np.float64))[0]
    if np.isnan(value).any():
        needs = {"exp": "a positive number", "expit": "a probability between 0 and 1"}[name]
        raise OptionError(f"{x!r} is not possible on the scale of these estimates; give {needs}.")
    return value


def assumption(scale: Scale, link: Link | None) -> str:
    """What the scale takes a model without a link to be, as a sentence; empty where nothing is assumed."""
    if link is not None or scale.name not in ("log", "logit"):
        return ""
    word = {"log": "a logarithm", "logit": "a logit"}[scale.name]
    return (
        f"The model has no link: its response is taken to be {word} already, as in a model of {scale.name}(y); "
        f"predictions are shown by {scale.prediction}, differences by {scale.effect} as {scale.effect_name}s."
    )


def working_curve(scale: Scale, link: Link | None, integrate: bool) -> ResponseCurve:
    """What is averaged over rows and compared.

    Parameters
    ----------
    scale : Scale
    link : Link or None
        None for a model whose linear predictor is the mean.
    integrate : bool
        Means are averaged over the random effects.
    """
    if scale.name == "link" or link is None:
        return Identity()
    if scale.name == "linear":
        mean = _mean_curve(link, integrate)
        return Identity() if isinstance(mean, Inverse) and link.is_identity else mean
    # Without averaging the scale of the link itself is the linear predictor: no digits are lost in the tails.
    if link.name == scale.name and not integrate:
        return Identity()
    return Composed(Outer(scale.name), _mean_curve(link, integrate))


def outcome_curve(scale: Scale, link: Link | None, integrate: bool) -> ResponseCurve:
    """The response itself, for elasticities: the mean, or the shown prediction of a linear mixed model."""
    if link is not None:
        return _mean_curve(link, integrate)
    if scale.name == "log":
        return Inverse(LogMean())
    return Inverse(PROBABILITY_LINKS["logit"]) if scale.name == "logit" else Identity()


def _mean_curve(link: Link, integrate: bool) -> ResponseCurve:
    return Averaged(link) if integrate else Inverse(link)
