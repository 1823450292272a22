"""Tables in the library of the user's data: polars in, polars out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lme4py.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["library_of", "to_native"]

_KINDS = ("pandas", "polars", "pyarrow")


def library_of(data: Any) -> str:
    """The library that a data frame is of: "polars", "pyarrow", or "pandas", which stands for all others.

    Parameters
    ----------
    data : object
    """
    name = type(data).__module__.partition(".")[0]
    return name if name in _KINDS else "pandas"


def to_native(table: pd.DataFrame | pd.Series[Any], kind: str) -> Any:
    """A table that a result gave, as a frame of another library.

    Parameters
    ----------
    table : DataFrame or Series
        Of pandas. An index with names or labels becomes the first columns; a count of rows is left out.
    kind : {"pandas", "polars", "pyarrow"}

    Returns
    -------
    DataFrame or Table

    Examples
    --------
    >>> import pandas as pd
    >>> to_native(pd.Series([1.0, 2.0], index=pd.Index(["a", "b"], name="term"), name="estimate"), "polars").columns
    ['term', 'estimate']
    """
    import pandas as pd

    if kind not in _KINDS:
        raise OptionError(
            f"kind={kind!r} is not known.{did_you_mean(str(kind), _KINDS)} Use one of {', '.join(_KINDS)}."
        )
    if kind == "pandas":
        return table
    frame = table.to_frame() if isinstance(table, pd.Series) else table
    counts = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    frame = pd.DataFrame(frame).reset_index(drop=counts)
    columns = {_flat(name): _cells(frame.iloc[:, i]) for i, name in enumerate(frame.columns)}
    if kind == "polars":
        import polars as pl

        return pl.DataFrame(columns, strict=False)
    import pyarrow as pa

    return pa.table(columns)


def _flat(name: Any) -> str:
    """One name for a column that has several, as tables of several models have."""
    return " ".join(str(part) for part in name if part != "") if isinstance(name, tuple) else str(name)


def _cells(column: pd.Series[Any]) -> list[Any]:
    """Values with None for what is missing in a column of labels."""
    values = column.tolist()
    return (
        values if column.dtype.kind in "fiub" else [None if cell is None or cell != cell else cell for cell in values]
    )
