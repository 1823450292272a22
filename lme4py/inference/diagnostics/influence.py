"""Influence of single rows and of groups on the fixed effects.

With beta_(i) and V_(i) the estimates and their covariance without unit i, of U units, and V the covariance of all data,

    dfbeta = beta_(i) - beta                  dfbetas = dfbeta / sqrt(diag V_(i))
    cooks_fixed = (U - p) / (U p) dfbeta' V^-1 dfbeta                   covratio = det V_(i) / det V

are the measures of R's lme4 (`influence`), whose sign of dfbeta is the opposite of that of R's `lm`; Belsley, Kuh &
Welsch (1980), Cook (1977, Technometrics 19:15). For single rows and fixed variances `cooks_distance` is that of lme4's
``cooks.distance(model)``, which counts the random effects as estimated too:

    e_i^2 h_i / (p (1 - h_i)^2),         e the Pearson residual over sigma, h_i = 1 - P_ii / w_i the leverage,

(h is the derivative of the fitted value, random effects included, in the response; Demidenko & Stukel 2005, Stat. Med.
24:893); everywhere else it is `cooks_fixed`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Warning, OptionError, did_you_mean
from lme4py.fits.answers.working import WorkingModel
from lme4py.fits.kinds import model_of
from lme4py.fits.refuse import refuse, refuse_penalised, refuse_smooths
from lme4py.fits.rows.clusters import ClusterChoice, Clusters, find_clusters
from lme4py.inference.estimates.limits import coefficient_estimates, known_coefficients
from lme4py.inference.estimates.part_views import component_names, part_view
from lme4py.inference.refits.deletion import Deleted, delete_crossed, delete_groups, delete_rows, group_leverage
from lme4py.inference.refits.deletion_refit import refit_without, step_without
from lme4py.linalg.types import BoolArray, FloatArray
from lme4py.pictures import ORANGE, spikes
from lme4py.progress import check_progress, watching
from lme4py.tables.shown import Shown, Summary
from lme4py.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["InfluenceResult", "influence"]

_MEASURES = {
    "cooks_fixed": "Cook's distance of the fixed effects",
    "cooks_distance": "Cook's distance",
    "covratio": "ratio of covariance determinants",
    "sigma": "residual standard deviation without the unit",
}
# Units that a warning names.
_SHOWN = 5
METHODS = ("exact", "one-step", "refit")


@dataclass(frozen=True, repr=False)
class InfluenceResult(Shown):
    """Measures of influence of U units, on the user's scale.

    Attributes
    ----------
    unit : str
        "observation", or the name of the grouping factor.
    method : str
        "exact", "one-step" or "refit".
    dfbeta, dfbetas : pandas.DataFrame, shape (U, p)
        Change of the fixed effects when the unit is left out; over the standard errors without it.
    cooks_distance, cooks_fixed : pandas.Series, shape (U,)
        See `lme4py.inference.diagnostics.influence`.
    leverage : pandas.Series, shape (U,)
        Diagonal of the hat matrix, random effects included; for groups its sum over their rows. Of several linear
        predictors: what the rows add to the effective number of parameters.
    covratio : pandas.Series, shape (U,)
        det of the covariance of the fixed effects without the unit, over that with it.
    sigma : pandas.Series, shape (U,)
        Residual standard deviation without the unit.
    fixef : pandas.DataFrame, shape (U, p)
        Fixed effects without the unit.
    theta : pandas.DataFrame, shape (U, m), or None
        Relative covariance parameters without the unit, where they were estimated again.
    rstudent : pandas.Series, shape (U,), or None
        For single rows: Pearson residual over sigma sqrt(1 - h); None where there are several linear
        predictors.
    failed : tuple
        Labels of the units without which there are no estimates; their numbers are NaN.
    """

    unit: str
    method: str
    dfbeta: pd.DataFrame
    dfbetas: pd.DataFrame
    cooks_distance: pd.Series[float]
    cooks_fixed: pd.Series[float]
    leverage: pd.Series[float]
    covratio: pd.Series[float]
    sigma: pd.Series[float]
    fixef: pd.DataFrame
    theta: pd.DataFrame | None = None
    rstudent: pd.Series[float] | None = None
    failed: tuple[Any, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per unit: cooks_fixed, cooks_distance, leverage, covratio, sigma, then dfbeta and dfbetas."""
        import pandas as pd

        names = ("cooks_fixed", "cooks_distance", "leverage", "covratio", "sigma")
        frame = pd.DataFrame({name: getattr(self, name) for name in names})
        return frame.join(self.dfbeta.add_prefix("dfbeta_")).join(self.dfbetas.add_prefix("dfbetas_"))

    def largest(self, n: int = 5) -> pd.DataFrame:
        """The n units with the largest `cooks_fixed`: both distances, leverage, and dfbetas."""
        order = np.argsort(-self.cooks_fixed.to_numpy(dtype=np.float64), kind="stable")[:n]
        measures = ["cooks_fixed", "cooks_distance", "leverage", *(f"dfbetas_{name}" for name in self.dfbetas.columns)]
        return self.to_frame()[measures].iloc[order]

    def summary(self, n: int = 5) -> Summary:
        """The n largest distances, and what they mean.

        Parameters
        ----------
        n : int
        """
        return Summary(self._tables(n))

    def _tables(self, n: int = 5) -> list[Table]:
        from lme4py.tables.frames import frame_table

        how = {
            "exact": "variances kept",
            "one-step": "one step of the estimates",
            "refit": "model fitted again",
        }[self.method]
        count = self.cooks_distance.size
        above = int((self.cooks_fixed > 4.0 / count).sum())
        units = "observations" if self.unit == "observation" else f"levels of {self.unit}"
        table = frame_table(self.largest(n))
        title = f"Influence of {count} {units} ({how})"
        notes = [
            f"{above} with a Cook's distance of the fixed effects above 4/{count} = {4.0 / count:.3g}; shown are the "
            "largest.",
            self._distances(),
        ]
        if self.failed:
            shown = ", ".join(map(str, self.failed[:5])) + (", ..." if len(self.failed) > 5 else "")
            notes.append(f"No estimates without {shown} ({len(self.failed)} in all).")
        return [replace(table, title=title, notes=tuple(notes))]

    def plot(
        self,
        measure: str = "cooks_fixed",
        *,
        n_labels: int = 5,
        ax: Axes | None = None,
        figsize: tuple[float, float] | None = None,
    ) -> Axes:
        """A measure of every unit in their order, the largest with their labels (needs matplotlib).

        Parameters
        ----------
        measure : str
            "cooks_fixed" (with a line at 4 / U), or another column of `to_frame`, such as "leverage" or
            "dfbetas_Days" (with lines at 2 / sqrt(U)).
        n_labels : int
            Units that are named.
        ax : Axes, optional
        figsize : (float, float), optional

        Returns
        -------
        matplotlib Axes
        """
        table = self.to_frame()
        known = [str(name) for name in table]
        if measure not in known:
            hint = did_you_mean(str(measure), known)
            raise OptionError(f"measure={measure!r} is not known.{hint} Use one of {', '.join(known)}.")
        units = "observation" if self.unit == "observation" else f"level of {self.unit}"
        axis = spikes(table[measure], n_labels, ax, figsize)
        count = len(table)
        bounds = {"cooks": [4.0 / count], "dfbetas": [-2.0 / count**0.5, 2.0 / count**0.5]}
        for bound in bounds.get(measure.partition("_")[0], []):
            axis.axhline(bound, color=ORANGE, linewidth=1.0, linestyle="--")
        axis.set_xlabel(f"{units}, in order")
        axis.set_ylabel(_MEASURES.get(measure, measure.replace("_", " ")))
        return axis

    def _distances(self) -> str:
        """What the two distances are."""
        own = "cooks_fixed: change of the fixed effects"
        if self.cooks_distance.equals(self.cooks_fixed.rename("cooks_distance")):
            return f"{own}; cooks_distance is the same here."
        return f"{own}; cooks_distance: lme4's, from residual and leverage, random effects included."


