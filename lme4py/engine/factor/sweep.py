"""The blocked factor: elimination of grouping factors by sweeps, and its adjoint.

With V_s = W^-1 + sum over i <= s of Z_i Sigma_i Z_i', the sweep of factor s turns the cross-products
[Z X y]' V_{s-1}^-1 [Z X y] of all that remains into [Z X y]' V_s^-1 [Z X y]:

    A  <-  A - A_{.s} E A_{s.},      E = T (I + T' A_ss T)^-1 T' = (Sigma^-1 + A_ss)^-1,

which is the blocked Cholesky factorisation of Bates, Alday & Kokandakar (2025, arXiv 2505.11674) kept in
terms that stay finite when T is singular. The same sweeps backwards give derivatives (`lme4py.engine.factor.adjoint`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lme4py.chunks import chunk, from_size
from lme4py.engine.factor.adjoint import Adjoint, Wide, adjoint
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.dense_block import (
    BlockFactor,
    BlockValues,
    DenseFactor,
    base_block,
    is_invertible,
    scale_rows,
)
from lme4py.engine.factor.sparse_block import SparseFactor
from lme4py.engine.factor.symbolic import Stage, Structure
from lme4py.engine.factor.wide import subtract_gram
from lme4py.frozen import computed_once
from lme4py.linalg import small
from lme4py.linalg.memory import give_back_freed
from lme4py.linalg.types import FloatArray, LinearOperator, SparseMatrix, sparse, with_data

# The factor of a dense block with more rows gives way to its inverse while the criterion is optimised.
_SPEND_FROM = from_size(1000)
# Room is made for a block with more rows: pages that were handed back cost time when they are needed again.
_ROOM_FROM = from_size(3000)
# Levels that are worked on at one time where each is on its own.
_LEVELS = chunk(8192, 3)
# Elements of all blocks that are kept at one point: each of three arrays of them takes 32 MiB.
_KEPT = from_size(2**22, 40)


@dataclass(frozen=True)
class BaseValues:
    """Values before any elimination, in the layout of a `Structure`.

    Attributes
    ----------
    vector : ndarray, shape (n_values,)
    coupling : csr_array
        C of the first stage.
    products : csr_array
        P of the first stage, for this `coupling`.
    block : BlockValues
        What remains after the stages.
    diagonal : tuple of ndarray, each (k, k, J)
    border : tuple of ndarray, each (k J, c)
    corner : ndarray, shape (c, c)
    """

    vector: FloatArray
    coupling: SparseMatrix
    products: SparseMatrix | None
    block: BlockValues
    diagonal: tuple[FloatArray, ...]
    border: tuple[FloatArray, ...]
    corner: FloatArray

    @computed_once
    def coupling_operator(self) -> LinearOperator:
        """C for products with columns."""
        return LinearOperator.of(self.coupling)

    @computed_once
    def products_operator(self) -> LinearOperator | None:
        """P for products with vectors."""
        return None if self.products is None else LinearOperator.of(self.products)


def base_values(structure: Structure, factors: tuple[Factor, ...], cross: CrossProducts) -> BaseValues:
    """Lay out the cross-products for elimination."""
    vector = np.zeros(structure.n_values)
    for stage in structure.stages[1:]:
        f = stage.factor
        vector[structure.diagonal_slices[f]] = cross.diagonal[f].ravel()
        vector[structure.coupling_slices[f]] = stage.coupling.data
    block = base_block(structure, factors, cross)
    border = tuple(B.reshape(-1, B.shape[2]) for B in cross.border)
    if not structure.stages:
        return BaseValues(vector, sparse.csr_array((0, 0)), None, block, cross.diagonal, border, cross.corner)
    first = structure.stages[0]
    return BaseValues(vector, first.coupling, first.products, block, cross.diagonal, border, cross.corner)


@dataclass(frozen=True)
class SweptStage:
    """One eliminated factor at given T."""

    stage: Stage
    T: FloatArray
    A: FloatArray  # (k, k, J), before its own elimination
    coupling: SparseMatrix  # C, before its own elimination
    inverse: FloatArray  # (I + T'AT)^-1
    E: FloatArray  # (k, k, J)
    invertible: bool

    @computed_once
    def residual_map(self) -> FloatArray:
        """(I + A Sigma)^-1, shape (k, k, J): turns A_s. V_{s-1} products into V_s products."""
        if self.T.shape[0] == 1:
            return self.inverse
        if self.invertible:
            # T^-T M^-1 T' has no cancellation.
            return small.left(small.factor_inverse(self.T).T, small.right(self.inverse, self.T.T))
        return np.eye(self.T.shape[0])[:, :, None] - small.product(self.A, self.E)

    def take(self, levels: slice) -> SweptStage:
        """The same for some levels; the coupling is not cut."""
        if levels.stop - levels.start == self.E.shape[2]:
            return self
        parts = (self.A[:, :, levels], self.coupling, self.inverse[:, :, levels], self.E[:, :, levels])
        return SweptStage(self.stage, self.T, *parts, self.invertible)

    def pieces(self) -> Iterator[tuple[slice, SweptStage]]:
        """Some thousand levels at a time: what is computed from them stays in the cache of the processor."""
        for levels in level_slices(self.E.shape[2]):
            yield levels, self.take(levels)

    def residual(self, B: FloatArray) -> FloatArray:
        """(I + A Sigma)^-1 B for rows B of shape (k J, c)."""
        k, J = self.E.shape[0], self.E.shape[2]
        rows = B.reshape(k, J, -1)
        out = np.empty_like(rows)
        for levels, part in self.pieces():
            out[:, levels] = small.apply(part.residual_map, rows[:, levels])
        return out.reshape(k * J, -1)

    def apply_E(self, B: FloatArray) -> FloatArray:
        """E B for rows B of shape (k J, c)."""
        k, J = self.E.shape[0], self.E.shape[2]
        return small.apply(self.E, B.reshape(k, J, -1)).reshape(k * J, -1)


class LoneStage:
    """The only eliminated factor of a model, with many levels: its blocks are made when they are needed.

    They would be most of the memory of a fit with millions of levels; up to a size they are kept until `forget`, as
    half of the time of a fit is their making.

    Parameters
    ----------
    stage : Stage
    A : ndarray, shape (k, k, J)
    C : csr_array
        The coupling, which is empty.
    T : ndarray, shape (k, k)
    """

    def __init__(self, stage: Stage, A: FloatArray, C: SparseMatrix, T: FloatArray) -> None:
        self.stage, self.A, self.coupling, self.T = stage, A, C, T
        self.invertible = is_invertible(T)
        self._kept: list[tuple[slice, SweptStage, float]] = []

    def forget(self) -> None:
        """Free the memory of the blocks: they are made again when they are asked for."""
        self._kept = []

    @computed_once
    def whole(self) -> SweptStage:
        """All blocks at once."""
        return _sweep(self.stage, self.A, self.coupling, self.T)[0]

    def _made(self) -> Iterable[tuple[slice, SweptStage, float]]:
        """The blocks of some thousand levels at a time, and their log-determinants."""
        if self._kept:
            return self._kept
        slices = level_slices(self.A.shape[2])
        made = ((levels, *_sweep(self.stage, self.A[:, :, levels], self.coupling, self.T)) for levels in slices)
        if self.A.size > _KEPT:
            return made
        self._kept = list(made)
        return self._kept

    @property
    def inverse(self) -> FloatArray:
        """As in `SweptStage`."""
        return self.whole.inverse

    @property
    def E(self) -> FloatArray:
        """As in `SweptStage`."""
        return self.whole.E

    @property
    def residual_map(self) -> FloatArray:
        """As in `SweptStage`."""
        return self.whole.residual_map

    def pieces(self) -> Iterator[tuple[slice, SweptStage]]:
        """Some thousand levels at a time."""
        return ((levels, part) for levels, part, _ in self._made())

    def log_det(self) -> float:
        """log|I + T'A_j T|, summed over the levels."""
        return sum(own for *_, own in self._made())

    def residual(self, B: FloatArray) -> FloatArray:
        """(I + A Sigma)^-1 B for rows B of shape (k J, c)."""
        return self._by_pieces(B, lambda part: part.residual_map)

    def apply_E(self, B: FloatArray) -> FloatArray:
        """E B for rows B of shape (k J, c)."""
        return self._by_pieces(B, lambda part: part.E)

    def _by_pieces(self, B: FloatArray, blocks: Callable[[SweptStage], FloatArray]) -> FloatArray:
        k, J = self.A.shape[0], self.A.shape[2]
        rows = B.reshape(k, J, -1)
        out = np.empty_like(rows)
        for levels, part in self.pieces():
            out[:, levels] = small.apply(blocks(part), rows[:, levels])
        return out.reshape(k * J, -1)

    def cross(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """left' E right for rows of shape (k J, c) and (k J, d)."""
        k, J = self.A.shape[0], self.A.shape[2]
        first, second = left.reshape(k, J, -1), right.reshape(k, J, -1)
        total = np.zeros((first.shape[2], second.shape[2]))
        for levels, part in self.pieces():
            moved = small.apply(part.E, second[:, levels])
            total += first[:, levels].reshape(-1, total.shape[0]).T @ moved.reshape(-1, total.shape[1])
        return total


def level_slices(n_levels: int) -> Iterator[slice]:
    """Some thousand levels at a time: what is computed from them stays in the cache of the processor."""
    return (slice(start, min(start + _LEVELS, n_levels)) for start in range(0, n_levels, _LEVELS))


class Sweeper:
    """Elimination for one structure.

    Parameters
    ----------
    structure : Structure
    factors : tuple of Factor
    lean : bool
        The blocks of a large factor that is alone are not kept (see `LoneStage`).
    """

    def __init__(self, structure: Structure, factors: tuple[Factor, ...], lean: bool = False) -> None:
        alone = len(factors) == 1 and factors[0].n_levels > _LEVELS and factors[0].relation is None
        self.is_lean = lean and alone
        self.structure = structure
        self.factors = factors
        self.block_factors = tuple(factors[f] for f in structure.dense)

    def factorize(self, T: list[FloatArray], base: BaseValues) -> Swept:
        """Numeric step: eliminate all factors.

        Parameters
        ----------
        T : list of ndarray, each (k, k)
            One per grouping factor.
        base : BaseValues
            Constant in a linear model; new for every set of weights in a generalised one.
        """
        structure = self.structure
        if self.is_lean:
            lone = LoneStage(structure.stages[0], base.diagonal[0], base.coupling, T[0])
            return Swept(self, T, base, [lone], None, lone.log_det())
        if structure.dense_size > _ROOM_FROM:
            self._make_room()
        values = base.vector.copy()
        K = base.block.array()
        flat = K.reshape(-1)
        log_det = 0.0
        stages: list[SweptStage | LoneStage] = []
        for position, stage in enumerate(structure.stages):
            f = stage.factor
            if position == 0:
                A, C, P = base.diagonal[f], base.coupling, base.products
            else:
                A = values[structure.diagonal_slices[f]].reshape(base.diagonal[f].shape)
                data = values[structure.coupling_slices[f]]
                C = with_data(stage.coupling, data)
                P = stage.products
                if P is not None:
                    P = with_data(P, data[stage.first] * data[stage.second])
            swept, part = _sweep(stage, A, C, T[f])
            log_det += part
            stages.append(swept)
            if P is None:
                subtract_gram(stage.gram, C, T[f], swept.inverse, K)
            elif P.shape[1]:
                transposed = base.products_operator.transposed if position == 0 and base.products_operator else P.T
                change = transposed @ swept.E.ravel()
                values[stage.targets] -= change[: stage.targets.size]
                change = change[stage.targets.size :]
                flat[stage.dense_targets] -= change
        dense: BlockFactor | None = None
        if structure.dense_size:
            dense = self._factorize_block(K, [T[f] for f in structure.dense], base)
            log_det += dense.log_det
        return Swept(self, T, base, stages, dense, log_det)

    def _make_room(self) -> None:
        """Before a large dense block: make what else needs memory for a moment, and hand back what was freed."""
        for stage in self.structure.stages:
            if stage.products is None:
                stage.gram  # noqa: B018 - kept by the stage
        give_back_freed()

    def _factorize_block(self, K: FloatArray, T: list[FloatArray], base: BaseValues) -> BlockFactor:
        """Cholesky factor of I + Lambda'K Lambda; only the lower triangle of K is up to date."""
        if self.structure.sparse is not None:
            return SparseFactor(self.structure.sparse, T, K)
        # Without stages the block is the same at every T.
        rooted = None if self.structure.stages else base.block.rooted(self.block_factors)
        return DenseFactor(self.block_factors, T, K, rooted)

    def scale_rows(self, M: FloatArray, T: list[FloatArray], transpose: bool = True) -> FloatArray:
        """Lambda' M (or Lambda M) for the rows of the block; ``T`` by grouping factor."""
        return scale_rows(self.block_factors, [T[f] for f in self.structure.dense], M, transpose)

    def dense_border(self, border: list[FloatArray]) -> FloatArray:
        """Rows of the dense block taken out of the borders of all factors, (q, c)."""
        return np.concatenate([border[f] for f in self.structure.dense])


def _sweep(stage: Stage, A: FloatArray, C: SparseMatrix, T: FloatArray) -> tuple[SweptStage, float]:
    k = T.shape[0]
    M = small.congruence(T, A)
    for a in range(k):
        M[a, a] += 1.0
    log_det, inverse = small.spd_inverse(M)
    E = small.right(small.left(T, inverse), T.T) if k > 1 else inverse * T[0, 0] ** 2
    return SweptStage(stage, T, A, C, inverse, E, is_invertible(T)), log_det


@dataclass(frozen=True)
class SweptBorder:
    """Columns (such as X and y) carried through the elimination.

    Attributes
    ----------
    before : list of ndarray, each (k J, c)
        Cross-products of each stage's effects with the columns just before that stage is eliminated.
    scaled : list of ndarray
        E times `before`.
    dense : ndarray, shape (q, c), or None
    dense_scaled : ndarray, shape (q, c), or None
    alone : LoneStage or None
        The only stage, which makes `scaled` when it is needed; the list is empty then.
    """

    before: list[FloatArray]
    scaled: list[FloatArray]
    dense: FloatArray | None
    dense_scaled: FloatArray | None
    alone: LoneStage | None = None

    def cross(self, other: SweptBorder) -> FloatArray:
        """What elimination takes from the products of these columns with other ones, (c, d)."""
        if self.alone is not None:
            return self.alone.cross(self.before[0], other.before[0])
        pairs = zip(self.before, other.scaled, strict=True)
        total: FloatArray = sum((a.T @ b for a, b in pairs), np.zeros((self.width, other.width)))
        if self.dense is not None and other.dense_scaled is not None:
            total = total + self.dense.T @ other.dense_scaled
        return total

    @property
    def width(self) -> int:
        first = self.before[0] if self.before or self.dense is None else self.dense
        return int(first.shape[1])


class Swept:
    """The factor at one point: solves, and the adjoint.

    Parameters
    ----------
    sweeper : Sweeper
    T : list of ndarray
    base : BaseValues
    stages : list of SweptStage or LoneStage
    dense : BlockFactor or None
    log_det : float
        log|I + Lambda'Z'WZ Lambda|.

    Attributes
    ----------
    is_complete : bool
        False after `discard`, when there is nothing left to solve with.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        T: list[FloatArray],
        base: BaseValues,
        stages: list[SweptStage | LoneStage],
        dense: BlockFactor | None,
        log_det: float,
    ) -> None:
        self.sweeper = sweeper
        self.T = T
        self.base = base
        self.stages = stages
        self.dense = dense
        self.log_det = log_det
        self.is_complete = True

    # -- columns -------------------------------------------------------------------------------------------------

    def sweep_border(self, border: tuple[FloatArray, ...] | list[FloatArray]) -> SweptBorder:
        """Carry columns through the elimination.

        Parameters
        ----------
        border : sequence of ndarray, each (k J, c)
            Z_f'W times the columns, one per grouping factor.
        """
        structure = self.sweeper.structure
        if self.stages and isinstance(self.stages[0], LoneStage):
            return SweptBorder([border[0]], [], None, None, self.stages[0])
        current = list(border)
        before, scaled = [], []
        for position, swept in enumerate(self.stages):
            B = current[swept.stage.factor]
            EB = swept.apply_E(B)
            before.append(B)
            scaled.append(EB)
            slices = structure.remaining_slices[position]
            if slices:
                transposed = self.base.coupling_operator.transposed if position == 0 else swept.coupling.T
                change = transposed @ EB
                for f, place in slices.items():
                    current[f] = current[f] - change[place]
        if self.dense is None:
            return SweptBorder(before, scaled, None, None)
        B = self.sweeper.dense_border(current)
        return SweptBorder(before, scaled, B, self.dense.apply_E(B))

    def back_substitute(self, border: SweptBorder, weights: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """Conditional modes b and g = Z'V^-1 r of the combination ``columns @ weights``.

        Parameters
        ----------
        border : SweptBorder
        weights : ndarray, shape (c, d)
            For the residual y - X beta: (-beta, 1).

        Returns
        -------
        b, g : list of ndarray, each (k J, d), one per grouping factor
            b = Sigma g.
        """
        structure = self.sweeper.structure
        b: dict[int, FloatArray] = {}
        g: dict[int, FloatArray] = {}
        if self.dense is not None and border.dense is not None and border.dense_scaled is not None:
            all_b = border.dense_scaled @ weights
            all_g = self.dense.residual(border.dense @ weights, all_b)
            for f, start in zip(structure.dense, structure.dense_offsets, strict=True):
                rows = slice(start, start + self.sweeper.factors[f].size)
                b[f], g[f] = all_b[rows], all_g[rows]
        for position in range(len(self.stages) - 1, -1, -1):
            swept = self.stages[position]
            rest = border.before[position] @ weights
            slices = structure.remaining_slices[position]
            if slices:
                C = swept.coupling if position else self.base.coupling_operator.matrix
                rest = rest - C @ np.concatenate([b[f] for f in slices])
            f = swept.stage.factor
            b[f] = swept.apply_E(rest)
            g[f] = swept.residual(rest)
        order = range(len(self.sweeper.factors))
        return [b[f] for f in order], [g[f] for f in order]

    @property
    def largest_inverse(self) -> float:
        """The largest variance of a random effect given all later ones, relative to that before the data."""
        own = [float(stage.inverse.max()) for stage in self.stages]
        if self.dense is not None:
            own += [self.dense.largest_inverse(f) for f in range(len(self.sweeper.structure.dense))]
        return max(own, default=0.0)

    # -- adjoint -------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Forget the inverse of the dense block; it is made again when needed."""
        if self.dense is not None:
            self.dense.release()

    def spend(self) -> None:
        """The inverse of a large dense block may take the place of its factor: one matrix less in memory."""
        if self.dense is not None and self._is_large:
            self.dense.spend()

    def discard(self) -> None:
        """Forget the inverse of the dense block, and of a large one the factor too.

        `back_substitute` of columns that were swept before still works.
        """
        if self.dense is not None and self._is_large:
            self.dense.discard()
            self.is_complete = False
        for stage in self.stages:
            if isinstance(stage, LoneStage):
                stage.forget()
        self.release()

    @property
    def _is_large(self) -> bool:
        return self.sweeper.structure.dense_size > _SPEND_FROM

    def adjoint(
        self,
        border: SweptBorder,
        corner: FloatArray,
        blocks: bool = False,
        only_sigma: bool = False,
        wide: Wide | None = None,
    ) -> Adjoint:
        """Derivatives of log|M| + F: see `lme4py.engine.factor.adjoint.adjoint`."""
        return adjoint(self, border, corner, blocks, only_sigma, wide)
