"""Results as tidy data frames (broom's shapes) and as plain Python for JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lme4py.fit import Fit
from lme4py.inference.coefficients import coef_table
from lme4py.inference.likelihood import aic, bic
from lme4py.inference.random_effects import conditional_modes
from lme4py.inference.variance import VarianceEntry, var_corr, variance_components, variance_entries

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["glance", "optimisation_log", "tidy", "to_dict"]

_TIDY = ["effect", "group", "term", "estimate", "std_error", "statistic", "p_value"]


def tidy(fit: Fit, ddf: str | None = None) -> pd.DataFrame:
    """One row per fixed effect, then one per standard deviation and correlation of the random effects.

    Columns effect ("fixed" or "ran_pars"), group, term, estimate, std_error, statistic, p_value; the terms of
    the random effects are named as broom.mixed does: ``sd__x``, ``cor__a.b``, ``sd__Observation``.
    """
    import pandas as pd

    table = coef_table(fit, ddf)
    fixed = [("fixed", None, name, *row) for name, row in zip(table.index, _fixed_rows(table), strict=True)]
    nan = float("nan")
    random = [("ran_pars", e.group, _random_term(e), e.sdcor, nan, nan, nan) for e in variance_entries(fit)]
    frame = pd.DataFrame([*fixed, *random], columns=_TIDY)
    # As objects, so that the missing group of a fixed effect stays None.
    frame["group"] = pd.Series([row[1] for row in (*fixed, *random)], dtype=object)
    return frame


def glance(fit: Fit) -> pd.DataFrame:
    """One row with the sizes of the model, its criterion and what is known about the optimum."""
    import pandas as pd

    return pd.DataFrame([_overview(fit)])


def optimisation_log(fit: Fit) -> pd.DataFrame:
    """One row per evaluation: number, criterion, gradient_norm, radius, accepted, theta1, ..."""
    import pandas as pd

    rows = [
        {
            "number": step.number,
            "criterion": step.criterion,
            "gradient_norm": step.gradient_norm,
            "radius": step.radius,
            "accepted": step.accepted,
            **{f"theta{i}": value for i, value in enumerate(step.theta, start=1)},
        }
        for step in fit.opt_log
    ]
    return pd.DataFrame(rows)


def to_dict(fit: Fit, random_effects: bool = False, ddf: str | None = None) -> dict[str, Any]:
    """The result as nested dicts and lists of plain Python values; what is not a finite number is None."""
    head = {"family": "gaussian", "link": "identity", **_overview(fit)}
    return nested_parts(fit, head, coef_table(fit, ddf), variance_components(fit), var_corr(fit), random_effects)


def nested_parts(
    fit: Fit,
    head: dict[str, Any],
    coefficients: pd.DataFrame,
    components: dict[str, float],
    variances: pd.DataFrame,
    random_effects: bool,
) -> dict[str, Any]:
    """What the dicts of linear and generalised models have in common, after the figures of `head`."""
    certificate = fit.certificate
    parts: dict[str, Any] = {
        "formula": fit.design.formula,
        **head,
        "n_groups": fit.design.n_groups,
        "n_rows": int(fit.design.keep.size),
        "fixed_effects": coefficients.rename_axis("term").reset_index().to_dict("records"),
        "cov_params": fit.vcov.tolist(),
        "variance_components": components,
        "var_corr": variances.to_dict("records"),
        "theta": fit.theta.tolist(),
        "dropped": list(fit.design.dropped),
        "notes": list(fit.design.notes),
        "certificate": {name: getattr(certificate, name) for name in type(certificate).__dataclass_fields__},
    }
    if random_effects:
        parts["random_effects"] = {g: _records(f) for g, f in conditional_modes(fit).items()}
    plain: dict[str, Any] = _plain(parts)
    return plain


def _overview(fit: Fit) -> dict[str, Any]:
    return {
        "reml": fit.reml,
        "n_obs": fit.design.n_obs,
        "n_params": fit.n_params,
        "df_resid": fit.df_resid,
        "sigma": fit.sigma,
        "criterion": fit.criterion,
        "log_likelihood": fit.log_likelihood,
        "aic": aic(fit),
        "bic": bic(fit),
        "converged": fit.certificate.converged,
        "is_singular": fit.certificate.is_singular,
    }


def _fixed_rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = ["estimate", "std_error", "statistic", "p_value"]
    return list(table[columns].itertuples(index=False, name=None))


def _random_term(entry: VarianceEntry) -> str:
    if entry.name1 is None:
        return "sd__Observation"
    return f"sd__{entry.name1}" if entry.name2 is None else f"cor__{entry.name1}.{entry.name2}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = ["level", *map(str, frame.columns)]
    return [dict(zip(names, row, strict=True)) for row in frame.itertuples(name=None)]


def _plain(value: Any) -> Any:
    """Replace arrays' scalars by Python's own and NaN or infinity by None, all the way down."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
