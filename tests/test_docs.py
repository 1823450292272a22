"""The code in README and docs runs, and the formulas of the table are understood."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lme4py

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["README.md", "docs/modular.md", "docs/generalised.md", "docs/inference.md"])
def test_python_blocks_run(name, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(3)
    n = 120
    letters = np.array(list("uvw"))
    return pd.DataFrame(
        {
            "y": generator.normal(size=n),
            "x": generator.uniform(1, 2, size=n),
            "z": generator.normal(size=n),
            "f": letters[np.arange(n) % 3],
            "a": np.array(list("pq"))[np.arange(n) % 2],
            "b": np.array(list("klmno"))[np.arange(n) % 5],
            "g": np.array(list("ABCDEF"))[np.arange(n) // 20],
            "a name": generator.normal(size=n),
        }
    )


@pytest.mark.parametrize(
    ("fixed", "names"),
    [
        ("a + f - a", ["f[T.v]", "f[T.w]"]),
        ("a:x", ["a[p]:x", "a[q]:x"]),
        ("a * x", ["a[T.q]", "x", "a[T.q]:x"]),
        ("a / x", ["a[T.q]", "a[p]:x", "a[q]:x"]),
        ("`a name`", ["a name"]),
        ("I(x^2)", ["I(x^2)"]),
        ("I(x**2)", ["I(x^2)"]),
        ("log(x) + sqrt(x) + exp(x)", ["log(x)", "sqrt(x)", "exp(x)"]),
        ("center(x)", ["center(x)"]),
        ("scale(x)", ["scale(x)"]),
        ("offset(z) + x", ["x"]),
    ],
)
def test_fixed_formulas(data, fixed, names):
    design = lme4py.lformula(f"y ~ {fixed} + (1 | g)", data)
    assert list(design.x_names) == ["Intercept", *names]


@pytest.mark.parametrize(
    ("fixed", "columns"),
    [
        ("(a + f + x)^2", 10),
        ("(a + f + x)**2", 10),
        ("f %in% a", 6),
        ("0 + f", 3),
        ("f - 1", 3),
        ("1", 1),
        ("poly(x, 2)", 3),
        ("poly(x, 2, raw = TRUE)", 3),
        ("bs(x, df = 4)", 5),
        ("ns(x, df = 4)", 5),
        ("scale(x, scale = FALSE)", 2),
        ("factor(b)", 5),
        ("C(f, Sum)", 3),
        ("C(f, contr.sum)", 3),
    ],
)
def test_fixed_formulas_by_size(data, fixed, columns):
    design = lme4py.lformula(f"y ~ {fixed} + (1 | g)", data)
    # `f %in% a` spans 6 cells with an intercept: one of its columns is linearly dependent.
    assert design.X.shape[1] == columns


@pytest.mark.parametrize(
    ("random", "groups", "n_theta"),
    [
        ("(1 | g)", {"g"}, 1),
        ("(x | g)", {"g"}, 3),
        ("(1 + x | g)", {"g"}, 3),
        ("(0 + x | g)", {"g"}, 1),
        ("(x || g)", {"g"}, 2),
        ("diag(x + f | g)", {"g"}, 4),
        ("(1 | a/b)", {"a", "b:a"}, 2),
        ("(1 | a:b)", {"a:b"}, 1),
        ("(1 | a*b)", {"a", "b", "a:b"}, 3),
        ("(0 + f | g)", {"g"}, 6),
        ("(1 | g) + (0 + x | g)", {"g"}, 2),
        ("(ns(x, df = 3) | g)", {"g"}, 10),
    ],
)
def test_random_formulas(data, random, groups, n_theta):
    design = lme4py.lformula(f"y ~ x + {random}", data)
    assert set(design.n_groups) == groups
    assert design.n_theta == n_theta
