"""Summaries, tables and plots of a fitted model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from numpy.typing import NDArray

from lme4py.arguments import speaks_throughout
from lme4py.inference.overview.slim import slim_fit
from lme4py.report.summaries import maketables
from lme4py.report.summaries import summary as summary_report
from lme4py.report.summaries import tidy as tidy_report
from lme4py.report.summaries.augment import augment
from lme4py.report.summaries.stata import stata_tables
from lme4py.results.refits import RefitMethods
from lme4py.tables.shown import Summary
from lme4py.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lme4py.fits.method import Ddf
    from lme4py.results.options import IntervalMethod, PlotKind

__all__ = ["ReportMethods"]


@speaks_throughout
class ReportMethods(RefitMethods):
    """Methods that hand the fit to the functions of `report`."""

    def _tables(self, ddf: str | None) -> list[Table]:
        if self.fit.design.conventions.stata:
            return stata_tables(self.fit, ddf)
        return self._plain_tables(ddf)

    def _plain_tables(self, ddf: str | None) -> list[Table]:
        return summary_report.summary_tables(self.fit, ddf)

    def summary(self, ddf: Ddf | None = None) -> Summary:
        """The result as text that a notebook shows as tables.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom of the tests of the fixed effects; None is the default of the model.

        Returns
        -------
        Summary
            A `str` with ``to_latex(caption=, label=)``, ``to_markdown()`` and ``to_html()``.
        """
        return Summary(self._tables(ddf))

    def to_markdown(self, ddf: Ddf | None = None) -> str:
        """The summary as Markdown.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            As in `summary`.

        Returns
        -------
        str
        """
        return self.summary(ddf).to_markdown()

    def to_latex(self, ddf: Ddf | None = None, caption: str | None = None, label: str | None = None) -> str:
        """The summary as LaTeX tables with booktabs rules.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            As in `summary`.
        caption, label : str, optional
            Put the tables into a floating ``table`` with this caption and label.

        Returns
        -------
        str
        """
        return self.summary(ddf).to_latex(caption, label)

    def to_dict(self, random_effects: bool = False) -> dict[str, Any]:
        """The result as plain Python values; the conditional modes too when `random_effects` is true.

        Parameters
        ----------
        random_effects : bool

        Returns
        -------
        dict
        """
        return tidy_report.to_dict(self.fit, random_effects)

    def to_json(self, random_effects: bool = False, indent: int | None = 2) -> str:
        """The result as JSON; numbers that are not finite become null.

        Parameters
        ----------
        random_effects : bool
            The conditional modes too.
        indent : int, optional
            Spaces of each level; None writes one line.

        Returns
        -------
        str
        """
        return json.dumps(self.to_dict(random_effects), indent=indent, ensure_ascii=False, allow_nan=False)

    def tidy(
        self,
        ddf: Ddf | None = None,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        conf_int: bool = False,
        conf_level: float | None = None,
        conf_method: IntervalMethod = "wald",
        scales: Literal["sdcor", "vcov"] = "sdcor",
        exponentiate: bool = False,
    ) -> pd.DataFrame:
        """One row per parameter: effect, group, term, estimate, std_error, statistic, p_value.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Of the tests and limits of the fixed effects; None is `default_ddf`.
        effects : str or sequence of {"fixed", "ran_pars", "ran_vals", "ran_coefs"}
            Fixed effects, standard deviations and correlations, conditional modes, coefficients of each level; the last
            two come with the column level.
        conf_int : bool
            Add conf_low and conf_high.
        conf_level : float, optional
            0.95 when not given, or that of the keyword front door.
        conf_method : {"wald", "profile", "boot"}
        scales : {"sdcor", "vcov"}
            `ran_pars` as standard deviations and correlations, or as variances and covariances.
        exponentiate : bool
            exp of the fixed effects (odds ratios, rate ratios).

        Returns
        -------
        DataFrame
        """
        return tidy_report.tidy(self.fit, ddf, effects, conf_int, conf_level, conf_method, scales, exponentiate)

    def glance(self) -> pd.DataFrame:
        """One row for the whole model: sizes, sigma, criterion, log-likelihood, AIC, BIC, convergence.

        Returns
        -------
        DataFrame, one row
        """
        return tidy_report.glance(self.fit)

    def augment(
        self, data: Any = None, newdata: Any = None, prefix: str = "", leverage: bool | None = None
    ) -> pd.DataFrame:
        """The rows of the fit with fitted, resid, hat, cooksd, fixed, mu, offset, weights, ... beside them.

        Parameters
        ----------
        data : data frame, optional
            The training data; without it come the columns that the formula uses.
        newdata : data frame, optional
            Other data, which get fitted, fixed and mu only.
        prefix : str
            Put before the new names; ``"."`` gives broom's own.
        leverage : bool, optional
            Add hat and cooksd; None adds them to fits of up to 20,000 rows.

        Returns
        -------
        DataFrame
        """
        return augment(self.fit, data, newdata, prefix, leverage)

    def slim(self) -> Self:
        """The same result without anything that grows with the number of rows, for storing and deploying.

        It prints, predicts new data and gives estimates, random effects and Wald intervals; what needs rows raises an
        error that says so.

        Returns
        -------
        MixedResult or MEGLMResult
        """
        return type(self)(slim_fit(self.fit))

    def plot(self, kind: PlotKind = "caterpillar", variable: Any = None, **kw: Any) -> Axes | NDArray[Any]:
        """Draw a plot (needs matplotlib); the same arguments to `plot_data` give its numbers.

        Parameters
        ----------
        kind : {"caterpillar", "residuals", "qq", "profile", "fitted", "shrinkage", "effect", "coef", "residual_panel"}
        variable : str or sequence of str, optional
            What to draw: a random effect ("Days"; with several grouping factors "Intercept|Subject") for caterpillar
            (the random intercept when not given, "all" for every effect), qq and shrinkage; parameters for profile; a
            variable of the data for fitted and effect.
        **kw
            ``ax``, ``figsize``, and the options of the kind; see `lme4py.report.plots.plots`.

        Returns
        -------
        matplotlib Axes, or an array of them for a plot of several panels
        """
        from lme4py.report.plots.plots import plot

        return plot(self.fit, kind, variable, **kw)

    def plot_data(self, kind: PlotKind = "caterpillar", variable: Any = None, **kw: Any) -> pd.DataFrame:
        """The numbers that `plot` draws, as a data frame.

        Parameters
        ----------
        kind, variable, **kw
            As in `plot`.

        Returns
        -------
        DataFrame
        """
        from lme4py.report.plots.plots import plot_data

        return plot_data(self.fit, kind, variable, **kw)

    # --- for packages that make tables ----------------------------------------------------------------------
    # maketables knows results by statsmodels' names first, and by the names of its own plug-in protocol.

    @property
    def nobs(self) -> int:
        """`n_obs` by statsmodels' name."""
        return self.fit.design.n_obs

    @property
    def llf(self) -> float:
        """`log_likelihood` by statsmodels' name."""
        return self.fit.log_likelihood

    @property
    def endog_names(self) -> str:
        """Name of the response, by statsmodels' name."""
        return self.fit.design.response_name

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        return maketables.coefficient_frame(self.fit)

    @property
    def __maketables_depvar__(self) -> str:
        return self.fit.design.response_name

    @property
    def __maketables_fixef_string__(self) -> None:
        return None

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return maketables.statistic_labels(self.fit)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return maketables.default_statistics(self.fit)

    def __maketables_stat__(self, key: str) -> Any:
        return maketables.statistic(self.fit, key)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return self.summary().to_html()
