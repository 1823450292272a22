"""A fitted model in plain words: what was asked, what it is, and what each coefficient says."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lme4py.design.names import INTERCEPTS
from lme4py.fits.base import Fit
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import chosen_alpha, coef_table, confidence_intervals
from lme4py.report.summaries.parts import method_label
from lme4py.report.summaries.summary import rows_used
from lme4py.tables.numbers import format_p_value

__all__ = ["findings", "headline", "listed", "question"]

# A level of a factor against its first one, as treatment contrasts name their columns.
_LEVEL = re.compile(r"(.+)\[T\.(.+)\]")
_MOST = 25
_MULTIPLIED = {"odds_ratio": "the odds are", "rate_ratio": "the mean is"}


def listed(words: Sequence[str], last: str = "and") -> str:
    """``"a, b and c"``.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
    ('a, b and c', 'a', '')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def headline(fit: Fit) -> str:
    """What kind of model it is, of how many rows and groups, and how it was fitted.

    Parameters
    ----------
    fit : Fit
    """
    groups = [f"{count} levels of {name}" for name, count in fit.design.n_groups.items()]
    kind = fit.kind[:1].upper() + fit.kind[1:]
    text = f"{kind}, {method_label(fit)}; {rows_used(fit)}"
    return f"{text}; {listed(groups)}." if groups else f"{text}."


def question(fit: Fit) -> str:
    """What the formula asks, in one or two sentences.

    Parameters
    ----------
    fit : Fit
    """
    response, design = fit.design.response_name, fit.design
    fixed = [label for label in design.predictors[0].labels if label]
    if design.responses is not None:
        response = listed(design.responses.labels)
        fixed = [label for label in fixed if label != RESPONSE]
    groups = list(design.n_groups)
    if fixed:
        plain = [label for label in fixed if ":" not in label]
        joint = [f"on how {listed(label.split(':'))} act together" for label in fixed if ":" in label]
        verb = "does" if design.responses is None else "do"
        first = f"How {verb} {response} depend {listed([*([f'on {listed(plain)}'] if plain else []), *joint])}?"
    elif groups:
        first = f"How much do the levels of {listed(groups)} differ in {response}?"
    else:
        first = f"What is the mean of {response}?"
    second = [_differ(term.group, _columns(fit, term.columns)) for term in design.terms]
    return f"{first} {' '.join(second)}".strip()


def _columns(fit: Fit, names: Sequence[str]) -> list[str]:
    """Names of effects; of several responses each once."""
    responses = fit.design.responses
    return list(dict.fromkeys(names if responses is None else (responses.split(name)[1] for name in names)))


def _differ(group: str, columns: Sequence[str]) -> str:
    slopes = [name for name in columns if name not in INTERCEPTS]
    level = len(slopes) < len(columns)
    parts = (["in their level"] if level else []) + ([f"in the effect of {listed(slopes)}"] if slopes else [])
    return f"Levels of {group} may differ {listed(parts)}."


def findings(fit: Fit, ddf: str | None = None) -> list[str]:
    """A sentence for each fixed effect but the intercept, with its confidence limits and p-value.

    Parameters
    ----------
    fit : Fit
    ddf : str, optional
        Degrees of freedom; those of the fit when not given.
    """
    table = coef_table(fit, ddf).join(confidence_intervals(fit, ddf=ddf))
    level = f"{100.0 * (1.0 - chosen_alpha(fit, None)):g} %"
    numbers = table[["estimate", "lower", "upper", "p_value"]].to_numpy(dtype=np.float64)
    targets, plain = _targets(fit, list(map(str, table.index)))
    kept = [j for j, name in enumerate(plain) if name not in INTERCEPTS]
    names = [plain[j] for j in kept]
    out = [
        f"{_sentence(fit, plain[j], numbers[j].tolist(), level, targets[j])}{_caution(plain[j], names)}"
        for j in kept[:_MOST]
    ]
    if len(names) > _MOST:
        out.append(f"{len(names) - _MOST} more coefficients stand in the table of estimates.")
    return out


def _targets(fit: Fit, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What coefficients are about, and their names without it, where there are several responses."""
    responses = fit.design.responses
    if responses is None:
        own = fit.design.response_name if fit.normal_errors else f"the linear predictor ({fit.family.link.name})"
        return [own] * len(names), list(names)
    found = [responses.split(name) for name in names]
    return [label if fit.normal_errors else f"the linear predictor of {label}" for label, _ in found], [
        name for _, name in found
    ]


def _sentence(fit: Fit, name: str, row: Sequence[float], level: str, target: str) -> str:
    estimate, lower, upper, p = row
    if np.isinf(estimate):
        return f"{_what(name)}: the estimate is infinite; see the notes on the model."
    if not np.isfinite(lower + upper):
        return f"{_what(name)}: there is no estimate with limits; see the notes on the model."
    shown = format_p_value(p)
    tail = f"p {shown}" if shown.startswith("<") else f"p = {shown}"
    # exp(beta) means something for a mean whatever the family, and for ordered categories with the logit link.
    ratio = fit.family.ratio if fit.family.has_thresholds else fit.family.link.ratio
    if ":" in name:
        where = "" if fit.design.responses is None else f" for {target}"
        return (
            f"{_what(name)}: coefficient {estimate:.4g}{where} ({level} interval {lower:.4g} to {upper:.4g}; {tail})."
        )
    if ratio in _MULTIPLIED:
        a, b, c = np.exp([estimate, lower, upper])
        scale = _MULTIPLIED[ratio]
        if fit.family.has_thresholds:
            scale = "the odds of a higher category are"
        return f"{_what(name)}: {scale} multiplied by {a:.3g} ({level} interval {b:.3g} to {c:.3g}; {tail})."
    change = "higher" if estimate >= 0 else "lower"
    size = f"{abs(estimate):.4g}"
    return f"{_what(name)}: {target} is {size} {change} ({level} interval {lower:.4g} to {upper:.4g}; {tail})."


def _what(name: str) -> str:
    """What changes when a column goes from 0 to 1."""
    parts = name.split(":")
    if len(parts) > 1:
        return f"Interaction of {listed([_plain(part) for part in parts])}"
    found = _LEVEL.fullmatch(name)
    return f"{found[1]} {found[2]}, against the first level" if found else f"One unit more of {name}"


def _plain(part: str) -> str:
    found = _LEVEL.fullmatch(part)
    return f"{found[1]} {found[2]}" if found else part


def _caution(name: str, names: Sequence[str]) -> str:
    """A coefficient that takes part in an interaction belongs to a value of the others."""
    if ":" in name or not any(name in other.split(":") for other in names if ":" in other):
        return ""
    return " This is where the variables that it interacts with are 0 or at their first level."
