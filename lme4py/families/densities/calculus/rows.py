"""Log-likelihoods of rows with their partial derivatives, a block of rows at a time."""

from __future__ import annotations

from typing import Final

import numpy as np

from lme4py.chunks import chunk
from lme4py.families.densities.base import Density, at
from lme4py.families.densities.calculus.jets import Degrees, DensityJet, Index, Part
from lme4py.families.response import ResponseData
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["partials"]

# Rows worked on at a time: the arrays of a block stay in the processor's cache.
_BLOCK: Final = chunk(8192)
_FEWEST: Final = 16


def partials(density: Density, data: ResponseData, x: list[FloatArray], degrees: Degrees) -> dict[Index, FloatArray]:
    """Log-likelihood of each row, weights that multiply included, with the derivatives that `degrees` names.

    Parameters
    ----------
    density : Density
    data : ResponseData
        n rows.
    x : list of ndarray
        The variables of the density: the first of shape (..., n), others of that shape, (n,), or numbers.
    degrees : Degrees

    Returns
    -------
    dict of tuple of int to ndarray
        Each of shape (..., n). A row whose predictor is outside the range of the link has the log-likelihood -inf and
        NaN for everything else.
    """
    n, shape = x[0].shape[-1], x[0].shape
    step = max(_BLOCK // max(x[0].size // max(n, 1), 1), _FEWEST)
    if n <= step:
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            parts = _weighted(density, data, x, degrees).parts
        return {index: _full(parts.get(index, 0.0), shape) for index in degrees.indices()}
    out = {index: np.zeros(x[0].shape) for index in degrees.indices()}
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            block = at(x, rows)
            jet = _weighted(density, data.block(rows.start, rows.stop), block, degrees)
            for index, part in jet.parts.items():
                if index in out:
                    out[index][..., rows] = part
    return out


def _full(part: Part, shape: tuple[int, ...]) -> FloatArray:
    """A derivative as an array of its own shape."""
    return part if isinstance(part, np.ndarray) and part.shape == shape else np.full(shape, part)


def _weighted(density: Density, data: ResponseData, x: list[FloatArray], degrees: Degrees) -> DensityJet:
    valid = density.valid(x)
    everywhere = np.count_nonzero(valid) == np.size(valid)
    if not everywhere:
        x = density.moved_inside(x, valid)
    jet = density.jet(data, x, degrees)
    if density.weights_multiply and data.weights is not None:
        jet = jet * data.weights
    return jet if everywhere else _restricted(jet, valid)


def _restricted(jet: DensityJet, valid: BoolArray) -> DensityJet:
    """Rows that are not valid as log-likelihood -inf and NaN."""
    wanted = {index: jet.parts.get(index, 0.0) for index in jet.degrees.indices()}
    parts = {index: np.where(valid, part, np.nan if index else -np.inf) for index, part in wanted.items()}
    return DensityJet(dict(parts), jet.degrees)
