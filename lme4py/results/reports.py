"""Summaries, tables and plots of a fitted model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from numpy.typing import NDArray

from lme4py.arguments import speaks_throughout
from lme4py.data.native import library_of, to_native
from lme4py.docstrings import carries
from lme4py.inference.overview.slim import slim_fit
from lme4py.inference.prediction.lazily import augment_lazily, is_lazy
from lme4py.report.page.page import write_report
from lme4py.report.plots.plots import plot, plot_data
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
    from lme4py.results.options import DataLibrary, IntervalMethod, PlotKind

__all__ = ["ReportMethods"]


@speaks_throughout
class ReportMethods(RefitMethods):
    """Methods that hand the fit to the functions of `report`."""

    def _tables(self, ddf: str | None) -> list[Table]:
        if self.fit.conventions.stata:
            return stata_tables(self.fit, ddf)
        return self._plain_tables(ddf)

    def _plain_tables(self, ddf: str | None) -> list[Table]:
        return summary_report.summary_tables(self.fit, ddf)

    def summary(self, ddf: Ddf | None = None, correlation: bool = False) -> Summary:
        """The result as text that a notebook shows as tables.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom of the tests of the fixed effects; None is the default of the model.
        correlation : bool
            Also the correlations of the estimates of the fixed effects.

        Returns
        -------
        Summary
            A `str` with ``to_latex(caption=, label=)``, ``to_markdown()`` and ``to_html()``.
        """
        tables = self._tables(ddf)
        if correlation:
            # Before the closing sentences.
            tables.insert(len(tables) - 1, summary_report.correlation_table(self.fit))
        return Summary(tables)

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

    @carries(tidy_report.to_dict)
    def to_dict(self, random_effects: bool = False) -> dict[str, Any]:
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

    @carries(tidy_report.tidy)
    def tidy(
        self,
        ddf: Ddf | None = None,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        conf_int: bool = False,
        conf_level: float | None = None,
        conf_method: IntervalMethod = "wald",
        scales: Literal["sdcor", "vcov"] = "sdcor",
        exponentiate: bool = False,
        component: str | None = None,
    ) -> pd.DataFrame:
        return tidy_report.tidy(
            self.fit, ddf, effects, conf_int, conf_level, conf_method, scales, exponentiate, component
        )

    @carries(tidy_report.glance)
    def glance(self) -> pd.DataFrame:
        return tidy_report.glance(self.fit)

    @carries(augment)
    def augment(
        self, data: Any = None, newdata: Any = None, prefix: str = "", leverage: bool | None = None
    ) -> pd.DataFrame:
        if data is None and newdata is None and is_lazy(self.fit):
            lazy: pd.DataFrame = augment_lazily(self.fit, prefix)
            return lazy
        return augment(self.fit, data, newdata, prefix, leverage)

    def to_native(self, table: pd.DataFrame | pd.Series[Any], kind: DataLibrary | None = None) -> Any:
        """A table of this result as a frame of the library that the data were of: polars in, polars out.

        Parameters
        ----------
        table : DataFrame or Series
            Such as ``fit.tidy()`` or ``fit.predict(new)``. An index with names or labels becomes the first columns.
        kind : {None, "pandas", "polars", "pyarrow"}
            None is that of the data of the fit; a result that was pickled no longer knows them: pandas.

        Returns
        -------
        DataFrame or Table
        """
        call = getattr(self, "_call", None)
        return to_native(table, (library_of(None if call is None else call.data)) if kind is None else kind)

    @carries(slim_fit)
    def slim(self) -> Self:
        """The same result without anything that grows with the number of rows, for storing and deploying.

        It prints, predicts new data and gives estimates, random effects and Wald intervals; what needs rows raises an
        error that says so.

        Returns
        -------
        MixedResult or MEGLMResult
        """
        return type(self)(slim_fit(self.fit))

    @carries(write_report)
    def report(self, path: str | os.PathLike[str], title: str | None = None, ddf: Ddf | None = None) -> Path:
        return write_report(self.fit, path, self._tables(ddf), title, ddf)

    @carries(plot)
    def plot(self, kind: PlotKind = "caterpillar", variable: Any = None, **kw: Any) -> Axes | NDArray[Any]:
        return plot(self.fit, kind, variable, **kw)

    @carries(plot_data)
    def plot_data(self, kind: PlotKind = "caterpillar", variable: Any = None, **kw: Any) -> pd.DataFrame:
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
