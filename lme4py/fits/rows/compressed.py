"""Generalised models of rows that repeat: a cell with the number of its rows says the same as the rows.

Where prior weights multiply the log-likelihood of a row, one row with weight m has the log-likelihood of m equal rows,
constants included: estimates, log-likelihood and information are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.data.cells import COUNT, Cells, CellSource, find_cells
from lme4py.data.sources import RowSource, find_source
from lme4py.design.absent import RowsReport, absent
from lme4py.design.build import model_nodes, read_formula
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.smooths import has_smooths
from lme4py.errors import OptionError
from lme4py.families.registry import Family
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.settings import memory_setting, rows_in_memory, rows_setting
from lme4py.formula.deparse import names_in, walk
from lme4py.formula.evaluate import LEARNERS
from lme4py.formula.nodes import Call, Formula, Name
from lme4py.linalg.memory import available_memory

__all__ = ["Compressed", "compressed", "linear_source", "of_all_rows"]

# Cells are worth it for a linear model, which goes through its rows twice, where they are this part of the rows.
_TENTH = 0.1
# Of the memory allowed, what the rows of one part may take: modes and the part that is read next need room too.
_PART = 0.4


@dataclass(frozen=True)
class Compressed:
    """Data for a fit in memory.

    Attributes
    ----------
    data : object
    control : object
        The settings without ``rows``.
    weights : object
        The name of the column of counts where rows were compressed.
    cells : Cells or None
    where : str
        Where the rows were.
    source : RowSource or None
        Of the cells, or of rows that are streamed in parts, see `lme4py.fits.rows.partitioned`.
    limit : float
        Bytes for one of these.
    """

    data: Any
    control: Any
    weights: Any
    cells: Cells | None = None
    where: str = ""
    source: RowSource | None = None
    limit: float = np.inf

    @property
    def in_parts(self) -> bool:
        """Whether there are no data yet: rows are streamed in parts."""
        return self.source is not None and self.cells is None


def compressed(
    data: Any,
    control: Any,
    formula: Any,
    family: Family,
    weights: Any,
    arguments: Mapping[str, Any],
    compress: Any,
    others: Mapping[str, Any],
) -> Compressed:
    """The data in memory, as cells where rows repeat; or the source of rows that are streamed in parts.

    Parameters
    ----------
    data, control, formula, weights : object
        As the user gave them.
    family : Family
    arguments : mapping of str to object
        Others that have a value for each row, or see rows: `offset`, `functions`.
    compress : bool or None
        None compresses the rows of sources that are not in memory, where it is worth it.
    others : mapping of str to object
        Arguments of which streamed rows know nothing.

    Raises
    ------
    OptionError
        ``compress=True`` where cells are no substitute for rows, or ``control={"rows": "stream"}`` where the model
        needs them in memory.
    """
    _check_compress(compress)
    where, rest = rows_setting(control)
    source = find_source(data, "stream" if compress else where)[1] if where != "memory" or compress else None
    if source is None:
        return Compressed(*rows_in_memory(data, control, "generalised models"), weights)
    names = source.schema().names
    hindrance = _hindrance(formula, names, family, weights, arguments)
    if hindrance and compress:
        raise OptionError(f"compress=True is not possible: {hindrance}. Leave it out.")
    columns = _columns(formula, names)
    cells = None if hindrance or compress is False else find_cells(source, columns, bool(compress))
    if cells is not None:
        return Compressed(cells.frame, rest, COUNT, cells, source.place, source)
    limit = memory_setting(control) or 0.5 * available_memory()
    # Arrays of the parts and of what is read next to them.
    known = {**arguments, **others, "offset": None, "na_action": None}
    if where == "stream" or _is_large(source, len(columns), limit):
        given = [name for name, value in known.items() if value is not None]
        if not given:
            return Compressed(None, rest, weights, where=source.place, source=source, limit=_PART * limit)
        if where == "stream":
            raise OptionError(
                f"{given[0]}= needs the rows in memory, and control['rows'] is 'stream'; leave one of them out."
            )
    return Compressed(source.whole(), rest, weights)


def linear_source(source: RowSource, compress: Any, formula: Any, weights: Any) -> RowSource:
    """Where the rows of a linear model are, as cells where they repeat in all columns but the response.

    Parameters
    ----------
    source : RowSource
    compress : bool or None
        None compresses where the source has a GROUP BY of its own, and rows repeat ten times and more.
    formula, weights : object
        As the user gave them.

    Raises
    ------
    OptionError
        ``compress=True`` where cells are no substitute for rows.
    """
    _check_compress(compress)
    if compress is False or not (compress or source.groups):
        return source
    names = source.schema().names
    response, hindrance = _mean_of_cells(formula, names, weights)
    if hindrance and compress:
        raise OptionError(f"compress=True is not possible: {hindrance}. Leave it out.")
    cells = None if hindrance else find_cells(source, _columns(formula, names), bool(compress), response, _TENTH)
    return source if cells is None else CellSource(cells, source)


def _check_compress(compress: Any) -> None:
    if compress is not None and not isinstance(compress, bool):
        raise OptionError(f"`compress` is {compress!r}; give True, False, or None for a choice by the data.")


def _mean_of_cells(formula: Any, names: tuple[str, ...], weights: Any) -> tuple[str, str]:
    """The response of which cells have the mean; and why there are none, "" where there are."""
    parsed = read_formula(formula, names)
    response = parsed.response
    if not isinstance(response, Name) or response.name not in names:
        return "", "the response is no column of the data, of which a cell could have the mean"
    others = [node for node in model_nodes(parsed) if node is not response]
    if any(response.name in names_in(node, names) for node in others):
        return "", f"the response {response.name} is in other terms too"
    return response.name, _whole_rows(parsed, names, weights)


def _whole_rows(parsed: Formula, names: tuple[str, ...], weights: Any) -> str:
    """What in a formula, or beside it, takes all rows; "" for nothing."""
    if has_smooths(parsed):
        return "a smooth is made of all rows, and not of rows that repeat"
    if weights is not None:
        return "the rows have weights"
    calls = [part for node in model_nodes(parsed) for part in walk(node) if isinstance(part, Call)]
    learners = [call.function for call in calls if call.function in LEARNERS]
    return f"{learners[0]}() learns from how often a value occurs" if learners else ""


def _is_large(source: RowSource, n_columns: int, limit: float) -> bool:
    """Whether a fit in memory would take more than the limit."""
    from lme4py.fits.rows.partitioned import bytes_per_row

    count = source.count()
    return count is not None and count * bytes_per_row(n_columns) > limit


def _columns(formula: str, names: tuple[str, ...]) -> tuple[str, ...]:
    parsed = read_formula(formula, names)
    return tuple(dict.fromkeys(name for node in model_nodes(parsed) for name in names_in(node, names) if name in names))


def _hindrance(formula: Any, names: tuple[str, ...], family: Family, weights: Any, arguments: Mapping[str, Any]) -> str:
    """Why cells are no substitute for rows; "" where they are."""
    if not family.weights_multiply:
        return f"rows of the {family.name} family that repeat are not one row with a weight"
    given = [name for name, value in arguments.items() if value is not None]
    return f"`{given[0]}` is given" if given else _whole_rows(read_formula(formula, names), names, weights)


def of_all_rows(full: GeneralisedFit, made: Compressed) -> GeneralisedFit:
    """A fit of cells as one of the rows that they stand for, which are not there; other fits as they are.

    Parameters
    ----------
    full : GeneralisedFit
    made : Compressed
    """
    if made.cells is None:
        return full
    model = model_of(full)
    fit: Any = model.without_rows()
    cells, design = made.cells, full.design
    used = cells.counts[design.keep]
    n = int(used.sum())
    groups = {}
    for term in design.terms:
        rows = np.bincount(term.codes, weights=used, minlength=term.n_levels)
        groups[term.group] = (int(rows.min()), float(rows.mean()), int(rows.max()))
    where = f"{made.where}, compressed to {design.n_obs} cells"
    numbers = {name: column.values[design.keep] for name, column in cells.columns.items() if not column.is_factor}
    sums = {name: (float(used @ own), float(used @ own**2)) for name, own in numbers.items()}
    count = 1 if made.source is None else 1 + made.source.passes
    report = RowsReport(where, count, cells.n_blocks, cells.n_rows, n, groups, sums=sums)
    data, eta = _response(fit.design, n), absent("linear predictor", (n,))
    found: GeneralisedFit = replace(
        full,
        problem=absent("the equations of the model"),
        data=data,
        linear_predictor=eta,
        design=replace(
            fit.design,
            y=absent("response", (n, *design.y.shape[1:])),
            predictors=tuple(_predictor(predictor, n) for predictor in fit.design.predictors),
            weights=None,
            keep=absent("rows used", (cells.n_rows,)),
            row_labels=absent("row labels", (cells.n_rows,)),
            columns=absent("columns of the data", (n,)),
            response=data,
            recipe=replace(fit.design.recipe, weights=None),
            streamed=report,
            lazy=made.source,
        ),
    )
    for number in model.outlives_rows():
        found.derived.keep(number, number(full))
    return found


def _response(design: Design, n: int) -> Any:
    data = design.response
    if data is None:
        return None
    trials = None if data.trials is None else absent("numbers of trials", (n,))
    return replace(data, y=absent("response", (n,)), trials=trials, weights=None)


def _predictor(predictor: Predictor, n: int) -> Predictor:
    offset = None if predictor.offset is None else absent("offset", (n,))
    terms = tuple(_term(term, n) for term in predictor.terms)
    return replace(predictor, X=absent("model matrix", (n, len(predictor.names))), terms=terms, offset=offset)


def _term(term: RandomTerm, n: int) -> RandomTerm:
    values = absent("columns of the random effects", (n, term.n_columns))
    return replace(term, codes=absent("groups of the rows", (n,)), values=values)
