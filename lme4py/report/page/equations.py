"""The equations of a model as HTML: italic names, subscripts, no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lme4py.design.design import TermPlan
from lme4py.design.names import INTERCEPTS
from lme4py.fits.base import Fit
from lme4py.inference.estimates.dispersion import family_params, shown_dispersion
from lme4py.report.summaries.residual import residual_rows

__all__ = ["equations"]

# Longer sums are written as a product of a row and a vector.
_MOST = 8


def equations(fit: Fit) -> list[str]:
    """Distribution of the response, its linear predictor, the random effects and what is left, one line each.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    list of str
        HTML.
    """
    right = [*_fixed(fit), *_random(fit.design.terms)]
    if fit.design.offset is not None:
        right.append("offset<sub>i</sub>")
    left, last = _left(fit)
    eta = " + ".join(right) or "0"
    return [*last[:1], f"{left} = {_signed(fit, eta)}", *last[1:], *_distributions(fit)]


def _left(fit: Fit) -> tuple[str, list[str]]:
    """The left side of the equation of the linear predictor, and the distribution of the response."""
    y = f"{_var(fit.design.response_name)}<sub>i</sub>"
    if fit.normal_errors:
        return y, []
    link = escape(fit.family.link.name)
    if fit.family.has_thresholds:
        event = fit.family.event.format(y=y)
        return f"{link}(P({event}))", []
    trials = "<var>n</var><sub>i</sub>, " if fit.family.has_trials else ""
    return f"{link}(<var>&mu;</var><sub>i</sub>)", [
        f"{y} ~ {escape(fit.family.name)}({trials}<var>&mu;</var><sub>i</sub>)"
    ]


def _signed(fit: Fit, eta: str) -> str:
    if fit.normal_errors:
        return f"{eta} + <var>&epsilon;</var><sub>i</sub>"
    if not fit.family.has_thresholds:
        return eta
    further = fit.family.components
    threshold = "<var>&theta;</var><sub>ki</sub>" if "nominal" in further else "<var>&theta;</var><sub>k</sub>"
    whole = f"{threshold} &minus; ({eta})"
    return f"({whole}) / <var>&sigma;</var><sub>i</sub>" if "scale" in further else whole


def _fixed(fit: Fit) -> list[str]:
    names = list(fit.design.x_names)
    if len(names) > _MOST:
        return [f"<var>x</var><sub>i</sub>&prime;<var>&beta;</var> ({len(names)} coefficients)"]
    return [
        f"<var>&beta;</var><sub>{j}</sub>"
        if name in INTERCEPTS
        else f"<var>&beta;</var><sub>{j}</sub>&middot;{_at(name)}"
        for j, name in enumerate(names)
    ]


def _at(name: str) -> str:
    return f"{_var(name)}<sub>i</sub>"


def _var(name: str) -> str:
    return f'<span class="name">{escape(name)}</span>'


def _random(terms: Sequence[TermPlan]) -> list[str]:
    out, letters = [], _letters(terms)
    for term, letter in zip(terms, letters, strict=True):
        where = f"[{escape(term.group)}<sub>i</sub>]"
        if len(term.columns) > _MOST:
            out.append(f"<var>z</var><sub>i</sub>&prime;<var>{letter}</var>{where}")
            continue
        for j, name in enumerate(term.columns):
            effect = f"<var>{letter}</var><sub>{j}</sub>{where}"
            out.append(effect if name in INTERCEPTS else f"{effect}&middot;{_at(name)}")
    return out


def _letters(terms: Sequence[TermPlan]) -> list[str]:
    return ["b"] if len(terms) == 1 else [f"b<sup>({t + 1})</sup>" for t in range(len(terms))]


def _distributions(fit: Fit) -> list[str]:
    out = []
    for t, (term, letter) in enumerate(zip(fit.design.terms, _letters(fit.design.terms), strict=True)):
        count = len(term.columns)
        sigma = "<var>&Sigma;</var>" if len(fit.design.terms) == 1 else f"<var>&Sigma;</var><sub>{t + 1}</sub>"
        if count == 1:
            variance = float(fit.covariance_estimates[t][0, 0])
            out.append(f"<var>{letter}</var>[{escape(term.group)}] ~ N(0, {variance:.4g})")
        else:
            words = f"{sigma}: {count} &times; {count}, {escape(term.structure.heading.lower())}"
            out.append(f"<var>{letter}</var>[{escape(term.group)}] ~ N(0, {sigma}), {words}")
    out += _rest(fit)
    return out


def _rest(fit: Fit) -> list[str]:
    if fit.normal_errors and fit.independent_residuals:
        weights = " / <var>w</var><sub>i</sub>" if fit.design.weights is not None else ""
        return [
            f"<var>&epsilon;</var><sub>i</sub> ~ N(0, <var>&sigma;</var><sup>2</sup>{weights}), "
            f"<var>&sigma;</var> = {fit.sigma:.4g}"
        ]
    rows = [f"{escape(name)} {escape(text)}" for name, text in residual_rows(fit)]
    found = None if fit.normal_errors else shown_dispersion(fit)
    if found is not None:
        rows.append(f"{escape(found.name)} = {found.estimate:.4g}{escape(f' ({found.limit})' if found.limit else '')}")
    if not fit.normal_errors:
        rows += [f"{escape(name)} = {value:.4g}" for name, value in family_params(fit).items()]
        rows += [
            f"{escape(part.replace('_', ' '))} part: see its coefficients below" for part in fit.family.components[1:]
        ]
    return rows
