"""Correlations between several responses: of their random effects, and of their residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.design.responses.responses import BoundResponses
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.parameters import Parameter, fit_parameters, fit_values
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.parameters import residual_parameters
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.variance_errors import standard_errors, wald_limits
from lme4py.inference.overview.intervals import intervals

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.linalg.types import FloatArray

__all__ = ["residual_correlations", "response_correlations", "responses_of"]

_METHODS = ("wald", "profile", "boot")
# A smaller standard error is rounding at the end of the range.
_NOTHING = 1e-9


def responses_of(fit: Fit, what: str) -> BoundResponses:
    """The responses of a fit, or an error for one that has one.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.

    Raises
    ------
    OptionError
    """
    if fit.design.responses is None:
        raise OptionError(f"{what} for models of several responses, mvbind(y1, y2) ~ x + (1 | id).")
    return fit.design.responses


def response_correlations(fit: Fit, alpha: float | None = None, method: str = "wald", **options: Any) -> pd.DataFrame:
    """Correlations between the responses: of their random effects, and of their residuals, with intervals.

    Parameters
    ----------
    fit : Fit
        Of several responses.
    alpha : float, optional
        One minus the confidence level; that of the fit when not given.
    method : {"wald", "profile", "boot"}
        "wald": normal limits on the scale of Fisher's z; "profile": profile likelihood (REML fits by ML); "boot":
        parametric bootstrap. Correlations of residuals have Wald limits only, NaN with another method.
    **options
        Of the bootstrap: n_boot, seed, n_jobs, type; see `conf_int`.

    Returns
    -------
    DataFrame
        Columns group ("Residual" for residuals), name1, name2, estimate, std_error, lower, upper: a row for each pair
        of effects of different responses. A correlation at the end of its range has no standard error.

    Raises
    ------
    OptionError
        The fit has one response.

    Examples
    --------
    >>> import lme4py
    >>> data = lme4py.load_dataset("Orthodont").pivot(index=["Subject", "Sex"], columns="age", values="distance")
    >>> data.columns = ["a8", "a10", "a12", "a14"]
    >>> fit = lme4py.lmer("mvbind(a8, a14) ~ Sex", data.reset_index())
    >>> round(float(response_correlations(fit.fit)["estimate"][0]), 3)
    0.522
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    responses = responses_of(fit, "correlations between responses are")
    if method not in _METHODS:
        hint = did_you_mean(str(method), _METHODS)
        raise OptionError(f"method={method!r} is not known.{hint} Use one of {', '.join(_METHODS)}.")
    level = chosen_alpha(fit, alpha)
    wanted = [own for own in fit_parameters(fit) if own.kind == "corr" and _is_between(fit, responses, own)]
    rows = [
        # At the end of its range the curvature says nothing of a correlation.
        (fit.design.terms[own.term].group, *_names(fit, own), value, error if error > _NOTHING else np.nan, *limits)
        for own, value, error, limits in zip(
            wanted,
            fit_values(fit, wanted),
            standard_errors(fit, wanted),
            _limits(fit, wanted, level, method, options),
            strict=True,
        )
    ]
    rows += residual_correlations(fit, level, method == "wald")
    columns = ["group", "name1", "name2", "estimate", "std_error", "lower", "upper"]
    return printed(pd.DataFrame(rows, columns=columns))


def _names(fit: Fit, parameter: Parameter) -> tuple[str, str]:
    columns = fit.design.terms[parameter.term].columns
    return columns[parameter.first], columns[parameter.second]


def _is_between(fit: Fit, responses: BoundResponses, parameter: Parameter) -> bool:
    """Whether a correlation is one of effects of different responses."""
    if parameter.first < 0 or parameter.second < 0:
        return False
    first, second = (responses.split(name)[0] for name in _names(fit, parameter))
    return first != second


def _limits(fit: Fit, wanted: list[Parameter], alpha: float, method: str, options: dict[str, Any]) -> FloatArray:
    if not wanted:
        return np.zeros((0, 2))
    if method == "wald":
        return wald_limits(fit, wanted, alpha)
    found = intervals(fit, alpha, method, [own.name for own in wanted], **options)
    return np.asarray(found.to_numpy(dtype=np.float64))


def residual_correlations(fit: Fit, alpha: float, known: bool = True) -> list[tuple[Any, ...]]:
    """Rows of the residual correlations: "Residual", two responses, estimate, standard error, limits.

    Parameters
    ----------
    fit : Fit
    alpha : float
    known : bool
        Whether limits are asked for; NaN otherwise.
    """
    if not isinstance(fit, ResidualFit):
        return []
    structure, side = fit.residual.part.structures[0], fit.residual
    z = float(-special.ndtri(alpha / 2.0))
    found = zip(structure.natural_parameters, residual_parameters(fit, z), strict=False)
    return [
        (
            "Residual",
            side.columns[min(own.columns)],
            side.columns[max(own.columns)],
            one.estimate,
            one.std_error,
            *((one.lower, one.upper) if known else (np.nan, np.nan)),
        )
        for own, one in found
        if own.kind != "sd" and len(own.columns) == 2
    ]
