"""Terms of the location that also have an effect on each threshold, which holds the common one."""

from __future__ import annotations

import numpy as np

from lme4py.design.design import Design
from lme4py.design.fixed import name_of
from lme4py.design.rank import dependent_columns
from lme4py.errors import DesignError
from lme4py.formula.nodes import FixedTerm, Formula, Terms
from lme4py.formula.update import update_formula

__all__ = ["refuse_shared", "without_shared"]


def without_shared(location: Formula, nominal: Formula) -> tuple[str, tuple[str, ...]]:
    """The formula of the location without the terms that are also nominal, and a note on them.

    Parameters
    ----------
    location, nominal : Formula

    Examples
    --------
    >>> from lme4py.formula.parse import parse_formula
    >>> own, other = parse_formula("y ~ x + z + (1 | g)"), parse_formula("y ~ z")
    >>> without_shared(own, other)[0]
    'y ~ x + (1 | g)'
    """
    nominal_terms = {_key(nominal.fixed, term) for term in nominal.fixed.terms}
    both = [
        _label(location.fixed, term) for term in location.fixed.terms if _key(location.fixed, term) in nominal_terms
    ]
    if not both:
        return location.text, ()
    text, _ = update_formula(location, "~ . - " + " - ".join(both))
    verb = "has" if len(both) == 1 else "have"
    return text, (f"{', '.join(both)} {verb} an effect on each threshold (nominal=) in the place of the common one",)


def _key(terms: Terms, term: FixedTerm) -> frozenset[str]:
    return frozenset(name_of(terms.variables[v]) for v in term.variables)


def _label(terms: Terms, term: FixedTerm) -> str:
    return ":".join(name_of(terms.variables[v]) for v in term.variables)


def refuse_shared(design: Design) -> None:
    """Refuse columns of the location that are combinations of nominal ones.

    Parameters
    ----------
    design : Design

    Raises
    ------
    DesignError
    """
    nominal = next((p for p in design.predictors[1:] if p.name == "nominal"), None)
    if nominal is None or not design.X.shape[1]:
        return
    whole = np.column_stack([np.ones(design.n_obs), nominal.X, design.X])
    before = 1 + nominal.X.shape[1]
    lost = [design.x_names[j - before] for j in dependent_columns(whole, True) if j >= before]
    if lost:
        raise DesignError(
            f"{', '.join(lost)} of the formula {'is a combination' if len(lost) == 1 else 'are combinations'} of the "
            f"columns of nominal= ({', '.join(nominal.names)}), whose effects on each threshold hold the common ones; "
            "take them out of the formula."
        )
