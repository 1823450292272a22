"""Generalised models of streamed rows whose grouping factors are crossed: a pass over the files for each step of PIRLS.

What stays in memory are the levels, and the pairs of levels that occur together.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.forecast import size_words
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.generalised.streamed.passes import PassedCriterion
from lme4py.engine.generalised.streamed.table import SummedElements
from lme4py.errors import OptionError
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.rows.parts import Parts
from lme4py.fits.rows.spill import Spill
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["level_counts", "passed_criterion"]

# Bytes of the arrays of an element of Z'WZ that are alive at one time: its values, their derivatives, products.
_ELEMENT = 100.0
# Arrays of the size of the dense block.
_DENSE = 3


def passed_criterion(parts: Parts, spill: Spill, pilot: GeneralisedFit, n: int, limit: float) -> PassedCriterion:
    """The criterion of all rows by passes over their files.

    Parameters
    ----------
    parts : Parts
        With a pilot.
    spill : Spill
        Where these are.
    pilot : GeneralisedFit
    n : int
        Number of rows.
    limit : float
        Bytes for what does not go by.

    Raises
    ------
    OptionError
        The pairs of levels, or the dense block of the smaller factors, need more memory than that.
    """
    like, witness = pilot.problem, parts.witness
    if like.stack.size > 1:
        raise OptionError(
            f"the {parts.family.name} family has random effects in several linear predictors, which are not streamed "
            "where factors are crossed; read the rows into memory with control={'rows': 'memory'}."
        )
    factors = tuple(replace(factor, n_levels=witness.terms[factor.terms[0]].n_levels) for factor in like.factors)
    table: Any = SummedElements(factors, _pairs(parts, spill, factors, limit), n)
    dense = 8.0 * _DENSE * table.structure.dense_size**2 if table.structure.sparse is None else 0.0
    if dense > limit:
        raise _too_large(f"the dense block of {_names(factors)} takes {size_words(dense)}", limit)
    p = like.n_fixed
    whole = replace(like, factors=factors, X=np.zeros((0, p)), offset=np.zeros(0), products=table)
    return PassedCriterion(ModeFinder(like), whole, table, parts.row_loaders(spill))


def level_counts(parts: Parts) -> list[FloatArray]:
    """Rows of each level of each term.

    Parameters
    ----------
    parts : Parts
    """
    counts = [np.zeros(term.n_levels) for term in parts.witness.terms]
    for number in parts.numbers:
        for own, codes in zip(counts, parts.stored.read(number).codes, strict=True):
            own += np.bincount(codes, minlength=own.size)
    return counts


def _pairs(parts: Parts, spill: Spill, factors: tuple[Factor, ...], limit: float) -> dict[tuple[int, int], IntArray]:
    """The pairs of levels that occur together; where each row has its own is written beside the rows."""
    every = list(combinations(range(len(factors)), 2))
    found: dict[tuple[int, int], IntArray] = {pair: np.zeros(0, dtype=np.int64) for pair in every}
    for number in parts.numbers:
        for pair, keys in _keys(parts, number, factors, every):
            found[pair] = np.union1d(found[pair], keys)
        sizes = [found[s, t].size * factors[s].n_columns * factors[t].n_columns for s, t in every]
        need = _ELEMENT * (sum(sizes) + sum(factor.size * factor.n_columns for factor in factors))
        if need > limit:
            raise _too_large(
                f"the levels of {_names(factors)} and the pairs of them that occur together take {size_words(need)} in "
                "the first parts of the rows alone",
                limit,
            )
    for number in parts.numbers:
        for (s, t), keys in _keys(parts, number, factors, every):
            spill.keep(number, f"{s}.{t}", np.searchsorted(found[s, t], keys))
    return found


def _keys(
    parts: Parts, number: int, factors: tuple[Factor, ...], every: list[tuple[int, int]]
) -> list[tuple[tuple[int, int], IntArray]]:
    codes = parts.stored.read(number).codes
    own = [codes[factor.terms[0]].astype(np.int64) for factor in factors]
    return [((s, t), own[s] * factors[t].n_levels + own[t]) for s, t in every]


def _names(factors: tuple[Factor, ...]) -> str:
    return ", ".join(f"{factor.name} ({factor.n_levels:,} levels)" for factor in factors)


def _too_large(what: str, limit: float) -> OptionError:
    return OptionError(
        f"{what}, and the memory that rows may take while they are streamed allows {size_words(limit)} for it; allow "
        "more with control={'memory_limit': ...}, or leave one of the terms out."
    )
