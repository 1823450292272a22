"""Residual structures side by side: the same model with each of them, by AIC and BIC."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lme4py.arguments import speaks
from lme4py.covariance import find_structure
from lme4py.design.design import Design
from lme4py.design.residual.side import residual_design
from lme4py.design.residual.text import ResidualSides, read_residual
from lme4py.design.source import column_of_fit
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.errors import Lme4Error, Lme4Warning, OptionError
from lme4py.fits.base import fit_of
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.problem import make_problem
from lme4py.fits.residual.steps import residual_fit
from lme4py.formula.deparse import names_in
from lme4py.inference.estimates.likelihood import aic, bic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["structure_table"]

# Operations of one evaluation from which on a structure is not fitted in passing: a fit needs some thirty, at some 1e10
# in a second.
_LONG, _EVALUATIONS, _SPEED = 2e10, 30.0, 1e10
_USUAL = ("us", "toep", "ad", "hetar1", "cs", "homtoep", "ar1", "homcs")


@speaks
def structure_table(result: Any, structures: Sequence[str] = _USUAL) -> pd.DataFrame:
    """The same model with other residual structures: parameters, log-likelihood, AIC and BIC.

    Parameters
    ----------
    result : MixedResult
        Of `mmrm`, or of `lmer` with residual=; fixed and random effects, variance functions, weights and the criterion
        (REML or ML) stay as they are, so that the criteria can be compared.
    structures : sequence of str
        Names, such as "toep", of structures of the same index and subjects, or texts such as "exp(week | id)".

    Returns
    -------
    DataFrame
        One row for each, in the order given: parameters (all of the model), log_likelihood, aic, bic, delta_aic (to the
        lowest of those that converged), converged, and a note that says why a row has no numbers: a structure that the
        data do not determine, or whose fit would take more than a minute (us() of 30 positions and more).

    Examples
    --------
    >>> import lme4py
    >>> data = lme4py.load_dataset("Orthodont")
    >>> fit = lme4py.mmrm("distance ~ age * Sex + us(age | Subject)", data)
    >>> lme4py.structure_table(fit, ["us", "toep", "homcs"])[["parameters", "aic"]].round(1)
                          parameters    aic
    structure
    us(age | Subject)             18  450.0
    toep(age | Subject)           15  446.7
    homcs(age | Subject)          10  443.4
    """
    import pandas as pd

    from lme4py.tables.frames import printed

    fit = fit_of(result)
    if not isinstance(fit, ResidualFit) or fit.residual.places.residual is None:
        raise OptionError("structure_table() takes a model with a residual structure, of mmrm() or lmer(residual=).")
    if isinstance(structures, str) or not structures:
        raise OptionError(f"structures={structures!r} is not known; give a list such as ['us', 'toep', 'ar1'].")
    if fit.residual.fitted_column is not None:
        raise OptionError("power(fitted) has no likelihood that is maximised, so that AIC and BIC compare nothing.")
    rows = [_row(fit, text) for text in _texts(fit, structures)]
    table = pd.DataFrame(rows).set_index("structure").astype({"parameters": "Int64"})
    good = table.loc[table["converged"].astype(bool), "aic"]
    table.insert(4, "delta_aic", table["aic"] - good.min())
    return printed(table)


def _texts(fit: ResidualFit, structures: Sequence[str]) -> list[str]:
    """Texts of the structures; names stand for the index and the subjects of the fit."""
    own = fit.residual.places.residual
    assert own is not None
    inner = own.text[own.text.index("(") :]
    return [text if "(" in str(text) else f"{find_structure(str(text)).name}{inner}" for text in structures]


def _row(fit: ResidualFit, text: str) -> dict[str, Any]:
    none = {"parameters": float("nan"), "log_likelihood": float("nan"), "aic": float("nan"), "bic": float("nan")}
    try:
        other = fit if fit.residual.text == text else _with(fit, text)
    except Lme4Error as error:
        return {"structure": text} | none | {"converged": False, "note": str(error)}
    numbers = {
        "parameters": other.n_params,
        "log_likelihood": -0.5 * other.criterion,
        "aic": aic(other),
        "bic": bic(other),
    }
    good = other.certificate.converged
    return {"structure": text} | numbers | {"converged": good, "note": "" if good else other.certificate.verdict}


def _with(fit: ResidualFit, text: str) -> ResidualFit:
    scales, residual = fit.residual.places.scales, read_residual(text)
    sides = ResidualSides(residual, scales.parts, scales.dispformula, ())
    design = _with_columns(fit.design, [name for node in residual.nodes for name in names_in(node)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        own = residual_design(design, sides)
        _refuse_long(make_problem(design, own, fit.reml).criterion, residual.text)
        made = residual_fit(design, own, fit.reml)
    return replace(made, conventions=fit.conventions)


def _refuse_long(criterion: MarginalCriterion, text: str) -> None:
    """Refuse what would take minutes, with a forecast."""
    if criterion.work > _LONG:
        minutes = criterion.work * _EVALUATIONS / _SPEED / 60.0
        raise OptionError(
            f"not fitted: {criterion.model.n_par} covariance parameters would take about {minutes:.0f} minutes; fit "
            f"this one by itself, lmer(..., residual={text!r}), if it is wanted."
        )


def _with_columns(design: Design, names: Sequence[str]) -> Design:
    """The design with columns of the data that the fit did not need."""
    columns = dict(design.columns or {})
    for name in names:
        found = None if name in columns else column_of_fit(design, name, "structures")
        if found is not None:
            columns[name] = found
    return replace(design, columns=columns)
