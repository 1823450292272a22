"""Which cluster each row, and each level of a grouping factor, belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lme4py.chunks import chunk
from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import as_factor_column, drop_unused_levels
from lme4py.design.design import Design
from lme4py.design.source import column_of_fit
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.fits.groups import default_group, group_codes
from lme4py.linalg.types import FloatArray, IntArray

__all__ = [
    "TYPES",
    "ClusterChoice",
    "Clusters",
    "RobustType",
    "buckets",
    "check_robust_type",
    "find_clusters",
    "home_of_levels",
    "independent_clusters",
    "row_sums",
    "too_few_clusters",
]

ClusterChoice: TypeAlias = str | ArrayLike | None
RobustType: TypeAlias = Literal["CR0", "CR1", "CR2", "CR3"]

TYPES: tuple[RobustType, ...] = ("CR0", "CR1", "CR2", "CR3")
# Elements of the (r, r) matrices of all clusters at one time.
_BUCKET = chunk(4_000_000)


@dataclass(frozen=True)
class Clusters:
    """A partition of the rows.

    Attributes
    ----------
    name : str
    codes : ndarray of int, shape (n,)
        Cluster of each row used, 0 .. m-1; every cluster has rows.
    labels : tuple
        The m labels.
    """

    name: str
    codes: IntArray
    labels: tuple[Any, ...]

    @property
    def n_clusters(self) -> int:
        return len(self.labels)


def find_clusters(design: Design, cluster: ClusterChoice = None, what: str = "cluster") -> Clusters:
    """The clusters that a user names.

    Parameters
    ----------
    design : Design
    cluster : str, array of shape (n,), or None
        A grouping factor of the model; a column of its data or an expression of columns; or one label for each row
        used (or for each row of the data), where labels with an index are matched with the rows by it. None takes the
        grouping factor in which all others are nested.
    what : str
        Name of the argument, for messages.

    Raises
    ------
    OptionError
        Unknown name, or crossed factors without a choice.
    DataError
        Missing labels, another number of them, or an index that does not fit the rows.
    """
    if isinstance(cluster, str) and cluster not in design.n_groups:
        return _of_column(_named(design, cluster, what), cluster, what)
    if cluster is None or isinstance(cluster, str):
        name = _factor_name(design, cluster, what)
        levels = next(term.levels for term in design.terms if term.group == name)
        # Levels of a known covariance may have no rows.
        used, codes = np.unique(group_codes(design, name), return_inverse=True)
        return Clusters(name, codes.reshape(-1), tuple(levels[i] for i in used))
    column = beside(cluster, what, design, design.keep, as_labels=True)
    given = getattr(cluster, "name", None)
    return _of_column(column, what if given is None else str(given), what)


def _factor_name(design: Design, cluster: str | None, what: str) -> str:
    end = f"say with `{what}=` what the {what.removesuffix('s')}s are."
    if not design.n_groups and cluster is None:
        raise OptionError(f"the model has no grouping factor; {end}")
    try:
        return default_group(design, cluster, required=True)
    except OptionError:
        if not design.terms:
            raise OptionError(f"the model has no grouping factor; {end}") from None
        raise OptionError(f"the grouping factors {', '.join(design.n_groups)} are crossed; {end}") from None


def _named(design: Design, cluster: str, what: str) -> Column:
    """A column or an expression that names clusters."""
    found = column_of_fit(design, cluster, what)
    if found is None:
        known = [*design.n_groups, *(design.columns or {})]
        raise OptionError(
            f"{what}={cluster!r} is no grouping factor of the model and no column of its data."
            f"{did_you_mean(cluster, known)} The grouping factors are {', '.join(design.n_groups)}; for other clusters "
            f"give the labels of the rows, such as {what}=data[{cluster!r}]."
        )
    return as_factor_column(found)


def _of_column(column: Column, name: str, what: str) -> Clusters:
    missing = int(column.missing().sum())
    if missing:
        raise DataError(f"`{what}` is missing in {missing} of the rows used; leave these rows out of the model.")
    used = drop_unused_levels(column)
    return Clusters(name, used.values.astype(np.intp), used.levels)


def home_of_levels(design: Design, clusters: Clusters) -> dict[str, IntArray] | None:
    """Cluster of each level of each grouping factor; None where clusters have a level, or related levels, in common."""
    homes = {}
    for term in design.terms:
        if term.relation is not None:
            return None
        home = np.full(term.n_levels, -1)
        home[term.codes] = clusters.codes
        if (home[term.codes] != clusters.codes).any():
            return None
        homes[term.group] = home
    return homes


def row_sums(values: FloatArray, codes: IntArray, size: int) -> FloatArray:
    """Sums over the rows of each cluster, (n, ...) to (size, ...).

    Parameters
    ----------
    values : ndarray, shape (n, ...)
    codes : ndarray of int, shape (n,)
    size : int
    """
    flat = values.reshape(values.shape[0], -1)
    columns = [np.bincount(codes, weights=column, minlength=size) for column in flat.T]
    out: FloatArray = np.array(columns, dtype=np.float64).reshape(flat.shape[1], size).T
    return out.reshape(size, *values.shape[1:])


def buckets(codes: IntArray, size: int, most: int = _BUCKET) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Clusters of similar size together, so that their rows fit in one rectangular array.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    size : int
        Number of clusters.
    most : int
        Largest number of elements of one (C, rows, rows) array.

    Yields
    ------
    which : ndarray of int, shape (C,)
        Clusters.
    rows : ndarray of int, shape (C, r)
        Their rows; places beyond the end of a cluster hold its first row.
    counts : ndarray of int, shape (C,)
    """
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=size)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # Within a bucket the sizes differ by at most a fifth.
    kind = np.ceil(np.log(np.maximum(counts, 1)) / np.log(1.2)).astype(np.intp)
    for value in np.unique(kind):
        members = np.flatnonzero(kind == value)
        longest = int(counts[members].max())
        step = max(1, most // longest**2)
        for first in range(0, members.size, step):
            which = members[first : first + step]
            place = np.arange(longest)
            inside = np.where(place < counts[which, None], place, 0)
            yield which, order[starts[which, None] + inside], counts[which]


def check_robust_type(type: object) -> RobustType:
    """`type` if it is known, otherwise an OptionError."""
    for known in TYPES:
        if isinstance(type, str) and type.upper() == known:
            return known
    raise OptionError(f"type={type!r} is no robust covariance.{did_you_mean(str(type), TYPES)} Use one of {TYPES}.")


def independent_clusters(design: Design, cluster: ClusterChoice) -> Clusters:
    """Clusters between which the model has no correlation, or an error."""
    clusters = find_clusters(design, cluster)
    if clusters.n_clusters < 2:
        raise OptionError(f"{clusters.name!r} is one cluster only; a robust covariance needs at least two.")
    related = [term.group for term in design.terms if term.relation is not None]
    if related:
        raise OptionError(
            f"the levels of {' and '.join(dict.fromkeys(related))} are related (relmat=), so that no clusters of this "
            "model are independent; its own covariances take the relations into account."
        )
    if home_of_levels(design, clusters) is None:
        split = [term.group for term in design.terms if _is_split(term.codes, clusters.codes, term.n_levels)]
        raise OptionError(
            f"levels of {' and '.join(dict.fromkeys(split))} have rows in several clusters of {clusters.name!r}, so "
            "the clusters are not independent in this model. Use clusters that contain whole groups of every "
            "random-effects term: the outermost factor, or a coarser one."
        )
    return clusters


def _is_split(levels: IntArray, clusters: IntArray, size: int) -> bool:
    home = np.full(size, -1)
    home[levels] = clusters
    return bool((home[levels] != clusters).any())


def too_few_clusters(count: int | None, q: int) -> str:
    """What to say where a robust covariance of q restrictions is singular."""
    number = "" if count is None else f"{count} "
    return f"{number}clusters are too few for a robust test of {q} restrictions together; test fewer at a time."
