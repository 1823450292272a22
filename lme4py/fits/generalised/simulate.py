"""New responses from a fitted generalised linear mixed model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from lme4py.fits.answers.draws import covariance_roots, drawn_effects
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.rows.response import is_proportion, numeric_categories
from lme4py.fits.steps import random_part, response_with_modes
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
        self.drawn = [t for t in range(len(design.terms)) if t not in kept]
        self.roots = covariance_roots(fit.covariances)
        kept_modes = [None if t in self.drawn else b for t, b in enumerate(fit.modes)]
        self.mean = design.X @ fit.beta + self._random(kept_modes)
        if design.stacked_offset is not None:
            self.mean = self.mean + design.stacked_offset
        self.data = response_with_modes(design, fit.data, kept_modes)

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray:
        """One response for each seed, shape (n, B), or (n, B, K) of counts of categories, in the form `refit` reads.

        A column is NaN throughout where the random effects drawn lead to a linear predictor outside the range of
        the link (possible with identity, inverse and similar links only).
        """
        out = np.empty((len(seeds), *self._shape))
        for row, seed in zip(out, seeds, strict=True):
            rng = np.random.Generator(np.random.PCG64(seed))
            row[:] = self.response(rng)
        if is_proportion(self.fit):
            out /= np.maximum(self.fit.data.n_trials, 1.0)
        if numeric_categories(self.fit) and self.fit.data.counts is None:
            out = np.asarray(self.fit.categories, dtype=np.float64)[out.astype(np.intp)]
        return np.moveaxis(out, 0, 1)

    @property
    def _shape(self) -> tuple[int, ...]:
        counts = self.fit.data.counts
        return (self.fit.design.n_obs,) if counts is None else counts.shape

    def response(self, rng: np.random.Generator) -> FloatArray:
        """Counts, successes or measurements with new random effects, or NaN where a row has no mean, shape (n,)."""
        fit, design, effects = self.fit, self.fit.design, self._effects(rng)
        eta = self.mean + self._random(effects)
        return fit.family.simulate(eta, fit.lam, response_with_modes(design, self.data, effects), rng)

    def _random(self, modes: Sequence[FloatArray | None]) -> FloatArray:
        """Random effects in the first linear predictor, or in those of all categories one below the other."""
        homes = self.fit.family.homes
        return np.concatenate([random_part(self.fit.design, modes, home) for home in homes])

    def _effects(self, rng: np.random.Generator) -> list[FloatArray | None]:
        """New random effects of the terms that are drawn."""
        effects: list[FloatArray | None] = [None] * len(self.roots)
        for t in self.drawn:
            term = self.fit.design.terms[t]
            z = rng.standard_normal((1, term.n_levels, term.n_columns))
            effects[t] = drawn_effects(term, z, self.roots[t])[0]
        return effects
