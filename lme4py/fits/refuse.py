"""One wording for what a kind of model does not have."""

from __future__ import annotations

from typing import NoReturn

from lme4py.errors import OptionError

__all__ = ["GENERALISED", "LINEAR", "refuse"]

LINEAR, GENERALISED = "linear mixed models", "generalised linear mixed models"


def refuse(what: str, instead: str, kinds: str = LINEAR) -> NoReturn:
    """Refuse what only another kind of model has.

    Parameters
    ----------
    what : str
        With its verb, such as "F tests are" or "ddf='satterthwaite' is".
    instead : str
        What to do, such as "use wald_test() for this one".
    kinds : str
        The kinds of model that have it, in the plural.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> refuse("test='F' is", "use test='Chisq'")
    Traceback (most recent call last):
        ...
    lme4py.errors.OptionError: test='F' is for linear mixed models; use test='Chisq'.
    """
    raise OptionError(f"{what} for {kinds}; {instead}.")
