"""The same model with a new response."""

from __future__ import annotations

from typing import Any

from lme4py.design.responses.responses import long_values
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of

__all__ = ["refit"]


def refit(fit: Fit, y: Any) -> Fit:
    """The same model fitted to a new response of the rows used, as a new fit.

    Parameters
    ----------
    fit : Fit
    y : array_like, shape (n,), or (n, 2) for binomial models
        New response of the rows used (or one value for each row of the data), also as a data frame with one column;
        with an index it is matched with the rows by it. For the forms of a binomial response see
        `lme4py.fits.generalised.refit.new_response`. Of several responses also a data frame with a column for each, on
        the rows of the data.

    Returns
    -------
    Fit
        A new fit; the old one is unchanged.
    """
    return model_of(fit).refit(long_values(fit.design, y))
