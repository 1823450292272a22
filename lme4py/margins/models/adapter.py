"""What a session needs to know of a fitted model: one small class that any package can fill in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import Frame, read_frame
from lme4py.engine.identification.recession import Recession
from lme4py.errors import OptionError
from lme4py.families.links import Link
from lme4py.inference.tests.joint_tests import JointMethod
from lme4py.linalg.types import FloatArray, SparseMatrix
from lme4py.margins.models.nesting import NestedCells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DdfMethod", "FactoredEffects", "FactoredRows", "ModelAdapter", "Random", "Rows", "frame_of", "to_pandas"]

Random: TypeAlias = str | tuple[str, ...]
"""Where random effects stand: "zero", "integrate", "conditional", or at their modes for the named factors only."""


class DdfMethod(Protocol):
    """Degrees of freedom of tests, as in `lme4py.inference.uncertainty.df`."""

    vcov: FloatArray

    def t_df(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of every row of L, shape (r, p)."""

    def f_test(self, L: FloatArray, estimate: FloatArray) -> Any:
        """F test of linearly independent rows: an object with F, num_df, den_df, p_value."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of data as numbers: eta = X beta + known, variance of the random effects = spread @ coefficients.

    Attributes
    ----------
    X : ndarray, shape (n, p + b)
        b = `ModelAdapter.n_beyond` columns follow those of the coefficients.
    known : ndarray, shape (n,)
        Offset, and conditional modes where they are added.
    spread : ndarray, shape (n, k), or None
        None where the variance is not asked for.
    effects : sparse matrix, shape (n, Q), or None
        Columns of the random effects whose modes are in `known`, where their uncertainty counts.
    """

    X: FloatArray
    known: FloatArray
    spread: FloatArray | None = None
    effects: SparseMatrix | None = None


@dataclass(frozen=True, slots=True)
class FactoredRows:
    """Rows in which each scenario sets some variables, column by column as a product: X_sij = C_sj R_ij.

    Attributes
    ----------
    X, known, spread : tuple of two ndarrays, (S, k) and (n, k)
        For scenarios and rows; `known` is the sum over its k columns; `spread` may be None.
    effects : tuple of FactoredEffects
        Random effects whose uncertainty counts, by term.
    """

    X: tuple[FloatArray, FloatArray]
    known: tuple[FloatArray, FloatArray]
    spread: tuple[FloatArray, FloatArray] | None = None
    effects: tuple[FactoredEffects, ...] = ()


@dataclass(frozen=True, slots=True)
class FactoredEffects:
    """The random effects of one term for pairs of a scenario and a row: column a of group j has C_sa R_ia at place.

    Attributes
    ----------
    scenarios : ndarray, shape (S, k)
    rows : ndarray, shape (n, k)
    groups : sparse matrix, shape (n, J)
        1 where a row is in a group.
    place : slice
        Of the term among all random effects: groups, then columns.
    size : int
        Random effects of all terms.
    """

    scenarios: FloatArray
    rows: FloatArray
    groups: SparseMatrix
    place: slice
    size: int

    def known(self, modes: FloatArray) -> FloatArray:
        """What the effects `modes` (Q,) add to the parts of the rows, (n, k)."""
        own = modes[self.place].reshape(-1, self.rows.shape[1])
        known: FloatArray = self.rows * np.asarray(self.groups @ own)
        return known

    def gradient(self, slopes: FloatArray, weights: FloatArray) -> FloatArray:
        """Sums over rows of slopes (S, n) times weights (n,) in all random effects, (S, Q)."""
        out = np.zeros((slopes.shape[0], self.size))
        k = self.rows.shape[1]
        own = out[:, self.place].reshape(slopes.shape[0], -1, k)
        for a in range(k):
            own[:, :, a] = self.scenarios[:, a, None] * ((slopes * (weights * self.rows[:, a])) @ self.groups)
        out[:, self.place] = own.reshape(slopes.shape[0], -1)
        return out

    def take(self, part: slice) -> FactoredEffects:
        """Some of the scenarios."""
        return replace(self, scenarios=self.scenarios[part])


