"""A fit without what grows with the number of rows: small enough to ship, and able to print and to predict.

What the summary, the tests and the standard errors need of the rows is computed before they go, and kept among the
numbers that are derived from the fit.
"""

from __future__ import annotations

from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.slim import DroppedRows
from lme4py.inference.overview.row_summary import no_random_test, row_summary

__all__ = ["is_slim", "slim_fit"]


def is_slim(fit: Fit) -> bool:
    """True for a fit without rows."""
    return isinstance(fit.design.y, DroppedRows)


def slim_fit(fit: Fit) -> Fit:
    """The same fit without anything that grows with the number of rows, for storing and deploying.

    It prints, predicts new data and gives estimates, random effects and Wald intervals; what needs rows raises an error
    that says so.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Fit
        Of the same kind. A slim fit is returned as it is.
    """
    if is_slim(fit):
        return fit
    model = model_of(fit)
    numbers = [row_summary, *model.outlives_rows()]
    if fit.conventions.stata:
        # Their summary ends with this test.
        numbers.append(no_random_test)
    slim = model.without_rows()
    for number in numbers:
        slim.derived.keep(number, number(fit))
    return slim
