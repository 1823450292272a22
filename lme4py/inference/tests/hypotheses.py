"""What the rows of an analysis of variance test: matrices L with L beta = 0 for every term.

Type I takes the terms in order, each adjusted for those before it. Type II adjusts a term for all terms that do not
contain it. Type III tests the same hypotheses whatever the coding of the factors and the sizes of the cells (Goodnight,
SAS technical report R-101): the estimable functions of a term and of the terms that contain it that are orthogonal to
those of the terms that contain it. One term contains another when it holds all its factors, one factor more and the
same continuous variables, and when all its margins are in the model: in ``a/b`` the effects of b within a do not
contain a. Variables with several columns, such as poly(x, 2), count as continuous in type III and as factors in type
II. These are the hypotheses of lmerTest, and its choice of rows: Satterthwaite's degrees of freedom of several rows
depend on which rows stand for a hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.design.coding import full_coding, model_columns, model_matrix
from lme4py.design.design import Design
from lme4py.formula.deparse import walk
from lme4py.formula.nodes import Call, Node
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["dropped_term", "own_columns", "type_one", "type_three", "type_two"]

# Singular values below this part of the largest are rounding.
_RANK = 1e-8


def type_one(design: Design, factor: FloatArray | None = None) -> list[FloatArray]:
    """One matrix for each term, (r, p): adjusted for the terms before it.

    Parameters
    ----------
    design : Design
    factor : ndarray, shape (p, p), optional
        Upper triangle R with R'R the information by which to adjust; X'X when not given.
    """
    return _sequential(_triangle(design) if factor is None else factor, design)


def type_two(design: Design, factor: FloatArray | None = None, *, margins: bool = False) -> list[FloatArray]:
    """One matrix for each term: adjusted for the terms that do not contain it.

    Parameters
    ----------
    design : Design
    factor : ndarray, shape (p, p), optional
        Upper triangle R with R'R the information by which to adjust; X'X when not given.
    margins : bool
        Every term contains its margins, those with fewer continuous variables too (as R's car).
    """
    if len(design.fixed_labels) < 2:
        return type_one(design, factor)
    R = _triangle(design) if factor is None else factor
    assign = np.array(design.assign)
    contained = _margins(design) if margins else _containment(design, by_columns=True)
    out = []
    for term in range(1, len(design.fixed_labels) + 1):
        above = np.isin(assign, 1 + np.flatnonzero(contained[term - 1]))
        if not above.any():
            out.append(np.eye(assign.size)[assign == term])
            continue
        group = np.where(assign == term, 1, np.where(above, 2, 0))
        order = np.argsort(group, kind="stable")
        rows = _unit_rows(_triangle_of(R[:, order]))[group[order] == 1]
        L = np.empty_like(rows)
        L[:, order] = rows
        out.append(L)
    return out


def own_columns(design: Design) -> list[FloatArray]:
    """One matrix for each term: its own coefficients, under the coding of the model."""
    assign = np.array(design.assign)
    return [np.eye(assign.size)[assign == term] for term in range(1, len(design.fixed_labels) + 1)]


def _triangle(design: Design) -> FloatArray:
    """R with R'R = X'X; where the intercept is in the thresholds (ordinal models), X'X is adjusted for it."""
    if not _hidden_intercept(design):
        return design.triangle
    return _triangle_of(np.column_stack([np.ones(design.n_obs), design.X]))[1:, 1:]


def _hidden_intercept(design: Design) -> bool:
    """Whether the model has an intercept that is no column of X."""
    recipe = design.recipe
    return recipe.formula.fixed.intercept and 0 not in recipe.kept and 0 not in dict(recipe.held)


def _triangle_of(X: FloatArray) -> FloatArray:
    """R of X = QR."""
    return np.asarray(np.linalg.qr(X, mode="r"), dtype=np.float64)


def _sequential(R: FloatArray, design: Design) -> list[FloatArray]:
    rows, assign = _unit_rows(R), np.array(design.assign)
    return [rows[assign == term] for term in range(1, len(design.fixed_labels) + 1)]


def _unit_rows(R: FloatArray) -> FloatArray:
    """Rows of a triangular factor divided by its diagonal."""
    rows: FloatArray = R / R.diagonal()[:, None]
    return rows


# --- which term contains which ----------------------------------------------------------------------------------


def _margins(design: Design) -> BoolArray:
    """[i, j]: all variables of term i are in term j, which has more."""
    sets = [frozenset(term.variables) for term in design.recipe.formula.fixed.terms]
    return np.array([[a < b for b in sets] for a in sets], dtype=bool).reshape(len(sets), len(sets))


def _containment(design: Design, by_columns: bool = False) -> BoolArray:
    """[i, j]: term j contains term i; with `by_columns`, matrices do not count as continuous."""
    terms = design.recipe.formula.fixed
    kinds = [design.recipe.variables.get(node) for node in terms.variables]
    numeric = {v for v, kind in enumerate(kinds) if kind is not None and kind.kind != "factor"}
    if by_columns:
        numeric -= {v for v, node in enumerate(terms.variables) if _is_matrix(design, node)}
    continuous = [numeric & set(term.variables) for term in terms.terms]
    same = np.array([[a == b for b in continuous] for a in continuous], dtype=bool)
    complete = np.array([all(coding) for coding in _own_coding(design)], dtype=bool)
    contained: BoolArray = _margins(design) & same.reshape(len(continuous), -1) & complete
    return contained


def _own_coding(design: Design) -> list[list[bool]]:
    """Whether the factors of each term have contrasts; what tells several responses apart has none in any term."""
    terms = design.recipe.formula.fixed
    whole = zip(terms.terms, terms.coding, strict=True)
    if design.responses is None:
        return [list(flags) for _, flags in whole]
    return [[flag for v, flag in zip(term.variables, flags, strict=True) if v] for term, flags in whole]


def _is_matrix(design: Design, node: Node) -> bool:
    """Whether R has a matrix here: scale() gives one too, with one column."""
    kind = design.recipe.variables.get(node)
    scaled = any(isinstance(part, Call) and part.function == "scale" for part in walk(node))
    return kind is not None and (kind.kind == "matrix" or scaled)


# --- type III ---------------------------------------------------------------------------------------------------


def type_three(design: Design) -> list[FloatArray]:
    """One matrix for each term: hypotheses free of the coding and of the cell sizes."""
    if len(design.fixed_labels) < 2:
        return type_one(design)
    D, owner, coded = _overparametrised(design)
    contained = _containment(design)
    out = []
    for term, L in enumerate(own_columns(design), start=1):
        own = owner == term
        if contained[term - 1].any():
            above = np.isin(owner, 1 + np.flatnonzero(contained[term - 1]))
            L = _estimable(D, own, coded & ~own & ~above)
        columns = np.concatenate([np.flatnonzero(own & coded), np.flatnonzero(own & ~coded)])
        out.append(_reduced(L, L @ D[:, columns]))
    return out


def _estimable(D: FloatArray, own: BoolArray, excluded: BoolArray) -> FloatArray:
    """Functions without the excluded columns, orthogonal to those that are free of the term's own columns too."""
    L = _null_space(D[:, excluded].T)
    others = L @ _null_space(D[:, own].T @ L)
    if others.shape[1]:
        L = L @ _null_space(others.T @ D @ D.T @ L)
    return L.T


def _overparametrised(design: Design) -> tuple[FloatArray, IntArray, BoolArray]:
    """D with X_all = X D, where X_all has one column for every level of every factor, or combination of levels.

    Returns
    -------
    D : ndarray, shape (p, P)
    owner : ndarray of int, shape (P,)
        Term of each column; 0 for the intercept.
    coded : ndarray of bool, shape (P,)
        False for the first level where the factor has contrasts in that term.
    """
    recipe, terms = design.recipe, design.recipe.formula.fixed
    present = _with_dropped(design)
    blocks = [present[:, :1]] if terms.intercept else []
    owner, coded = [0] * len(blocks), [True] * len(blocks)
    full = full_coding(terms, recipe.variables)
    for i, (term, flags) in enumerate(zip(terms.terms, full, strict=True), start=1):
        block, mask = _term_block(design, term.variables, flags, i)
        blocks.append(present @ block)
        owner += [i] * block.shape[1]
        coded += mask
    return np.hstack(blocks), np.array(owner), np.array(coded, dtype=bool)


def _with_dropped(design: Design) -> FloatArray:
    """The columns before the rank check as combinations of those of X, (p, all)."""
    kept = list(design.recipe.kept)
    # The intercept of an ordinal model is in its thresholds: it counts as zero.
    absent = int(_hidden_intercept(design))
    # Columns with known coefficients count as zero too.
    held = dict(design.recipe.held)
    p, total = len(kept), len(kept) + len(design.dropped) + len(held) + absent
    out = np.zeros((p, total))
    out[:, kept] = np.eye(p)
    if design.alias is not None:
        out[:, [j for j in range(absent, total) if j not in kept and j not in held]] = design.alias
    return out


def _term_block(
    design: Design, variables: Sequence[int], flags: Sequence[bool], position: int
) -> tuple[FloatArray, list[bool]]:
    """The columns of a term with one for every level, as combinations of all columns of the model matrix.

    They are found from made-up rows: every combination of levels of the term's factors with several draws of its
    continuous variables.
    """
    recipe, terms = design.recipe, design.recipe.formula.fixed
    kinds = {v: recipe.variables[terms.variables[v]] for v in variables}
    _, assign = model_columns(terms, recipe.variables)
    inside = {0} | {i for i, t in enumerate(terms.terms, start=1) if set(t.variables) <= set(variables)}
    columns = np.flatnonzero(np.isin(assign, list(inside)))
    sizes = [len(kinds[v].levels) if kinds[v].kind == "factor" else 1 for v in variables]
    repeats = 2 * int(np.prod([1 + len(k.suffixes) for k in kinds.values() if k.kind != "factor"], dtype=int)) + 1
    cells = int(np.prod(sizes))
    n = cells * (repeats if any(k.kind != "factor" for k in kinds.values()) else 1)
    rng = np.random.default_rng(0)
    codes = dict(zip(variables, np.unravel_index(np.arange(n) % cells, sizes, order="F"), strict=True))
    values: dict[Node, NDArray[Any]] = {}
    for v, node in enumerate(terms.variables):
        if node not in recipe.variables:
            continue
        kind = recipe.variables[node]
        if kind.kind == "factor":
            values[node] = codes[v] if v in codes else np.zeros(n, dtype=np.intp)
        else:
            values[node] = rng.standard_normal(n if kind.kind == "numeric" else (n, len(kind.suffixes)))
    made = model_matrix(terms, recipe.variables, values, n)
    targets, mask = [np.ones(n)], [True]
    for v, flag in zip(variables, flags, strict=True):
        new = kinds[v].columns(values[terms.variables[v]], True)
        first = [flag or kinds[v].kind != "factor" or level > 0 for level in range(len(new))]
        targets = [left * right for right in new for left in targets]
        mask = [a and b for b in first for a in mask]
    wanted = np.column_stack(targets)
    solution = np.linalg.lstsq(made[:, columns], wanted, rcond=None)[0]
    if np.abs(made[:, columns] @ solution - wanted).max() > 1e-8:
        # Without the margins of a term its levels are not in the model: its columns stay as they are coded.
        own = np.flatnonzero(np.array(assign) == position)
        return np.eye(len(assign))[:, own], [True] * own.size
    block = np.zeros((len(assign), wanted.shape[1]))
    solution[np.abs(solution) < 1e-10] = 0.0
    block[columns] = solution
    return block, mask


def _null_space(M: FloatArray) -> FloatArray:
    """Orthonormal basis of the vectors that M takes to zero, as columns."""
    width = M.shape[1]
    if not M.shape[0] or not width:
        return np.eye(width)
    _, sizes, rows = np.linalg.svd(M, full_matrices=True)
    rank = int((sizes > _RANK * max(1.0, float(sizes.max(initial=0.0)))).sum())
    basis: FloatArray = rows[rank:].T
    return basis


def _reduced(L: FloatArray, image: FloatArray) -> FloatArray:
    """Combinations of the rows of L for which `image` is the identity in as many of its first columns as possible."""
    L, image = L.copy(), image.copy()
    done = 0
    for column in range(image.shape[1]):
        if done == L.shape[0]:
            break
        pivot = done + int(np.argmax(np.abs(image[done:, column])))
        if abs(image[pivot, column]) < 1e-9 * max(1.0, float(np.abs(image).max())):
            continue
        for A in (L, image):
            A[[done, pivot]] = A[[pivot, done]]
        scale = image[done, column]
        L[done] /= scale
        image[done] /= scale
        factors = image[:, column].copy()
        factors[done] = 0.0
        L -= np.outer(factors, L[done])
        image -= np.outer(factors, image[done])
        done += 1
    L[np.abs(L) < 1e-12] = 0.0
    return L[:done]


def dropped_term(design: Design, term: int) -> FloatArray:
    """L beta = 0 is the model without the columns of `term` (numbered from 1), (r, p)."""
    assign = model_columns(design.recipe.formula.fixed, design.recipe.variables)[1]
    rest = _with_dropped(design)[:, np.array(assign) != term]
    L = _null_space(rest.T).T
    own = np.array(design.assign) == term
    return _reduced(L, np.hstack([L[:, own], L[:, ~own]]))
