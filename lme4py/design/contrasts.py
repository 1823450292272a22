"""Contrasts: the columns that stand for a factor, and the endings of their names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import is_numbered
from lme4py.errors import DesignError, OptionError, did_you_mean
from lme4py.formula.contrast_names import CONTRASTS, contrast_name, level_position

__all__ = ["contrast_matrix", "default_contrasts", "full_dummies"]

FloatArray = NDArray[np.float64]

# "contr.treatment(2)", "Treatment('b')", "contr.treatment(base = 2)"
_SPECIFICATION: Final = re.compile(
    r"""\s*([\w.]+)\s*(?:\(\s*(?:(?:base|ref|reference)\s*=\s*)?(?:(\d+)|"([^"]*)"|'([^']*)')?\s*\))?\s*"""
)
_POLYNOMIAL_NAMES: Final = (".L", ".Q", ".C")


def default_contrasts(*, ordered: bool) -> str:
    """R's default: polynomial contrasts for ordered factors, treatment contrasts for the others."""
    return "contr.poly" if ordered else "contr.treatment"


def contrast_matrix(kind: str | NDArray[Any], levels: tuple[Any, ...]) -> tuple[FloatArray, tuple[str, ...]]:
    """Coding matrix of a factor beside an intercept, and the endings of its column names.

    Parameters
    ----------
    kind : str or array_like, shape (L, L - 1)
        ``"contr.treatment"``, ``"contr.sum"``, ``"contr.helmert"``, ``"contr.poly"``, ``"contr.SAS"`` or
        ``"contr.diff"``; the short names (``"sum"``, ``"Helmert"``) are read as well. A base level is written
        ``"contr.treatment(2)"`` (position from 1) or ``"contr.treatment('b')"``. Or the matrix itself.
    levels : tuple
        The L levels, in order.

    Returns
    -------
    matrix : ndarray of float, shape (L, L - 1)
        Row i is what level i contributes to the columns. Read-only.
    suffixes : tuple of str

    Raises
    ------
    OptionError
        The name is unknown, or the matrix has the wrong shape, is not finite or is not of full rank.
    DesignError
        Fewer than two levels.

    Examples
    --------
    >>> contrast_matrix("sum", ("a", "b", "c"))
    (array([[ 1.,  0.],
           [ 0.,  1.],
           [-1., -1.]]), ('[S.a]', '[S.b]'))
    """
    if len(levels) < 2:
        raise DesignError(
            f"contrasts need a factor with at least two levels; this one has {len(levels)} "
            f"({_list(levels)}). Remove the factor from the formula"
        )
    if not isinstance(kind, str):
        return _user_matrix(kind, levels)
    name, base = _read(kind, levels)
    if name in ("contr.treatment", "contr.SAS"):
        return _treatment(levels, base)
    return _coding(name, len(levels)), _suffixes(name, levels)


def full_dummies(levels: tuple[Any, ...]) -> tuple[FloatArray, tuple[str, ...]]:
    """One column per level: the identity, shape (L, L), and the endings ``[a]``, ``[b]``, ...

    Examples
    --------
    >>> full_dummies((True, False))[1]
    ('[True]', '[False]')
    """
    return np.eye(len(levels)), tuple(f"[{level}]" for level in levels)


def _read(kind: str, levels: tuple[Any, ...]) -> tuple[str, int]:
    """R's name of the contrasts and the index of the base level."""
    match = _SPECIFICATION.fullmatch(kind)
    name = contrast_name(match[1]) if match else None
    if match is None or name is None:
        known = [*CONTRASTS, "treatment", "sum", "helmert", "poly", "SAS", "diff"]
        hint = did_you_mean(kind, known)
        raise OptionError(f"contrasts {kind!r} are not known; use one of {', '.join(CONTRASTS)}, or a matrix.{hint}")
    position, *texts = match.groups()[1:]
    wanted = int(position) if position else next((text for text in texts if text is not None), None)
    if wanted is None:
        return name, len(levels) - 1 if name == "contr.SAS" else 0
    if name != "contr.treatment":
        raise OptionError(f"contrasts {kind!r}: only contr.treatment has a base level; write {name!r}")
    base = level_position(levels, wanted, by_position=True)
    if base is None:
        hint = did_you_mean(str(wanted), [str(level) for level in levels])
        raise OptionError(f"contrasts {kind!r}: no such base; the {len(levels)} levels are {_list(levels)}.{hint}")
    return name, base


