"""What the package maketables asks of a result, so that ``ETable([m1, m2])`` works; it is never imported here.

Its plug-in protocol is a set of attributes ``__maketables_*__`` of the result: a table of coefficients, and statistics
by key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lme4py.fits.base import Fit
from lme4py.inference.estimates.coefficients import coef_table, confidence_intervals
from lme4py.inference.estimates.dispersion import shown_dispersion
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.report.summaries.parts import entries, entry_label, family_label, method_label, threshold_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["coefficient_frame", "default_statistics", "statistic", "statistic_labels"]

_LABELS = {
    "N": "Observations",
    "ll": "Log-likelihood",
    "aic": "AIC",
    "bic": "BIC",
    "deviance": "Deviance",
    "df_resid": "Residual df",
    "sigma": "Residual SD",
    "method": "Estimation",
    "family": "Family (link)",
    "dispersion": "Dispersion",
    "n_params": "Parameters",
}


def coefficient_frame(fit: Fit) -> pd.DataFrame:
    """Fixed effects and thresholds: columns b, se, t, p, ci95l, ci95u, indexed by coefficient.

    The columns are called for 95 % limits, and have them whatever `alpha` the fit was given.

    Parameters
    ----------
    fit : Fit
    """
    import pandas as pd

    table = coef_table(fit).join(confidence_intervals(fit, 0.05))
    cuts = threshold_table(fit)
    if not cuts.empty:
        half = 1.959963984540054 * cuts["std_error"]
        cuts = cuts.assign(lower=cuts["estimate"] - half, upper=cuts["estimate"] + half)
        table = pd.concat([table, cuts])
    names = {"estimate": "b", "std_error": "se", "statistic": "t", "p_value": "p", "lower": "ci95l", "upper": "ci95u"}
    return table[list(names)].rename(columns=names).rename_axis("Coefficient")


def _values(fit: Fit) -> dict[str, Any]:
    values: dict[str, Any] = {entry_label(entry): entry.sdcor for entry in entries(fit)}
    values |= {f"Levels of {group}": count for group, count in fit.design.n_groups.items()}
    values |= {"N": fit.design.n_obs, "n_params": fit.n_params, "df_resid": fit.df_resid}
    values |= {"ll": fit.log_likelihood, "aic": aic(fit), "bic": bic(fit), "deviance": -2.0 * fit.log_likelihood}
    values |= {"method": method_label(fit), "family": family_label(fit), "se_type": "model"}
    if fit.normal_errors:
        values["sigma"] = fit.sigma
    found = shown_dispersion(fit)
    if found is not None:
        values["dispersion"] = found.estimate
    return values


def statistic(fit: Fit, key: str) -> Any:
    """One statistic by its key, such as "N", "ll", "aic" or "SD (Days | Subject)"; None where there is none.

    Parameters
    ----------
    fit : Fit
    key : str
    """
    return _values(fit).get(key)


def statistic_labels(fit: Fit) -> dict[str, str]:
    """Words for the keys of `statistic`."""
    return {key: _LABELS.get(key, key) for key in _values(fit)}


def default_statistics(fit: Fit) -> list[str]:
    """Keys shown where none are asked for: the random part, sizes, and information criteria."""
    random = [entry_label(entry) for entry in entries(fit)]
    levels = [f"Levels of {group}" for group in fit.design.n_groups]
    return [*random, "N", *levels, "ll", "aic", "bic"]
