"""Files on other machines: their addresses as messages may show them, what goes wrong with them, when they change."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

__all__ = ["address_fault", "file_stamps", "file_system_of", "shown_address"]

# What fsspec's file systems know of a file that is another one when it is written again.
_STAMPS = (
    "size",
    "ETag",
    "etag",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
    "generation",
    "md5Hash",
    "Content-MD5",
    "content_md5",
    "Digest",
    "version_id",
    "VersionId",
    "commit",
)


def file_system_of(dataset: Any) -> Any:
    """The file system of fsspec that a dataset reads from; None where it reads from none."""
    return getattr(getattr(getattr(dataset, "filesystem", None), "handler", None), "fs", None)


def file_stamps(system: Any, files: Sequence[str]) -> Hashable:
    """What is known of files without reading them, as the server says it now.

    Parameters
    ----------
    system : fsspec.AbstractFileSystem
    files : sequence of str
    """
    system.invalidate_cache()
    found = []
    for path in files:
        try:
            info = system.info(path)
        except FileNotFoundError:
            info = {}
        found.append((path, *(str(info.get(name)) for name in _STAMPS)))
    return tuple(found)


def address_fault(error: BaseException) -> str:
    """What is wrong with an address, and what to do.

    Parameters
    ----------
    error : Exception
        Of fsspec, or of what it stands on.
    """
    if isinstance(error, KeyError | FileNotFoundError):
        return "nothing is there; check the address."
    text = shown_address(str(error))
    if "range request" in text:
        return (
            "its server sends files only as a whole (it takes no range requests), and they are read in pieces; "
            "download them, and give the paths of your copies."
        )
    status = getattr(error, "status", None)
    if status in (401, 403):
        return f"its server does not let you read it ({status}); check your credentials."
    if status is not None:
        return f"its server answers with status {status}; check the address, or try again later."
    return f"{text or type(error).__name__}; check the address."


def shown_address(text: str) -> str:
    """A text without what may be credentials in the addresses in it: a user with a password, and a query.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> shown_address("'https://me:secret@example.org/rows.parquet?signature=abc' cannot be opened")
    "'https://***@example.org/rows.parquet?***' cannot be opened"
    """
    # As far as the last sign: keys of stores may have slashes.
    text = re.sub(r"://[^\s'\"]*@", "://***@", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]*", r"\1?***", text)
