"""Choosing between models and joining them: AICc, variance inflation, and Rubin's rules over imputed data.

AICc is that of Hurvich & Tsai (1989) with n the number of rows used. Generalised
variance inflation is that of Fox & Monette (1992), from the correlations of the estimates of the fixed effects. The
degrees of freedom of pooled estimates are those of Barnard & Rubin (1999, Biometrika 86:948).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.arguments import speaks
from lme4py.errors import DesignError, OptionError
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.refuse import refuse_penalised
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import check_alpha, quantile, two_sided
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.inference.estimates.limits import unknown
from lme4py.linalg.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["aicc", "information_criteria", "pool", "vif"]


def _fit(result: object, function: str) -> Fit:
    fit = fit_of(result)
    if fit is None:
        raise OptionError(f"{function}() takes fitted mixed models; this is of type {type(result).__name__}.")
    return fit


@speaks
def aicc(result: Any) -> float:
    """Akaike's criterion corrected for small samples: AIC + 2 k (k + 1) / (n - k - 1).

    Parameters
    ----------
    result : MixedResult or MEGLMResult

    Returns
    -------
    float
        With k parameters and n rows used. That of a REML fit is about the restricted likelihood: compare models with
        the same fixed effects only.

    Raises
    ------
    OptionError
        As many parameters as rows, less one or two: the correction does not exist.

    Examples
    --------
    >>> from lme4py import aicc, lmer, load_dataset
    >>> fit = lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), reml=False)
    >>> round(aicc(fit), 2)
    1764.42
    """
    fit = _fit(result, "aicc")
    refuse_penalised(fit, "AICc is")
    n, k = fit.design.n_obs, fit.n_params
    if n - k - 1 <= 0:
        raise OptionError(f"AICc needs more rows than parameters and two: the model has {k} parameters and {n} rows.")
    return aic(fit) + 2.0 * k * (k + 1.0) / (n - k - 1.0)


def information_criteria(fit: Fit) -> pd.Series[float]:
    """AIC, AICc, and BIC by the number of rows and by the numbers of groups.

    BIC has a term log(n) for each parameter, and in a mixed model it is open what n is: the rows (lme4, `bic`), or the
    levels of the outermost factor, which are independent (SAS; Delattre, Lavielle & Poursat 2014).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Series
        Index aic, aicc (NaN where it does not exist), bic, and ``bic_g`` for each grouping factor g.
    """
    import pandas as pd

    n, k = fit.design.n_obs, fit.n_params
    values = {
        "aic": aic(fit),
        "aicc": aicc(fit) if n - k - 1 > 0 else float("nan"),
        "bic": bic(fit),
    }
    values |= {f"bic_{group}": bic(fit, count) for group, count in fit.design.n_groups.items()}
    return pd.Series(values, name="value")


@speaks
def vif(result: Any) -> pd.DataFrame:
    """Variance inflation of each term of the fixed effects, as R's ``car::vif``.

    Parameters
    ----------
    result : MixedResult or MEGLMResult

    Returns
    -------
    DataFrame
        Index term; columns gvif, df, inflation (the df-th root of the square root of gvif, which can be compared
        between terms: by so much the standard errors are larger than with uncorrelated terms).

    Raises
    ------
    OptionError
        Fewer than two terms.
    DesignError
        A coefficient without a finite estimate.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset, vif
    >>> cake = load_dataset("cake")
    >>> vif(lmer("angle ~ recipe + temp + (1 | replicate)", cake))["gvif"].round(6).to_dict()
    {'recipe': 1.0, 'temp': 1.0}
    """
    import pandas as pd

    fit = _fit(result, "vif")
    assign, labels = np.array(fit.design.assign), fit.design.fixed_labels
    intercepts = labels.index(RESPONSE) + 1 if fit.design.responses is not None and RESPONSE in labels else 0
    own = np.flatnonzero((assign > 0) & (assign != intercepts))
    if np.unique(assign[own]).size < 2:
        raise OptionError("variance inflation is about two terms or more; the model has fewer.")
    if unknown(fit, np.eye(fit.beta.size)).any():
        raise DesignError("some fixed effects have no finite estimate (separation), and so no variance to inflate.")
    V = fit.vcov[np.ix_(own, own)]
    sd = np.sqrt(np.diag(V))
    R = V / np.outer(sd, sd)
    rows = {
        label: _inflation(R, assign[own] == term)
        for term, label in enumerate(labels, start=1)
        if (assign[own] == term).any()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["gvif", "df", "inflation"])
    return table.rename_axis(index="term")


def _inflation(R: FloatArray, own: Any) -> tuple[float, float, float]:
    """Determinants of the two diagonal blocks over that of the whole."""
    parts = [np.linalg.slogdet(R[np.ix_(rows, rows)])[1] for rows in (own, ~own)]
    value = float(np.exp(sum(parts) - np.linalg.slogdet(R)[1]))
    df = float(own.sum())
    return value, df, value ** (1.0 / (2.0 * df))


@speaks
def pool(results: Sequence[Any], alpha: float = 0.05) -> pd.DataFrame:
    """Fixed effects of fits to imputed data, joined by Rubin's rules, as R's ``mice::pool``.

    Parameters
    ----------
    results : sequence of MixedResult or MEGLMResult
        The same model fitted to each imputed data set.
    alpha : float
        One minus the confidence level.

    Returns
    -------
    DataFrame
        Index term; columns estimate, std_error, df (Barnard and Rubin's, the complete data having as many as
        `df_resid`), statistic, p_value, lower, upper, riv (relative increase of the variance due to the missing
        values), lambda (their share of the variance), fmi (fraction of missing information).

    Raises
    ------
    OptionError
        Fewer than two fits, different coefficients or families.
    DesignError
        A coefficient without a finite estimate.

    Examples
    --------
    >>> import numpy as np
    >>> from lme4py import lmer, load_dataset, pool
    >>> data, rng = load_dataset("sleepstudy"), np.random.default_rng(1)
    >>> noise = [rng.normal(size=180) for _ in range(5)]
    >>> fits = [lmer("y ~ Days + (1 | Subject)", data.assign(y=data["Reaction"] + 5 * e)) for e in noise]
    >>> pool(fits).columns.tolist()[:5]
    ['estimate', 'std_error', 'df', 'statistic', 'p_value']
    """
    import pandas as pd

    level = check_alpha(alpha)
    fits = [_fit(result, "pool") for result in results]
    _check_poolable(fits)
    Q = np.array([fit.beta for fit in fits])
    U = np.array([np.diag(fit.vcov) for fit in fits])
    m = len(fits)
    estimate, within, between = Q.mean(axis=0), U.mean(axis=0), Q.var(axis=0, ddof=1)
    total = within + (1.0 + 1.0 / m) * between
    share = (1.0 + 1.0 / m) * between / total
    df = _barnard_rubin(share, m, float(min(fit.df_resid for fit in fits)))
    riv = (1.0 + 1.0 / m) * between / within
    se = np.sqrt(total)
    half = quantile(level, df) * se
    columns = {
        "estimate": estimate,
        "std_error": se,
        "df": df,
        "statistic": estimate / se,
        "p_value": two_sided(estimate / se, df),
        "lower": estimate - half,
        "upper": estimate + half,
        "riv": riv,
        "lambda": share,
        "fmi": (riv + 2.0 / (df + 3.0)) / (riv + 1.0),
    }
    return pd.DataFrame(columns, index=pd.Index(list(fits[0].design.x_names), name="term"))


def _check_poolable(fits: Sequence[Fit]) -> None:
    if len(fits) < 2:
        raise OptionError("pool() takes two fits or more, one for each imputed data set.")
    first = fits[0]
    for fit in fits[1:]:
        if fit.design.x_names != first.design.x_names:
            raise OptionError(
                f"the fits have different coefficients ({', '.join(first.design.x_names)} and "
                f"{', '.join(fit.design.x_names)}); fit the same model to each imputed data set."
            )
        if (fit.kind, fit.family.name, fit.family.link.name) != (first.kind, first.family.name, first.family.link.name):
            raise OptionError("the fits have different families or links; fit the same model to each imputed data set.")
    if any(unknown(fit, np.eye(fit.beta.size)).any() for fit in fits):
        raise DesignError("a coefficient has no finite estimate (separation) in one of the fits: it cannot be pooled.")


def _barnard_rubin(share: FloatArray, m: int, complete: float) -> FloatArray:
    """Degrees of freedom; without variation between the fits those that are left of the complete data's."""
    observed = (complete + 1.0) / (complete + 3.0) * complete * (1.0 - share)
    with np.errstate(divide="ignore"):
        old = (m - 1.0) / share**2
    df: FloatArray = np.where(np.isinf(old), observed, old * observed / np.where(np.isinf(old), 1.0, old + observed))
    return df
