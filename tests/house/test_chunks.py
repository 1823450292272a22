"""Numbers depend neither on how much is worked on at a time nor on the size from which another way is taken.

The switch that makes all chunks tiny is that of `lme4py.chunks`; CI runs the tests of numbers with it too. Here is
checked that no such constant goes by it, and the cases that were once wrong beyond one chunk.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.chunks import TINY, VARIABLE
from lme4py.engine.factor import sweep
from lme4py.fits.linear.batches import deletion_batch

PACKAGE = Path(lme4py.__file__).parent

# Module constants of 100 and more that name neither a chunk nor a size from which another way is taken, and why.
OTHER = {
    "frozen.py": {"_LINE": "characters of a printed record"},
    "linalg/memory.py": {"_LARGEST_KEPT": "a limit of the C library"},
    "covariance/kinds/angles.py": {"_ORDERS": "orders of columns that are looked at"},
    "covariance/kinds/correlation.py": {"_PAIRS": "pairs of columns that phi is fitted to at most"},
    "covariance/kinds/decay.py": {"_SAMPLE": "pairs of columns that a start looks at"},
    "covariance/spaces.py": {"_PAIRED": "beyond it a basis is refused"},
    "data/convert.py": {"_INEXACT": "the largest whole number that is exact"},
    "families/ordered/categories.py": {"MAX_CATEGORIES": "beyond it data are refused"},
    "design/coding.py": {"MOST_LEVELS": "beyond it data are refused"},
    "design/streaming/survey.py": {"_MOST": "beyond it data are refused"},
    "engine/generalised/problem.py": {"MAX_STEPS": "iterations"},
    "engine/generalised/rivals.py": {"_SMALL": "from it on other starts cost too much"},
    "engine/generalised/search.py": {
        "FEW": "from it on the dispersion is no reason to look elsewhere",
        "_BUDGET": "factorizations of a search",
        "_LITTLE": "factorizations of a search",
        "_FEW_STARTS": "factorizations of a search",
        "_TURN": "factorizations of one start of a search",
    },
    "inference/prediction/joint_averages.py": {"_MOST_NODES": "beyond it a mean is refused"},
    "engine/generalised/integrals/integral.py": {
        "_MOST_POINTS": "of a rule",
        "_LAPLACE_COST": "nodes times rows beyond which the check of the integral takes a smaller rule, or none",
        "_LADDER_COST": "nodes times rows of the advice",
    },
    "engine/generalised/batches/stacked.py": {
        "_MAX_ROWS": "beyond it points are evaluated one by one; both ways are tested side by side",
        "_MAX_CELLS": "the same, of rows times fixed effects",
    },
    "engine/identification/one_answer.py": {
        "_NODES": "nodes of a rule",
        "_MOST_NODES": "nodes of a rule",
        "_MOST_VALUES": "beyond it the check is left out",
    },
    "engine/linear/hessian.py": {
        "LARGE": "from it on the Hessian of several factors is an approximation, as docs/convergence.md says",
        "_SMALL": "from it on the Hessian of several factors is made of differences",
    },
    "engine/factor/crossed_factor.py": {"_SEED": "of random numbers"},
    "engine/factor/crossed_inverse.py": {"_MOST": "probes, beyond which the error is said"},
    "engine/factor/crossed_probes.py": {"MOST_ITERATIONS": "of conjugate gradients"},
    "engine/linear/stochastic_solve.py": {
        "_MOST_DIRECTIONS": "beyond it the error is made smaller by probes",
        "_MOST_PROBES": "beyond it the error stays what it is, and is said",
    },
    "engine/linear/penalised.py": {"_ROUNDS": "iterations"},
    "formula/smooth/bases.py": {"_DISTINCT": "points that a basis is made of"},
    "inference/diagnostics/bases.py": {"_PERMUTATIONS": "of a test"},
    "inference/estimates/smooth_system.py": {"_LARGEST": "beyond it tests and curves are refused"},
    "inference/estimates/smooth_tests.py": {"_TERMS": "of a sum"},
    "inference/estimates/smooths.py": {"_DRAWS": "of a simultaneous band", "_POINTS": "of a curve"},
    "engine/linear/rivals.py": {"_DENSE": "from it on an evaluation costs too much for a search"},
    "linalg/ordering.py": {
        "_MAX_EDGES": "an ordering is given up as dense: any ordering is right",
        "_SMALL": "an ordering is given up as dense: any ordering is right",
    },
    "engine/generalised/integrals/quadrature.py": dict.fromkeys(
        ("MAX_POINTS", "MAX_NODES"), "beyond it a rule is refused"
    ),
    "engine/factor/symbolic.py": {
        "MAX_PRODUCTS": "what fits in memory; lmm._MAX_LISTED is below it",
        "_SAMPLE": "of a forecast",
    },
    "engine/threads.py": {"_LARGE": "from it on BLAS has its own threads"},
    "design/residual/side.py": {"_MOST_COLUMNS": "beyond it a structure is refused"},
    "engine/marginal/solve.py": {
        "_SAMPLE": "rows that show that parameters can be told apart",
        "_SMALL": "up to it more starts are tried",
    },
    "engine/marginal/units.py": {
        "MOST_ROWS": "beyond it a block is refused",
        "_MANY": "from it on products are summed, to their rounding, where QR would take too long",
    },
    "formula/factors.py": {"_MOST_LEVELS": "beyond it a formula is refused"},
    "formula/functions_numeric.py": {"_MOST_CONSTANTS": "beyond it a formula is refused"},
    "formula/operands.py": {"_INEXACT": "the largest whole number that is exact"},
    "formula/parse.py": {"_MAX_BARS": "beyond it a formula is refused"},
    "formula/syntax.py": {"MAX_DEPTH": "beyond it a formula is refused"},
    "formula/terms.py": dict.fromkeys(("MAX_TERMS", "_MAX_STEPS", "_MAX_DEGREES"), "beyond it a formula is refused"),
    "formula/tokens.py": {"MAX_LENGTH": "beyond it a formula is refused"},
    "families/averages.py": {"_ROOT_NODES": "nodes of a rule"},
    "families/densities/counts.py": {"_MOST": "counts that are summed at a time"},
    "inference/diagnostics/check.py": {"_MOST_SHAPIRO": "most rows of SciPy's test of normality"},
    "fits/linear/null.py": {
        "_GRID": "points of a grid",
        "_MOST_EFFECTS": "beyond it the exact test is refused",
    },
    "inference/lrt/mixture.py": {"_DRAWS": "of a simulation", "_SEED": "a seed", "_PROJECTIONS": "of a simulation"},
    "inference/lrt/nesting.py": {"_PAIRS": "pairs that are compared first; all follow", "_SEED": "a seed"},
    "inference/prediction/response_quantiles.py": {"_STEPS": "iterations"},
    "margins/estimands/draws.py": {"_MOST_EFFECTS": "beyond it what needs the joint covariance is refused"},
    "margins/results/multiplicity.py": dict.fromkeys(("_POINTS", "_FEWEST", "_MOST_DIMENSIONS"), "of an integration"),
    "margins/population/population.py": {"_MOST_ROWS": "beyond it a grid is refused"},
    "covariance/relations/pedigree.py": {"_WHOLE": "beyond it a dense relationship is refused"},
    "inference/diagnostics/quantile_residuals.py": {"_SIMULATIONS": "responses that residuals stand among"},
    "inference/prediction/given.py": {"_MOST_STEPS": "iterations"},
    "report/page/figures.py": {"_MOST_POINTS": "beyond it points are drawn as an image"},
    "report/summaries/augment.py": {"_MOST_ROWS": "beyond it leverages are left out"},
    "study/responses.py": {"_LOOKED_AT": "names in a message"},
    "study/subsets.py": {"_MOST": "beyond it models are refused"},
}


def modules(word: str = "") -> Iterator[tuple[str, ast.Module]]:
    """Names and trees of the modules that have a word in their text."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if word in text:
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(text)


