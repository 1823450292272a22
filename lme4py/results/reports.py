"""Summaries, tables and plots of a fitted model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lme4py.report import summary as summary_report
from lme4py.report import tidy as tidy_report
from lme4py.report.html import render_html
from lme4py.report.latex import render_latex
from lme4py.report.markdown import render_markdown
from lme4py.report.table import Table
from lme4py.report.text import render_text
from lme4py.results.base import FittedModel

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["ReportMethods"]


class ReportMethods(FittedModel):
    """Methods that hand the fit to the functions of `report`."""

    def _tables(self, ddf: str | None) -> list[Table]:
        return summary_report.summary_tables(self.fit, ddf or self.default_ddf)

    def summary(self, ddf: str | None = None) -> str:
        """The result as text.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom of the tests of the fixed effects; None is the default of the model.
        """
        return render_text(self._tables(ddf))

    def to_markdown(self, ddf: str | None = None) -> str:
        """The summary as Markdown."""
        return render_markdown(self._tables(ddf))

    def to_latex(self, ddf: str | None = None) -> str:
        """The summary as LaTeX tables with booktabs rules."""
        return render_latex(self._tables(ddf))

    def to_dict(self, random_effects: bool = False) -> dict[str, Any]:
        """The result as plain Python values; the conditional modes too when `random_effects` is true."""
        return tidy_report.to_dict(self.fit, random_effects, self.default_ddf)

    def to_json(self, random_effects: bool = False, indent: int | None = 2) -> str:
        """The result as JSON; numbers that are not finite become null."""
        return json.dumps(self.to_dict(random_effects), indent=indent, ensure_ascii=False, allow_nan=False)

    def tidy(self, ddf: str | None = None) -> pd.DataFrame:
        """One row per parameter: effect, group, term, estimate, std_error, statistic, p_value."""
        return tidy_report.tidy(self.fit, ddf or self.default_ddf)

    def glance(self) -> pd.DataFrame:
        """One row for the whole model: sizes, sigma, criterion, log-likelihood, AIC, BIC, convergence."""
        return tidy_report.glance(self.fit)

    def plot(self, kind: str = "caterpillar", variable: str | None = None, **kw: Any) -> Axes | NDArray[Any]:
        """Draw a diagnostic plot (needs matplotlib).

        Parameters
        ----------
        kind : {"caterpillar", "residuals", "qq"}
        variable : str, optional
            The random effect to draw, as ``"Days"``; with several grouping factors ``"Intercept|Subject"``.
        **kw
            ``ax``, ``figsize``; for the caterpillar plot also ``alpha`` and ``sort``.
        """
        from lme4py.report.plots import plot

        return plot(self.fit, kind, variable, **kw)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return render_html(self._tables(None))
