"""Standard errors and Wald intervals of standard deviations, correlations, dispersions and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.naming import natural_values
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import (
    Parameter,
    VarianceInformation,
    fit_parameters,
    fit_values,
    is_determined,
    select_parameters,
)
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.estimates.dispersion import shown_dispersion
from lme4py.inference.estimates.limits import known_errors
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["noted", "parameter_covariance", "standard_errors", "variance_table", "wald_limits"]

# Rounding of a variance that is zero.
_NO_VARIANCE = 1e-20


def standard_errors(fit: Fit, wanted: Sequence[Parameter]) -> FloatArray:
    """Standard errors by the delta method; zero or NaN on the boundary, NaN where the design determines nothing.

    Parameters
    ----------
    fit : Fit
    wanted : sequence of Parameter
    """
    fixed = known_errors(fit, np.eye(fit.beta.size), fit.vcov)
    known: dict[str, FloatArray | None] = {"fixed": fixed, "threshold": fit.threshold_se}
    infinite = fit.other_limits != 0.0

    residual = np.array([one[0] for one in model_of(fit).residual_limits(1.0)] if _of_residuals(wanted) else [])

    def error(parameter: Parameter) -> float:
        if parameter.kind == "residual":
            return float(residual[parameter.natural])
        if parameter.kind == "other" and infinite[parameter.first]:
            return float("nan")
        own = known.get(parameter.kind)
        return _std_error(fit, parameter) if own is None else float(own[parameter.first])

    return np.array([error(parameter) for parameter in wanted])


def _of_residuals(wanted: Sequence[Parameter]) -> bool:
    return any(parameter.kind == "residual" for parameter in wanted)


def _std_error(fit: Fit, parameter: Parameter) -> float:
    if not is_determined(fit, parameter):
        return float("nan")
    information = model_of(fit).variance_information()
    return information.std_error(_gradient(fit, information, parameter))


def _gradient(fit: Fit, information: VarianceInformation, parameter: Parameter) -> FloatArray:
    """Derivative of a parameter in phi."""
    if parameter.kind in ("sigma", "dispersion") and fit.dispersion_limit:
        # At the end of the range the curvature says nothing.
        return np.full(information.residual.shape, np.nan)
    if parameter.kind == "sigma":
        return 0.5 * fit.sigma * information.residual
    if parameter.kind == "dispersion":
        slope: FloatArray = parameter.reported(fit.dispersion) * information.residual
        return -slope if parameter.inverted else slope
    if parameter.kind == "other":
        rest = information.thresholds[:, : len(fit.others)]
        combined: FloatArray = rest @ fit.family.other_slopes(fit.others)[parameter.first]
        return combined
    if parameter.kind == "threshold":
        return information.thresholds[:, fit.family.n_coefficients + parameter.first]
    if parameter.shape is not None:
        return _shape_gradient(fit, information, parameter, parameter.shape)
    cov, d = fit.covariances[parameter.term], information.covariances[parameter.term]
    i, j = parameter.first, parameter.second
    with np.errstate(divide="ignore", invalid="ignore"):
        if parameter.kind == "sd":
            own: FloatArray = d[:, i, i] / (2.0 * np.sqrt(cov[i, i]))
            return own
        sizes = np.sqrt(cov[i, i] * cov[j, j])
        half = d[:, i, i] / (2.0 * cov[i, i]) + d[:, j, j] / (2.0 * cov[j, j])
        gradient: FloatArray = d[:, i, j] / sizes - cov[i, j] / sizes * half
        return gradient


def _shape_gradient(
    fit: Fit, information: VarianceInformation, parameter: Parameter, structure: CovarianceStructure
) -> FloatArray:
    """Derivative of a parameter of a covariance structure in phi."""
    t, i = parameter.term, parameter.natural
    theta = fit.design.structures.split(fit.theta)[t]
    jacobian = structure.natural_jacobian(theta)[i]
    if not np.isfinite(jacobian).all():
        # An infinite range has no standard error.
        return np.full(information.thetas[t].shape[0], np.nan)
    slopes = information.thetas[t] @ jacobian
    if not structure.natural_parameters[i].relative:
        return np.asarray(slopes)
    value = float(natural_values(structure, theta, fit.covariances[t])[i])
    own = float(structure.natural(theta)[i])
    unit = value / own if own else 1.0
    return np.asarray(unit * slopes + value * information.scale)


def parameter_covariance(fit: Fit, parm: str | Sequence[str] = "all") -> pd.DataFrame:
    """Covariance matrix of parameters of all kinds, by the delta method from that of what the engine estimates.

    Parameters
    ----------
    fit : Fit
    parm : {"fixed", "random", "all"} or names

    Returns
    -------
    pandas.DataFrame
        With the names of `conf_int` on both sides. NaN along what has no standard error: coefficients that are
        infinite, variances on the boundary, what the design does not determine.
    """
    import pandas as pd

    wanted = select_parameters(fit_parameters(fit), parm)
    information = model_of(fit).variance_information()
    G = np.array(
        [information.fixed[:, p.first] if p.kind == "fixed" else _gradient(fit, information, p) for p in wanted]
    ).reshape(len(wanted), -1)
    errors = standard_errors(fit, wanted)
    V = G @ information.covariance @ G.T
    # Errors of the fixed effects of a linear model are those of its vcov, whatever the variances.
    fixed = [i for i, p in enumerate(wanted) if p.kind == "fixed"]
    places = [wanted[i].first for i in fixed]
    V[np.ix_(fixed, fixed)] = fit.vcov[np.ix_(places, places)]
    unknown = ~np.isfinite(errors) | ((errors == 0.0) & np.array([p.is_random for p in wanted]))
    names = [p.name for p in wanted]
    return pd.DataFrame(np.where(unknown | unknown[:, None], np.nan, V), index=names, columns=names)


def wald_limits(fit: Fit, wanted: Sequence[Parameter], alpha: float) -> FloatArray:
    """Limits, shape (len(wanted), 2).

    Normal ones for fixed effects and thresholds, on the log scale for standard deviations and the dispersion, on that
    of Fisher's z for correlations. A standard deviation of zero has the limits 0 and infinity: the curvature says
    nothing there (the profile does). What the design does not determine has the limits NaN.

    Parameters
    ----------
    fit : Fit
    wanted : sequence of Parameter
    alpha : float
    """
    z = -special.ndtri(alpha / 2.0)
    values = fit_values(fit, wanted)
    out = np.empty((len(wanted), 2))
    residual = model_of(fit).residual_limits(float(z)) if _of_residuals(wanted) else []
    for row, parameter, value, error in zip(out, wanted, values, standard_errors(fit, wanted), strict=True):
        known = is_determined(fit, parameter)
        if parameter.kind == "residual":
            row[:] = residual[parameter.natural][1:]
        elif parameter.kind == "other":
            row[:] = fit.family.other_limits(parameter.first, float(value), z * float(error))
        else:
            row[:] = _own_limits(parameter, float(value), z * float(error)) if known else np.nan
    return out


def _own_limits(parameter: Parameter, value: float, half: float) -> tuple[float, float]:
    if parameter.shape is None:
        return _limits(parameter.kind, value, half)
    natural = parameter.shape.natural_parameters[parameter.natural]
    slope = natural.slope(value)
    if not np.isfinite(slope) or not np.isfinite(half) or half == 0.0:
        return natural.lower, natural.upper
    centre = natural.unbounded(value)
    return natural.bounded(centre - slope * half), natural.bounded(centre + slope * half)


def _limits(kind: str, value: float, half: float) -> tuple[float, float]:
    if kind in ("fixed", "threshold"):
        return value - half, value + half
    if kind == "corr":
        if not abs(value) < 1.0 or not np.isfinite(half):
            return -1.0, 1.0
        centre, spread = np.arctanh(value), half / (1.0 - value**2)
        return float(np.tanh(centre - spread)), float(np.tanh(centre + spread))
    if value in (0.0, np.inf) or half == 0.0 or not np.isfinite(half):
        # On the boundary the curvature says nothing; the profile does.
        return 0.0, float("inf")
    with np.errstate(over="ignore"):
        return value * float(np.exp(-half / value)), value * float(np.exp(half / value))


def variance_table(fit: Fit, alpha: float | None = None) -> pd.DataFrame:
    """Variances and covariances with standard errors and limits, as Stata prints them.

    Parameters
    ----------
    fit : Fit
    alpha : float, optional
        One minus the confidence level; that of the fit when not given.

    Returns
    -------
    pandas.DataFrame
        Rows as the keys of `variance_components` without the correlations: ``var(_cons)``, ``cov(_cons,x)``,
        ``var(Residual)``, then the dispersion under its name (phi, theta; alpha of the keyword door); columns estimate,
        std_error (delta method), lower, upper (on the log scale for variances, normal for covariances). A variance of
        zero has no standard error from the curvature: NaN, and the limits 0 and infinity; use the profile. What the
        design does not determine is NaN.
    """
    import pandas as pd

    z = float(-special.ndtri(chosen_alpha(fit, alpha) / 2.0))
    information = model_of(fit).variance_information()
    names, rows = [], []
    for p in fit_parameters(fit):
        if not p.is_random:
            continue
        if p.shape is not None:
            value, error = float(fit_values(fit, [p])[0]), _std_error(fit, p)
            names.append(p.name)
            rows.append((value, error, *wald_limits(fit, [p], chosen_alpha(fit, alpha))[0].tolist()))
            continue
        if p.kind == "sigma":
            value, slope = fit.sigma**2, fit.sigma**2 * information.residual
        else:
            value = float(fit.covariance_estimates[p.term][p.first, p.second])
            slope = information.covariances[p.term][:, p.first, p.second]
        known = is_determined(fit, p)
        error = information.std_error(slope) if known else float("nan")
        names.append(p.stata.replace("corr(", "cov(").replace("sd(", "var("))
        if p.kind == "corr":
            rows.append((value, error, value - z * error, value + z * error))
        else:
            value = 0.0 if value <= _NO_VARIANCE else value
            limits = _limits("sd", value, z * error) if known else (float("nan"), float("nan"))
            rows.append((value, error if value > 0.0 else float("nan"), *limits))
    found = shown_dispersion(fit, alpha)
    if found is not None and all(p.kind != "sigma" for p in fit_parameters(fit)):
        names.append(found.name)
        rows.append((found.estimate, found.std_error, found.lower, found.upper))
    columns = ["estimate", "std_error", "lower", "upper"]
    table = pd.DataFrame(rows, columns=columns, index=pd.Index(names, name="term"))
    return noted(fit, table)


def noted(fit: Fit, table: pd.DataFrame) -> pd.DataFrame:
    """A table with variances, and a note where these keep the model's errors beside robust ones of coefficients.

    Parameters
    ----------
    fit : Fit
    table : DataFrame
    """
    if not fit.robust_variances and fit.conventions.vce is not None:
        table.attrs["note"] = (
            "Standard errors and limits of variances are the model's; those of coefficients are robust."
        )
    return table