def constants(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Module constants that are written as a whole number of 100 and more, also as a product or a power."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        values = value.elts if isinstance(value, ast.Tuple) else [value]
        for name, part in zip(names, values, strict=False):
            if any(isinstance(inner, ast.Call) for inner in ast.walk(part)):
                continue
            try:
                number = eval(compile(ast.Expression(part), "constant", "eval"), {"__builtins__": {}})
            except Exception:
                continue
            if isinstance(number, int) and not isinstance(number, bool) and number >= 100:
                yield name, number


def test_every_chunk_goes_by_the_switch():
    found = {(name, constant) for name, tree in modules() for constant, _ in constants(tree)}
    listed = {(name, constant) for name, reasons in OTHER.items() for constant in reasons}
    assert found == listed, (
        "make a size of a chunk by chunk(), and a size from which another algorithm of the same numbers is taken by "
        "from_size(), of lme4py.chunks; list a number that is neither in OTHER above, with the reason"
    )


def steps(tree: ast.Module) -> Iterator[int]:
    """Lines of ``range(start, stop, step)`` with a step that is not written as a number."""
    for node in ast.walk(tree):
        is_range = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"
        if is_range and len(node.args) == 3 and not isinstance(node.args[2], (ast.Constant, ast.UnaryOp)):
            yield node.lineno


# Modules with such ranges whose steps come from elsewhere.
STEPS_FROM = {
    "engine/generalised/integrals/nested_quadrature.py": "the chunk of engine/generalised/integrals/quadrature.py",
    "inference/bootstrap/bootstrap.py": "the size of a task, in bootstrap_task.py",
    "chunks.py": "row_blocks, whose callers name the chunk",
    "data/sources/memory.py": "the rows of a block, in data/sources/base.py",
    "inference/lrt/simulation.py": "responses_at_once() of the model, by its chunk",
}


def test_every_loop_over_parts_has_a_chunk():
    missing = []
    for name, tree in modules("range("):
        lines = list(steps(tree))
        imported = lines and any(isinstance(n, ast.ImportFrom) and n.module == "lme4py.chunks" for n in ast.walk(tree))
        missing += [f"{name}:{line}" for line in lines if not imported and name not in STEPS_FROM]
    assert not missing


def test_the_switch_is_read_when_lme4py_is_imported():
    code = (
        "from lme4py.engine.factor import crossproducts, sweep; from lme4py.fits.linear import information;"
        "print(sweep._LEVELS, crossproducts._ROWS, crossproducts._FEW, information._CHUNK)"
    )
    found = {}
    for value in ("", "0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, VARIABLE: value},
            capture_output=True,
            text=True,
            check=True,
        )
        found[value] = run.stdout.split()
    assert found[""] == found["0"] == ["8192", str(2**17), "20000", "4096"]
    assert found["1"] == ["3", "7", "0", "7"]


@pytest.fixture(scope="module")
def groups() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(20), rng.integers(2, 9, 20))
    x = rng.normal(size=g.size)
    effects = rng.normal(size=(20, 2)) * [0.8, 0.4]
    y = x + effects[g, 0] + effects[g, 1] * x + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "g": g, "flat": x + rng.normal(size=g.size)})


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (x || g)"])
def test_a_profile_does_not_depend_on_the_chunk_of_levels(groups, formula, monkeypatch):
    limits = []
    for levels in (8192, 3):
        monkeypatch.setattr(sweep, "_LEVELS", levels)
        limits.append(lme4py.lmer(formula, groups).conf_int(method="profile", parm="all"))
    # Two searches for the same root.
    np.testing.assert_allclose(limits[1], limits[0], rtol=1e-6, atol=1e-8)


