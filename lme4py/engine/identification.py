"""Which covariance parameters the data tell apart.

The covariance of the response moves along Z E_q Z' and W^-1. Its parameters are identified if and only if these are
linearly independent, seen through the projection M off X that the fixed effects leave of them; their Gram matrices
(`lme4py.engine.variance_gram`) have a null vector for each combination that is not. Such a combination leaves V as it
is: then only sums of the variances are determined, but the fixed effects, their standard errors, the likelihood
and fitted values are right. Or it changes V in a way that the fixed effects take up, so that standard errors of fixed
effects are not determined either; or it holds the residual variance. The last two are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from lme4py.design.design import RandomTerm
from lme4py.engine.types import BoolArray, FloatArray
from lme4py.engine.variance_gram import VarianceGram
from lme4py.errors import DesignError

__all__ = ["Identification", "identify"]

# Smallest eigenvalue of a Gram matrix of directions of unit length that still counts as independent. Rounding leaves
# 1e-14 of it; the models of textbooks and of the reference files have more than 0.1.
_INDEPENDENT = 1e-9
# Rounding of the Gram matrix of unit directions.
_ROUNDING = 1e-13
# A change of a covariance below this part of what it is a sum of is none.
_NOTHING = 1e-6
# Elements of a null vector of unit directions that are rounding.
_ZERO = 1e-10
# Length of a trial step along a combination, relative to the largest variance; its cube is rounding beside its square.
_STEP = 1e-3
# Sums that a message lists.
_MOST = 4


@dataclass(frozen=True)
class Identification:
    """What the data say about the covariance parameters of a model.

    Attributes
    ----------
    changes : tuple of tuple of ndarray, each (k, k)
        For each independent combination that cannot be seen, the change of the covariance matrix of each term, in the
        user's columns. Empty where all parameters are identified.
    sizes : the same shapes
        Sums of the absolute values that the changes are made of: rounding is small beside them.
    sentences : tuple of str
        For each set of terms that share variances, which they are, and what is determined.

    Examples
    --------
    >>> import warnings, lme4py
    >>> machines = lme4py.load_dataset("Machines")
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     fit = lme4py.lmer("score ~ Machine + (Machine || Worker)", machines).fit
    >>> fit.identification.complete, fit.identification.determined(0).tolist()
    (False, [[False]])
    """

    changes: tuple[tuple[FloatArray, ...], ...] = ()
    sizes: tuple[tuple[FloatArray, ...], ...] = ()
    sentences: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True when every covariance parameter is identified."""
        return not self.changes

    @property
    def n_redundant(self) -> int:
        """Parameters beyond those that can be told apart."""
        return len(self.changes)

    def determined(self, term: int) -> BoolArray | None:
        """Which elements of the covariance matrix of a term are determined, (k, k); None where all are."""
        if self.complete:
            return None
        pairs = zip(self.changes, self.sizes, strict=True)
        moved = [np.abs(change[term]) > _NOTHING * size[term] for change, size in pairs]
        mask: BoolArray = ~np.any(moved, axis=0)
        return mask

    def estimated(self, covariances: Sequence[FloatArray]) -> tuple[BoolArray | None, ...]:
        """Which elements of the covariance matrices of all terms have a unique estimate, each (k, k) or None for all.

        These are the ones that are determined, and those that a boundary holds where they are: with (1 | g) and
        (0 + f | g), where the covariance matrix of the second is singular, its common part cannot move to the first.

        Parameters
        ----------
        covariances : sequence of ndarray, each (k, k)
            The estimates, on any scale.
        """
        held = [self._is_held(k, covariances) for k in range(len(self.changes))]
        free = [k for k, is_held in enumerate(held) if not is_held]
        rest = Identification(tuple(self.changes[k] for k in free), tuple(self.sizes[k] for k in free))
        return tuple(rest.determined(term) for term in range(len(covariances)))

    def _is_held(self, k: int, covariances: Sequence[FloatArray]) -> bool:
        """Whether no step along a combination, in either direction, leaves all covariance matrices what they are."""
        own = {t for t, moves in enumerate(self._moves(k)) if moves}
        others = (set(np.flatnonzero(self._moves(j)).tolist()) for j in range(len(self.changes)) if j != k)
        # Combinations that share terms could move together.
        if any(own & other for other in others):
            return False
        parts = []
        for t in own:
            unit = np.sqrt(self.sizes[k][t].diagonal())
            unit = np.outer(unit, unit)
            parts.append((covariances[t] / unit, self.changes[k][t] / unit))
        largest = max(float(np.abs(covariance).max()) for covariance, _ in parts) or 1.0
        step = _STEP * largest / max(float(np.abs(change).max()) for _, change in parts)
        return not any(
            all(np.linalg.eigvalsh(cov + sign * step * change)[0] >= -(_STEP**3) * largest for cov, change in parts)
            for sign in (1.0, -1.0)
        )

    def _moves(self, k: int) -> list[bool]:
        """Whether combination k changes the covariance matrix of each term."""
        pairs = zip(self.changes[k], self.sizes[k], strict=True)
        return [bool((np.abs(change) > _NOTHING * size).any()) for change, size in pairs]

    def masked(self, covariances: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
        """The covariance matrices of all terms with NaN for elements that have no unique estimate.

        Parameters
        ----------
        covariances : sequence of ndarray, each (k, k)
        """
        if self.complete:
            return tuple(covariances)
        masks = self.estimated(covariances)
        pairs = zip(masks, covariances, strict=True)
        return tuple(cov if mask is None else np.where(mask, cov, np.nan) for mask, cov in pairs)

    def determines(self, weights: Sequence[FloatArray | None]) -> bool:
        """Whether sum_t tr(K_t Sigma_t) is determined.

        Parameters
        ----------
        weights : sequence of ndarray (k, k) or None
            K of each term; None is zero.
        """
        for change, size in zip(self.changes, self.sizes, strict=True):
            parts = [(K, own, whole) for K, own, whole in zip(weights, change, size, strict=True) if K is not None]
            moved = sum(float(np.vdot(K, own)) for K, own, _ in parts)
            if abs(moved) > _NOTHING * sum(float(np.vdot(np.abs(K), whole)) for K, _, whole in parts):
                return False
        return True


def identify(
    gram: VarianceGram, S: Sequence[FloatArray], terms: Sequence[RandomTerm], residual: str | None
) -> Identification:
    """Look at the null vectors of the Gram matrices.

    Parameters
    ----------
    gram : VarianceGram
    S : sequence of ndarray, each (k, k)
        Columns of each term in the engine are Z S.
    terms : sequence of RandomTerm
    residual : str or None
        What an effect of every row cannot be told from, such as "the residual variance"; None for a family in which it
        can.

    Raises
    ------
    DesignError
        A combination of variances cannot be told from the residual one; the fixed effects determine all levels of a
        grouping factor; two terms are the same under other names; columns of a term determine each other.
    """
    used = slice(None) if residual else slice(-1)
    plain, projected = gram.plain[used, used], gram.projected[used, used]
    lengths = np.sqrt(plain.diagonal())
    lengths = np.where(lengths > 0.0, lengths, 1.0)[:, None]
    unseen = _null_space(projected / (lengths * lengths.T))
    if not unseen.size:
        return Identification()
    shared = _null_space(plain / (lengths * lengths.T))
    m = len(gram.directions)
    if residual:
        with_residual = np.abs(unseen[m]) > _NOTHING
        if with_residual.any():
            _refuse_residual(_changes_of(gram, S, terms, (unseen / lengths)[:m, with_residual]), terms, residual)
    if shared.shape[1] < unseen.shape[1]:
        absorbed = unseen - shared @ (shared.T @ unseen)
        absorbed = absorbed[:, np.linalg.norm(absorbed, axis=0) > _NOTHING]
        _refuse_absorbed(_changes_of(gram, S, terms, (absorbed / lengths)[:m]), terms)
    found = _changes_of(gram, S, terms, _echelon(shared.T)[0].T[:m] / lengths[:m])
    _refuse_dependent(found, gram, terms)
    _refuse_copies(plain / (lengths * lengths.T), gram, terms)
    return replace(found, sentences=tuple(_sentences(terms, found)))


# --- null vectors -----------------------------------------------------------------------------------------------


def _null_space(gram: FloatArray) -> FloatArray:
    """Orthonormal null vectors of a Gram matrix whose diagonal is at most one, as columns."""
    own = gram.diagonal()
    left = own > _INDEPENDENT
    count = own.size
    gone = np.eye(count)[:, ~left]
    if not left.any():
        return gone
    root = np.sqrt(own[left])
    values, vectors = np.linalg.eigh(gram[np.ix_(left, left)] / np.outer(root, root))
    # What the projection leaves of a direction has lost digits.
    null = values < max(_INDEPENDENT, _ROUNDING / float(own[left].min()))
    found = np.zeros((count, int(null.sum())))
    found[left] = vectors[:, null] / root[:, None]
    if found.size:
        found = np.linalg.qr(found)[0]
    return np.column_stack([gone, found])


def _echelon(rows: FloatArray) -> tuple[FloatArray, list[int]]:
    """Rows of the same space in reduced echelon form, with zeros in many places, and the column of each row's 1."""
    rows = rows.copy()
    pivots: list[int] = []
    for i in range(rows.shape[0]):
        sizes = np.abs(rows[i:]).max(axis=0)
        sizes[pivots] = 0.0
        # The first of the largest, up to rounding: callers order the columns by what they would rather eliminate.
        pivot = int(np.flatnonzero(sizes > (1.0 - _NOTHING) * sizes.max())[0])
        best = i + int(np.argmax(np.abs(rows[i:, pivot])))
        rows[[i, best]] = rows[[best, i]]
        rows[i] /= rows[i, pivot]
        others = np.arange(rows.shape[0]) != i
        rows[others] -= np.outer(rows[others, pivot], rows[i])
        pivots.append(pivot)
    rows[np.abs(rows) < _ZERO] = 0.0
    return rows, pivots


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


def _columns(found: Identification, term: int) -> list[int]:
    """Columns of a term whose variance is not determined."""
    mask = found.determined(term)
    return [] if mask is None else np.flatnonzero(~np.diagonal(mask)).tolist()


def _places(found: Identification, terms: Sequence[RandomTerm]) -> list[str]:
    """The terms that hold a variance that is not determined, with the columns where it is not all of them."""
    out = []
    for t, term in enumerate(terms):
        columns = _columns(found, t)
        if columns:
            names = ", ".join(term.columns[j] for j in columns)
            out.append(term.label if len(columns) == term.n_columns else f"{names} in {term.label}")
    return out


def _refuse_residual(found: Identification, terms: Sequence[RandomTerm], residual: str) -> NoReturn:
    own = [(t, term) for t, term in enumerate(terms) if _columns(found, t)]
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
        f"the variances of {_listed(_places(found, terms))} and {residual} cannot be told apart: together they make an "
        "effect for every row; take columns or a term out of the random effects"
    )


