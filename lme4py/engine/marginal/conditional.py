"""Random effects and residuals of other rows given responses: best linear unbiased prediction (Goldberger 1962, JASA
57:369; Robinson 1991, Stat. Sci. 6:15).

A quantity of another row, x'beta + t, whose random part t has the variance k and the covariances c with the responses,
is predicted by x'beta^ + c'V^-1(y - X beta^), with the error variance

    (x - X'V^-1c)' Var(beta^) (x - X'V^-1c)  +  k - c'V^-1c.

V is block diagonal by units, so that only the units enter that a row shares a level or a subject with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lme4py.chunks import chunk
from lme4py.design.residual.part import ResidualPart
from lme4py.engine.marginal.criterion import MarginalCriterion, MarginalPoint
from lme4py.engine.marginal.effects import inverse_root, residual_roots
from lme4py.engine.marginal.model import MarginalModel
from lme4py.engine.marginal.units import Batch
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["Conditional", "OtherRows", "conditional", "row_variances"]

# Numbers in the arrays of the rows that are worked on at a time.
_NUMBERS = chunk(4_000_000)


@dataclass(frozen=True)
class OtherRows:
    """Rows to predict, inside.

    Attributes
    ----------
    values : dict of int to ndarray, each (n, k)
        Columns of the random effects, by term, of the terms that take part.
    codes : dict of int to ndarray of int, each (n,)
        Their levels; -1 for a level without responses.
    residual : ResidualPart or None
        The residual of the row takes part, correlated with those of its subject (-1: with none).
    """

    values: dict[int, FloatArray]
    codes: dict[int, IntArray]
    residual: ResidualPart | None = None


@dataclass(frozen=True)
class Conditional:
    """What the responses say about other rows, inside.

    Attributes
    ----------
    mean : ndarray, shape (n,)
        c'V^-1(y - X beta).
    moved : ndarray, shape (n, p)
        X'V^-1c.
    variance : ndarray, shape (n,)
        k - c'V^-1c.
    residual : ndarray, shape (n,)
        The part of it that is left where the random effects are known as well; 0 without residuals.
    """

    mean: FloatArray
    moved: FloatArray
    variance: FloatArray
    residual: FloatArray


def conditional(criterion: MarginalCriterion, point: MarginalPoint, rows: OtherRows, n: int) -> Conditional:
    """The conditional distribution of random effects and residuals of n rows.

    Parameters
    ----------
    criterion : MarginalCriterion
        Of the rows with responses; V is that of `point`, which may be of other rows' beta.
    point : MarginalPoint
    rows : OtherRows
    n : int
    """
    model, par = criterion.model, point.par
    half = {t: Z @ model.random[t].structure.covariance(par[model.slices[t]]) for t, Z in rows.values.items()}
    prior = np.zeros(n) + sum(np.einsum("nk,nk->n", half[t], Z) for t, Z in rows.values.items())
    left = np.zeros(n)
    scale = np.zeros(n)
    if rows.residual is not None:
        scale, variance = row_variances(model, rows.residual, par)
        left, prior = variance.copy(), prior + variance
    out = Conditional(np.zeros(n), np.zeros((n, model.X.shape[1])), prior, left)
    error = model.y - model.X @ point.beta
    whitening = [] if rows.residual is None else [inverse_root(root) for root in residual_roots(criterion, point.par)]
    for b, batch, row, unit in _pairs(criterion, rows, n):
        places = batch.rows[unit]
        c = _of_effects(model, rows, half, row, places)
        inverse = point.inverse[b][batch.unit_class[unit]]
        if rows.residual is not None:
            e = _of_residuals(model, rows.residual, par, scale, row, places)
            c += e
            solved = np.einsum("mab,mb->ma", whitening[b][batch.unit_class[unit]], e)
            np.subtract.at(out.residual, row, np.sum(solved**2, axis=1))
        white = np.einsum("mab,mb->ma", inverse, c)
        weights = np.einsum("mba,mb->ma", inverse, white)
        np.subtract.at(out.variance, row, np.sum(white**2, axis=1))
        np.add.at(out.mean, row, np.einsum("ms,ms->m", weights, error[places]))
        np.add.at(out.moved, row, np.einsum("ms,msp->mp", weights, model.X[places]))
    return Conditional(out.mean, out.moved, np.maximum(out.variance, 0.0), np.maximum(out.residual, 0.0))


def row_variances(model: MarginalModel, part: ResidualPart, par: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What multiplies R, and the variance of the residual of each row, (n,) each.

    Parameters
    ----------
    model : MarginalModel
        Whose parameters these are.
    part : ResidualPart
        Inside.
    par : ndarray, shape (m,)
    """
    weights = 1.0 if part.weights is None else part.weights
    scale = np.exp(part.log_scale @ par[model.slices[-1]]) / np.sqrt(weights)
    variance = np.empty(len(scale))
    for h, structure in enumerate(part.structures):
        own = np.flatnonzero(part.stratum == h)
        points = part.points[own][:, None]
        at = points[..., 0] if points.shape[2] == 1 else points
        variance[own] = structure.covariance(par[model.slices[len(model.random) + h]], at)[:, 0, 0]
    return scale, scale**2 * variance


