"""Which cluster each row, and each level of a grouping factor, belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lme4py.chunks import chunk
from lme4py.design.design import Design
from lme4py.engine.types import FloatArray, IntArray
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.inference.resample import default_group, group_codes

__all__ = ["ClusterChoice", "Clusters", "buckets", "find_clusters", "home_of_levels", "row_sums"]

ClusterChoice: TypeAlias = str | ArrayLike | None
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


def find_clusters(design: Design, cluster: ClusterChoice = None) -> Clusters:
    """The clusters that a user names.

    Parameters
    ----------
    design : Design
    cluster : str, array of shape (n,), or None
        A grouping factor of the model; or one label for each row used (or for each row of the data); None takes the
        grouping factor in which all others are nested.

    Raises
    ------
    OptionError
        Unknown name, wrong length, or crossed factors without a choice.
    DataError
        Missing labels.
    """
    if cluster is None or isinstance(cluster, str):
        name = _factor_name(design, cluster)
        levels = next(term.levels for term in design.terms if term.group == name)
        return Clusters(name, group_codes(design, name), tuple(levels))
    return _of_values(design, cluster)


def _factor_name(design: Design, cluster: str | None) -> str:
    known = list(design.n_groups)
    if cluster is None or cluster in known:
        try:
            return default_group(design, cluster, required=True)
        except OptionError:
            raise OptionError(
                f"the grouping factors {', '.join(known)} are crossed; say with `cluster=` what the clusters are."
            ) from None
    raise OptionError(
        f"cluster={cluster!r} is no grouping factor of the model.{did_you_mean(cluster, known)} They are "
        f"{', '.join(known)}; for other clusters give the labels of the rows, such as cluster=data[{cluster!r}]."
    )


def _of_values(design: Design, cluster: ArrayLike) -> Clusters:
    import pandas as pd

    values = pd.Series(_one_column(cluster))
    if values.size == design.keep.size:
        values = values[design.keep]
    elif values.size != design.n_obs:
        raise OptionError(
            f"`cluster` has {values.size} labels, but the model was fitted to {design.n_obs} of {design.keep.size} "
            "rows; give one label for each row."
        )
    missing = int(values.isna().sum())
    if missing:
        raise DataError(f"`cluster` is missing in {missing} of the rows used; leave these rows out of the model.")
    codes, labels = pd.factorize(values, sort=False)
    name = getattr(cluster, "name", None)
    return Clusters("cluster" if name is None else str(name), codes.astype(np.intp), tuple(labels))


def _one_column(cluster: ArrayLike) -> Any:
    values: Any = cluster
    for method in ("to_pandas", "to_list"):
        # polars and pyarrow columns.
        if hasattr(values, method) and not hasattr(values, "iloc"):
            values = getattr(values, method)()
            break
    array = values.array if hasattr(values, "array") and hasattr(values, "iloc") else np.asarray(values)
    if getattr(array, "ndim", 1) != 1:
        raise OptionError(f"`cluster` has shape {np.shape(values)}; give one label for each row.")
    return array


def home_of_levels(design: Design, clusters: Clusters) -> dict[str, IntArray] | None:
    """Cluster of each level of each grouping factor; None where a level has rows in several clusters."""
    homes = {}
    for term in design.terms:
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
