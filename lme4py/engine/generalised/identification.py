"""Which covariance parameters of a generalised model the data tell apart.

The distribution of the responses depends on the random effects by the covariance of eta alone, so that the directions
Z E Z' decide as for a linear model, with all weights one. An effect of every row is a matter of the family: a normal
response, one 0/1 trial, or one category has a noise of its own whose covariance is diagonal too (that of the latent
variable where the response is 0/1 or ordered), and nothing in the data divides the two.
"""

from __future__ import annotations

import numpy as np

from lme4py.chunks import chunk
from lme4py.design.design import Design
from lme4py.engine.factor.crossproducts import ModelBlock, accumulate
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.identification.gram import variance_gram
from lme4py.engine.identification.identify import identify
from lme4py.engine.identification.record import Identification
from lme4py.engine.linear.scaling import row_blocks
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
    noise = problem.family.row_noise(problem.data)
    weights = None if noise is None else noise.weights
    size = float(problem.n_obs) if noise is None else noise.size
    codes = tuple(design.terms[factor.terms[0]].codes for factor in problem.factors)
    mix = None if weights is None else _orthonormal(problem, weights, size)
    blocks = (_row_block(problem, codes, weights, mix, place) for place in row_blocks(problem.n_obs, _ROWS))
    bases = [structure.directions() for structure in problem.structures.each]
    gram = variance_gram(problem.factors, bases, accumulate(blocks, problem.factors), size)
    return identify(gram, problem.S, design.terms, noise)


def _row_block(
    problem: GlmmProblem, codes: tuple[IntArray, ...], weights: FloatArray | None, mix: FloatArray | None, place: slice
) -> ModelBlock:
    """Some rows, with a response of zeros."""
    X = _fixed(problem, place)
    XY = np.zeros((X.shape[0], X.shape[1] + 1))
    XY[:, :-1] = X / problem.unit if mix is None else X @ mix
    Z = tuple(block[place] for block in problem.products.blocks)
    return ModelBlock(XY, tuple(c[place] for c in codes), Z, None if weights is None else weights[place])


def _fixed(problem: GlmmProblem, place: slice) -> FloatArray:
    """Rows of X, with the constant where thresholds hold it."""
    X = problem.X[place]
    return X if problem.shift is None else np.column_stack([np.full(X.shape[0], problem.unit), X])


def _orthonormal(problem: GlmmProblem, weights: FloatArray, size: float) -> FloatArray:
    """A matrix that makes X'WX = size I."""
    X = _fixed(problem, slice(None))
    gram = X.T @ (X * weights[:, None]) / size
    return np.linalg.inv(np.linalg.cholesky(gram)).T
