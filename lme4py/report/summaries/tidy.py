"""Results as tidy data frames (broom.mixed's shapes) and as plain Python for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.design.design import CONDITIONAL
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import DISPERSION, Parameter, fit_parameters, fit_values
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.parameters import deviation_limits
from lme4py.inference.estimates.coefficients import (
    chosen_alpha,
    coef_table,
    confidence_intervals,
    covariance_frame,
)
from lme4py.inference.estimates.dispersion import shown_dispersion
from lme4py.inference.estimates.likelihood import aic, bic
from lme4py.inference.estimates.part_views import ALL, component_names
from lme4py.inference.estimates.random_effects import coef, conditional_modes, conditional_sds
from lme4py.inference.estimates.residual_part import DISPERSION_PART, has_dispersion_part
from lme4py.inference.estimates.residuals import residual_table
from lme4py.inference.estimates.variance import VarianceEntry, var_corr, variance_components
from lme4py.inference.estimates.variance_errors import standard_errors, wald_limits
from lme4py.inference.overview.components import component_intervals, component_table
from lme4py.inference.overview.intervals import intervals
from lme4py.inference.responses.correlations import residual_correlations
from lme4py.linalg.types import FloatArray
from lme4py.report.summaries.parts import entries, threshold_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EFFECTS", "glance", "optimisation_log", "tidy", "to_dict"]

EFFECTS = ("fixed", "ran_pars", "ran_vals", "ran_coefs")
SCALES = ("sdcor", "vcov")
_COLUMNS = ("effect", "group", "level", "term", "estimate", "std_error", "statistic", "p_value")
_LIMITS = ("conf_low", "conf_high")
_NAN = float("nan")


def tidy(
    fit: Fit,
    ddf: str | None = None,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    conf_int: bool = False,
    conf_level: float | None = None,
    conf_method: str = "wald",
    scales: str = "sdcor",
    exponentiate: bool = False,
    component: str | None = None,
) -> pd.DataFrame:
    """One row per parameter: effect, group, term, estimate, std_error, statistic, p_value, as broom.mixed.

    Parameters
    ----------
    fit : Fit
    ddf : str, optional
        Degrees of freedom of the tests (and the Wald limits) of the fixed effects; `default_ddf` of the fit when not
        given.
    effects : str or sequence of {"fixed", "ran_pars", "ran_vals", "ran_coefs"}
        Fixed effects (and thresholds), standard deviations and correlations of the random effects (and the dispersion,
        and the parameters of a residual structure: group "Residual", ``cor__v1.v2``, ``range__Observation``),
        conditional modes, and coefficients of each level. Rows come in the order asked for.
    conf_int : bool
        Add the columns conf_low and conf_high.
    conf_level : float, optional
        That of the fit when not given.
    conf_method : {"wald", "profile", "boot"}
        For fixed effects and `ran_pars`; limits of conditional modes are always normal.
    scales : {"sdcor", "vcov"}
        `ran_pars` as standard deviations and correlations (``sd__x``, ``cor__a.b``), or as variances and covariances
        (``var__x``, ``cov__a.b``; without limits).
    exponentiate : bool
        exp of the fixed effects and their limits; their standard errors by the delta method.
    component : str, optional
        Only the rows of one linear predictor; all when not given, with a column that names it where there are several.
        Those of the dispersion part of `lmer` have Wald limits only: NaN with another method.

    Returns
    -------
    pandas.DataFrame
        Columns effect, (category, of unordered ones; response, of several,)
        group, level (only with `ran_vals` or `ran_coefs`), term, estimate, std_error, statistic,
        p_value, conf_low, conf_high. NaN where a quantity has no standard error, test or limit.

    Raises
    ------
    OptionError
    """
    wanted = _check_effects(effects)
    if scales not in SCALES:
        raise OptionError(f"scales={scales!r} is not known.{did_you_mean(str(scales), SCALES)} Use 'sdcor' or 'vcov'.")
    alpha = _alpha(fit, conf_level) if conf_int else None
    blocks = []
    for effect in wanted:
        if effect == "fixed":
            blocks += _fixed_blocks(fit, ddf, alpha, conf_method, exponentiate)
        elif effect == "ran_pars":
            blocks += [_parameter_block(fit, alpha, conf_method, scales), *_dispersion_blocks(fit, alpha, conf_method)]
            blocks += _family_blocks(fit, alpha, conf_method, exponentiate)
            blocks += _structure_blocks(fit, alpha, conf_method)
            blocks += _residual_blocks(fit, alpha, conf_method, exponentiate)
            blocks += _between_blocks(fit, alpha, conf_method, scales)
        else:
            blocks += _level_blocks(fit, effect, alpha)
    from lme4py.tables.frames import printed

    table = _stacked(blocks, "ran_vals" in wanted or "ran_coefs" in wanted, conf_int)
    return printed(_of_component(fit, _by_part(fit, table), component))


def _by_part(fit: Fit, table: pd.DataFrame) -> pd.DataFrame:
    """Random effects of further parts under their own names, their part in the column `component`."""
    if fit.design.responses is not None:
        table.insert(1, "response", [_response(fit, row) for row in table.itertuples()])
        return table
    if fit.family.is_joint:
        table.insert(1, "category", [_category(term) for term in table["term"]])
        return table
    further = fit.family.components[1:]
    if "component" not in table and any(term.parts for term in fit.design.terms):
        table.insert(1, "component", CONDITIONAL)
    for part in further:
        for row, term in table["term"].items():
            two = term.startswith(("cor__", "cov__"))
            if term.count(f"{part}: ") == 1 + two:
                table.loc[row, ["component", "term"]] = [part, term.replace(f"{part}: ", "")]
    return table


def _response(fit: Fit, row: Any) -> str:
    """The response of a coefficient, a standard deviation or a mode; "" for a correlation of two."""
    labels = fit.design.responses.labels if fit.design.responses else ()
    if row.term.startswith(("cor__", "cov__")):
        return ""
    name = row.term.split("__", 1)[-1]
    return next((label for label in labels if name == label or name.startswith(f"{label}: ")), "")


def _category(term: str) -> str:
    """The category of a coefficient or a standard deviation, "B" of "sd__B: x"; "" for a correlation of two."""
    if term.startswith(("cor__", "cov__")) or ": " not in term:
        return ""
    return term.split("__", 1)[-1].split(": ", 1)[0]


def _of_component(fit: Fit, table: pd.DataFrame, component: str | None) -> pd.DataFrame:
    if component in (None, ALL):
        return table
    (name,) = component_names(fit, component)
    if "component" not in table:
        return table
    return table[table["component"] == name].reset_index(drop=True)


def _check_effects(effects: str | Sequence[str]) -> list[str]:
    wanted = [effects] if isinstance(effects, str) else list(effects)
    for effect in wanted:
        if effect not in EFFECTS:
            raise OptionError(
                f"effects names {effect!r}.{did_you_mean(str(effect), EFFECTS)} Use some of {', '.join(EFFECTS)}."
            )
    if not wanted:
        raise OptionError(f"effects is empty; give some of {', '.join(EFFECTS)}.")
    return list(dict.fromkeys(wanted))


def _alpha(fit: Fit, level: Any) -> float:
    """One minus the confidence level."""
    if level is None:
        return chosen_alpha(fit, None)
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0.0 < level < 1.0:
        raise OptionError(f"`conf_level` is {level!r}; give a number between 0 and 1, such as 0.95.")
    return 1.0 - float(level)


def _stacked(blocks: list[dict[str, Any]], levels: bool, limits: bool) -> pd.DataFrame:
    import pandas as pd

    names = [name for name in _COLUMNS if levels or name != "level"] + list(_LIMITS if limits else ())
    if any("component" in block for block in blocks):
        names.insert(1, "component")
        blocks = [{"component": "conditional"} | block for block in blocks]
    frames = [pd.DataFrame({name: _column(block, name) for name in names}) for block in blocks]
    table = pd.concat(frames, ignore_index=True)
    # As objects, so that the missing group of a fixed effect stays None.
    for name in ("group", "level"):
        if name in table:
            cells = [cell for block in blocks for cell in _column(block, name)]
            table[name] = pd.Series(cells, index=table.index, dtype=object)
    return table


def _column(block: dict[str, Any], name: str) -> Any:
    n = len(block["term"])
    if name == "effect":
        return [block["effect"]] * n
    if name in ("group", "level"):
        return block.get(name, [None] * n)
    return block.get(name, np.full(n, _NAN))


def _fixed_blocks(
    fit: Fit, ddf: str | None, alpha: float | None, method: str, exponentiate: bool
) -> list[dict[str, Any]]:
    table = coef_table(_any(fit), ddf)
    block: dict[str, Any] = {"effect": "fixed", "term": list(table.index)}
    block |= {name: table[name].to_numpy(dtype=np.float64) for name in _COLUMNS[4:]}
    if alpha is not None:
        block |= _limit_columns(_fixed_limits(fit, ddf, alpha, method))
    if exponentiate:
        _exponentiate(block)
    cuts = threshold_table(fit)
    if cuts.empty:
        return [block]
    own: dict[str, Any] = {"effect": "threshold", "term": list(cuts.index)}
    own |= {name: cuts[name].to_numpy(dtype=np.float64) for name in _COLUMNS[4:]}
    if alpha is not None:
        half = -special.ndtri(alpha / 2.0) * own["std_error"]
        own |= {"conf_low": own["estimate"] - half, "conf_high": own["estimate"] + half}
    return [block, own]


def _fixed_limits(fit: Fit, ddf: str | None, alpha: float, method: str) -> Any:
    if method == "wald":
        return confidence_intervals(_any(fit), alpha, "wald", "fixed", ddf).to_numpy(dtype=np.float64)
    return intervals(fit, alpha, method, "fixed").to_numpy(dtype=np.float64)


def _limit_columns(limits: Any) -> dict[str, Any]:
    return dict(zip(_LIMITS, np.asarray(limits, dtype=np.float64).reshape(-1, 2).T, strict=True))


def _parameter_block(fit: Fit, alpha: float | None, method: str, scales: str) -> dict[str, Any]:
    found = entries(fit)
    block: dict[str, Any] = {
        "effect": "ran_pars",
        "group": [entry.group for entry in found],
        "term": [_random_term(entry, scales) for entry in found],
        "estimate": np.array([getattr(entry, scales) for entry in found], dtype=np.float64),
    }
    if alpha is None or scales == "vcov":
        return block
    # The same order: each term's standard deviations, its correlations, and the residual one at the end.
    wanted = [p for p in fit_parameters(fit) if p.is_random]
    if method == "wald":
        limits = wald_limits(fit, wanted, alpha)
    else:
        limits = intervals(fit, alpha, method, [p.name for p in wanted]).to_numpy(dtype=np.float64)
    if len(limits) < len(found):
        limits = np.concatenate([limits, _deviation_limits(fit, len(found) - len(limits), alpha, method)])
    return block | _limit_columns(limits)


def _deviation_limits(fit: Fit, count: int, alpha: float, method: str) -> FloatArray:
    """Limits of residual standard deviations that are no parameters by name: of unequal residuals, or known ones."""
    if method == "wald" and isinstance(fit, ResidualFit):
        return deviation_limits(fit, float(-special.ndtri(alpha / 2.0)))
    return np.full((count, 2), _NAN)


def _dispersion_blocks(fit: Fit, alpha: float | None, method: str) -> list[dict[str, Any]]:
    """The dispersion, where it is no residual variance."""
    found = shown_dispersion(fit, alpha)
    if found is None or any(entry.name1 is None for entry in entries(fit)):
        return []
    block: dict[str, Any] = {"effect": "dispersion", "term": [found.name]}
    block |= {"estimate": np.array([found.estimate]), "std_error": np.array([found.std_error])}
    if alpha is None:
        return [block]
    limits = (found.lower, found.upper) if method == "wald" else intervals(fit, alpha, method, [DISPERSION])
    return [block | _limit_columns(limits)]


def _family_blocks(fit: Fit, alpha: float | None, method: str, exponentiate: bool) -> list[dict[str, Any]]:
    """Coefficients of further parts, each with its component, and parameters of the family beside the dispersion."""
    others = [p for p in fit_parameters(fit) if p.kind == "other"]
    blocks = []
    for component in (*fit.family.components[1:], ""):
        wanted = [p for p in others if p.name.startswith(f"{component}: ") or (not component and ": " not in p.name)]
        if not wanted:
            continue
        values, errors = fit_values(fit, wanted), standard_errors(fit, wanted)
        block: dict[str, Any] = {"effect": "fixed" if component else "family", "estimate": values, "std_error": errors}
        block["term"] = [p.name.split(": ", 1)[-1] for p in wanted]
        if component:
            z = values / errors
            block |= {"component": component, "statistic": z, "p_value": 2.0 * special.ndtr(-np.abs(z))}
        if alpha is not None:
            limits = (
                wald_limits(fit, wanted, alpha) if method == "wald" else intervals(fit, alpha, method, _names(wanted))
            )
            block |= _limit_columns(limits)
        if exponentiate and component:
            _exponentiate(block)
        blocks.append(block)
    return blocks


def _structure_blocks(fit: Fit, alpha: float | None, method: str) -> list[dict[str, Any]]:
    """Correlations, ranges and variance functions of the residuals, on their own scale whatever `scales` is."""
    wanted = [] if fit.design.responses else [p for p in model_of(fit).residual_parameters() if not p.is_residual_sd]
    if has_dispersion_part(fit):
        wanted = [p for p in wanted if p.natural_parameter is not None]
    if not wanted:
        return []
    block: dict[str, Any] = {
        "effect": "ran_pars",
        "group": ["Residual"] * len(wanted),
        "term": [_residual_term(parameter) for parameter in wanted],
        "estimate": fit_values(fit, wanted),
    }
    if alpha is None:
        return [block]
    limits = wald_limits(fit, wanted, alpha) if method == "wald" else intervals(fit, alpha, method, _names(wanted))
    return [block | _limit_columns(limits)]


def _residual_term(parameter: Parameter) -> str:
    """ "cor__v1.v2" of "residual cor(v1, v2)"; the name of a coefficient of a variance function stays as it is."""
    name = parameter.name.removeprefix("residual ")
    if parameter.natural_parameter is None:
        return name
    label, _, stratum = name.partition(" in ")
    word, _, rest = label.removesuffix(")").partition("(")
    own = rest.replace(", ", ".") or "Observation"
    return f"{word}__{stratum}: {own}" if stratum else f"{word}__{own}"


def _residual_blocks(fit: Fit, alpha: float | None, method: str, exponentiate: bool) -> list[dict[str, Any]]:
    """Coefficients of the dispersion part of a linear model, which have Wald limits only."""
    if not has_dispersion_part(fit):
        return []
    table = component_table(fit, component=DISPERSION_PART)
    block: dict[str, Any] = {"effect": "fixed", "component": DISPERSION_PART, "term": list(table.index)}
    block |= {name: table[name].to_numpy(dtype=np.float64) for name in _COLUMNS[4:]}
    if alpha is not None and method == "wald":
        block |= _limit_columns(component_intervals(fit, DISPERSION_PART, "fixed", alpha=alpha))
    if exponentiate:
        _exponentiate(block)
    return [block]


def _between_blocks(fit: Fit, alpha: float | None, method: str, scales: str) -> list[dict[str, Any]]:
    """Correlations of the residuals of several responses."""
    if fit.design.responses is None:
        return []
    found = residual_correlations(fit, 0.5 if alpha is None else alpha, method == "wald")
    if not found:
        return []
    sds = dict(fit.residual_deviations)
    cor = scales == "sdcor"
    block: dict[str, Any] = {
        "effect": "ran_pars",
        "group": [row[0] for row in found],
        "term": [f"{'cor' if cor else 'cov'}__{row[1]}.{row[2]}" for row in found],
        "estimate": np.array([row[3] * (1.0 if cor else sds[row[1]] * sds[row[2]]) for row in found]),
    }
    return [block | _limit_columns([row[5:] for row in found])] if alpha is not None and cor else [block]


def _exponentiate(block: dict[str, Any]) -> None:
    """exp of estimates and limits, standard errors by the delta method."""
    block["std_error"] = np.exp(block["estimate"]) * block["std_error"]
    block |= {name: np.exp(block[name]) for name in ("estimate", *_LIMITS) if name in block}


def _names(wanted: list[Parameter]) -> list[str]:
    return [parameter.name for parameter in wanted]


def _random_term(entry: VarianceEntry, scales: str) -> str:
    own, cross = ("sd", "cor") if scales == "sdcor" else ("var", "cov")
    if entry.name1 is None:
        return f"{own}__Observation"
    if entry.shape:
        word, _, rest = entry.shape.partition("(")
        return f"{word}__{rest[:-1]}"
    return f"{own}__{entry.name1}" if entry.name2 is None else f"{cross}__{entry.name1}.{entry.name2}"


def _level_blocks(fit: Fit, effect: str, alpha: float | None) -> list[dict[str, Any]]:
    same = _any(fit)
    frames = conditional_modes(same) if effect == "ran_vals" else coef(same)
    errors = conditional_sds(same) if effect == "ran_vals" else {}
    blocks = []
    for group, frame in frames.items():
        k, n = frame.shape[1], frame.shape[0]
        block: dict[str, Any] = {
            "effect": effect,
            "group": [group] * (k * n),
            "level": list(frame.index) * k,
            "term": [name for name in frame.columns for _ in range(n)],
            "estimate": frame.to_numpy(dtype=np.float64).T.ravel(),
        }
        if group in errors:
            block["std_error"] = errors[group].to_numpy(dtype=np.float64).T.ravel()
            if alpha is not None:
                half = -special.ndtri(alpha / 2.0) * block["std_error"]
                block |= {"conf_low": block["estimate"] - half, "conf_high": block["estimate"] + half}
        blocks.append(block)
    return blocks


def _any(fit: Fit) -> Any:
    """The functions for linear models read only what both kinds of fit have."""
    return fit


# --- one row, and plain Python ----------------------------------------------------------------------------------


def glance(fit: Fit) -> pd.DataFrame:
    """One row for the whole model: sizes, sigma, criterion, log-likelihood, AIC, BIC, convergence.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    DataFrame, one row
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    return printed(pd.DataFrame([overview(fit)]))


