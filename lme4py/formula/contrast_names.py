"""Names of contrasts as users write them: R's, formulaic's and patsy's."""

from __future__ import annotations

from typing import Any

from lme4py.formula.operands import level_index

CONTRASTS = ("contr.treatment", "contr.sum", "contr.helmert", "contr.poly", "contr.SAS", "contr.diff")

_SHORT = {name.partition(".")[2].casefold(): name for name in CONTRASTS} | {"sdif": "contr.diff"}


def contrast_name(word: str) -> str | None:
    """R's name of a contrast, from any usual spelling; None where it is not known.

    Examples
    --------
    >>> contrast_name("Sum"), contrast_name("contr.sas"), contrast_name("sun")
    ('contr.sum', 'contr.SAS', None)
    """
    return _SHORT.get(word.strip().casefold().removeprefix("contr."))


def level_position(levels: tuple[Any, ...], wanted: str | float, *, by_position: bool) -> int | None:
    """Index of a level given as text or number, or (`by_position`) as R's position from 1; None if absent."""
    if not isinstance(wanted, str) and by_position:
        place = int(wanted) - 1
        return place if wanted == int(wanted) and 0 <= place < len(levels) else None
    return level_index(levels, wanted)
