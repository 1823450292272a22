"""The residual side of a design: positions, subjects, strata and variance functions on the rows used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.covariance import CovarianceStructure, find_structure, make_structure
from lme4py.design.design import Design
from lme4py.design.fixed import name_of
from lme4py.design.random import Grouping, as_factor, grouping_factor
from lme4py.design.residual.given import given_residuals
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.reader import Reader, reader_of
from lme4py.design.residual.scales import ScaleColumns, log_size, scale_columns
from lme4py.design.residual.text import ResidualSides, ResidualText
from lme4py.errors import DataError, DesignError, OptionError
from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Node
from lme4py.formula.values import Value
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ResidualDesign", "ResidualPlaces", "coordinate", "residual_design"]


@dataclass(frozen=True)
class ResidualPlaces:
    """Where rows stand on the residual side, without the rows: what places those of other data.

    Attributes
    ----------
    residual : ResidualText or None
    levels : tuple
        Of an index that is a factor: the k columns. () for numbers and for the order of the rows.
    origin : float
        Whole number of the first column.
    strata : Grouping or None
    subject : Grouping or None
    subject_nodes : tuple of Node
        What the subjects are told apart by.
    scales : ScaleColumns
    """

    residual: ResidualText | None
    levels: tuple[Any, ...]
    origin: float
    strata: Grouping | None
    subject: Grouping | None
    subject_nodes: tuple[Node, ...]
    scales: ScaleColumns


@dataclass(frozen=True)
class ResidualDesign:
    """What the residuals of a model are, with names for everything.

    Attributes
    ----------
    text, variance_text : str
        As the user wrote them; "" for independent residuals, and for equal variances.
    part : ResidualPart
    columns : tuple of str
        Labels of the positions of structures on a grid; () for others.
    strata : tuple of str
        Names of the strata: ``("",)`` for one.
    subjects : tuple
        Labels of the subjects.
    subject_name : str
    scale_names : tuple of str
        Of the columns of the logarithm of the standard deviation.
    fitted_column : int or None
        Which of them is the logarithm of the fitted values.
    places : ResidualPlaces
    """

    text: str
    variance_text: str
    part: ResidualPart
    columns: tuple[str, ...]
    strata: tuple[str, ...]
    subjects: tuple[Any, ...]
    subject_name: str
    scale_names: tuple[str, ...]
    fitted_column: int | None
    places: ResidualPlaces

    @property
    def has_equal_variances(self) -> bool:
        """Whether all rows (of weight 1) have the same residual variance by the model."""
        return self.has_one_structure and not self.scale_names

    @property
    def is_known(self) -> bool:
        """Whether the residual covariance is given, without a parameter that is estimated."""
        return not any(structure.n_theta for structure in self.part.structures) and not self.scale_names

    @property
    def has_one_structure(self) -> bool:
        """Whether one standard deviation stands for all positions and strata."""
        return len(self.strata) == 1 and self.part.structures[0].shares_variance

    def take(self, rows: IntArray) -> ResidualDesign:
        """The residual side of some of the rows.

        Parameters
        ----------
        rows : ndarray of int
        """
        return replace(self, part=self.part.take(rows))

    def with_fitted(self, fitted: FloatArray) -> ResidualDesign:
        """With these fitted values in the place of others.

        Parameters
        ----------
        fitted : ndarray, shape (n,)
        """
        if self.fitted_column is None:
            return self
        G = self.part.log_scale.copy()
        G[:, self.fitted_column] = log_size(fitted, "the fitted value")
        return replace(self, part=replace(self.part, log_scale=G))

    def without_fitted(self) -> ResidualDesign:
        """Without the column of the fitted values."""
        if self.fitted_column is None:
            return self
        kept = [j for j in range(len(self.scale_names)) if j != self.fitted_column]
        own = self.part
        centre, unit = (None if one is None else one[kept] for one in (own.centre, own.unit))
        part = replace(own, log_scale=own.log_scale[:, kept], centre=centre, unit=unit)
        names = tuple(self.scale_names[j] for j in kept)
        return replace(self, part=part, scale_names=names, fitted_column=None)


def residual_design(design: Design, sides: ResidualSides) -> ResidualDesign:
    """The residual side on the rows of a design, whose columns hold all variables.

    Parameters
    ----------
    design : Design
    sides : ResidualSides

    Raises
    ------
    DataError, DesignError, OptionError
    """
    read, residual = reader_of(design), sides.residual
    n = design.n_obs
    strata = _strata(residual, read, n)
    subjects = _subjects(residual, read, n)
    subject, labels = subjects.codes, subjects.labels
    placed = _Positions(np.zeros((n, 1)), _NONE)
    structures: tuple[CovarianceStructure, ...]
    if sides.is_given:
        structures, points, subject = given_residuals(design, sides)
        placed, labels = _Positions(points, _NONE), ()
    elif residual is None:
        structures = (make_structure("homdiag", 1),)
        placed = _Positions(np.zeros((n, 1)), _ONE)
    else:
        placed, make = _positions(residual, read, subject)
        _refuse_repeated(residual, subject, labels, placed.points, placed.columns)
        structures = tuple(make() for _ in strata.labels)
        _refuse_never_together(residual, subject, strata.codes, placed.points, placed.columns, strata.labels)
    G, scales = scale_columns(design, sides, read, n)
    part = ResidualPart(structures, subject, strata.codes, placed.points, G, design.weights, scales.centre, scales.unit)
    texts = [own.text for own in sides.variance] + ([sides.dispformula] if sides.dispformula else [])
    words = residual.text if residual else "V" if sides.matrix is not None else ""
    places = ResidualPlaces(
        residual, placed.levels, placed.origin, strata.grouping, subjects.grouping, subjects.nodes, scales
    )
    return ResidualDesign(
        words,
        " * ".join(texts),
        part,
        placed.columns,
        strata.labels,
        labels,
        subjects.name,
        scales.names,
        scales.fitted,
        places,
    )


@dataclass(frozen=True)
class _Groups:
    """Combinations of factors: codes of the rows, labels, and what makes the codes of other rows."""

    codes: IntArray
    labels: tuple[Any, ...]
    grouping: Grouping | None = None
    nodes: tuple[Node, ...] = ()
    name: str = ""


def _strata(residual: ResidualText | None, read: Reader, n: int) -> _Groups:
    if residual is None or not residual.strata:
        return _Groups(np.zeros(n, dtype=np.intp), ("",))
    grouping, codes = _grouped(residual.strata, read)
    return _Groups(codes, tuple(str(level) for level in grouping.levels), grouping, residual.strata)


def _grouped(nodes: Sequence[Node], read: Reader) -> tuple[Grouping, IntArray]:
    grouping, codes = grouping_factor([name_of(node) for node in nodes], [read(node) for node in nodes])
    return grouping, codes.astype(np.intp)


def _subjects(residual: ResidualText | None, read: Reader, n: int) -> _Groups:
    if residual is None:
        return _Groups(np.arange(n), ())
    nodes = (*residual.strata, *residual.subject)
    if not nodes:
        return _Groups(np.zeros(n, dtype=np.intp), ("all rows",), name="all rows")
    grouping, codes = _grouped(nodes, read)
    if residual.strata and residual.subject:
        # Named by the subject alone where that says which one it is.
        own = _grouped(residual.subject, read)
        if len(own[0].levels) == len(grouping.levels):
            (grouping, codes), nodes = own, residual.subject
    name = ":".join(name_of(node) for node in residual.subject) or grouping.name
    return _Groups(codes, grouping.levels, grouping, nodes, name)


@dataclass(frozen=True)
class _Positions:
    """Points of the rows (n, d), labels of the columns, and what the columns of other rows are found by."""

    points: FloatArray
    columns: tuple[str, ...]
    levels: tuple[Any, ...] = ()
    origin: float = 0.0


def _positions(
    residual: ResidualText, read: Reader, subject: IntArray
) -> tuple[_Positions, Callable[[], CovarianceStructure]]:
    """Where the rows are, and what makes the structure."""
    kind, takes = residual.kind, residual.kind.takes_positions
    if takes in ("times", "coordinates"):
        return _in_space(residual, read, subject)
    if len(residual.index) > 1:
        raise OptionError(
            f"residual={residual.text!r}: {kind.name}() takes one index; make a factor of the combination first."
        )
    if not residual.index:
        codes = _order_within(subject)
        columns = tuple(str(i + 1) for i in range(int(codes.max()) + 1))
        placed = _Positions(codes[:, None].astype(float), columns)
    else:
        index = residual.index[0]
        placed = _levels(residual, read(index), name_of(index), takes == "whole numbers")
    size = int(placed.points.max()) + 1

    def make() -> CovarianceStructure:
        return find_structure(kind.name).build(size, None, **residual.options)

    return placed, make


def _levels(residual: ResidualText, value: Value, name: str, counted: bool) -> _Positions:
    """Columns of the rows. Where gaps count, unused levels and whole numbers between are columns as well."""
    if not counted:
        codes, levels = as_factor(value, name)
        return _on_levels(codes, levels)
    if value.is_factor:
        used = np.flatnonzero(np.bincount(value.values, minlength=len(value.levels)))
        first = int(used[0])
        return _on_levels(value.values - first, value.levels[first : int(used[-1]) + 1])
    if value.kind == "matrix" or not np.array_equal(value.values, np.round(value.values)):
        raise DataError(
            f"residual={residual.text!r}: the index {name!r} of {residual.kind.name}() must be whole numbers (or a "
            "factor), one apart for neighbours; use car1() or exp() for times that are not"
        )
    low, high = int(value.values.min()), int(value.values.max())
    if high - low >= _MOST_COLUMNS:
        raise DataError(
            f"residual={residual.text!r}: the index {name!r} runs from {low} to {high}, that is {high - low + 1} "
            f"positions one apart, and {_MOST_COLUMNS} are the most; use car1() or exp() for such times"
        )
    columns = tuple(str(i) for i in range(low, high + 1))
    return _Positions((value.values - low)[:, None].astype(float), columns, (), float(low))


def _on_levels(codes: Any, levels: Sequence[Any]) -> _Positions:
    points = np.asarray(codes, dtype=float)[:, None]
    return _Positions(points, tuple(str(level) for level in levels), tuple(levels))


_MOST_COLUMNS = 2000
_NONE: tuple[str, ...] = ()
_ONE: tuple[str, ...] = ("",)


def _order_within(subject: IntArray) -> IntArray:
    """Number of each row among those of its subject, from 0."""
    order = np.argsort(subject, kind="stable")
    starts = np.flatnonzero(np.diff(subject[order], prepend=-1))
    counts = np.diff(np.append(starts, subject.size))
    out = np.empty(subject.size, dtype=np.intp)
    out[order] = np.arange(subject.size) - np.repeat(starts, counts)
    return out


def _in_space(
    residual: ResidualText, read: Reader, subject: IntArray
) -> tuple[_Positions, Callable[[], CovarianceStructure]]:
    kind = residual.kind
    if residual.index:
        points = np.column_stack([coordinate(residual, read(node), name_of(node)) for node in residual.index])
    else:
        points = _order_within(subject)[:, None].astype(float)
    if kind.takes_positions == "times" and points.shape[1] > 1:
        raise OptionError(
            f"residual={residual.text!r}: {kind.name}() takes one time, not {points.shape[1]} coordinates."
        )
    places = np.unique(points, axis=0)
    if len(places) == 1:
        raise DataError(f"residual={residual.text!r}: all rows are at the same place; check the index")
    given = places[:, 0] if points.shape[1] == 1 else places
    # A typical distance is that of the rows of one subject.
    options = dict(residual.options)
    if "unit" not in options:
        options["unit"] = _typical(points, subject)

    def make() -> CovarianceStructure:
        return find_structure(kind.name).build(len(places), given, **options)

    return _Positions(points, _NONE), make


def coordinate(residual: ResidualText, value: Value, name: str) -> FloatArray:
    """Numbers of a coordinate, shape (n,)."""
    if value.is_factor or value.kind == "matrix":
        raise DataError(
            f"residual={residual.text!r}: {name!r} is no number, and {residual.kind.name}() needs times or coordinates"
        )
    numbers: FloatArray = np.asarray(value.values, dtype=float)
    if not np.isfinite(numbers).all():
        raise DataError(f"residual={residual.text!r}: {name!r} has infinite values; correct them, or remove these rows")
    return numbers


def _typical(points: FloatArray, subject: IntArray) -> float:
    """Median distance of a row from the next one of its subject."""
    order = np.lexsort((*points.T[::-1], subject))
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)[np.diff(subject[order]) == 0]
    return float(np.median(steps)) if steps.size and np.median(steps) > 0 else 1.0


def _refuse_repeated(
    residual: ResidualText, subject: IntArray, subjects: Sequence[Any], points: FloatArray, columns: Sequence[str]
) -> None:
    order = np.lexsort((*points.T[::-1], subject))
    same = (np.diff(subject[order]) == 0) & ~np.diff(points[order], axis=0).any(axis=1)
    if not same.any():
        return
    row = order[int(np.flatnonzero(same)[0])]
    where = columns[int(points[row, 0])] if columns else ", ".join(f"{x:g}" for x in points[row])
    index = " + ".join(deparse(node) for node in residual.index) or "the order of the rows"
    times = int(same.sum())
    raise DataError(
        f"residual={residual.text!r}: {subjects[subject[row]]!s} has more than one row at {index} = {where} "
        f"({times} row(s) too many in all); an index may occur once within a subject. Name the subjects so that "
        "they are "
        "told apart (a:id), or average these rows"
    )


def _refuse_never_together(
    residual: ResidualText,
    subject: IntArray,
    stratum: IntArray,
    points: FloatArray,
    columns: Sequence[str],
    strata: Sequence[str],
) -> None:
    """Unstructured: a covariance of two positions that no subject has both of is not determined."""
    if not residual.kind.linear or residual.kind.name not in ("us",):
        return
    k = len(columns)
    for h, name in enumerate(strata):
        rows = stratum == h
        codes = np.unique(subject[rows], return_inverse=True)[1]
        seen = np.zeros((int(codes.max()) + 1, k))
        seen[codes, points[rows, 0].astype(np.intp)] = 1.0
        together = seen.T @ seen
        i, j = np.nonzero(np.triu(together == 0))
        if i.size:
            where = f" in {name}" if name else ""
            a, b = columns[int(i[0])], columns[int(j[0])]
            what = f"{a} is never observed" if a == b else f"{a} and {b} are never observed in the same subject"
            raise DesignError(
                f"residual={residual.text!r}: {what}{where}, so that nothing is known about "
                f"{'its variance' if a == b else 'their covariance'}"
                f"{f' ({i.size} such pairs in all)' if i.size > 1 else ''}; use a structure that has it from the "
                "others, "
                "such as toep(), ar1() or cs()"
            )