def _treatment(levels: tuple[Any, ...], base: int) -> tuple[FloatArray, tuple[str, ...]]:
    others = [i for i in range(len(levels)) if i != base]
    return np.eye(len(levels))[:, others], tuple(f"[T.{levels[i]}]" for i in others)


@lru_cache(maxsize=64)
def _coding(name: str, n_levels: int) -> FloatArray:
    """formulaic's coding matrix, whose numbers are R's."""
    from formulaic.transforms import contrasts

    coder = {
        "contr.sum": contrasts.SumContrasts,
        "contr.helmert": contrasts.HelmertContrasts,
        "contr.poly": contrasts.PolyContrasts,
        "contr.diff": contrasts.DiffContrasts,
    }[name]
    matrix = np.array(coder().get_coding_matrix(range(n_levels)), dtype=np.float64)
    # The cache hands out the same array again and again.
    matrix.setflags(write=False)
    return matrix


def _suffixes(name: str, levels: tuple[Any, ...]) -> tuple[str, ...]:
    if name == "contr.poly":
        powers = range(1, len(levels))
        return tuple(_POLYNOMIAL_NAMES[k - 1] if k <= len(_POLYNOMIAL_NAMES) else f"^{k}" for k in powers)
    if name == "contr.sum":
        return tuple(f"[S.{level}]" for level in levels[:-1])
    letter = {"contr.helmert": "H", "contr.diff": "D"}[name]
    return tuple(f"[{letter}.{level}]" for level in levels[1:])


def _user_matrix(kind: Any, levels: tuple[Any, ...]) -> tuple[FloatArray, tuple[str, ...]]:
    count = len(levels)
    where = f"for the {count} levels {_list(levels)}"
    kind = _in_level_order(kind, levels, where)
    try:
        matrix = np.array(kind, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptionError(f"contrasts {where} must be a name or a matrix of numbers: {error}") from error
    if matrix.shape != (count, count - 1):
        raise OptionError(
            f"the contrast matrix {where} has shape {matrix.shape}; it must have shape {(count, count - 1)}: "
            "one row per level, one column less"
        )
    if not np.isfinite(matrix).all():
        raise OptionError(f"the contrast matrix {where} has cells that are not finite; give numbers")
    rank = int(np.linalg.matrix_rank(np.column_stack([np.ones(count), matrix])))
    if rank < count:
        raise OptionError(
            f"the contrast matrix {where} has rank {rank} together with the intercept; it must have "
            f"rank {count}: make its columns independent of each other and of a constant"
        )
    return matrix, tuple(f"[{i}]" for i in range(1, count))


def _in_level_order(kind: Any, levels: tuple[Any, ...], where: str) -> Any:
    """The rows of a data frame in the order of the levels, where its row labels name them."""
    index = getattr(kind, "index", None)
    if index is None or callable(index) or is_numbered(index):
        return kind
    rows = {str(label): i for i, label in enumerate(index)}
    if len(rows) < len(index) or set(rows) != {str(level) for level in levels}:
        raise OptionError(
            f"the contrast matrix {where} has the row labels {_list(tuple(index))}; give one row for each level under "
            "its name, or the matrix alone, in the order of the levels: `.to_numpy()`"
        )
    return kind.iloc[[rows[str(level)] for level in levels]]


def _list(levels: tuple[Any, ...], limit: int = 6) -> str:
    shown = ", ".join(repr(level) for level in levels[:limit])
    return shown if len(levels) <= limit else f"{shown}, ..."
