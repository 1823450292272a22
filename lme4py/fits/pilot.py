"""A fit to one response of given parameters, which carries them: where power and simulations without data begin."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lme4py.design.design import Design
from lme4py.errors import Lme4Error, Lme4Warning
from lme4py.families.base import Family
from lme4py.families.categories.counts import with_counts
from lme4py.families.response import ResponseData
from lme4py.fits.answers.draws import covariance_roots, drawn_effects, generators
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.steps import linear_predictor, response_with_modes
from lme4py.fits.truth import Truth
from lme4py.linalg.types import FloatArray

__all__ = ["carrier", "draw_response", "with_response"]

# Responses that are tried; where random effects are large, some have no finite estimates.
_TRIES = 20


def draw_response(design: Design, family: Family, truth: Truth, data: ResponseData, seed: int) -> ResponseData:
    """One response of the parameters, in the form of `ResponseData.y`.

    Parameters
    ----------
    design : Design
    family : Family
    truth : Truth
    data : ResponseData
        Trials, weights, categories and parts of the rows.
    seed : int
    """
    rng = generators([np.random.SeedSequence(seed)])[0]
    effects: list[FloatArray | None] = [
        drawn_effects(term, rng.standard_normal((1, term.n_levels, term.n_columns)), root)[0]
        for term, root in zip(design.terms, covariance_roots(truth.covariances), strict=True)
    ]
    eta = linear_predictor(design, truth.beta, effects)
    drawn = family.simulate(eta, truth.lam, response_with_modes(design, data, effects), rng)
    return replace(data, y=drawn) if data.counts is None else with_counts(data, drawn)


def with_response(design: Design, data: ResponseData) -> Design:
    """The design with a response that was drawn.

    Parameters
    ----------
    design : Design
    data : ResponseData
    """
    return replace(design, y=data.table, response=data if design.response is not None else None)


def carrier(design: Design, family: Family, truth: Truth, data: ResponseData, fit_it: Callable[[Design], Fit]) -> Fit:
    """A fit of the design that carries the parameters.

    Parameters
    ----------
    design : Design
    family : Family
    truth : Truth
    data : ResponseData
        Trials, weights, categories and parts of the rows.
    fit_it : callable
        Fits a design with a response.

    Raises
    ------
    Lme4Error
        None of twenty responses of these parameters can be fitted.
    """
    found, why = None, ""
    for seed in range(_TRIES):
        response = draw_response(design, family, truth, data, seed)
        if np.isnan(response.y).any():
            why = "the random effects lead to a mean outside the range of the link"
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Lme4Warning)
            try:
                found = fit_it(with_response(design, response))
            except Lme4Error as error:
                why = str(error)
                continue
        if found.recession is None:
            break
    if found is None:
        raise Lme4Error(f"none of {_TRIES} responses simulated from these parameters can be fitted: {why}")
    return model_of(found).with_truth(truth)
