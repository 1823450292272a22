"""What users give as the known covariance of levels: a matrix with labels, its inverse, or a pedigree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lme4py.covariance.relations.pedigree import Pedigree
from lme4py.covariance.relations.relation import DenseRelation, Relation, relation_of_precision
from lme4py.errors import DataError, OptionError
from lme4py.frozen import computed_once, freeze
from lme4py.linalg.types import FloatArray, SparseMatrix, sparse

__all__ = ["Precision", "find_relation", "match_labels"]

# Elements that differ from their mirror images by more than this part of the largest one are no rounding.
_ASYMMETRY = 1e-8
# An inverse with more elements than this part of all is a dense matrix, for which K itself is faster.
_SPARSE = 0.25
_WAYS = "a DataFrame, (matrix, labels), Precision(matrix, labels) or Pedigree(id, sire, dam)"


class Precision:
    """The inverse of a known covariance matrix of levels.

    Parameters
    ----------
    matrix : array or sparse matrix, shape (J, J), or DataFrame
        K^-1, positive definite; sparse where it has many zeros.
    labels : sequence of J labels, optional
        The index of a DataFrame by default.

    Raises
    ------
    DataError
        Not square, not symmetric, not finite, not positive definite, or other labels than rows.

    Examples
    --------
    >>> Precision(np.array([[2.0, -1.0], [-1.0, 2.0]]), ["a", "b"])
    <Precision of 2 levels>
    """

    def __init__(self, matrix: Any, labels: Iterable[Any] | None = None) -> None:
        what = "the precision matrix"
        if labels is None:
            labels = _index_of(matrix, what)
        values: SparseMatrix = matrix if sparse.issparse(matrix) else _square(matrix, what)
        self.labels = _checked_labels(labels, values.shape, what)
        self.matrix: SparseMatrix = freeze(_symmetric(sparse.csc_array(values, dtype=np.float64), what))

    def __repr__(self) -> str:
        return f"<Precision of {len(self.labels):,} levels>"

    @computed_once
    def relation(self) -> Relation:
        """The covariance of the levels, in the order of `labels`."""
        found = relation_of_precision(self.matrix)
        if self.matrix.nnz > _SPARSE * self.matrix.shape[0] ** 2:
            return DenseRelation(found.matrix)
        return found


def find_relation(given: Any, group: str) -> tuple[tuple[Any, ...], Relation]:
    """Labels, and their covariance, of one value of ``relmat``.

    Parameters
    ----------
    given : DataFrame, (matrix, labels), Precision or Pedigree
    group : str
        The grouping factor, for messages.

    Raises
    ------
    OptionError
        Something else.
    DataError
        A matrix that is no covariance.
    """
    what = f"the matrix of relmat={{{group!r}: ...}}"
    try:
        if isinstance(given, Pedigree | Precision):
            return tuple(given.labels), given.relation
        if isinstance(given, tuple) and len(given) == 2:
            values, labels = given
        elif hasattr(given, "columns") and hasattr(given, "index"):
            values, labels = given, _index_of(given, what)
        else:
            raise OptionError(
                f"relmat={{{group!r}: ...}} is of type {type(given).__name__}; give {_WAYS}, which say what the levels "
                "of its rows are."
            )
        K = _square(values, what)
        names = _checked_labels(labels, K.shape, what)
        return names, DenseRelation(np.asarray(_symmetric(K, what)))
    except DataError as error:
        text = str(error)
        raise DataError(text if what in text else f"{what}: {text}") from None


def _index_of(frame: Any, what: str) -> list[Any]:
    """Labels of the rows of a DataFrame, which the columns repeat."""
    if not (hasattr(frame, "columns") and hasattr(frame, "index")):
        raise OptionError(f"{what} has no labels; give {_WAYS}.")
    rows, columns = list(frame.index), list(frame.columns)
    if rows != columns and [str(one) for one in rows] != [str(one) for one in columns]:
        raise DataError(
            f"the index and the columns of {what} are not the same labels in the same order; reorder it with "
            "K.loc[labels, labels], or give (matrix, labels)."
        )
    return rows


def _square(values: Any, what: str) -> FloatArray:
    try:
        dense: Any = values.toarray() if sparse.issparse(values) else values  # type: ignore[attr-defined]
        K = np.array(dense, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} does not hold numbers only.") from None
    if K.ndim != 2 or K.shape[0] != K.shape[1]:
        raise DataError(f"{what} has the shape {K.shape}; it needs a row and a column for each level.")
    return K


def _checked_labels(labels: Iterable[Any], shape: tuple[int, ...], what: str) -> tuple[Any, ...]:
    names = tuple(labels.tolist() if hasattr(labels, "tolist") else labels)
    if shape[0] != shape[1] or len(names) != shape[0]:
        raise DataError(
            f"{what} has the shape {tuple(shape)} and {len(names)} labels; it needs one label for each row."
        )
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"the label {twice!r} of {what} stands for two rows; give each level one.")
    return names


def _symmetric(K: Any, what: str) -> Any:
    """(K + K') / 2, where that is what was meant."""
    data: Any = K.data if sparse.issparse(K) else K  # type: ignore[attr-defined]
    if not np.isfinite(data).all():
        raise DataError(f"{what} has elements that are missing or infinite.")
    gap = abs(K - K.T)
    largest = float(np.abs(data).max(initial=0.0))
    if float(gap.max()) > _ASYMMETRY * largest:
        raise DataError(f"{what} is not symmetric: elements differ from their mirror images by up to {gap.max():.3g}.")
    return 0.5 * (K + K.T)


def match_labels(known: Sequence[Any], used: Sequence[Any], group: str) -> tuple[Any, ...]:
    """The labels of a matrix as the data write them: all of those that the data have must be among them.

    Parameters
    ----------
    known : sequence
        Labels of the matrix.
    used : sequence
        Levels that occur in the data.
    group : str

    Raises
    ------
    DataError
        Levels without a row in the matrix.
    """
    if set(used) <= set(known):
        return tuple(known)
    # A column of numbers in the data and text in the matrix, or the other way round.
    texts = {str(label): label for label in used}
    same = [texts.get(str(label), label) for label in known]
    missing = [label for label in used if str(label) not in {str(one) for one in known}]
    if not missing and len(set(same)) == len(same):
        return tuple(same)
    missing = missing or [label for label in used if label not in set(known)]
    shown = ", ".join(map(repr, missing[:8])) + (", ..." if len(missing) > 8 else "")
    raise DataError(
        f"{len(missing)} of the {len(used)} levels of '{group}' in the data ({shown}) have no row in the matrix of "
        f"relmat={{{group!r}: ...}}; add them to it (a pedigree needs a row for each animal), or leave their rows out."
    )
