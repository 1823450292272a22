"""The covariance matrix of the residuals of a subject."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.parameters import residual_parameters
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.variance import correlations

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["residual_matrix", "residual_table"]


def residual_matrix(
    fit: Fit, stratum: str | None = None, correlation: bool = False, subject: Any = None
) -> pd.DataFrame:
    """Covariance of the residuals of a subject by visit, where the variance function is 1 and weights are 1.

    Parameters
    ----------
    fit : Fit
    stratum : str, optional
        Of ``us(visit | arm / id)`` the arm that is meant.
    correlation : bool
        Their correlations instead.
    subject : optional
        One of the subjects: the covariance of its own rows, in the order of their positions, with variance functions
        and weights. What structures of times or coordinates have, whose matrix is another one for each subject.

    Returns
    -------
    DataFrame, shape (k, k)
        By visit, or by the index of the subject's rows in the data.

    Raises
    ------
    OptionError
        The residuals are independent, or their structure has no list of positions (times, coordinates).
    """
    import pandas as pd

    if not isinstance(fit, ResidualFit) or not fit.residual.text:
        raise OptionError("the residuals of this model are independent; their standard deviation is `sigma`.")
    side = fit.residual
    if subject is not None:
        return _of_subject(fit, subject, stratum, correlation)
    if not side.columns:
        raise OptionError(
            f"{side.text} has no list of positions: the correlation of two residuals depends on their distance. Give a "
            "subject=, whose matrix is wanted; the parameters are in residual_table()."
        )
    R = fit.residual_covariance(_place(side.strata, stratum))
    values = correlations(R) if correlation else R
    return pd.DataFrame(values, index=list(side.columns), columns=list(side.columns))


def _of_subject(fit: ResidualFit, subject: Any, stratum: str | None, correlation: bool) -> pd.DataFrame:
    """The matrix of the rows of one subject."""
    import pandas as pd

    if stratum is not None:
        raise OptionError(f"stratum={stratum!r} is that of the subject already; leave it out.")
    known = [str(label) for label in fit.residual.subjects]
    if str(subject) not in known:
        hint = did_you_mean(str(subject), known)
        raise OptionError(
            f"subject={subject!r} is no subject of {fit.residual.text}.{hint} There are {', '.join(known[:5])}, ..."
        )
    part = fit.residual.part
    rows = np.flatnonzero(part.subject == known.index(str(subject)))
    rows = rows[np.lexsort(part.points[rows].T[::-1])]
    R = fit.problem.residual_block(fit.par, rows)
    index = rows if fit.design.responses else fit.design.index[fit.design.keep][rows]
    return pd.DataFrame(correlations(R) if correlation else R, index=index, columns=index)


def residual_table(fit: Fit, alpha: float | None = None) -> pd.DataFrame:
    """Parameters of correlated or unequal residuals with standard errors and limits.

    Parameters
    ----------
    fit : Fit
    alpha : float, optional
        One minus the confidence level; that of the fit when not given.

    Returns
    -------
    DataFrame
        Columns stratum, parameter, estimate, std_error, lower, upper; limits by the normal distribution on the
        scale of logarithms (standard deviations, ranges) and of Fisher's z (correlations).
        A parameter at the end of its range has no standard error.

    Raises
    ------
    OptionError
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    if not isinstance(fit, ResidualFit):
        raise OptionError("the residuals of this model have one parameter, `sigma`; see variance_table().")
    found = residual_parameters(fit, float(-special.ndtri(chosen_alpha(fit, alpha) / 2.0)))
    table = pd.DataFrame([asdict(one) for one in found])
    return printed(table.rename(columns={"label": "parameter"}))


def _place(strata: tuple[str, ...], stratum: str | None) -> int:
    if stratum is None and len(strata) == 1:
        return 0
    if stratum is not None and str(stratum) in strata:
        return strata.index(str(stratum))
    known = ", ".join(strata)
    if stratum is None:
        raise OptionError(f"there is a matrix for each of {known}; say which one with stratum=.")
    raise OptionError(f"stratum={stratum!r} is not known.{did_you_mean(str(stratum), strata)} There are {known}.")
