"""Confidence limits of all parameters by one of three methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import fit_parameters, select_parameters
from lme4py.fits.rows.clusters import check_robust_type
from lme4py.inference.bootstrap.bootstrap import bootstrap
from lme4py.inference.estimates.coefficients import chosen_alpha, confidence_intervals
from lme4py.inference.estimates.variance_errors import noted, wald_limits
from lme4py.inference.profile.profile import profile

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.rows.clusters import ClusterChoice

__all__ = ["intervals"]

# Limits need no points on the way to them.
_JUMP = 10.0
METHODS = ("wald", "profile", "boot")


def intervals(
    fit: Fit,
    alpha: float | None = None,
    method: str = "wald",
    parm: str | Sequence[str] = "fixed",
    ddf: str | None = None,
    *,
    n_boot: int | None = None,
    seed: int | None = None,
    type: str | None = None,
    n_jobs: int | None = 1,
    progress: bool | None = None,
    vcov: str | None = None,
    cluster: ClusterChoice = None,
) -> pd.DataFrame:
    """Confidence limits lower, upper.

    Parameters
    ----------
    fit : Fit
    alpha : float, optional
        One minus the confidence level; 0.05 when not given, or that of the keyword front door.
    method : {"wald", "profile", "boot"}
        Estimate plus and minus a quantile times the standard error (of standard deviations on the log scale, of
        correlations on that of Fisher's z, both normal); profile likelihood (REML fits by ML, as lme4); parametric
        bootstrap.
    parm : "fixed", "random", "residual" (of a residual structure and variance functions), "all", or names
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
    import pandas as pd

    level = chosen_alpha(fit, alpha)
    if method not in METHODS:
        raise OptionError(
            f"method={method!r} is not known.{did_you_mean(str(method), METHODS)} Use one of {', '.join(METHODS)}."
        )
    if method != "wald" and ddf is not None:
        raise OptionError(f"ddf={ddf!r} is for method='wald' only; leave it out.")
    if method != "wald" and (vcov is not None or cluster is not None):
        raise OptionError(f"vcov={vcov!r} is for method='wald' only; leave it and `cluster` out.")
    if method != "boot":
        _no_bootstrap(method, n_boot=n_boot, seed=seed, type=type, n_jobs=None if n_jobs == 1 else n_jobs)
    wanted = select_parameters((*fit_parameters(fit), *model_of(fit).residual_parameters()), parm)
    names = [parameter.name for parameter in wanted]
    if method == "profile":
        return profile(fit, names, level, step=_JUMP).conf_int(level)
    if method == "boot":
        made = bootstrap(fit, 1000 if n_boot is None else n_boot, None, seed, n_jobs, progress)
        return made.conf_int(level, "percentile" if type is None else type, names)
    if vcov is not None and fit.robust_variances:
        fit, vcov, cluster = model_of(fit).with_robust(check_robust_type(vcov), cluster), None, None
    fixed = [parameter.name for parameter in wanted if parameter.kind == "fixed"]
    if vcov is not None and len(fixed) < len(wanted):
        raise OptionError(
            f"vcov={vcov!r} is a covariance of the fixed effects; the variances of a linear mixed model have none. Use "
            "parm='fixed', or method='profile' for variances."
        )
    index = pd.Index(names, name="term")
    table = pd.DataFrame(wald_limits(fit, wanted, level), index=index, columns=["lower", "upper"])
    if fixed:
        table.loc[fixed] = confidence_intervals(fit, level, "wald", fixed, ddf, vcov, cluster).to_numpy(
            dtype=np.float64
        )
    return table if len(fixed) == len(wanted) else noted(fit, table)


def _no_bootstrap(method: str, **options: object) -> None:
    """Refuse options of the bootstrap where there is none."""
    given = [f"`{name}`" for name, value in options.items() if value is not None]
    if given:
        raise OptionError(f"{', '.join(given)} belong to method='boot', not {method!r}; leave them out.")
