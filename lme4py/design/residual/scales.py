"""Columns of the logarithm of the residual standard deviation: variance functions and a dispersion formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.build import lformula
from lme4py.design.design import Design, PredictorPlan
from lme4py.design.fixed import name_of
from lme4py.design.random import Grouping, group_codes, grouping_factor
from lme4py.design.recipe import Recipe, columns_of, evaluated, new_fixed, new_group
from lme4py.design.residual.reader import Reader
from lme4py.design.residual.text import ResidualSides, VarianceText, random_dispersion
from lme4py.errors import DataError, OptionError
from lme4py.formula.deparse import deparse
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ScaleColumns", "log_size", "new_scales", "refuse_unknown", "scale_columns"]


@dataclass(frozen=True)
class ScaleColumns:
    """Columns of the logarithm of the standard deviation, and what makes them of other rows.

    Attributes
    ----------
    names : tuple of str
        Of the r columns.
    fitted : int or None
        Which of them is the logarithm of the fitted values.
    parts : tuple of VarianceText
    groupings : tuple of Grouping or None
        Of those parts that are ident().
    dispersion : Recipe or None
    places : tuple of int
        Columns of the model matrix of the dispersion formula beside its intercept.
    dispformula : str
        "" for none.
    plan : PredictorPlan or None
        Names and terms of the model matrix of the dispersion formula.
    centre, unit : ndarray, shape (r,), or None
        The columns are (x - centre) / unit, so that neither origins nor units of x matter.
    """

    names: tuple[str, ...]
    fitted: int | None
    parts: tuple[VarianceText, ...]
    groupings: tuple[Grouping | None, ...]
    dispersion: Recipe | None
    places: tuple[int, ...]
    dispformula: str = ""
    plan: PredictorPlan | None = None
    centre: FloatArray | None = None
    unit: FloatArray | None = None

    def placed(self, G: FloatArray) -> FloatArray:
        """The columns of the user's, shape (n, r)."""
        return G if self.centre is None or self.unit is None else (G - self.centre) / self.unit


def scale_columns(design: Design, sides: ResidualSides, read: Reader, n: int) -> tuple[FloatArray, ScaleColumns]:
    """The columns on the rows of a design, shape (n, r), and what makes them.

    Parameters
    ----------
    design : Design
    sides : ResidualSides
    read : callable
        Values of an expression on the rows.
    n : int
    """
    blocks: list[FloatArray] = []
    names: list[str] = []
    groupings: list[Grouping | None] = []
    fitted = None
    for part in sides.variance:
        grouping = None
        if part.node is None:
            fitted = len(names)
            columns, own = np.zeros((n, 1)), [part.text]
        elif part.function == "ident":
            columns, own, grouping = _of_groups(part, read)
        else:
            columns, own = _of_number(part, read), [part.text]
        blocks.append(columns)
        groupings.append(grouping)
        names += own
    recipe: Recipe | None = None
    plan: PredictorPlan | None = None
    places: tuple[int, ...] = ()
    if sides.dispformula:
        columns, own, recipe, places, plan = _of_formula(design, sides.dispformula)
        blocks.append(columns)
        names += own
    G = np.concatenate([np.zeros((n, 0)), *blocks], axis=1)
    found = ScaleColumns(
        tuple(names), fitted, sides.variance, tuple(groupings), recipe, places, sides.dispformula, plan, *_standards(G)
    )
    return found.placed(G), found


