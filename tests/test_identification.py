"""Which variances the data tell apart, and what is made of those that they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.engine.lmm import Criterion
from lme4py.engine.scaling import scale_columns


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 150
    table = pd.DataFrame(
        {
            "x": 5.0 + rng.normal(size=n),
            "z": rng.normal(size=n),
            "g": rng.integers(0, 12, n),
            "h": rng.integers(0, 7, n),
            "f": rng.choice(list("abc"), n),
            "w": 0.1 + rng.random(n),
        }
    )
    effects = rng.normal(size=(12, 2))
    return table.assign(
        y=1.0 + table["x"] + effects[table["g"], 0] + effects[table["g"], 1] * table["z"] + rng.normal(size=n)
    )


# The Gram matrix of the directions ----------------------------------------------------------------------------


def dense_gram(design: lme4py.Design, criterion: Criterion) -> tuple[np.ndarray, np.ndarray]:
    """tr(D_i D_j) and tr(M D_i M D_j) from n x n matrices."""
    _, columns = scale_columns(design)
    root = np.ones(design.n_obs) if columns.weights is None else np.sqrt(columns.weights)
    X = columns.XY[:, :-1] * root[:, None]
    M = np.eye(design.n_obs) - X @ np.linalg.pinv(X)
    parts = []
    for direction in criterion.variance_gram.directions:
        factor = criterion.problem.factors[direction.factor]
        Z = np.hstack([columns.Z[t] for t in factor.terms]) * root[:, None]
        codes = design.terms[factor.terms[0]].codes
        parts.append((codes[:, None] == codes) * (Z @ direction.E @ Z.T))
    parts.append(np.eye(design.n_obs))
    both = [[np.vdot(a, b) for b in D] for D in (parts, [M @ part @ M for part in parts]) for a in D]
    plain, projected = np.split(np.array(both), 2)
    return plain, projected


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (x | g)",
        "y ~ x * z + (x | g) + (1 | h)",
        "y ~ x + (x + z | g) + (0 + z | g) + (1 | g:h) + (1 | h)",
        "y ~ f + homcs(0 + f | g) + diag(x | h)",
        "y ~ 0 + (1 | g)",
    ],
)
def test_gram_of_the_directions(formula: str, data: pd.DataFrame) -> None:
    design = lme4py.lformula(formula, data, weights="w")
    criterion = lme4py.lmm_criterion(design).inside
    plain, projected = dense_gram(design, criterion)
    gram = criterion.variance_gram
    # Sums of 150 x 150 products: rounding only.
    np.testing.assert_allclose(gram.plain, plain, rtol=0, atol=1e-13 * np.abs(plain).max())
    np.testing.assert_allclose(gram.projected, projected, rtol=0, atol=1e-13 * np.abs(plain).max())
