"""The result of a linear mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lme4py.docstrings import carries
from lme4py.inference.estimates import residuals
from lme4py.inference.shares import heterogeneity
from lme4py.results.reports import ReportMethods

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MixedResult"]


class MixedResult(ReportMethods):
    """A fitted linear mixed model.

    Parameters
    ----------
    fit : Fit
        The frozen numbers of the fit.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> result = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    >>> round(result.sigma, 2), result.n_groups
    (49.51, {'Batch': 6})
    >>> result.ranef().round(1).T
    Batch         A    B     C     D     E     F
    Intercept -17.6  0.4  28.6 -23.1  56.7 -45.0
    """

    @property
    def family(self) -> str:
        """Name of the response distribution: "gaussian"."""
        return "gaussian"

    @property
    def link(self) -> str:
        """Name of the link function: "identity"."""
        return "identity"

    @property
    def reml(self) -> bool:
        """True when fitted by restricted maximum likelihood."""
        return self.fit.reml

    @carries(residuals.residual_matrix)
    def residual_covariance(self, stratum: str | None = None, *, subject: Any = None) -> pd.DataFrame:
        return residuals.residual_matrix(self.fit, stratum, subject=subject)

    @carries(residuals.residual_matrix)
    def residual_correlation(self, stratum: str | None = None, *, subject: Any = None) -> pd.DataFrame:
        """Correlations of the residuals of a subject by visit."""
        return residuals.residual_matrix(self.fit, stratum, True, subject)

    @carries(residuals.residual_table)
    def residual_table(self, alpha: float | None = None) -> pd.DataFrame:
        return residuals.residual_table(self.fit, alpha)

    @carries(heterogeneity.heterogeneity)
    def heterogeneity(self, alpha: float = 0.05) -> heterogeneity.Heterogeneity:
        return heterogeneity.heterogeneity(self.fit, alpha)

    def __repr__(self) -> str:
        method = "REML" if self.reml else "ML"
        return f"<MixedResult: {self.formula}; {method}, {self.n_obs} rows, criterion {self.criterion:.2f}>"
