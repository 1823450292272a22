"""Fits computed by the textbook's dense formulas at a given theta: small, and independent of the engine."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from dense_models import changed
from scipy import linalg

from lme4py.covariance import make_structure
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.engine.certificate import Certificate, Evaluation
from lme4py.errors import IdentificationWarning
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.steps import lmm_criterion

VERDICT = "Converged: the criterion is within 1e-12 of its minimum."


def certificate(**changes: Any) -> Certificate:
    """A certificate of a plain, regular optimum."""
    plain = Certificate(1e-7, 2.5, 5e-15, None, True, False, (), VERDICT)
    return replace(plain, **changes)


def random_term(group: str, columns: dict[str, np.ndarray], codes: np.ndarray, **changes: Any) -> RandomTerm:
    """A term whose levels are called a, b, c, ..."""
    levels = tuple(chr(ord("a") + i) for i in range(int(codes.max()) + 1))
    label = f"({' + '.join(columns)} | {group})"
    kind = make_structure("us", len(columns))
    term = RandomTerm(group, tuple(columns), levels, kind, label, codes, np.column_stack(list(columns.values())))
    return replace(term, **changes)


def design(y: np.ndarray, X: dict[str, np.ndarray], terms: tuple[RandomTerm, ...], **changes: Any) -> Design:
    """A design whose rows are all used and are labelled r0, r1, ..."""
    n = y.size
    plain = Design(
        formula="y ~ " + " + ".join([*X, *(term.label for term in terms)]),
        response_name="y",
        y=y,
        predictors=(
            Predictor(
                np.column_stack(list(X.values())) if X else np.empty((n, 0)),
                tuple(X),
                tuple(range(len(X))),
                tuple(X)[1:],
                terms,
            ),
        ),
        weights=None,
        keep=np.ones(n, dtype=bool),
        row_labels=pd.Index([f"r{i}" for i in range(n)], name="row"),
        na_action="omit",
        recipe=SimpleNamespace(),  # type: ignore[arg-type]
        notes=(),
    )
    return changed(plain, **changes)


def _factors(terms: tuple[RandomTerm, ...], theta: np.ndarray) -> list[np.ndarray]:
    """Relative Cholesky factor of each term."""
    factors = []
    position = 0
    for term in terms:
        k = term.n_columns
        T = np.zeros((k, k))
        values = theta[position : position + term.n_theta]
        if term.structure.name == "us":
            columns, rows = np.triu_indices(k)
            T[rows, columns] = values
        else:
            np.fill_diagonal(T, values)
        position += term.n_theta
        factors.append(T)
    return factors


def dense_fit(design: Design, theta: np.ndarray, reml: bool = True, **changes: Any) -> LinearFit:
    """The fit of `design` at `theta` (not an optimum) from dense matrices."""
    n, p = design.X.shape
    factors = _factors(design.terms, np.asarray(theta, dtype=float))
    Z = design.Zt.T.toarray()
    Lambda = linalg.block_diag(*(np.kron(np.eye(t.n_levels), T) for t, T in zip(design.terms, factors, strict=True)))
    weights = np.ones(n) if design.weights is None else design.weights
    offset = np.zeros(n) if design.offset is None else design.offset
    V = np.diag(1 / weights) + Z @ Lambda @ Lambda.T @ Z.T
    V_inverse = np.linalg.inv(V)
    information = design.X.T @ V_inverse @ design.X
    y = design.y - offset
    beta = np.linalg.solve(information, design.X.T @ V_inverse @ y) if p else np.empty(0)
    gap = y - design.X @ beta
    df = n - p if reml else n
    r2 = float(gap @ V_inverse @ gap)
    sigma = float(np.sqrt(r2 / df))
    criterion = np.linalg.slogdet(V)[1] + df * (1 + np.log(2 * np.pi * r2 / df))
    if reml:
        criterion += np.linalg.slogdet(information)[1]
    b = Lambda @ Lambda.T @ Z.T @ V_inverse @ gap
    sizes = np.cumsum([t.n_levels * t.n_columns for t in design.terms])[:-1]
    modes = [part.reshape(t.n_levels, t.n_columns) for t, part in zip(design.terms, np.split(b, sizes), strict=True)]
    with warnings.catch_warnings():
        # Two terms of `crossed_fit` hold the same column.
        warnings.simplefilter("ignore", IdentificationWarning)
        engine = lmm_criterion(design, reml)
    plain = LinearFit(
        design=design,
        reml=reml,
        criterion=float(criterion),
        beta=beta,
        vcov=sigma**2 * np.linalg.inv(information) if p else np.empty((0, 0)),
        sigma=sigma,
        theta=np.asarray(theta, dtype=float),
        covariances=tuple(sigma**2 * T @ T.T for T in factors),
        modes=tuple(modes),
        certificate=certificate(),
        opt_log=(
            Evaluation(1, float(criterion) + 3.0, 5.0, 1.0, True, (1.0,) * len(theta)),
            Evaluation(2, float(criterion), 1e-8, 2.0, True, tuple(theta)),
        ),
        problem=engine.inside.problem,
        theta_inside=engine.to_inside(theta),
    )
    return replace(plain, **changes)


def slopes_design(**changes: Any) -> Design:
    """24 rows, 4 levels, y ~ Intercept + x + (1 + x | g)."""
    generator = np.random.default_rng(20)
    codes = np.repeat(np.arange(4), 6)
    x = np.tile(np.arange(6.0), 4)
    y = 5 + 2 * x + np.array([1.0, -2.0, 0.5, 3.0])[codes] + generator.normal(size=24)
    one = np.ones(24)
    term = random_term("g", {"Intercept": one, "x": x}, codes, label="(x | g)")
    return design(y, {"Intercept": one, "x": x}, (term,), **{"formula": "y ~ x + (x | g)", **changes})


def slopes_fit(**changes: Any) -> LinearFit:
    """`slopes_design` at theta = (1.2, 0.1, 0.3)."""
    return dense_fit(slopes_design(), np.array([1.2, 0.1, 0.3]), **changes)


def crossed_fit(**changes: Any) -> LinearFit:
    """Two crossed factors, one of them with two terms that share a column."""
    generator = np.random.default_rng(7)
    codes_g = np.repeat(np.arange(6), 5)
    codes_h = np.tile(np.arange(5), 6)
    x = generator.normal(size=30)
    one = np.ones(30)
    y = 1 + 0.5 * x + generator.normal(size=30)
    terms = (
        random_term("g", {"Intercept": one}, codes_g),
        random_term("g", {"x": x, "Intercept": one}, codes_g),
        random_term("h", {"Intercept": one}, codes_h),
    )
    made = design(y, {"Intercept": one, "x": x}, terms)
    return dense_fit(made, np.array([0.5, 0.4, 0.1, 0.3, 0.7]), **changes)
