"""The data sets that come with the package: classic examples of mixed models, with their sources."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.errors import DataError, did_you_mean
from lme4py.tables.shown import Shown
from lme4py.tables.table import Align, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DatasetDescription", "dataset_names", "describe_dataset", "list_datasets", "load_dataset"]

_PLAIN_TYPES = {"numeric": "str", "integer": "int64", "logical": "bool", "string": "str"}


def dataset_names() -> tuple[str, ...]:
    """Names of the data sets that `load_dataset` knows.

    Examples
    --------
    >>> "sleepstudy" in dataset_names()
    True
    """
    return tuple(_catalog())


def list_datasets() -> pd.DataFrame:
    """One row per data set: name, rows, columns, title, and the publication that the data come from.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> list_datasets()[["name", "rows", "columns"]].head(2)
             name  rows  columns
    0  sleepstudy   180        3
    1    Dyestuff    30        2
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    table = pd.DataFrame(
        [
            (name, entry["rows"], len(entry["columns"]), entry["title"], entry["source"])
            for name, entry in _catalog().items()
        ],
        columns=["name", "rows", "columns", "title", "source"],
    )
    return printed(table, hidden=["source"], note="describe_dataset(name) shows the columns and the source.")


@dataclass(frozen=True, repr=False)
class DatasetDescription(Shown):
    """What a data set is.

    Attributes
    ----------
    name, title, source : str
        The source is the publication that the data come from.
    rows : int
    columns : dict of str to str
        Name of each column, and what it holds.
    """

    name: str
    title: str
    source: str
    rows: int
    columns: dict[str, str]

    def _tables(self) -> list[Table]:
        size = f"{self.rows} rows, {len(self.columns)} columns"
        align: tuple[Align, Align] = ("left", "left")
        rows = tuple(self.columns.items())
        return [Table(f"{self.name}: {self.title}", ("Column", "Values"), rows, align, (f"{size}.", f"{self.source}."))]


def describe_dataset(name: str) -> DatasetDescription:
    """Columns and source of one of the data sets that come with the package.

    Parameters
    ----------
    name : str
        As `load_dataset` takes it.

    Returns
    -------
    DatasetDescription
        Prints itself.

    Raises
    ------
    DataError
        If there is no such data set.

    Examples
    --------
    >>> describe_dataset("Dyestuff")
    Dyestuff: Yield of dyestuff from six batches of an intermediate product
      Column  Values
      Batch   factor: A, B, C, D, E, F
      Yield   numbers from 1440 to 1635
    30 rows, 2 columns.
    Davies, O. L. and Goldsmith, P. L. (eds) (1972), Statistical Methods in Research and
    Production, 4th ed., Oliver and Boyd, Edinburgh.
    """
    own = _canonical_name(name)
    entry, data = _catalog()[own], load_dataset(own)
    columns = {str(column): _contents(data[column]) for column in data.columns}
    return DatasetDescription(own, entry["title"], entry["source"].rstrip("."), len(data), columns)


def _contents(column: pd.Series[Any]) -> str:
    """What a column holds, in words."""
    import pandas as pd

    missing = f"; {int(column.isna().sum())} missing" if column.isna().any() else ""
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = [str(level) for level in column.cat.categories]
        kind = "ordered factor" if column.cat.ordered else "factor"
        shown = ", ".join(levels) if len(levels) <= 6 else f"{len(levels)} levels, {levels[0]}, {levels[1]}, ..."
        return f"{kind}: {shown}{missing}"
    if pd.api.types.is_bool_dtype(column):
        return f"True or False{missing}"
    if pd.api.types.is_numeric_dtype(column):
        return f"numbers from {column.min():g} to {column.max():g}{missing}"
    return f"text{missing}"


def load_dataset(name: str) -> pd.DataFrame:
    """Load one of the data sets that come with the package.

    Parameters
    ----------
    name : str
        Such as "sleepstudy"; upper and lower case do not matter. `dataset_names` lists them all.

    Returns
    -------
    pandas.DataFrame
        Factors are categorical with R's order of levels, ordered where R's are. As in R the levels
        are strings.

    Raises
    ------
    DataError
        If there is no such data set.

    Examples
    --------
    >>> load_dataset("sleepstudy").shape
    (180, 3)
    """
    import pandas as pd

    name = _canonical_name(name)
    columns = _catalog()[name]["columns"]
    with _folder().joinpath(f"{name}.csv.gz").open("rb") as packed, gzip.open(packed) as text:
        frame = pd.read_csv(
            text,
            dtype={column["name"]: _dtype(column) for column in columns},
            keep_default_na=False,
            na_values=[""],
        )
    for column in columns:
        if column["kind"] == "numeric":
            frame[column["name"]] = _floats(frame[column["name"]])
    return frame


def _floats(text: pd.Series[str]) -> NDArray[np.float64]:
    """Numbers as Python reads them: the parsers of some pandas versions are wrong in the last digit."""
    return text.to_numpy(dtype=object).astype(np.float64)


def _folder() -> Traversable:
    return files("lme4py.data.datasets")


@functools.cache
def _catalog() -> dict[str, dict[str, Any]]:
    text = _folder().joinpath("catalog.json").read_text(encoding="utf-8")
    catalog: dict[str, dict[str, Any]] = json.loads(text)
    return catalog


def _canonical_name(name: str) -> str:
    known = {key.casefold(): key for key in _catalog()}
    if str(name).casefold() not in known:
        hint = did_you_mean(str(name), known.values())
        raise DataError(f"there is no data set {name!r}.{hint} `list_datasets()` shows all {len(known)}.")
    return known[str(name).casefold()]


def _dtype(column: dict[str, Any]) -> Any:
    import pandas as pd

    kind = column["kind"]
    if kind in _PLAIN_TYPES:
        return _PLAIN_TYPES[kind]
    return pd.CategoricalDtype(_levels(column["levels"]), ordered=kind == "ordered")


def _levels(levels: list[str] | int) -> list[str]:
    """Levels as stored: a list, or the number n that stands for "1", "2", ..., "n"."""
    return [str(i) for i in range(1, levels + 1)] if isinstance(levels, int) else levels
