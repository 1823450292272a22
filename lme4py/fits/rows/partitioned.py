"""Generalised models of rows that do not fit into memory: parts of whole groups on this machine's disk.

One pass finds levels and what functions learn; a second one writes the model's rows to files by group. A fit of one
part says where to begin, that the likelihood has a maximum and that the variances are identified: a direction in which
the likelihood of all rows rises for ever is one for every part, and what a part tells apart, all rows do. Then every
evaluation is one map over the parts.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lme4py.data.sources.base import RowSource
from lme4py.design.absent import RowsReport, absent
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.rank import dependent_columns
from lme4py.design.streaming.stream import ModelRows, StreamPlan, plan_stream
from lme4py.engine.generalised.descent import GlmmOptimum
from lme4py.engine.generalised.integrals.integral import IntegralCheck
from lme4py.engine.generalised.partitions import PartitionedCriterion, PartitionedDescents
from lme4py.engine.generalised.problem import GlmmProblem, ModeFinder
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.generalised.starts.start import Start
from lme4py.engine.linear.problem import group_terms
from lme4py.errors import ConvergenceWarning, DesignError, Lme4Error, Lme4Warning, OptionError, warn
from lme4py.families.base import Family
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import glmm_fit, make_glmm_fit, user_conditional, user_modes, warn_of
from lme4py.fits.kinds import model_of
from lme4py.fits.linear.streamed import Passes
from lme4py.fits.parameters import check_names
from lme4py.fits.rows.spill import Nesting, Spill
from lme4py.fits.steps import read_control, refuse_iterative
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["bytes_per_row", "partitioned_fit"]

# Arrays of the rows of a part that an evaluation holds at one time, beside the columns.
_ARRAYS = 40
# Parts whose own fit may fail before that is taken as a fault of the model.
_TRIES = 3


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
    """Fit a generalised model of one grouping factor, or of nested ones, from rows that are streamed.

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
        Crossed factors, or ``nAGQ=0``.
    DataError
        The source changed between passes, or its parts do not fit together.
    """
    if nAGQ < 1:
        raise OptionError(f"nAGQ={nAGQ} is not there for streamed rows; use nAGQ=1, or more points.")
    source = streamed.source
    if source is None:
        raise TypeError("there is nothing to stream")
    settings = read_control(streamed.control)
    refuse_iterative(settings, "generalised models")
    before = source.fingerprint()
    plan = plan_stream(formula, source, **given, family=family, levels=levels)
    witness = plan.witness
    _refuse_dependent(witness)
    if family.has_thresholds and witness.response is not None:
        family = replace(family, n_categories=len(witness.response.categories or ()))  # type: ignore[call-arg]
    check_names(witness, family)
    passes = Passes(source, plan, before)
    with tempfile.TemporaryDirectory(prefix="lme4py-") as folder:
        parts = _Parts(_spilled(passes, plan, Path(folder), streamed.limit), witness, plan, family)
        pilot = parts.pilot(nAGQ, hessian, settings)
        descents = PartitionedDescents(ModeFinder(pilot.problem), settings, parts.loaders, nAGQ)
        theta, beta, lam = pilot.problem.split(pilot.phi)
        optimum = descents.beside(Start(theta, beta, lam)).finish()
        fit = _whole(pilot, optimum, descents.whole, parts, passes)
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


def _spilled(passes: Passes, plan: StreamPlan, folder: Path, limit: float) -> Spill:
    """The second pass: rows in files by group."""
    witness = plan.witness
    factors = group_terms(witness)
    outer = min(range(len(factors)), key=lambda f: factors[f].n_levels)
    nesting = Nesting(outer, [f.n_levels for f in factors], [f.name for f in factors])
    firsts = [factor.terms[0] for factor in factors]
    widths = tuple(term.n_columns for term in witness.terms)
    J = factors[outer].n_levels
    needed = passes.tally.n_obs * bytes_per_row(len(witness.x_names) + sum(widths))
    n_parts = int(min(J, max(1, np.ceil(needed / limit))))
    part_of: IntArray = np.random.default_rng(0).permutation(J) % n_parts
    spill: Spill | None = None
    for rows in passes.rows():
        rows = replace(rows, X=rows.X[:, list(witness.recipe.kept)])
        own = [rows.codes[t] for t in firsts]
        nesting.add(own)
        if spill is None:
            beside = (1 if rows.y.ndim == 1 else rows.y.shape[1], rows.weights is not None, rows.offset is not None)
            spill = Spill(folder, (rows.X.shape[1], *map(int, beside), *widths), part_of, n_parts, len(widths))
        spill.add(rows, own[outer])
    if spill is None:
        raise DesignError("no rows are left.")
    return spill


@dataclass
class _Parts:
    """The parts of the rows as designs, and as problems in the columns of the pilot."""

    spill: Spill
    witness: Design
    plan: StreamPlan
    family: Family

    def __post_init__(self) -> None:
        self.numbers = [number for number in range(self.spill.n_parts) if self.spill.has(number)]
        self.first: GlmmProblem | None = None

    def pilot(self, nAGQ: int, hessian: str, settings: Any) -> GeneralisedFit:
        """The fit of the first part that has one; that part comes first from now on."""
        failure: Lme4Error | None = None
        for number in self.numbers[:_TRIES]:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", Lme4Warning)
                    fit = glmm_fit(self.design(number), self.family, nAGQ=nAGQ, hessian=hessian, control=settings)
            except Lme4Error as error:
                failure = error
                continue
            if fit.recession is None and not fit.identification.sentences:
                self.numbers.remove(number)
                self.numbers.insert(0, number)
                self.first = fit.problem
                return fit
            text = fit.recession.describe(self.family.separates) if fit.recession else fit.certificate.verdict
            failure = DesignError(text)
        raise DesignError(
            f"parts of the rows have no fit of their own, so that streaming them proves nothing: {failure} Read the "
            "rows into memory with control={'rows': 'memory'}, or allow more memory with control={'memory_limit': ...}."
        )

    def design(self, number: int) -> Design:
        """A part as a design of its own."""
        rows = self.spill.read(number)
        n, terms = rows.n, []
        for term, codes, Z in zip(self.witness.terms, rows.codes, rows.Z, strict=True):
            used, own = np.unique(codes, return_inverse=True)
            levels = tuple(term.levels[i] for i in used)
            terms.append(replace(term, levels=levels, codes=own.reshape(-1).astype(np.int32), values=Z))
        old = self.witness.predictors[0]
        predictor = replace(old, X=np.asfortranarray(rows.X), terms=tuple(terms), offset=rows.offset)
        data = self.response(rows)
        return replace(
            self.witness,
            y=data.table,
            predictors=(predictor,),
            weights=rows.weights,
            keep=np.ones(n, dtype=bool),
            index=self.witness.index[:0].reindex(np.arange(n))[0],
            response=data,
            columns=None,
            source=None,
        )

    def response(self, rows: ModelRows) -> ResponseData:
        """The response of some rows, as the family reads it."""
        form, known = self.plan.replay.form, self.witness.response
        if form is None or known is None:
            raise TypeError("the plan reads no response of a family")
        value = form.value(rows.y)
        return self.family.coerce(value, form.name, rows.weights, levels=known.categories, column=None)

    @property
    def loaders(self) -> list[Any]:
        """What makes the problem of each part, the pilot's first."""
        if self.first is None:
            raise TypeError("the pilot comes first")
        first = self.first
        if len(self.numbers) == 1:
            return [lambda: first]
        return [lambda: first, *(_Loader(self, number, first) for number in self.numbers[1:])]


