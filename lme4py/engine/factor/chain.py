"""The factor of a model with a term of many times, whose levels are eliminated first in O(m).

With Sigma = s^2 R of the m levels of a chain (`lme4py.covariance.chain_levels`), A the diagonal matrix Z'WZ of its
levels and C their products with all other effects,

    G = s^2 A + R^-1   (tridiagonal),    U = G^-1 C,    K = Z_r'WZ_r - s^2 C'U,
    log|M| = log|G| + log|R| + log|I + Lambda_r'K Lambda_r|,

which stays valid at s = 0. What remains is one dense block, as in `lme4py.engine.factor.dense_block`. With
H = R Z'V^-1 B of columns B, derivatives in the elements of R^-1 are those of G^-1 on its pattern and sums of products
of rows of H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.covariance.chain_levels import ChainLevels
from lme4py.covariance.relations.chains import ChainRelation
from lme4py.engine.factor.adjoint import Adjoint
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.dense_block import DenseFactor, base_block, block_products
from lme4py.engine.factor.forecast import check_memory
from lme4py.engine.factor.layout import Structure
from lme4py.engine.factor.pattern import cross_block
from lme4py.engine.factor.sweep import BaseValues, SweptBorder
from lme4py.frozen import computed_once
from lme4py.linalg.tridiagonal import Tridiagonal
from lme4py.linalg.types import FloatArray, sparse

__all__ = ["ChainSweeper", "ChainSwept", "as_chain", "chain_base", "chain_structure"]

# Dense matrices with a row for each level and a column for each other effect that are alive at one time.
_COPIES = 4


def chain_structure(factors: tuple[Factor, ...], chain: int) -> Structure:
    """The layout: all factors but the chain are one dense block.

    Parameters
    ----------
    factors : tuple of Factor
    chain : int
        Position of the chain among them.

    Raises
    ------
    DesignError
        What the other effects need beside the chain does not fit into memory.
    """
    rest = [f for f in range(len(factors)) if f != chain]
    ends = np.cumsum([0] + [factors[f].size for f in rest])
    q, own = int(ends[-1]), factors[chain]
    names = ", ".join(f"{factors[f].name} ({factors[f].size:,})" for f in rest)
    check_memory(
        8.0 * q * (_COPIES * own.size + _COPIES * q),
        f"the {own.size:,} pairs of a level and a time of {own.name} beside the random effects of {names} need blocks "
        f"of {own.size:,} x {q:,} numbers",
    )
    return Structure((), tuple(rest), tuple(int(end) for end in ends[:-1]), q, {}, {}, 0, ())


def chain_base(structure: Structure, factors: tuple[Factor, ...], cross: CrossProducts, chain: int) -> BaseValues:
    """The values before any elimination; `coupling` are the products of the chain with all other effects.

    Parameters
    ----------
    structure : Structure
    factors : tuple of Factor
    cross : CrossProducts
    chain : int
    """
    rows, columns, values = [np.zeros(0, dtype=np.intp)], [np.zeros(0, dtype=np.intp)], [np.zeros(0)]
    for f, start in zip(structure.dense, structure.dense_offsets, strict=True):
        block = cross_block(cross, chain, f)
        for b in range(factors[f].n_columns):
            rows.append(block.rows)
            columns.append(start + b * factors[f].n_levels + block.columns)
            values.append(block.values[0, b])
    index = (np.concatenate(rows), np.concatenate(columns))
    shape = (factors[chain].size, structure.dense_size)
    coupling = sparse.coo_array((np.concatenate(values), index), shape=shape).tocsr()
    border = tuple(B.reshape(-1, B.shape[2]) for B in cross.border)
    block_values = base_block(structure, factors, cross)
    return BaseValues(np.zeros(0), coupling, None, block_values, cross.diagonal, border, cross.corner)


def as_chain(swept: object) -> ChainSwept | None:
    """The factor, where it is that of a model with a chain; None for another one.

    Parameters
    ----------
    swept : Swept or ChainSwept
    """
    return swept if isinstance(swept, ChainSwept) else None


class ChainSweeper:
    """Elimination of a chain and of the block that remains.

    Parameters
    ----------
    structure : Structure
    factors : tuple of Factor
    chain : int
    levels : ChainLevels
    """

    def __init__(self, structure: Structure, factors: tuple[Factor, ...], chain: int, levels: ChainLevels) -> None:
        self.structure, self.factors, self.chain, self.levels = structure, factors, chain, levels
        self.block_factors = tuple(factors[f] for f in structure.dense)

    def factorize(self, T: Sequence[FloatArray], base: BaseValues) -> ChainSwept:
        """Numeric step.

        Parameters
        ----------
        T : sequence of ndarray
            One per grouping factor; that of the chain is (s, phi).
        base : BaseValues
        """
        return ChainSwept(self, list(T), base)


class ChainSwept:
    """The factor at one point, as `lme4py.engine.factor.sweep.Swept`.

    Parameters
    ----------
    sweeper : ChainSweeper
    T : list of ndarray
    base : BaseValues

    Attributes
    ----------
    relation : ChainRelation
    log_det : float
        log|I + Lambda'Z'WZ Lambda|, with roots of the known covariances in Lambda.
    is_complete : bool
    """

    is_complete = True

    def __init__(self, sweeper: ChainSweeper, T: list[FloatArray], base: BaseValues) -> None:
        self.sweeper, self.T, self.base = sweeper, T, base
        row = T[sweeper.chain][0]
        self.s = float(row[0])
        self.relation: ChainRelation = sweeper.levels.relation(row)
        self.A = base.diagonal[sweeper.chain][0, 0]
        diagonal, below = self.relation.inverse
        self.tridiagonal = Tridiagonal(self.s**2 * self.A + diagonal, below)
        self.log_det = self.tridiagonal.log_det + self.relation.log_det
        self.dense: DenseFactor | None = None
        self.C = base.coupling
        self.U = self.tridiagonal.solve(self.C.toarray())
        if sweeper.structure.dense_size:
            K = base.block.array() - self.s**2 * (self.C.T @ self.U)
            self.dense = DenseFactor(sweeper.block_factors, [T[f] for f in sweeper.structure.dense], K)
            self.log_det += self.dense.log_det
        if not np.isfinite(self.log_det):
            raise np.linalg.LinAlgError("the factor is not positive definite")

    # -- columns -------------------------------------------------------------------------------------------------

    def sweep_border(self, border: Sequence[FloatArray]) -> SweptBorder:
        """Carry columns through the elimination; see `lme4py.engine.factor.sweep.Swept.sweep_border`."""
        B = border[self.sweeper.chain]
        scaled = self.s**2 * self.tridiagonal.solve(B)
        if self.dense is None:
            return SweptBorder([B], [scaled], None, None)
        rest = np.concatenate([border[f] for f in self.sweeper.structure.dense]) - self.C.T @ scaled
        return SweptBorder([B], [scaled], rest, self.dense.apply_E(rest))

    def back_substitute(self, border: SweptBorder, weights: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """Conditional modes b and g = Z'V^-1 r of the combination ``columns @ weights``, by grouping factor."""
        b, g, h = self.solved(border, weights)
        chain = self.sweeper.chain
        b[chain], g[chain] = self.s**2 * h, self.relation.solve(h)
        order = range(len(self.sweeper.factors))
        return [b[f] for f in order], [g[f] for f in order]

    def solved(
        self, border: SweptBorder, weights: FloatArray
    ) -> tuple[dict[int, FloatArray], dict[int, FloatArray], FloatArray]:
        """b and g of all factors but the chain, and h = R Z'V^-1 r of the chain, of ``columns @ weights``."""
        b: dict[int, FloatArray] = {}
        g: dict[int, FloatArray] = {}
        right = border.before[0] @ weights
        if self.dense is not None and border.dense is not None and border.dense_scaled is not None:
            all_b = border.dense_scaled @ weights
            all_g = self.dense.residual(border.dense @ weights, all_b)
            for f, rows in self._places():
                b[f], g[f] = all_b[rows], all_g[rows]
            right = right - self.C @ all_b
        return b, g, self.tridiagonal.solve(right)

    def _places(self) -> list[tuple[int, slice]]:
        """The rows of the dense block of each factor."""
        structure = self.sweeper.structure
        pairs = zip(structure.dense, structure.dense_offsets, strict=True)
        return [(f, slice(start, start + self.sweeper.factors[f].size)) for f, start in pairs]

    def at_all_times(self, rows: FloatArray) -> FloatArray:
        """Rows of the levels among those of every group at every time, with zeros for the others."""
        layout = self.sweeper.levels.layout
        out = np.zeros((layout.n_groups * layout.n_columns, *rows.shape[1:]))
        out[layout.flat] = rows
        return out

    def completed(self) -> ChainSwept:
        """The same with a level for every group at every time: what is known of times without rows too."""
        sweeper, base, chain = self.sweeper, self.base, self.sweeper.chain
        levels = sweeper.levels.everywhere
        place, size, spread = sweeper.levels.layout.flat, levels.layout.size, self.at_all_times
        factors = tuple(replace(own, n_levels=size) if f == chain else own for f, own in enumerate(sweeper.factors))
        diagonal = tuple(spread(own[0, 0])[None, None] if f == chain else own for f, own in enumerate(base.diagonal))
        border = tuple(spread(own) if f == chain else own for f, own in enumerate(base.border))
        table = base.coupling.tocoo()
        coupling = sparse.coo_array((table.data, (place[table.row], table.col)), shape=(size, table.shape[1])).tocsr()
        moved = replace(base, diagonal=diagonal, border=border, coupling=coupling)
        return ChainSwept(ChainSweeper(sweeper.structure, factors, chain, levels), self.T, moved)

    # -- memory --------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Forget the inverse of the dense block; it is made again when needed."""
        if self.dense is not None:
            self.dense.release()

    def spend(self) -> None:
        """Nothing: the block is small."""

    def discard(self) -> None:
        """As `release`."""
        self.release()

    @property
    def largest_inverse(self) -> float:
        """The largest variance of an effect of the chain given all others, relative to that before the data."""
        return float(self.tridiagonal.inverse_elements[0].max())

    # -- derivatives ---------------------------------------------------------------------------------------------

    @computed_once
    def _spread(self) -> FloatArray:
        """U L with L L' = E of the block that remains, (m, q): its square times s^4 is added to E of the chain."""
        if self.dense is None:
            return np.zeros((self.A.size, 0))
        E = self.rest_covariance
        values, vectors = np.linalg.eigh(0.5 * (E + E.T))
        out: FloatArray = self.U @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        return out

    def on_pattern(self, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sums over columns of products of rows, on the pattern of R^-1: its diagonal and twice what is below it."""
        own = np.einsum("mc,mc->m", left, right)
        below = np.einsum("mc,mc->m", left[1:], right[:-1]) + np.einsum("mc,mc->m", left[:-1], right[1:])
        return own, below

    @computed_once
    def prior_derivative(self) -> tuple[FloatArray, FloatArray]:
        """Derivative of log|M| - log|R| in the elements of R^-1: (G^-1 + s^2 U E U') on its pattern."""
        diagonal, below = self.tridiagonal.inverse_elements
        own, off = self.on_pattern(self._spread, self._spread)
        return diagonal + self.s**2 * own, 2.0 * below + self.s**2 * off

    @computed_once
    def effect_variances(self) -> FloatArray:
        """Diagonal of Lambda M^-1 Lambda' of the chain, (m,)."""
        own: FloatArray = self.s**2 * self.prior_derivative[0]
        return own

    def log_det_sigma(self) -> list[FloatArray]:
        """Derivatives of log|M| in Sigma of each factor, (k, k); of the chain in s^2 and phi, (1, 2)."""
        sigma = {self.sweeper.chain: self.log_det_row()}
        if self.dense is not None:
            sigma |= {f: self.dense.sigma_gradient(position) for position, (f, _) in enumerate(self._places())}
        return [sigma[f] for f in range(len(self.sweeper.factors))]

    def log_det_row(self) -> FloatArray:
        """Derivatives of log|M| in s^2 and in phi, shape (1, 2)."""
        own, below = self.prior_derivative
        # G^-1 (s^2 A + R^-1) = I, so that tr(Z'V^-1 Z R) = sum of A times the diagonal of G^-1, less the block's part.
        spread = self._spread
        through = np.einsum("mc,mc->", spread, self.relation.solve(spread))
        variance = float(self.tridiagonal.inverse_elements[0] @ self.A) - float(through)
        slope, off = self.relation.inverse_slope
        return np.array([[variance, float(own @ slope + below @ off) + self.relation.log_det_slope]])

    def adjoint(
        self, border: SweptBorder, corner: FloatArray, blocks: bool = False, only_sigma: bool = False
    ) -> Adjoint:
        """Derivatives of log|M| + F in the covariances: see `lme4py.engine.factor.adjoint.adjoint`."""
        sigma = self.log_det_sigma()
        right = border.before[0]
        if self.dense is not None and border.dense is not None and border.dense_scaled is not None:
            NB = self.dense.residual(border.dense, border.dense_scaled)
            for f, rows in self._places():
                factor = self.sweeper.factors[f]
                own = block_products(NB[rows] @ corner, NB[rows], factor.n_columns, factor.n_levels).sum(axis=2)
                sigma[f] = sigma[f] - own
            right = right - self.C @ border.dense_scaled
        H = self.tridiagonal.solve(right)
        chain = self.sweeper.chain
        sigma[chain] = sigma[chain] + self._quadratic_row(H, corner)
        order = range(len(self.sweeper.factors))
        return Adjoint(sigma, [] if only_sigma else [self._diagonal(f, border, H, corner) for f in order])

    def _diagonal(self, f: int, border: SweptBorder, H: FloatArray, corner: FloatArray) -> FloatArray:
        """Derivatives in the diagonal blocks of Z'WZ of a factor, (k, k, J)."""
        factor = self.sweeper.factors[f]
        scaled = self.s**2 * H
        if f != self.sweeper.chain:
            assert border.dense_scaled is not None
            scaled = border.dense_scaled[dict(self._places())[f]]
        return self.effect_blocks(f) + block_products(scaled @ corner, scaled, factor.n_columns, factor.n_levels)

    def _quadratic_row(self, H: FloatArray, corner: FloatArray) -> FloatArray:
        """Derivatives in s^2 and phi of a function of [X y]'V^-1[X y] with the derivative `corner`, shape (1, 2)."""
        weighted = H @ corner
        variance = -float(np.vdot(weighted, self.relation.solve(H)))
        phi = self.s**2 * float(np.vdot(weighted, self.relation.slope_times(H)))
        return np.array([[variance, phi]])

    def moved(self, h: FloatArray) -> FloatArray:
        """dSigma g in (s, phi), from h = R g; shape (m, 2)."""
        return np.column_stack([2.0 * self.s * h, self.s**2 * self.relation.moved(h)])

    def forms(self, g: FloatArray) -> FloatArray:
        """g'dSigma g in the variance s^2 and in phi, for g of shape (m, 1); shape (1, 2)."""
        h = self.relation.times(g)
        return np.array([[float(np.vdot(g, h)), self.s**2 * float(np.vdot(g, self.relation.moved(h)))]])

    def changed_products(self, U: FloatArray) -> FloatArray:
        """U'dSigma U in s and in phi, shape (2, c, c), for U of shape (m, c)."""
        H = self.relation.times(U)
        return np.array([2.0 * self.s * U.T @ H, self.s**2 * U.T @ self.relation.moved(H)])

    @computed_once
    def covariance_on_pattern(self) -> Any:
        """Lambda M^-1 Lambda' of the chain on the pattern of R^-1, as a sparse matrix (m, m)."""
        own, below = self.prior_derivative
        parts: Any = [self.s**2 * own, 0.5 * self.s**2 * below, 0.5 * self.s**2 * below]
        return sparse.diags_array(parts, offsets=[0, -1, 1]).tocsr()

    @computed_once
    def rest_covariance(self) -> FloatArray:
        """E of the block that remains, (q, q)."""
        q = self.sweeper.structure.dense_size
        return np.zeros((0, 0)) if self.dense is None else self.dense.apply_E(np.eye(q))

    @computed_once
    def covariance_with_rest(self) -> FloatArray:
        """Lambda M^-1 Lambda' between the chain and all other effects, (m, q)."""
        return np.asarray(-(self.s**2) * self.U @ self.rest_covariance)

    def group_blocks(self) -> FloatArray:
        """Lambda M^-1 Lambda' of the chain within each group of one with all times, (J, k, k)."""
        layout = self.sweeper.levels.layout
        J, k = layout.n_groups, layout.n_columns
        check_memory(16.0 * J * k * k, f"the covariances of the effects of {J:,} groups at {k:,} times need memory")
        inverse = self.tridiagonal.solve(np.tile(np.eye(k), (J, 1))).reshape(J, k, k)
        spread = self._spread.reshape(J, k, -1)
        return np.asarray(self.s**2 * (inverse + self.s**2 * spread @ spread.swapaxes(1, 2)))

    def effect_blocks(self, f: int) -> FloatArray:
        """Diagonal blocks of Lambda M^-1 Lambda' of a factor, (k, k, J)."""
        if f == self.sweeper.chain:
            return self.effect_variances[None, None]
        if self.dense is None:
            raise ValueError("there is no dense block")
        return self.dense.effect_blocks(self.sweeper.structure.dense.index(f))
