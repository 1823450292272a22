"""Clinical trials with repeated visits: the mixed model for repeated measures, and the table of its report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from lme4py.arguments import speaks
from lme4py.covariance import find_structure
from lme4py.data.column import Column
from lme4py.data.frame import Frame, as_factor_column, read_frame
from lme4py.design.build import NaAction, lformula
from lme4py.design.residual.side import residual_design
from lme4py.design.residual.text import ResidualText, read_sides, split_covariance
from lme4py.design.smooths import refuse_smooth_design
from lme4py.engine.optimise import Control
from lme4py.errors import ConvergenceWarning, DesignError, FormulaError, Lme4Warning, OptionError, did_you_mean, warn
from lme4py.fits.conventions import Conventions
from lme4py.fits.parameters import check_names
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.steps import residual_fit
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Name
from lme4py.formula.parse import parse_formula
from lme4py.inference.tests.trial import trial_frame
from lme4py.results import MixedResult
from lme4py.results.call import completes, records_call

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["mmrm", "trial_table"]

# What a method is called -> degrees of freedom, and second derivatives in the adjusted covariance.
_METHODS = {
    "Kenward-Roger": ("kenward-roger", True),
    "Kenward-Roger-Linear": ("kenward-roger", False),
    "Satterthwaite": ("satterthwaite", True),
    "residual": ("residual", True),
}


@records_call
def mmrm(
    formula: str,
    data: Any,
    *,
    method: str = "Kenward-Roger",
    reml: bool = True,
    weights: str | ArrayLike | None = None,
    contrasts: Mapping[str, Any] | None = None,
    fallback: Sequence[str] = (),
    start: ArrayLike | None = None,
    control: Control | Mapping[str, Any] | None = None,
    na_action: NaAction = "omit",
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> MixedResult:
    """Fit the mixed model for repeated measures of a clinical trial: correlated visits, no random effects.

    Parameters
    ----------
    formula : str
        Fixed effects and one covariance term, such as ``"y ~ base + arm * visit + us(visit | id)"``;
        ``us(visit | arm / id)`` has a covariance matrix for each arm. Structures as in `lmer`'s `residual`.
    data : data frame
        One row for each visit of a subject; visits that are missing are left out, or have a missing response.
    method : {"Kenward-Roger", "Kenward-Roger-Linear", "Satterthwaite", "residual"}
        Degrees of freedom and standard errors where a method of the result is not told otherwise. "Kenward-Roger"
        takes the covariance elements for parameters where the structure is linear in them (us, homtoep, homcs), as SAS
        does, and variances and correlations elsewhere, with second derivatives; "-Linear" leaves these out.
    reml : bool
        True for restricted maximum likelihood. Kenward and Roger's methods need it.
    weights : str or array of shape (n,), optional
        The residual covariance of a subject is W^-1/2 R W^-1/2.
    contrasts : dict, optional
        Variable name -> contrasts, as in `lmer`.
    fallback : sequence of str
        Structures that are tried in this order, such as ``["toep", "hetar1", "cs"]``, when the one of the formula does
        not converge or is not determined by the data; a warning and the notes of the result say so.
    start : array of shape (m,), optional
        Covariance parameters, as ``result.theta``.
    control : Control or dict, optional
        Settings of the optimiser.
    na_action : {"omit", "exclude", "raise"}
        What to do with rows that have a missing value.
    functions : dict, optional
        Functions of your own that the formula may call.

    Returns
    -------
    MixedResult
        With ``residual_covariance()``; `trial_table` makes the table of a report.

    Raises
    ------
    Lme4Error
        Or a child, before any fitting: a visit that occurs twice in a subject, two visits that no subject has both of
        (unstructured), no covariance term, random effects.

    Notes
    -----
    Visits that are numbers are taken as labels, in the fixed effects too, and a note says so.

    Examples
    --------
    >>> import lme4py
    >>> data = lme4py.load_dataset("Orthodont")
    >>> result = lme4py.mmrm("distance ~ age * Sex + us(age | Subject)", data)
    >>> round(result.criterion, 4)
    414.0348
    >>> result.residual_covariance().round(2).loc["8"].tolist()
    [5.42, 2.72, 3.91, 2.71]
    """
    ddf, second_order = _method(method, reml)
    plain, term = _split(formula)
    candidates = [term, *(_with_structure(term, name) for name in _names(fallback))]
    frame = read_frame(data)
    options: dict[str, Any] = {
        "weights": weights,
        "contrasts": contrasts,
        "na_action": na_action,
        "functions": functions,
    }
    tried: list[str] = []
    for candidate in candidates:
        last = candidate == candidates[-1]
        try:
            fit = _fit(plain, candidate, frame, options, reml, start, control, warned=last, again=bool(tried))
        except DesignError as error:
            if last:
                raise
            tried.append(f"{candidate}: {error}")
            continue
        if fit.certificate.converged or last:
            break
        tried.append(f"{candidate}: {fit.certificate.verdict}")
    if tried:
        note = f"Fitted with {fit.residual.text} in the place of {tried[0]}"
        warn(note, Lme4Warning)
        fit = replace(fit, design=replace(fit.design, notes=(*fit.design.notes, note)))
    design = replace(fit.design, formula=formula)
    return MixedResult(replace(fit, design=design, second_order=second_order, conventions=Conventions(ddf=ddf)))


@completes("mmrm")
def _with_covariance(old: str, new: str) -> str:
    """A changed formula with the covariance term of the old one, unless the change brought another."""
    return new if parse_formula(new).bars else f"{new} + {_split(old)[1]}"


def _method(method: object, reml: bool) -> tuple[str, bool]:
    if not isinstance(method, str) or method not in _METHODS:
        hint = did_you_mean(str(method), list(_METHODS))
        raise OptionError(f"method={method!r} is not known.{hint} Use one of {', '.join(map(repr, _METHODS))}.")
    if method.startswith("Kenward") and not reml:
        raise OptionError(f"method={method!r} is defined for REML only; use method='Satterthwaite', or reml=True.")
    return _METHODS[method]


def _split(formula: object) -> tuple[str, str]:
    if not isinstance(formula, str):
        raise OptionError(
            f'`formula` is of type {type(formula).__name__}; give text such as "y ~ arm * visit + us(visit | id)".'
        )
    plain, term = split_covariance(formula)
    if parse_formula(plain).bars:
        raise FormulaError(
            f"the formula '{formula}' has random effects, which mmrm() does not take; use lmer(..., residual={term!r})"
        )
    return plain, term


def _names(fallback: object) -> list[str]:
    if isinstance(fallback, str) or not isinstance(fallback, Sequence):
        raise OptionError(f"`fallback` is {fallback!r}; give a list of structures, such as ['toep', 'hetar1', 'cs'].")
    return [find_structure(str(name)).name for name in fallback]


def _with_structure(term: str, name: str) -> str:
    return f"{name}{term[term.index('(') :]}"


def _fit(
    plain: str,
    term: str,
    frame: Frame,
    options: dict[str, Any],
    reml: bool,
    start: Any,
    control: Any,
    warned: bool,
    again: bool,
) -> ResidualFit:
    sides = read_sides(term, None, None)
    assert sides.residual is not None
    own, note = _labelled(frame, sides.residual)
    with warnings.catch_warnings():
        if again:
            # The design of another structure has said what there is to say.
            warnings.simplefilter("ignore", Lme4Warning)
        design = lformula(plain, own, require_random=False, beside=sides.nodes, **options)
    refuse_smooth_design(design, "mmrm()")
    design = replace(design, notes=(*design.notes, *note))
    check_names(design)
    with warnings.catch_warnings():
        if not warned:
            warnings.simplefilter("ignore", ConvergenceWarning)
        return residual_fit(design, residual_design(design, sides), reml, start, control)


def _labelled(frame: Frame, residual: ResidualText) -> tuple[Frame, tuple[str, ...]]:
    """Visits that are numbers as a factor, for structures that take no times."""
    if residual.kind.takes_positions in ("times", "coordinates") or len(residual.index) != 1:
        return frame, ()
    node = residual.index[0]
    if not isinstance(node, Name) or node.name not in frame or frame.column(node.name).is_factor:
        return frame, ()
    column = as_factor_column(frame.column(node.name))
    note = f"The visits {deparse(node)} are numbers; they are taken as the labels of {len(column.levels)} visits."

    def column_at(position: int) -> Column:
        name = frame.names[position]
        return column if name == node.name else frame.column(name)

    labelled = Frame(frame.names, frame.n_rows, column_at, lambda: frame.index)
    labelled.labelled = frame.labelled
    return labelled, (note,)


@speaks
def trial_table(
    fit: Any,
    arm: str,
    visit: str,
    *,
    reference: Any = None,
    weights: str = "equal",
    level: float = 0.95,
    ddf: str | None = None,
    vcov: str | None = None,
) -> pd.DataFrame:
    """The table of a trial report: least-squares means of the arms at each visit, and their differences.

    Parameters
    ----------
    fit : MixedResult
        Of `mmrm`, or any linear model with these two factors.
    arm, visit : str
        Factors of the model.
    reference : level of `arm`, optional
        What the other arms are compared with; the first level when not given.
    weights : {"equal", "proportional"}
        How the means average over other factors: all combinations alike, or as often as they occur. Covariates are held
        at their means over the rows used.
    level : float
        Of the intervals.
    ddf : str, optional
        Degrees of freedom; those of the fit when not given.
    vcov : {None, "CR0", "CR1", "CR2", "CR3"}
        A covariance that is robust by subject, with Satterthwaite's degrees of freedom.

    Returns
    -------
    DataFrame
        One row for each mean and each difference: kind ("mean", "difference"), arm, visit, n (subjects with a row that
        was used), n_dropped (rows that were not used), estimate, std_error, df, statistic, p_value, lower, upper. NaN
        with a warning for a combination of arm and visit that was never observed.

    Examples
    --------
    >>> import lme4py
    >>> data = lme4py.load_dataset("Orthodont")
    >>> result = lme4py.mmrm("distance ~ factor(age) * Sex + us(age | Subject)", data)
    >>> table = lme4py.trial_table(result, arm="Sex", visit="age")
    >>> table.loc[table.kind == "difference", ["arm", "visit", "estimate", "df"]].round(2).iloc[0].astype(str).tolist()
    ['Female - Male', '8', '-1.69', '25.0']
    """
    return trial_frame(getattr(fit, "fit", fit), arm, visit, reference, weights, level, ddf, vcov)
