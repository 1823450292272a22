"""Files by name: one path, a list of them, or a pattern such as "sales/*.parquet"."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lme4py.data.sources.address import address_fault, shown_address
from lme4py.data.sources.arrow import ArrowSource
from lme4py.data.sources.base import RowSource
from lme4py.errors import DataError, Lme4Error, OptionError

__all__ = ["frame_of_file", "is_path", "source_of_paths"]

_STREAMED = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
    ".csv": "csv",
    ".tsv": "tsv",
}
_WHOLE = {".dta": "read_stata", ".xlsx": "read_excel"}
_TEXT = {".csv": ",", ".tsv": "\t"}
_NAMES = {"parquet": "Parquet", "feather": "Feather", "csv": "CSV", "tsv": "TSV"}


def is_path(data: Any) -> bool:
    """Whether the data are the name of a file, a pattern, or a list of names."""
    if isinstance(data, list | tuple) and data:
        return all(is_path(one) for one in data)
    if not isinstance(data, str | os.PathLike):
        return False
    return _ending(os.fspath(data)) in {*_STREAMED, *_WHOLE}


def frame_of_file(data: Any) -> Any:
    """A file that is read whole (.dta, .xlsx; text without pyarrow) as a pandas data frame; None for others."""
    if not isinstance(data, str | os.PathLike):
        return None
    path = os.fspath(data)
    kind = _ending(path)
    text = kind in _TEXT and "://" not in path and not glob.has_magic(path) and not _has_arrow()
    if kind not in _WHOLE and not text:
        return None
    import pandas as pd

    if not os.path.exists(path):
        raise DataError(f"there is no file {path!r}; check the path.")
    try:
        return pd.read_csv(path, sep=_TEXT[kind]) if text else getattr(pd, _WHOLE[kind])(path)
    except ImportError as error:
        raise DataError(f"{path!r} cannot be read: {error}") from None


def _has_arrow() -> bool:
    """Whether pyarrow is installed, which reads files block by block."""
    try:
        import_module("pyarrow")
    except ImportError:
        return False
    return True


def source_of_paths(data: Any) -> RowSource:
    """The files as one source.

    Parameters
    ----------
    data : str, path, or sequence of them
        Names ending in .parquet, .pq, .feather, .arrow, .ipc, .csv or .tsv; a pattern has ``*``, ``?`` or ``[...]``.
        Addresses such as ``s3://bucket/part.parquet`` go through fsspec.
    """
    if not _has_arrow():
        raise OptionError(
            "these files are read by pyarrow, which is not installed; run `python -m pip install pyarrow`, or read "
            "them yourself and give a data frame. (One .csv or .tsv file is read without it.)"
        )
    import pyarrow.dataset as ds

    given = list(data) if isinstance(data, list | tuple) else [data]
    files = [path for one in given for path in _files(os.fspath(one))]
    kinds = {_STREAMED.get(_ending(path), "") for path in files}
    if len(kinds) > 1 or "" in kinds:
        raise OptionError(
            f"`data` names files of several kinds, {', '.join(sorted({_ending(path) for path in files}))}; give files "
            f"of one kind ({', '.join(_STREAMED)})."
        )
    kind = kinds.pop()
    form: str | ds.FileFormat = kind
    if kind in ("csv", "tsv"):
        import pyarrow.csv as pc

        form = ds.CsvFileFormat(pc.ParseOptions(delimiter="\t" if kind == "tsv" else ","))
    with _in_words(files[0]):
        system, names = _filesystem(files)
        dataset = ds.dataset(names, format=form, filesystem=system)
        schema, faults = _one_schema(dataset)
        dataset = ds.dataset(names, schema=schema, format=form, filesystem=system)
    return ArrowSource(dataset, f"{len(files)} {_NAMES[kind]} file{'s' * (len(files) != 1)}", faults)


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    """What fsspec says of an address, without what may be a password in it."""
    shown = shown_address(path)
    try:
        yield
    except ImportError as error:
        if "://" not in path:
            raise
        raise OptionError(f"{shown!r} cannot be opened: {shown_address(str(error))}; install it.") from None
    except Exception as error:
        # Each file system of fsspec has exceptions of its own.
        if "://" not in path or isinstance(error, Lme4Error):
            raise
        raise DataError(f"{shown!r} cannot be opened: {address_fault(error)}") from None


def _ending(path: str) -> str:
    found = os.path.splitext(path.lower())[1]
    if "://" in path and found not in _STREAMED:
        # A query, as signed addresses have it.
        found = os.path.splitext(path.lower().partition("?")[0])[1]
    return found


def _files(path: str) -> Sequence[str]:
    if "://" in path:
        with _in_words(path):
            fsspec: Any = import_module("fsspec")
            system, _, found = fsspec.get_fs_token_paths(path)
            if not found or not all(map(system.exists, found)):
                raise FileNotFoundError
            return [system.unstrip_protocol(one) for one in sorted(found)]
    if os.path.exists(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        what = "no file matches the pattern" if glob.has_magic(path) else "there is no file"
        raise DataError(f"{what} {path!r}; check the path.")
    return found


def _filesystem(files: Sequence[str]) -> tuple[Any, list[str]]:
    """What opens the files (None for those of this machine), and their names there."""
    if "://" not in files[0]:
        return None, list(files)
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fsspec: Any = import_module("fsspec")
    found = [fsspec.core.url_to_fs(path) for path in files]
    return PyFileSystem(FSSpecHandler(found[0][0])), [name for _, name in found]


def _one_schema(dataset: Any) -> tuple[Any, dict[str, str]]:
    """The columns of all files, and what is wrong with those that do not fit together."""
    import pyarrow as pa

    parts = [(fragment.path, fragment.physical_schema) for fragment in dataset.get_fragments()]
    names = dict.fromkeys(name for _, schema in parts for name in schema.names)
    fields, faults = [], {}
    for name in names:
        types = {path: schema.field(name).type for path, schema in parts if name in schema.names}
        common = _common_type(list(types.values()))
        fields.append(pa.field(name, next(iter(types.values())) if common is None else common))
        lacking = [path for path, _ in parts if path not in types]
        if lacking:
            faults[name] = f"the file {lacking[0]!r} has no column {name!r}, but other files have it."
        elif common is None:
            faults[name] = _different(name, types)
    return pa.schema(fields), faults


def _common_type(types: Sequence[Any]) -> Any:
    """The type that all files of a column are read as; None where there is none. Empty columns do not decide it."""
    import pyarrow as pa

    known = [one for one in dict.fromkeys(types) if not pa.types.is_null(one)]
    if len(known) < 2:
        return known[0] if known else pa.null()
    if all(map(_is_text, known)) and not all(map(pa.types.is_dictionary, known)):
        return pa.large_string()
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if any(map(pa.types.is_decimal, known)) and all(any(test(one) for test in numbers) for one in known):
        return pa.float64()
    try:
        found = pa.unify_schemas([pa.schema([("", one)]) for one in known], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    return found.types[0]


def _is_text(type: Any) -> bool:
    """Whether values are text, or codes into text without an order."""
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        return not type.ordered and _is_text(type.value_type)
    return str(type) in ("string", "large_string", "string_view")


def _different(name: str, types: Mapping[str, Any]) -> str:
    (first, one), *others = types.items()
    other, two = next((path, own) for path, own in others if _common_type([one, own]) is None)
    return (
        f"column {name!r} is {one} in the file {first!r} and {two} in {other!r}; a column has one type in all files of "
        "a source: convert one of them, or fit them apart."
    )