def _refuse_absorbed(found: Identification, terms: Sequence[RandomTerm]) -> NoReturn:
    places = _places(found, terms)
    groups = dict.fromkeys(term.group for t, term in enumerate(terms) if _columns(found, t))
    raise DesignError(
        f"the fixed effects take up all differences between the groups of {_listed(map(repr, groups))} that "
        f"{_listed(places)} describe{'s' if len(places) == 1 else ''}: the data say nothing about that variance, and "
        "standard errors would depend on it; take the term, or the fixed effects that vary between these groups only, "
        "out of the formula"
    )


def _refuse_dependent(found: Identification, gram: VarianceGram, terms: Sequence[RandomTerm]) -> None:
    """Columns of a term that are linear combinations of each other."""
    for t, term in enumerate(terms):
        total = gram.totals[t]
        size = np.sqrt(total.diagonal())
        size = np.where(size > 0.0, size, 1.0)
        columns = _columns(found, t)
        if not columns or float(np.linalg.eigvalsh(total / np.outer(size, size))[0]) > _INDEPENDENT:
            continue
        names = _listed(term.columns[j] for j in columns)
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
            if len(own) == len(other) and _null_space(plain[np.ix_(both, both)]).shape[1] == len(own):
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


# --- words ------------------------------------------------------------------------------------------------------