def overview(fit: Fit) -> dict[str, Any]:
    """The cells of `glance`."""
    same = _any(fit)
    sizes = {"n_obs": fit.design.n_obs, "n_params": fit.n_params, "df_resid": fit.df_resid, "sigma": fit.sigma}
    quality = {
        "criterion": fit.criterion,
        "log_likelihood": fit.log_likelihood,
        "deviance": -2.0 * fit.log_likelihood,
        "aic": aic(same),
        "bic": bic(same),
        "converged": fit.certificate.converged,
        "is_singular": fit.certificate.is_singular,
    }
    if fit.approximation is None:
        return {"reml": fit.reml, **sizes, **quality}
    head = {"family": fit.family.name, "link": fit.family.link.name, **fit.approximation._asdict()}
    return {**head, **sizes, **quality, "dispersion": _dispersion(fit)}


def _dispersion(fit: Fit) -> float:
    """As `MEGLMResult.dispersion`; NaN where that is None."""
    found = shown_dispersion(fit)
    if found is None:
        return _NAN if fit.conventions.stata else 1.0
    return found.estimate


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


def to_dict(fit: Fit, random_effects: bool = False) -> dict[str, Any]:
    """The result as nested dicts and lists of plain Python values; what is not a finite number is None.

    Parameters
    ----------
    fit : Fit
    random_effects : bool
        The conditional modes too.

    Returns
    -------
    dict
    """
    same, certificate = _any(fit), fit.certificate
    head = {} if fit.approximation is not None else {"family": "gaussian", "link": "identity"}
    parts: dict[str, Any] = {
        "formula": fit.design.formula,
        **head,
        **overview(fit),
        "n_groups": fit.design.n_groups,
        "n_rows": int(fit.design.keep.size),
        "fixed_effects": _table_records(coef_table(same)),
        "cov_params": covariance_frame(same).to_numpy().tolist(),
        "variance_components": variance_components(same),
        "var_corr": var_corr(same).to_dict("records"),
        "theta": fit.theta.tolist(),
        **_residual_records(fit),
        "dropped": list(fit.design.dropped),
        "notes": list(fit.design.notes),
        "certificate": asdict(certificate),
    }
    cuts = threshold_table(fit)
    if not cuts.empty:
        parts["thresholds"] = _table_records(cuts)
        parts["categories"] = list(same.categories)
    if random_effects:
        parts["random_effects"] = {g: _level_records(f) for g, f in conditional_modes(same).items()}
    plain: dict[str, Any] = _plain(parts)
    return plain


def _residual_records(fit: Fit) -> dict[str, Any]:
    """The residual structure and its parameters."""
    if not isinstance(fit, ResidualFit):
        return {}
    return {"residual": fit.residual.text, "residual_parameters": residual_table(fit).to_dict("records")}


def _table_records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.rename_axis("term").reset_index().to_dict("records")


def _level_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
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
