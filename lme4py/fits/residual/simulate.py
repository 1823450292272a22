"""New responses from a model with a residual structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lme4py.engine.marginal.effects import residual_roots
from lme4py.fits.answers.draws import generators
from lme4py.fits.residual.fit import ResidualFit
from lme4py.linalg.types import FloatArray

__all__ = ["ResidualDraws"]


class ResidualDraws:
    """Draws responses: correlated residuals, and new random effects for the terms that are not kept.

    Parameters
    ----------
    fit : ResidualFit
    kept : sequence of int
        Terms that stay at their conditional modes.
    """

    def __init__(self, fit: ResidualFit, kept: Sequence[int]) -> None:
        design, problem = fit.design, fit.problem
        self.mean = design.X @ fit.beta
        if design.offset is not None:
            self.mean = self.mean + design.offset
        for t in kept:
            term = design.terms[t]
            self.mean = self.mean + np.einsum("nk,nk->n", term.values, fit.modes[t][term.codes])
        self.criterion, self.par, self.scale = problem.criterion, fit.par, problem.criterion.scaling.y_scale
        self.new = [t for t in range(len(design.terms)) if t not in kept]
        chained = self.criterion.chain is not None
        self.roots = [] if chained else residual_roots(self.criterion, fit.point, self.new)

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray:
        """One response for each seed, shape (n, B)."""
        rngs = generators(seeds)
        z = np.stack([rng.standard_normal(self.mean.size) for rng in rngs], axis=1)
        if self.criterion.chain is not None:
            out = self.criterion.chain.coloured(self.par, z)
            for t in self.new:
                out += self._effects(t, rngs)
            return self.mean[:, None] + self.scale * out
        out = np.empty_like(z)
        for batch, root in zip(self.criterion.batches, self.roots, strict=True):
            out[batch.rows] = root[batch.unit_class] @ z[batch.rows]
        return self.mean[:, None] + self.scale * out

    def _effects(self, t: int, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """New random effects of term t at the rows, (n, B), inside."""
        model = self.criterion.model
        part = model.random[t]
        T = part.structure.factor(self.par[model.slices[t]])
        shape = int(part.codes.max()) + 1, part.values.shape[1]
        drawn = [rng.standard_normal(shape) @ T.T for rng in rngs]
        return np.stack([np.einsum("nk,nk->n", part.values, b[part.codes]) for b in drawn], axis=1)
