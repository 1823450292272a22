"""New responses from a model with a residual structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.design import Design
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.replay import new_residuals, widened
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.engine.marginal.effects import residual_roots
from lme4py.errors import DataError
from lme4py.fits.answers.draws import generators
from lme4py.fits.refuse import refuse_residual
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.problem import ResidualProblem, marginal_model
from lme4py.fits.truth import padded_modes
from lme4py.linalg.types import FloatArray

__all__ = ["ResidualDraws", "on_rows"]


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
        self.roots = [] if chained else residual_roots(self.criterion, fit.par, self.new)

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


def on_rows(fit: ResidualFit, design: Design, frame: Frame) -> ResidualFit:
    """The fit with other rows, as what responses are drawn from; its subjects may be new.

    Parameters
    ----------
    fit : ResidualFit
    design : Design
    frame : Frame
        Its data.

    Raises
    ------
    DataError
        A row without a position or a subject, or two of a subject at one position.
    OptionError
        Positions that are the order of the rows, variances that depend on fitted values.
    """
    if fit.residual.fitted_column is not None:
        refuse_residual(
            "simulation for other rows, whose variances depend on their fitted values, is",
            "leave data= out for draws of the rows of the fit, or take power() of a column",
        )
    design = replace(design, y=np.zeros(design.n_obs))
    part = widened(fit.residual.part, _part_of(fit, design, frame))[1]
    old = fit.problem.criterion
    model = marginal_model(design, part, fit.problem.S)
    problem = ResidualProblem(MarginalCriterion(model, old.reml, old.scaling), fit.problem.S)
    residual = replace(fit.residual, part=part)
    return replace(fit, design=design, residual=residual, problem=problem, modes=padded_modes(fit.modes, design))


def _part_of(fit: ResidualFit, design: Design, frame: Frame) -> ResidualPart:
    """The residual side of the rows."""
    side = fit.residual
    found = new_residuals(side, fit.design.recipe, frame, None, subjects=bool(side.text)).take(design.keep)
    if not found.placed:
        refuse_residual(
            f"simulation for other rows with residual={side.text!r}, which counts the rows of a subject, is",
            "fit the model with an index, such as ar1(visit | id)",
        )
    part = replace(found.part, weights=design.weights)
    if not side.text:
        # Each row is a subject.
        return replace(part, subject=np.arange(design.n_obs))
    lost = int((~found.present | (part.subject < 0)).sum())
    if lost:
        raise DataError(f"{lost} rows of the new data lack an index or a subject of {side.text}; remove these rows")
    if len(np.unique(np.column_stack([part.subject, part.points]), axis=0)) < design.n_obs:
        raise DataError(
            f"the new data have a subject of {side.text} twice at one position; an index may occur once in a subject"
        )
    return part
