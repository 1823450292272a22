"""The result of a linear mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lme4py.inference.estimates import residuals
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

    def residual_covariance(self, stratum: str | None = None) -> pd.DataFrame:
        """Covariance of the residuals of a subject by visit, where the variance function is 1 and weights are 1.

        Parameters
        ----------
        stratum : str, optional
            Of ``us(visit | arm / id)`` the arm that is meant.

        Returns
        -------
        DataFrame, shape (k, k)

        Raises
        ------
        OptionError
            The residuals are independent, or their structure has no list of positions (times, coordinates).
        """
        return residuals.residual_matrix(self.fit, stratum)

    def residual_correlation(self, stratum: str | None = None) -> pd.DataFrame:
        """Correlations of the residuals of a subject by visit; as `residual_covariance`.

        Parameters
        ----------
        stratum : str, optional
            Of ``us(visit | arm / id)`` the arm that is meant.

        Returns
        -------
        DataFrame, shape (k, k)
        """
        return residuals.residual_matrix(self.fit, stratum, correlation=True)

    def residual_table(self, alpha: float | None = None) -> pd.DataFrame:
        """Parameters of correlated or unequal residuals with standard errors and limits.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; that of the fit when not given.

        Returns
        -------
        DataFrame
            Columns stratum, parameter, estimate, std_error, lower, upper; limits by the normal distribution on the
            scale of logarithms (standard deviations, ranges) and of Fisher's z (correlations).
        """
        return residuals.residual_table(self.fit, alpha)

    def __repr__(self) -> str:
        method = "REML" if self.reml else "ML"
        return f"<MixedResult: {self.formula}; {method}, {self.n_obs} rows, criterion {self.criterion:.2f}>"
