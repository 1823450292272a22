"""New responses from a fitted linear mixed model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lme4py.engine.small import lower_factor
from lme4py.engine.types import FloatArray
from lme4py.errors import OptionError
from lme4py.fit import Fit
from lme4py.inference.refit import linear_fit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Simulator", "check_count", "check_seed", "generators", "simulate"]


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`, or OptionError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or int(value) < least:
        raise OptionError(f"`{name}` is {value!r}; give a whole number of at least {least}.")
    return int(value)


def check_seed(seed: object) -> int | None:
    """A whole number that is not negative, or None for a fresh seed."""
    return None if seed is None else check_count("seed", seed, 0)


def generators(seeds: Sequence[np.random.SeedSequence]) -> list[np.random.Generator]:
    """One generator for each seed."""
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def _row_roots(fit: Fit) -> list[FloatArray]:
    """A factor of the covariance of each term; exact zeros stay zeros."""
    out = []
    for cov in fit.covariances:
        values, vectors = np.linalg.eigh(cov)
        out.append(lower_factor(vectors * np.sqrt(np.maximum(values, 0.0))))
    return out


class Simulator:
    """Draws responses; the same seed gives the same response whatever else is drawn.

    Parameters
    ----------
    fit : Fit
    kind : {"parametric", "semiparametric", "conditional"}
        Random effects and residuals from normal distributions; from the fitted ones, centred, given the estimated
        covariances and drawn with replacement (Carpenter, Goldstein & Rasbash 2003); or normal residuals with the
        random effects kept at their conditional modes.
    """

    def __init__(self, fit: Fit, kind: str = "parametric") -> None:
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
        self.roots = _row_roots(fit)

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
            effects.append(block @ root.T)
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


def _reflated(fit: Fit) -> tuple[list[FloatArray], FloatArray]:
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


def simulate(fit: Fit, n: int = 1, seed: int | None = None, include_random: bool = False) -> pd.DataFrame:
    """Responses drawn from the fitted model.

    Parameters
    ----------
    fit : Fit
    n : int
        Number of responses.
    seed : int, optional
        The same seed gives the same numbers; column i depends on the seed and i only.
    include_random : bool
        True keeps the random effects at their conditional modes; False draws new ones.

    Returns
    -------
    pandas.DataFrame
        Columns sim_1, sim_2, ...; one row for each row used.
    """
    import pandas as pd

    fit = linear_fit(fit, "simulate()")
    count = check_count("n", n)
    if not isinstance(include_random, bool):
        raise OptionError(f"`include_random` is {include_random!r}; give True or False.")
    seeds = np.random.SeedSequence(check_seed(seed)).spawn(count)
    values = Simulator(fit, "conditional" if include_random else "parametric").draw(seeds)
    design = fit.design
    names = [f"sim_{i + 1}" for i in range(count)]
    return pd.DataFrame(values, index=design.index[design.keep], columns=names)
