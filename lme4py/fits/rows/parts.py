"""The parts of rows, in files or on a cluster: as designs of their own, and as the engine goes through them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from lme4py.design.design import Design
from lme4py.design.streaming.stream import ModelRows, StreamPlan
from lme4py.engine.generalised.problem import GlmmProblem
from lme4py.engine.generalised.products import WeightedProducts
from lme4py.engine.generalised.streamed.table import PassingRows
from lme4py.errors import DataError, DesignError, Lme4Error, Lme4Warning
from lme4py.families.base import Family
from lme4py.families.response import ResponseData
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["EngineRows", "Parts", "Stored"]

# Parts whose own fit may fail before that is taken as a fault of the model.
_TRIES = 3


class Stored(Protocol):
    """Rows of a model in parts.

    Attributes
    ----------
    n_parts : int
    """

    @property
    def n_parts(self) -> int: ...

    def has(self, number: int) -> bool:
        """Whether a part has rows."""
        ...

    def read(self, number: int) -> ModelRows:
        """The rows of a part."""
        ...


@dataclass
class Parts:
    """The parts of the rows as designs, and as problems in the columns of the pilot.

    Attributes
    ----------
    stored : Stored
    witness : Design
    plan : StreamPlan
    family : Family
    """

    stored: Stored
    witness: Design
    plan: StreamPlan
    family: Family

    def __post_init__(self) -> None:
        self.numbers = [number for number in range(self.stored.n_parts) if self.stored.has(number)]
        self.first: GlmmProblem | None = None
        self.ends: ResponseEnds | None = None

    def pilot(self, nAGQ: int, hessian: str, settings: Any) -> GeneralisedFit:
        """The fit of the first part that has one; that part comes first from now on."""
        failure: Lme4Error | None = None
        tries = 0
        for number in list(self.numbers):
            if tries == _TRIES:
                break
            rows = self.stored.read(number)
            try:
                design = self.design(rows)
            except DataError as error:
                # A response without information, such as failures only.
                failure = error
                continue
            tries += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", Lme4Warning)
                    fit = glmm_fit(design, self.family, nAGQ=nAGQ, hessian=hessian, control=settings)
            except Lme4Error as error:
                failure = error
                continue
            if fit.recession is None and not fit.identification.sentences:
                self.numbers.remove(number)
                self.numbers.insert(0, number)
                self.first, self.ends = fit.problem, ResponseEnds.of(rows, self.engine_rows.categories is not None)
                return fit
            text = fit.recession.describe(self.family.separates) if fit.recession else fit.certificate.verdict
            failure = DesignError(text)
        raise DesignError(
            f"parts of the rows have no fit of their own, so that streaming them proves nothing: {failure} Read the "
            "rows into memory with control={'rows': 'memory'}, or allow more memory with control={'memory_limit': ...}."
        )

    def design(self, rows: ModelRows) -> Design:
        """A part as a design of its own."""
        n, terms = rows.n, []
        for term, codes, Z in zip(self.witness.terms, rows.codes, rows.Z, strict=True):
            used, own = np.unique(codes, return_inverse=True)
            levels = tuple(term.levels[i] for i in used)
            terms.append(replace(term, levels=levels, codes=own.reshape(-1).astype(np.int32), values=Z))
        old = self.witness.predictors[0]
        predictor = replace(old, X=np.asfortranarray(rows.X), terms=tuple(terms), offset=rows.offset)
        data = self.engine_rows.response(rows)
        return replace(
            self.witness,
            y=data.table,
            predictors=(predictor,),
            weights=rows.weights,
            keep=np.ones(n, dtype=bool),
            row_labels=None,
            response=data,
            columns=None,
            source=None,
        )

    @property
    def engine_rows(self) -> EngineRows:
        """What makes the engine's rows of the model's, before a pilot is known."""
        form, known = self.plan.replay.form, self.witness.response
        if form is None or known is None:
            raise TypeError("the plan reads no response of a family")
        return EngineRows(self.family, form, known.categories, self.first, self.ends)

    @property
    def loaders(self) -> list[Callable[[], GlmmProblem]]:
        """What makes the problem of each part, the pilot's first."""
        first, make = self._like, self.engine_rows
        return [lambda: first, *(_Load(self.stored, number, make.problem) for number in self.numbers[1:])]

    @property
    def _like(self) -> GlmmProblem:
        if self.first is None:
            raise TypeError("the pilot comes first")
        return self.first