@dataclass(frozen=True)
class _Loader:
    """Makes the problem of a part in the columns of the pilot's."""

    parts: _Parts
    number: int
    like: GlmmProblem

    def __call__(self) -> GlmmProblem:
        like, rows = self.like, self.parts.spill.read(self.number)
        X = rows.X @ like.C if like.shift is None else rows.X @ like.C + like.shift
        codes, columns, factors = [], [], []
        for factor in like.factors:
            used, own = np.unique(rows.codes[factor.terms[0]], return_inverse=True)
            codes.append(own.reshape(-1).astype(np.intp))
            columns.append(np.hstack([rows.Z[t] @ like.S[t] for t in factor.terms]))
            factors.append(replace(factor, n_levels=used.size))
        places = like.products.places
        offset = np.zeros(rows.n) if rows.offset is None else rows.offset
        products = WeightedProducts(tuple(codes), tuple(columns), tuple(factors), places=places)
        data = self.parts.response(rows)
        return replace(like, factors=tuple(factors), X=X, offset=offset, products=products, data=data)


def _whole(
    pilot: GeneralisedFit, optimum: GlmmOptimum, criterion: PartitionedCriterion, parts: _Parts, passes: Passes
) -> GeneralisedFit:
    """The fit of all rows, which are not there."""
    finder = criterion.finder
    first = make_glmm_fit(pilot.design, pilot.family, pilot.data, pilot.nAGQ, pilot.hessian, finder, optimum)
    witness = parts.witness
    modes = [np.zeros((term.n_levels, term.n_columns)) for term in witness.terms]
    spreads = [np.zeros((term.n_levels, term.n_columns, term.n_columns)) for term in witness.terms]
    counts = [np.zeros(term.n_levels) for term in witness.terms]
    for number, found in zip(parts.numbers, criterion.each(optimum.phi), strict=True):
        rows = parts.spill.read(number).codes
        own = zip(
            rows, user_modes(found.finder.problem, found), user_conditional(found.finder.problem, found), strict=True
        )
        for t, (codes, b, V) in enumerate(own):
            used, sizes = np.unique(codes, return_counts=True)
            modes[t][used], spreads[t][used], counts[t][used] = b, V, sizes
    design = _design(witness, passes, criterion, counts)
    n = design.n_obs
    fit: GeneralisedFit = replace(
        first,
        problem=absent("the equations of the model"),
        data=design.response or first.data,
        linear_predictor=absent("linear predictor", (n,)),
        design=design,
        modes=tuple(modes),
        conditional_covariances=tuple(spreads),
    )
    reason = "the rows were streamed; compare with more points (nAGQ=)"
    unchecked = IntegralCheck(fit.nAGQ, None, reason=reason)
    for derived in model_of(first).outlives_rows():
        fit.derived.keep(derived, unchecked if derived is GeneralisedFit.integral_check else derived(first))
    return fit


def _design(witness: Design, passes: Passes, criterion: PartitionedCriterion, counts: list[FloatArray]) -> Design:
    tally = passes.tally
    n = tally.n_obs
    groups = {
        term.group: (int(own.min()), float(own.mean()), int(own.max()))
        for term, own in zip(witness.terms, counts, strict=True)
    }
    sums = {name: (total, tally.squares[name]) for name, total in tally.sums.items()}
    parts = len(criterion.parts)
    where = f"{passes.source.place}, {parts} part{'s' * (parts != 1)} by group ({criterion.passes} evaluations)"
    report = RowsReport(where, passes.count, tally.n_blocks, tally.n_rows, n, groups, sums=sums)
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
        index=absent("row labels", (tally.n_rows,)),
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
