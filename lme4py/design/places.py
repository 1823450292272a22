"""Terms whose columns are times or places: left of the bar stands where a row is, and each place is a column.

``ar1(0 + visit | g)`` has a column for each visit, ``ou(t | g)`` one for each time that occurs, ``exp(x + y | g)`` one
for each point. The model matrix of such a term is 1 where a row is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.covariance import CovarianceStructure
from lme4py.design.fixed import name_of, used_variables
from lme4py.errors import DataError, DesignError
from lme4py.formula.nodes import Bar, Name, Node
from lme4py.formula.values import Value

__all__ = ["Places", "learn_places"]

FloatArray = NDArray[np.float64]
# From places, (u,) or (u, d), to rows of the model matrix, (u, k); None where these are not known.
Between = Callable[[FloatArray], "FloatArray | None"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the columns of a term are, without its rows.

    Attributes
    ----------
    label : str
        Of the term.
    nodes : tuple of Node
        What stands left of the bar.
    levels : tuple
        Of a factor, unused ones too: its positions are their numbers. Empty for numbers.
    positions : ndarray, shape (k,) or (k, d)
    names : tuple of str
        Of the k columns.
    """

    label: str
    nodes: tuple[Node, ...]
    levels: tuple[Any, ...]
    positions: FloatArray
    names: tuple[str, ...]

    def columns(self, values: Mapping[Node, Value], between: Between | None = None) -> FloatArray:
        """The model matrix, shape (n, k).

        Parameters
        ----------
        values : mapping of Node to Value
        between : callable, optional
            Gives the rows of places where no row of the fit was.

        Raises
        ------
        DataError
            A row is where no row of the fit was, and there is no `between`, or it does not know the place.
        """
        where = self._where(values)
        known = {tuple(np.atleast_1d(place).tolist()): j for j, place in enumerate(self.positions)}
        points, rows = np.unique(where, axis=0, return_inverse=True)
        column = np.array([known.get(tuple(np.atleast_1d(point).tolist()), -1) for point in points], dtype=np.intp)
        new = column < 0
        made = between(points[new]) if between is not None and new.any() and self._is_somewhere(points[new]) else None
        if made is None and new.any():
            first = points[int(np.argmax(column < 0))]
            raise DataError(
                f"{int((column < 0).sum())} place(s) of {self.label} in the new data were not in the rows the model "
                f"was fitted to (first: {self._called(first)}); remove these rows, or fit the model with them"
            )
        own = np.zeros((points.shape[0], self.positions.shape[0]))
        own[np.flatnonzero(~new), column[~new]] = 1.0
        if made is not None:
            own[new] = made
        return own[rows.reshape(-1)]

    def _is_somewhere(self, points: FloatArray) -> bool:
        """Whether places are among those that a factor has."""
        return not self.levels or bool((points >= 0).all())

    def _where(self, values: Mapping[Node, Value]) -> FloatArray:
        if not self.levels:
            return _numbers(self.label, self.nodes, values, self.positions.ndim == 2)
        value = values[self.nodes[0]]
        place = {level: float(j) for j, level in enumerate(self.levels)}
        # What the fit does not know is nowhere.
        table = np.array([*(place.get(level, np.nan) for level in value.levels), np.nan])
        return np.asarray(np.nan_to_num(table[value.values], nan=-1.0))

    def _called(self, point: Any) -> str:
        if not self.levels:
            return _shown(point)
        return repr(self.levels[int(point)]) if point >= 0 else "a level that the data did not have"


def learn_places(
    bar: Bar, kind: type[CovarianceStructure], values: Mapping[Node, Value], levels: Mapping[str, tuple[Any, ...]]
) -> Places:
    """Where the columns of a term are.

    Parameters
    ----------
    bar : Bar
    kind : type of CovarianceStructure
        One that takes positions.
    values : mapping of Node to Value
        On the rows that are used.
    levels : mapping of str to tuple
        All levels of the columns of the data, those too that do not occur.

    Raises
    ------
    DesignError
        What stands left of the bar is no place.
    """
    nodes = used_variables(bar.terms)
    if not nodes or any(len(term.variables) > 1 for term in bar.terms.terms):
        raise DesignError(f"{bar.label}: {_WANTED[kind.takes_positions].format(word=kind.name)}")
    first = values[nodes[0]]
    if len(nodes) == 1 and first.is_factor:
        return _of_factor(bar, kind, nodes[0], first, levels)
    where = _numbers(bar.label, nodes, values, kind.takes_positions == "coordinates")
    if where.ndim == 2 and kind.takes_positions != "coordinates":
        raise DesignError(f"{bar.label}: {_WANTED[kind.takes_positions].format(word=kind.name)}")
    if kind.takes_positions == "whole numbers" and (where != np.round(where)).any():
        wrong = float(where[where != np.round(where)][0])
        raise DesignError(
            f"{bar.label}: {name_of(nodes[0])} is {wrong:g} in some row, and the lags of {kind.name}() are whole "
            "numbers; use ou() for irregular times, or number the occasions"
        )
    positions = np.unique(where, axis=0)
    text = ",".join(name_of(node) for node in nodes)
    return Places(bar.label, nodes, (), positions, tuple(f"{text}[{_shown(place)}]" for place in positions))


_WANTED = {
    "whole numbers": "{word}() takes a factor or whole numbers left of the bar; write {word}(0 + visit | g)",
    "times": "{word}() takes one variable left of the bar, times; write {word}(t | g)",
    "coordinates": "{word}() takes coordinates left of the bar; write {word}(x + y | g)",
}


def _of_factor(
    bar: Bar, kind: type[CovarianceStructure], node: Node, value: Value, levels: Mapping[str, tuple[Any, ...]]
) -> Places:
    """A column for each level that occurs; all of them count."""
    if kind.takes_positions != "whole numbers":
        raise DesignError(
            f"{bar.label}: {name_of(node)} is a factor, and {kind.name}() needs numbers; convert the column, or use "
            "ar1()"
        )
    own = {value.levels[j] for j in np.flatnonzero(np.bincount(value.values, minlength=len(value.levels)))}
    known = levels.get(node.name, ()) if isinstance(node, Name) else ()
    whole = known if own <= set(known) else value.levels
    used = [j for j, level in enumerate(whole) if level in own]
    names = tuple(f"{name_of(node)}[{whole[j]}]" for j in used)
    return Places(bar.label, (node,), tuple(whole), np.array(used, dtype=np.float64), names)


def _numbers(label: str, nodes: Sequence[Node], values: Mapping[Node, Value], points: bool) -> FloatArray:
    """Times, (n,), or coordinates, (n, d), of the rows."""
    parts = []
    for node in nodes:
        value = values[node]
        if value.refusal or value.is_factor:
            raise DesignError(
                f"{label}: {name_of(node)} is text or a factor, and a place needs numbers; convert the column"
            )
        parts.append(np.asarray(value.values, dtype=np.float64).reshape(len(value.values), -1))
    where = np.hstack(parts)
    if not np.isfinite(where).all():
        raise DataError(f"{label}: a place left of the bar is not finite; correct these rows, or remove them")
    return where if points or where.shape[1] > 1 else where[:, 0]


def _shown(place: Any) -> str:
    return ",".join(f"{float(x):.12g}" for x in np.atleast_1d(place))