@dataclass(frozen=True, slots=True)
class _FitRows:
    """The rows of a fit, for values that stand beside them."""

    n_rows: int
    index: pd.Index[Any]
    labelled: bool


class ModelAdapter(ABC):
    """What a session needs of a fitted model.

    A subclass sets the attributes and writes `rows`; everything else has a default. Columns of data come as
    `lme4py.data.column.Column` in a `Frame`; `to_pandas` makes a pandas DataFrame of it.

    Attributes
    ----------
    names : tuple of str
        Names of the p coefficients.
    params : ndarray, shape (p,)
    vcov : ndarray, shape (p, p)
    columns : dict of str to Column
        The data that the model was fitted to, rows used only, complete.
    variables : tuple of str
        The columns on which predictions depend; all are in `columns`.
    apart : str
        Variable over whose values nothing is averaged: what tells several responses apart; "" for none.
    family : str
        "gaussian" for a linear model.
    link : Link or None
        None where the linear predictor is the mean.
    mean_range : (float, float)
        The ends of what a mean can be.
    mean_name : str
        What a mean is, in words.
    model_name : str
        What the means are of, in words: the model, or one part of it.
    theta : ndarray, shape (m,)
        Covariance parameters of the random effects, for averages over these.
    parameter_vcov : ndarray, shape (p + m, p + m), or None
        Covariance of (coefficients, theta).
    group : str or None
        Name of a grouping factor.
    notes : tuple of str
    default_ddf : str
        Degrees of freedom where a session is given none, of those that `test_method` knows.
    has_random : bool
        Whether there are random effects.
    has_smooths : bool
        Whether there are smooths, whose coefficients every prediction has.
    alpha : float
        One minus the confidence level where a session is given none.
    n_beyond : int
        Columns of rows after those of the p coefficients, whose coefficients the data do not determine: what moves with
        one of them cannot be estimated.
    cells : NestedCells or None
        Nested factors of the fixed effects.
    """

    names: tuple[str, ...]
    params: FloatArray
    vcov: FloatArray
    columns: Mapping[str, Column]
    variables: tuple[str, ...]
    apart: str = ""
    family: str = "gaussian"
    link: Link | None = None
    mean_range: tuple[float, float] = (-np.inf, np.inf)
    mean_name: str = "mean"
    model_name: str = "this model"
    theta: FloatArray = np.zeros(0)
    parameter_vcov: FloatArray | None = None
    group: str | None = None
    notes: tuple[str, ...] = ()
    recession: Recession | None = None
    default_ddf: str = "normal"
    has_random: bool = True
    has_smooths: bool = False
    alpha: float = 0.05
    n_beyond: int = 0
    cells: NestedCells | None = None
    description: str = ""

    @property
    def n_rows(self) -> int:
        """Rows used by the fit."""
        return len(next(iter(self.columns.values())).values)

    @property
    def row_labels(self) -> Any:
        """Labels of the rows, (n,): a pandas index where they are those of the data, otherwise numbers."""
        return np.arange(self.n_rows)

    @abstractmethod
    def rows(self, frame: Frame, random: Random) -> Rows:
        """Complete rows of data as numbers.

        Parameters
        ----------
        frame : Frame
            Holds at least the columns `needed(random)`.
        random : {"zero", "integrate", "conditional"} or tuple of factors

        Returns
        -------
        Rows
        """

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        """Derivatives of `rows` in the numeric variable `name`; by default one-sided differences of fourth order.

        Every row moves towards the middle of the data, so that functions with a boundary are not asked beyond it.

        Parameters
        ----------
        frame : Frame
            Holds at least the columns `needed(random)`.
        name : str
        random : {"zero", "integrate", "conditional"} or tuple of factors

        Returns
        -------
        Rows
        """
        column, trained = frame.column(name), self.columns[name].values
        h = 1e-3 * (float(np.ptp(trained)) or float(np.abs(trained).max()) or 1.0)
        inward = np.where(column.values > 0.5 * (trained.min() + trained.max()), -h, h)

        def at(steps: int) -> Rows:
            moved = Column(name, column.kind, column.values + steps * inward)
            others = {other: frame.column(other) for other in frame.names if other != name}
            return self.rows(frame_of({**others, name: moved}, frame.n_rows), random)

        moved_rows = [at(steps) for steps in range(5)]

        def difference(part: str) -> Any:
            values = [getattr(rows, part) for rows in moved_rows]
            if values[0] is None:
                return None
            change = sum(weight * value for weight, value in zip((-25, 48, -36, 16, -3), values, strict=True)) / 12
            return change / (inward if change.ndim == 1 else inward[:, None])

        return Rows(difference("X"), difference("known"), difference("spread"))

    def factored(self, rows: Frame, scenarios: Frame, random: Random) -> FactoredRows | None:
        """The same numbers for every pair of a scenario and a row, as products; None where that is not possible.

        Parameters
        ----------
        rows : Frame
            Without the variables that scenarios set.
        scenarios : Frame
            The variables that they set, one row each.
        random : {"zero", "integrate", "conditional"} or tuple of factors

        Returns
        -------
        FactoredRows or None
        """
        return None

    def training_offset(self, random: Random) -> FloatArray | None:
        """Part of the linear predictor that belongs to the rows of the fit and is in no column, (n,).

        Parameters
        ----------
        random : {"zero", "integrate", "conditional"} or tuple of factors

        Returns
        -------
        ndarray, shape (n,), or None
        """
        return None

    def offsets(self, frame: Frame) -> list[tuple[frozenset[str], FloatArray]]:
        """Parts of the linear predictor that are known from columns alone: which columns, and the values of every row.

        Parameters
        ----------
        frame : Frame

        Returns
        -------
        list of (frozenset of str, ndarray of shape (n,))
        """
        return []

    def needed(self, random: Random) -> tuple[str, ...]:
        """Columns that `rows` reads.

        Parameters
        ----------
        random : {"zero", "integrate", "conditional"} or tuple of factors

        Returns
        -------
        tuple of str
        """
        return self.variables

    def other_column(self, name: str) -> Column | None:
        """A column of the data that the model does not use, for weights and groups, on the rows of the fit.

        Parameters
        ----------
        name : str

        Returns
        -------
        Column or None
            None where there is no such column, or the data are not at hand.
        """
        return None

    def rows_given(self, data: Any) -> Frame:
        """Rows that a user gives, as the model has them.

        Parameters
        ----------
        data : data frame
        """
        return read_frame(data)

    def beside(self, values: Any, what: str, *, as_labels: bool = False) -> Column:
        """An argument with a value for each row of the fit; with an index it is matched by it.

        Parameters
        ----------
        values : array-like, shape (n,)
        what : str
            Name of the argument, for messages.
        as_labels : bool
            Labels of groups; otherwise numbers.

        Returns
        -------
        Column
        """
        import pandas as pd

        labels = self.row_labels
        labelled = isinstance(labels, pd.Index)
        rows = _FitRows(self.n_rows, labels if labelled else pd.RangeIndex(self.n_rows), labelled)
        return beside(values, what, rows, as_labels=as_labels)

    def is_categorical(self, name: str) -> bool:
        """True where a column enters as a factor: text, factors, booleans, and numbers that the formula makes one.

        Parameters
        ----------
        name : str

        Returns
        -------
        bool
        """
        return self.columns[name].kind != "numeric"

    def spread_coefficients(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients of `Rows.spread`, (k,), and their derivatives in theta, (k, m).

        Parameters
        ----------
        theta : ndarray, shape (m,)

        Returns
        -------
        tuple of two ndarrays
        """
        raise OptionError("this model does not know the variance of its random effects; use random='zero'.")

    def test_method(self, ddf: str) -> DdfMethod | None:
        """Degrees of freedom; None for the normal distribution.

        Parameters
        ----------
        ddf : {"normal", "satterthwaite", "kenward-roger", "residual"}

        Returns
        -------
        DdfMethod or None
        """
        if ddf == "normal":
            return None
        raise OptionError(f"ddf={ddf!r} is not available for this model; leave it out for normal quantiles.")

    def robust(self, kind: str, cluster: Any, ddf: str | None = None) -> DdfMethod:
        """A robust covariance of the coefficients by name, with its degrees of freedom.

        Parameters
        ----------
        kind : str
            Such as "CR2".
        cluster : object
            As the fit's own methods take it.
        ddf : str or None
            Degrees of freedom; None is those that belong to this covariance.

        Returns
        -------
        DdfMethod
        """
        raise OptionError(f"vcov={kind!r} is not known for this model; give a matrix.")

    def robust_parameters(self, kind: str, cluster: Any) -> FloatArray | None:
        """The same robust covariance of (coefficients, theta), (p + m, p + m); None where there is none.

        Parameters
        ----------
        kind : str
        cluster : object

        Returns
        -------
        ndarray or None
        """
        return None

    def check_groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """The named grouping factors, whose random effects are to stand at their modes, or an error.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        tuple of str
        """
        raise OptionError(f"random={list(names)!r} names grouping factors, which this model does not know here.")

    def joint_method(self, ddf: str | None, vcov: FloatArray | None) -> JointMethod | None:
        """Covariance and degrees of freedom of coefficients and modes together; None where modes are taken as known.

        Parameters
        ----------
        ddf : str or None
        vcov : ndarray, shape (p, p), or None
            Another covariance of the coefficients.

        Returns
        -------
        JointMethod or None
        """
        return None

    def replicates(self, n: int, kind: str, group: Any, seed: int, n_jobs: int) -> FloatArray:
        """Estimates (coefficients, then theta) of the same model refitted to new data, shape (n, p + m).

        Parameters
        ----------
        n : int
        kind : {"parametric", "clusters"}
        group : str or None
            Whose levels are drawn.
        seed, n_jobs : int

        Returns
        -------
        ndarray, shape (n, p + m)
        """
        raise OptionError("this model cannot be refitted here; use method='delta' or 'simulation'.")


def frame_of(columns: Mapping[str, Column], n_rows: int) -> Frame:
    """A frame of converted columns.

    Parameters
    ----------
    columns : dict of str to Column
    n_rows : int

    Returns
    -------
    Frame

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py.data.column import Column
    >>> frame = frame_of({"x": Column("x", "numeric", np.array([1.0, 2.0]))}, 2)
    >>> frame.names, frame.n_rows
    (('x',), 2)
    """
    names = tuple(columns)
    return Frame(names, n_rows, lambda i: columns[names[i]])


def to_pandas(frame: Frame) -> pd.DataFrame:
    """A frame as pandas columns: numbers, booleans, categoricals, and text as objects.

    Parameters
    ----------
    frame : Frame

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py.data.column import Column
    >>> to_pandas(frame_of({"x": Column("x", "numeric", np.array([1.0, 2.0]))}, 2))
         x
    0  1.0
    1  2.0
    """
    import pandas as pd

    def convert(column: Column) -> Any:
        if column.kind == "boolean":
            return column.values.astype(bool)
        if not column.is_factor:
            return column.values
        if column.kind == "text":
            return np.array(column.levels, dtype=object)[column.values]
        levels: Any = list(column.levels)
        return pd.Categorical.from_codes(column.values.astype(np.intp), levels, ordered=column.kind == "ordered")

    return pd.DataFrame({name: convert(frame.column(name)) for name in frame.names}, index=range(frame.n_rows))
