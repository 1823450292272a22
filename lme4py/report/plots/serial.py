"""Residuals of one subject beside each other: their autocorrelation by lag, and their variogram by distance.

For standardised residuals e of a subject at positions t the semivariogram is the mean of (e_i - e_j)^2 / 2 over pairs
of one distance: 1 for independent residuals, one minus their correlation for others (Diggle et al. 2002, Analysis of
Longitudinal Data, section 3.4). The autocorrelation of lag l is the mean of e_i e_j over pairs l positions apart,
divided by that of e_i^2 (Box & Jenkins 1976).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.fits.groups import default_group, group_codes
from lme4py.fits.residual.fit import ResidualFit
from lme4py.inference.diagnostics.residuals import residual_values
from lme4py.inference.estimates.coefficients import chosen_alpha
from lme4py.linalg.types import FloatArray, IntArray
from lme4py.pictures import BLUE, GREY, ORANGE, single
from lme4py.report.plots.training import columns_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["autocorrelation", "autocorrelation_data", "variogram", "variogram_data"]

Figsize = tuple[float, float]


# --- rows of subjects -------------------------------------------------------------------------------------------------


def _subjects(fit: Fit) -> IntArray:
    """Whose residuals may be correlated: the subjects of the residuals, else the outermost grouping factor."""
    if isinstance(fit, ResidualFit) and fit.residual.text:
        return fit.residual.part.subject
    if not fit.design.terms:
        raise OptionError("the model has no subjects: neither a residual structure nor a grouping factor.")
    return group_codes(fit.design, default_group(fit.design, None, required=False)).astype(np.intp)


def _points(fit: Fit, variable: str | None) -> FloatArray:
    """Where the rows are, shape (n, d): a column, the positions of the residuals, or the order of the rows."""
    if variable is not None:
        column = columns_of(fit, [variable])[variable]
        return np.asarray(column.values, dtype=np.float64)[:, None]
    if isinstance(fit, ResidualFit) and fit.residual.text and not fit.residual.is_known:
        return fit.residual.part.points
    subject = _subjects(fit)
    order = np.argsort(subject, kind="stable")
    starts = np.flatnonzero(np.diff(subject[order], prepend=-1))
    out = np.empty(subject.size)
    out[order] = np.arange(subject.size) - np.repeat(starts, np.diff(np.append(starts, subject.size)))
    return out[:, None]


def _pairs(subject: IntArray, points: FloatArray) -> tuple[IntArray, IntArray]:
    """Pairs of rows of one subject, the earlier one first."""
    order = np.lexsort((*points.T[::-1], subject))
    own = subject[order]
    first, second = [], []
    for shift in range(1, int(np.bincount(own).max(initial=1))):
        same = own[shift:] == own[:-shift]
        first.append(order[:-shift][same])
        second.append(order[shift:][same])
    empty: IntArray = np.zeros(0, dtype=np.intp)
    return np.concatenate([empty, *first]), np.concatenate([empty, *second])


def _values(fit: Fit, type: str | None, usual: str) -> tuple[FloatArray, str]:
    kind = usual if type is None else type
    if not isinstance(fit, ResidualFit) and kind == "normalized":
        kind = "scaled" if fit.normal_errors else "pearson"
    return residual_values(fit, kind), kind


# --- autocorrelation --------------------------------------------------------------------------------------------------


def autocorrelation_data(fit: Fit, variable: str | None = None, *, type: str | None = None) -> pd.DataFrame:
    """One row for each lag: lag, autocorrelation, n_pairs, limit.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
        A column of the data whose whole numbers order the rows of a subject; when not given the positions of the
        residuals where these are counted, else the order of the rows.
    type : str, optional
        Kind of residual; "normalized" when not given, what the structure leaves ("scaled" of models without one).

    Returns
    -------
    DataFrame
        `limit` is what autocorrelations of independent residuals stay within, with the probability of the fit's
        intervals.
    """
    import pandas as pd

    e, _ = _values(fit, type, "normalized")
    subject, points = _subjects(fit), _points(fit, variable)
    counted = points.shape[1] == 1 and bool((points == np.round(points)).all())
    if not counted:
        # Irregular times: ranks within the subject.
        points = _ranks(subject, points)
    i, j = _pairs(subject, points)
    lag = np.rint(np.abs(points[i, 0] - points[j, 0])).astype(np.intp)
    lags, place = np.unique(lag, return_inverse=True)
    counts = np.bincount(place, minlength=lags.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.bincount(place, e[i] * e[j], lags.size) / counts / np.mean(e**2)
    quantile = float(-special.ndtri(chosen_alpha(fit, None) / 2.0))
    return pd.DataFrame(
        {
            "lag": np.append(0, lags),
            "autocorrelation": np.append(1.0, found),
            "n_pairs": np.append(e.size, counts),
            "limit": quantile / np.sqrt(np.append(e.size, counts)),
        }
    )


def _ranks(subject: IntArray, points: FloatArray) -> FloatArray:
    order = np.lexsort((*points.T[::-1], subject))
    own = subject[order]
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    out = np.empty(own.size)
    out[order] = np.arange(own.size) - np.repeat(starts, np.diff(np.append(starts, own.size)))
    return out[:, None]


def autocorrelation(
    fit: Fit,
    variable: str | None = None,
    *,
    type: str | None = None,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
) -> Axes:
    """Autocorrelations by lag, with the limits of independent residuals.

    Parameters
    ----------
    fit : Fit
    variable, type : str, optional
        As in `autocorrelation_data`.
    ax : Axes, optional
    figsize : (float, float), optional
    """
    table = autocorrelation_data(fit, variable, type=type)
    axis = single(ax, figsize)
    lag = table["lag"].to_numpy()
    axis.vlines(lag, 0.0, table["autocorrelation"], color=BLUE, linewidth=2.0)
    limit = table["limit"].to_numpy()[1:]
    for sign in (-1.0, 1.0):
        axis.plot(lag[1:], sign * limit, color=ORANGE, linewidth=1.0, linestyle="--")
    axis.axhline(0.0, color=GREY, linewidth=0.9, zorder=0)
    axis.set_xlabel("lag")
    axis.set_ylabel(f"autocorrelation of {_values(fit, type, 'normalized')[1]} residuals")
    return axis


# --- variogram --------------------------------------------------------------------------------------------------------


def variogram_data(fit: Fit, variable: str | None = None, *, type: str | None = None, bins: int = 12) -> pd.DataFrame:
    """One row for each class of distances: distance, semivariance, n_pairs, and model.

    Parameters
    ----------
    fit : Fit
    variable : str, optional
        A numeric column of the data; the positions of the residuals, or the order of the rows, when not given.
    type : str, optional
        Kind of residual; "pearson" when not given, with the correlation that the structure describes still in it.
    bins : int
        Classes of about equally many pairs; fewer where there are fewer distances.

    Returns
    -------
    DataFrame
        `model` is the mean over the pairs of one minus the correlation that the fit has for them; only for "pearson"
        residuals of a model with a residual structure at its own positions.
    """
    import pandas as pd

    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise OptionError(f"bins={bins!r} is not known; give a whole number of classes.")
    e, kind = _values(fit, type, "pearson")
    if not isinstance(fit, ResidualFit) and fit.normal_errors and kind == "pearson":
        e = e / fit.sigma
    subject, points = _subjects(fit), _points(fit, variable)
    i, j = _pairs(subject, points)
    distance = np.linalg.norm(points[i] - points[j], axis=1)
    distances = np.unique(distance)
    if distances.size > bins:
        edges = np.unique(np.quantile(distance, np.linspace(0.0, 1.0, bins + 1)))[1:-1]
        place = np.searchsorted(edges, distance, side="left")
    else:
        place = np.searchsorted(distances, distance)
    used, place = np.unique(place, return_inverse=True)
    counts = np.bincount(place, minlength=used.size)

    def mean(values: FloatArray) -> FloatArray:
        out: FloatArray = np.bincount(place, values, used.size) / np.maximum(counts, 1)
        return out

    table = pd.DataFrame(
        {"distance": mean(distance), "semivariance": mean(0.5 * (e[i] - e[j]) ** 2), "n_pairs": counts}
    )
    if isinstance(fit, ResidualFit) and fit.residual.text and kind == "pearson" and variable is None:
        table["model"] = mean(1.0 - _correlations(fit, i, j))
    return table


def _correlations(fit: ResidualFit, i: IntArray, j: IntArray) -> FloatArray:
    """Correlations of the residuals of pairs of rows by the model."""
    part = fit.problem.criterion.model.residual
    out = np.zeros(i.size)
    for h, structure in enumerate(part.structures):
        here = np.flatnonzero(part.stratum[i] == h)
        points = np.stack([part.points[i[here]], part.points[j[here]]], axis=1)
        at = points[..., 0] if points.shape[2] == 1 else points
        R = structure.covariance(fit.par[fit.problem.residual_slice(h)], at)
        out[here] = R[:, 0, 1] / np.sqrt(R[:, 0, 0] * R[:, 1, 1])
    return out


def variogram(
    fit: Fit,
    variable: str | None = None,
    *,
    type: str | None = None,
    bins: int = 12,
    ax: Axes | None = None,
    figsize: Figsize | None = None,
) -> Axes:
    """The semivariogram by distance, with that of the model where it has one.

    Parameters
    ----------
    fit : Fit
    variable, type : str, optional
        As in `variogram_data`.
    bins : int
    ax : Axes, optional
    figsize : (float, float), optional
    """
    table = variogram_data(fit, variable, type=type, bins=bins)
    axis = single(ax, figsize)
    axis.plot(table["distance"], table["semivariance"], "o", color=BLUE, markersize=5)
    if "model" in table:
        axis.plot(table["distance"], table["model"], color=ORANGE, linewidth=1.5, label="model")
        axis.legend(frameon=False)
    axis.axhline(1.0, color=GREY, linewidth=0.9, zorder=0)
    axis.set_ylim(bottom=0.0)
    axis.set_xlabel("distance" if variable is None else f"distance in {variable}")
    axis.set_ylabel(f"semivariogram of {_values(fit, type, 'pearson')[1]} residuals")
    return axis
