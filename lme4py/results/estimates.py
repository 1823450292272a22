"""Estimates of a fitted model: fixed effects, their errors and intervals, variances, random effects, shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lme4py.arguments import speaks_throughout
from lme4py.inference.estimates import coefficients, random_effects
from lme4py.inference.estimates.variance_errors import variance_table
from lme4py.inference.overview.intervals import intervals
from lme4py.inference.shares.r2 import r_squared
from lme4py.results.base import FittedModel

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.clusters import ClusterChoice
    from lme4py.inference.shares.icc import ICCResult
    from lme4py.results.options import BootInterval, Ddf, IntervalMethod, Robust, VarianceMethod

__all__ = ["EstimateMethods"]


@speaks_throughout
class EstimateMethods(FittedModel):
    """What the fit estimates, with standard errors and intervals."""

    @property
    def params(self) -> pd.Series[float]:
        """Fixed-effects estimates, shape (p,)."""
        return coefficients.estimates(self.fit)

    fixed_effects = params

    @property
    def bse(self) -> pd.Series[float]:
        """Standard errors of the fixed effects, shape (p,)."""
        return coefficients.standard_errors(self.fit)

    @property
    def tvalues(self) -> pd.Series[float]:
        """Estimates divided by their standard errors, shape (p,)."""
        return self.coef_table()["statistic"].rename("tvalue")

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p-values of `coef_table`, shape (p,)."""
        return self.coef_table()["p_value"].rename("pvalue")

    def cov_params(self, type: Robust | None = None, cluster: ClusterChoice = None) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, shape (p, p).

        Parameters
        ----------
        type : {None, "CR0", "CR1", "CR2", "CR3"}
            None is the model's own; the others are cluster-robust (sandwich) ones. Linear models have all of
            clubSandwich's; generalised ones "CR0" and "CR1" (Stata's vce(robust) and vce(cluster)).
        cluster : str, array of shape (n,), or None
            A grouping factor, or labels of the rows; None takes the outermost grouping factor.

        Returns
        -------
        DataFrame, shape (p, p)
        """
        return coefficients.covariance_frame(self.fit, type, cluster)

    def coef_table(
        self, ddf: Ddf | None = None, vcov: Robust | None = None, cluster: ClusterChoice = None
    ) -> pd.DataFrame:
        """Table estimate, std_error, df, statistic, p_value of the fixed effects.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom; None is `default_ddf`.
        vcov : {None, "CR0", "CR1", "CR2", "CR3"}
            Cluster-robust standard errors; linear models then have Satterthwaite's degrees of freedom of this
            covariance where `ddf` is not given.
        cluster : str, array of shape (n,), or None
            Clusters of a robust covariance; None takes the outermost grouping factor.

        Returns
        -------
        DataFrame
            One row per fixed effect.
        """
        return coefficients.coef_table(self.fit, ddf, vcov, cluster)

    def conf_int(
        self,
        alpha: float | None = None,
        method: IntervalMethod = "wald",
        parm: str | Sequence[str] = "fixed",
        ddf: Ddf | None = None,
        vcov: Robust | None = None,
        cluster: ClusterChoice = None,
        *,
        n_boot: int | None = None,
        seed: int | None = None,
        type: BootInterval | None = None,
        n_jobs: int | None = 1,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Confidence limits lower, upper.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; 0.05 when not given, or that of the keyword front door.
        method : {"wald", "profile", "boot"}
            Estimate plus and minus a quantile times the standard error (of standard deviations on the log scale, of
            correlations on that of Fisher's z, both normal); profile likelihood (REML fits by ML, as lme4); parametric
            bootstrap.
        parm : "fixed", "random", "all", or names
            Names as in `profile`: "Days", "sd(Intercept | Subject)", "cor(Intercept, Days | Subject)", "sigma"; of
            the keyword door "sd(_cons)", "corr(_cons,Days)", "sd(Residual)". Each door understands the other's.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Quantiles of t with these degrees of freedom for the fixed effects; None is `default_ddf`, as in
            `coef_table`, so that an interval excludes zero where the p-value is below alpha.
        vcov, cluster
            A cluster-robust covariance, as in `coef_table`.
        n_boot, seed, n_jobs, progress
            Of the bootstrap (`n` of `bootstrap` is `n_boot`; 1000 when not given): the same seed gives the same limits
            for every number of processes.
        type : {None, "percentile", "basic", "bca", "normal"}
            Kind of bootstrap interval; None is "percentile".

        Returns
        -------
        DataFrame
            Columns lower, upper; one row per parameter.
        """
        return intervals(
            self.fit,
            alpha,
            method,
            parm,
            ddf,
            n_boot=n_boot,
            seed=seed,
            type=type,
            n_jobs=n_jobs,
            progress=progress,
            vcov=vcov,
            cluster=cluster,
        )

    def ranef(self, conditional_se: bool = False, include_fixed: bool = False) -> Any:
        """Conditional modes of the random effects.

        Parameters
        ----------
        conditional_se : bool
            Return the pair (modes, conditional standard deviations).
        include_fixed : bool
            Count the uncertainty of the fixed effects in the standard deviations (Stata's ``reses``); False takes the
            fixed effects as known (lme4's ``condVar``).

        Returns
        -------
        DataFrame, or dict factor -> DataFrame when there are several grouping factors; or a pair of them
            Rows are levels, columns are random effects.
        """
        modes = random_effects.one_or_dict(random_effects.conditional_modes(self.fit))
        if not conditional_se:
            return modes
        return modes, random_effects.one_or_dict(random_effects.conditional_sds(self.fit, include_fixed))

    @property
    def random_effects(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    @property
    def blups(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    def coef(self) -> Any:
        """Fixed effects plus conditional modes for each level; shaped as ``ranef()``.

        Returns
        -------
        DataFrame, or dict factor -> DataFrame when there are several grouping factors
        """
        return random_effects.one_or_dict(random_effects.coef(self.fit))

    def variance_table(self, alpha: float | None = None) -> pd.DataFrame:
        """Variances and covariances with standard errors and limits, as Stata prints them.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.

        Returns
        -------
        DataFrame
            One row per variance or covariance.
        """
        return variance_table(self.fit, alpha)

    def r_squared(self, variance: VarianceMethod = "theoretical") -> dict[str, float]:
        """Nakagawa's R squared: marginal, conditional, and the variances var_fixed, var_random, var_residual.

        Parameters
        ----------
        variance : {"theoretical", "lognormal", "trigamma", "delta"}
            That of one observation of a generalised model on the link scale.

        Returns
        -------
        dict of str to float
        """
        return asdict(r_squared(self.fit, variance))

    def icc(self, component: str = "_cons", alpha: float | None = None, **kw: Any) -> ICCResult:
        """Intraclass correlation; see `lme4py.icc`.

        Parameters
        ----------
        component : str
            "_cons"; with several grouping factors "_cons|g" or "g"; "all" for the share of all random effects.
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.
        **kw
            `n_boot`, `seed`, `at`, `adjusted`, `variance`, `n_jobs`.

        Returns
        -------
        ICCResult
        """
        from lme4py.inference.shares.icc import icc

        return icc(self.fit, component, alpha, **kw)

    def icc_table(self, alpha: float | None = None, **kw: Any) -> pd.DataFrame:
        """Intraclass correlations of all grouping factors: component, estimate, se, ci_lower, ci_upper.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.
        **kw
            As in `icc`.

        Returns
        -------
        DataFrame
            One row for each grouping factor.
        """
        from lme4py.inference.shares.icc import icc_table

        return icc_table(self.fit, alpha, **kw)
