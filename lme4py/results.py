"""Result objects: thin methods that hand a frozen fit to the functions of `inference` and `report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from lme4py.engine.certificate import Certificate
from lme4py.fit import Fit
from lme4py.inference import coefficients, likelihood, lrt, random_effects, residuals, variance
from lme4py.inference import predict as prediction
from lme4py.inference import refit as refitting
from lme4py.inference import simulate as simulation
from lme4py.inference.bootstrap import BootstrapResult, bootstrap
from lme4py.inference.intervals import intervals
from lme4py.inference.lrt import LRTestResult
from lme4py.inference.profile import Profile, profile
from lme4py.inference.r2 import r_squared
from lme4py.report import summary as summary_report
from lme4py.report import tidy as tidy_report
from lme4py.report.html import render_html
from lme4py.report.latex import render_latex
from lme4py.report.markdown import render_markdown
from lme4py.report.text import render_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["MixedResult"]

FloatArray = NDArray[np.float64]


class MixedResult:
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

    # Degrees of freedom of tables of fixed effects where none are asked for.
    default_ddf = "satterthwaite"

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    @property
    def fit(self) -> Fit:
        """The frozen numbers that every method is computed from."""
        return self._fit

    # --- the model ------------------------------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The formula as it was given."""
        return self.fit.design.formula

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

    @property
    def n_obs(self) -> int:
        """Number of rows used."""
        return self.fit.design.n_obs

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return self.fit.design.n_groups

    @property
    def n_params(self) -> int:
        """Number of estimated parameters: fixed effects, theta and sigma."""
        return self.fit.n_params

    @property
    def df_resid(self) -> int:
        """Number of rows used minus number of parameters."""
        return self.fit.df_resid

    @property
    def model_matrix(self) -> pd.DataFrame:
        """Fixed-effects model matrix X, shape (n, p), on the index of the rows used."""
        import pandas as pd

        design = self.fit.design
        return pd.DataFrame(design.X, index=design.index[design.keep], columns=list(design.x_names))

    @property
    def Zt(self) -> sparse.csr_array:
        """Transposed random-effects model matrix, shape (q, n)."""
        return self.fit.design.Zt

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

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, shape (p, p)."""
        return coefficients.covariance_frame(self.fit)

    def coef_table(self, ddf: str | None = None) -> pd.DataFrame:
        """Table estimate, std_error, df, statistic, p_value of the fixed effects.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom; None is the default of the model: "satterthwaite" for a linear mixed model, else
            "normal".
        """
        return coefficients.coef_table(self.fit, ddf or self.default_ddf)

    def anova(self, type: Any = 3, ddf: Any = "satterthwaite", *models: MixedResult) -> pd.DataFrame:
        """F tests of the terms: sum_sq, mean_sq, num_df, den_df, F, p_value.

        With other results, ``fit.anova(fit2, ...)``, the table of likelihood-ratio tests between them; REML fits are
        refitted with ML first, which ``attrs["note"]`` of the table says.

        Parameters
        ----------
        type : {1, 2, 3}
            1: each term adjusted for those before it; 2: for those that do not contain it; 3: hypotheses that do
            not depend on the coding of the factors.
        ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}
        """
        from lme4py.inference.anova import anova_table

        others = [model for model in (type, ddf, *models) if isinstance(model, MixedResult)]
        if others:
            return lrt.likelihood_table([self, *others])
        return anova_table(self.fit, type, ddf)

    def ranova(self) -> pd.DataFrame:
        """Likelihood-ratio tests of leaving out each random effect."""
        from lme4py.inference.ranova import ranova

        return ranova(self.fit)

    def lrtest_no_random(self, **kw: Any) -> LRTestResult:
        """Likelihood-ratio test against the linear model without random effects; for the options see `lrtest`."""
        return lrt.lrtest(None, self, **kw)

    def contest(
        self, L: Any, ddf: str = "satterthwaite", value: float | ArrayLike = 0.0, joint: bool = True
    ) -> pd.DataFrame:
        """F test of ``L beta = value``, or a t test of each row of L where `joint` is false.

        Parameters
        ----------
        L : str, sequence of str, or array of shape (r, p)
            Coefficients, or a matrix with one column for each of them.
        ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}
        value : float or array of shape (r,)
        joint : bool
        """
        from lme4py.inference.anova import contest

        return contest(self.fit, L, ddf, value, joint)

    def conf_int(
        self,
        alpha: float | None = None,
        method: str = "wald",
        parm: str | Sequence[str] = "fixed",
        ddf: str | None = None,
        **boot: Any,
    ) -> pd.DataFrame:
        """Confidence limits lower, upper.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; 0.05 when not given.
        method : {"wald", "profile", "boot"}
            Normal limits (for standard deviations on the log scale, for correlations on that of Fisher's z); profile
            likelihood (REML fits by ML, as lme4); parametric bootstrap.
        parm : "fixed", "random", "all", or names
            Names as in `profile`: "Days", "sd(_cons)", "corr(_cons,Days)", "sd(Residual)".
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Quantiles of t with these degrees of freedom; None takes normal quantiles, as R's confint does.
        **boot
            ``n_boot=1000``, ``seed=None`` and ``type="percentile"`` (or "basic", "bca", "normal") of the bootstrap.
        """
        return intervals(self.fit, alpha, method, parm, ddf, **boot)

    def wald_test(self, restrictions: Any, value: float | ArrayLike = 0.0) -> dict[str, float]:
        """Joint Wald chi-square test of ``R beta = value``.

        Parameters
        ----------
        restrictions : str, sequence of str, or array of shape (r, p)
            Coefficients tested against `value`, or the matrix R.
        value : float or array of shape (r,)

        Returns
        -------
        dict
            chi2, df, p_value.
        """
        return coefficients.wald_test(self.fit, restrictions, value)

    # --- variances ------------------------------------------------------------------------------------------

    @property
    def theta(self) -> FloatArray:
        """Relative covariance parameters, shape (m,)."""
        return self.fit.theta.copy()

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of a row with weight 1)."""
        return self.fit.sigma

    @property
    def variance_components(self) -> dict[str, float]:
        """Variances, covariances, correlations: ``var(_cons)``, ``cov(_cons,x)``, ..., ``var(Residual)``.

        With several grouping factors the keys end in the factor: ``var(_cons|g)``.
        """
        return variance.variance_components(self.fit)

    def var_corr(self) -> pd.DataFrame:
        """Table group, name1, name2, vcov, sdcor of variances and covariances, as R's VarCorr data frame."""
        return variance.var_corr(self.fit)

    # --- quality of fit -------------------------------------------------------------------------------------

    @property
    def criterion(self) -> float:
        """What was minimised: the REML criterion, or -2 log-likelihood."""
        return self.fit.criterion

    @property
    def log_likelihood(self) -> float:
        """Log-likelihood; for REML fits the restricted one."""
        return self.fit.log_likelihood

    @property
    def deviance(self) -> float:
        """-2 log-likelihood at the estimates; for REML fits the REML criterion."""
        return self.fit.criterion

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return likelihood.aic(self.fit)

    @property
    def bic(self) -> float:
        """Schwarz's information criterion, with n the number of rows used."""
        return likelihood.bic(self.fit)

    @property
    def certificate(self) -> Certificate:
        """What is known about the optimum: gradient, curvature and a verdict in one sentence."""
        return self.fit.certificate

    @property
    def converged(self) -> bool:
        """True when the certificate proves a minimum."""
        return self.fit.certificate.converged

    @property
    def is_singular(self) -> bool:
        """True when a covariance matrix of random effects has no full rank."""
        return self.fit.certificate.is_singular

    @property
    def opt_log(self) -> pd.DataFrame:
        """One row for each evaluation of the criterion."""
        return tidy_report.optimisation_log(self.fit)

    # --- random effects -------------------------------------------------------------------------------------

    def ranef(self, conditional_se: bool = False) -> Any:
        """Conditional modes of the random effects.

        Parameters
        ----------
        conditional_se : bool
            Return the pair (modes, conditional standard deviations).

        Returns
        -------
        DataFrame, or dict factor -> DataFrame when there are several grouping factors; or a pair of them
            Rows are levels, columns are random effects.
        """
        modes = random_effects.one_or_dict(random_effects.conditional_modes(self.fit))
        if not conditional_se:
            return modes
        return modes, random_effects.one_or_dict(random_effects.conditional_sds(self.fit))

    @property
    def random_effects(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    @property
    def blups(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    def coef(self) -> Any:
        """Fixed effects plus conditional modes for each level; shaped as ``ranef()``."""
        return random_effects.one_or_dict(random_effects.coef(self.fit))

    # --- rows -----------------------------------------------------------------------------------------------

    @property
    def fittedvalues(self) -> pd.Series[float]:
        """Fitted values, random effects included, on the data's own index."""
        return residuals.fitted_values(self.fit)

    def residuals(self, type: str = "response") -> pd.Series[float]:
        """Residuals on the data's own index.

        Parameters
        ----------
        type : {"response", "pearson", "scaled", "deviance", "working"}
            Response minus fitted value; times the square root of the weight ("pearson", "deviance"); and
            divided by sigma ("scaled").
        """
        return residuals.residual_series(self.fit, type)

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
            All random effects, none, those of the named grouping factors, or averaged over their distribution
            (in a linear model the same as none).
        type : {"response", "linear"}
        new_levels : {"zero", "error"}
            Levels that were not in the fit contribute nothing, with one warning, or are refused.
        interval : None
            Intervals are not available in this version.
        alpha : float
            One minus the level of the interval.
        """
        coefficients.check_no_interval(interval, alpha)
        return prediction.predict(self.fit, data, include_random, type, new_levels)

    # --- other responses ------------------------------------------------------------------------------------

    def simulate(self, n: int = 1, seed: int | None = None, include_random: bool = False) -> pd.DataFrame:
        """Responses drawn from the model, one column each, with new random effects unless `include_random` is true."""
        return simulation.simulate(self.fit, n, seed, include_random)

    def refit(self, y: ArrayLike) -> MixedResult:
        """The same model fitted to a new response of the rows used, as a new result."""
        return MixedResult(refitting.refit(self.fit, y))

    def bootstrap(
        self,
        n: int = 1000,
        func: Callable[[MixedResult], Any] | None = None,
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
            ``type="parametric"`` (or "semiparametric", "cases") and ``group``, the factor whose levels are drawn.
        """
        return bootstrap(self.fit, n, func, seed, n_jobs, progress, wrap=MixedResult, **kw)

    def profile(self, parm: str | Sequence[str] = "all", alpha: float | None = 0.01) -> Profile:
        """Profile likelihood of the parameters, up to the limits of intervals of level 1 - alpha."""
        return profile(self.fit, parm, alpha)

    def r_squared(self) -> dict[str, float]:
        """Nakagawa's R squared: marginal, conditional, and the variances var_fixed, var_random, var_residual."""
        return asdict(r_squared(self.fit))

    # --- reports --------------------------------------------------------------------------------------------

    def summary(self, ddf: str | None = None) -> str:
        """The result as text.

        Parameters
        ----------
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom of the tests of the fixed effects; None is the default of the model.
        """
        return render_text(summary_report.summary_tables(self.fit, ddf or self.default_ddf))

    def to_markdown(self, ddf: str | None = None) -> str:
        """The summary as Markdown."""
        return render_markdown(summary_report.summary_tables(self.fit, ddf or self.default_ddf))

    def to_latex(self, ddf: str | None = None) -> str:
        """The summary as LaTeX tables with booktabs rules."""
        return render_latex(summary_report.summary_tables(self.fit, ddf or self.default_ddf))

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
        return render_html(summary_report.summary_tables(self.fit, self.default_ddf))

    def __repr__(self) -> str:
        method = "REML" if self.reml else "ML"
        return f"<MixedResult: {self.formula}; {method}, {self.n_obs} rows, criterion {self.criterion:.2f}>"
