"""What a formula and data become: the arrays that the engine works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lme4py.design.conventions import Conventions
from lme4py.frozen import Frozen, computed_once

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.data.column import Column
    from lme4py.data.frame import Frame
    from lme4py.design.recipe import Recipe
    from lme4py.design.response import ResponseData

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term: k columns that vary over the J levels of a grouping factor.

    Attributes
    ----------
    group : str
        Name of the grouping factor, ``"Subject"`` or ``"cond:Subject"``.
    columns : tuple of str
        Names of the k columns.
    levels : tuple
        The J levels that occur, in order: the user's own objects for a plain factor, ``"lo:308"`` for an interaction.
    codes : ndarray of int, shape (n,)
        Level of each row, 0 .. J-1; 32 bits each, so convert them before arithmetic that could leave that range.
    values : ndarray of float, shape (n, k)
        The raw model matrix of the term.
    structure : str
        "unstructured" (k(k+1)/2 theta), "diagonal" (k theta), "identity" (1 theta) or "exchangeable" (2 theta).
    label : str
        ``"(Days | Subject)"``.
    """

    group: str
    columns: tuple[str, ...]
    levels: tuple[Any, ...]
    codes: IntArray
    values: FloatArray
    structure: str
    label: str

    @property
    def n_levels(self) -> int:
        return len(self.levels)

    @property
    def n_columns(self) -> int:
        return len(self.columns)

    @property
    def n_theta(self) -> int:
        k = len(self.columns)
        sizes = {"unstructured": k * (k + 1) // 2, "diagonal": k, "identity": 1, "exchangeable": min(k, 2)}
        return sizes[self.structure]


@dataclass(frozen=True)
class Design(Frozen):
    """The first modular step: formula and data as arrays.

    Attributes
    ----------
    formula : str
        As the user wrote it.
    response_name : str
    y : ndarray of float, shape (n,), or (n, 2) for ``cbind()``
    X : ndarray of float, shape (n, p)
        Fixed-effects model matrix, full column rank.
    x_names : tuple of str
    assign : tuple of int
        For each column of X the index (1, 2, ...) of its term in `fixed_labels`; 0 for the intercept.
    fixed_labels : tuple of str
        Labels of the fixed terms.
    dropped : tuple of str
        Columns that were linear combinations of the ones before them.
    terms : tuple of RandomTerm
        In lme4's order: number of levels, decreasing.
    weights : ndarray of float, shape (n,), or None
        Prior weights, positive.
    offset : ndarray of float, shape (n,), or None
        Sum of the `offset` argument and the formula's ``offset()`` terms.
    keep : ndarray of bool, shape (n_data,)
        Rows of the user's data that are used.
    index : pandas.Index
        Labels of all n_data rows of the user's data.
    labelled : bool
        Whether these are the user's own labels; False where they count the rows.
    source : callable, or None
        Gives the data of the user's, for columns that the fit does not keep; a reference, which is not pickled.
    na_action : str
        "omit" | "exclude" | "raise".
    recipe : Recipe
        What is needed to build the same columns for new data; small, picklable.
    notes : tuple of str
        Plain sentences worth showing to the user (dropped columns, `||` with a factor, ...).
    response : ResponseData or None
        The response of a generalised model, checked for its family.
    alias : ndarray of float, shape (p, number dropped), or None
        Each dropped column as a combination of the columns of X; None when nothing was dropped.
    columns : mapping of str to Column, or None
        The columns of the data that the formula, the weights and the offset use, on the rows used.
    conventions : Conventions
        What the front door wants from the results.
    """

    formula: str
    response_name: str
    y: FloatArray
    X: FloatArray
    x_names: tuple[str, ...]
    assign: tuple[int, ...]
    fixed_labels: tuple[str, ...]
    dropped: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    weights: FloatArray | None
    offset: FloatArray | None
    keep: NDArray[np.bool_]
    index: pd.Index
    na_action: str
    recipe: Recipe
    notes: tuple[str, ...] = ()
    response: ResponseData | None = None
    alias: FloatArray | None = None
    columns: Mapping[str, Column] | None = None
    conventions: Conventions = field(default_factory=Conventions)
    labelled: bool = True
    source: Callable[[], Frame] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"source": None}

    @property
    def n_rows(self) -> int:
        """Number of rows of the user's data."""
        return int(self.keep.shape[0])

    @property
    def n_obs(self) -> int:
        """Number of rows used."""
        return int(self.y.shape[0])

    @property
    def n_theta(self) -> int:
        """Number of covariance parameters of all terms, m."""
        return sum(term.n_theta for term in self.terms)

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels of each grouping factor, in the order of `terms`."""
        return {term.group: term.n_levels for term in self.terms}

    @computed_once
    def Zt(self) -> sparse.csr_array:
        """Transposed random-effects model matrix, shape (q, n).

        Rows run over terms, then levels, then the columns of the term (lme4's order).
        """
        blocks = []
        n = self.n_obs
        for term in self.terms:
            k = term.n_columns
            rows = (term.codes.astype(np.intp)[:, None] * k + np.arange(k)).ravel()
            columns = np.repeat(np.arange(n), k)
            shape = (term.n_levels * k, n)
            block = sparse.coo_array((term.values.ravel(), (rows, columns)), shape=shape).tocsr()
            block.eliminate_zeros()
            blocks.append(block)
        stacked: sparse.csr_array = sparse.vstack(blocks, format="csr")
        return stacked