def influence(
    fit: Any,
    group: ClusterChoice = None,
    method: str | None = None,
    progress: bool | None = None,
    component: str | None = None,
) -> InfluenceResult:
    """Cook's distances, dfbeta, dfbetas and leverage: what each row, or each group, does to the fixed effects.

    Parameters
    ----------
    fit : Fit
    group : str, array of shape (n,), or None
        None leaves out single rows; a grouping factor (crossed or nested), or labels of the rows, leave out groups.
    method : {None, "exact", "one-step", "refit"}
        "exact" (default of linear models): the relative variances are kept, beta and sigma are exact for them.
        "one-step": linear models take one Newton step of the variances too; generalised ones (their default) take one
        Fisher-scoring step of beta at the modes, weights and variances kept (of several linear predictors: a Newton
        step of the coefficients and modes of all). "refit" fits the model again without each unit.
    progress : bool, optional
        Show a bar of the units that are left out one by one; None shows one in a terminal or a notebook after a second.
        An interruption (Ctrl-C) keeps the units that are done, with a warning; the others are NaN.
    component : str, optional
        "zero_inflation" or "dispersion": what units do to the coefficients of that part, by one step.

    Returns
    -------
    InfluenceResult

    Raises
    ------
    OptionError
        Unknown group, method or component.

    Warns
    -----
    Lme4Warning
        When there are no estimates without some units.

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> influence(fit, "Subject", "refit").cooks_distance.round(4).head(3).to_dict()
    {'308': 0.0821, '309': 0.132, '310': 0.0982}
    """
    check_progress(progress)
    refuse_penalised(fit, "influence is")
    refuse_smooths(fit, "influence is")
    part = _part(fit, component)
    chosen = _check_method(fit, method, part)
    units = _rows(fit) if group is None else find_clusters(fit.design, group, "group")
    if units.n_clusters < 2:
        raise OptionError(f"{units.name!r} is one group only; nothing is left without it.")
    with limited_threads(fit.design):
        model = model_of(fit).working_model()
        model = model if part == CONDITIONAL else model.of_part(part)
        deleted = _kept_variances(fit, model, units, single=group is None)
    alone = ~deleted.ok
    if chosen != model_of(fit).influence_methods[0]:
        again = refit_without if chosen == "refit" else step_without
        with watching("influence", progress, "units", total=units.n_clusters):
            deleted = again(fit, units.codes, deleted.ok, _whole_levels(fit, units, single=group is None))
    rows_kept = group is None and deleted.theta is None and model.independent_rows
    view = fit if part == CONDITIONAL else part_view(fit, part)
    covariance = None if part == CONDITIONAL else view.vcov
    result = _result(view, model, units, deleted, chosen, rows_kept, covariance)
    if result.failed:
        warnings.warn(_without_estimates(units, deleted.ok, alone), Lme4Warning, stacklevel=3)
    return result