def _listed(names: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    words = list(names)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


@dataclass(frozen=True)
class _Element:
    """A variance or covariance of a term."""

    term: int
    row: int
    column: int

    def name(self, term: RandomTerm, alone: bool) -> str:
        first, second = term.columns[self.column], term.columns[self.row]
        text = f"var({first})" if self.row == self.column else f"cov({first},{second})"
        return text if alone else f"{text} of {term.label}"


def _elements(t: int, term: RandomTerm) -> list[_Element]:
    """The parameters of a term: one variance stands for all where they are equal."""
    k = term.n_columns
    if term.structure == "identity":
        return [_Element(t, 0, 0)]
    if term.structure == "exchangeable":
        return [_Element(t, 0, 0), *([_Element(t, 1, 0)] if k > 1 else [])]
    variances = [_Element(t, j, j) for j in range(k)]
    if term.structure == "diagonal":
        return variances
    if term.structure == "unstructured":
        return variances + [_Element(t, i, j) for j in range(k) for i in range(j + 1, k)]
    raise DesignError(f"nothing is known about the parameters of a covariance of structure {term.structure!r}")


def _sentences(terms: Sequence[RandomTerm], found: Identification) -> Iterator[str]:
    """One sentence for each set of terms that share variances."""
    for members in _sets(found):
        own = [terms[t] for t in members]
        if len(own) == 1:
            names = _listed(own[0].columns[j] for j in _columns(found, members[0]))
            what = f"the variances and covariances of {names} in {own[0].label} cannot be told apart"
        else:
            what = f"{_listed(term.label for term in own)} share variances that cannot be told apart"
        # Small terms are spread over the elements of the large ones, and covariances over variances.
        small_first = sorted(members, key=lambda t: terms[t].n_columns)
        elements = [e for t in small_first for e in sorted(_elements(t, terms[t]), key=lambda e: e.row == e.column)]
        sums = [_sum_name(*one, elements, terms, len(own) == 1) for one in _determined_sums(elements, found)]
        more = f" and {len(sums) - _MOST} more sums" if len(sums) > _MOST else ""
        only = f"; only {', '.join(sums[:_MOST])}{more} {'is' if len(sums) == 1 else 'are'} determined" if sums else ""
        yield f"{what}{only}"


def _sum_name(
    first: int, coefficients: FloatArray, elements: Sequence[_Element], terms: Sequence[RandomTerm], alone: bool
) -> str:
    """A sum of variances and covariances in words."""
    text = elements[first].name(terms[elements[first].term], alone)
    for place in np.argsort(-np.abs(coefficients), kind="stable"):
        value = float(coefficients[place])
        if value and place != first:
            factor = "" if abs(value) == 1.0 else f"{abs(value):.4g} "
            element = elements[place]
            text += f" {'-' if value < 0.0 else '+'} {factor}{element.name(terms[element.term], alone)}"
    return text


def _sets(found: Identification) -> list[list[int]]:
    """Terms that share a combination, directly or by way of others."""
    sets: list[set[int]] = []
    for k in range(len(found.changes)):
        own = set(np.flatnonzero(found._moves(k)).tolist())
        sets = [one for one in sets if not one & own] + [own.union(*(one for one in sets if one & own))]
    return [sorted(one) for one in sets]


def _determined_sums(elements: list[_Element], found: Identification) -> list[tuple[int, FloatArray]]:
    """Sums of several parameters that are determined, variances first: the position of the first, and coefficients."""
    null = np.array([[change[e.term][e.row, e.column] for e in elements] for change in found.changes])
    size = np.array([[whole[e.term][e.row, e.column] for e in elements] for whole in found.sizes])
    null[np.abs(null) <= _NOTHING * size] = 0.0
    moved = np.flatnonzero(np.abs(null).max(axis=0))
    scale = np.abs(null).max(axis=0)[moved]
    rows, pivots = _echelon(_independent_rows(null[:, moved] / scale))
    out = []
    for j in np.setdiff1d(np.arange(moved.size), pivots):
        one = np.zeros(len(elements))
        one[moved[j]] = 1.0
        # rows[k] is 1 at its own pivot and 0 at all others.
        one[moved[pivots]] = -rows[:, j] * scale[j] / scale[pivots]
        out.append((int(moved[j]), _rounded(one)))
    return sorted(out, key=lambda found: elements[found[0]].row != elements[found[0]].column)


def _independent_rows(rows: FloatArray) -> FloatArray:
    """An orthonormal basis of the space of the rows."""
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(right[sizes > _NOTHING * sizes[0]])


def _rounded(coefficients: FloatArray) -> FloatArray:
    """Whole numbers where rounding left something else."""
    whole = np.round(coefficients)
    return np.where(np.abs(coefficients - whole) < _NOTHING, whole, coefficients)
