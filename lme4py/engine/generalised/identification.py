"""Which covariance parameters of a generalised model the data tell apart.

The distribution of the responses depends on the random effects by the covariance of eta alone, so that the directions
Z E Z' decide as for a linear model, with all weights one. An effect of every row is a matter of the family: a normal
response, one 0/1 trial, or one category has a noise of its own whose covariance is diagonal too (that of the latent
variable where the response is 0/1 or ordered), and nothing in the data divides the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lme4py.chunks import chunk, row_blocks
from lme4py.design.design import Design
from lme4py.engine.factor.crossproducts import ModelBlock, accumulate
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.identification.gram import VarianceGram
from lme4py.engine.identification.identify import identify
from lme4py.engine.identification.probes import gram_of, make_probes
from lme4py.engine.identification.record import Identification
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["identify_glmm"]

# Rows whose columns are made at one time.
_ROWS = chunk(2**16)


def identify_glmm(problem: GlmmProblem, design: Design) -> Identification:
    """Look at the directions of the covariance of the linear predictor.

    Parameters
    ----------
    problem : GlmmProblem
    design : Design
        Of the problem.

    Raises
    ------
    DesignError
        As `lme4py.engine.identification.identify`.
    """
    if not problem.factors:
        return Identification()
    noise = problem.family.row_noise(problem.data)
    weights = None if noise is None else noise.weights
    size = float(problem.n_obs) if noise is None else noise.size
    codes, factors = problem.products.codes, problem.factors_at_start
    mix = None if weights is None else _orthonormal(_fixed(problem, slice(None)), weights, size)
    further = _further_columns(problem, weights, size)

    def blocks() -> Iterator[ModelBlock]:
        return (
            _row_block(problem, codes, weights, further, mix, d, place)
            for d in range(problem.stack.size)
            for place in row_blocks(problem.n_obs, _ROWS)
        )

    bases = [structure.directions() for structure in problem.structures.each]
    cross = accumulate(blocks(), factors)
    gram = gram_of(factors, bases, cross, make_probes(factors, blocks), size)
    if problem.stack.size > 1 and noise is not None:
        gram = _noise_of_first(problem, gram)
    return identify(gram, problem.S, design.terms, noise)


def _row_block(
    problem: GlmmProblem,
    codes: tuple[IntArray, ...],
    weights: FloatArray | None,
    further: list[FloatArray],
    mix: FloatArray | None,
    predictor: int,
    place: slice,
) -> ModelBlock:
    """Some rows of a predictor, with a response of zeros."""
    if problem.family.is_joint:
        return _joint_block(problem, codes, predictor, place)
    widths = [_fixed(problem, slice(0)).shape[1], *(own.shape[1] for own in further)]
    start = sum(widths[:predictor])
    if predictor:
        own = further[predictor - 1][place]
    else:
        X = _fixed(problem, place)
        own = X / problem.unit if mix is None else X @ mix
    XY = np.zeros((own.shape[0], sum(widths) + 1))
    XY[:, start : start + own.shape[1]] = own
    Z = tuple(block[place] for block in problem.products.blocks)
    units = problem.row_units
    if units is not None:
        # Columns without the units of several responses.
        XY, Z = XY / units[place, None], tuple(z / units[place, None] for z in Z)
    if problem.stack.size > 1:
        Z = tuple(z * (np.array(own) == predictor) for z, own in zip(Z, problem.products.places, strict=True))
    return ModelBlock(XY, tuple(c[place] for c in codes), Z, None if weights is None else weights[place])


def _joint_block(problem: GlmmProblem, codes: tuple[IntArray, ...], predictor: int, place: slice) -> ModelBlock:
    """Some rows of one of several predictors whose coefficients stand together."""
    n = problem.n_obs
    X = problem.X[predictor * n : (predictor + 1) * n][place]
    Z = tuple(block[place] for block in problem.products.blocks)
    Z = tuple(z * (np.array(own) == predictor) for z, own in zip(Z, problem.products.places, strict=True))
    return ModelBlock(np.hstack([X, np.zeros((X.shape[0], 1))]), tuple(c[place] for c in codes), Z, None)


def _further_columns(problem: GlmmProblem, weights: FloatArray | None, size: float) -> list[FloatArray]:
    """Fixed effects of the further predictors with random effects, orthonormal: X'WX = size I."""
    if problem.family.is_joint:
        return []
    by_name = {part.name: part.X for part in problem.data.parts}
    found = [by_name[name] for name in problem.family.stacked]
    one = np.ones(problem.n_obs) if weights is None else weights
    return [X @ _orthonormal(X, one, size) for X in found]


def _noise_of_first(problem: GlmmProblem, gram: VarianceGram) -> VarianceGram:
    """Noises of single rows are those of the first predictor: effects in others are no such noise."""
    plain, projected = gram.plain.copy(), gram.projected.copy()
    for i, direction in enumerate(gram.directions):
        mask = np.array(problem.products.places[direction.factor]) == 0
        if not mask[np.abs(direction.E).sum(axis=0) > 0.0].all():
            plain[i, -1] = plain[-1, i] = projected[i, -1] = projected[-1, i] = 0.0
    return replace(gram, plain=plain, projected=projected)


def _fixed(problem: GlmmProblem, place: slice) -> FloatArray:
    """Rows of X, with the constant where thresholds hold it."""
    X = problem.stack.first(problem.X)[place]
    return X if problem.shift is None else np.column_stack([np.full(X.shape[0], problem.unit), X])


def _orthonormal(X: FloatArray, weights: FloatArray, size: float) -> FloatArray:
    """A matrix that makes X'WX = size I."""
    if not X.shape[1]:
        return np.zeros((0, 0))
    gram = X.T @ (X * weights[:, None]) / size
    return np.linalg.inv(np.linalg.cholesky(gram)).T
