"""What to do with a text in the place of the data."""

from __future__ import annotations

import difflib

from lme4py.data.datasets import dataset_names

__all__ = ["data_from_text", "reader_of"]

_READERS = {
    ".csv": "pandas.read_csv({0})",
    ".txt": "pandas.read_csv({0})",
    ".dat": "pandas.read_csv({0})",
    ".tsv": "pandas.read_csv({0}, sep='\\t')",
    ".tab": "pandas.read_csv({0}, sep='\\t')",
    ".parquet": "pandas.read_parquet({0})",
    ".pq": "pandas.read_parquet({0})",
    ".feather": "pandas.read_feather({0})",
    ".arrow": "pandas.read_feather({0})",
    ".xlsx": "pandas.read_excel({0})",
    ".xls": "pandas.read_excel({0})",
    ".ods": "pandas.read_excel({0})",
    ".dta": "pandas.read_stata({0})",
    ".sav": "pandas.read_spss({0})",
    ".sas7bdat": "pandas.read_sas({0})",
    ".xpt": "pandas.read_sas({0})",
    ".json": "pandas.read_json({0})",
    ".pkl": "pandas.read_pickle({0})",
}
_PACKED = (".gz", ".bz2", ".zip", ".xz", ".zst")
# Names of data sets less alike than this are no misspellings.
_ALIKE = 0.75


def reader_of(path: str) -> str | None:
    """The call that reads a file, by the ending of its name; None for an unknown ending.

    Parameters
    ----------
    path : str

    Examples
    --------
    >>> reader_of("field.parquet")
    "pandas.read_parquet('field.parquet')"
    """
    name = path.lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    found = next((call for ending, call in _READERS.items() if name.endswith(ending)), None)
    return None if found is None else found.format(repr(path))


def data_from_text(text: str) -> str:
    """What the user may have meant by a text, as code in backquotes.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> data_from_text("field.csv"), data_from_text("sleepstdy")
    ("`pandas.read_csv('field.csv')`", "`load_dataset('sleepstudy')`")
    """
    call = reader_of(text)
    if call is None:
        known = {name.casefold(): name for name in dataset_names()}
        close = difflib.get_close_matches(text.casefold(), known, n=1, cutoff=_ALIKE)
        call = f"load_dataset({known[close[0]]!r})" if close else "pandas.read_csv(...)"
    return f"`{call}`"
