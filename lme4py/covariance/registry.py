"""Structures by name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from lme4py.covariance.structure import CovarianceStructure
from lme4py.errors import DesignError, OptionError, did_you_mean
from lme4py.linalg.types import FloatArray

__all__ = ["find_structure", "make_structure", "nested", "plain_structure", "register", "structure_names"]

_Kind = TypeVar("_Kind", bound=type[CovarianceStructure])
# Columns of the largest structure that is kept: tables of a larger one have their weight.
_SHARED = 8
_KNOWN: dict[str, type[CovarianceStructure]] = {}
_ALIASES: dict[str, str] = {}
# Of two columns these have the same covariances.
_ALIKE = (("us", "cs", "hetar1", "toep", "ad"), ("homcs", "ar1", "homtoep"))


def register(kind: _Kind) -> _Kind:
    """Make a structure known by its name and its aliases; a decorator of the class."""
    _KNOWN[kind.name] = kind
    for alias in kind.aliases:
        _ALIASES[alias] = kind.name
    return kind


def structure_names() -> tuple[str, ...]:
    """The words of all structures, in alphabetical order."""
    return tuple(sorted(_KNOWN))


def find_structure(word: str) -> type[CovarianceStructure]:
    """The class of a structure.

    Parameters
    ----------
    word : str
        A name, or another word for it: "unstructured", "exchangeable".

    Raises
    ------
    OptionError

    Examples
    --------
    >>> find_structure("unstructured").name
    'us'
    """
    found = _KNOWN.get(_ALIASES.get(word, word))
    if found is None:
        hint = did_you_mean(word, [*_KNOWN, *_ALIASES])
        raise OptionError(f"There is no covariance structure {word!r}.{hint} Known are {', '.join(structure_names())}.")
    return found


def make_structure(word: str, size: int, positions: FloatArray | None = None, **options: Any) -> CovarianceStructure:
    """The structure of `size` columns.

    Parameters
    ----------
    word : str
    size : int
    positions : ndarray, shape (k,) or (k, d), optional
        Whole numbers (ar1, hetar1, toep, homtoep, arma11), increasing times (ou, car1), or coordinates (exp, gau, mat,
        sph); of the first kind 0 .. k-1 by default. Others take no notice of them.
    **options
        ``d`` of rr; ``unit`` and ``nugget`` of structures of a distance.

    Raises
    ------
    OptionError, DesignError

    Examples
    --------
    >>> import numpy as np
    >>> ar1 = make_structure("ar1", 3)
    >>> ar1.covariance(np.array([2.0, np.pi / 6]))
    array([[4., 2., 1.],
           [2., 4., 2.],
           [1., 2., 4.]])
    """
    if positions is not None and len(positions) != size:
        raise DesignError(f"{word}() has {size} columns, and {len(positions)} positions were given.")
    return find_structure(word).build(size, positions, **options)


def plain_structure(kind: type[CovarianceStructure], size: int) -> CovarianceStructure:
    """The structure of `size` columns of a kind that takes neither positions nor options.

    A small one is made once: what it has found out about itself serves all fits.

    Parameters
    ----------
    kind : type
    size : int
    """
    return _shared(kind, size) if size <= _SHARED else kind.build(size, None)


@lru_cache(maxsize=64)
def _shared(kind: type[CovarianceStructure], size: int) -> CovarianceStructure:
    return kind.build(size, None)


def nested(inner: CovarianceStructure, outer: CovarianceStructure) -> bool:
    """As `CovarianceStructure.nested_in`."""
    if inner.size != outer.size:
        return False
    if inner.size == 1:
        return True
    of_a_kind = type(inner) is type(outer) or outer.name in _all_larger(inner)
    return outer.holds(inner) or (of_a_kind and outer.takes(inner))


def _all_larger(inner: CovarianceStructure) -> set[str]:
    """Structures that hold this one, and those that hold them."""
    alike = _ALIKE if inner.size == 2 and abs(inner.places[1] - inner.places[0]).max() == 1.0 else ()
    found: set[str] = set()
    left = [inner.name, *inner.larger()]
    while left:
        word = left.pop()
        if word not in found:
            found.add(word)
            within = _KNOWN[word].within if word in _KNOWN else ()
            left += [*within, *(other for group in alike if word in group for other in group)]
    return found
