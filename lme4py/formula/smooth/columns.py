"""Smooths of a formula: the columns of their unpenalised and penalised parts, as a mixed model has them.

A smooth is B beta with the penalty beta'S beta. The constraint that it sums to zero over the rows is absorbed. With
the eigenvalues and vectors S = U D U' the columns B U_0 of the null space are fixed effects, and B U_1 D_1^-1/2 random
effects with one variance (Wood 2017, *Generalized Additive Models*, sections 5.3 to 5.8). Smooths of several variables
are in `lme4py.formula.smooth.tensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from lme4py.formula.deparse import deparse
from lme4py.formula.nodes import Call
from lme4py.formula.operands import CallSite, FloatArray, Operand, matrix
from lme4py.formula.smooth.bases import (
    BASES,
    LEAST,
    Learnt,
    basis_slopes,
    basis_values,
    eigen_basis,
    learn_basis,
    lines,
)
from lme4py.formula.smooth.tensors import fixed_products, learn_tensor, penalised_products
from lme4py.formula.values import Value

__all__ = [
    "FACTOR_PARTS",
    "SMOOTH_FUNCTIONS",
    "TENSORS",
    "fixed_columns",
    "penalised_columns",
    "plain_call",
    "s",
    "s_level",
    "s_penalised",
    "smooth_group",
    "tensor",
    "tensor_penalised",
    "weights",
]

# Usual sizes: of a curve, of a surface with one penalty (as mgcv), and of a margin.
_K, _K_SURFACE, _K_MARGIN = 10, 30, 5
# Arguments of the penalised columns that the smooth itself does not have.
_OWN_ARGUMENTS = ("level", "part")
# Products of smooths, which differ in what is learnt.
TENSORS = ("te", "ti", "t2")
_FIXED = ("s", *TENSORS)
# What stands for smooths in a tree: unpenalised columns, penalised ones, and all columns of levels of a factor.
SMOOTH_FUNCTIONS = (*_FIXED, *(f"{name}_penalised" for name in _FIXED), "s_level")
# The parts of a smooth of each level of a factor: all penalised, the constants and slopes too.
FACTOR_PARTS = ("curved", "constant", "line")


def plain_call(node: Call) -> Call:
    """The smooth that the call of its penalised columns belongs to.

    Parameters
    ----------
    node : Call
        ``s_penalised(x, level = "a")`` gives ``s(x)``.
    """
    kept = tuple(a for a in node.arguments if a.name not in _OWN_ARGUMENTS)
    return Call(node.function.removesuffix("_penalised"), kept, span=node.span)


def s(
    site: CallSite,
    *x: Operand,
    k: Operand = None,
    bs: Operand = "tp",
    m: Operand = None,
    by: Operand = None,
) -> Operand:
    """The unpenalised columns of a smooth; of each level of a factor `by`."""
    values, learnt = _of_one(site, x, k, bs, m, by)
    return _by_levels(site, fixed_columns(values, learnt), by, learnt)


def s_penalised(
    site: CallSite,
    *x: Operand,
    k: Operand = None,
    bs: Operand = "tp",
    m: Operand = None,
    by: Operand = None,
    level: Operand = None,
    part: Operand = None,
) -> Operand:
    """The penalised columns of a smooth, each with unit variance; of one level of a factor `by`."""
    values, learnt = _of_one(site, x, k, bs, m, by)
    return _of_level(site, penalised_columns(values, learnt, str(part)), by, learnt, level)


def s_level(
    site: CallSite, x: Operand, k: Operand = None, bs: Operand = "tp", m: Operand = None, part: Operand = None
) -> Operand:
    """The columns of a smooth of each level of a factor, all of which are penalised: one of `FACTOR_PARTS`."""
    site = _shared(site)
    values = site.numbers("x", x)
    if site.learnt() is None:
        site.learn(_learn_level(site, values, k, bs, m))
    return matrix(penalised_columns([values], site.learnt(), str(part)))


def smooth_group(site: CallSite, x: Operand, label: Operand) -> Operand:
    """The grouping factor of a smooth: one level for all rows."""
    return Value("factor", np.zeros(site.numbers("x", x).size, dtype=np.intp), levels=(str(label),))


def tensor(
    site: CallSite,
    *x: Operand,
    k: Operand = None,
    bs: Operand = "cr",
    m: Operand = None,
    by: Operand = None,
) -> Operand:
    """The unpenalised columns of a product of smooths: te; ti, without main effects; t2, with separate penalties."""
    values, learnt = _of_several(site, x, k, bs, m, by)
    return _by_levels(site, fixed_columns(values, learnt), by, learnt)


def tensor_penalised(
    site: CallSite,
    *x: Operand,
    k: Operand = None,
    bs: Operand = "cr",
    m: Operand = None,
    by: Operand = None,
    level: Operand = None,
    part: Operand = None,
) -> Operand:
    """Their penalised columns; of t2 those of one penalty."""
    values, learnt = _of_several(site, x, k, bs, m, by)
    return _of_level(site, penalised_columns(values, learnt, str(part)), by, learnt, level)


# --- columns at values of the variables ----------------------------------------------------------------------------


def fixed_columns(at: Sequence[FloatArray], learnt: Learnt, slope: int | None = None) -> FloatArray:
    """Unpenalised columns of a smooth at values of its variables, (n, d).

    Parameters
    ----------
    at : sequence of ndarray, each (n,)
    learnt : dict
        What the training call stored.
    slope : int, optional
        Which variable the derivative is in: of splines exact, of thin plates of third powers.
    """
    if "margins" in learnt:
        return fixed_products(at, learnt, slope)
    columns: FloatArray = _basis(at, learnt, slope) @ learnt["null"]
    return columns


def penalised_columns(at: Sequence[FloatArray], learnt: Learnt, part: str, slope: int | None = None) -> FloatArray:
    """Columns of one penalty of a smooth at values of its variables, (n, r).

    Parameters
    ----------
    at, learnt, slope
        As in `fixed_columns`.
    part : str
        A key of ``learnt["parts"]``.
    """
    if "margins" in learnt:
        return penalised_products(at, learnt, part, slope)
    columns: FloatArray = _basis(at, learnt, slope) @ learnt["parts"][part]
    return columns


def _basis(at: Sequence[FloatArray], learnt: Learnt, slope: int | None) -> FloatArray:
    x = _together(at)
    return basis_values(x, learnt) if slope is None else basis_slopes(x, learnt, slope)


def _together(at: Sequence[FloatArray]) -> FloatArray:
    """Values of one variable, (n,), or of two, (n, 2)."""
    return at[0] if len(at) == 1 else np.column_stack(at)


def weights(site: CallSite, by: Operand, learnt: Learnt, level: str | None) -> list[FloatArray]:
    """What the columns are multiplied by: indicators of levels, or the numbers of `by`.

    Parameters
    ----------
    site : CallSite
    by : Operand
    learnt : dict
    level : str or None
        None for all levels.
    """
    if by is None:
        return [np.ones(1)]
    if not isinstance(by, Value) or not by.is_factor:
        return [site.numbers("by", by)]
    names = np.array([str(name) for name in by.levels] + [""])
    own = names[np.asarray(by.values, dtype=np.intp)]
    return [(own == name).astype(np.float64) for name in (learnt["levels"] if level is None else [level])]


def _by_levels(site: CallSite, columns: FloatArray, by: Operand, learnt: Learnt) -> Operand:
    return matrix(np.hstack([columns * weight[:, None] for weight in weights(site, by, learnt, None)]))


def _of_level(site: CallSite, columns: FloatArray, by: Operand, learnt: Learnt, level: Operand) -> Operand:
    weight = weights(site, by, learnt, None if level is None else str(level))[0]
    return matrix(columns * weight[:, None])


# --- what is learnt ------------------------------------------------------------------------------------------------


def _shared(site: CallSite) -> CallSite:
    """The call under the text of its smooth, so that all its columns are made of one basis."""
    node = site.node
    return replace(site, text=deparse(plain_call(node))) if isinstance(node, Call) else site


def _of_one(
    site: CallSite, x: Sequence[Operand], k: Operand, bs: Operand, m: Operand, by: Operand
) -> tuple[list[FloatArray], Learnt]:
    site = _shared(site)
    values = [site.numbers(name, own) for name, own in zip(_names(x), x, strict=True)]
    learnt: Learnt | None = site.learnt()
    if learnt is None:
        kind = _kind(site, bs)
        if len(values) > 2 or (len(values) == 2 and kind != "tp"):
            raise site.error(
                "a smooth with one penalty is of one variable, or of two with bs = 'tp'; te() has a penalty for each "
                "of several variables",
                "bs",
            )
        usual = _K if len(values) == 1 else _K_SURFACE
        learnt = _learn(site, _together(values), kind, _size(site, k, usual, values, kind, "..1"), by)
        _refuse_orders(site, m)
        site.learn(learnt)
    return values, learnt


def _names(x: Sequence[Operand]) -> list[str]:
    return [f"..{i}" for i in range(1, len(x) + 1)]


def _kind(site: CallSite, bs: object) -> str:
    if not isinstance(bs, str) or bs not in BASES:
        raise site.error(f"bs = {bs!r} is not known; use one of {', '.join(map(repr, BASES))}", "bs")
    return bs


def _size(site: CallSite, k: Operand, usual: int, x: Sequence[FloatArray], kind: str, argument: str) -> int:
    least = LEAST[kind] + len(x) - 1
    size = usual if k is None else site.whole("k", k, least)
    distinct = len(np.unique(_together(x), axis=0))
    if distinct < size:
        what = site.what(argument) if len(x) == 1 else "the pair of variables"
        raise site.error(f"k = {size} needs as many distinct values, but {what} has {distinct}; lower k", "k")
    return size


def _refuse_orders(site: CallSite, m: Operand) -> None:
    if m is not None:
        raise site.error("only the usual penalty is there (second derivatives or differences); leave m out", "m")


def _levels(site: CallSite, by: Operand) -> tuple[list[str] | None, bool]:
    """Levels of a factor `by`, and whether the smooth sums to zero: times numbers that vary it is not confounded."""
    if isinstance(by, Value) and by.is_factor:
        used = np.unique(np.asarray(by.values, dtype=np.intp))
        names = [str(by.levels[i]) for i in used if i >= 0]
        # Smooths of ordered levels are differences to the first of them.
        return names[1:] if by.kind == "ordered" else names, True
    return None, by is None or bool(np.ptp(site.numbers("by", by)) == 0.0)


def _learn(site: CallSite, x: FloatArray, kind: str, size: int, by: Operand) -> Learnt:
    learnt, S = learn_basis(kind, x, size)
    levels, sums_to_zero = _levels(site, by)
    if levels is not None:
        learnt["levels"] = levels
    constrained = np.eye(S.shape[0])
    if sums_to_zero:
        sums = basis_values(x, learnt).sum(axis=0)
        constrained = np.linalg.qr(sums[:, None], mode="complete").Q[:, 1:]
    values, vectors = eigen_basis(constrained.T @ S @ constrained)
    free = values == 0.0
    learnt["null"] = constrained @ vectors[:, free]
    learnt["parts"] = {"all": constrained @ (vectors[:, ~free] / np.sqrt(values[~free]))}
    return learnt


def _learn_level(site: CallSite, x: FloatArray, k: Operand, bs: Operand, m: Operand) -> Learnt:
    """A basis whose curved columns are orthogonal to constants and lines, over the rows of all levels together."""
    _refuse_orders(site, m)
    kind = _kind(site, bs)
    learnt, S = learn_basis(kind, x, _size(site, k, _K, [x], kind, "x"))
    values, vectors = eigen_basis(S)
    B, free = basis_values(x, learnt), values == 0.0
    null = vectors[:, free] @ lines(B @ vectors[:, free], x)
    curved = vectors[:, ~free] / np.sqrt(values[~free])
    curved = curved - null @ np.linalg.lstsq(B @ null, B @ curved, rcond=None)[0]
    learnt["null"] = null[:, :0]
    learnt["parts"] = {"curved": curved}
    # Of a cyclic basis there is no line.
    learnt["parts"] |= {name: own[:, None] for name, own in zip(FACTOR_PARTS[1:], null.T, strict=False)}
    return learnt


def _of_several(
    site: CallSite, x: Sequence[Operand], k: Operand, bs: Operand, m: Operand, by: Operand
) -> tuple[list[FloatArray], Learnt]:
    site = _shared(site)
    names = _names(x)
    values = [site.numbers(name, own) for name, own in zip(names, x, strict=True)]
    learnt: Learnt | None = site.learnt()
    if learnt is None:
        _refuse_orders(site, m)
        kinds = [_kind(site, kind) for kind in _each(site, "bs", bs, len(x))]
        asked = _each(site, "k", k, len(x))
        sizes = [
            _size(site, own, _K_MARGIN, [x], kind, name)
            for own, x, kind, name in zip(asked, values, kinds, names, strict=True)
        ]
        if prod(sizes) > values[0].size:
            raise site.error(
                f"the product of bases of {', '.join(map(str, sizes))} functions has {prod(sizes)}, and there are "
                f"{values[0].size} rows; lower k",
                "k",
            )
        levels, sums_to_zero = _levels(site, by)
        way = site.text.partition("(")[0]
        learnt = learn_tensor(way, values, kinds, sizes, sums_to_zero)
        if levels is not None:
            learnt["levels"] = levels
        site.learn(learnt)
    return values, learnt


def _each(site: CallSite, argument: str, operand: Operand, n: int) -> list[Operand]:
    """An argument with one value for all variables, or one for each."""
    given = [None] if operand is None else list(site.items(argument, operand))
    if len(given) == 1:
        return given * n
    if len(given) != n:
        raise site.error(f"argument '{argument}' has {len(given)} values for {n} variables; give one, or {n}", argument)
    return given
