"""A Delta table of the package deltalake, as the version that the object has loaded."""

from __future__ import annotations

from typing import Any

from lme4py.data.sources.address import shown_address
from lme4py.data.sources.arrow import ArrowSource
from lme4py.errors import DataError, OptionError

__all__ = ["DeltaSource"]


class DeltaSource(ArrowSource):
    """The files of one version, which later versions do not change.

    Parameters
    ----------
    table : deltalake.DeltaTable

    Raises
    ------
    DataError
        deltalake cannot read such tables, as those with deletion vectors.
    """

    def __init__(self, table: Any) -> None:
        try:
            dataset = table.to_pyarrow_dataset()
        except ImportError as error:
            raise OptionError(f"a DeltaTable is read by pyarrow: {error}; install it.") from None
        except Exception as error:
            # deltalake's errors have no common class of their own.
            raise DataError(
                f"the Delta table cannot be read by deltalake: {shown_address(str(error))} Read it by another engine, "
                "such as Spark or DuckDB (delta_scan())."
            ) from None
        super().__init__(dataset, f"Delta table (version {table.version()})")
