"""What the data leave of the effects of each level, where crossed effects have no factor: on the user's scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from lme4py.engine.certificate import Certificate
from lme4py.engine.factor.crossed_inverse import LevelBlocks
from lme4py.engine.factor.crossproducts import Factor
from lme4py.errors import DesignError, Lme4Warning, warn
from lme4py.linalg import small
from lme4py.linalg.types import FloatArray

__all__ = ["in_tiles", "seed_of", "told", "user_blocks"]


@contextmanager
def in_tiles() -> Iterator[None]:
    """Say in words that a factor in tiles was lost in rounding.

    Raises
    ------
    DesignError
    """
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise DesignError(
            f"the factor of the crossed random effects in tiles failed ({error}): leave exact=True out, or fit the "
            "model with control={'block': 'exact'}, where the factor fits into memory."
        ) from None


def told(found: LevelBlocks) -> str:
    """How well they are known, with a warning where that is less than is wanted.

    Parameters
    ----------
    found : LevelBlocks

    Warns
    -----
    Lme4Warning
    """
    if found.is_rough:
        warn(f"{found} exact=True makes an exact factor, where it fits into memory.", Lme4Warning)
    return str(found)


def seed_of(certificate: Certificate) -> int:
    """Of the probes of a fit.

    Parameters
    ----------
    certificate : Certificate
    """
    return 0 if certificate.monte_carlo is None else certificate.monte_carlo.seed


def user_blocks(
    factors: Sequence[Factor], S: Sequence[FloatArray], blocks: Sequence[FloatArray], scale: float
) -> tuple[FloatArray, ...]:
    """Blocks of each term in the user's columns, each (J, k, k).

    Parameters
    ----------
    factors : sequence of Factor
    S : sequence of ndarray, each (k, k)
        Changes of columns by term.
    blocks : sequence of ndarray, each (k, k, J)
        By factor, in the engine's columns.
    scale : float
    """
    out: list[FloatArray] = [np.empty(0)] * sum(len(factor.terms) for factor in factors)
    for factor, block in zip(factors, blocks, strict=True):
        for term, columns in zip(factor.terms, factor.columns, strict=True):
            own = small.right(small.left(S[term], block[columns, columns]), S[term].T)
            out[term] = np.ascontiguousarray(scale * own.transpose(2, 0, 1))
    return tuple(out)