def _without_estimates(units: Clusters, ok: BoolArray, alone: BoolArray) -> str:
    """Which units have no numbers, and why."""
    why = [
        (alone, "without {names} a coefficient cannot be told from the other units"),
        (~ok & ~alone, "without {names} the fit does not converge to finite estimates, or was interrupted"),
    ]
    parts = [text.format(names=_some(units, which)) for which, text in why if which.any()]
    count = int((~ok).sum())
    return f"no estimates without {count} of the {units.n_clusters} units, whose numbers are NaN: {'; '.join(parts)}."


def _some(units: Clusters, which: BoolArray) -> str:
    """Labels of the first units."""
    labels = [repr(units.labels[i]) for i in np.flatnonzero(which)]
    return ", ".join(labels[:_SHOWN]) + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")


def _part(fit: Any, component: str | None) -> str:
    """The one part whose coefficients are looked at."""
    names = component_names(fit, component)
    if len(names) > 1:
        raise OptionError(f"component='all' is not for influence; name one of {', '.join(map(repr, names))}.")
    return names[0]


def _check_method(fit: Any, method: str | None, part: str) -> str:
    known = model_of(fit).influence_methods
    if part != CONDITIONAL:
        known = tuple(name for name in known if name == "one-step")
        if not known:
            refuse(f"influence on the {part} part is", "leave component= out")
    if method is None:
        return known[0]
    if method not in METHODS:
        raise OptionError(f"method={method!r} is not known.{did_you_mean(str(method), METHODS)} Use one of {METHODS}.")
    if method not in known:
        refuse(f"method={method!r} is", f"use {' or '.join(map(repr, known))}")
    return method


