"""Where the rows of a fit are to be, and how much memory they may take: settings that every fit reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lme4py.data.sources import find_source
from lme4py.errors import OptionError

__all__ = ["memory_setting", "refuse_functions", "rows_in_memory", "rows_setting"]


def rows_setting(control: Any) -> tuple[str, Any]:
    """``control["rows"]``, and the settings without it.

    Parameters
    ----------
    control : Control, dict or None
    """
    if not isinstance(control, Mapping) or not {"rows", "memory_limit"} & set(control):
        return "auto", control
    memory_setting(control)
    rest = {name: value for name, value in control.items() if name not in ("rows", "memory_limit")}
    return control.get("rows", "auto"), rest or None


def memory_setting(control: Any) -> float | None:
    """``control["memory_limit"]`` in bytes; None where it is not given.

    Parameters
    ----------
    control : Control, dict or None

    Raises
    ------
    OptionError
        Something that is no size, such as ``"2GB"``.

    Examples
    --------
    >>> memory_setting({"memory_limit": "1.5 GiB"})
    1610612736.0
    """
    given = control.get("memory_limit") if isinstance(control, Mapping) else None
    if given is None:
        return None
    read = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]?)(i?)b?\s*", str(given), re.IGNORECASE)
    size = 0.0
    if read is not None and not isinstance(given, bool):
        size = float(read[1]) * (1024.0 if read[3] else 1000.0) ** " kmgt".index(read[2].lower() or " ")
    if size < 1e6:
        raise OptionError(
            f"control['memory_limit'] is {given!r}; give bytes, or a text such as '2GB', of at least one megabyte."
        )
    return size


def rows_in_memory(data: Any, control: Any, what: str) -> tuple[Any, Any]:
    """The data in memory for a model that streams no rows, and the settings without ``rows``.

    Parameters
    ----------
    data, control : object
    what : str
        The kind of model, for the message.
    """
    where, control = rows_setting(control)
    if where == "stream":
        raise OptionError(
            f"control['rows'] is 'stream', but the rows of {what} are not streamed. "
            "Leave it out, so that they are read into memory."
        )
    return find_source(data, "memory" if where == "auto" else where)[0], control


def refuse_functions(functions: object) -> None:
    """A function of the user's sees the rows of one block, and what it makes of them may depend on the others."""
    if functions:
        raise OptionError(
            "`functions` are not called on streamed rows, of which they would see some at a time; make these columns "
            "in the source, or fit in memory with control={'rows': 'memory'}."
        )
