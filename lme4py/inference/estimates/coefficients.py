"""Fixed effects: estimates, standard errors, tests and intervals, all from the numbers of a frozen fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, special

from lme4py.design.smooths import smooth_columns
from lme4py.errors import DesignError, Lme4Warning, OptionError, did_you_mean, warn
from lme4py.fits.base import Fit
from lme4py.fits.method import Ddf, Method, Plain, check_method
from lme4py.fits.refuse import refuse_priors
from lme4py.inference.estimates.limits import coefficient_estimates, known_errors, unknown, warn_unknown
from lme4py.inference.estimates.restrictions import hypothesised, linear_hypotheses
from lme4py.inference.uncertainty.df import method
from lme4py.inference.uncertainty.robust import robust_covariance, robust_method

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.rows.clusters import ClusterChoice

__all__ = [
    "Ddf",
    "chosen_alpha",
    "coef_table",
    "coefficient_method",
    "coefficient_tests",
    "confidence_intervals",
    "constant_df",
    "covariance",
    "covariance_frame",
    "estimates",
    "quantile",
    "ratios",
    "standard_errors",
    "two_sided",
    "wald_test",
    "warn_small_level",
]

FloatArray = NDArray[np.float64]
Restrictions: TypeAlias = str | Sequence[str] | Mapping[str, float] | ArrayLike

# Upper quantiles of t with fewer degrees of freedom pass 1e12 at the 95 % level: no number of use in any unit.
_FEWEST_DF = 0.1


def estimates(fit: Fit) -> pd.Series[float]:
    """Fixed-effects estimates, shape (p,), indexed by the columns of X."""
    import pandas as pd

    return parametric(fit, pd.Series(coefficient_estimates(fit), index=_names(fit), name="estimate", copy=True))


def standard_errors(fit: Fit) -> pd.Series[float]:
    """Square roots of the diagonal of ``fit.vcov``, shape (p,)."""
    import pandas as pd

    return parametric(fit, pd.Series(_std_errors(fit), index=_names(fit), name="std_error"))


def covariance_frame(fit: Fit, type: str | None = None, cluster: ClusterChoice = None) -> pd.DataFrame:
    """Covariance matrix of the fixed effects, shape (p, p).

    Parameters
    ----------
    fit : Fit
    type : {None, "CR0", "CR1", "CR2", "CR3"}
        None is the model's own; the others are cluster-robust (sandwich) ones. Linear models have all of
        clubSandwich's; generalised ones "CR0" and "CR1" (Stata's vce(robust) and vce(cluster)).
    cluster : str, array of shape (n,), or None
        A grouping factor, or labels of the rows; None takes the outermost grouping factor.

    Returns
    -------
    DataFrame, shape (p, p)
        With the names on both sides.
    """
    import pandas as pd

    infinite = unknown(fit, np.eye(fit.beta.size))
    V = np.where(infinite | infinite[:, None], np.nan, covariance(fit, type, cluster))
    return parametric(fit, parametric(fit, pd.DataFrame(V, index=_names(fit), columns=_names(fit))).T).T


def covariance(fit: Fit, type: str | None = None, cluster: ClusterChoice = None) -> FloatArray:
    """As `covariance_frame`, as an array of shape (p, p), with zeros along coefficients that are infinite."""
    if type is None:
        _no_cluster(cluster)
        return fit.vcov
    return robust_covariance(fit, type, cluster)


def coef_table(
    fit: Fit, ddf: str | None = None, vcov: str | None = None, cluster: ClusterChoice = None
) -> pd.DataFrame:
    """Table estimate, std_error, df, statistic, p_value of the fixed effects.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Denominator degrees of freedom; None is `default_ddf` of the fit (with a robust covariance of a linear model
        "satterthwaite"), "residual" n - p, "normal" infinity. The standard errors of "kenward-roger" are those of its
        adjusted covariance.
    vcov : {None, "CR0", "CR1", "CR2", "CR3"}
        A cluster-robust covariance instead of the model's own. Linear models then have "satterthwaite" (of that
        covariance), "residual" and "normal".
    cluster : str, array of shape (n,), or None
        Its clusters; None takes the outermost grouping factor.

    Returns
    -------
    pandas.DataFrame
        Columns estimate, std_error, df, statistic, p_value; one row per fixed effect.
    """
    import pandas as pd

    names = pd.Index(parametric_names(fit), name="term")
    return pd.DataFrame(coefficient_tests(fit, ddf, vcov, cluster), index=names)


def coefficient_tests(
    fit: Fit, ddf: str | None = None, vcov: str | None = None, cluster: ClusterChoice = None
) -> dict[str, FloatArray]:
    """The columns of `coef_table` as arrays, one number for each of `parametric_names`.

    Parameters
    ----------
    fit : Fit
    ddf, vcov, cluster
        As in `coef_table`.
    """
    se, df = _errors_and_df(fit, ddf, vcov, cluster)
    statistic = fit.beta / se
    columns = {
        "estimate": coefficient_estimates(fit),
        "std_error": se,
        "df": df,
        "statistic": statistic,
        "p_value": two_sided(statistic, df),
    }
    if not fit.design.smooth_terms:
        return columns
    own = ~np.array(smooth_columns(fit.design))
    return {name: values[own] for name, values in columns.items()}


def confidence_intervals(
    fit: Fit,
    alpha: float | None = None,
    method: str = "wald",
    parm: str | Sequence[str] = "fixed",
    ddf: str | None = None,
    vcov: str | None = None,
    cluster: ClusterChoice = None,
) -> pd.DataFrame:
    """Confidence limits of the fixed effects.

    Parameters
    ----------
    fit : Fit
    alpha : float, optional
        One minus the confidence level; that of the fit when not given.
    method : {"wald"}
        Estimate plus and minus a quantile times the standard error.
    parm : "fixed" or sequence of str
        Every fixed effect, or the names of some.
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        Quantiles of t with these degrees of freedom; None is `default_ddf` of the fit.
    vcov, cluster
        A cluster-robust covariance, as in `coef_table`.

    Returns
    -------
    pandas.DataFrame
        Columns lower, upper; one row per parameter.
    """
    import pandas as pd

    names = _wanted_names(fit, method, parm)
    se, df = _errors_and_df(fit, ddf, vcov, cluster)
    half = quantile(chosen_alpha(fit, alpha), df) * se
    table = pd.DataFrame({"lower": fit.beta - half, "upper": fit.beta + half}, index=_names(fit))
    return table.loc[names]


def wald_test(
    fit: Fit,
    restrictions: Restrictions,
    value: float | ArrayLike = 0.0,
    vcov: str | None = None,
    cluster: ClusterChoice = None,
) -> dict[str, float]:
    """Joint Wald chi-square test of ``R beta = value``.

    Parameters
    ----------
    fit : Fit
    restrictions : str, sequence of str, dict, array of shape (p,) or (r, p), or data frame
        Hypotheses as text, such as ``"Days - 10 = 0"``, ``"a = b, c = 0"`` or names of coefficients, which are tested
        jointly; a dict from text to value; or the matrix R in the order of the fixed effects (the columns of a data
        frame are found by their names).
    value : float or array of shape (r,)
        Right-hand side.
    vcov, cluster
        A cluster-robust covariance, as in `coef_table`. With few clusters the F test of
        ``contest(..., vcov="CR2")`` keeps its size better.

    Returns
    -------
    dict
        chi2, df (the rank of R), p_value.
    """
    tested = linear_hypotheses(fit.design.x_names, restrictions, value)
    if warn_unknown(fit, tested.R, "a Wald test"):
        return {"chi2": np.nan, "df": float(np.linalg.matrix_rank(tested.R)), "p_value": np.nan}
    return wald_statistic(fit, tested.R, tested.target, vcov, cluster)


def wald_statistic(
    fit: Fit,
    R: FloatArray,
    value: float | ArrayLike = 0.0,
    vcov: str | None = None,
    cluster: ClusterChoice = None,
) -> dict[str, float]:
    """`wald_test` of a matrix whose rows have finite estimates."""
    target = hypothesised(value, R.shape[0])
    rank = int(np.linalg.matrix_rank(R))
    if rank < R.shape[0]:
        raise OptionError(
            f"The {R.shape[0]} restrictions have rank {rank}: at least one follows from the others; "
            "leave out the redundant ones."
        )
    gap = R @ fit.beta - target
    # A Cholesky solve keeps the quadratic form positive where an explicit inverse may not.
    V = R @ covariance(fit, vcov, cluster) @ R.T
    if vcov is not None and np.linalg.matrix_rank(V, hermitian=True) < rank:
        from lme4py.fits.rows.clusters import too_few_clusters

        raise DesignError("The " + too_few_clusters(None, rank))
    chi2 = float(gap @ linalg.cho_solve(linalg.cho_factor(V), gap))
    return {"chi2": chi2, "df": float(rank), "p_value": float(special.chdtrc(rank, chi2))}


def constant_df(fit: Fit, ddf: str | None) -> FloatArray:
    """Degrees of freedom that are the same for everything: infinite, or rows less coefficients.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "residual", "normal"}
        None is `default_ddf` of the fit.

    Returns
    -------
    ndarray, shape ()
    """
    chosen = check_ddf(fit.default_ddf if ddf is None else ddf)
    return np.asarray(fit.design.n_obs - fit.beta.size if chosen == "residual" else np.inf, dtype=np.float64)


def quantile(alpha: float, df: FloatArray) -> FloatArray:
    """How many standard errors the limits of intervals are away: upper quantiles of t, normal where df is infinite.

    Parameters
    ----------
    alpha : float
        One minus the level of the intervals.
    df : ndarray

    Returns
    -------
    ndarray
        NaN where there are fewer than a tenth of a degree of freedom: such limits have no number of use.

    Warns
    -----
    Lme4Warning
        Some are NaN for that reason.
    """
    tail = alpha / 2.0
    hardly = np.asarray(df < _FEWEST_DF)
    if hardly.any():
        warn(
            f"{int(hardly.sum())} of {hardly.size} intervals have no limits (NaN): the variance behind them is so "
            f"uncertain that it has {float(np.nanmin(df)):.2g} degrees of freedom. An example is the variance of "
            "a conditional prediction where the residual variance is nearly zero. Choose a simpler structure, or "
            "ddf='normal' or 'residual'.",
            Lme4Warning,
        )
    student = special.stdtrit(np.where(np.isinf(df) | hardly, 1.0, df), tail)
    return np.asarray(-np.where(np.isinf(df), special.ndtri(tail), np.where(hardly, np.nan, student)), dtype=np.float64)


def chosen_alpha(fit: Any, alpha: float | None) -> float:
    """The `alpha` of a call, checked; where it gives none that of the fit.

    Parameters
    ----------
    fit : Fit
    alpha : float or None
    """
    return check_alpha(fit.conventions.alpha if alpha is None else alpha)


def check_alpha(alpha: float | None) -> float:
    """Return `alpha` (0.05 when None) after checking that it lies strictly between 0 and 1."""
    if alpha is None:
        return 0.05
    number = isinstance(alpha, (int, float, np.number)) and not isinstance(alpha, bool)
    if not number or not 0.0 < float(alpha) < 1.0:
        raise OptionError(f"`alpha` is {alpha!r}; give a number between 0 and 1, such as 0.05.")
    other = 1.0 - float(alpha)
    warn_small_level("alpha", float(alpha), other, f"alpha={other:.4g} (conf_level={float(alpha):g} in tidy())")
    return float(alpha)


def warn_small_level(name: str, given: float, level: float, meant: str) -> None:
    """Warn of a confidence level below one half, which is one minus what was meant.

    Parameters
    ----------
    name : str
        The argument.
    given, level : float
        Its value, and the level that it stands for.
    meant : str
        How the other level is written.
    """
    if level < 0.5:
        warn(
            f"{name}={given:g} asks for limits of level {100.0 * level:.4g}%; for {100.0 * (1.0 - level):.4g}% limits "
            f"write {meant}.",
            Lme4Warning,
        )


def check_ddf(ddf: str | None, *, linear: bool = False) -> Ddf:
    """Return the degrees-of-freedom method, "normal" when None, or raise OptionError.

    Parameters
    ----------
    ddf : str or None
    linear : bool
        The model is a linear mixed model; others have only "normal" and "residual".
    """
    chosen = "normal" if ddf is None else check_method(ddf)
    if not linear and chosen not in ("normal", "residual"):
        raise OptionError(f"ddf={ddf!r} is for linear mixed models; use 'normal' or 'residual'.")
    return chosen


def _names(fit: Fit) -> pd.Index[str]:
    import pandas as pd

    return pd.Index(list(fit.design.x_names), name="term")


def _std_errors(fit: Fit) -> FloatArray:
    return known_errors(fit, np.eye(fit.beta.size), fit.vcov)


def _errors_and_df(
    fit: Fit, ddf: str | None, vcov: str | None = None, cluster: ClusterChoice = None
) -> tuple[FloatArray, FloatArray]:
    """Standard errors and degrees of freedom of all coefficients, each of shape (p,)."""
    chosen = coefficient_method(fit, ddf, vcov, cluster)
    each = np.eye(fit.beta.size)
    return known_errors(fit, each, chosen.vcov), chosen.t_df(each)


def coefficient_method(
    fit: Fit, ddf: str | None = None, vcov: str | None = None, cluster: ClusterChoice = None
) -> Method:
    """Covariance and degrees of freedom of tests of the fixed effects.

    Parameters
    ----------
    fit : Fit
    ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
        None is `default_ddf` of the fit; a robust covariance of a linear model brings its own, Satterthwaite's.
    vcov : {None, "CR0", "CR1", "CR2", "CR3"}
    cluster : str, array of shape (n,), or None
    """
    moments = fit.has_f_tests
    usual = "satterthwaite" if moments and vcov is not None else fit.default_ddf
    if fit.penalised and check_method(ddf or usual) not in fit.ddf_methods:
        refuse_priors(f"ddf={ddf!r} is", "use 'normal' or 'residual'")
    chosen = check_ddf(usual if ddf is None else ddf, linear=moments)
    if vcov is None:
        _no_cluster(cluster)
        return method(fit, chosen)
    if chosen == "kenward-roger":
        raise OptionError(
            f"ddf='kenward-roger' belongs to the model's own covariance; with vcov={vcov!r} use ddf='satterthwaite'."
        )
    robust = robust_method(fit, vcov, cluster)
    if chosen == "satterthwaite":
        return robust
    return Plain(robust.vcov, float(constant_df(fit, chosen)))


def _no_cluster(cluster: object) -> None:
    if cluster is not None:
        raise OptionError("`cluster` is for a robust covariance; say which one, such as vcov='CR2', or leave it out.")


def two_sided(statistic: FloatArray, df: FloatArray) -> FloatArray:
    """Two-sided p-values of t statistics; normal where df is infinite."""
    x = -np.abs(statistic)
    with np.errstate(invalid="ignore"):
        return np.asarray(2.0 * np.where(np.isinf(df), special.ndtr(x), special.stdtr(df, x)), dtype=np.float64)


_T = TypeVar("_T", "pd.Series[Any]", "pd.DataFrame")


def parametric_names(fit: Fit) -> list[str]:
    """Names of the fixed effects that are no unpenalised parts of smooths.

    Parameters
    ----------
    fit : Fit
    """
    names = fit.design.x_names
    if not fit.design.smooth_terms:
        return list(names)
    return [name for name, smooth in zip(names, smooth_columns(fit.design), strict=True) if not smooth]


def parametric(fit: Fit, table: _T) -> _T:
    """The rows of a table of the fixed effects without those of smooths.

    Parameters
    ----------
    fit : Fit
    table : Series or DataFrame
        Indexed by the fixed effects.
    """
    return table if not fit.design.smooth_terms else table.loc[parametric_names(fit)]


def _wanted_names(fit: Fit, method: str, parm: str | Sequence[str]) -> list[str]:
    if method != "wald":
        raise OptionError(f"method={method!r} is not known; use 'wald'.")
    if isinstance(parm, str):
        if parm == "fixed":
            return parametric_names(fit)
        if parm in ("random", "all") and parm not in fit.design.x_names:
            raise OptionError(
                f"parm={parm!r} is not available with method='wald', which covers fixed effects only; "
                "use parm='fixed' or their names."
            )
        return [_known_name(fit, parm)]
    return [_known_name(fit, name) for name in parm]


def _known_name(fit: Fit, name: object) -> str:
    names = fit.design.x_names
    if isinstance(name, str) and name in names:
        return name
    hint = did_you_mean(str(name), names)
    raise OptionError(f"There is no fixed effect {name!r}.{hint} The fixed effects are {', '.join(names)}.")


def ratios(fit: Fit, alpha: float | None, name: str) -> pd.DataFrame:
    """exp of the fixed effects with confidence limits.

    Parameters
    ----------
    fit : Fit
    alpha : float or None
    name : str
        Name of the first column.
    """
    limits = confidence_intervals(fit, alpha).apply(np.exp)
    limits.insert(0, name, np.exp(estimates(fit)))
    return limits
