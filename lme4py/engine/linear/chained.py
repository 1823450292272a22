"""A linear mixed model with a term of many times: its criterion in O(n), by the sparse inverse of the chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lme4py.chunks import chunk, row_blocks
from lme4py.covariance import CovarianceStructures
from lme4py.covariance.chain_levels import ChainLevels
from lme4py.design.design import Design
from lme4py.engine.factor.chain import ChainSweeper, as_chain, chain_base, chain_structure
from lme4py.engine.factor.chain_terms import ChainTerm, find_chain, levels_of
from lme4py.engine.factor.crossproducts import Factor, ModelBlock, accumulate
from lme4py.engine.factor.forecast import check_levels
from lme4py.engine.identification.gram import VarianceGram
from lme4py.engine.identification.probes import gram_of, make_probes
from lme4py.engine.linear.criterion import Criterion, Point
from lme4py.engine.linear.problem import Problem, StreamedDesign, group_terms, known_variance, make_problem
from lme4py.engine.linear.scaling import ScaledColumns, constant_column, plan_scaling
from lme4py.engine.optimise import Block
from lme4py.linalg.null_space import null_space
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ChainCriterion", "ChainProblem", "chain_factors", "factor_rows", "linear_problem"]

# Rows whose columns are made at one time.
_ROWS = chunk(2**14)
# Correlations that are compared before a search, and how far from +-1.
_STARTS, _OFF_EDGE = 8, 0.05


@dataclass(frozen=True)
class ChainProblem(Problem):
    """A linear mixed model with a chain.

    Beside those of `Problem`:

    Attributes
    ----------
    chain : int
        Position of the chain among the factors.
    levels : ChainLevels
    """

    chain: int = 0
    levels: ChainLevels | None = None

    @property
    def known_levels(self) -> ChainLevels:
        """The levels of the chain."""
        assert self.levels is not None
        return self.levels

    def factors_at(self, theta: FloatArray) -> tuple[Factor, ...]:
        """The factors with the relation that the chain has at its theta, shape (2,)."""
        own = replace(self.factors[self.chain], relation=self.known_levels.relation(theta))
        return (*self.factors[: self.chain], own, *self.factors[self.chain + 1 :])

    @property
    def at_start(self) -> Problem:
        """The problem with the correlations that a search starts from."""
        return replace(self, factors=self.factors_at(self.known_levels.typical()))

    def _gram(self, bases: list[FloatArray]) -> VarianceGram:
        return gram_of(self.at_start.factors, bases, self.cross, self.probes)


def chain_factors(design: Design, chain: ChainTerm) -> tuple[tuple[Factor, ...], int]:
    """The grouping factors of a design, the chain last, and its position.

    Parameters
    ----------
    design : Design
    chain : ChainTerm
    """
    kept = [t for t in range(len(design.terms)) if t != chain.term]
    rest = group_terms(design.with_terms([design.terms[t] for t in kept])) if kept else ()
    named = tuple(replace(factor, terms=tuple(kept[t] for t in factor.terms)) for factor in rest)
    return (*named, chain.factor(design.terms[chain.term].label)), len(named)


def chain_problem(design: Design, chain: ChainTerm) -> ChainProblem | None:
    """Scale the columns, form the cross-products and do the symbolic step.

    Parameters
    ----------
    design : Design
    chain : ChainTerm

    Returns
    -------
    ChainProblem or None
        None where the data do not tell all variances apart, which the general form says in words.
    """
    factors, position = chain_factors(design, chain)
    check_levels(factors)
    symbolic = chain_structure(factors, position)
    scaling, scaler = plan_scaling(design)

    def blocks() -> Iterator[ModelBlock]:
        for place in row_blocks(design.n_obs, _ROWS):
            columns = scaler.rows(place)
            own = columns.Z[chain.term].sum(axis=1)[:, None]
            codes = [design.terms[factor.terms[0]].codes[place] for factor in factors[:position]]
            Z = [np.hstack([columns.Z[t] for t in factor.terms]) for factor in factors[:position]]
            yield ModelBlock(columns.XY, (*codes, chain.codes[place]), (*Z, own), columns.weights)

    cross = accumulate(blocks(), factors)
    structures = design.structures.in_columns(scaling.column_changes)
    each = (*structures.each[: chain.term], chain.levels, *structures.each[chain.term + 1 :])
    at_start = (*factors[:position], replace(factors[position], relation=chain.levels.relation(chain.levels.typical())))
    problem = ChainProblem(
        factors,
        CovarianceStructures(each),
        scaling,
        cross,
        symbolic,
        chain_base(symbolic, factors, cross, position),
        tuple(constant_column(term.values) for term in design.terms),
        make_probes(at_start, blocks),
        known_variance(design, scaling),
        None,
        position,
        chain.levels,
    )
    return problem if _is_identified(problem.variance_gram, problem.known is not None) else None


def factor_rows(problem: Problem, design: Design, columns: ScaledColumns) -> list[tuple[IntArray, FloatArray]]:
    """Level of each row and its columns (n, k) in each grouping factor of a problem.

    Parameters
    ----------
    problem : Problem
    design : Design
    columns : ScaledColumns
        Of all rows.
    """
    chain = None
    if isinstance(problem, ChainProblem):
        own = problem.factors[problem.chain].terms[0]
        chain = levels_of(design.terms[own], own)
    out = []
    for factor in problem.factors:
        t = factor.terms[0]
        if chain is not None and t == chain.term:
            out.append((chain.codes, columns.Z[t].sum(axis=1)[:, None]))
        else:
            out.append((design.terms[t].codes, np.hstack([columns.Z[t] for t in factor.terms])))
    return out


def linear_problem(design: Design, block: Block = "exact") -> Problem:
    """The engine's side of a design: with a chain where it has one, else that of `make_problem`.

    Parameters
    ----------
    design : Design
    block : {"auto", "exact", "iterative"}
        As of `make_problem`.
    """
    chain = None if block == "iterative" or isinstance(design, StreamedDesign) else find_chain(design)
    found = None if chain is None or design.y.ndim != 1 else chain_problem(design, chain)
    return make_problem(design, block) if found is None else found


def _is_identified(gram: VarianceGram, known: bool) -> bool:
    used = slice(-1) if known else slice(None)
    projected = gram.projected[used, used]
    lengths = np.sqrt(gram.plain.diagonal()[used])
    lengths = np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return not null_space(projected / (lengths * lengths.T)).size


class ChainCriterion(Criterion):
    """The criterion of a model with a chain; gradient exact, Hessian by the average information.

    Parameters
    ----------
    problem : ChainProblem
    reml : bool
    """

    has_traces: ClassVar[bool] = False
    is_fast: ClassVar[bool] = True

    def __init__(self, problem: ChainProblem, reml: bool) -> None:
        super().__init__(problem, reml)
        self.sweeper: Any = ChainSweeper(problem.symbolic, problem.factors, problem.chain, problem.known_levels)
        self.chain, self.term = problem.chain, problem.factors[problem.chain].terms[0]
        self.levels = problem.known_levels

    def refined(self, theta: FloatArray) -> FloatArray:
        """The best of a start and of others with its variances and other correlations."""
        place = self.problem.structures.slices[self.term].stop - 1
        correlation = self.levels.steps
        others = [phi for phi in correlation.grid() if correlation.edge_sizes(phi)[0] > _OFF_EDGE]
        found = [theta]
        for phi in others[:: max(1, len(others) // _STARTS)]:
            found.append(theta.copy())
            found[-1][place] = phi[0]
        return min(found, key=self._value)

    def _value(self, theta: FloatArray) -> float:
        try:
            return self(theta)
        except np.linalg.LinAlgError:
            return np.inf

    def average_information(
        self, point: Point, changes: Sequence[FloatArray] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """As `Criterion.average_information`; changes of the chain are in (s, phi), shape (d, 2)."""
        if changes is None:
            structures = self.problem.structures
            changes = [
                np.eye(structure.n_theta) if t == self.term else structure.covariance_tangents(own)
                for t, (structure, own) in enumerate(zip(structures.each, structures.split(point.theta), strict=True))
            ]
        return super().average_information(point, changes)

    def _directions_of(
        self, point: Point, f: int, g: FloatArray, changes: Sequence[FloatArray], starts: IntArray
    ) -> FloatArray:
        if f != self.chain:
            return super()._directions_of(point, f, g, changes, starts)
        swept = as_chain(point.swept)
        assert swept is not None
        out = np.zeros((g.shape[0], int(starts[-1])))
        moved = swept.moved(swept.relation.times(g))
        out[:, starts[self.term] : starts[self.term + 1]] = moved @ changes[self.term].T
        return out
