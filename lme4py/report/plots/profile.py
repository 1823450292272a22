"""Profile plots: the signed root of the change of the deviance along each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.fits.base import Fit
from lme4py.fits.parameters import select_parameters
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.inference.profile.profile import profile as profile_likelihood
from lme4py.pictures import BLUE, GREY, LIGHT, ORANGE, panels, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["profile", "profile_data"]

Figsize = tuple[float, float]


def profile_data(
    fit: Fit, variable: str | Sequence[str] | None = None, *, alpha: float | None = None, profile: Any = None
) -> pd.DataFrame:
    """Points of the profiles: parameter, value, zeta.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
        Parameters ("Days", "sd(Intercept | Subject)"), "fixed", "random" or "all"; all when not given.
    alpha : float, optional
        The limits that are drawn are those of intervals of level 1 - alpha.
    profile : Profile, optional
        What ``result.profile()`` gave, when it is at hand.
    """
    found = _profile(fit, variable, chosen_alpha(fit, alpha), profile)
    table: pd.DataFrame = found.to_frame()
    return table[table["parameter"].isin(_names(found, variable))].reset_index(drop=True)


def _profile(fit: Fit, variable: str | Sequence[str] | None, alpha: float, profile: Any) -> Any:
    if profile is not None:
        return profile
    # A little beyond the limits, so that the curves cross them.
    return profile_likelihood(fit, "all" if variable is None else variable, min(alpha / 5.0, 0.01))


def _names(profile: Any, variable: str | Sequence[str] | None) -> list[str]:
    known = [parameter.name for parameter in profile.parameters]
    if variable is None or (isinstance(variable, str) and variable in ("all", "fixed", "random")):
        return known
    return [p.name for p in select_parameters(profile.parameters, variable)]


def profile(
    fit: Fit,
    variable: str | Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
    alpha: float | None = None,
    profile: Any = None,
) -> Axes | NDArray[Any]:
    """Zeta against each parameter: a straight line where Wald intervals are right; the shaded range is the interval.

    Parameters
    ----------
    fit : Fit
    variable : str or sequence of str, optional
    ax : Axes, optional
    figsize : (float, float), optional
    alpha : float, optional
    profile : Profile, optional
    """
    alpha = chosen_alpha(fit, alpha)
    found = _profile(fit, variable, alpha, profile)
    table = profile_data(fit, variable, alpha=alpha, profile=found)
    names = list(dict.fromkeys(table["parameter"]))
    limits = found.conf_int(alpha)
    axes = panels(len(names), ax, figsize, columns=3, size=(3.0, 2.6), what="parameters")
    height = -float(special.ndtri(alpha / 2.0))
    for axis, name in zip(axes, names, strict=True):
        own = table[table["parameter"] == name]
        # A limit at infinity ends with the curve.
        ends = own["value"].min(), own["value"].max()
        low, high = np.clip([float(limits.loc[name, side]) for side in ("lower", "upper")], *ends).tolist()
        axis.axvspan(low, high, color=LIGHT, alpha=0.3, linewidth=0)
        for level in (-height, height):
            axis.axhline(level, color=GREY, linewidth=0.8, linestyle=":")
        axis.axhline(0.0, color=GREY, linewidth=0.8)
        axis.plot(*_curve(own), color=BLUE, linewidth=1.8)
        axis.plot(own["value"], own["zeta"], "o", color=BLUE, markersize=2.5)
        axis.plot([low, high], np.interp([low, high], own["value"], own["zeta"]), "o", color=ORANGE, markersize=4)
        title(axis, name)
        axis.set_ylabel("ζ", rotation=0)
    return axes[0] if len(axes) == 1 else axes


def _curve(own: pd.DataFrame) -> tuple[Any, Any]:
    """A monotone curve through the points."""
    from scipy.interpolate import PchipInterpolator

    value, first = np.unique(own["value"].to_numpy(), return_index=True)
    zeta = own["zeta"].to_numpy()[first]
    if value.size < 3:
        return value, zeta
    x = np.linspace(value[0], value[-1], 200)
    return x, PchipInterpolator(value, zeta)(x)
