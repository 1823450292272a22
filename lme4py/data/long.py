"""Wide data with several responses in a row as long data: a row for each response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["long_frame", "long_index"]


def long_frame(
    frame: Frame,
    key: str,
    labels: Sequence[str],
    values: Mapping[str, Callable[[], Column]],
    others: Mapping[str, Callable[[], Column]],
) -> Frame:
    """Every row of a frame once for each label; the labels run fastest.

    Parameters
    ----------
    frame : Frame
    key : str
        Name of the factor that tells the rows of one row apart.
    labels : sequence of str, length D
        Its levels.
    values : dict of str to callable
        What makes the column of the values, (n D,), when it is first asked for.
    others : dict of str to callable
        What makes further columns of the wide rows, which take the place of those of the same name.

    Returns
    -------
    Frame
        With n D rows.

    Examples
    --------
    >>> from lme4py.data.frame import read_frame
    >>> wide = read_frame({"x": [1.0, 2.0]})
    >>> whole = long_frame(wide, "response", ["a", "b"], {"y": lambda: Column("y", "numeric", np.arange(4.0))}, {})
    >>> whole.names, whole.column("x").values.tolist()
    (('response', 'y', 'x'), [1.0, 1.0, 2.0, 2.0])
    """
    D, n = len(labels), frame.n_rows
    codes = np.tile(np.arange(D, dtype=np.int32), n)
    own = {key: lambda: Column(key, "factor", codes, tuple(labels)), **values}
    names = tuple(dict.fromkeys((*own, *others, *frame.names)))

    def column_at(position: int) -> Column:
        name = names[position]
        if name in own:
            return own[name]()
        return _repeated(others[name]() if name in others else frame.column(name), D)

    whole = Frame(names, n * D, column_at, lambda: long_index(frame.index, key, labels))
    whole.labelled = frame.labelled
    return whole


def _repeated(column: Column, D: int) -> Column:
    return column.take(np.repeat(np.arange(column.values.size), D))


def long_index(index: pd.Index, key: str, labels: Sequence[str]) -> pd.MultiIndex:
    """Labels of the long rows: those of the wide ones, and the label.

    Parameters
    ----------
    index : pandas.Index
    key : str
    labels : sequence of str
    """
    import pandas as pd

    repeated = index.repeat(len(labels))
    own = [repeated.get_level_values(i) for i in range(repeated.nlevels)]
    responses = pd.Index(np.tile(np.array(labels, dtype=object), len(index)))
    return pd.MultiIndex.from_arrays([*own, responses], names=[*index.names, key])
