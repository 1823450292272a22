"""Coefficients of the linear predictors after the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.parameters import fit_parameters, fit_values
from lme4py.inference.estimates.variance_errors import standard_errors

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["component_table"]


def component_table(fit: Fit, component: str) -> pd.DataFrame:
    """Coefficients of a further part with z tests: estimate, std_error, df, statistic, p_value.

    Parameters
    ----------
    fit : Fit
    component : str
        One of `components`; "conditional" is `coef_table`.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    OptionError
        The model has no such part.
    """
    import pandas as pd

    known = fit.family.components
    if component not in known[1:]:
        raise OptionError(f"the model has no further part {component!r}; its parts are {', '.join(known)}.")
    wanted = [p for p in fit_parameters(fit) if p.kind == "other" and p.name.startswith(f"{component}: ")]
    estimate, error = fit_values(fit, wanted), standard_errors(fit, wanted)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = estimate / error
    table = {
        "estimate": estimate,
        "std_error": error,
        "df": np.inf,
        "statistic": z,
        "p_value": 2.0 * special.ndtr(-np.abs(z)),
    }
    return pd.DataFrame(table, index=pd.Index([p.name.split(": ", 1)[1] for p in wanted], name="term"))
