"""Simulated null distributions of likelihood ratios."""

from __future__ import annotations

import numpy as np

from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error
from lme4py.fits.answers.null import Null
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.model import Model
from lme4py.linalg.types import FloatArray

__all__ = ["bootstrap_ratios"]


def bootstrap_ratios(restricted: Model | Null, full: Fit, n_sim: int, seed: int | None) -> tuple[FloatArray, int]:
    """Likelihood ratios of responses simulated from the restricted model, and how many could not be fitted.

    Parameters
    ----------
    restricted : Model or Null
    full : Fit
    n_sim : int
    seed : int or None

    Returns
    -------
    ndarray, shape (n_sim less failures,)
    int
    """
    model = model_of(full)
    simulator = restricted.simulator()
    seeds = np.random.SeedSequence(seed).spawn(n_sim)
    size = model.responses_at_once()
    parts: list[FloatArray] = []
    why: list[str] = []
    with limited_threads(full.design):
        for start in range(0, n_sim, size):
            Y = simulator.draw(seeds[start : start + size])
            parts.append(restricted.criteria(Y, why) - model.criteria(Y, why))
    ratios = np.concatenate(parts)
    ratios = ratios[np.isfinite(ratios)]
    if not ratios.size:
        raise Lme4Error(f"none of {n_sim} responses simulated from the restricted model could be fitted: {why[0]}")
    return np.maximum(ratios, 0.0), n_sim - ratios.size
