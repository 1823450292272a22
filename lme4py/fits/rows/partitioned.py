"""Generalised models of rows that do not fit into memory: parts on this machine's disk, or where the rows are.

One pass finds levels and what functions learn; a second one brings the model's rows into parts of whole groups. A fit
of one part says where to begin, that the likelihood has a maximum and that the variances are identified: a direction
in which the likelihood of all rows rises for ever is one for every part, and what a part tells apart, all rows do. Then
every evaluation is one map over the parts. Where factors are crossed, or groups do not fit, see
`lme4py.fits.rows.passed`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from lme4py.data.sources.base import RowSource
from lme4py.design.absent import PassCost, RowsReport, absent
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.rank import dependent_columns
from lme4py.design.streaming.stream import StreamPlan, plan_stream
from lme4py.engine.factor.forecast import size_words
from lme4py.engine.generalised.integrals.integral import IntegralCheck
from lme4py.engine.generalised.optimum import GlmmOptimum
from lme4py.engine.generalised.problem import ModeError, ModeFinder
from lme4py.engine.generalised.starts.start import Start
from lme4py.engine.generalised.streamed.partitions import PartitionedDescents
from lme4py.engine.generalised.streamed.passes import PassedDescents
from lme4py.engine.linear.problem import group_terms
from lme4py.engine.optimise import Control
from lme4py.errors import ConvergenceWarning, DesignError, OptionError, warn
from lme4py.families.base import Family
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import make_glmm_fit, user_conditional, user_modes, warn_of
from lme4py.fits.kinds import model_of
from lme4py.fits.linear.streamed import Passes
from lme4py.fits.parameters import check_names
from lme4py.fits.rows.clustered import (
    ClusterParts,
    HeldRows,
    LevelsOfPart,
    crossed_words,
    held_rows,
    levels_of_part,
)
from lme4py.fits.rows.loose import LooseRows
from lme4py.fits.rows.parts import Parts
from lme4py.fits.rows.passed import FiledRows, PassedRows, passed_criterion
from lme4py.fits.rows.spill import Nesting, RowTable, Spill
from lme4py.fits.steps import read_control, refuse_iterative
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["bytes_per_row", "partitioned_fit"]

# Arrays of the rows of a part that an evaluation holds at one time, beside the columns.
_ARRAYS = 40
# Of the bytes for the rows of a part, what one with large groups may take.
_UNEVEN = 2.0
# Of the free disk, what files of rows may take.
_DISK = 0.9
# Beside them, what stays in memory while rows of crossed factors go by.
_TABLES = 1.5


class Streamed(Protocol):
    """Rows that are streamed.

    Attributes
    ----------
    source : RowSource or None
    control : object
        Settings of the optimiser.
    limit : float
        Bytes that the rows of one part may take.
    """

    @property
    def source(self) -> RowSource | None: ...

    @property
    def control(self) -> Any: ...

    @property
    def limit(self) -> float: ...


def bytes_per_row(n_columns: int) -> int:
    """Memory that a fit takes for each row.

    Parameters
    ----------
    n_columns : int
        Of the model.
    """
    return 8 * (2 * n_columns + _ARRAYS)


def partitioned_fit(
    formula: str,
    streamed: Streamed,
    family: Family,
    given: Mapping[str, Any],
    *,
    levels: Iterable[Any] | None = None,
    nAGQ: int = 1,
    hessian: str = "observed",
) -> GeneralisedFit:
    """Fit a generalised model from rows that are streamed.

    Parameters
    ----------
    formula : str
    streamed : Streamed
    family : Family
    given : mapping of str to object
        `weights`, `offset`, `contrasts` and `na_action` of `plan_stream`.
    levels : iterable, optional
        Ordered categories, as in `clmm`.
    nAGQ, hessian
        As in `glmm_fit`.

    Returns
    -------
    GeneralisedFit
        Without rows.

    Raises
    ------
    OptionError
        ``nAGQ=0``; more points where factors are crossed; levels that do not fit into the memory that is allowed.
    DataError
        The source changed between passes, or its parts do not fit together.
    """
    if nAGQ < 1:
        raise OptionError(f"nAGQ={nAGQ} is not there for streamed rows; use nAGQ=1, or more points.")
    source = streamed.source
    if source is None:
        raise TypeError("there is nothing to stream")
    settings = read_control(streamed.control)
    refuse_iterative(settings, "generalised models of streamed rows")
    before = source.fingerprint()
    plan = plan_stream(formula, source, **given, family=family, levels=levels)
    witness = plan.witness
    _refuse_dependent(witness)
    if family.has_thresholds and witness.response is not None:
        family = replace(family, n_categories=len(witness.response.categories or ()))  # type: ignore[call-arg]
    check_names(witness, family)
    passes = Passes(source, plan, before)
    ask = _Asked(family, nAGQ, hessian, settings, streamed.limit)
    row = bytes_per_row(len(witness.x_names) + sum(term.n_columns for term in witness.terms))
    with tempfile.TemporaryDirectory(prefix="lme4py-") as folder, ExitStack() as stack:
        held = held_rows(passes, plan, row, streamed.limit)
        if held is not None:
            stack.callback(held.release)
        if isinstance(held, HeldRows):
            fit, pilot = _on_cluster(held, passes, plan, ask)
        elif held is not None:
            ask.refuse_quadrature(held.hindrance)
            fit, pilot = _by_passes_elsewhere(held, passes, plan, ask)
        else:
            spill, hindrance = _spilled(passes, plan, Path(folder), row, streamed.limit)
            ask.refuse_quadrature(hindrance)
            fit, pilot = (_by_passes if hindrance else _by_parts)(spill, passes, plan, ask)
        poor = nAGQ > 1 and pilot.integral_check.matters
    passes.check_source()
    warn_of(fit, True, stacklevel=4)
    if poor:
        warn(f"In a part of the rows: {pilot.integral_check}", ConvergenceWarning)
    return fit


def _refuse_dependent(witness: Design) -> None:
    dependent = dependent_columns(witness.X, bool(witness.recipe.formula.fixed.intercept))
    if len(dependent):
        names = ", ".join(witness.x_names[int(j)] for j in dependent)
        raise DesignError(
            f"the columns before them seem to determine {names}; leave these out of the formula, or read the rows into "
            "memory with control={'rows': 'memory'}, where that is decided exactly."
        )


def _spilled(passes: Passes, plan: StreamPlan, folder: Path, row: float, limit: float) -> tuple[Spill, str]:
    """The second pass: rows in files by group; and why groups cannot be evaluated one by one, "" where they can."""
    witness = plan.witness
    factors = group_terms(witness)
    outer = min(range(len(factors)), key=lambda f: factors[f].n_levels)
    nesting = Nesting(outer, [f.n_levels for f in factors], [f.name for f in factors])
    firsts = [factor.terms[0] for factor in factors]
    widths = tuple(term.n_columns for term in witness.terms)
    J = factors[outer].n_levels
    n_parts = int(max(1, np.ceil(passes.tally.n_obs * row / limit)))
    part_of: IntArray = np.random.default_rng(0).permutation(J) % min(J, n_parts)
    spill: Spill | None = None
    _check_disk(folder, passes, _bytes_on_disk(witness))
    for rows in passes.rows():
        rows = replace(rows, X=rows.X[:, list(witness.recipe.kept)])
        own = [rows.codes[t] for t in firsts]
        nesting.add(own)
        if spill is None:
            beside = (1 if rows.y.ndim == 1 else rows.y.shape[1], rows.weights is not None, rows.offset is not None)
            layout = RowTable((rows.X.shape[1], *map(int, beside), *widths))
            spill = Spill(folder, layout, part_of, min(J, n_parts))
        spill.add(rows, own[outer])
    if spill is None:
        raise DesignError("no rows are left.")
    hindrance = ""
    largest = row * max(spill.n_rows(number) for number in range(spill.n_parts))
    if nesting.crossed:
        hindrance = crossed_words(factors[outer].name, nesting.crossed)
    elif largest > _UNEVEN * limit:
        hindrance = f"a group of {factors[outer].name} alone takes more than the memory that is allowed"
    if hindrance:
        most = max(range(len(factors)), key=lambda f: factors[f].n_levels)
        spill = spill.again(firsts[most], factors[most].n_levels, n_parts, max(1, int(limit // row)))
    return spill, hindrance


def _bytes_on_disk(witness: Design) -> float:
    """Of a row of a model: its numbers, its groups, and where it stands among the pairs of these."""
    terms = witness.terms
    y = 1 if witness.y.ndim == 1 else witness.y.shape[1]
    numbers = len(witness.x_names) + y + 2 + sum(term.n_columns + 1 for term in terms)
    return 8.0 * (numbers + len(terms) * (len(terms) - 1) / 2)


def _check_disk(folder: Path, passes: Passes, row: float) -> None:
    """Refuse rows for which the disk has no room."""
    need, free = passes.tally.n_obs * row, float(shutil.disk_usage(folder).free)
    if need > _DISK * free:
        raise OptionError(
            f"the {passes.tally.n_obs:,} rows of {passes.source.place} take {size_words(need)} in files of this "
            f"machine, and {folder.parent} has {size_words(free)}; set the environment variable TMPDIR to a folder of "
            "a larger disk, or read fewer rows with subset=."
        )


@dataclass(frozen=True)
class _Asked:
    """What the user asked for."""

    family: Family
    nAGQ: int
    hessian: str
    settings: Control
    limit: float

    def refuse_quadrature(self, hindrance: str) -> None:
        """Where groups are not evaluated one by one."""
        if hindrance and self.nAGQ > 1:
            raise OptionError(
                f"nAGQ={self.nAGQ} takes quadrature over the groups one by one, but {hindrance}; use nAGQ=1."
            )

    def pilot(self, parts: Parts) -> GeneralisedFit:
        """The fit of one part."""
        return parts.pilot(self.nAGQ, self.hessian, self.settings)


@dataclass(frozen=True)
class _Known:
    """What the end of a fit knows of its levels, by term, and of how the rows went by."""

    modes: tuple[FloatArray, ...]
    spreads: tuple[FloatArray, ...]
    counts: tuple[FloatArray, ...]
    how: str
    cost: PassCost


Fitted: TypeAlias = tuple[GeneralisedFit, GeneralisedFit]


def _by_parts(spill: Spill, passes: Passes, plan: StreamPlan, ask: _Asked) -> Fitted:
    """The fit of all rows, and that of a part, by a map over files of whole groups."""
    parts = Parts(spill, plan.witness, plan, ask.family)
    pilot = ask.pilot(parts)
    descents = PartitionedDescents(ModeFinder(pilot.problem), ask.settings, parts.loaders, ask.nAGQ)
    clock = _Clock()
    optimum = descents.beside(_start(pilot)).finish()
    cost = clock.cost(descents.whole.passes, descents.whole.passes * sum(map(spill.n_bytes, parts.numbers[1:])))
    each = zip(parts.numbers, descents.whole.each(optimum.phi), strict=True)
    levels = (levels_of_part(spill.read(number).codes, found) for number, found in each)
    how = f"{_parts(len(parts.numbers))} by group ({descents.whole.passes} evaluations)"
    return _whole(pilot, optimum, _known(plan.witness, levels, how, cost), plan.witness, passes), pilot


def _on_cluster(held: HeldRows, passes: Passes, plan: StreamPlan, ask: _Asked) -> Fitted:
    """The same by a map over the parts of a cluster; the part that has a fit of its own is here."""
    parts = Parts(held, plan.witness, plan, ask.family)
    pilot = ask.pilot(parts)
    here = parts.numbers[0]
    others = ClusterParts(held, parts.engine_rows, here)
    descents = PartitionedDescents(ModeFinder(pilot.problem), ask.settings, parts.loaders[:1], ask.nAGQ, others)
    clock = _Clock()
    optimum = descents.beside(_start(pilot)).finish()
    cost = clock.cost(descents.whole.passes, others.traffic)
    first = next(descents.whole.each(optimum.phi))
    levels = [levels_of_part(held.read(here).codes, first), *others.levels(optimum.phi)]
    how = f"{_parts(len(parts.numbers))} by group where they are ({descents.whole.passes} evaluations)"
    return _whole(pilot, optimum, _known(plan.witness, levels, how, cost), plan.witness, passes), pilot


def _by_passes(spill: Spill, passes: Passes, plan: StreamPlan, ask: _Asked) -> Fitted:
    """The same by passes over files, whatever the factors are."""
    parts = Parts(spill, plan.witness, plan, ask.family)
    here = " of this machine, to which the rows came" if passes.source.travels else ""
    how = f"{_parts(len(parts.numbers))} ({{passes}} passes over files{here})"
    return _passed(FiledRows(parts, spill), parts, how, passes, plan, ask)


def _by_passes_elsewhere(loose: LooseRows, passes: Passes, plan: StreamPlan, ask: _Asked) -> Fitted:
    """The same by passes that are sent to the rows."""
    parts = Parts(loose, plan.witness, plan, ask.family)
    how = f"{_parts(loose.held.n_parts)} where they are ({{passes}} passes)"
    return _passed(loose, parts, how, passes, plan, ask)


def _passed(rows: PassedRows, parts: Parts, how: str, passes: Passes, plan: StreamPlan, ask: _Asked) -> Fitted:
    pilot = ask.pilot(parts)
    criterion, seen = passed_criterion(rows, parts, pilot, passes.tally.n_obs, _TABLES * ask.limit)
    clock = _Clock()
    optimum = PassedDescents(criterion, ask.settings).beside(_start(pilot)).finish()
    found = criterion.at(optimum.phi)
    if found is None:
        raise ModeError("there is no conditional mode at the estimates")
    cost = clock.cost(criterion.passes, criterion.way.traffic)
    modes, spreads = (
        user_modes(criterion.problem, found.mode.theta, found.mode.b),
        user_conditional(criterion.problem, found),
    )
    factors = criterion.problem.factors
    counts = {t: own.astype(np.float64) for f, own in zip(factors, seen.counts, strict=True) for t in f.terms}
    known = _Known(modes, spreads, tuple(counts[t] for t in sorted(counts)), how.format(passes=criterion.passes), cost)
    return _whole(pilot, optimum, known, plan.witness, passes), pilot


def _start(pilot: GeneralisedFit) -> Start:
    return Start(*pilot.problem.split(pilot.phi))


class _Clock:
    """The time that evaluations take."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def cost(self, count: int, traffic: float) -> PassCost:
        """Of each, from the start until now.

        Parameters
        ----------
        count : int
        traffic : float
            Bytes of all.
        """
        return PassCost((time.perf_counter() - self.start) / count, traffic / count)


