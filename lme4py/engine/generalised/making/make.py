"""Generalised linear mixed models: from a design to the problem in the engine's columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.chunks import from_size
from lme4py.design.design import Design
from lme4py.engine.factor.chain_terms import ChainTerm, find_chain
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.forecast import check_structures, tell_blocks
from lme4py.engine.generalised.iterative.cells import cells_of
from lme4py.engine.generalised.making.chained import ChainPart, ChainProducts
from lme4py.engine.generalised.making.units import in_row_units, predictor_unit
from lme4py.engine.generalised.no_effects import NoProducts
from lme4py.engine.generalised.penalty import glmm_penalty
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.linear.chained import chain_factors
from lme4py.engine.linear.problem import group_terms
from lme4py.engine.linear.scaling import scale_model
from lme4py.engine.optimise import Block
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["make_glmm"]

# Operations for each level of a chain and each other effect, and those of blocks of all times over the cubes of sizes.
_SOLVED, _BLOCKS = 20.0, 4.0
# Of so many rows each column is in one piece: passes go over one column after the other.
_COLUMNS_FROM = from_size(20_000)


def make_glmm(
    design: Design,
    family: Any,
    data: Any,
    expected: bool = False,
    copies: tuple[FloatArray | None, ...] = (),
    block: Block = "exact",
    chains: bool = True,
) -> GlmmProblem:
    """Scale the columns and do the symbolic step.

    Parameters
    ----------
    design : Design
    family : Family
    data : object
        The response, as the family prepared it.
    expected : bool
    copies : tuple of ndarray, each (J,), or None
        As in `GlmmProblem`.
    block : {"auto", "exact", "iterative"}
        What is made of crossed effects: a factor, or nothing, for conjugate gradients; "auto" takes what is forecast to
        be better.
    chains : bool
        Whether a term of many times may be fitted by its sparse inverse.
    """
    others = copies or family.stacked or family.is_joint or block == "iterative"
    found = None if others or not chains else _chain_of(design)
    check_structures(design.terms)
    X, C, Z, S, shift = scale_model(design, constant=family.constant is not None)
    unit = predictor_unit(family, data)
    if unit != 1.0:
        X, C, Z, S = X * unit, C * unit, tuple(z * unit for z in Z), tuple(s * unit for s in S)
    X, C, Z, S = in_row_units(design, family.row_units(data), X, C, Z, S)
    structures = design.structures.in_columns(S)
    offset = np.zeros(X.shape[0]) if design.stacked_offset is None else design.stacked_offset
    factors, chain = (group_terms(design), None) if found is None else _with_chain(design, found)
    tell_blocks(factors)
    products: Any
    if chain is not None and found is not None:
        products = ChainProducts(*_chain_columns(design, found, factors, Z), factors, chain)
        structures = chain.structures(structures)
    elif factors:
        codes = tuple(design.terms[factor.terms[0]].codes for factor in factors)
        columns = tuple(
            z if own is None else z / np.sqrt(own)[code][:, None]
            for z, code, own in zip(_columns(factors, Z), codes, copies or (None,) * len(codes), strict=True)
        )
        places = tuple(tuple(p for t in f.terms for p in design.terms[t].predictors(family.stacked)) for f in factors)
        products = None if block == "exact" else cells_of(codes, columns, factors, block)
        products = WeightedProducts(codes, columns, factors, places=places) if products is None else products
    else:
        products = NoProducts(design.n_obs, 1 + len(family.stacked))
    if not family.is_joint:
        X, offset = products.stack.below(X), products.stack.below(offset)
    if X.shape[0] >= _COLUMNS_FROM:
        X = np.asfortranarray(X)
    problem = GlmmProblem(factors, structures, C, S, X, offset, products, family, data, expected, shift, unit)
    penalty = glmm_penalty(design, family, S)
    return replace(problem, penalty=penalty, known=design.log_dispersion, copies=copies, chain=chain)


def _chain_of(design: Design) -> ChainTerm | None:
    """The chain of a design, unless its levels beside all other effects take more work than blocks of all times."""
    found = find_chain(design)
    if found is None:
        return None
    rest = float(sum(term.n_levels * term.n_columns for t, term in enumerate(design.terms) if t != found.term))
    own = design.terms[found.term]
    work = _SOLVED * found.levels.layout.size * rest + rest**3
    return found if work <= _BLOCKS * own.n_levels * float(own.n_columns) ** 3 else None


def _columns(factors: tuple[Factor, ...], Z: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    """Columns of each grouping factor from those of the terms."""
    return tuple(Z[f.terms[0]] if len(f.terms) == 1 else np.hstack([Z[t] for t in f.terms]) for f in factors)


def _with_chain(design: Design, found: ChainTerm) -> tuple[tuple[Factor, ...], ChainPart]:
    """The grouping factors of a design with a chain, which comes last."""
    factors, position = chain_factors(design, found)
    start = sum(factor.size for factor in factors[:position])
    place = slice(start, start + factors[position].size)
    return factors, ChainPart(position, found.term, place, found.levels)


def _chain_columns(
    design: Design, found: ChainTerm, factors: tuple[Factor, ...], Z: tuple[FloatArray, ...]
) -> tuple[tuple[IntArray, ...], tuple[FloatArray, ...]]:
    """Level of each row and its columns in each grouping factor; of the chain each row has one time."""
    own = Z[found.term].sum(axis=1)[:, None]
    codes = tuple(design.terms[factor.terms[0]].codes for factor in factors[:-1])
    return (*codes, found.codes), (*_columns(factors[:-1], Z), own)