def test_icc_at_the_boundary_does_not_depend_on_the_chunk_of_levels(groups, monkeypatch):
    found = []
    for levels in (8192, 3):
        monkeypatch.setattr(sweep, "_LEVELS", levels)
        result = lme4py.icc(lme4py.lmer("flat ~ x + (1 | g)", groups))
        found.append([result.estimate, result.ci_lower, result.ci_upper])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-9)


def test_a_chunk_of_units_that_cannot_be_left_out(groups, monkeypatch):
    """Row 5 alone determines a coefficient: its chunk has no other row, and nothing to fit."""
    data = groups.assign(only=(np.arange(len(groups)) == 5).astype(float))
    fit = lme4py.lmer("y ~ x + only + (1 | g)", data)
    monkeypatch.setattr(deletion_batch, "_CHUNK", 1)
    with pytest.warns(lme4py.errors.Lme4Warning, match="without 1 of the"):
        found = fit.influence()
    assert found.failed == (5,)


@pytest.mark.skipif(TINY, reason="beyond one chunk of ordinary size")
def test_more_levels_than_one_chunk():
    rng = np.random.default_rng(0)
    J = 8200
    g, x = np.repeat(np.arange(J), 2), rng.normal(size=2 * J)
    data = pd.DataFrame({"g": g, "x": x, "y": x + 0.7 * rng.normal(size=J)[g] + rng.normal(size=2 * J)})
    result = lme4py.lmer("y ~ x + (1 | g)", data, reml=False)
    limits = result.conf_int(method="profile", parm="all")
    # In a sample of this size the likelihood is close to normal: Wald limits are near, to a twentieth of a standard
    # error.
    np.testing.assert_allclose(limits, result.conf_int(parm="all").loc[limits.index], atol=6e-4)
    singular = lme4py.lmer("z ~ x + (1 | g)", data.assign(z=x + rng.normal(size=2 * J)))
    assert lme4py.icc(singular).ci_lower >= 0.0
