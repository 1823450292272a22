"""Parameters that a user holds at given values (``fix=``), as far as the formula can say it.

A coefficient that is held at b is a known part of the linear predictor: the term leaves the formula and
``offset(b * x)`` takes its place, so that new data, refits and tests have it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from lme4py.errors import OptionError, did_you_mean
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Formula
from lme4py.formula.update import update_formula

__all__ = ["Held", "hold"]


@dataclass(frozen=True)
class Held:
    """A formula in which coefficients are held.

    Attributes
    ----------
    formula : str
    sigma : float or None
        The residual standard deviation, where it is held.
    notes : tuple of str
    """

    formula: str
    sigma: float | None
    notes: tuple[str, ...]


def hold(formula: Formula, fix: object, sigma: bool) -> Held:
    """Hold parameters at given values.

    Parameters
    ----------
    formula : Formula
    fix : mapping of str to float
        "sigma", or the name of a numeric column of the fixed effects, "Intercept" at 0.
    sigma : bool
        Whether the model has a residual standard deviation that can be held.

    Raises
    ------
    OptionError
        Not a dict of numbers, or a parameter that cannot be held.

    Examples
    --------
    >>> from lme4py.formula.parse import parse_formula
    >>> hold(parse_formula("y ~ x + z + (1 | g)"), {"x": 0.5, "sigma": 1}, True)
    Held(formula='y ~ z + offset(0.5 * (x)) + (1 | g)', sigma=1.0, notes=('x is held at 0.5',))
    """
    if not isinstance(fix, Mapping):
        raise OptionError(f'`fix` is of type {type(fix).__name__}; give a dict such as {{"x": 0}}.')
    found: float | None = None
    changes, notes = [], []
    for name, given in fix.items():
        value = _number(name, given)
        if name == "sigma" and sigma:
            found = value
            continue
        changes.append(_change(formula, name, value))
        notes.append(f"{name} is held at {value:g}")
    text = formula.text if not changes else update_formula(formula, f"~ . {' '.join(changes)}")[0]
    return Held(text, found, tuple(notes))


def _number(name: object, given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not isfinite(given):
        raise OptionError(f"fix holds {name!r} at {given!r}; give a finite number.")
    return float(given)


def _change(formula: Formula, name: str, value: float) -> str:
    """What of a formula changes where a coefficient is held."""
    if name == "Intercept" and formula.fixed.intercept:
        if value:
            raise OptionError("fix holds the intercept at 0 only; give another known value as offset=.")
        return "- 1"
    known = _columns(formula)
    if name not in known:
        hint = did_you_mean(str(name), ["sigma", *known])
        raise OptionError(
            f"fix names {name!r}, which cannot be held.{hint} It holds sigma (linear models) and coefficients of "
            f"numeric columns ({', '.join(known) or 'there are none'}), not variances, correlations and levels of "
            "factors."
        )
    return f"- {name}" + (f" + offset({value!r} * ({name}))" if value else "")


def _columns(formula: Formula) -> Sequence[str]:
    """Fixed terms of one variable that are in no interaction."""
    names = [deparse(node) for node in formula.fixed.variables]
    alone = [names[term.variables[0]] for term in formula.fixed.terms if len(term.variables) == 1]
    others = {names[v] for term in formula.fixed.terms if len(term.variables) > 1 for v in term.variables}
    return [name for name in alone if name not in others]
