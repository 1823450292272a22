"""Where a search starts: moments of the residuals by least squares, and a few points about them."""

from __future__ import annotations

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.kinds.scaled import Scaled
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.engine.marginal.model import MarginalModel
from lme4py.linalg.types import FloatArray

__all__ = ["starts"]

# Parts of the variance that the random effects have.
_SHARES = (0.2, 0.5, 0.8)
_MOST_OF_A_GRID = 6


def starts(criterion: MarginalCriterion) -> list[FloatArray]:
    """Parameters inside to start from, each (m,), the best first.

    Random effects and correlated residuals explain the same covariances, so that the criterion often has a minimum with
    much of the one and another with much of the other; which start is lower says little about that. Of each
    correlation of the residuals the best start is therefore kept where there are random effects.
    """
    model = criterion.model
    delta = np.zeros(model.residual.log_scale.shape[1])
    found: list[tuple[float, int, FloatArray]] = []
    for share in _SHARES if model.random else (0.0,):
        random = [
            part.structure.scaled(
                part.structure.initial(), float(np.sqrt(share / len(model.random) / _spread(part.values)))
            )
            for part in model.random
        ]
        for kind, residual in enumerate(_residual_starts(model)):
            pairs = zip(model.residual.structures, residual, strict=True)
            par = np.concatenate([*random, *(s.scaled(r, float(np.sqrt(1.0 - share))) for s, r in pairs), delta])
            point = criterion.evaluate(par, derivatives=False)
            if point is not None:
                found.append((point.value, kind, par))
    found.sort(key=lambda one: one[0])
    if not model.random:
        return [par for *_, par in found]
    best = {kind: par for _, kind, par in reversed(found)}
    return [best[kind] for kind in dict.fromkeys(kind for _, kind, _ in found)]


def _spread(values: FloatArray) -> float:
    return float(np.mean(np.sum(values**2, axis=1))) or 1.0


def _residual_starts(model: MarginalModel) -> list[tuple[FloatArray, ...]]:
    """theta of all strata, for variances of about 1."""
    structures = model.residual.structures
    grids = [_some_of(structure) for structure in structures]
    found = [tuple(choice) for choice in zip(*grids, strict=True)]
    if model.residual.on_grid:
        moments = tuple(_of_moments(model, h, structure) for h, structure in enumerate(structures))
        found.insert(0, moments)
    return found


def _some_of(structure: CovarianceStructure) -> list[FloatArray]:
    """The usual start and others with other correlations."""
    first = structure.initial()
    if not isinstance(structure, Scaled) or not structure.correlation.n_phi:
        return [first]
    grid = list(structure.correlation.grid())
    step = -(-len(grid) // _MOST_OF_A_GRID)
    off = [phi + 0.05 * np.cos(np.arange(phi.size)) for phi in grid[::step]]
    return [first, *(np.concatenate([first[: structure.n_sd], phi]) for phi in off)]


def _of_moments(model: MarginalModel, h: int, structure: CovarianceStructure) -> FloatArray:
    """theta of the covariances of the residuals by least squares at pairs of positions."""
    rows = np.flatnonzero(model.residual.stratum == h)
    subject = np.unique(model.residual.subject[rows], return_inverse=True)[1]
    wide = np.full((int(subject.max()) + 1, structure.size), np.nan)
    wide[subject, model.residual.points[rows, 0].astype(np.intp)] = model.y[rows]
    seen = ~np.isnan(wide)
    filled = np.where(seen, wide, 0.0)
    pairs = seen.T.astype(float) @ seen
    S = (filled.T @ filled) / np.maximum(pairs, 1.0)
    variances = np.where(pairs.diagonal() > 0, S.diagonal(), 1.0)
    S[np.diag_indices_from(S)] = np.maximum(variances, 1e-3 * variances.mean())
    values, vectors = np.linalg.eigh(S)
    values = np.maximum(values, 0.05 * values.mean())
    return structure.theta_of_factor(vectors * np.sqrt(values))
