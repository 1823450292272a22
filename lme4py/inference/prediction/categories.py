"""Probabilities of categories with their gradients, for models whose categories depend on a row in several ways.

A row has D linear predictors, which the random effects are part of (one for ordered categories, one for each category
beside the baseline for unordered ones), and parameters beside them. The probability of category k is the likelihood of
a row that shows k, so that its gradient is that probability times the score of such a row. Averages over the random
effects are sums over a rule for their normal distribution in the D linear predictors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any, Final, cast

import numpy as np
from scipy import special

from lme4py.design.parts import new_parts
from lme4py.errors import OptionError
from lme4py.families.nuisance import as_columns
from lme4py.families.ordered.ordinal_parts import OrdinalParts
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.fits.steps import random_part
from lme4py.inference.prediction.averages import normal_rule
from lme4py.inference.prediction.predictor import included_variance
from lme4py.inference.prediction.rows import part_columns
from lme4py.linalg.types import BoolArray, FloatArray, SparseMatrix

__all__ = [
    "CategoryRows",
    "CategoryTable",
    "ModeErrors",
    "category_limits",
    "category_rows",
    "category_table",
    "home_rows",
    "mode_errors",
]

# Points of a product rule in each of D = 2, 3, ... dimensions; the error is far below that of any estimate.
_POINTS: Final = {2: 21, 3: 13, 4: 9}
_FEWEST: Final = 5
# Part of the variance that keeps the root of a singular one smooth.
_RIDGE: Final = 1e-14


@dataclass(frozen=True)
class CategoryRows:
    """Rows whose categories are predicted.

    Attributes
    ----------
    X : tuple of ndarray, each (n, p)
        Of the D linear predictors.
    known : ndarray, shape (D, n)
        Offsets, and conditional modes where these are added.
    data : ResponseData
        With the columns of further parts.
    spread : tuple of ndarray, each (D, n, k)
        Columns of the terms that are averaged over, predictor by predictor; their order is that of `terms`.
    terms : tuple of int
    effects : tuple of sparse matrix, each (n, Q)
        Of the D linear predictors: columns of the random effects whose conditional modes are added, where gradients in
        these are asked for.
    """

    X: tuple[FloatArray, ...]
    known: FloatArray
    data: ResponseData
    spread: tuple[FloatArray, ...] = ()
    terms: tuple[int, ...] = ()
    effects: tuple[SparseMatrix, ...] = ()

    @property
    def n(self) -> int:
        return int(self.known.shape[1])

    @property
    def mark(self) -> int:
        """A number that rows with other values do not have."""
        parts = [column for part in self.data.parts for column in (part.X, part.offset) if column is not None]
        return hash(tuple(array.tobytes() for array in (*self.X, self.known, *parts, *self.spread)))

    def take(self, rows: BoolArray | slice) -> CategoryRows:
        """Some of the rows."""
        return CategoryRows(
            tuple(X[rows] for X in self.X),
            self.known[:, rows],
            self.data.take(rows),
            tuple(z[:, rows] for z in self.spread),
            self.terms,
            tuple(z[rows] for z in self.effects),
        )

    def moved(self, effects: FloatArray | None) -> CategoryRows:
        """The rows with random effects that differ from their modes by `effects`, (Q,)."""
        if effects is None or not self.effects or not effects.any():
            return self
        return replace(self, known=self.known + np.stack([z @ effects for z in self.effects]))


@dataclass(frozen=True)
class CategoryTable:
    """Probabilities with gradients.

    Attributes
    ----------
    p : ndarray, shape (n, K)
    jacobian : ndarray, shape (n, K, q), or None
        In the coefficients (fixed effects, then what the family has beside them, as users know it), then theta.
    slopes : ndarray, shape (n, K, D), or None
        In the linear predictors.
    """

    p: FloatArray
    jacobian: FloatArray | None = None
    slopes: FloatArray | None = None

    def cumulative(self) -> CategoryTable:
        """P(Y <= k)."""
        sums = (None if part is None else np.cumsum(part, axis=1) for part in (self.jacobian, self.slopes))
        return CategoryTable(np.cumsum(self.p, axis=1), *sums)


@dataclass(frozen=True)
class ModeErrors:
    """What the errors of linear predictors with conditional modes are made of.

    Attributes
    ----------
    moved : tuple of ndarray, each (n, P)
        Of the D linear predictors: derivatives in the coefficients, with which the modes move.
    random : ndarray, shape (n, D, D)
        Covariance of what is left.
    """

    moved: tuple[FloatArray, ...]
    random: FloatArray


def category_rows(fit: Fit, rows: RowArrays, average: bool, keep: BoolArray | None = None) -> CategoryRows:
    """The rows of a prediction.

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        All rows, with the codes of the terms whose conditional modes are added.
    average : bool
        Over the random effects of all terms.
    keep : ndarray of bool, shape (n,), optional
        The rows that are complete.
    """
    design, homes = fit.design, fit.family.homes
    whole = np.ones(rows.n, dtype=bool) if keep is None else keep
    data = fit.data if rows.frame is None else new_parts(design, rows.frame, ResponseData(np.zeros(rows.n)))
    known = rows.offset.T.copy() if rows.offset.ndim == 2 else np.tile(rows.offset, (len(homes), 1))
    for t in rows.codes:
        known += _modes(fit, rows, t)
    terms = tuple(range(len(design.terms))) if average else ()
    spread = tuple(np.stack([part_columns(fit, t, home, rows) for home in homes]) for t in terms)
    X = tuple(rows.X for _ in homes)
    return CategoryRows(X, known, data, spread, terms).take(whole)


def _modes(fit: Fit, rows: RowArrays, t: int) -> FloatArray:
    """What the conditional modes of a term add to each linear predictor, (D, n)."""
    homes = fit.family.homes
    if rows.frame is None:
        modes = [fit.modes[t] if s == t else None for s in range(len(fit.design.terms))]
        return np.stack([random_part(fit.design, modes, home) for home in homes])
    codes = rows.codes[t]
    out = np.stack([np.einsum("nk,nk->n", part_columns(fit, t, home, rows), fit.modes[t][codes]) for home in homes])
    return np.where(codes >= 0, out, 0.0)


def home_rows(fit: Fit, rows: RowArrays) -> list[RowArrays]:
    """The rows once for each linear predictor, with all coefficients and the columns of its random effects.

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
        All rows, as `make_rows` has them.
    """
    homes, out = fit.family.homes, []
    for d, home in enumerate(homes):
        X = np.kron(np.eye(len(homes))[d], rows.X)
        offset = rows.offset[:, d] if rows.offset.ndim == 2 else rows.offset
        values = {t: part_columns(fit, t, home, rows) for t in rows.values}
        out.append(replace(rows, X=X, offset=offset, values=values))
    return out


def mode_errors(fit: Fit, each: Sequence[RowArrays]) -> ModeErrors:
    """Errors of the linear predictors of complete rows with conditional modes.

    Parameters
    ----------
    fit : Fit
    each : sequence of RowArrays, length D
    """
    joint = model_of(fit).joint_variance()

    def spread(own: RowArrays) -> tuple[FloatArray, FloatArray]:
        moved, random = joint.parts(own)
        return moved, random + included_variance(fit, own)

    found = [spread(own) for own in each]
    D = len(each)
    R = np.zeros((each[0].n, D, D))
    for d, e in combinations_with_replacement(range(D), 2):
        if d == e:
            R[:, d, d] = found[d][1]
            continue
        # 2 z'Kx = (z + x)'K(z + x) - z'Kz - x'Kx.
        both = replace(each[d], values={t: z + each[e].values[t] for t, z in each[d].values.items()})
        R[:, d, e] = R[:, e, d] = 0.5 * (spread(both)[1] - found[d][1] - found[e][1])
    return ModeErrors(tuple(moved for moved, _ in found), R)


def with_general_family(fit: Fit) -> Any:
    """The fit whose categories are computed as those of models with parts are, where its own are differences of means.

    Parameters
    ----------
    fit : Fit
    """
    family: Any = fit.family
    if not family.is_plain:
        return fit
    general = OrdinalParts(family.link, family.n_categories, family.threshold)
    return replace(cast("Any", fit), family=general)


def coefficients_of(fit: Fit) -> FloatArray:
    """Fixed effects and what the family has beside them, as users know it, (P,)."""
    cuts = np.zeros(0) if fit.thresholds is None else fit.thresholds
    return np.concatenate([fit.beta, fit.others, cuts])


def category_table(
    fit: Fit,
    rows: CategoryRows,
    gradient: bool = False,
    coefficients: FloatArray | None = None,
    theta: FloatArray | None = None,
    moved: Sequence[FloatArray] | None = None,
) -> CategoryTable:
    """P(Y = k) of rows; NaN where thresholds cross.

    Parameters
    ----------
    fit : Fit
    rows : CategoryRows
    gradient : bool
    coefficients : ndarray, shape (P,), optional
        Others than the estimates.
    theta : ndarray, shape (m,), optional
    moved : sequence of ndarray, each (n, P), optional
        Derivatives of the linear predictors in the coefficients, where modes move with these.
    """
    family: Any = fit.family
    P = coefficients_of(fit) if coefficients is None else coefficients
    p = fit.beta.size
    beta, lam = P[:p], _lam(family, P[p:])
    width = rows.X[0].shape[1]
    eta = rows.known + np.stack([X @ beta[d * width : (d + 1) * width] for d, X in enumerate(rows.X)])
    K = len(fit.categories)
    m = fit.theta.size
    total = np.zeros((rows.n, K))
    slopes = np.zeros((rows.n, K, P.size + m)) if gradient else None
    by_eta = np.zeros((rows.n, K, len(rows.X))) if gradient else None
    each = home_columns(rows.X, P.size) if moved is None else moved
    back = _back(family, P.size - p)
    for weight, shift, by_theta in _nodes(fit, rows, fit.theta if theta is None else theta, gradient):
        for k in range(K):
            own = family.derivatives(family.of_category(rows.data, k), (eta + shift).ravel(), lam, int(gradient))
            probability = weight * np.exp(own.loglik)
            total[:, k] += probability
            if slopes is None or by_eta is None:
                continue
            score = np.where(probability > 0.0, own.score.reshape(eta.shape), 0.0) * probability
            by_eta[:, k] += score.T
            for d, columns in enumerate(each):
                slopes[:, k, : P.size] += score[d][:, None] * columns
            if back is not None:
                inside = np.where((probability > 0.0)[:, None], as_columns(own.d_lam), 0.0)
                slopes[:, k, p : P.size] += probability[:, None] * (inside @ back)
            if by_theta is not None:
                slopes[:, k, P.size :] += np.einsum("dn,mdn->nm", score, by_theta)
    crossing = family.crossing(lam, rows.data)
    if crossing.any():
        total[crossing] = np.nan
    return CategoryTable(total, slopes, by_eta)


def home_columns(X: Sequence[FloatArray], size: int) -> list[FloatArray]:
    """Derivatives of each linear predictor in all coefficients, (n, P) each.

    Parameters
    ----------
    X : sequence of ndarray, each (n, p)
    size : int
        P.
    """
    out = []
    for d, own in enumerate(X):
        whole = np.zeros((own.shape[0], size))
        whole[:, d * own.shape[1] : (d + 1) * own.shape[1]] = own
        out.append(whole)
    return out


def _lam(family: Any, values: FloatArray) -> Any:
    """lambda from what users know it as."""
    if not family.has_thresholds:
        return 0.0
    q = family.n_coefficients
    return np.concatenate([values[:q], family.parameters(values[q:])])


def _back(family: Any, size: int) -> FloatArray | None:
    """From derivatives in lambda to those in what users know it as."""
    return np.linalg.pinv(family.user_matrix) if size else None


def _nodes(
    fit: Fit, rows: CategoryRows, theta: FloatArray, gradient: bool
) -> Iterator[tuple[float, FloatArray, FloatArray | None]]:
    """Weight, what is added to the linear predictors (D, n), and its derivatives in theta (m, D, n)."""
    if not rows.terms:
        yield 1.0, np.zeros_like(rows.known), None
        return
    V, slopes = _variances(fit, rows, theta)
    D = rows.known.shape[0]
    V = V + _RIDGE * np.eye(D) * max(float(np.trace(V, axis1=1, axis2=2).max(initial=0.0)), 1e-300)
    L: FloatArray = np.linalg.cholesky(V).astype(np.float64)
    dL = _root_slopes(L, slopes) if gradient else None
    points, weights = _rule(fit, rows, L)
    for x, weight in zip(points, weights.tolist(), strict=True):
        yield weight, np.einsum("nde,e->dn", L, x), None if dL is None else np.einsum("mnde,e->mdn", dL, x)


def _variances(fit: Fit, rows: CategoryRows, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Covariance of the random part of the linear predictors, (n, D, D), and its derivatives in theta, (m, n, D, D)."""
    structures = fit.design.structures
    D = rows.known.shape[0]
    V, slopes = np.zeros((rows.n, D, D)), []
    for t, z in zip(rows.terms, rows.spread, strict=True):
        own = theta[structures.slices[t]]
        structure, size = structures.each[t], fit.design.terms[t].level_variance
        V += size * np.einsum("dna,ab,enb->nde", z, structure.covariance(own), z)
        slopes += [size * np.einsum("dna,ab,enb->nde", z, S, z) for S in structure.covariance_tangents(own)]
    return V, np.array(slopes)


