"""Linear spaces and cones of covariance matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lme4py.errors import DesignError
from lme4py.frozen import freeze
from lme4py.linalg.types import FloatArray

__all__ = ["TangentCone", "refuse_large_basis", "symmetric_basis"]

# Of more columns than this a basis with a matrix for each pair is not made.
_PAIRED = 100
# The basis of so few columns is made once.
_SMALL = 8


@dataclass(frozen=True)
class TangentCone:
    """The covariances near a point, to first order: what a test of variances needs.

    Sigma moves along any combination of `free`, and along a combination of `held` whose coefficients, put into
    symmetric matrices, are positive semi-definite: one r x r matrix for each r in `blocks`, by columns of its upper
    triangle.

    Attributes
    ----------
    blocks : tuple of int
        () at an interior point; (1, 1) where two variances are zero; (2,) where an unstructured covariance has lost two
        ranks.
    held : ndarray, shape (h, k, k)
        h = sum of r (r + 1) / 2.
    free : ndarray, shape (f, k, k)
    unknown : str
        Why the cone is not known, in words that follow "because"; empty where it is.
    """

    blocks: tuple[int, ...]
    held: FloatArray
    free: FloatArray
    unknown: str = ""


def refuse_large_basis(k: int) -> None:
    """Raise where one matrix for each pair of columns would be too much.

    Raises
    ------
    DesignError
    """
    if k > _PAIRED:
        raise DesignError(
            f"a matrix for each pair of {k} columns is not made: they would take {4.0 * k**4 / 2**30:.1f} GiB, and "
            f"{_PAIRED} columns are the most."
        )


def symmetric_basis(k: int) -> FloatArray:
    """A basis of the symmetric matrices by columns of the lower triangle, shape (k (k + 1) / 2, k, k).

    Raises
    ------
    DesignError
        Too many columns.
    """
    refuse_large_basis(k)
    return _small_basis(k) if k <= _SMALL else _basis(k)


def _basis(k: int) -> FloatArray:
    columns, rows = np.triu_indices(k)
    out = np.zeros((rows.size, k, k))
    out[np.arange(rows.size), rows, columns] = out[np.arange(rows.size), columns, rows] = 1.0
    return out


@lru_cache(maxsize=_SMALL)
def _small_basis(k: int) -> FloatArray:
    return freeze(_basis(k))
