"""The profiled criterion of a linear mixed model, its gradient and an approximate Hessian.

    -2 log L(theta)   = log|M| + n   (1 + log(2 pi r2 / n))     - sum(log w)                    (ML)
    REML criterion    = log|M| + log|X'V^-1X| + (n-p) (1 + log(2 pi r2 / (n-p))) - sum(log w)   (REML)

with M = I + Lambda'Z'WZ Lambda and r2 the penalised residual sum of squares (Bates et al. 2015, JSS 67(1),
eqs. 34 and 41). Everything happens in the scaled columns of `lme4py.engine.linear.scaling`; the value is on the
user's scale.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log, pi
from typing import Any

import numpy as np
import scipy.linalg
import scipy.linalg.lapack as lapack

from lme4py.chunks import chunk, from_size
from lme4py.covariance import CovarianceStructures
from lme4py.design.absent import AbsentRows
from lme4py.design.design import Design, Predictor
from lme4py.engine.factor.crossproducts import CrossProducts, Edges, Factor, ModelBlock, SortedEdges, accumulate
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.factor.sweep import BaseValues, Sweeper, Swept, SweptBorder, base_values
from lme4py.engine.factor.symbolic import Structure, analyse, prefers_iterative
from lme4py.engine.identification.gram import VarianceGram
from lme4py.engine.identification.probes import Probes, gram_of, make_probes
from lme4py.engine.linear.priors import LinearPriors, linear_priors
from lme4py.engine.linear.scaling import ScaledColumns, Scaling, constant_column, plan_scaling, row_blocks
from lme4py.engine.optimise import Block
from lme4py.errors import DesignError, Lme4Error, OptionError
from lme4py.frozen import computed_once
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray, LinearOperator, SparseMatrix, sparse

# With more products than this, the change of the dense block is made by matrix products.
_MAX_LISTED = from_size(3_000_000)
# Where less than this is left of a sum of squares, most of its digits are gone: the value would be rounding.
_DIGITS = 1e-13
# Rows whose columns are made at one time; not many more than these are one block, whose edges need no merging.
_ROWS = chunk(2**16)


@dataclass(frozen=True)
class Problem:
    """A linear mixed model in the engine's columns; nothing in it grows with the number of rows.

    Attributes
    ----------
    factors : tuple of Factor
    structures : CovarianceStructures
    scaling : Scaling
    cross : CrossProducts
    symbolic : Structure
    base : BaseValues
    constants : tuple of (int or None)
        Position of the constant column of each term.
    probes : Probes or None
        Of a model with related levels.
    known : float or None
        The residual variance in the engine's columns, where it is no parameter.
    priors : LinearPriors or None
        Of a model that is penalised.
    """

    factors: tuple[Factor, ...]
    structures: CovarianceStructures
    scaling: Scaling
    cross: CrossProducts
    symbolic: Structure
    base: BaseValues
    constants: tuple[int | None, ...]
    probes: Probes | None = None
    known: float | None = None
    priors: LinearPriors | None = None

    @property
    def n_fixed(self) -> int:
        return int(self.cross.corner.shape[0]) - 1

    @property
    def is_iterative(self) -> bool:
        """Whether crossed effects are solved iteratively: there is no factor of them."""
        return isinstance(self.symbolic, Unfactored)

    def variance(self, r2: float, reml: bool) -> float:
        """The residual variance in the engine's columns: the one that is known, or its estimate."""
        return r2 / (self.cross.n_obs - (self.n_fixed if reml else 0)) if self.known is None else self.known

    def factored(self) -> Problem:
        """The same with the symbolic step for an exact factor.

        Raises
        ------
        DesignError
            The factor would not fit into memory.
        """
        return _factored(self) if self.is_iterative else self

    @computed_once
    def variance_gram(self) -> VarianceGram:
        """Inner products of the directions of V: they depend on neither y nor theta."""
        return self._gram([structure.directions() for structure in self.structures.each])

    @computed_once
    def moment_gram(self) -> VarianceGram:
        """The same of the matrices that a start by moments is made of."""
        if self.structures.linear:
            return self.variance_gram
        return self._gram([structure.moment_basis() for structure in self.structures.each])

    def _gram(self, bases: list[FloatArray]) -> VarianceGram:
        return gram_of(self.factors, bases, self.cross, self.probes)

    def factor_T(self, by_term: list[FloatArray]) -> list[FloatArray]:
        """T of every grouping factor, block diagonal in its terms, from those of the terms."""
        return [
            by_term[factor.terms[0]]
            if len(factor.terms) == 1
            else scipy.linalg.block_diag(*[by_term[t] for t in factor.terms])
            for factor in self.factors
        ]