def _standards(G: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
    """Means and standard deviations of the columns; 0 and 1 for indicators and what is the same for all rows."""
    centre, unit = np.mean(G, axis=0), np.std(G, axis=0)
    as_they_are = ((G == 0.0) | (G == 1.0)).all(axis=0) | (unit <= 1e-12 * np.abs(centre))
    if as_they_are.all():
        return None, None
    return np.where(as_they_are, 0.0, centre), np.where(as_they_are, 1.0, unit)


def _of_groups(part: VarianceText, read: Reader) -> tuple[FloatArray, list[str], Grouping]:
    grouping, codes = grouping_factor([name_of(node) for node in part.factors], [read(node) for node in part.factors])
    labels = [str(level) for level in grouping.levels]
    if len(labels) < 2:
        raise DataError(f"variance={part.text!r} has one level; a variance function needs two or more")
    return _indicators(codes, len(labels)), [f"{part.text}[{x}]" for x in labels[1:]], grouping


def _indicators(codes: IntArray, size: int) -> FloatArray:
    found: FloatArray = (codes[:, None] == np.arange(1, size)).astype(float)
    return found


def _of_number(part: VarianceText, read: Reader) -> FloatArray:
    x = _numbers(part, read)
    if np.ptp(x) == 0.0:
        assert part.node is not None
        raise DataError(f"variance={part.text!r}: {deparse(part.node)} is the same for all rows")
    return x[:, None]


def _numbers(part: VarianceText, read: Reader) -> FloatArray:
    assert part.node is not None
    value = read(part.node)
    if value.is_factor or value.kind == "matrix":
        raise DataError(f"variance={part.text!r}: {deparse(part.node)} is no number; use ident() for a factor")
    x = np.asarray(value.values, dtype=float)
    if not np.isfinite(x).all():
        raise DataError(f"variance={part.text!r}: {deparse(part.node)} has infinite values; correct the data")
    return log_size(x, deparse(part.node)) if part.function == "power" else x


def log_size(x: FloatArray, name: str) -> FloatArray:
    """The logarithm of the size of numbers, which a power of them is linear in.

    Parameters
    ----------
    x : ndarray, shape (n,)
    name : str
        What they are, for the message.

    Raises
    ------
    DataError
        A number is zero.
    """
    if (x == 0.0).any():
        raise DataError(
            f"variance=power(): {name} is zero in {int((x == 0.0).sum())} row(s), where the standard deviation "
            "would be zero or infinite; use exp(), or move the covariate away from zero"
        )
    return np.asarray(np.log(np.abs(x)))


def _of_formula(design: Design, text: str) -> tuple[FloatArray, list[str], Recipe, tuple[int, ...], PredictorPlan]:
    """Columns of a dispersion formula beside its intercept, which the standard deviation is."""
    columns = dict(design.columns or {})
    names = tuple(columns)
    frame = Frame(names, design.n_obs, lambda i: columns[names[i]])
    own = lformula(
        f"{design.response_name} {text}", frame, require_random=False, functions=dict(design.recipe.functions)
    )
    if own.terms:
        raise random_dispersion(text)
    if "Intercept" not in own.x_names:
        raise OptionError(
            f"dispformula={text!r} has no intercept; leave it in: it is the logarithm of the residual standard "
            "deviation. (A model without residuals, '~ 0', is not taken.)"
        )
    kept = tuple(j for j, name in enumerate(own.x_names) if name != "Intercept")
    return own.X[:, kept], [own.x_names[j] for j in kept], own.recipe, kept, own.predictors[0].plan


# --- other rows -------------------------------------------------------------------------------------------------------


def new_scales(scales: ScaleColumns, recipe: Recipe, frame: Frame) -> FloatArray:
    """The columns on other rows, shape (n, r): NaN in rows with a missing value, zeros for the fitted values.

    Parameters
    ----------
    scales : ScaleColumns
    recipe : Recipe
        Of the fit.
    frame : Frame

    Raises
    ------
    DataError
        A level that the fit did not have.
    """
    n = frame.n_rows
    blocks = [np.zeros((n, 0))]
    for part, grouping in zip(scales.parts, scales.groupings, strict=True):
        if part.node is None:
            blocks.append(np.zeros((n, 1)))
        elif grouping is not None:
            blocks.append(_new_groups(part, grouping, recipe, frame))
        else:
            blocks.append(_new_numbers(part, recipe, frame))
    if scales.dispersion is not None:
        blocks.append(new_fixed(scales.dispersion, frame)[0][:, scales.places])
    return scales.placed(np.concatenate(blocks, axis=1))


def _new_groups(part: VarianceText, grouping: Grouping, recipe: Recipe, frame: Frame) -> FloatArray:
    found = [new_group(recipe, frame, node) for node in part.factors]
    codes = group_codes(grouping, found)
    missing = np.any([own < 0 for own, _ in found], axis=0)
    refuse_unknown(f"variance={part.text!r}", (codes < 0) & ~missing, grouping.levels)
    out = _indicators(codes, len(grouping.levels))
    out[missing] = np.nan
    return out


def refuse_unknown(what: str, unknown: BoolArray, levels: Sequence[object]) -> None:
    """Refuse rows of levels that the fit did not have.

    Parameters
    ----------
    what : str
        That needs the level.
    unknown : ndarray of bool, shape (n,)
    levels : sequence
        Of the fit.
    """
    if unknown.any():
        known = ", ".join(map(str, levels[:8]))
        raise DataError(
            f"{what}: {int(unknown.sum())} row(s) of the new data have a level that the rows of the fit did not have; "
            f"nothing is known about its residuals. The fit has {known}."
        )


def _new_numbers(part: VarianceText, recipe: Recipe, frame: Frame) -> FloatArray:
    assert part.node is not None
    values, present = evaluated(recipe, [part.node], columns_of(recipe, frame, [part.node]), frame.n_rows)
    out = np.full((frame.n_rows, 1), np.nan)
    if present.any():
        out[present, 0] = _numbers(part, values.__getitem__)
    return out
