"""From the Gram matrix of the directions of V to what is identified; models without information are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.engine.identification.gram import VarianceGram
from lme4py.engine.identification.record import NOTHING, Identification
from lme4py.engine.identification.words import listed, places, sentences, undetermined_columns
from lme4py.errors import DesignError
from lme4py.families.rows import RowNoise
from lme4py.linalg.null_space import INDEPENDENT, echelon, null_space
from lme4py.linalg.types import FloatArray

__all__ = ["identify"]


def identify(
    gram: VarianceGram, S: Sequence[FloatArray], terms: Sequence[RandomTerm], noise: RowNoise | None
) -> Identification:
    """Look at the null vectors of the Gram matrices.

    Parameters
    ----------
    gram : VarianceGram
    S : sequence of ndarray, each (k, k)
        Columns of each term in the engine are Z S.
    terms : sequence of RandomTerm
    noise : RowNoise or None
        What an effect of every row cannot be told from; None for a family in which it can.

    Raises
    ------
    DesignError
        A combination of variances cannot be told from the residual one; the fixed effects determine all levels of a
        grouping factor; two terms are the same under other names; columns of a term determine each other.
    """
    used = slice(-1) if noise is None else slice(None)
    plain, projected = gram.plain[used, used], gram.projected[used, used]
    lengths = np.sqrt(plain.diagonal())
    lengths = np.where(lengths > 0.0, lengths, 1.0)[:, None]
    unseen = null_space(projected / (lengths * lengths.T))
    if not unseen.size:
        return Identification()
    shared = null_space(plain / (lengths * lengths.T))
    m = len(gram.directions)
    if noise is not None:
        combinations = echelon(unseen.T)[0].T
        with_noise = np.abs(combinations[m]) > NOTHING
        if with_noise.any():
            found = _changes_of(gram, S, terms, (combinations / lengths)[:m, with_noise])
            if noise.exact:
                _refuse_residual(found, terms, noise.name)
            return replace(identify(gram, S, terms, None), weak=(_weak(found, terms, noise.name),))
    if shared.shape[1] < unseen.shape[1]:
        absorbed = unseen - shared @ (shared.T @ unseen)
        absorbed = absorbed[:, np.linalg.norm(absorbed, axis=0) > NOTHING]
        _refuse_absorbed(_changes_of(gram, S, terms, (absorbed / lengths)[:m]), terms)
    found = _changes_of(gram, S, terms, echelon(shared.T)[0].T[:m] / lengths[:m])
    _refuse_dependent(found, gram, terms)
    _refuse_copies(plain / (lengths * lengths.T), gram, terms)
    return replace(found, sentences=tuple(sentences(terms, found)))


def _changes_of(
    gram: VarianceGram, S: Sequence[FloatArray], terms: Sequence[RandomTerm], null: FloatArray
) -> Identification:
    """What combinations of the directions, the columns of `null`, change in the covariances of the terms."""
    changes, sizes = [], []
    for vector in null.T:
        own = [np.zeros((term.n_columns, term.n_columns)) for term in terms]
        for direction, value in zip(gram.directions, vector, strict=True):
            own[direction.term] += value * direction.own
        unit = max(float(np.abs(N).max()) for N in own)
        changes.append(tuple(s @ N @ s.T for s, N in zip(S, own, strict=True)))
        sizes.append(tuple(_sizes(np.abs(s), np.abs(N), unit) for s, N in zip(S, own, strict=True)))
    return Identification(tuple(changes), tuple(sizes))


def _sizes(S: FloatArray, N: FloatArray, unit: float) -> FloatArray:
    """What the elements of S N S' are sums of, and what they are small beside where there is nothing but rounding."""
    own = S.diagonal()
    return np.maximum(S @ N @ S.T, unit * np.outer(own, own))


# --- models that are refused ------------------------------------------------------------------------------------


def _weak(found: Identification, terms: Sequence[RandomTerm], noise: str) -> str:
    return (
        f"{listed(places(found, terms))} and {noise} both are a noise of single rows, which the data tell apart by "
        "the shape of the distribution only: either may take the place of the other. Leave the term out, or take a "
        "family without that parameter"
    )


def _refuse_residual(found: Identification, terms: Sequence[RandomTerm], residual: str) -> NoReturn:
    own = [(t, term) for t, term in enumerate(terms) if undetermined_columns(found, t)]
    n = terms[0].codes.size
    if len(own) == 1:
        term = own[0][1]
        effects = term.n_levels * term.n_columns
        if effects >= n and term.n_columns == 1:
            raise DesignError(
                f"the grouping factor '{term.group}' of {term.label} has {term.n_levels} levels for {n} observations, "
                f"so that its variance cannot be told apart from {residual}; remove the term, or use a coarser "
                "grouping factor"
            )
        if effects >= n:
            raise DesignError(
                f"number of observations (={n}) <= number of random effects (={effects}) for term {term.label}; the "
                f"covariance parameters and {residual} cannot be told apart; take columns out of the term"
            )
    raise DesignError(
        f"the variances of {listed(places(found, terms))} and {residual} cannot be told apart: together they make an "
        "effect for every row; take columns or a term out of the random effects"
    )


def _refuse_absorbed(found: Identification, terms: Sequence[RandomTerm]) -> NoReturn:
    where = places(found, terms)
    groups = dict.fromkeys(term.group for t, term in enumerate(terms) if undetermined_columns(found, t))
    raise DesignError(
        f"the fixed effects take up all differences between the groups of {listed(map(repr, groups))} that "
        f"{listed(where)} describe{'s' if len(where) == 1 else ''}: the data say nothing about that variance, and "
        "standard errors would depend on it; take the term, or the fixed effects that vary between these groups only, "
        "out of the formula"
    )


def _refuse_dependent(found: Identification, gram: VarianceGram, terms: Sequence[RandomTerm]) -> None:
    """Columns of a term that are linear combinations of each other."""
    for t, term in enumerate(terms):
        total = gram.totals[t]
        size = np.sqrt(total.diagonal())
        size = np.where(size > 0.0, size, 1.0)
        columns = undetermined_columns(found, t)
        if not columns or float(np.linalg.eigvalsh(total / np.outer(size, size))[0]) > INDEPENDENT:
            continue
        names = listed(term.columns[j] for j in columns)
        if len(columns) == 1:
            raise DesignError(f"the column {names} of {term.label} is zero in every row; take it out of the term")
        raise DesignError(
            f"the columns {names} of {term.label} are linear combinations of each other, so that their variances and "
            "covariances cannot be told apart; take one of them out of the term"
        )


def _refuse_copies(plain: FloatArray, gram: VarianceGram, terms: Sequence[RandomTerm]) -> None:
    """Two terms whose covariance matrices of the response are the same."""
    places = [[i for i, direction in enumerate(gram.directions) if direction.term == t] for t in range(len(terms))]
    for second, own in enumerate(places):
        for first, other in enumerate(places[:second]):
            both = [*other, *own]
            if len(own) == len(other) and null_space(plain[np.ix_(both, both)]).shape[1] == len(own):
                raise DesignError(_copies(terms[first], terms[second]))


def _copies(first: RandomTerm, second: RandomTerm) -> str:
    if first.group != second.group:
        why = f"'{first.group}' and '{second.group}' divide the rows into the same groups"
    else:
        why = "their columns differ by a factor only"
    return (
        f"{first.label} and {second.label} are the same random effects ({why}), so that their variances cannot be told "
        "apart; remove one of the two terms"
    )
