"""Estimates, tests, intervals and resampling of a fitted model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from lme4py.inference.bootstrap.bootstrap import BootstrapResult, bootstrap
from lme4py.inference.estimates import coefficients
from lme4py.inference.estimates.intervals import intervals
from lme4py.inference.lrt import lrt
from lme4py.inference.lrt.lrt import LRTestResult
from lme4py.inference.profile.profile import Profile, profile
from lme4py.inference.shares.r2 import r_squared
from lme4py.inference.uncertainty.variance_errors import variance_table
from lme4py.results.base import FittedModel

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.inference.shares.icc import ICCResult
    from lme4py.inference.uncertainty.clusters import ClusterChoice

__all__ = ["InferenceMethods"]


class InferenceMethods(FittedModel):
    """Methods that hand the fit to the functions of `inference`."""

    # --- fixed effects --------------------------------------------------------------------------------------

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

    def cov_params(self, type: str | None = None, cluster: ClusterChoice = None) -> pd.DataFrame:
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
        self, ddf: str | None = None, vcov: str | None = None, cluster: ClusterChoice = None
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

    def anova(self, type: Any = 3, ddf: Any = None, *models: FittedModel) -> pd.DataFrame:
        """F tests of the terms: sum_sq, mean_sq, num_df, den_df, F, p_value.

        With other results, ``fit.anova(fit2, ...)``, the table of likelihood-ratio tests between them; REML fits are
        refitted with ML first, which ``attrs["note"]`` of the table says.

        Parameters
        ----------
        type : {1, 2, 3, "sequential", "car-2", "car-3"}
            1, 2 and 3 as in SAS and R's lmerTest: each term adjusted for those before it; for those that do not
            contain it; hypotheses that do not depend on the coding of the factors. "sequential" is the table of
            R's lme4; "car-2" and "car-3" are those of R's car. They mean the same for every kind of model; see `anova`.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            None is `default_ddf`.

        Returns
        -------
        DataFrame
            One row per term, or one per model.
        """
        from lme4py.inference.tests.anova import anova_table

        others = [model for model in (type, ddf, *models) if isinstance(model, FittedModel)]
        if others:
            return lrt.likelihood_table([self, *others])
        return anova_table(self.fit, type, ddf)

    def ranova(self) -> pd.DataFrame:
        """Likelihood-ratio tests of leaving out each random effect.

        Returns
        -------
        DataFrame
            One row per random effect, after that of the model itself.
        """
        from lme4py.inference.lrt.ranova import ranova

        return ranova(self.fit)

    def lrtest_no_random(self, **kw: Any) -> LRTestResult:
        """Likelihood-ratio test against the linear model without random effects; for the options see `lrtest`.

        Parameters
        ----------
        **kw
            `boundary`, `method`, `n_sim`, `seed`.

        Returns
        -------
        LRTestResult
        """
        return lrt.lrtest(None, self, **kw)

    def contest(
        self,
        L: Any,
        ddf: str | None = None,
        value: float | ArrayLike = 0.0,
        joint: bool = True,
        vcov: str | None = None,
        cluster: ClusterChoice = None,
    ) -> pd.DataFrame:
        """F test of ``L beta = value``, or a t test of each row of L where `joint` is false.

        Parameters
        ----------
        L : str, sequence of str, or array of shape (r, p)
            Coefficients, or a matrix with one column for each of them.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            None is `default_ddf`; with a robust covariance "satterthwaite".
        value : float or array of shape (r,)
        joint : bool
        vcov, cluster
            A cluster-robust covariance, as in `coef_table`.

        Returns
        -------
        DataFrame
            One row, or one for each row of L where `joint` is false.
        """
        from lme4py.inference.tests.anova import contest

        return contest(self.fit, L, ddf, value, joint, vcov, cluster)

    def conf_int(
        self,
        alpha: float | None = None,
        method: str = "wald",
        parm: str | Sequence[str] = "fixed",
        ddf: str | None = None,
        vcov: str | None = None,
        cluster: ClusterChoice = None,
        *,
        n_boot: int | None = None,
        seed: int | None = None,
        type: str | None = None,
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
            Names as in `profile`: "Days", "sd(_cons)", "corr(_cons,Days)", "sd(Residual)".
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

    def wald_test(
        self,
        restrictions: Any,
        value: float | ArrayLike = 0.0,
        vcov: str | None = None,
        cluster: ClusterChoice = None,
    ) -> dict[str, float]:
        """Joint Wald chi-square test of ``R beta = value``.

        Parameters
        ----------
        restrictions : str, sequence of str, or array of shape (r, p)
            Coefficients tested against `value`, or the matrix R.
        value : float or array of shape (r,)
        vcov, cluster
            A cluster-robust covariance, as in `coef_table`.

        Returns
        -------
        dict
            chi2, df, p_value.
        """
        return coefficients.wald_test(self.fit, restrictions, value, vcov, cluster)

    # --- resampling and profile -----------------------------------------------------------------------------

    def bootstrap(
        self,
        n: int = 1000,
        func: Callable[[Any], Any] | None = None,
        seed: int | None = None,
        n_jobs: int | None = 1,
        progress: bool | None = None,
        **kw: Any,
    ) -> BootstrapResult:
        """Bootstrap statistics of the fit.

        Parameters
        ----------
        n : int
            Number of replicates.
        func : callable, optional
            From a result to a number, an array, a dict or a Series; None takes all parameters and is much faster.
        seed : int, optional
            The same seed gives the same numbers for every `n_jobs`.
        n_jobs : int or None
            Processes, -1 for all processors; None leaves it to ``joblib.parallel_config``.
        progress : bool, optional
            Show a progress bar; None shows one on a terminal.
        **kw
            ``type="parametric"`` (or "semiparametric", linear models only, or "cases") and ``group``, the factor whose
            levels are drawn.

        Returns
        -------
        BootstrapResult
        """
        return bootstrap(self.fit, n, func, seed, n_jobs, progress, wrap=type(self), **kw)

    def profile(self, parm: str | Sequence[str] = "all", alpha: float | None = 0.01) -> Profile:
        """Profile likelihood of the parameters, up to the limits of intervals of level 1 - alpha.

        Parameters
        ----------
        parm : "fixed", "random", "all", or names
        alpha : float or None
            None grows the profiles only when intervals are asked for.

        Returns
        -------
        Profile
        """
        return profile(self.fit, parm, alpha)

    def r_squared(self, variance: str = "theoretical") -> dict[str, float]:
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
