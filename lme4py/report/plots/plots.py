"""Plots of a fit, and the numbers that they draw; matplotlib is imported only when one is drawn.

Each kind is a pair of functions: one makes a data frame, the other draws it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.report.plots.check import check, check_data
from lme4py.report.plots.coef import coef, coef_data
from lme4py.report.plots.correlation import correlation, correlation_data
from lme4py.report.plots.effect import effect, effect_data
from lme4py.report.plots.fitted import fitted, fitted_data
from lme4py.report.plots.forest import forest, forest_data
from lme4py.report.plots.profile import profile, profile_data
from lme4py.report.plots.random import caterpillar, caterpillar_data, shrinkage, shrinkage_data
from lme4py.report.plots.residual_panel import residual_panel, residual_panel_data
from lme4py.report.plots.rows import qq, qq_data, residuals, residuals_data
from lme4py.report.plots.serial import autocorrelation, autocorrelation_data, variogram, variogram_data
from lme4py.report.plots.smooth import smooth, smooth_data

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "KINDS",
    "autocorrelation",
    "autocorrelation_data",
    "caterpillar",
    "caterpillar_data",
    "check",
    "check_data",
    "coef",
    "coef_data",
    "correlation",
    "correlation_data",
    "effect",
    "effect_data",
    "fitted",
    "fitted_data",
    "forest",
    "forest_data",
    "plot",
    "plot_data",
    "profile",
    "profile_data",
    "qq",
    "qq_data",
    "residual_panel",
    "residual_panel_data",
    "residuals",
    "residuals_data",
    "shrinkage",
    "shrinkage_data",
    "smooth",
    "smooth_data",
    "variogram",
    "variogram_data",
]

_PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., pd.DataFrame]]] = {
    "caterpillar": (caterpillar, caterpillar_data),
    "residuals": (residuals, residuals_data),
    "qq": (qq, qq_data),
    "profile": (profile, profile_data),
    "fitted": (fitted, fitted_data),
    "shrinkage": (shrinkage, shrinkage_data),
    "effect": (effect, effect_data),
    "coef": (coef, coef_data),
    "forest": (forest, forest_data),
    "residual_panel": (residual_panel, residual_panel_data),
    "check": (check, check_data),
    "correlation": (correlation, correlation_data),
    "autocorrelation": (autocorrelation, autocorrelation_data),
    "variogram": (variogram, variogram_data),
    "smooth": (smooth, smooth_data),
}
KINDS = tuple(_PAIRS)


def plot(fit: Fit, kind: str = "caterpillar", variable: Any = None, **kw: Any) -> Axes | NDArray[Any]:
    """Draw a plot (needs matplotlib); the same arguments to `plot_data` give its numbers.

    Parameters
    ----------
    fit : Fit
    kind : {"caterpillar", "residuals", "qq", "profile", "fitted", "shrinkage", "effect", "coef", "forest",
        "residual_panel", "check", "correlation", "autocorrelation", "variogram",
        "smooth"}
        Conditional modes with intervals; residuals against fitted values; normal quantiles of residuals or modes;
        profile likelihood; fitted curves by group; estimates without and with pooling; effect of a variable;
        coefficients with their limits; effects with known variances and the pooled one; quantile residuals in several
        panels; what to look at beside `check()`; correlations of the effects of a term, against their distance where
        they have times or places; correlations of the residuals of a subject by lag, and their variogram; smooths
        with their limits.
    variable : str or sequence of str, optional
        What to draw: a random effect ("Days"; with several grouping factors "Intercept|Subject") for caterpillar
        (the random intercept when not given, "all" for every effect), qq and shrinkage; parameters for profile; a
        variable of the data for fitted and effect.
    **kw
        ``ax`` to draw into given axes, ``figsize``, and the options of the kind; see `lme4py.report.plots.plots`.

    Returns
    -------
    matplotlib Axes, or an array of them when there are several panels

    Raises
    ------
    OptionError
    """
    draw = _pair(kind)[0]
    _check_options(kind, draw, kw)
    drawn: Axes | NDArray[Any] = draw(fit, variable, **kw)
    return drawn


def plot_data(fit: Fit, kind: str = "caterpillar", variable: Any = None, **kw: Any) -> pd.DataFrame:
    """The numbers that `plot` draws, as a data frame; takes the same arguments.

    Parameters
    ----------
    fit : Fit
    kind : str
    variable : str or sequence of str, optional
    **kw
        Options; those that only concern the drawing do nothing.

    Returns
    -------
    DataFrame
    """
    draw, make = _pair(kind)
    _check_options(kind, draw, kw)
    known = inspect.signature(make).parameters
    return make(fit, variable, **{name: value for name, value in kw.items() if name in known})


def _pair(kind: object) -> tuple[Callable[..., Any], Callable[..., pd.DataFrame]]:
    if isinstance(kind, str) and kind in _PAIRS:
        return _PAIRS[kind]
    hint = did_you_mean(str(kind), KINDS)
    raise OptionError(f"kind={kind!r} is no kind of plot.{hint} Use one of {', '.join(KINDS)}.")


def _check_options(kind: str, draw: Callable[..., Any], kw: dict[str, Any]) -> None:
    known = [name for name in inspect.signature(draw).parameters if name not in ("fit", "variable")]
    for name in kw:
        if name not in known:
            raise OptionError(
                f"kind={kind!r} has no option {name!r}.{did_you_mean(name, known)} Its options are {', '.join(known)}."
            )
