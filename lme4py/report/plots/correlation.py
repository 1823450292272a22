"""Correlations of the effects of one term: against their distance, or as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray
from lme4py.pictures import BLUE, single

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["correlation", "correlation_data"]


def correlation_data(fit: Fit, variable: str | None = None) -> pd.DataFrame:
    """Pairs of effects of a term: names, correlation, and the distance between their times or places.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
        The label of a term, or its grouping factor; the first term with several effects by default.

    Raises
    ------
    OptionError
        There is no such term, or it has one effect.
    """
    import pandas as pd

    term, R = _correlations(fit, variable)
    first, second = np.triu_indices(R.shape[0])
    names = np.array(term.columns, dtype=object)
    table = pd.DataFrame({"name1": names[first], "name2": names[second], "correlation": R[first, second]})
    places = term.structure.positions
    if places is not None:
        gaps = np.asarray(places[first] - places[second], dtype=np.float64).reshape(first.size, -1)
        table["distance"] = np.sqrt((gaps**2).sum(axis=1))
    return table


def _correlations(fit: Fit, variable: str | None) -> tuple[RandomTerm, FloatArray]:
    chosen = _term(fit, variable)
    cov = fit.covariance_estimates[chosen]
    sd = np.sqrt(cov.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        return fit.design.terms[chosen], cov / np.outer(sd, sd)


def _term(fit: Fit, variable: str | None) -> int:
    several = [t for t, term in enumerate(fit.design.terms) if term.n_columns > 1]
    if not several:
        raise OptionError("no term has several random effects, so that there are no correlations to draw.")
    if variable is None:
        return several[0]
    for t in several:
        if variable in (fit.design.terms[t].label, fit.design.terms[t].group):
            return t
    known = [fit.design.terms[t].label for t in several]
    raise OptionError(
        f"variable={variable!r} is no term with several random effects.{did_you_mean(str(variable), known)} They are "
        f"{', '.join(known)}."
    )


def correlation(
    fit: Fit, variable: str | None = None, *, ax: Axes | None = None, figsize: tuple[float, float] | None = None
) -> Axes:
    """Correlations against distance where the effects have times or places, else a heat map.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
        As in `correlation_data`.
    ax : Axes, optional
    figsize : (float, float), optional
    """
    term, R = _correlations(fit, variable)
    axes = single(ax, figsize)
    axes.set_title(term.label, loc="left")
    if term.structure.positions is not None:
        table = correlation_data(fit, variable).sort_values("distance")
        axes.plot(table["distance"], table["correlation"], "o", color=BLUE, markersize=4)
        axes.axhline(0.0, linewidth=0.8, color="grey")
        axes.set_xlabel("distance")
        axes.set_ylabel("correlation")
        return axes
    shown = axes.imshow(R, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    axes.set_xticks(range(term.n_columns), term.columns, rotation=45, ha="right")
    axes.set_yticks(range(term.n_columns), term.columns)
    axes.figure.colorbar(shown, ax=axes, label="correlation")
    return axes
