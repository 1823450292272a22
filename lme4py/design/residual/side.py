"""The residual side of a design: positions, subjects, strata and variance functions on the rows used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.covariance import CovarianceStructure, find_structure, make_structure
from lme4py.data.frame import Frame
from lme4py.design.build import lformula
from lme4py.design.design import Design
from lme4py.design.fixed import name_of
from lme4py.design.given import column_getter
from lme4py.design.random import as_factor, grouping_factor
from lme4py.design.residual.given import given_residuals
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.text import ResidualSides, ResidualText, VarianceText
from lme4py.errors import DataError, DesignError, OptionError
from lme4py.formula.deparse import deparse
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Node
from lme4py.formula.values import Value
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ResidualDesign", "residual_design"]


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
    reference : ndarray, shape (r,)
        Values of these columns at which `sigma` is the standard deviation: zeros.
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

    def with_fitted(self, fitted: FloatArray) -> ResidualDesign:
        """With these fitted values in the place of others.

        Parameters
        ----------
        fitted : ndarray, shape (n,)
        """
        if self.fitted_column is None:
            return self
        G = self.part.log_scale.copy()
        G[:, self.fitted_column] = _log_size(fitted, "the fitted value")
        return replace(self, part=replace(self.part, log_scale=G))

    def without_fitted(self) -> ResidualDesign:
        """Without the column of the fitted values."""
        if self.fitted_column is None:
            return self
        kept = [j for j in range(len(self.scale_names)) if j != self.fitted_column]
        part = replace(self.part, log_scale=self.part.log_scale[:, kept])
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
    read, residual = _reader(design), sides.residual
    n = design.n_obs
    stratum, strata = _combined(residual.strata if residual else (), read, n)
    subject, subjects, name = _subjects(residual, read, n)
    if sides.is_given:
        structures: tuple[CovarianceStructure, ...]
        structures, points, subject = given_residuals(design, sides)
        columns, subjects = _NONE, ()
    elif residual is None:
        structures = (make_structure("homdiag", 1),)
        points, columns = np.zeros((n, 1)), _ONE
    else:
        points, columns, make = _positions(residual, read, subject, n)
        _refuse_repeated(residual, subject, subjects, points, columns)
        structures = tuple(make() for _ in strata)
        _refuse_never_together(residual, subject, stratum, points, columns, strata)
    G, names, fitted = _log_scale(design, sides, read, n)
    part = ResidualPart(structures, subject, stratum, points, G, design.weights)
    texts = [own.text for own in sides.variance] + ([sides.dispformula] if sides.dispformula else [])
    words = residual.text if residual else "V" if sides.matrix is not None else ""
    return ResidualDesign(words, " * ".join(texts), part, columns, strata, subjects, name, names, fitted)


Reader = Callable[[Node], Value]


def _reader(design: Design) -> Reader:
    get = column_getter(design.columns or {})
    functions = design.recipe.functions

    def read(node: Node) -> Value:
        value = evaluate(node, get, {}, functions=functions, formula=deparse(node))
        if value.refusal:
            raise DataError(value.refusal)
        return value

    return read


def _combined(nodes: Sequence[Node], read: Reader, n: int) -> tuple[IntArray, tuple[str, ...]]:
    """Codes and labels of the combinations of factors."""
    if not nodes:
        return np.zeros(n, dtype=np.intp), ("",)
    grouping, codes = grouping_factor([name_of(node) for node in nodes], [_label_value(node, read) for node in nodes])
    return codes.astype(np.intp), tuple(str(level) for level in grouping.levels)


def _label_value(node: Node, read: Reader) -> Value:
    get: Value = read(node)
    return get


def _subjects(residual: ResidualText | None, read: Reader, n: int) -> tuple[IntArray, tuple[Any, ...], str]:
    if residual is None:
        return np.arange(n), (), ""
    nodes = (*residual.strata, *residual.subject)
    if not nodes:
        return np.zeros(n, dtype=np.intp), ("all rows",), "all rows"
    values = [_label_value(node, read) for node in nodes]
    grouping, codes = grouping_factor([name_of(node) for node in nodes], values)
    labels = grouping.levels
    if residual.strata:
        # Named by the subject alone where that says which one it is.
        own = grouping_factor([name_of(node) for node in residual.subject], values[len(residual.strata) :])
        if len(own[0].levels) == len(labels):
            grouping, codes = own
    name = ":".join(name_of(node) for node in residual.subject) or grouping.name
    return codes.astype(np.intp), grouping.levels, name


def _positions(
    residual: ResidualText, read: Reader, subject: IntArray, n: int
) -> tuple[FloatArray, tuple[str, ...], Callable[[], CovarianceStructure]]:
    """Points of the rows (n, d), labels of the columns, and what makes the structure."""
    kind, takes = residual.kind, residual.kind.takes_positions
    if takes in ("times", "coordinates"):
        return _in_space(residual, read, subject, n)
    if len(residual.index) > 1:
        raise OptionError(
            f"residual={residual.text!r}: {kind.name}() takes one index; make a factor of the combination first."
        )
    if not residual.index:
        codes, labels = _order_within(subject), _NONE
    else:
        codes, labels = _levels(residual, read(residual.index[0]), name_of(residual.index[0]), takes == "whole numbers")
    size = int(codes.max()) + 1
    columns = labels or tuple(str(i + 1) for i in range(size))

    def make() -> CovarianceStructure:
        return find_structure(kind.name).build(size, None, **residual.options)

    return codes[:, None].astype(float), columns, make


def _levels(residual: ResidualText, value: Value, name: str, counted: bool) -> tuple[IntArray, tuple[str, ...]]:
    """Columns of the rows. Where gaps count, unused levels and whole numbers between are columns as well."""
    if not counted:
        codes, levels = as_factor(value, name)
        return codes.astype(np.intp), tuple(str(level) for level in levels)
    if value.is_factor:
        used = np.flatnonzero(np.bincount(value.values, minlength=len(value.levels)))
        levels = value.levels[int(used[0]) : int(used[-1]) + 1]
        return value.values.astype(np.intp) - int(used[0]), tuple(str(level) for level in levels)
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
    return (value.values - low).astype(np.intp), tuple(str(i) for i in range(low, high + 1))


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
    residual: ResidualText, read: Reader, subject: IntArray, n: int
) -> tuple[FloatArray, tuple[str, ...], Callable[[], CovarianceStructure]]:
    kind = residual.kind
    if residual.index:
        points = np.column_stack([_coordinate(residual, read(node), name_of(node)) for node in residual.index])
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

    return points, (), make


def _coordinate(residual: ResidualText, value: Value, name: str) -> FloatArray:
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


# --- variance functions -----------------------------------------------------------------------------------------------


def _log_scale(
    design: Design, sides: ResidualSides, read: Reader, n: int
) -> tuple[FloatArray, tuple[str, ...], int | None]:
    blocks: list[FloatArray] = []
    names: list[str] = []
    fitted = None
    for part in sides.variance:
        if part.node is None:
            fitted = len(names)
            columns, own = np.zeros((n, 1)), [part.text]
        else:
            columns, own = _columns_of(part, read, n)
        blocks.append(columns)
        names += own
    if sides.dispformula:
        columns, own = _of_formula(design, sides.dispformula)
        blocks.append(columns)
        names += own
    G = np.concatenate([np.zeros((n, 0)), *blocks], axis=1)
    return G, tuple(names), fitted


def _columns_of(part: VarianceText, read: Reader, n: int) -> tuple[FloatArray, list[str]]:
    if part.function == "ident":
        codes, labels = _combined(part.factors, read, n)
        if len(labels) < 2:
            raise DataError(f"variance={part.text!r} has one level; a variance function needs two or more")
        return (codes[:, None] == np.arange(1, len(labels))).astype(float), [f"{part.text}[{x}]" for x in labels[1:]]
    assert part.node is not None
    value = read(part.node)
    if value.is_factor or value.kind == "matrix":
        raise DataError(f"variance={part.text!r}: {deparse(part.node)} is no number; use ident() for a factor")
    x = np.asarray(value.values, dtype=float)
    if not np.isfinite(x).all():
        raise DataError(f"variance={part.text!r}: {deparse(part.node)} has infinite values; correct the data")
    if part.function == "power":
        x = _log_size(x, deparse(part.node))
    if np.ptp(x) == 0.0:
        raise DataError(f"variance={part.text!r}: {deparse(part.node)} is the same for all rows")
    return x[:, None], [part.text]


def _log_size(x: FloatArray, name: str) -> FloatArray:
    if (x == 0.0).any():
        raise DataError(
            f"variance=power(): {name} is zero in {int((x == 0.0).sum())} row(s), where the standard deviation "
            "would be "
            "zero or infinite; use exp(), or move the covariate away from zero"
        )
    return np.asarray(np.log(np.abs(x)))


def _of_formula(design: Design, text: str) -> tuple[FloatArray, list[str]]:
    """Columns of a dispersion formula beside its intercept, which the standard deviation is."""
    columns = dict(design.columns or {})
    names = tuple(columns)
    frame = Frame(names, design.n_obs, lambda i: columns[names[i]])
    own = lformula(
        f"{design.response_name} {text}", frame, require_random=False, functions=dict(design.recipe.functions)
    )
    if own.terms:
        raise OptionError(
            f"dispformula={text!r}: random effects in the dispersion are not taken for a normal response."
        )
    if "Intercept" not in own.x_names:
        raise OptionError(
            f"dispformula={text!r} has no intercept; leave it in: it is the logarithm of the residual standard "
            "deviation. "
            "(A model without residuals, '~ 0', is not taken.)"
        )
    kept = [j for j, name in enumerate(own.x_names) if name != "Intercept"]
    return own.X[:, kept], [own.x_names[j] for j in kept]