@dataclass(frozen=True)
class ResponseEnds:
    """Rows with the smallest and largest responses of a part, or with each category.

    Attributes
    ----------
    y : ndarray, shape (m,), or (m, k) where the response has k columns
    weights : ndarray, shape (m,), or None
    """

    y: FloatArray
    weights: FloatArray | None

    @classmethod
    def of(cls, rows: ModelRows, categories: bool) -> ResponseEnds:
        """Of the rows of a part.

        Parameters
        ----------
        rows : ModelRows
        categories : bool
            Whether responses are categories.
        """
        table = rows.y.reshape(rows.n, -1)
        if categories:
            ends = np.unique(table, axis=0, return_index=True)[1]
        else:
            ends = np.concatenate([table.argmin(axis=0), table.argmax(axis=0)])
        return cls(rows.y[ends], None if rows.weights is None else rows.weights[ends])


@dataclass(frozen=True)
class EngineRows:
    """Makes rows in the engine's columns, those of a pilot; it holds no rows of its own.

    Attributes
    ----------
    family : Family
    form : ResponseForm
    categories : tuple or None
    like : GlmmProblem or None
        Of the pilot.
    ends : ResponseEnds or None
        Of the pilot: with them no rows are without information, whatever their responses are.
    """

    family: Family
    form: Any
    categories: Any
    like: GlmmProblem | None
    ends: ResponseEnds | None = None

    def light(self) -> EngineRows:
        """The same without the rows of the pilot."""
        like = self._like
        products: Any = _Places(like.products.places)
        own = replace(like, X=like.X[:0], offset=like.offset[:0], products=products, data=None)
        return replace(self, like=own)

    def response(self, rows: ModelRows) -> ResponseData:
        """The response of some rows, as the family reads it."""
        y, weights = rows.y, rows.weights
        if self.ends is not None:
            y = np.concatenate([y, self.ends.y])
            weights = None if weights is None or self.ends.weights is None else np.append(weights, self.ends.weights)
        value = self.form.value(y)
        data = self.family.coerce(value, self.form.name, weights, levels=self.categories, column=None)
        return data if self.ends is None else data.take(slice(rows.n))

    def rows(self, rows: ModelRows, places: dict[tuple[int, int], IntArray]) -> PassingRows:
        """Some rows with the levels of all.

        Parameters
        ----------
        rows : ModelRows
        places : dict
            As in `PassingRows`.
        """
        like = self._like
        codes = tuple(rows.codes[factor.terms[0]] for factor in like.factors)
        return PassingRows(self._fixed(rows), _offset(rows), self._random(rows), codes, places, self.response(rows))

    def problem(self, rows: ModelRows) -> GlmmProblem:
        """Some whole groups as a problem of their own."""
        like, codes, factors = self._like, [], []
        for factor in like.factors:
            used, own = np.unique(rows.codes[factor.terms[0]], return_inverse=True)
            codes.append(own.reshape(-1).astype(np.intp))
            factors.append(replace(factor, n_levels=used.size))
        products = WeightedProducts(tuple(codes), self._random(rows), tuple(factors), places=like.products.places)
        offset, data = _offset(rows), self.response(rows)
        X = self._fixed(rows)
        return replace(like, factors=tuple(factors), X=X, offset=offset, products=products, data=data)

    def _fixed(self, rows: ModelRows) -> FloatArray:
        like = self._like
        return rows.X @ like.C if like.shift is None else rows.X @ like.C + like.shift

    def _random(self, rows: ModelRows) -> tuple[FloatArray, ...]:
        like = self._like
        return tuple(np.hstack([rows.Z[t] @ like.S[t] for t in factor.terms]) for factor in like.factors)

    @property
    def _like(self) -> GlmmProblem:
        if self.like is None:
            raise TypeError("the pilot comes first")
        return self.like


@dataclass(frozen=True)
class _Places:
    """Of the products of a pilot, what a part needs."""

    places: tuple[tuple[int, ...], ...]


def _offset(rows: ModelRows) -> FloatArray:
    return np.zeros(rows.n) if rows.offset is None else rows.offset


@dataclass(frozen=True)
class _Load:
    """Reads a part when it is asked for."""

    stored: Stored
    number: int
    make: Callable[[ModelRows], GlmmProblem]

    def __call__(self) -> GlmmProblem:
        return self.make(self.stored.read(self.number))
