"""Small linear mixed models, and what the textbook's dense formulas say about them at any theta.

Nothing here uses the engine: the marginal covariance V is formed and inverted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg
from threadpoolctl import ThreadpoolController

from lme4py.covariance import make_structure
from lme4py.design.design import Design, Predictor, RandomTerm


def changed(design: Design, **changes: Any) -> Design:
    """A design with other fields, among them those of its only predictor."""
    own = {f.name for f in fields(Predictor)}
    predictor = {name: changes.pop(name) for name in own & changes.keys()}
    return replace(design, **changes).with_predictor(**predictor)


def make_term(group: str, codes: np.ndarray, values: np.ndarray, structure: str = "unstructured") -> RandomTerm:
    """A term with columns c0, c1, ... over the levels 0, 1, ... of `group`."""
    values = np.asarray(values, dtype=float).reshape(codes.size, -1)
    columns = tuple(f"c{i}" for i in range(values.shape[1]))
    levels, codes = np.unique(codes, return_inverse=True)
    label = f"({' + '.join(columns)} | {group})"
    kind = make_structure(structure, values.shape[1])
    return RandomTerm(group, columns, tuple(levels.tolist()), kind, label, codes.astype(np.intp), values)


def make_design(y: np.ndarray, X: np.ndarray, terms: list[RandomTerm], **changes: Any) -> Design:
    """A design whose rows are all used."""
    n, p = X.shape
    plain = Design(
        formula="y ~ x",
        response_name="y",
        y=y,
        predictors=(Predictor(X, tuple(f"x{i}" for i in range(p)), tuple(range(p)), terms=tuple(terms)),),
        weights=None,
        keep=np.ones(n, dtype=bool),
        row_labels=pd.RangeIndex(n),
        na_action="omit",
        recipe=SimpleNamespace(),  # type: ignore[arg-type]
    )
    return changed(plain, **changes)


def _designs() -> dict[str, Design]:
    rng = np.random.default_rng(1)
    n = 160
    a, b, d = rng.integers(0, 20, n), rng.integers(0, 9, n), rng.integers(0, 5, n)
    parent = a // 4
    grand = parent // 3
    # A mean far from zero, as in real data, so that the engine's centring matters.
    x, z = rng.normal(size=n) + 3, rng.normal(size=n)
    y = 5 + x + rng.normal(size=20)[a] + 0.7 * rng.normal(size=9)[b] + rng.normal(size=n)
    one = np.ones(n)
    X = np.column_stack([one, x, z])
    one_x, one_z, three = np.column_stack([one, x]), np.column_stack([one, z]), np.column_stack([one, x, z])
    weights, offset = 7 * rng.uniform(0.5, 2, n), 2 * rng.normal(size=n)

    def design(*terms: RandomTerm, **changes: Any) -> Design:
        return make_design(y, changes.pop("X", X), list(terms), **changes)

    t = make_term
    return {
        "intercept": design(t("a", a, one)),
        "slope": design(t("a", a, one_x)),
        "three columns": design(t("a", a, three)),
        "one column, no intercept": design(t("a", a, x)),
        "two terms on one factor": design(t("a", a, one), t("a", a, z)),
        "three terms on one factor": design(t("a", a, one), t("a", a, z), t("a", a, np.column_stack([x, x * z]))),
        "diagonal": design(t("a", a, one_x, "diagonal")),
        "identity": design(t("a", a, one_x, "identity")),
        "crossed": design(t("a", a, one), t("b", b, one)),
        "crossed, slopes": design(t("a", a, one_x), t("b", b, one_z)),
        "crossed, diagonal": design(t("a", a, one_x, "diagonal"), t("b", b, one_z, "identity")),
        "nested": design(t("a", a, one), t("p", parent, one)),
        "nested, slopes": design(t("a", a, one_x), t("p", parent, one_x)),
        "nested chain": design(t("a", a, one_z), t("p", parent, one), t("g", grand, one)),
        "nested chain and crossed": design(t("a", a, one_x), t("p", parent, one_z), t("b", b, one_z), t("d", d, one)),
        "weights": design(t("a", a, one_x), t("b", b, one), weights=weights),
        "weights, nested": design(t("a", a, one_z), t("p", parent, one_x), weights=weights),
        "offset": design(t("a", a, one_z), offset=offset),
        "weights and offset": design(t("b", b, one_x), t("d", d, one), weights=weights, offset=offset),
        "no fixed effects": design(t("a", a, one_x), X=np.empty((n, 0))),
        "no fixed intercept": design(t("a", a, one_z), t("d", d, one), X=np.column_stack([x, z])),
    }


DESIGNS = _designs()


def random_theta(design: Design, seed: int = 2) -> np.ndarray:
    """Diagonals of T between 0.3 and 1.2, the rest about zero."""
    rng = np.random.default_rng(seed)
    parts = []
    for term in design.terms:
        if term.structure.name == "us":
            columns, rows = np.triu_indices(term.n_columns)
            size = rows.size
            parts.append(np.where(rows == columns, rng.uniform(0.3, 1.2, size), 0.3 * rng.normal(size=size)))
        else:
            parts.append(rng.uniform(0.3, 1.2, term.n_theta))
    return np.concatenate(parts)


def factors(terms: tuple[RandomTerm, ...], theta: np.ndarray) -> list[np.ndarray]:
    """T of each term."""
    return [block for block, _ in _factors_and_directions(terms, theta)]


def _factors_and_directions(
    terms: tuple[RandomTerm, ...], theta: np.ndarray
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    out = []
    start = 0
    for term in terms:
        k = term.n_columns
        if term.structure.name == "homdiag":
            directions = [np.eye(k)]
        else:
            columns, rows = np.triu_indices(k) if term.structure.name == "us" else (np.arange(k), np.arange(k))
            directions = []
            for row, column in zip(rows, columns, strict=True):
                direction = np.zeros((k, k))
                direction[row, column] = 1.0
                directions.append(direction)
        values = theta[start : start + len(directions)]
        out.append((sum(v * d for v, d in zip(values, directions, strict=True)), directions))
        start += len(directions)
    return out


@dataclass(frozen=True)
class Dense:
    """A model at one theta."""

    value: float
    gradient: np.ndarray
    average_information: np.ndarray
    beta: np.ndarray
    vcov: np.ndarray
    sigma: float
    modes: list[np.ndarray]
    conditional: np.ndarray  # covariance of b given y, divided by sigma^2; rows: terms, levels, columns
    conditional_all: np.ndarray  # the same with the uncertainty of beta


# Threads of BLAS cost more than they bring for matrices of this size.
CONTROLLER = ThreadpoolController()


def dense(design: Design, theta: np.ndarray, reml: bool = True) -> Dense:
    """Criterion, gradient and estimates from V = W^-1 + Z Lambda Lambda' Z'."""
    with CONTROLLER.limit(limits=1, user_api="blas"):
        return _dense(design, theta, reml)


def _dense(design: Design, theta: np.ndarray, reml: bool) -> Dense:
    n, p = design.X.shape
    X, Z = design.X, design.Zt.T.toarray()
    y = design.y if design.offset is None else design.y - design.offset
    w = np.ones(n) if design.weights is None else design.weights
    pairs = _factors_and_directions(design.terms, np.asarray(theta, dtype=float))
    Lambda = linalg.block_diag(*[np.kron(np.eye(t.n_levels), T) for t, (T, _) in zip(design.terms, pairs, strict=True)])
    Sigma = Lambda @ Lambda.T
    V = np.diag(1 / w) + Z @ Sigma @ Z.T
    V_inverse = np.linalg.inv(V)
    information = X.T @ V_inverse @ X
    beta_map = np.linalg.solve(information, X.T @ V_inverse)
    P = V_inverse - V_inverse @ X @ beta_map
    beta = beta_map @ y
    Py = P @ y
    r2 = float(y @ Py)
    df = n - p if reml else n
    value = np.linalg.slogdet(V)[1] + df * (1 + np.log(2 * np.pi * r2 / df))
    if reml:
        value += np.linalg.slogdet(information)[1]
    changes = _changes(design, pairs)
    projector = P if reml else V_inverse
    gradient = np.array([np.sum(projector * dV) - df / r2 * (Py @ dV @ Py) for dV in changes])
    moved = np.array([dV @ Py for dV in changes])
    q = moved @ P @ moved.T
    slope = moved @ Py
    sigma2 = r2 / df
    b = Sigma @ Z.T @ Py
    ends = np.cumsum([t.n_levels * t.n_columns for t in design.terms])[:-1]
    gain = Sigma @ Z.T
    return Dense(
        value=float(value),
        gradient=gradient,
        average_information=df / r2 * (q - np.outer(slope, slope) / r2),
        beta=beta,
        vcov=sigma2 * np.linalg.inv(information) if p else np.zeros((0, 0)),
        sigma=float(np.sqrt(sigma2)),
        modes=[v.reshape(t.n_levels, -1) for t, v in zip(design.terms, np.split(b, ends), strict=True)],
        conditional=Sigma - gain @ V_inverse @ gain.T,
        conditional_all=Sigma - gain @ P @ gain.T,
    )


def _changes(design: Design, pairs: list[tuple[np.ndarray, list[np.ndarray]]]) -> list[np.ndarray]:
    """dV / dtheta."""
    out = []
    for term, (T, directions) in zip(design.terms, pairs, strict=True):
        same = term.codes[:, None] == term.codes[None, :]
        for direction in directions:
            half = direction @ T.T
            out.append(same * (term.values @ (half + half.T) @ term.values.T))
    return out


def blocks(design: Design, matrix: np.ndarray) -> list[np.ndarray]:
    """Diagonal blocks (J, k, k) of each term, of a matrix over terms, levels, columns."""
    out = []
    start = 0
    for term in design.terms:
        J, k = term.n_levels, term.n_columns
        rows = [slice(start + j * k, start + (j + 1) * k) for j in range(J)]
        out.append(np.array([matrix[r, r] for r in rows]))
        start += J * k
    return out