def _pairs(criterion: MarginalCriterion, rows: OtherRows, n: int) -> Iterator[tuple[int, Batch, IntArray, IntArray]]:
    """Rows with the units that they have something in common with: batch, rows and units in it, some at a time."""
    model = criterion.model
    starts = np.cumsum([0, *(len(batch.rows) for batch in criterion.batches)])
    unit_of = np.empty(model.y.size, dtype=np.intp)
    for start, batch in zip(starts, criterion.batches, strict=False):
        unit_of[batch.rows] = start + np.arange(len(batch.rows))[:, None]
    shared = [(model.random[t].codes, codes) for t, codes in rows.codes.items()]
    if rows.residual is not None:
        shared.append((model.residual.subject, rows.residual.subject))
    found = [_in_units(unit_of, own, codes) for own, codes in shared]
    keys = np.unique(np.concatenate([np.zeros(0, dtype=np.intp), *(unit * n + row for row, unit in found)]))
    unit, row = keys // max(n, 1), keys % max(n, 1)
    for b, batch in enumerate(criterion.batches):
        inside = slice(*np.searchsorted(unit, [starts[b], starts[b + 1]]))
        each = max(1, _NUMBERS // (batch.size * (batch.size + model.X.shape[1])))
        for first in range(inside.start, inside.stop, each):
            some = slice(first, min(first + each, inside.stop))
            yield b, batch, row[some], unit[some] - starts[b]


def _in_units(unit_of: IntArray, own: IntArray, codes: IntArray) -> tuple[IntArray, IntArray]:
    """Rows whose level has responses, and its unit."""
    unit = np.full(max(int(own.max()), int(codes.max(initial=0))) + 1, -1, dtype=np.intp)
    unit[own] = unit_of
    row = np.flatnonzero(codes >= 0)
    row = row[unit[codes[row]] >= 0]
    return row, unit[codes[row]]


def _of_effects(
    model: MarginalModel, rows: OtherRows, half: dict[int, FloatArray], row: IntArray, places: IntArray
) -> FloatArray:
    """Covariances of the random effects of rows with the responses at places, (m, s)."""
    c = np.zeros(places.shape)
    for t, codes in rows.codes.items():
        part = model.random[t]
        same = part.codes[places] == codes[row][:, None]
        c += same * np.einsum("msk,mk->ms", part.values[places], half[t][row])
    return c


def _of_residuals(
    model: MarginalModel, part: ResidualPart, par: FloatArray, scale: FloatArray, row: IntArray, places: IntArray
) -> FloatArray:
    """The same of the residuals."""
    own = model.residual
    weights = 1.0 if own.weights is None else own.weights[places]
    known = np.exp(own.log_scale[places] @ par[model.slices[-1]]) / np.sqrt(weights)
    same = (own.subject[places] == part.subject[row][:, None]) & (own.stratum[places] == part.stratum[row][:, None])
    points = np.concatenate([part.points[row][:, None], own.points[places]], axis=1)
    at = points[..., 0] if points.shape[2] == 1 else points
    R = np.zeros(places.shape)
    for h, structure in enumerate(own.structures):
        here = np.flatnonzero(part.stratum[row] == h)
        if here.size:
            theta = par[model.slices[len(model.random) + h]]
            R[here] = structure.covariance(theta, at[here])[:, 0, 1:]
    return np.asarray(same * scale[row][:, None] * known * R)
