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
        self.batches, self.scale = problem.criterion.batches, problem.criterion.scaling.y_scale
        new = [t for t in range(len(design.terms)) if t not in kept]
        self.roots = residual_roots(problem.criterion, fit.point, new)

    def draw(self, seeds: Sequence[np.random.SeedSequence]) -> FloatArray:
        """One response for each seed, shape (n, B)."""
        z = np.stack([rng.standard_normal(self.mean.size) for rng in generators(seeds)], axis=1)
        out = np.empty_like(z)
        for batch, root in zip(self.batches, self.roots, strict=True):
            out[batch.rows] = root[batch.unit_class] @ z[batch.rows]
        return self.mean[:, None] + self.scale * out