def _rows(fit: Any) -> Clusters:
    design = fit.design
    labels = tuple(design.index[design.keep])
    return Clusters("observation", np.arange(design.n_obs), labels)


def _whole_levels(fit: Any, units: Clusters, single: bool) -> bool | None:
    """True for the levels of the only grouping factor, False for rows of such a model, None for anything else."""
    if len(fit.design.n_groups) != 1:
        return None
    if single:
        return False
    return True if np.array_equal(units.codes, fit.design.terms[0].codes) else None


def _kept_variances(fit: Any, model: WorkingModel, units: Clusters, single: bool) -> Deleted:
    if single:
        return delete_rows(model)
    delete = delete_groups if model_of(fit).independent_units(units) else delete_crossed
    return delete(model, units.codes, units.n_clusters)


def _result(
    fit: Any,
    model: WorkingModel,
    units: Clusters,
    deleted: Deleted,
    method: str,
    rows_kept: bool,
    covariance: FloatArray | None = None,
) -> InfluenceResult:
    import pandas as pd

    index = pd.Index(list(units.labels), name=None if units.name == "observation" else units.name)
    names = list(fit.design.x_names)
    leverage = model.leverage if units.name == "observation" else _summed(model, units)
    # What has no finite estimate cannot change.
    known = known_coefficients(fit)
    hide = np.where(known, 1.0, np.nan)
    own = model_of(fit).own_vcov() if covariance is None else covariance
    fixed = _cooks_fixed(own[np.ix_(known, known)], deleted.change[:, known])

    def series(values: FloatArray, name: str) -> pd.Series[float]:
        return pd.Series(values, index=index, name=name)

    def table(values: FloatArray) -> pd.DataFrame:
        return pd.DataFrame(values, index=index, columns=names)

    studentised = model.studentised() if units.name == "observation" else None
    theta = None
    if deleted.theta is not None:
        theta = pd.DataFrame(deleted.theta, index=index, columns=[f"theta{i}" for i in range(1, fit.theta.size + 1)])
    return InfluenceResult(
        unit=units.name,
        method=method,
        dfbeta=table(deleted.change * hide),
        dfbetas=table(deleted.change / deleted.errors * hide),
        cooks_distance=series(_cooks_rows(model) if rows_kept else fixed, "cooks_distance"),
        cooks_fixed=series(fixed, "cooks_fixed"),
        leverage=series(leverage, "leverage"),
        covratio=series(np.exp(deleted.log_det), "covratio"),
        sigma=series(fit.sigma * deleted.sigma, "sigma"),
        fixef=table(coefficient_estimates(fit) + deleted.change),
        theta=theta,
        rstudent=None if studentised is None else series(studentised, "rstudent"),
        failed=tuple(label for label, ok in zip(units.labels, deleted.ok, strict=True) if not ok),
    )


def _summed(model: WorkingModel, units: Clusters) -> FloatArray:
    return group_leverage(model, units.codes, units.n_clusters)


def _cooks_fixed(covariance: FloatArray, change: FloatArray) -> FloatArray:
    U, p = change.shape
    if p == 0:
        return np.zeros(U)
    half = np.linalg.solve(np.linalg.cholesky(covariance), change.T)
    # lme4's factor; it is not positive where there are no more units than coefficients.
    factor = 1.0 / p if p >= U else (U - p) / (U * p)
    out: FloatArray = factor * np.einsum("pu,pu->u", half, half)
    return out


def _cooks_rows(model: WorkingModel) -> FloatArray:
    """e^2 h / (p (1 - h)^2) with e^2 = (P y)^2 / w over the scale; the same as from the residuals."""
    rest = model.projection_diagonal / model.w
    p = max(model.X.shape[1], 1)
    square = model.residual**2 / model.w / model.sigma**2
    with np.errstate(divide="ignore", invalid="ignore"):
        out: FloatArray = square * (1.0 - rest) / (p * rest**2)
    return np.where(rest > 1e-9, out, np.nan)
