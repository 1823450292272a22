"""Files by name: one path, a list of them, or a pattern such as "sales/*.parquet"."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

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
        schema, partial = _one_schema(dataset)
        dataset = ds.dataset(names, schema=schema, format=form, filesystem=system)
    return ArrowSource(dataset, f"{len(files)} {_NAMES[kind]} file{'s' * (len(files) != 1)}", partial)


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    """What fsspec says of an address, without what may be a password in it."""
    shown = re.sub(r"://[^/@]*@", "://***@", path)
    try:
        yield
    except ImportError as error:
        if "://" not in path:
            raise
        raise OptionError(f"{shown!r} cannot be opened: {error}; install it.") from None
    except (OSError, ValueError, KeyError) as error:
        if "://" not in path or isinstance(error, Lme4Error):
            raise
        what = "nothing is there" if isinstance(error, KeyError | FileNotFoundError) else str(error)
        raise DataError(f"{shown!r} cannot be opened: {what.replace(path, shown)}; check the address.") from None


def _ending(path: str) -> str:
    return os.path.splitext(path.lower())[1]


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
    """The columns of all files, and those that a file lacks; an empty column does not decide a type."""
    import pyarrow as pa

    fragments = list(dataset.get_fragments())
    try:
        schemas = [fragment.physical_schema for fragment in fragments]
        schema = pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"the files have different columns: {error}. Files of one source need the same type for a column; convert "
            "them, or fit them apart."
        ) from None
    own = zip(fragments, schemas, strict=True)
    return schema, {name: fragment.path for fragment, one in own for name in {*schema.names} - {*one.names}}