def _known(witness: Design, parts: Iterable[LevelsOfPart], how: str, cost: PassCost) -> _Known:
    """Levels by the parts that hold them."""
    terms = witness.terms
    modes = tuple(np.zeros((term.n_levels, term.n_columns)) for term in terms)
    spreads = tuple(np.zeros((term.n_levels, term.n_columns, term.n_columns)) for term in terms)
    counts = tuple(np.zeros(term.n_levels) for term in terms)
    for part in parts:
        for t, own in enumerate(part.levels):
            modes[t][own], spreads[t][own], counts[t][own] = part.modes[t], part.spreads[t], part.counts[t]
    return _Known(modes, spreads, counts, how, cost)


def _parts(count: int) -> str:
    return f"{count} part{'s' * (count != 1)}"


def _whole(
    pilot: GeneralisedFit, optimum: GlmmOptimum, known: _Known, witness: Design, passes: Passes
) -> GeneralisedFit:
    """The fit of all rows, which are not there."""
    finder = ModeFinder(pilot.problem)
    first = make_glmm_fit(pilot.design, pilot.family, pilot.data, pilot.nAGQ, pilot.hessian, finder, optimum)
    design = _design(witness, passes, known)
    n = design.n_obs
    fit: GeneralisedFit = replace(
        first,
        problem=absent("the equations of the model"),
        data=design.response or first.data,
        linear_predictor=absent("linear predictor", (n,)),
        design=design,
        modes=known.modes,
        conditional_covariances=known.spreads,
    )
    reason = "the rows were streamed; compare with more points (nAGQ=)"
    unchecked = IntegralCheck(fit.nAGQ, None, reason=reason)
    for derived in model_of(first).outlives_rows():
        fit.derived.keep(derived, unchecked if derived is GeneralisedFit.integral_check else derived(first))
    return fit


