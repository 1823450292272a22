"""Columns of a comparison from results of statsmodels: linear, generalised linear, discrete and mixed models.

statsmodels is never imported: its results are known by the package of their class and by what they have.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from lme4py.errors import OptionError
from lme4py.report.comparison.column import Entry, ModelColumn
from lme4py.report.comparison.own import Choices, exponentiated_entries

__all__ = ["foreign_column", "is_foreign"]

_FACTOR = re.compile(r"C\(\s*(?:Q\([\"'])?([^,()\"']+?)(?:[\"']\))?\s*(?:,[^\[\]]*)?\)\[")
# Classes of discrete models whose coefficients are logarithms of odds or of rates.
_RATIOS = ("Logit", "Poisson", "NegativeBinomial", "GeneralizedPoisson")
# Classes of statsmodels.
_RATIO_LINKS = frozenset(("Log", "Logit", "log", "logit"))


def is_foreign(model: Any) -> bool:
    """Whether these are results of statsmodels that a comparison can read.

    Parameters
    ----------
    model : object
    """
    needed = ("params", "bse", "pvalues", "conf_int", "model")
    return type(model).__module__.partition(".")[0] == "statsmodels" and all(hasattr(model, name) for name in needed)


def foreign_column(results: Any, choices: Choices) -> ModelColumn:
    """The column of a fit of statsmodels.

    Parameters
    ----------
    results : statsmodels results
    choices : Choices
    """
    if choices.vcov is not None:
        raise OptionError(
            f"vcov={choices.vcov!r} is for fits of lme4py; fit the model of statsmodels with its own cov_type=."
        )
    names = _names(results)
    params, errors, p = (np.asarray(getattr(results, name), dtype=np.float64) for name in ("params", "bse", "pvalues"))
    limits = np.asarray(results.conf_int(choices.alpha), dtype=np.float64)
    keep = len(np.atleast_1d(results.fe_params)) if hasattr(results, "fe_params") else params.size
    fixed: dict[str, Entry] = {}
    rest: dict[str, Entry] = {}
    for j, name in enumerate(names):
        entry = Entry(params[j], errors[j], limits[j, 0], limits[j, 1], p[j])
        (fixed if j < keep and name != "alpha" else rest)[name] = entry
    ratio = choices.exponentiate and _is_ratio(results)
    alpha = {"Dispersion (alpha)": Entry(rest["alpha"].estimate)} if "alpha" in rest else {}
    return ModelColumn(
        exponentiated_entries(fixed) if ratio else fixed,
        {},
        {**_random(results), **alpha},
        _facts(results),
        "",
        bool(getattr(results, "reml", False)) and hasattr(results, "fe_params"),
        ratio,
    )


def _names(results: Any) -> list[str]:
    """Names of the parameters, spelled as here: ``x[T.b]`` for ``C(x)[T.b]``, "Intercept" for "const"."""
    given = list(results.params.index) if hasattr(results.params, "index") else list(results.model.exog_names)
    spelled = [_FACTOR.sub(r"\1[", str(name)) for name in given]
    return ["Intercept" if name == "const" else name for name in spelled]


def _is_ratio(results: Any) -> bool:
    family = getattr(results.model, "family", None)
    if family is not None:
        return type(family.link).__name__ in _RATIO_LINKS
    return type(results.model).__name__ in _RATIOS


def _random(results: Any) -> dict[str, Entry]:
    """Standard deviations and correlations of a mixed model; of a linear one the residual standard deviation."""
    found: dict[str, Entry] = {}
    scale = getattr(results, "scale", None)
    linear = hasattr(results, "fe_params") or hasattr(results, "mse_resid")
    if hasattr(results, "cov_re") and np.size(results.cov_re):
        cov = np.asarray(results.cov_re, dtype=np.float64)
        group, names = _effects(results)
        sd = np.sqrt(np.diag(cov))
        found |= {f"SD ({name} | {group})": Entry(float(value)) for name, value in zip(names, sd, strict=True)}
        for i in range(len(names)):
            for j in range(i + 1, len(names)):
                label = f"Cor. ({names[i]}, {names[j]} | {group})"
                found[label] = Entry(float(cov[i, j] / (sd[i] * sd[j])))
    if linear and scale is not None:
        found["SD (Residual)"] = Entry(float(np.sqrt(scale)))
    return found


def _effects(results: Any) -> tuple[str, list[str]]:
    """The grouping factor and the random effects of a mixed model, whose intercept is called like the factor."""
    names = [str(name) for name in getattr(results.cov_re, "index", range(len(results.cov_re)))]
    constant = [bool(np.all(np.asarray(column) == 1.0)) for column in np.asarray(results.model.exog_re).T]
    found = [name for name, one in zip(names, constant, strict=False) if one and name not in ("Group", "Intercept")]
    effects = ["Intercept" if one else name for name, one in zip(names, constant, strict=False)]
    return (found[0] if found else "groups"), effects


def _facts(results: Any) -> dict[str, float | str]:
    facts: dict[str, float | str] = {"Family (link)": _family(results), "Rows": float(results.model.endog.shape[0])}
    if hasattr(results, "fe_params"):
        if np.size(results.cov_re):
            facts[f"Levels of {_effects(results)[0]}"] = float(results.model.n_groups)
        facts["Method"] = "REML" if getattr(results, "reml", False) else "ML"
    else:
        facts["Method"] = type(results.model).__name__
    if hasattr(results, "rsquared"):
        facts["R² (marginal)"] = float(results.rsquared)
    for label, name in (("Log-likelihood", "llf"), ("AIC", "aic"), ("BIC", "bic")):
        value = _criterion(results, name)
        if value is not None and np.isfinite(value):
            facts[label] = value
    return facts


def _criterion(results: Any, name: str) -> float | None:
    # The BIC of a GLM is that of the deviance unless it is asked for by likelihood.
    if name == "bic" and hasattr(results, "bic_llf"):
        name = "bic_llf"
    value = getattr(results, name, None)
    return None if value is None else float(value)


def _family(results: Any) -> str:
    family = getattr(results.model, "family", None)
    if family is not None:
        return f"{type(family).__name__.lower()} ({type(family.link).__name__.lower()})"
    names = {"Logit": "binomial (logit)", "Probit": "binomial (probit)", "Poisson": "poisson (log)"}
    return names.get(type(results.model).__name__, "gaussian (identity)" if _is_linear(results) else "")


def _is_linear(results: Any) -> bool:
    return hasattr(results, "fe_params") or hasattr(results, "mse_resid")
