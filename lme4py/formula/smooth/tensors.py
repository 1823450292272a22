"""Tensor products of splines: bases of several variables from those of one, and what their penalties are.

With bases B_m, penalties S_m = U_m D_m U_m' and coefficients gamma, the penalties of ``te`` are gamma'(S_1 (x) I) gamma
/ theta_1^2 + gamma'(I (x) S_2) gamma / theta_2^2 + ... They overlap, but have the eigenvectors U_1 (x) U_2 in common:
in this basis the effects are independent, with variances 1 / sum_m d_m / theta_m^2 (Wood 2006, Biometrics
62:1025). The coefficients of a margin are the values of its curve at points. ``ti`` has margins that
sum to zero. In ``t2`` each product of penalised and unpenalised margins has a variance of its own (Wood, Scheipl &
Faraway 2013, Stat. Comput. 23:341); that depends on what its unpenalised functions are: 1 and (x - mean) / sd, but of
"cr" those of `lme4py.formula.smooth.bases.lines_by_knots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lme4py.formula.operands import FloatArray, IntArray
from lme4py.formula.smooth.bases import (
    POINT_VALUED,
    Learnt,
    basis_slopes,
    basis_values,
    eigen_basis,
    learn_basis,
    lines,
    lines_by_knots,
)

__all__ = ["fixed_products", "learn_tensor", "penalised_products"]


def learn_tensor(
    way: str, at: Sequence[FloatArray], kinds: Sequence[str], sizes: Sequence[int], sums_to_zero: bool
) -> Learnt:
    """What a smooth of several variables learns.

    Parameters
    ----------
    way : {"te", "ti", "t2"}
    at : sequence of ndarray, each (n,)
    kinds, sizes
        Of the bases of the margins.
    sums_to_zero : bool
        Whether it is centred, and has no constant.
    """
    alone = len(at) == 1
    margins = [_learn_margin(way, x, kind, size, alone) for x, kind, size in zip(at, kinds, sizes, strict=True)]
    places = np.array(list(product(*(range(margin["values"].size) for margin in margins))), dtype=np.intp).T
    # Penalties of each product of eigenfunctions, (number of variables, K).
    D = np.array([margin["values"][place] for margin, place in zip(margins, places, strict=True)])
    free = [range(margin["lines"].shape[1]) for margin in margins]
    fixed = np.array(list(product(*free)), dtype=np.intp).reshape(-1, len(margins)).T
    centred = sums_to_zero and way != "ti"
    if centred:
        # Without the product of the constants.
        fixed = fixed[:, 1:]
    learnt: Learnt = {"margins": margins, "fixed": fixed, "parts": {}, "penalties": {}, "centre": np.zeros(1)}
    for part, chosen in _parts(way, D).items():
        learnt["parts"][part], learnt["penalties"][part] = places[:, chosen], D[:, chosen]
    if centred:
        learnt["centre"] = fixed_products(at, learnt).mean(axis=0)
        if way == "te":
            learnt["turn"] = _turn(learnt)
            learnt["means"] = {part: penalised_products(at, learnt, part).mean(axis=0) for part in learnt["parts"]}
    return learnt


def _turn(learnt: Learnt) -> FloatArray:
    """What of the centred lines goes with a constant that is taken off the penalised columns, (d,).

    These are orthogonal to the unpenalised ones as vectors of coefficients that sum to zero over the rows, which their
    centred values are not; a likelihood that is no restricted one depends on it.
    """
    margins, fixed = learnt["margins"], learnt["fixed"]

    def coefficients(place: IntArray) -> FloatArray:
        out = np.ones(1)
        for margin, j in zip(margins, place, strict=True):
            out = np.kron(out, margin["line_coefficients"][:, j])
        return out

    constant = coefficients(np.zeros(len(margins), dtype=np.intp))
    N = np.array([coefficients(place) - mean * constant for place, mean in zip(fixed.T, learnt["centre"], strict=True)])
    turn: FloatArray = np.linalg.lstsq(N.T, constant, rcond=None)[0] if len(N) else np.zeros(0)
    return turn


def _parts(way: str, D: FloatArray) -> dict[str, NDArray[np.intp]]:
    """Which products belong to which variance: all penalised ones to one term, or each kind to its own."""
    curved = D > 0.0
    if way != "t2":
        return {"all": np.flatnonzero(curved.any(axis=0))}
    words = ["".join("r" if is_curved else "n" for is_curved in own) for own in curved.T]
    known = [word for word in dict.fromkeys(words) if "r" in word]
    return {word: np.array([i for i, own in enumerate(words) if own == word], dtype=np.intp) for word in known}


def _learn_margin(way: str, x: FloatArray, kind: str, size: int, alone: bool) -> Learnt:
    """A margin: its basis, its functions as combinations of the basis, their penalties, and unpenalised lines."""
    learnt, S = learn_basis(kind, x, size)
    B = basis_values(x, learnt)
    change = np.eye(S.shape[0])
    if way == "ti":
        change = np.linalg.qr(B.sum(axis=0)[:, None], mode="complete").Q[:, 1:]
    if way != "t2" and kind not in POINT_VALUED:
        points = np.linspace(float(x.min()), float(x.max()), change.shape[1])
        change = change @ np.linalg.inv(basis_values(points, learnt) @ change)
    values, vectors = eigen_basis(change.T @ S @ change)
    free = values == 0.0
    whole = change @ vectors
    learnt["line_coefficients"] = lines(B @ whole[:, free], x)
    learnt["lines"] = whole[:, free] @ learnt["line_coefficients"]
    if way == "t2" and kind == "cr":
        learnt["lines"] = lines_by_knots(B, learnt["knots"])
    if way == "t2" or alone:
        null = learnt["lines"] if way == "t2" else whole[:, free]
        whole = np.hstack([null, whole[:, ~free] / np.sqrt(values[~free])])
    learnt["functions"], learnt["values"] = whole, values
    return learnt


def _products(
    at: Sequence[FloatArray], learnt: Learnt, which: str, places: FloatArray, slope: int | None
) -> FloatArray:
    """Products of functions of the margins, (n, K), that of one of them differentiated."""
    out = np.ones((at[0].size, places.shape[1]))
    for m, (x, margin) in enumerate(zip(at, learnt["margins"], strict=True)):
        basis = (basis_slopes if m == slope else basis_values)(x, margin)
        out *= (basis @ margin[which])[:, places[m]]
    return out


def fixed_products(at: Sequence[FloatArray], learnt: Learnt, slope: int | None = None) -> FloatArray:
    """Unpenalised columns, (n, d); as `lme4py.formula.smooth.columns.fixed_columns`."""
    found = _products(at, learnt, "lines", learnt["fixed"], slope)
    centred: FloatArray = found if slope is not None else found - learnt["centre"]
    return centred


def penalised_products(at: Sequence[FloatArray], learnt: Learnt, part: str, slope: int | None = None) -> FloatArray:
    """Columns of one penalty, (n, r); as `lme4py.formula.smooth.columns.penalised_columns`."""
    found = _products(at, learnt, "functions", learnt["parts"][part], slope)
    if "means" not in learnt:
        return found
    moved = fixed_products(at, learnt, slope) @ learnt["turn"] - (1.0 if slope is None else 0.0)
    return np.asarray(found + moved[:, None] * learnt["means"][part], dtype=np.float64)