class Unfactored:
    """Stands for the factor that is not made where crossed effects are solved iteratively."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Lme4Error(UNFACTORED)


UNFACTORED = (
    "the crossed random effects of this fit were solved iteratively (control={'block': 'iterative'}), and this needs "
    "their exact factor: fit the model with control={'block': 'exact'}, where the factor fits into memory."
)


@dataclass(frozen=True)
class StreamedDesign(Design):
    """A design whose rows went by: what a linear model needs of them is in its equations.

    Attributes
    ----------
    problem : Problem
        Of the predictors that the design was made with.
    of : tuple
        Those predictors: other ones, or another response, have other equations.
    root : ndarray, shape (p, p)
        R with R'R = X'X.
    """

    problem: Problem | None = None
    of: tuple[Predictor, ...] = ()
    root: FloatArray | None = None

    @property
    def triangle(self) -> FloatArray:
        """R of X = QR, (p, p)."""
        self.known_problem()
        return np.asarray(self.root, dtype=np.float64)

    def known_problem(self) -> Problem:
        """The equations.

        Raises
        ------
        Lme4Error
            Where the design is not the one that they belong to.
        """
        y: object = self.y
        if self.problem is None or self.predictors is not self.of or not isinstance(y, AbsentRows):
            raise Lme4Error(
                "the rows of this model were streamed and are not in memory, and a model with other columns, groups or "
                "responses needs them: fit that model from the source, or this one with control={'rows': 'memory'}."
            )
        return self.problem


def group_terms(design: Design) -> tuple[Factor, ...]:
    """Grouping factors of a design with the terms of each."""
    names: dict[str, list[int]] = {}
    for position, term in enumerate(design.terms):
        names.setdefault(term.group, []).append(position)
    factors = []
    for name, terms in names.items():
        ends = np.cumsum([design.terms[t].n_columns for t in terms])
        columns = tuple(slice(int(e) - design.terms[t].n_columns, int(e)) for t, e in zip(terms, ends, strict=True))
        first = design.terms[terms[0]]
        factors.append(Factor(name, first.n_levels, int(ends[-1]), tuple(terms), columns, first.relation))
    return tuple(factors)


def make_problem(design: Design, block: Block = "exact") -> Problem:
    """Scale the columns, form the cross-products and do the symbolic step.

    Parameters
    ----------
    design : Design
    block : {"auto", "exact", "iterative"}
        What is made of crossed effects: a factor, or nothing, for conjugate gradients; "auto" takes what is forecast to
        be better.
    """
    if isinstance(design, StreamedDesign):
        return design.known_problem()
    if design.y.ndim != 1:
        raise DesignError(
            "a linear mixed model needs one response column, not cbind(); fit one model for each, or reshape the data."
        )
    factors = group_terms(design)
    check_levels(factors)
    scaling, scaler = plan_scaling(design)
    n = design.n_obs
    # With more levels than rows of a block, adding the sums of blocks would cost more than the sums.
    size = n if n <= 2 * _ROWS else max(_ROWS, *(factor.n_levels for factor in factors))

    def blocks() -> Iterator[ModelBlock]:
        return (_row_block(design, scaler.rows(place), place, factors) for place in row_blocks(n, size))

    cross = accumulate(blocks(), factors)
    constants = tuple(constant_column(term.values) for term in design.terms)
    return assemble(factors, design, scaling, cross, constants, make_probes(factors, blocks), block)


def assemble(
    factors: tuple[Factor, ...],
    design: Design,
    scaling: Scaling,
    cross: CrossProducts,
    constants: tuple[int | None, ...],
    probes: Probes | None = None,
    block: Block = "exact",
) -> Problem:
    """The symbolic step, and all parts of a model together.

    Parameters
    ----------
    factors : tuple of Factor
    design : Design
        For the structures of its terms.
    scaling : Scaling
    cross : CrossProducts
        In the columns of `scaling`.
    constants : tuple of (int or None)
        Position of the constant column of each term.
    probes : Probes, optional
        Where levels are related.
    """
    structures = design.structures.in_columns([S / np.sqrt(scaling.weight_scale) for S in scaling.S])
    if block == "iterative":
        refuse_iterative(factors, design)
    if block == "iterative" or (
        block == "auto"
        and design.sigma is None
        and design.priors is None
        and prefers_iterative(factors, cross, _copies(factors))
    ):
        nothing: Any = Unfactored()
        return Problem(factors, structures, scaling, cross, nothing, nothing, constants)
    symbolic = analyse(factors, cross, max_listed=_MAX_LISTED, copies=_copies(factors))
    base = base_values(symbolic, factors, cross)
    known = known_variance(design, scaling)
    return Problem(factors, structures, scaling, cross, symbolic, base, constants, probes, known, linear_priors(design))


def known_variance(design: Design, scaling: Scaling) -> float | None:
    """The residual variance in the engine's units, where the user knows it.

    Parameters
    ----------
    design : Design
    scaling : Scaling
        Of the response that is fitted: another one has another unit.
    """
    return None if design.sigma is None else (design.sigma / scaling.y_scale) ** 2 / scaling.weight_scale


def _copies(factors: tuple[Factor, ...]) -> int:
    """Of a block of random intercepts one matrix is kept, and one more where a variance is zero."""
    return 2 if all(factor.n_columns == 1 for factor in factors) else 4


def _factored(problem: Problem) -> Problem:
    factors, cross = problem.factors, problem.cross
    symbolic = analyse(factors, cross, max_listed=_MAX_LISTED, copies=_copies(factors))
    return replace(problem, symbolic=symbolic, base=base_values(symbolic, factors, cross))


def refuse_iterative(factors: tuple[Factor, ...], design: Design) -> None:
    """Refuse a model in which no effects are crossed, levels are related, or the residual variance is known.

    Raises
    ------
    OptionError
    """
    if len(factors) < 2:
        raise OptionError(
            "control['block'] is 'iterative', which is for two and more grouping factors; this model has "
            f"{len(factors)}, and its factor is exact and fast. Leave it out."
        )
    if design.priors is not None:
        raise OptionError(
            "control['block'] is 'iterative', but the model has priors: such models have an exact factor; leave it out."
        )
    if design.sigma is not None:
        raise OptionError(
            "control['block'] is 'iterative', but sigma= is known: such models have an exact factor; leave it out."
        )
    for factor in factors:
        if factor.relation is not None:
            raise OptionError(
                f"control['block'] is 'iterative', but the levels of {factor.name!r} have a known covariance, which is "
                "fitted by its exact factor only; leave it out."
            )


def _row_block(design: Design, columns: ScaledColumns, place: slice, factors: tuple[Factor, ...]) -> ModelBlock:
    codes = tuple(design.terms[factor.terms[0]].codes[place] for factor in factors)
    Z = tuple(
        columns.Z[factor.terms[0]] if len(factor.terms) == 1 else np.hstack([columns.Z[t] for t in factor.terms])
        for factor in factors
    )
    return ModelBlock(columns.XY, codes, Z, columns.weights)


@dataclass(frozen=True)
class Point:
    """The criterion at one theta, with what is needed for derivatives and solutions.

    Attributes
    ----------
    theta : ndarray, shape (m,)
    T : list of ndarray, each (k, k)
        One per term.
    value : float
    r2 : float
        Penalised residual sum of squares, inside.
    RX : ndarray, shape (p, p)
        Upper triangular, RX'RX = X'V^-1X, inside.
    beta : ndarray, shape (p,)
        Inside.
    """

    theta: FloatArray
    T: list[FloatArray]
    value: float
    r2: float
    RX: FloatArray
    beta: FloatArray
    swept: Swept
    border: SweptBorder


@dataclass(frozen=True)
class Derivatives:
    """Gradient and approximate Hessian of the criterion in theta."""

    gradient: FloatArray
    hessian: FloatArray
    G: tuple[FloatArray, ...]  # per term: derivative in Sigma
    forms: tuple[FloatArray, FloatArray]  # as `Criterion.average_information` returns them


class Criterion:
    """-2 log-likelihood (ML) or REML criterion as a function of theta in the engine's columns.

    Parameters
    ----------
    problem : Problem
    reml : bool
    """

    def __init__(self, problem: Problem, reml: bool) -> None:
        self.problem = problem
        self.reml = reml
        self.sweeper = Sweeper(problem.symbolic, problem.factors, lean=True)
        n, p = problem.cross.n_obs, problem.n_fixed
        self.df = n - p if reml else n
        scaling = problem.scaling
        # -2 log L = log|M| + r2 / sigma^2 + df log(2 pi sigma^2), at sigma^2 = r2 / df where that is not known.
        inside = 1.0 + log(2.0 * pi / self.df) if problem.known is None else log(2.0 * pi * problem.known)
        self.constant = self.df * (inside + 2.0 * log(scaling.y_scale))
        self.constant -= problem.cross.sum_log_weights
        if reml:
            self.constant -= 2.0 * scaling.log_det_C
        self.ZZ = _ZZ(problem)

    def __call__(self, theta: FloatArray) -> float:
        """Value at theta (engine's columns)."""
        return self.evaluate(theta).value

    def evaluate(self, theta: FloatArray) -> Point:
        """Value at theta with the factor that made it."""
        return self.evaluate_factors(self.problem.structures.factors(theta), theta)

    def evaluate_factors(self, T: list[FloatArray], theta: FloatArray | None = None) -> Point:
        """Value where the terms have any relative covariances T T'.

        Parameters
        ----------
        T : list of ndarray, each (k, k)
            One per term.
        theta : ndarray, shape (m,), optional
            To which they belong; without it the point has no derivatives in theta.
        """
        problem = self.problem
        swept = self.sweeper.factorize(problem.factor_T(T), problem.base)
        border = swept.sweep_border(problem.base.border)
        corner = problem.base.corner - border.cross(border)
        p = problem.n_fixed
        # The factor of the bordered matrix holds RX, the right-hand side and r in its last column.
        R, info = lapack.dpotrf(corner, lower=0, clean=1)
        if info != 0 or not (R.diagonal() ** 2 > _DIGITS * problem.base.corner.diagonal()).all():
            raise np.linalg.LinAlgError("the residual variance, or that of a fixed effect, is lost in rounding")
        RX = R[:p, :p]
        beta = lapack.dtrtrs(RX, R[:p, p])[0] if p else np.zeros(0)
        r2 = float(R[p, p]) ** 2
        known = problem.known
        value = swept.log_det + self.constant + (self.df * log(r2) if known is None else r2 / known)
        if self.reml:
            value += 2.0 * float(np.log(RX.diagonal()).sum())
        return Point(np.zeros(0) if theta is None else theta, T, value, r2, RX, beta, swept, border)

    def variance(self, r2: float) -> float:
        """The residual variance in the engine's columns: the one that is known, or its estimate."""
        return self.problem.variance(r2, self.reml)

    def gradient(self, theta: FloatArray) -> FloatArray:
        """Gradient at theta (engine's columns), shape (m,)."""
        point = self.evaluate(theta)
        return self.theta_gradient(point, self.sigma_gradient(point))

    def sigma_gradient(self, point: Point) -> list[FloatArray]:
        """Derivative in the covariance of each term (k, k), relative to sigma^2."""
        p = self.problem.n_fixed
        combination = np.append(-point.beta, 1.0)
        corner = np.outer(combination, combination) / self.variance(point.r2)
        if self.reml and p:
            inverse = lapack.dtrtri(point.RX)[0]
            corner[:p, :p] += inverse @ inverse.T
        by_factor = point.swept.adjoint(point.border, corner, only_sigma=True).sigma
        out: list[FloatArray] = [np.empty(0)] * len(self.problem.structures.each)
        for factor, G in zip(self.problem.factors, by_factor, strict=True):
            for term, columns in zip(factor.terms, factor.columns, strict=True):
                out[term] = G[columns, columns]
        return out

    def theta_gradient(self, point: Point, G: list[FloatArray]) -> FloatArray:
        """Chain rule."""
        return self.problem.structures.covariance_pullback(point.theta, G)

    def derivatives(self, point: Point) -> Derivatives:
        """Gradient and Hessian of the criterion with the average information (Gilmour et al. 1995).

        The average of observed and expected information replaces the traces tr(P V_i P V_j) by quadratic forms, exact
        in expectation; the part from the curvature of Sigma = T T' is exact.
        """
        problem = self.problem
        structures = problem.structures
        G = self.sigma_gradient(point)
        gradient = self.theta_gradient(point, G)
        q, slope = self.average_information(point)
        hessian = self.quadratic(point, q, slope)
        for structure, place, g in zip(structures.each, structures.slices, G, strict=True):
            hessian[place, place] += structure.curvature(point.theta[place], g)
        return Derivatives(gradient, 0.5 * (hessian + hessian.T), tuple(G), (q, slope))

    def quadratic(self, point: Point, q: FloatArray, slope: FloatArray) -> FloatArray:
        """Second derivatives from quadratic forms, less what estimating sigma takes."""
        if self.problem.known is not None:
            return q / self.problem.known
        out: FloatArray = self.df / point.r2 * (q - np.outer(slope, slope) / point.r2)
        return out

    def average_information(
        self, point: Point, changes: Sequence[FloatArray] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """y'P V_i P V_j P y and y'P V_i P y for all pairs of theta, or of other changes of the covariances.

        Parameters
        ----------
        point : Point
        changes : sequence of ndarray, each (d, k, k), optional
            Of the covariance of each term, in the order of rows of the result.
        """
        problem = self.problem
        if changes is None:
            structures = problem.structures
            own = zip(structures.each, structures.split(point.theta), strict=True)
            changes = [structure.covariance_tangents(theta) for structure, theta in own]
        combination = np.append(-point.beta, 1.0)[:, None]
        if not any(map(len, changes)):
            return np.zeros((0, 0)), np.zeros(0)
        if len(problem.factors) == 1 and problem.factors[0].relation is None:
            q, slope, XY = self._forms_of_one(point, combination, changes)
        else:
            q, slope, XY = self._forms(point, point.swept.back_substitute(point.border, combination)[1], changes)
        p = problem.n_fixed
        if p:
            half = lapack.dtrtrs(point.RX, XY[:p], trans=1)[0]
            q -= half.T @ half
        return q, slope

    def _forms(
        self, point: Point, g: list[FloatArray], changes: Sequence[FloatArray]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Quadratic forms in V^-1 of the directions S_i g, their products with g, and with X and y."""
        problem = self.problem
        directions = self._directions(g, changes)
        slope = np.zeros(directions[0].shape[1])
        XY = np.zeros((problem.n_fixed + 1, slope.size))
        for f, h in enumerate(directions):
            slope += h.T @ g[f][:, 0]
            XY += problem.base.border[f].T @ h
        border, inner = self.ZZ.apply(directions)
        swept_border = point.swept.sweep_border(border)
        XY -= point.border.cross(swept_border)
        return inner - swept_border.cross(swept_border), slope, XY

    def _forms_of_one(
        self, point: Point, combination: FloatArray, changes: Sequence[FloatArray]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The same for one grouping factor, some levels at a time."""
        k, m = self.problem.factors[0].n_columns, sum(map(len, changes))
        border = self.problem.base.border[0].reshape(k, self.problem.factors[0].n_levels, -1)
        q, slope, XY = np.zeros((m, m)), np.zeros(m), np.zeros((border.shape[2], m))
        for levels, stage in point.swept.stages[0].pieces():
            own = small.apply(stage.residual_map, border[:, levels] @ combination).reshape(-1, 1)
            h = self._directions([own], changes)[0]
            products = small.apply(stage.A, h.reshape(k, -1, m)).reshape(-1, m)
            rest = h - stage.apply_E(products)
            q += products.T @ rest
            slope += h.T @ own[:, 0]
            XY += border[:, levels].reshape(-1, border.shape[2]).T @ rest
        return q, slope, XY

    def _directions(self, g: list[FloatArray], changes: Sequence[FloatArray]) -> list[FloatArray]:
        """(K (x) dSigma) g for each change, by grouping factor: (k J, m), or for the levels whose g are given."""
        ends = np.cumsum([len(own) for own in changes])
        out = []
        for f, factor in enumerate(self.problem.factors):
            values = g[f].reshape(factor.n_columns, -1)
            h = np.zeros((*values.shape, int(ends[-1])))
            for term, columns in zip(factor.terms, factor.columns, strict=True):
                for i, change in enumerate(changes[term], start=int(ends[term]) - len(changes[term])):
                    h[columns, :, i] = change @ values[columns]
            out.append(factor.along(h).reshape(values.size, -1))
        return out

    def with_columns(self, M: FloatArray) -> Criterion:
        """The criterion of the model whose columns are [X y] M, with the same random effects.

        Parameters
        ----------
        M : ndarray, shape (p + 1, p' + 1)
        """
        problem = self.problem
        border = tuple(B @ M for B in problem.base.border)
        corner = M.T @ problem.base.corner @ M
        moved = copy.copy(self)
        moved.problem = replace(
            problem,
            base=replace(problem.base, border=border, corner=corner),
            cross=replace(problem.cross, corner=corner),
        )
        return moved


class _ZZ:
    """Products with Z'WZ, from its blocks."""

    def __init__(self, problem: Problem) -> None:
        self.factors = problem.factors
        self.diagonal = problem.cross.diagonal
        # The factor that is eliminated first has its products with all others in one matrix.
        stages = problem.symbolic.stages
        self.first = stages[0].factor if stages else -1
        self.others = problem.symbolic.remaining_slices[0] if stages else {}
        self.coupling = problem.base.coupling_operator
        self.tables = {
            pair: LinearOperator.of(_edge_matrix(edges, problem.factors[pair[0]], problem.factors[pair[1]]))
            for pair, edges in problem.cross.edges.items()
            if self.first not in pair
        }

    def apply(self, h: list[FloatArray]) -> tuple[list[FloatArray], FloatArray]:
        """Z'WZ h by factor, and h'Z'WZ h."""
        out = []
        for f, factor in enumerate(self.factors):
            k, J = factor.n_columns, factor.n_levels
            out.append(small.apply(self.diagonal[f], h[f].reshape(k, J, -1)).reshape(k * J, -1))
        if self.others:
            out[self.first] += self.coupling.matrix @ np.concatenate([h[t] for t in self.others])
            change = self.coupling.transposed @ h[self.first]
            for t, place in self.others.items():
                out[t] += change[place]
        for (s, t), table in self.tables.items():
            out[s] += table.matrix @ h[t]
            out[t] += table.transposed @ h[s]
        inner = sum((a.T @ b for a, b in zip(h, out, strict=True)), np.zeros((h[0].shape[1], h[0].shape[1])))
        return out, inner


def _edge_matrix(edges: Edges | SortedEdges, s: Factor, t: Factor) -> SparseMatrix:
    """Z_s'W Z_t."""
    k_s, k_t, _ = edges.values.shape
    rows = np.concatenate([a * s.n_levels + edges.rows for a in range(k_s) for _ in range(k_t)])
    columns = np.concatenate([b * t.n_levels + edges.columns for _ in range(k_s) for b in range(k_t)])
    return sparse.coo_array((edges.values.ravel(), (rows, columns)), shape=(s.size, t.size)).tocsr()
