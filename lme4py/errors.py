"""Errors and warnings of lme4py.

Every message says what is wrong, with the name and the numbers, and ends with what to do.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

__all__ = [
    "ConvergenceWarning",
    "DataError",
    "DesignError",
    "FormulaError",
    "IdentificationWarning",
    "Lme4Error",
    "Lme4Warning",
    "OptimaWarning",
    "OptionError",
    "RankWarning",
    "did_you_mean",
    "warn",
]


class Lme4Error(ValueError):
    """Base class of every error that lme4py raises on purpose."""


class FormulaError(Lme4Error):
    """A formula that cannot be read.

    Parameters
    ----------
    message : str
        What is wrong and what to do.
    formula : str, optional
        The formula as the user wrote it; shown below the message.
    start, end : int, optional
        Character positions in `formula`; a caret is drawn under ``formula[start:end]``.
    """

    def __init__(
        self, message: str, formula: str | None = None, start: int | None = None, end: int | None = None
    ) -> None:
        self.message = message
        self.formula = formula
        self.start = start
        self.end = end
        super().__init__(self._text())

    def _text(self) -> str:
        if self.formula is None or self.start is None:
            return self.message
        stop = max(self.end or 0, self.start + 1)
        # Long formulas are cut to a window, so that the caret stays on the screen.
        left = max(0, self.start - 60)
        window = self.formula[left : left + 120].replace("\n", " ").replace("\t", " ")
        width = min(stop - self.start, max(1, len(window) - (self.start - left)))
        return f"{self.message}\n    {window}\n    {' ' * (self.start - left)}{'^' * width}"

    def __reduce__(self) -> tuple[type[FormulaError], tuple[object, ...]]:
        return type(self), (self.message, self.formula, self.start, self.end)


class DataError(Lme4Error):
    """Data that cannot be used: a missing column, a wrong type, values out of range."""


class DesignError(Lme4Error):
    """A model that the data cannot identify, such as more random effects than observations."""


class OptionError(Lme4Error):
    """An argument outside its allowed values."""


class Lme4Warning(UserWarning):
    """Base class of every warning that lme4py gives."""


class ConvergenceWarning(Lme4Warning):
    """The optimum could not be certified."""


class RankWarning(Lme4Warning):
    """Columns of the fixed effects were left out, because others determine them."""


class IdentificationWarning(Lme4Warning):
    """Some variances cannot be told apart by any data of this design: they are not given."""


class OptimaWarning(Lme4Warning):
    """The criterion has another minimum that is hardly higher: estimates and their errors are those of one of two.

    Of generalised models also where the likelihood is larger elsewhere without a maximum, and where there may be many
    maxima because the linear predictor has both signs with a link such as sqrt or inverse.
    """


def warn(message: str, category: type[Lme4Warning]) -> None:
    """Warn at the line of the user's code that called lme4py, whatever lies between.

    Parameters
    ----------
    message : str
    category : type
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``" Did you mean 'a' or 'b'?"``, or ``""`` where nothing is close.

    Parameters
    ----------
    name : str
        The word that was not found.
    known : iterable of str
        The words that exist.
    limit : int
        How many suggestions at most.

    Returns
    -------
    str

    Examples
    --------
    >>> did_you_mean("satterwaite", ["satterthwaite", "normal"])
    " Did you mean 'satterthwaite'?"
    """
    words = list(known)
    close = difflib.get_close_matches(name, words, n=limit, cutoff=0.6)
    if not close:
        folded = {word.casefold(): word for word in words}
        close = [folded[name.casefold()]] if name.casefold() in folded else []
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(word) for word in close) + "?"
