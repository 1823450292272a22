"""``dispformula="~ 0"``: a model without independent residuals, whose covariance a random-effects term describes.

It is glmmTMB's way to write correlated residuals: a term with one effect for each row is the residual, and is fitted as
one, without the small variance that keeps it apart.
"""

from __future__ import annotations

from lme4py.covariance import find_structure
from lme4py.errors import OptionError
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Bar, Formula
from lme4py.formula.parse import parse_formula
from lme4py.formula.update import update_formula

__all__ = ["is_none", "residual_of_term"]


def is_none(dispformula: object) -> bool:
    """Whether a dispersion formula leaves no residual: it has no terms, and no intercept."""
    if not isinstance(dispformula, str) or not dispformula.strip().startswith("~"):
        return False
    terms = parse_formula(f"y {dispformula.strip()}")
    return not (terms.bars or terms.fixed.intercept or terms.fixed.terms or terms.fixed.offsets)


def residual_of_term(formula: Formula) -> tuple[str, str, str]:
    """The term that stands for the residuals.

    Parameters
    ----------
    formula : Formula

    Returns
    -------
    formula : str
        Without the term.
    residual : str
        The term as a residual structure.
    label : str
        Of the term.

    Raises
    ------
    OptionError
        There is no such term, or more than one.

    Examples
    --------
    >>> residual_of_term(parse_formula("y ~ x + (1 | site) + ar1(0 + visit | id)"))
    ('y ~ x + (1 | site)', 'ar1(visit | id)', 'ar1(0 + visit | id)')
    """
    found = [bar for bar in formula.bars if _has_index(bar)]
    if len(found) != 1:
        which = ", ".join(bar.label for bar in found) or "none"
        raise OptionError(
            "dispformula='~ 0' leaves no residual, so that one term must have an effect for each row, as in "
            f"ar1(0 + visit | id); the formula has {len(found)} that can ({which}). Say which covariance the residuals "
            "have with residual='ar1(visit | id)' instead."
        )
    bar = found[0]
    index = " + ".join(deparse(node) for node in bar.terms.variables)
    options = "".join(f", {name} = {str(value).upper()}" for name, value in bar.options)
    residual = f"{bar.structure}({index} | {':'.join(map(deparse, bar.group))}{options})"
    return update_formula(formula, f"~ . - {bar.label}")[0], residual, bar.label


def _has_index(bar: Bar) -> bool:
    """Whether the columns of a term stand for times, visits or places."""
    kind = find_structure(bar.structure)
    if "residual" not in kind.sides:
        return False
    return kind.takes_positions != "nothing" or (not bar.terms.intercept and len(bar.terms.variables) == 1)
