"""The residual side of other rows: their subjects, positions, strata and variance functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.data.frame import Frame
from lme4py.design.fixed import name_of
from lme4py.design.random import group_codes
from lme4py.design.recipe import Recipe, columns_of, evaluated, new_group
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.scales import new_scales, refuse_unknown
from lme4py.design.residual.side import ResidualDesign, ResidualPlaces, coordinate
from lme4py.design.residual.text import ResidualText
from lme4py.errors import DataError, OptionError
from lme4py.formula.nodes import Node
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["NewResiduals", "new_residuals", "widened"]


@dataclass(frozen=True)
class NewResiduals:
    """The residual side of n other rows.

    Attributes
    ----------
    part : ResidualPart
        Subjects of the fit have its codes, others those after them; -1 where the subject is missing.
    placed : bool
        Whether the positions are known: not where they are the order of the rows.
    present : ndarray of bool, shape (n,)
        Rows without a missing value.
    labels : tuple
        Of the subjects that are not in the fit.
    """

    part: ResidualPart
    placed: bool
    present: BoolArray
    labels: tuple[Any, ...] = ()

    def take(self, rows: BoolArray) -> NewResiduals:
        """Some of the rows.

        Parameters
        ----------
        rows : ndarray of bool
        """
        return replace(self, part=self.part.take(rows), present=self.present[rows])


def new_residuals(
    side: ResidualDesign, recipe: Recipe, frame: Frame, weights: FloatArray | None, subjects: bool
) -> NewResiduals:
    """The residual side of other rows.

    Parameters
    ----------
    side : ResidualDesign
    recipe : Recipe
        Of the fit.
    frame : Frame
    weights : ndarray, shape (n,), or None
    subjects : bool
        Whether it matters which subject a row belongs to; its columns are not needed otherwise.

    Raises
    ------
    DataError, OptionError
        A position, a stratum or a level that the fit did not have; a covariance of the rows that was given.
    """
    if side.is_known and side.text:
        raise OptionError(
            "the covariance of the residuals was given as a matrix of the rows of the fit, so that nothing is known "
            "about those of other rows; predict means, or confidence limits."
        )
    places, n = side.places, frame.n_rows
    G = new_scales(places.scales, recipe, frame)
    points = np.zeros((n, 1)) if places.residual is None else _points(places, side, places.residual, recipe, frame)
    stratum = _strata(places, recipe, frame)
    subject: IntArray = np.full(n, -1, dtype=np.intp)
    labels: tuple[Any, ...] = ()
    if subjects:
        subject, labels = _subjects(places, len(side.subjects), recipe, frame)
    present = np.isfinite(points).all(axis=1) & np.isfinite(G).all(axis=1) & (stratum >= 0)
    if weights is not None:
        present &= np.isfinite(weights)
    part = ResidualPart(
        side.part.structures, subject, stratum, points, G, weights, places.scales.centre, places.scales.unit
    )
    return NewResiduals(part, places.residual is None or bool(places.residual.index), present, labels)


def _strata(places: ResidualPlaces, recipe: Recipe, frame: Frame) -> IntArray:
    if places.strata is None or places.residual is None:
        return np.zeros(frame.n_rows, dtype=np.intp)
    found = [new_group(recipe, frame, node) for node in places.residual.strata]
    codes = group_codes(places.strata, found)
    missing = np.any([own < 0 for own, _ in found], axis=0)
    refuse_unknown(f"residual={places.residual.text!r}", (codes < 0) & ~missing, places.strata.levels)
    return codes


def _subjects(places: ResidualPlaces, known: int, recipe: Recipe, frame: Frame) -> tuple[IntArray, tuple[Any, ...]]:
    """Codes of the subjects: of the fit, then new ones (-1 where one is missing), and labels of the new ones."""
    if places.residual is None:
        return np.full(frame.n_rows, -1, dtype=np.intp), ()
    if places.subject is None:
        return np.zeros(frame.n_rows, dtype=np.intp), ()
    found = [new_group(recipe, frame, node) for node in places.subject_nodes]
    codes = group_codes(places.subject, found)
    unseen = (codes < 0) & np.all([own >= 0 for own, _ in found], axis=0)
    if not unseen.any():
        return codes, ()
    table, place = np.unique(np.stack([own[unseen] for own, _ in found], axis=1), axis=0, return_inverse=True)
    codes[unseen] = known + place.ravel()
    levels = [own for _, own in found]
    return codes, tuple(tuple(own[i] for own, i in zip(levels, row, strict=True)) for row in table.tolist())


def _points(
    places: ResidualPlaces, side: ResidualDesign, residual: ResidualText, recipe: Recipe, frame: Frame
) -> FloatArray:
    """Positions of the rows, NaN where one is missing."""
    n, d = frame.n_rows, side.part.points.shape[1]
    if not residual.index:
        if side.part.on_grid and not side.part.structures[0].shares_variance:
            raise OptionError(
                f"residual={residual.text!r} counts the rows of a subject, so that it is not known which position a "
                "row of other data has; name the index, as in us(visit | id)."
            )
        return np.zeros((n, d))
    if places.levels:
        return _on_levels(places, residual, residual.index[0], recipe, frame)
    values, present = evaluated(recipe, residual.index, columns_of(recipe, frame, residual.index), n)
    out = np.full((n, d), np.nan)
    if present.any():
        columns = [coordinate(residual, values[node], name_of(node)) for node in residual.index]
        out[present] = np.column_stack(columns) - places.origin
    if side.part.on_grid and (out[present] != np.round(out[present])).any():
        raise DataError(f"residual={residual.text!r}: the index of the new data must be whole numbers, as in the fit")
    return out


def _on_levels(places: ResidualPlaces, residual: ResidualText, node: Node, recipe: Recipe, frame: Frame) -> FloatArray:
    codes, levels = new_group(recipe, frame, node)
    column = {level: float(j) for j, level in enumerate(places.levels)}
    table = np.array([*(column.get(level, -1.0) for level in levels), np.nan])
    points = table[codes]
    refuse_unknown(f"residual={residual.text!r}", points < 0.0, places.levels)
    return np.asarray(points[:, None])


def widened(own: ResidualPart, new: ResidualPart) -> tuple[ResidualPart, ResidualPart]:
    """Both with the columns of a grid of whole numbers that holds all of them.

    Parameters
    ----------
    own, new : ResidualPart

    Raises
    ------
    DataError
        The structure has parameters for each position.
    """
    if not own.on_grid or not new.points.size:
        return own, new
    low, high = min(0.0, float(new.points.min())), float(new.points.max())
    size = own.structures[0].size
    if low >= 0.0 and high < size:
        return own, new
    structures = tuple(_wider(structure, int(max(high + 1, size) - low)) for structure in own.structures)
    return tuple(  # type: ignore[return-value]
        replace(part, structures=structures, points=part.points - low) for part in (own, new)
    )


def _wider(structure: CovarianceStructure, size: int) -> CovarianceStructure:
    made = type(structure).build(size, None, **structure.option_values)
    if made.n_theta != structure.n_theta:
        raise DataError(
            f"the new data have positions that the rows of the fit did not have, and {structure.name}() has parameters "
            "of each; remove these rows, or fit the model with them"
        )
    return made
