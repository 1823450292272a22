"""Addresses of files on other machines, as messages may show them."""

from __future__ import annotations

import re

__all__ = ["shown_address"]


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
