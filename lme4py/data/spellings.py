"""Levels of a column that look like two spellings of one: "north", "north " and "North"."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lme4py.data.column import Column
from lme4py.errors import SpellingWarning, warn

__all__ = ["alike_levels", "warn_of_spellings"]

# Groups of spellings that a warning lists.
_SHOWN = 3


def alike_levels(levels: Iterable[Any]) -> list[tuple[str, ...]]:
    """Groups of levels that differ in spaces, letter case, forms of a character or zeros after a decimal point only.

    Single letters that differ in case are different names, as in many data. Only text has spellings.

    Parameters
    ----------
    levels : iterable

    Examples
    --------
    >>> alike_levels(["north", "south", "North ", "a", "A", "7", "7.0"])
    [('north', 'North '), ('7', '7.0')]
    """
    whole = list(levels)
    # One pass over the types is a fraction of asking each of a million labels.
    texts = whole if set(map(type, whole)) == {str} else [level for level in whole if isinstance(level, str)]
    if not texts or _is_plain(texts):
        return []
    keys = list(map(_key, texts))
    if len(set(keys)) == len(texts):
        return []
    found: dict[str, list[str]] = {}
    for key, text in zip(keys, texts, strict=True):
        found.setdefault(key, []).append(text)
    return [tuple(group) for group in found.values() if len(group) > 1]


def _is_plain(texts: list[str]) -> bool:
    """Whether all keys are the texts themselves, seen in all texts together: lower case, no space, no decimal point."""
    together = "\n".join(texts)
    if not together.isascii() or together != together.casefold() or f"{together}\n".find(".0\n") >= 0:
        return False
    # The spaces and control characters of ASCII stand before "!".
    low = np.frombuffer(together.encode("ascii"), dtype=np.uint8) <= ord(" ")
    return int(np.count_nonzero(low)) <= max(len(texts) - 1, 0)


def _key(level: str) -> str:
    text = " ".join((level if level.isascii() else unicodedata.normalize("NFKC", level)).split())
    if text.endswith(".0") and text[:-2].lstrip("+-").isdigit():
        text = text[:-2]
    return text.casefold() if len(text) > 1 else text


def warn_of_spellings(columns: Iterable[Column], counts: Callable[[Column, Sequence[str]], Sequence[int]]) -> None:
    """Warn of levels that look like two spellings of one, with the rows of each.

    Parameters
    ----------
    columns : iterable of Column
    counts : callable
        From a column and some of its levels to how many rows have each; asked only where there is something to tell.

    Warns
    -----
    SpellingWarning
    """
    for column in columns:
        alike = alike_levels(column.levels)
        if not alike:
            continue
        flat = [level for group in alike for level in group]
        rows = dict(zip(flat, counts(column, flat), strict=True))
        occurring = [[level for level in group if rows[level]] for group in alike]
        groups = [group for group in occurring if len(group) > 1]
        if groups:
            listed = [" and ".join(f"{level!r} ({rows[level]} rows)" for level in group) for group in groups[:_SHOWN]]
            more = f"; {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
            warn(
                f"column {column.name!r} has levels that differ only in spaces, letter case or the form of characters, "
                f"and they are different levels here: {'; '.join(listed)}{more}. Where they mean the same, write them "
                "alike (pandas: x.str.strip().str.lower()); else control={'check': {'spelling': 'ignore'}} leaves the "
                "warning out.",
                SpellingWarning,
            )
