"""Contrast matrices against R's, and the errors for what is no contrast matrix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lme4py.design.contrasts import contrast_matrix, default_contrasts, full_dummies
from lme4py.errors import DesignError, OptionError
from lme4py.formula.contrast_names import CONTRASTS, contrast_name

CASES = json.loads((Path(__file__).parents[1] / "reference" / "transforms.json").read_text(encoding="utf-8"))[
    "contrasts"
]
LEVELS = ("a", "b", "c", "d")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['n']}")
def test_equals_r(case):
    levels = tuple("abcdefghijkl"[: case["n"]])
    matrix, suffixes = contrast_matrix(case["kind"], levels)
    # Rounding only: the polynomials of 12 levels are computed by other steps than R's.
    np.testing.assert_allclose(matrix, np.array(case["matrix"]), rtol=0, atol=1e-12)
    assert len(suffixes) == case["n"] - 1


@pytest.mark.parametrize(
    ("kind", "suffixes"),
    [
        ("contr.treatment", ("[T.b]", "[T.c]", "[T.d]")),
        ("contr.sum", ("[S.a]", "[S.b]", "[S.c]")),
        ("contr.helmert", ("[H.b]", "[H.c]", "[H.d]")),
        ("contr.SAS", ("[T.a]", "[T.b]", "[T.c]")),
        ("contr.diff", ("[D.b]", "[D.c]", "[D.d]")),
        ("contr.poly", (".L", ".Q", ".C")),
        ("contr.treatment(2)", ("[T.a]", "[T.c]", "[T.d]")),
        ("contr.treatment(base = 'c')", ("[T.a]", "[T.b]", "[T.d]")),
        ('Treatment(reference="d")', ("[T.a]", "[T.b]", "[T.c]")),
    ],
)
def test_suffixes(kind, suffixes):
    assert contrast_matrix(kind, LEVELS)[1] == suffixes


def test_suffixes_of_high_polynomials():
    assert contrast_matrix("poly", tuple(range(6)))[1] == (".L", ".Q", ".C", "^4", "^5")


@pytest.mark.parametrize("kind", ["sum", "Sum", "SUM", "contr.Sum", "contr.sum "])
def test_spellings(kind):
    np.testing.assert_array_equal(contrast_matrix(kind, LEVELS)[0], contrast_matrix("contr.sum", LEVELS)[0])


def test_names():
    assert [contrast_name(name.removeprefix("contr.")) for name in CONTRASTS] == list(CONTRASTS)
    assert contrast_name("contr.sdif") == "contr.diff"
    assert default_contrasts(ordered=True) == "contr.poly"
    assert default_contrasts(ordered=False) == "contr.treatment"


def test_boolean_levels():
    assert contrast_matrix("contr.treatment", (False, True))[1] == ("[T.True]",)
    identity, suffixes = full_dummies((False, True))
    np.testing.assert_array_equal(identity, np.eye(2))
    assert suffixes == ("[False]", "[True]")


def test_user_matrix():
    given = [[1, 0], [0, 1], [-1, -1]]
    matrix, suffixes = contrast_matrix(given, ("a", "b", "c"))
    np.testing.assert_array_equal(matrix, given)
    assert suffixes == ("[1]", "[2]")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (np.eye(3), r"shape \(3, 3\); it must have shape \(4, 3\)"),
        (np.ones((4, 3)), "rank 1 together with the intercept"),
        (np.full((4, 3), np.nan), "not finite"),
        ([["x"] * 3] * 4, "matrix of numbers"),
        ("contr.sun", "Did you mean 'contr.sum'"),
        ("import os", "not known"),
        ("contr.treatment(9)", "no such base"),
        ("contr.treatment('z')", "'a', 'b', 'c', 'd'"),
        ("contr.sum(2)", "only contr.treatment has a base"),
    ],
)
def test_refused(kind, words):
    with pytest.raises(OptionError, match=words):
        contrast_matrix(kind, LEVELS)


@pytest.mark.parametrize("levels", [(), ("only",)])
def test_too_few_levels(levels):
    with pytest.raises(DesignError, match="at least two levels"):
        contrast_matrix("contr.treatment", levels)


def test_cached_matrices_cannot_be_changed():
    matrix, _ = contrast_matrix("contr.helmert", LEVELS)
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 5.0


def test_treatment_needs_no_formulaic():
    code = (
        "import sys; from lme4py.design.contrasts import contrast_matrix as c; "
        "c('contr.treatment', ('a', 'b')); c('contr.SAS', ('a', 'b')); print('formulaic' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"
