"""New responses from a fitted generalised linear mixed model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from lme4py.fits.draws import covariance_roots
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.rows.response import is_proportion, numeric_categories
from lme4py.linalg.types import FloatArray

__all__ = ["GlmmSimulator"]


class GlmmSimulator:
    """Draws responses of a generalised model; the same seed gives the same response whatever else is drawn.

    Parameters
    ----------
    fit : GeneralisedFit
    kept : collection of int
        Positions of the terms whose random effects stay at their conditional modes; those of all others are drawn
        from normal distributions with the estimated covariances.

    Notes
    -----
    Binomial responses are numbers of successes out of the trials of the row (proportions where the model was given
    proportions), ordinal ones the categories where these are numbers, else their positions 0 .. K - 1. Prior weights
    divide the dispersion of the gaussian, gamma and inverse Gaussian families; for all
    other families they are weights of the log-likelihood and have no part in a simulation, as in lme4.
    """

    def __init__(self, fit: GeneralisedFit, kept: Collection[int] = ()) -> None:
        design = fit.design
        self.fit = fit
        self.mean = design.X @ fit.beta
        if design.offset is not None:
            self.mean = self.mean + design.offset
        self.drawn = [t for t in range(len(design.terms)) if t not in kept]
        for t in kept:
            term = design.terms[t]
            self.mean = self.mean + np.einsum("nk,nk->n", term.values, fit.modes[t][term.codes])
        self.roots = covariance_roots(fit.covariances)

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray:
        """One response for each seed, shape (n, B), in the form that `refit` reads.

        A column is NaN throughout where the random effects drawn lead to a linear predictor outside the range of
        the link (possible with identity, inverse and similar links only).
        """
        out = np.empty((len(seeds), self.fit.design.n_obs))
        for row, seed in zip(out, seeds, strict=True):
            rng = np.random.Generator(np.random.PCG64(seed))
            row[:] = self.response(self.linear_predictor(rng), rng)
        if is_proportion(self.fit):
            out /= np.maximum(self.fit.data.n_trials, 1.0)
        if numeric_categories(self.fit):
            out = np.asarray(self.fit.categories, dtype=np.float64)[out.astype(np.intp)]
        return out.T

    def linear_predictor(self, rng: np.random.Generator) -> FloatArray:
        """Linear predictor with new random effects, shape (n,)."""
        eta = self.mean
        for t in self.drawn:
            term = self.fit.design.terms[t]
            b = rng.standard_normal((term.n_levels, term.n_columns)) @ self.roots[t].T
            eta = eta + np.einsum("nk,nk->n", term.values, b[term.codes])
        return eta

    def response(self, eta: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Counts, successes or measurements with the linear predictor `eta`, or NaN where it has no mean."""
        return self.fit.family.simulate(eta, self.fit.lam, self.fit.data, rng)
