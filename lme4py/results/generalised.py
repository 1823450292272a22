"""The result of a generalised linear mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lme4py.arguments import speaks_throughout
from lme4py.docstrings import carries
from lme4py.inference.diagnostics.residuals import residual_series
from lme4py.inference.estimates.coefficients import ratios
from lme4py.inference.estimates.dispersion import family_params, shown_dispersion
from lme4py.inference.lrt.proportional import proportional_odds
from lme4py.inference.prediction import ordinal
from lme4py.report.summaries import generalised as report
from lme4py.results.reports import ReportMethods
from lme4py.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.engine.generalised.integrals.integral import IntegralCheck
    from lme4py.fits.generalised.fit import GeneralisedFit
    from lme4py.results.options import ResidualType

__all__ = ["MEGLMResult"]


@speaks_throughout
class MEGLMResult(ReportMethods):
    """A fitted generalised linear mixed model.

    Parameters
    ----------
    fit : GeneralisedFit
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
        """The frozen numbers that every method is computed from, a `GeneralisedFit`."""
        return self._fit

    @property
    def _glmm(self) -> GeneralisedFit:
        fit: GeneralisedFit = self._fit
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
    def dispersion(self) -> float | None:
        """Dispersion parameter: phi of gamma and inverse Gaussian, theta of NB-2, sigma squared; 1 without one.

        Of the keyword front door, as in Stata: alpha = 1 / theta of NB-2, and None without one.
        """
        found = shown_dispersion(self._glmm)
        if found is None:
            return None if self.fit.conventions.stata else 1.0
        return found.estimate

    @property
    def dispersion_se(self) -> float | None:
        """Standard error of `dispersion` by the delta method; None without one."""
        found = shown_dispersion(self._glmm)
        return None if found is None else found.std_error

    @property
    def family_params(self) -> dict[str, float]:
        """Parameters of the family beside the dispersion: the power of tweedie, the degrees of freedom of t.

        Examples
        --------
        >>> from lme4py import glmer, load_dataset
        >>> result = glmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), family="t")
        >>> round(result.family_params["df"], 2)
        2.9
        """
        return family_params(self._glmm)

    @property
    def laplace_error(self) -> float | None:
        """Change of -2 log-likelihood at the estimates under quadrature; None where it was not computed."""
        return self._glmm.laplace_error

    @property
    def integral_check(self) -> IntegralCheck:
        """The integral over the random effects compared with a finer rule at the estimates.

        Its `change` is that of the log-likelihood, its `shift` the largest move of an estimate in standard errors, and
        `enough` a number of points that is enough. Made with the fit where ``nAGQ > 1``, and when it is first asked for
        where ``nAGQ = 1``.

        Examples
        --------
        >>> from lme4py import glmer, load_dataset
        >>> result = glmer("use ~ age + urban + (1 | district)", load_dataset("Contraception"))
        >>> round(result.integral_check.change, 2), round(result.integral_check.shift, 2)
        (0.13, 0.04)
        """
        return self._glmm.integral_check

    # --- fixed effects --------------------------------------------------------------------------------------

    @property
    def tvalues(self) -> pd.Series[float]:
        """z values: estimates divided by their standard errors, shape (p,)."""
        return self.coef_table()["statistic"].rename("zvalue")

    zvalues = tvalues

    def odds_ratios(self, alpha: float | None = None) -> pd.DataFrame:
        """exp of the fixed effects with confidence limits (logit link; binomial family or ordered categories).

        Of ordered categories: odds of a category above any threshold.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.

        Returns
        -------
        DataFrame
            Columns odds_ratio, lower, upper.
        """
        given = self._glmm.family.ratio == "odds_ratio"
        self._needs("odds_ratios", given, "binomial family or ordered categories, logit link")
        return ratios(self._glmm, alpha, "odds_ratio")

    def relative_risk_ratios(self, alpha: float | None = None) -> pd.DataFrame:
        """exp of the coefficients of unordered categories with confidence limits, as Stata's ``mlogit, rrr``.

        A coefficient of category k multiplies P(Y = k) / P(Y = baseline) by its exponential: what `odds_ratios` gives,
        by Stata's name.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.

        Returns
        -------
        DataFrame
            Columns rrr, lower, upper.

        Raises
        ------
        OptionError
            A model of another family.
        """
        self._needs("relative_risk_ratios", self._glmm.family.kind == "unordered", "multinomial family")
        return ratios(self._glmm, alpha, "rrr")

    def incidence_rate_ratios(self, alpha: float | None = None) -> pd.DataFrame:
        """exp of the fixed effects with confidence limits (count families with the log link).

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.

        Returns
        -------
        DataFrame
            Columns rate_ratio, lower, upper.
        """
        counts = self._glmm.family.ratio == "rate_ratio"
        self._needs("incidence_rate_ratios", counts, "poisson or negative binomial family, log link")
        return ratios(self._glmm, alpha, "rate_ratio")

    def _needs(self, method: str, given: bool, what: str) -> None:
        from lme4py.errors import OptionError

        if not given:
            raise OptionError(f"{method}() needs the {what}; this model is {self.family} with the {self.link} link.")

    # --- ordered categories -------------------------------------------------------------------------------------

    @property
    def thresholds(self) -> pd.Series[float] | None:
        """Thresholds of ordered categories, ``1|2``, ``2|3``, ...: P(Y <= k) = F(threshold - eta); None for others."""
        return ordinal.thresholds(self._glmm) if self._glmm.thresholds is not None else None

    @property
    def thresholds_se(self) -> pd.Series[float] | None:
        """Standard errors of `thresholds`; None for models that are not ordinal."""
        return ordinal.thresholds_se(self._glmm) if self._glmm.thresholds is not None else None

    def threshold_parameters(self) -> pd.DataFrame:
        """Free parameters of the thresholds with standard errors: central.1, spacing.1 where they have a structure.

        Returns
        -------
        DataFrame
            Columns estimate, std_error.
        """
        return ordinal.threshold_parameters(self._glmm)

    @property
    def categories(self) -> tuple[Any, ...]:
        """Ordered categories, lowest first; () for other families."""
        return self._glmm.categories

    @carries(proportional_odds)
    def proportional_odds(self, test: Literal["lr", "score"] = "lr") -> pd.DataFrame:
        return proportional_odds(self.fit, test)

    # --- rows ----------------------------------------------------------------------------

    @carries(residual_series)
    def residuals(self, type: ResidualType = "deviance", seed: int | None = None) -> pd.Series[float]:
        return super().residuals(type, seed)

    # --- reports --------------------------------------------------------------------------------------------

    def _plain_tables(self, ddf: str | None) -> list[Table]:
        return report.summary_tables(self._glmm, ddf)

    def __repr__(self) -> str:
        return (
            f"<MEGLMResult: {self.formula}; {report.family_line(self._glmm)}, {report.approximation(self._glmm)}, "
            f"{self.n_obs} rows, log-likelihood {self.log_likelihood:.2f}>"
        )