def _design(witness: Design, passes: Passes, known: _Known) -> Design:
    tally = passes.tally
    n = tally.n_obs
    groups = {
        term.group: (int(own.min()), float(own.mean()), int(own.max()))
        for term, own in zip(witness.terms, known.counts, strict=True)
    }
    sums = {name: (total, tally.squares[name]) for name, total in tally.sums.items()}
    where = f"{passes.source.place}, {known.how}"
    report = RowsReport(where, passes.count, tally.n_blocks, tally.n_rows, n, groups, sums=sums, cost=known.cost)
    data = witness.response
    if data is not None:
        trials = None if data.trials is None else absent("numbers of trials", (n,))
        weights = None if data.weights is None else absent("weights", (n,))
        data = replace(data, y=absent("response", (n,)), trials=trials, weights=weights)
    return replace(
        witness,
        y=absent("response", (n, *witness.y.shape[1:])),
        predictors=tuple(_predictor(predictor, n) for predictor in witness.predictors),
        weights=None if witness.weights is None else absent("weights", (n,)),
        keep=absent("rows used", (tally.n_rows,)),
        row_labels=absent("row labels", (tally.n_rows,)),
        columns=absent("columns of the data", (n,)),
        response=data,
        labelled=False,
        source=None,
        streamed=report,
        lazy=passes.source,
    )


def _predictor(predictor: Predictor, n: int) -> Predictor:
    offset = None if predictor.offset is None else absent("offset", (n,))
    X = absent("model matrix", (n, len(predictor.names)))
    return replace(predictor, X=X, offset=offset, terms=tuple(_term(term, n) for term in predictor.terms))


def _term(term: RandomTerm, n: int) -> RandomTerm:
    codes, values = absent("groups of the rows", (n,)), absent("columns of the random effects", (n, term.n_columns))
    return replace(term, codes=codes, values=values)
