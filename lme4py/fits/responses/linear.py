"""Linear models of several responses, with residuals and random effects that are correlated across them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lme4py.design.residual.side import residual_design
from lme4py.design.residual.text import ResidualSides
from lme4py.design.responses.build import several_design, unit_of
from lme4py.errors import OptionError
from lme4py.fits.held import hold, read_fix
from lme4py.fits.parameters import check_names
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.steps import residual_fit

__all__ = ["refuse_beside_several", "several_fit"]


def refuse_beside_several(given: Mapping[str, Any], source: object = None) -> None:
    """Refuse arguments that models of several responses do not have.

    Parameters
    ----------
    given : mapping of str to object
        None for what was not given.
    source : object
        Where rows are that are not in memory, or None.

    Raises
    ------
    OptionError
    """
    if source is not None:
        raise OptionError("models of several responses need their rows in memory; use control={'rows': 'memory'}.")
    for name, value in given.items():
        if value is not None:
            what = " (subtract it from a response, as in mvbind(I(y1 - z), y2))" if name == "offset" else ""
            raise OptionError(f"{name}= is not there for models of several responses{what}; leave it out.")


def several_fit(
    formula: str,
    data: Any,
    reml: bool,
    occasion: str | None,
    options: Mapping[str, Any],
    fix: Mapping[str, Any] | None = None,
    start: Any = None,
    control: Any = None,
) -> ResidualFit:
    """Fit a linear model of several responses.

    Parameters
    ----------
    formula : str
        ``"mvbind(y1, y2) ~ x + (1 | id)"``.
    data : data frame
        Wide.
    reml : bool
    occasion : str or None
        The unit whose residuals are correlated; the row when not given.
    options : mapping
        weights, contrasts, na_action, functions.
    fix, start, control
        As in `lmer`.

    Returns
    -------
    ResidualFit
        Of long rows.
    """
    design, unit = several_design(formula, data, occasion, **options)
    residual, note = unit_of(design, unit)
    design = hold(design, read_fix(fix), None).design
    if note:
        design = replace(design, notes=(*design.notes, note))
    check_names(design)
    side = residual_design(design, ResidualSides(residual, (), "", residual.nodes))
    return residual_fit(design, side, reml, start, control)
