"""How much memory a model will need, compared with what there is, before anything of that size is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lme4py.chunks import from_size
from lme4py.engine.factor.crossproducts import Factor
from lme4py.errors import DesignError, Lme4Warning, warn
from lme4py.linalg.memory import available_memory as available_memory

if TYPE_CHECKING:
    from lme4py.design.design import RandomTerm

# Needs below this are not worth the question.
_SMALL = 2.0**20
# Arrays with a block for every level that are alive at one time.
_LEVEL_ARRAYS = 10
# Arrays of the derivatives of a covariance in all its parameters that are alive at one time.
_TANGENTS = 4
# Bytes of a listed product, with those of the arrays that it is made from.
_PRODUCT = 100.0
# Seconds of a fit of a generalised model for each block, over the cube of its size, and what is worth telling.
_CUBED, _MINUTE = 3e-8, 60.0
# Terms of so many times are fitted by their sparse inverse.
LONG_TERM = from_size(150, 150)

_ALTERNATIVES = (
    "Leave one of these terms out, fit a part of the data with fewer levels, or use a machine with more memory."
)


def size_words(count: float) -> str:
    """Bytes for people.

    Examples
    --------
    >>> size_words(3.2e9), size_words(5e6)
    ('3.0 GB', '4.8 MB')
    """
    return f"{count / 2**30:,.1f} GB" if count >= 0.95 * 2**30 else f"{count / 2**20:,.1f} MB"


def exceeds_memory(need: float) -> bool:
    """Whether so many bytes are more than what is free; a few are never."""
    return need >= _SMALL and need > available_memory()


def check_memory(need: float, what: str, other: str = "") -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    need : float
        Bytes.
    what : str
        Subject and verb of the message, with the terms, as in "the random effects of g (10 levels) need ...".
    other : str
        A sentence before the alternatives.

    Raises
    ------
    DesignError
    """
    if exceeds_memory(need):
        free = size_words(available_memory())
        raise DesignError(f"{what}, about {size_words(need)}, and {free} of memory are free.{other} {_ALTERNATIVES}")


def check_levels(factors: tuple[Factor, ...]) -> None:
    """Refuse grouping factors whose blocks of one level each do not fit.

    Parameters
    ----------
    factors : tuple of Factor
    """
    sizes = [8.0 * _LEVEL_ARRAYS * factor.n_levels * factor.n_columns**2 for factor in factors]
    names = ", ".join(_blocks(factors[f]) for f in sorted(range(len(factors)), key=lambda f: -sizes[f]))
    check_memory(sum(sizes), f"the random effects need blocks of numbers for {names}")


def tell_blocks(factors: tuple[Factor, ...]) -> None:
    """Warn of a generalised model whose blocks of one level each are forecast to take minutes.

    Parameters
    ----------
    factors : tuple of Factor

    Warns
    -----
    Lme4Warning
    """
    seconds = [_CUBED * factor.n_levels * float(factor.n_columns) ** 3 for factor in factors]
    if sum(seconds) <= _MINUTE:
        return
    largest = factors[seconds.index(max(seconds))]
    warn(
        f"the random effects of {largest.name} take {largest.n_levels:,} blocks of {largest.n_columns:,} x "
        f"{largest.n_columns:,} numbers at every step, and the fit is forecast to take about "
        f"{sum(seconds) / 60.0:,.0f} minutes. One ar1() or ou() beside few other effects needs no such blocks from "
        f"{LONG_TERM} times on; fewer times (means of neighbours) take less.",
        Lme4Warning,
    )


def check_structures(terms: Sequence[RandomTerm]) -> None:
    """Refuse terms whose covariance has more parameters than there is memory for its derivatives.

    Parameters
    ----------
    terms : sequence of RandomTerm

    Raises
    ------
    DesignError
    """
    for term in terms:
        k, m = term.n_columns, term.structure.n_theta
        check_memory(
            8.0 * m * (_TANGENTS * k**2 + m),
            f"the covariance of {term.label} has {k:,} columns and {m:,} parameters, whose derivatives need memory",
            f" A structure of fewer parameters than {term.structure.word}() (homcs, ar1, ou, rr with few factors) or "
            "fewer columns (means of neighbours) need less.",
        )


def _blocks(factor: Factor) -> str:
    k = factor.n_columns
    return f"{factor.name} ({factor.n_levels:,} of {k} x {k})"


def check_products(count: float, factor: Factor, others: list[Factor]) -> None:
    """Refuse a list of products that does not fit.

    Parameters
    ----------
    count : float
    factor : Factor
        The one that is eliminated.
    others : list of Factor
        Those it meets.
    """
    met = ", ".join(f"{other.name} ({other.size:,})" for other in others)
    check_memory(
        _PRODUCT * count, f"the random effects {factor.name} ({factor.size:,}) and {met} need {count:,.0f} products"
    )
