"""Information criteria of a frozen fit."""

from __future__ import annotations

import math

from lme4py.errors import PenalisedWarning, warn
from lme4py.fits.base import Fit

__all__ = ["aic", "bic", "warn_penalised"]


def aic(fit: Fit) -> float:
    """Akaike's criterion: the criterion of the fit plus twice the number of parameters; NaN without a likelihood."""
    if fit.penalised or fit.pseudo_likelihood:
        return math.nan
    return fit.criterion + 2.0 * fit.n_params


def bic(fit: Fit, n: int | None = None) -> float:
    """Schwarz's criterion: log(n) per parameter, n the number of rows used (as lme4, also for REML) if not given."""
    if fit.penalised or fit.pseudo_likelihood:
        return math.nan
    return fit.criterion + math.log(fit.design.n_obs if n is None else n) * fit.n_params


def warn_penalised(fit: Fit, what: str) -> None:
    """Warn of a criterion that a penalised fit does not have.

    Parameters
    ----------
    fit : Fit
    what : str

    Warns
    -----
    PenalisedWarning
    """
    if fit.penalised:
        warn(
            f"{what} is NaN: it needs the maximum of the likelihood, and these estimates are penalised (cov_prior=, "
            "fixef_prior=, resid_prior=). The log-likelihood at the estimates is log_likelihood, what was minimised "
            "criterion.",
            PenalisedWarning,
        )
