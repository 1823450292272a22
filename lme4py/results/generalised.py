"""The result of a generalised linear mixed model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lme4py.inference import coefficients
from lme4py.inference import glmm as numbers
from lme4py.report import glmm_summary as report
from lme4py.report.table import Table
from lme4py.results.inference import InferenceMethods
from lme4py.results.reports import ReportMethods
from lme4py.results.rows import RowMethods

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.glmm_fit import GlmmFit

__all__ = ["MEGLMResult"]


class MEGLMResult(InferenceMethods, RowMethods, ReportMethods):
    """A fitted generalised linear mixed model.

    Parameters
    ----------
    fit : GlmmFit
        The frozen numbers of the fit.

    Examples
    --------
    >>> from lme4py import glmer, load_dataset
    >>> cbpp = load_dataset("cbpp")
    >>> result = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp)
    >>> result.params.round(3).to_dict()
    {'Intercept': -1.399, 'period[T.2]': -0.992, 'period[T.3]': -1.129, 'period[T.4]': -1.58}
    >>> round(result.log_likelihood, 4)
    -92.0263
    >>> result.odds_ratios().round(2).loc["period[T.2]"].tolist()
    [0.37, 0.2, 0.68]
    """

    @property
    def fit(self) -> Any:
        """The frozen numbers that every method is computed from, a `GlmmFit`."""
        return self._fit

    @property
    def _glmm(self) -> GlmmFit:
        fit: GlmmFit = self._fit
        return fit

    # --- the model ------------------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """Name of the response distribution."""
        return self._glmm.family.name

    @property
    def link(self) -> str:
        """Name of the link function."""
        return self._glmm.family.link.name

    @property
    def nAGQ(self) -> int:
        """0, 1 (Laplace), or the number of quadrature points per random effect."""
        return self._glmm.nAGQ

    @property
    def hessian(self) -> str:
        """Weights in the Laplace approximation: "observed" or "expected"."""
        return self._glmm.hessian

    @property
    def dispersion(self) -> float:
        """Dispersion parameter: phi of gamma and inverse Gaussian, theta of NB-2, sigma squared; 1 without one."""
        return self._glmm.dispersion

    @property
    def dispersion_se(self) -> float | None:
        """Standard error of `dispersion` by the delta method; None without one."""
        se = self._glmm.log_dispersion_se
        return None if se is None else self.dispersion * se

    @property
    def laplace_error(self) -> float | None:
        """Change of -2 log-likelihood at the estimates under quadrature; None where it was not computed."""
        return self._glmm.laplace_error

    # --- fixed effects --------------------------------------------------------------------------------------

    @property
    def tvalues(self) -> pd.Series[float]:
        """z values: estimates divided by their standard errors, shape (p,)."""
        return self.coef_table()["statistic"].rename("zvalue")

    zvalues = tvalues

    def odds_ratios(self, alpha: float | None = None) -> pd.DataFrame:
        """exp of the fixed effects with confidence limits (binomial family with the logit link).

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; 0.05 when not given.
        """
        self._needs("odds_ratios", self.family == "binomial" and self.link == "logit", "binomial family, logit link")
        return numbers.ratios(self._glmm, alpha, "odds_ratio")

    def incidence_rate_ratios(self, alpha: float | None = None) -> pd.DataFrame:
        """exp of the fixed effects with confidence limits (count families with the log link).

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; 0.05 when not given.
        """
        counts = self.family in ("poisson", "nbinomial", "nbinomial1") and self.link == "log"
        self._needs("incidence_rate_ratios", counts, "poisson or negative binomial family, log link")
        return numbers.ratios(self._glmm, alpha, "rate_ratio")

    def _needs(self, method: str, given: bool, what: str) -> None:
        from lme4py.errors import OptionError

        if not given:
            raise OptionError(f"{method}() needs the {what}; this model is {self.family} with the {self.link} link.")

    # --- variances ------------------------------------------------------------------------------------------

    @property
    def variance_components(self) -> dict[str, float]:
        """Variances, covariances, correlations: ``var(_cons)``, ``cov(_cons,x)``, ..."""
        return numbers.variance_components(self._glmm)

    def var_corr(self) -> pd.DataFrame:
        """Table group, name1, name2, vcov, sdcor of variances and covariances."""
        return numbers.var_corr(self._glmm)

    # --- rows ----------------------------------------------------------------------------

    @property
    def fittedvalues(self) -> pd.Series[float]:
        """Means (probabilities for the binomial family), random effects included, on the data's own index."""
        return numbers.fitted_values(self._glmm)

    def residuals(self, type: str = "deviance") -> pd.Series[float]:
        """Residuals on the data's own index.

        Parameters
        ----------
        type : {"deviance", "pearson", "response", "working"}
        """
        return numbers.residual_series(self._glmm, type)

    def predict(
        self,
        data: Any = None,
        include_random: bool | Sequence[str] | str = True,
        type: str = "response",
        new_levels: str = "zero",
        interval: str | None = None,
        alpha: float = 0.05,
    ) -> pd.Series[float]:
        """Predictions on the index of `data`.

        Parameters
        ----------
        data : data frame, optional
            New data; the rows of the fit when not given.
        include_random : bool, list of str, or "integrate"
            All random effects, none, those of the named grouping factors, or means averaged over their
            distribution.
        type : {"response", "linear"}
            Means or linear predictors.
        new_levels : {"zero", "error"}
        interval : None
            Intervals are not available in this version.
        alpha : float
        """
        coefficients.check_no_interval(interval, alpha)
        return numbers.predict(self._glmm, data, include_random, type, new_levels)

    # --- reports --------------------------------------------------------------------------------------------

    def _tables(self, ddf: str | None) -> list[Table]:
        coefficients.check_ddf(ddf)
        return report.summary_tables(self._glmm)

    def to_dict(self, random_effects: bool = False) -> dict[str, Any]:
        """The result as plain Python values."""
        return report.to_dict(self._glmm, random_effects)

    def tidy(self, ddf: str | None = None) -> pd.DataFrame:
        """One row per parameter: effect, group, term, estimate, std_error, statistic, p_value."""
        coefficients.check_ddf(ddf)
        return report.tidy(self._glmm)

    def glance(self) -> pd.DataFrame:
        """One row for the whole model."""
        return report.glance(self._glmm)

    def __repr__(self) -> str:
        return (
            f"<MEGLMResult: {self.formula}; {report.family_line(self._glmm)}, {report.approximation(self._glmm)}, "
            f"{self.n_obs} rows, log-likelihood {self.log_likelihood:.2f}>"
        )
