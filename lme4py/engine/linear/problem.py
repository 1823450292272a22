"""A linear mixed model in the engine's columns: scaled, summed over the rows, and analysed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg

from lme4py.chunks import chunk, from_size, row_blocks
from lme4py.covariance import CovarianceStructures
from lme4py.design.absent import AbsentRows
from lme4py.design.design import Design, Predictor
from lme4py.engine.factor.crossproducts import CrossProducts, Factor, ModelBlock, accumulate
from lme4py.engine.factor.forecast import check_levels, check_structures
from lme4py.engine.factor.sweep import BaseValues, base_values
from lme4py.engine.factor.symbolic import Plan, Structure, analyse, fit_seconds, prefers_iterative
from lme4py.engine.identification.gram import VarianceGram
from lme4py.engine.identification.probes import Probes, gram_of, make_probes
from lme4py.engine.linear.priors import LinearPriors, linear_priors
from lme4py.engine.linear.scaling import ScaledColumns, Scaling, constant_column, plan_scaling
from lme4py.engine.optimise import Block
from lme4py.errors import DesignError, Lme4Error, OptionError
from lme4py.frozen import computed_once
from lme4py.linalg.memory import give_back_freed
from lme4py.linalg.types import FloatArray
from lme4py.progress import announce

# With more products than this, the change of the dense block is made by matrix products.
_MAX_LISTED = from_size(3_000_000)


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

    @property
    def at_start(self) -> Problem:
        """The problem with the relations of levels that a search starts from: itself, where these are known."""
        return self

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

    @property
    def moment_gram(self) -> VarianceGram:
        """The same of the matrices that a start by moments is made of."""
        return self.variance_gram if self.structures.linear else self._moments

    @computed_once
    def _moments(self) -> VarianceGram:
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

    def __getitem__(self, place: Any) -> Any:
        raise Lme4Error(UNFACTORED)

    def __iter__(self) -> Iterator[Any]:
        raise Lme4Error(UNFACTORED)

    def __len__(self) -> int:
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
    check_structures(design.terms)
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
    structures = design.structures.in_columns(scaling.column_changes)
    if block == "iterative":
        refuse_iterative(factors, design)
    iterative, plan = block == "iterative", None
    if block == "auto" and design.sigma is None and design.priors is None:
        iterative, plan = prefers_iterative(factors, cross, _copies(factors))
    if iterative:
        # What the sums left in the heap: the solver's arrays would stand beside it.
        give_back_freed()
        nothing: Any = Unfactored()
        return Problem(factors, structures, scaling, cross, nothing, nothing, constants)
    symbolic = _analysed(factors, cross, plan)
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


def _analysed(factors: tuple[Factor, ...], cross: CrossProducts, plan: Plan | None = None) -> Structure:
    symbolic = analyse(factors, cross, max_listed=_MAX_LISTED, copies=_copies(factors), plan=plan)
    announce("an exact factor of the crossed random effects", fit_seconds(symbolic))
    return symbolic


def _factored(problem: Problem) -> Problem:
    factors, cross = problem.factors, problem.cross
    symbolic = _analysed(factors, cross)
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