def _root_slopes(L: FloatArray, slopes: FloatArray) -> FloatArray:
    """Derivatives of the Cholesky factor from those of the matrix: L Phi(L^-1 dV L^-T) (Smith 1995)."""
    inverse = np.linalg.inv(L)
    inner = inverse @ slopes @ np.swapaxes(inverse, -1, -2)
    lower = np.tril(inner)
    place = np.arange(L.shape[-1])
    lower[..., place, place] *= 0.5
    return np.asarray(L @ lower)


def _rule(fit: Fit, rows: CategoryRows, L: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Nodes (Q, D) and weights (Q,) of a rule for standard normal variables."""
    D, family = L.shape[-1], cast("Any", fit.family)
    if D == 1:
        scale = float(np.max(np.abs(L), initial=0.0)) * family.widest(fit.lam, rows.data)
        nodes, weights = normal_rule(family.link, scale)
        return nodes[:, None], weights
    nodes, weights = special.roots_hermitenorm(_POINTS.get(D, _FEWEST))
    weights = weights / weights.sum()
    grids = np.meshgrid(*[nodes] * D, indexing="ij")
    products = np.meshgrid(*[weights] * D, indexing="ij")
    return np.stack([g.ravel() for g in grids], axis=1), np.prod([w.ravel() for w in products], axis=0)


def category_limits(
    fit: Fit, table: CategoryTable, z: float, random: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Limits of probabilities, normal on the logit scale, each (n, K).

    Parameters
    ----------
    fit : Fit
    table : CategoryTable
        With gradients.
    z : float
        Normal quantile.
    random : ndarray, shape (n, D, D), optional
        Covariance of the linear predictors beside what the coefficients move.
    """
    if table.jacobian is None or table.slopes is None:
        raise OptionError("limits need gradients.")
    V = coefficient_covariance(fit)
    variance = np.einsum("nki,ij,nkj->nk", table.jacobian, V, table.jacobian)
    if random is not None:
        variance = variance + np.einsum("nkd,nde,nke->nk", table.slopes, random, table.slopes)
    error = np.sqrt(np.maximum(variance, 0.0))
    p = np.clip(table.p, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = z * error / (p * (1.0 - p))
        low, high = special.expit(special.logit(p) - half), special.expit(special.logit(p) + half)
    certain = (p <= 0.0) | (p >= 1.0)
    return np.where(certain, p, low), np.where(certain, p, high)


def coefficient_covariance(fit: Fit) -> FloatArray:
    """Covariance of (coefficients, theta)."""
    V, m = model_of(fit).parameter_vcov(), fit.theta.size
    order = np.r_[m : V.shape[0], 0:m]
    moved: FloatArray = V[np.ix_(order, order)]
    return moved
