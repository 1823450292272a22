"""Estimates of a fitted model: fixed effects, their errors and intervals, variances, random effects, shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lme4py.arguments import speaks_throughout
from lme4py.docstrings import carries
from lme4py.errors import OptionError
from lme4py.inference.estimates import coefficients
from lme4py.inference.estimates import random_effects as modes_of_groups
from lme4py.inference.estimates import smooths as smooths_of_fit
from lme4py.inference.estimates.part_views import part_names
from lme4py.inference.estimates.posterior import posterior_moments
from lme4py.inference.estimates.variance_errors import parameter_covariance, variance_table
from lme4py.inference.overview import components
from lme4py.inference.overview.intervals import intervals
from lme4py.inference.overview.named import named_part
from lme4py.inference.overview.selection import information_criteria
from lme4py.inference.overview.standardised import standardised_coefficients
from lme4py.inference.prediction.given import given_frames
from lme4py.inference.responses.correlations import response_correlations
from lme4py.inference.shares.icc import icc, icc_table
from lme4py.inference.shares.r2 import r_squared
from lme4py.results.base import FittedModel

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.rows.clusters import ClusterChoice
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

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the linear predictors: "conditional", "zero_inflation", "dispersion"."""
        return part_names(self.fit)

    @carries(coefficients.covariance_frame)
    def cov_params(
        self,
        type: Robust | None = None,
        cluster: ClusterChoice = None,
        component: str | None = None,
        parm: str | Sequence[str] = "fixed",
    ) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, shape (p, p), or of other parameters.

        Parameters
        ----------
        component : str, optional
            One of `components`, or "all" for the coefficients of all of them together.
        parm : {"fixed", "random", "all"} or names
            Parameters by the names of `conf_int`: "all" adds standard deviations, correlations and what else the model
            estimates, by the delta method.
        """
        if parm != "fixed":
            if type is not None or cluster is not None or component is not None:
                raise OptionError("parm= is for the covariance of the model itself; leave the other arguments out.")
            return parameter_covariance(self.fit, parm)
        return components.component_covariance(self.fit, type, cluster, component)

    @carries(coefficients.coef_table)
    def coef_table(
        self,
        ddf: Ddf | None = None,
        vcov: Robust | None = None,
        cluster: ClusterChoice = None,
        component: str | None = None,
        dropped: bool = False,
    ) -> pd.DataFrame:
        """Table estimate, std_error, df, statistic, p_value of the fixed effects.

        Parameters
        ----------
        component : str, optional
            One of `components`, or "all", which adds a column; the conditional part when not given.
        dropped : bool
            Rows of NaN, last, for the columns that were left out because they depend on others.

        Examples
        --------
        >>> from lme4py import glmer, load_dataset
        >>> data = load_dataset("Salamanders")
        >>> fit = glmer("count ~ mined + (1 | site)", data, family="poisson", ziformula="~ mined")
        >>> fit.coef_table(component="zero_inflation")["estimate"].round(3).to_dict()
        {'Intercept': 1.139, 'mined[T.no]': -1.736}
        """
        table = components.component_table(self.fit, ddf, vcov, cluster, component)
        if not dropped:
            return table
        if component is not None:
            raise OptionError("dropped=True is for the conditional part; leave component= out.")
        return table.reindex([*table.index, *self.fit.design.dropped])

    @carries(intervals)
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
        component: str | None = None,
    ) -> pd.DataFrame:
        """Confidence limits lower, upper.

        Parameters
        ----------
        component : str, optional
            One of `components`, or "all"; `parm` then names coefficients of that part. The conditional part when not
            given.
        """
        return components.component_intervals(
            self.fit,
            component,
            parm,
            alpha=alpha,
            method=method,
            ddf=ddf,
            n_boot=n_boot,
            seed=seed,
            type=type,
            n_jobs=n_jobs,
            progress=progress,
            vcov=vcov,
            cluster=cluster,
        )

    @carries(standardised_coefficients)
    def standardised(self, ddf: Ddf | None = None, alpha: float | None = None) -> pd.DataFrame:
        return standardised_coefficients(self.fit, ddf, alpha)

    @carries(information_criteria)
    def information_criteria(self) -> pd.Series[float]:
        return information_criteria(self.fit)

    @carries(named_part)
    def part(self, name: str) -> Any:
        return named_part(self.fit, name)

    def ranef_cov(self, include_fixed: bool = False, exact: bool = False) -> dict[str, NDArray[np.float64]]:
        """Conditional covariances of the random effects of every level given the data.

        Parameters
        ----------
        include_fixed : bool
            Count the uncertainty of the fixed effects; False takes them as known (lme4's ``condVar``).
        exact : bool
            As in `ranef`.

        Returns
        -------
        dict factor -> ndarray of shape (J, k, k)
            Levels and effects in the order of `ranef`; NaN between effects of different terms of one factor.
        """
        return modes_of_groups.mode_covariances(self.fit, include_fixed, exact)

    def ranef(
        self,
        conditional_se: bool = False,
        include_fixed: bool = False,
        component: str | None = None,
        reliability: bool = False,
        data: Any = None,
        standardised: bool = False,
        type: Literal["mode", "mean"] = "mode",
        exact: bool = False,
    ) -> Any:
        """Conditional modes of the random effects.

        Parameters
        ----------
        conditional_se : bool
            Return the pair (modes, conditional standard deviations).
        include_fixed : bool
            Count the uncertainty of the fixed effects in the standard deviations (Stata's ``reses``); False takes the
            fixed effects as known (lme4's ``condVar``).
        component : str, optional
            Only the effects in one of `components`, under their own names.
        reliability : bool
            Return the pair (modes, reliabilities): 1 - PEV / variance, with the variance of the prediction error
            (fixed effects estimated) and that of the effect itself, K_ii times the estimate where levels are related.
        data : data frame, optional
            Other rows, with their responses: the modes of their groups given these rows alone, at the estimates of the
            fit (no refit). Standard deviations take the fixed effects as known.
        standardised : bool
            Modes over their own standard deviations, sqrt(Var(b) - PEV): about standard normal where the model is
            right.
        type : {"mode", "mean"}
            "mean": posterior means by quadrature (Stata's ``reffects``), in generalised models with one random-effects
            term; their standard deviations with ``conditional_se=True``. In linear models both are the same.
        exact : bool
            Of crossed effects that were solved iteratively (``control={"block": "iterative"}``): standard deviations
            and reliabilities by an exact factor in tiles, whose time is forecast. Otherwise they are means over random
            probes, and ``attrs["note"]`` of their frames says with which error. Other fits are exact anyway.

        Returns
        -------
        DataFrame, or dict factor -> DataFrame when there are several grouping factors; or a pair of them
            Rows are levels, columns are random effects.
        """
        if type not in ("mode", "mean"):
            raise OptionError(f"type={type!r} is not known; use 'mode' or 'mean'.")
        if type == "mean":
            if include_fixed or reliability or standardised or component is not None or data is not None:
                raise OptionError("type='mean' goes with conditional_se= only; leave the other arguments out.")
            means, sds = (modes_of_groups.one_or_dict(frames) for frames in posterior_moments(self.fit))
            return (means, sds) if conditional_se else means
        if data is not None:
            if include_fixed or reliability or standardised or component is not None:
                raise OptionError("data= goes with conditional_se= only; leave the other arguments out.")
            return given_frames(self.fit, data, conditional_se)
        if standardised:
            if conditional_se or reliability:
                raise OptionError("standardised modes have a standard deviation of one; leave the other argument out.")
            return components.component_modes(self.fit, modes_of_groups.standardised(self.fit, exact), component)
        modes = components.component_modes(self.fit, modes_of_groups.conditional_modes(self.fit), component)
        if reliability:
            if conditional_se:
                raise OptionError("give one of conditional_se=True and reliability=True; each returns a pair.")
            return modes, components.component_modes(
                self.fit, modes_of_groups.reliabilities(self.fit, exact), component
            )
        if not conditional_se:
            return modes
        errors = modes_of_groups.conditional_sds(self.fit, include_fixed, exact)
        return modes, components.component_modes(self.fit, errors, component)

    @property
    def random_effects(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    @property
    def blups(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    @carries(modes_of_groups.coef)
    def coef(self) -> Any:
        return modes_of_groups.one_or_dict(modes_of_groups.coef(self.fit))

    @carries(variance_table)
    def variance_table(self, alpha: float | None = None) -> pd.DataFrame:
        return variance_table(self.fit, alpha)

    @carries(r_squared)
    def r_squared(self, variance: VarianceMethod = "theoretical") -> dict[str, float]:
        """Nakagawa's R squared: marginal, conditional, and the variances var_fixed, var_random, var_residual.

        Returns
        -------
        dict of str to float
            var_fixed is the variance of X beta over the rows (offsets left out, denominator n - 1), var_random the mean
            over the rows of the variance of Z b, var_residual sigma^2 or the variance of one observation on the link
            scale.
        """
        return asdict(r_squared(self.fit, variance))

    @carries(icc)
    def icc(
        self,
        component: str = "_cons",
        alpha: float | None = None,
        n_boot: int = 0,
        seed: int | None = None,
        *,
        at: Mapping[str, float] | str | None = None,
        adjusted: bool = True,
        variance: VarianceMethod = "theoretical",
        n_jobs: int | None = 1,
        k: float = 1,
    ) -> ICCResult:
        options: dict[str, Any] = {"at": at, "adjusted": adjusted, "variance": variance, "n_jobs": n_jobs, "k": k}
        return icc(self.fit, component, alpha, n_boot, seed, **options)

    @carries(icc_table)
    def icc_table(self, alpha: float | None = None, **kw: Any) -> pd.DataFrame:
        return icc_table(self.fit, alpha, **kw)

    @carries(response_correlations)
    def response_correlations(
        self, alpha: float | None = None, method: IntervalMethod = "wald", **options: Any
    ) -> pd.DataFrame:
        return response_correlations(self.fit, alpha, method, **options)

    # --- smooths ------------------------------------------------------------------------------------------------------

    @carries(smooths_of_fit.smooths)
    def smooths(self) -> pd.DataFrame:
        return smooths_of_fit.smooths(self.fit)

    @carries(smooths_of_fit.smooth_curves)
    def smooth_curves(
        self,
        term: str | None = None,
        n: int | None = None,
        derivative: bool | str = False,
        simultaneous: bool = False,
        level: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        return smooths_of_fit.smooth_curves(self.fit, term, n, derivative, simultaneous, level, seed)

    @carries(smooths_of_fit.smooth_difference)
    def smooth_difference(
        self,
        first: str,
        second: str,
        n: int | None = None,
        simultaneous: bool = False,
        level: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        return smooths_of_fit.smooth_difference(self.fit, first, second, n, simultaneous, level, seed)

    @carries(smooths_of_fit.concurvity)
    def concurvity(self) -> pd.DataFrame:
        return smooths_of_fit.concurvity(self.fit)
