"""The pictures that belong to `check`: what to look at where a line asks for attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.diagnostics.influence import influence
from lme4py.pictures import ORANGE, panels, spikes, title
from lme4py.report.plots.rows import qq, qq_data, residuals, residuals_data

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["check", "check_data"]


def check_data(fit: Fit, variable: None = None) -> pd.DataFrame:
    """Fitted values and residuals, as `residuals_data`, with the normal quantiles of the residuals.

    Parameters
    ----------
    fit : Fit
    variable : None
        There is nothing to choose.
    """
    _nothing(variable)
    normal = qq_data(fit).set_index("label")["theoretical"]
    return residuals_data(fit).assign(theoretical=normal)


def check(
    fit: Fit, variable: None = None, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
) -> NDArray[Any]:
    """Residuals against fitted values, normal quantiles of residuals and of modes, and Cook's distances of groups.

    Parameters
    ----------
    fit : Fit
    variable : None
    ax : None
        There are several panels.
    figsize : (float, float), optional
    """
    _nothing(variable)
    # Smooths have no levels that could be left out, and models with some no influence.
    terms = () if fit.design.smooth_terms else fit.design.terms
    axes = panels(4 if terms else 2, ax, figsize, columns=2, size=(4.4, 3.4))
    residuals(fit, ax=axes[0])
    qq(fit, ax=axes[1])
    title(axes[1], "Residuals, normal quantiles")
    if terms:
        term = terms[0]
        effect = term.columns[0] if len(fit.design.n_groups) == 1 else f"{term.columns[0]}|{term.group}"
        qq(fit, effect, ax=axes[2])
        title(axes[2], f"{term.columns[0]} of {term.group}, normal quantiles")
        found = influence(fit, term.group)
        spikes(found.cooks_fixed, 3, axes[3], None)
        axes[3].axhline(4.0 / found.cooks_fixed.size, color=ORANGE, linewidth=1.0, linestyle="--")
        title(axes[3], f"Cook's distances, {term.group} left out")
    return axes


def _nothing(variable: object) -> None:
    if variable is not None:
        raise OptionError(f"kind='check' has no variable to choose; leave {variable!r} out.")
