"""The data sets that come with the package: classic examples of mixed models, with their sources."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.errors import DataError, did_you_mean
from lme4py.tables.shown import Shown
from lme4py.tables.table import Align, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DatasetDescription", "dataset_frame", "dataset_names", "describe_dataset", "list_datasets", "load_dataset"]


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

    entries = _catalog()[_canonical_name(name)]["columns"]
    out: dict[str, Any] = {}
    for entry, column in zip(entries, _read_columns(name), strict=True):
        if column.is_factor:
            dtype = pd.CategoricalDtype(list(column.levels), ordered=column.kind == "ordered")
            out[column.name] = pd.Categorical.from_codes(column.values, dtype=dtype)
        else:
            out[column.name] = column.values.astype(np.int64) if entry["kind"] == "integer" else column.values
    return pd.DataFrame(out)


def dataset_frame(name: str) -> Frame:
    """One of the data sets in the form that a fit makes of a data frame, without pandas, whose import takes longer than
    a small fit.

    Parameters
    ----------
    name : str
        As `load_dataset` takes it.

    Returns
    -------
    Frame

    Examples
    --------
    >>> dataset_frame("sleepstudy")
    Frame(180 rows: Reaction, Days, Subject)
    """
    columns = _read_columns(name)
    return Frame([column.name for column in columns], len(columns[0].values), columns.__getitem__)


def _read_columns(name: str) -> list[Column]:
    own = _canonical_name(name)
    packed = gzip.decompress(_folder().joinpath(f"{own}.csv.gz").read_bytes())
    return [_column(*pair) for pair in zip(_catalog()[own]["columns"], _cells(packed.decode("utf-8")), strict=True)]


def _cells(text: str) -> list[Sequence[str]]:
    """The texts of each column, without the names above them; no file has quoted cells."""
    width = text.partition("\n")[0].count(",") + 1
    # All cells in one list: a list for each row takes five times as long.
    cells = text.rstrip("\n").replace("\n", ",").split(",")
    return [cells[width + i :: width] for i in range(width)]


def _column(entry: dict[str, Any], texts: Sequence[str]) -> Column:
    """Numbers as Python reads them (the parsers of some pandas versions are wrong in the last digit), or codes."""
    if entry["kind"] in ("numeric", "integer"):
        return Column(entry["name"], "numeric", np.array([float(text or "nan") for text in texts]), fresh=True)
    levels = _levels(entry["levels"])
    code = {"": -1} | {level: i for i, level in enumerate(levels)}
    codes = np.fromiter(map(code.__getitem__, texts), dtype=np.int32, count=len(texts))
    return Column(entry["name"], "ordered" if entry["kind"] == "ordered" else "factor", codes, tuple(levels))


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


def _levels(levels: list[str] | int) -> list[str]:
    """Levels as stored: a list, or the number n that stands for "1", "2", ..., "n"."""
    return [str(i) for i in range(1, levels + 1)] if isinstance(levels, int) else levels
