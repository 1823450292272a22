"""What a formula and data become: the arrays that the engine works on, and the plan of them that holds no rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lme4py.covariance import CovarianceStructure, CovarianceStructures
from lme4py.covariance.relations.relation import Relation
from lme4py.data.frame import range_index
from lme4py.design.absent import RowsReport
from lme4py.frozen import Frozen, computed_once

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.data.column import Column
    from lme4py.data.frame import Frame
    from lme4py.data.sources.base import RowSource
    from lme4py.design.beside.priors import Priors
    from lme4py.design.recipe import Recipe
    from lme4py.design.responses.responses import BoundResponses
    from lme4py.families.response import ResponseData
    from lme4py.formula.nodes import Formula

__all__ = ["CONDITIONAL", "Design", "DesignPlan", "Predictor", "PredictorPlan", "RandomTerm", "TermPlan"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# The first linear predictor: of the mean, or the location.
CONDITIONAL: Final = "conditional"


@dataclass(frozen=True, slots=True)
class TermPlan:
    """One random-effects term without its rows.

    Attributes
    ----------
    group : str
        Name of the grouping factor, ``"Subject"`` or ``"cond:Subject"``.
    columns : tuple of str
        Names of the k columns.
    levels : tuple
        The J levels that occur, in order: the user's own objects for a plain factor, ``"lo:308"`` for an interaction.
    structure : CovarianceStructure
        Of the k effects, in these columns.
    label : str
        ``"(Days | Subject)"``.
    parts : tuple of str
        The linear predictor that each column belongs to; () where that is the first for all of them.
    relation : Relation or None
        The known covariance K of the levels, whose effects have the covariance K (x) Sigma; None where they are
        independent.
    level_variance : float
        Mean over the rows of the diagonal of K; of a level that K does not have too.
    """

    group: str
    columns: tuple[str, ...]
    levels: tuple[Any, ...]
    structure: CovarianceStructure
    label: str
    parts: tuple[str, ...] = field(default=(), kw_only=True)
    relation: Relation | None = field(default=None, kw_only=True)
    level_variance: float = field(default=1.0, kw_only=True)
    smooth: bool = field(default=False, kw_only=True)

    @property
    def n_levels(self) -> int:
        return len(self.levels)

    @property
    def n_columns(self) -> int:
        return len(self.columns)

    @property
    def n_theta(self) -> int:
        return self.structure.n_theta

    @property
    def column_parts(self) -> tuple[str, ...]:
        """The linear predictor of each column."""
        return self.parts or (CONDITIONAL,) * self.n_columns

    def predictors(self, further: Sequence[str]) -> tuple[int, ...]:
        """Number of the linear predictor of each column.

        Parameters
        ----------
        further : sequence of str
            Names of the predictors after the first.
        """
        known = (CONDITIONAL, *further)
        return tuple(known.index(part) for part in self.column_parts)

    def masked(self, values: FloatArray, part: str = CONDITIONAL) -> FloatArray:
        """Rows of the term's columns with zeros where a column belongs to another linear predictor.

        Parameters
        ----------
        values : ndarray, shape (n, k)
        part : str
        """
        if not self.parts and part == CONDITIONAL:
            return values
        kept: FloatArray = values * (np.array(self.column_parts) == part)
        return kept


@dataclass(frozen=True, slots=True)
class RandomTerm(TermPlan):
    """One random-effects term: k columns that vary over the J levels of a grouping factor.

    Attributes
    ----------
    codes : ndarray of int, shape (n,)
        Level of each row, 0 .. J-1; 32 bits each, so convert them before arithmetic that could leave that range.
    values : ndarray of float, shape (n, k)
        The raw model matrix of the term.
    """

    codes: IntArray
    values: FloatArray

    @property
    def is_curve(self) -> bool:
        """Whether the term is the penalised part of one smooth for all rows, and no random effect of groups."""
        return self.smooth and self.n_levels == 1

    def subset(self, columns: Sequence[int]) -> RandomTerm:
        """The term with some of its columns."""
        kept = np.asarray(columns, dtype=np.intp)
        names = tuple(self.columns[j] for j in kept)
        parts = tuple(self.parts[j] for j in kept) if self.parts else ()
        structure = self.structure.subset(kept)
        return replace(self, columns=names, values=self.values[:, kept], structure=structure, parts=parts)

    def values_of(self, part: str) -> FloatArray:
        """The columns in one linear predictor, zero where they belong to another, (n, k)."""
        return self.masked(self.values, part)

    @property
    def plan(self) -> TermPlan:
        """The term without its rows."""
        return TermPlan(
            self.group,
            self.columns,
            self.levels,
            self.structure,
            self.label,
            parts=self.parts,
            relation=self.relation,
            level_variance=self.level_variance,
            smooth=self.smooth,
        )


@dataclass(frozen=True)
class PredictorPlan(Frozen):
    """One linear predictor without its rows.

    Attributes
    ----------
    names : tuple of str
        Of the p columns of X.
    assign : tuple of int
        For each column of X the index (1, 2, ...) of its term in `labels`; 0 for the intercept.
    labels : tuple of str
        Of the fixed terms.
    terms : tuple of TermPlan
        In lme4's order: number of levels, decreasing.
    dropped : tuple of str
        Columns that were linear combinations of the ones before them.
    alias : ndarray of float, shape (p, number dropped), or None
        Each dropped column as a combination of the columns of X; None when nothing was dropped.
    link : str or None
        Name of the link between the predictor and what it predicts; None is that of the family.
    name : str
        What it predicts: "conditional" is the mean (for ordered categories the location).
    held : tuple of (str, float)
        Columns whose coefficients are at values that the user gave; they are a part of the offset.
    """

    names: tuple[str, ...]
    assign: tuple[int, ...]
    labels: tuple[str, ...]
    terms: tuple[TermPlan, ...] = ()
    dropped: tuple[str, ...] = ()
    alias: FloatArray | None = None
    link: str | None = None
    name: str = "conditional"
    held: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Predictor(Frozen):
    """One linear predictor on the rows used: eta = X beta + Z b + offset.

    Attributes
    ----------
    X : ndarray of float, shape (n, p)
        Fixed-effects model matrix, full column rank.
    names, assign, labels, dropped, alias, link, name, held
        As in `PredictorPlan`.
    terms : tuple of RandomTerm
        In lme4's order: number of levels, decreasing.
    offset : ndarray of float, shape (n,), or None
        Known part of the predictor.
    """

    X: FloatArray
    names: tuple[str, ...]
    assign: tuple[int, ...]
    labels: tuple[str, ...] = ()
    terms: tuple[RandomTerm, ...] = ()
    offset: FloatArray | None = None
    dropped: tuple[str, ...] = ()
    alias: FloatArray | None = None
    link: str | None = None
    name: str = "conditional"
    held: tuple[tuple[str, float], ...] = ()

    @property
    def n_columns(self) -> int:
        """Number of fixed effects, p."""
        return len(self.names)

    @property
    def n_theta(self) -> int:
        """Number of covariance parameters of the terms."""
        return sum(term.n_theta for term in self.terms)

    @property
    def plan(self) -> PredictorPlan:
        """The predictor without its rows."""
        terms = tuple(term.plan for term in self.terms)
        return PredictorPlan(
            self.names, self.assign, self.labels, terms, self.dropped, self.alias, self.link, self.name, self.held
        )


@dataclass(frozen=True)
class DesignPlan(Frozen):
    """A design without its rows: what new data, slim fits and other machines need.

    Attributes
    ----------
    formula : str
        As the user wrote it.
    response_name : str
    predictors : tuple of PredictorPlan
    recipe : Recipe
        What is needed to build the same columns for new data; small, picklable.
    na_action : str
        "omit" | "exclude" | "raise".
    notes : tuple of str
        Plain sentences worth showing to the user.
    n_rows, n_obs : int
        Number of rows of the user's data, and of those used.
    """

    formula: str
    response_name: str
    predictors: tuple[PredictorPlan, ...]
    recipe: Recipe
    na_action: str
    notes: tuple[str, ...]
    n_rows: int
    n_obs: int


@dataclass(frozen=True)
class Design(Frozen):
    """The first modular step: formula and data as arrays.

    Most models have one linear predictor; `X`, `x_names`, `assign`, `fixed_labels`, `dropped`, `alias` and `offset` are
    those of the first, `terms` those of all.

    Attributes
    ----------
    formula : str
        As the user wrote it.
    response_name : str
    y : ndarray of float, shape (n,), or (n, 2) for ``cbind()``
    predictors : tuple of Predictor
    weights : ndarray of float, shape (n,), or None
        Prior weights, positive.
    keep : ndarray of bool, shape (n_data,)
        Rows of the user's data that are used.
    row_labels : pandas.Index or None
        Labels of all n_data rows of the user's data; None where they are counted. `index` has them in any case.
    na_action : str
        "omit" | "exclude" | "raise".
    recipe : Recipe
        What is needed to build the same columns for new data; small, picklable.
    notes : tuple of str
        Plain sentences worth showing to the user (dropped columns, `||` with a factor, ...).
    response : ResponseData or None
        The response of a generalised model, checked for its family.
    columns : mapping of str to Column, or None
        The columns of the data that the formula, the weights and the offset use, on the rows used.
    labelled : bool
        Whether the labels of `index` are the user's own; False where they count the rows.
    source : callable, or None
        Gives the data of the user's, for columns that the fit does not keep; a reference, which is not pickled.
    streamed : RowsReport or None
        How the rows went by, where they are not in memory.
    lazy : RowSource or None
        Where rows that were streamed still are; a reference, which is not pickled.
    part_recipes : tuple of Recipe
        As `recipe`, of the predictors after the first.
    sigma : float or None
        The residual standard deviation of a row with weight 1, where it is known and not estimated.
    priors : Priors or None
        Densities that penalise the likelihood.
    log_dispersion : float or None
        The logarithm of the dispersion of the family, where it is known.
    responses : BoundResponses or None
        Of a model with several responses, whose rows have one each.
    """

    formula: str
    response_name: str
    y: FloatArray
    predictors: tuple[Predictor, ...]
    weights: FloatArray | None
    keep: NDArray[np.bool_]
    row_labels: pd.Index | None
    na_action: str
    recipe: Recipe
    notes: tuple[str, ...] = ()
    response: ResponseData | None = None
    columns: Mapping[str, Column] | None = None
    labelled: bool = True
    source: Callable[[], Frame] | None = None
    streamed: RowsReport | None = None
    lazy: RowSource | None = None
    part_recipes: tuple[Recipe, ...] = ()
    sigma: float | None = None
    priors: Priors | None = None
    log_dispersion: float | None = None
    responses: BoundResponses | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"source": None, "lazy": None}

    def with_predictor(self, **changes: Any) -> Design:
        """The same design with another first predictor.

        Parameters
        ----------
        **changes
            Fields of `Predictor`.

        Returns
        -------
        Design
        """
        return replace(self, predictors=(replace(self.predictors[0], **changes), *self.predictors[1:]))

    def with_terms(self, terms: Sequence[RandomTerm]) -> Design:
        """The same design with other random-effects terms, each in the predictor of its first column.

        Parameters
        ----------
        terms : sequence of RandomTerm
            In the order of `terms`.

        Returns
        -------
        Design
        """
        homes = [term.column_parts[0] for term in terms]
        predictors = tuple(
            replace(one, terms=tuple(t for t, home in zip(terms, homes, strict=True) if home == one.name))
            for one in self.predictors
        )
        return replace(self, predictors=predictors)

    @computed_once
    def index(self) -> pd.Index:
        """Labels of all rows of the user's data."""
        return range_index(self.n_rows) if self.row_labels is None else self.row_labels

    @property
    def plan(self) -> DesignPlan:
        """The design without its rows."""
        return DesignPlan(
            self.formula,
            self.response_name,
            tuple(predictor.plan for predictor in self.predictors),
            self.recipe,
            self.na_action,
            self.notes,
            self.n_rows,
            self.n_obs,
        )

    @property
    def written(self) -> Formula:
        """The formula as it was written, read."""
        formula = self.recipe.formula if self.responses is None else self.responses.formula
        return formula if formula.before is None else formula.before

    # --- the first predictor --------------------------------------------------------------------------------

    @property
    def X(self) -> FloatArray:
        """Fixed-effects model matrix, (n, p)."""
        return self.predictors[0].X

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        return self.predictors[0].names

    @property
    def assign(self) -> tuple[int, ...]:
        """For each column of X the index (1, 2, ...) of its term in `fixed_labels`; 0 for the intercept."""
        return self.predictors[0].assign

    @property
    def fixed_labels(self) -> tuple[str, ...]:
        """Labels of the fixed terms."""
        return self.predictors[0].labels

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns that were linear combinations of the ones before them."""
        return self.predictors[0].dropped

    @property
    def alias(self) -> FloatArray | None:
        """Each dropped column as a combination of the columns of X, (p, number dropped), or None."""
        return self.predictors[0].alias

    @property
    def terms(self) -> tuple[RandomTerm, ...]:
        """Random-effects terms of all predictors, each in lme4's order: number of levels, decreasing."""
        if len(self.predictors) == 1:
            return self.predictors[0].terms
        return tuple(term for predictor in self.predictors for term in predictor.terms)

    @property
    def offset(self) -> FloatArray | None:
        """Sum of the `offset` argument and the formula's ``offset()`` terms, (n,), or None.

        Of several categories that of all of their predictors, or (n, D), each its own.
        """
        return self.predictors[0].offset

    @property
    def n_stacked(self) -> int:
        """Linear predictors that stand one below the other in X: categories beside the baseline; 1 for all others."""
        return self.X.shape[0] // self.n_obs if self.n_obs else 1

    @property
    def stacked_offset(self) -> FloatArray | None:
        """`offset` of linear predictors that stand one below the other, as the rows of X do, (D n,), or None."""
        known = self.offset
        if known is None or (known.ndim == 1 and known.size == self.X.shape[0]):
            return known
        tall: FloatArray = np.tile(known, self.X.shape[0] // known.size) if known.ndim == 1 else known.T.ravel()
        return tall

    @property
    def rows(self) -> RowsReport:
        """Where the rows are, and how often all of them were read."""
        return self.streamed or RowsReport("memory", 1, 1, self.n_rows, self.n_obs)

    # --- sizes ----------------------------------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        """Number of rows of the user's data."""
        return int(self.keep.shape[0])

    @property
    def n_obs(self) -> int:
        """Number of rows used."""
        return int(self.y.shape[0])

    @computed_once
    def structures(self) -> CovarianceStructures:
        """The covariance structures of all terms."""
        return CovarianceStructures(tuple(term.structure for term in self.terms))

    @property
    def n_theta(self) -> int:
        """Number of covariance parameters of all terms, m."""
        return sum(term.n_theta for term in self.terms)

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels of each grouping factor, in the order of `terms`; smooths have none."""
        return {term.group: term.n_levels for term in self.terms if not term.smooth}

    @property
    def smooth_terms(self) -> tuple[int, ...]:
        """Positions of the terms that are penalised parts of smooths."""
        return tuple(t for t, term in enumerate(self.terms) if term.smooth)

    @property
    def triangle(self) -> FloatArray:
        """R of X = QR, (p, p)."""
        return np.asarray(np.linalg.qr(self.X, mode="r"), dtype=np.float64)

    @computed_once
    def Zt(self) -> sparse.csr_array:
        """Transposed random-effects model matrix, shape (q, n).

        Rows run over terms, then levels, then the columns of the term (lme4's order).
        """
        n = self.n_obs
        if not self.terms:
            return sparse.csr_array((0, n))
        blocks = []
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
