"""New responses from a fitted linear mixed model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lme4py.fits.answers.draws import covariance_roots, drawn_effects, generators
from lme4py.fits.linear.fit import LinearFit
from lme4py.linalg.types import FloatArray

__all__ = ["PartialSimulator", "Simulator"]


class Simulator:
    """Draws responses; the same seed gives the same response whatever else is drawn.

    Parameters
    ----------
    fit : LinearFit
    kind : {"parametric", "semiparametric", "conditional"}
        Random effects and residuals from normal distributions; from the fitted ones, centred, given the estimated
        covariances and drawn with replacement (Carpenter, Goldstein & Rasbash 2003); or normal residuals with the
        random effects kept at their conditional modes.
    """

    def __init__(self, fit: LinearFit, kind: str = "parametric") -> None:
        self.fit = fit
        self.kind = kind
        design = fit.design
        self.mean = design.X @ fit.beta
        if design.offset is not None:
            self.mean = self.mean + design.offset
        self.spread = np.full(design.n_obs, fit.sigma)
        if design.weights is not None:
            self.spread = fit.sigma / np.sqrt(design.weights)
        if kind == "conditional":
            self.mean = fit.fitted
        if kind == "semiparametric":
            self._modes, self._residuals = _reflated(fit)
        self.roots = covariance_roots(fit.covariances)

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray:
        """One response for each seed, shape (n, B), on the user's scale."""
        make = self._resampled if self.kind == "semiparametric" else self._normal
        rows, effects = make(generators(seeds))
        # In place: large models make large arrays.
        rows *= self.spread
        rows += self.mean
        for term, b in zip(self.fit.design.terms, effects, strict=True):
            for j in range(term.n_columns):
                part = b[:, term.codes, j]
                part *= term.values[:, j]
                rows += part
        return rows.T

    def _normal(self, rngs: list[np.random.Generator]) -> tuple[FloatArray, list[FloatArray]]:
        """Standard residuals (B, n) and random effects of each term (B, J, k)."""
        terms = () if self.kind == "conditional" else self.fit.design.terms
        n = self.fit.design.n_obs
        sizes = [term.n_levels * term.n_columns for term in terms]
        total = sum(sizes)
        values = np.empty((len(rngs), total + n))
        for row, rng in zip(values, rngs, strict=True):
            rng.standard_normal(out=row)
        effects = []
        start = 0
        for term, size, root in zip(terms, sizes, self.roots, strict=False):
            block = values[:, start : start + size].reshape(len(rngs), term.n_levels, term.n_columns)
            effects.append(drawn_effects(term, block, root))
            start += size
        if not terms:
            effects = [np.zeros((1, term.n_levels, term.n_columns)) for term in self.fit.design.terms]
        return values[:, total:], effects

    def _resampled(self, rngs: list[np.random.Generator]) -> tuple[FloatArray, list[FloatArray]]:
        n = self.fit.design.n_obs
        rows = np.empty((len(rngs), n))
        effects = [np.empty((len(rngs), *modes.shape)) for modes in self._modes]
        for i, rng in enumerate(rngs):
            for out, modes in zip(effects, self._modes, strict=True):
                out[i] = modes[rng.integers(0, modes.shape[0], modes.shape[0])]
            rows[i] = self._residuals[rng.integers(0, n, n)]
        return rows, effects


def _reflated(fit: LinearFit) -> tuple[list[FloatArray], FloatArray]:
    """Conditional modes with the estimated covariances, and residuals with variance one, all with mean zero."""
    modes = []
    for b, cov in zip(fit.modes, fit.covariances, strict=True):
        centred = b - b.mean(axis=0)
        values, vectors = np.linalg.eigh(centred.T @ centred / centred.shape[0])
        keep = values > 1e-12 * max(float(values[-1]), 1e-300)
        whitened = centred @ (vectors[:, keep] / np.sqrt(values[keep]))
        # The symmetric root, taken along the directions in which the modes vary.
        sizes, axes = np.linalg.eigh(cov)
        root = (axes * np.sqrt(np.maximum(sizes, 0.0))) @ axes.T
        modes.append(whitened @ vectors[:, keep].T @ root)
    weights = fit.design.weights
    residuals = fit.design.y - fit.fitted
    standard = residuals if weights is None else residuals * np.sqrt(weights)
    standard = standard - standard.mean()
    return modes, standard / np.sqrt(np.mean(standard**2))


class PartialSimulator(Simulator):
    """A linear model's `Simulator` with some terms at their conditional modes and new effects for the others.

    Parameters
    ----------
    fit : LinearFit
    kept : collection of int
        Positions of the terms that stay at their modes.
    """

    def __init__(self, fit: LinearFit, kept: Sequence[int]) -> None:
        super().__init__(fit)
        for t in kept:
            term = fit.design.terms[t]
            self.mean = self.mean + np.einsum("nk,nk->n", term.values, fit.modes[t][term.codes])
            self.roots[t] = np.zeros_like(self.roots[t])
