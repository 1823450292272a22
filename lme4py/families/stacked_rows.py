"""Derivatives of rows in several linear predictors, one below the other, as the engine has them."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Any, Final

import numpy as np

from lme4py.families.densities.base import Density
from lme4py.families.densities.calculus.jets import Index, degrees_of
from lme4py.families.densities.calculus.rows import partials
from lme4py.families.nuisance import NuisanceColumns, StackedColumns
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, Order
from lme4py.linalg.types import FloatArray

__all__ = ["curve_of_pieces", "positive_blocks", "stacked_derivatives"]

# Curvatures of a row count with their size, and at least with this part of the largest of the row.
_LEAST: Final = 0.05

# Variable of the density and columns of each block of lambda.
Pieces = list[tuple[int, FloatArray | None]]


def stacked_derivatives(
    density: Density, data: ResponseData, x: list[FloatArray], own: tuple[int, ...], pieces: Pieces, order: Order
) -> EtaDerivatives:
    """Log-likelihood of each row with its derivatives in several variables.

    Parameters
    ----------
    density : Density
    data : ResponseData
        n rows.
    x : list of ndarray
        Variables of the density.
    own : tuple of int, length D
        The variables with a place in the stack.
    pieces : list of (int, ndarray or None)
    order : {0, 1, 2, 3}

    Returns
    -------
    EtaDerivatives
        `score` of shape (D n,), weights of shape (n_pairs n,), and `dw_obs` (D, n_pairs n).
    """
    lam = tuple(dict.fromkeys(i for i, _ in pieces)) if order in (1, 3) else ()
    active = tuple(sorted({*own, *lam}))
    found = partials(density, data, x, degrees_of(order, active))
    if order == 0:
        return EtaDerivatives(found[()])
    columns = tuple(X for _, X in pieces)

    def at(*index: int) -> FloatArray:
        return found[tuple(sorted(index))]

    nuisance: dict[str, Any] = {"d_lam": NuisanceColumns(tuple(at(i) for i, _ in pieces), columns)} if lam else {}
    score = np.concatenate([at(d) for d in own], axis=-1)
    if order == 1:
        return EtaDerivatives(found[()], score, **nuisance)
    pairs = [*((d, d) for d in own), *((d, e) for k, d in enumerate(own) for e in own[k + 1 :])]
    w_obs = -np.concatenate([at(d, e) for d, e in pairs], axis=-1)
    rows: dict[str, Any] = {"score": score, "w_obs": w_obs, "working": partial(positive_blocks, w_obs, len(own))}
    if order == 2:
        return EtaDerivatives(found[()], **rows)
    rows["dw_obs"] = -np.array([np.concatenate([at(c, d, e) for d, e in pairs], axis=-1) for c in own])
    if pieces:
        score_lam = tuple(np.array([at(d, i) for d in own]) for i, _ in pieces)
        w_lam = tuple(-np.array([at(d, e, i) for d, e in pairs]) for i, _ in pieces)
        rows |= {
            **nuisance,
            "score_lam": StackedColumns(score_lam, columns),
            "w_obs_lam": StackedColumns(w_lam, columns),
            "curve_lam": curve_of_pieces(found, pieces) if x[0].ndim == 1 else None,
        }
    return EtaDerivatives(found[()], **rows)


def curve_of_pieces(found: dict[Index, FloatArray], pieces: Pieces) -> FloatArray:
    """-d2l / dlambda2 summed over the rows, shape (d, d).

    Parameters
    ----------
    found : dict of tuple of int to ndarray
        Derivatives of rows.
    pieces : list of (int, ndarray or None)
        Variable and columns of each block of lambda; None for a parameter that all rows share.
    """
    ends = [0, *accumulate(1 if X is None else X.shape[1] for _, X in pieces)]
    out = np.empty((ends[-1], ends[-1]))
    for a, (i, X) in enumerate(pieces):
        for b, (j, Y) in enumerate(pieces[: a + 1]):
            rows, columns = slice(ends[a], ends[a + 1]), slice(ends[b], ends[b + 1])
            block = -_summed(found[(j, i) if j < i else (i, j)], X, Y)
            out[rows, columns] = block
            if a != b:
                out[columns, rows] = block.T
    return out


def _summed(part: FloatArray, X: FloatArray | None, Y: FloatArray | None) -> FloatArray:
    """X' diag(part) Y; None is a column of ones."""
    if X is None:
        return np.array([[part.sum()]]) if Y is None else (part @ Y)[None]
    summed: FloatArray = X.T @ (part[:, None] if Y is None else part[:, None] * Y)
    return summed


def positive_blocks(w: FloatArray, size: int) -> FloatArray:
    """Symmetric blocks of rows with the sizes of their eigenvalues.

    Parameters
    ----------
    w : ndarray, shape (n_pairs n,), or (B, n_pairs n) of B points
        Elements of the blocks: the diagonals, then what stands above them.
    size : int
        D.
    """
    if w.ndim > 1:
        return np.array([positive_blocks(own, size) for own in w])
    parts = np.nan_to_num(w.reshape(size * (size + 1) // 2, -1), nan=0.0, posinf=0.0, neginf=0.0)
    if size == 2:
        return _positive_pairs(*parts)
    upper = np.triu_indices(size, 1)
    blocks = np.zeros((parts.shape[1], size, size))
    blocks[:, np.arange(size), np.arange(size)] = parts[:size].T
    blocks[:, upper[0], upper[1]] = blocks[:, upper[1], upper[0]] = parts[size:].T
    values, vectors = np.linalg.eigh(blocks)
    sizes = np.abs(values)
    sizes = np.maximum(sizes, _LEAST * sizes.max(axis=1, keepdims=True))
    full = np.einsum("nab,nb,ncb->nac", vectors, sizes, vectors)
    diagonal = full[:, np.arange(size), np.arange(size)].T
    return np.concatenate([diagonal.ravel(), full[:, upper[0], upper[1]].T.ravel()])


def _positive_pairs(a: FloatArray, c: FloatArray, b: FloatArray) -> FloatArray:
    """The same for blocks [[a, b], [b, c]], whose eigenvalues are m + r and m - r."""
    m, half = 0.5 * (a + c), 0.5 * (a - c)
    r = np.hypot(half, b)
    high, low = np.abs(m + r), np.abs(m - r)
    least = _LEAST * np.maximum(high, low)
    high, low = np.maximum(high, least), np.maximum(low, least)
    middle, slope = 0.5 * (high + low), 0.5 * (high - low) / np.where(r > 0.0, r, 1.0)
    return np.concatenate([middle + slope * half, middle - slope * half, slope * b])
