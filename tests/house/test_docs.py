"""The code in README and docs runs, the formulas of the table are understood, and the reference is complete."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lme4py
import lme4py.adapters
from lme4py.fits.derived import DerivedNumber

ROOT = Path(__file__).parents[2]
# The others need packages that are no test requirement, or processes of their own; the docs build runs all of them.
PAGES = [
    "index",
    "get_started",
    "formula",
    "generalised",
    "ordinal",
    "multinomial",
    "several",
    "inference",
    "penalties",
    "smooths",
    "studies",
    "convergence",
    "differences",
    "modular",
    "coming_from/lme4",
    "coming_from/stata",
    "coming_from/statsmodels",
    "coming_from/pymargins",
    "coming_from/bayes",
    "coming_from/spss_sas",
]


def test_blocks_of_the_readme_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_links_of_the_readme_are_absolute_and_lead_to_files_of_the_repository():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    home = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/")
    targets = re.findall(r"\]\(([^)]*)\)", text) + re.findall(r"(?:src|href)=\"([^\"]*)\"", text)
    assert len(targets) > 20
    for target in targets:
        assert target.startswith(("https://", "#")), target
        if target.startswith((home, raw)):
            path = re.sub(rf"^{re.escape(home)}/(?:blob|tree)/main/|^{re.escape(raw)}/main/", "", target)
            assert (ROOT / path).exists(), target
    for name, target in re.findall(r'^(\w+) = "(https://[^"]*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE):
        assert target.startswith(home), name


@pytest.mark.parametrize("page", PAGES)
def test_cells_of_the_page_run(page, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    cells = re.findall(r"```\{code-cell\} python\n(.*?)```", text, flags=re.DOTALL)
    assert cells
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, page, "exec"), names)
    plt.close("all")


def test_reference_lists_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:   |\.\. autoexception:: )([\w.]+)$", text, flags=re.MULTILINE))
    adapters = {f"adapters.{name}" for name in lme4py.adapters.__all__}
    assert {*lme4py.__all__, *adapters} - listed == {"__version__"}


def _documented():
    """Public functions, and public methods of public classes, by name."""
    for name in sorted({*lme4py.__all__} - {"__version__"}):
        value = getattr(lme4py, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and not issubclass(value, (Exception, Warning)):
            for attribute, method in inspect.getmembers(
                value, lambda member: callable(member) and not isinstance(member, DerivedNumber)
            ):
                if not attribute.startswith("_") and getattr(method, "__module__", "").startswith("lme4py"):
                    yield f"{name}.{attribute}", method


@pytest.mark.parametrize(("name", "function"), list(_documented()))
def test_docstring_names_parameters_and_result(name, function):
    text = inspect.getdoc(function) or ""
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "models")]
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\w+\n---|\Z)", text, flags=re.DOTALL)
    words = set(re.findall(r"\w+", section.group(1))) if section else set()
    # dydx documents its options one by one; the constructors of sessions refer to the first of them.
    assert {p for p in parameters if p != "options"} <= words
    assert "Returns\n-------" in text
    assert "." in name or ">>>" in text


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
        ("log2(x) + log1p(x) + sin(x)", ["log2(x)", "log1p(x)", "sin(x)"]),
        ("log10(z^2) + abs(z)", ["log10(z^2)", "abs(z)"]),
        ("plogis(x) + pnorm(x)", ["plogis(x)", "pnorm(x)"]),
        ("I(x - mean(x)) + I(z/sd(z))", ["I(x - mean(x))", "I(z/sd(z))"]),
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
        ("as.factor(b)", 5),
        ("ordered(b)", 5),
        ('relevel(f, ref = "v")', 3),
        ("droplevels(f)", 3),
        ("cut(x, c(0, 1.5, 2))", 2),
        ("interaction(a, f)", 6),
        ("ifelse(x > 1.5, 1, 0)", 2),
        ("pmin(x, 1.5) + pmax(x, 1.5) + round(x, 1)", 4),
        ("qnorm(plogis(x)) + I(x > quantile(x, 0.9)) + I(x - median(x))", 4),
        ("C(f, Sum)", 3),
        ("C(f, contr.sum)", 3),
    ],
)
@pytest.mark.filterwarnings("ignore::lme4py.RankWarning")
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


def test_the_conda_recipe_says_what_the_package_says():
    """Version, dependencies, entry point and licence of the recipe are those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    assert re.search(r'set version = "([^"]+)"', recipe)[1] == lme4py.__version__
    run = re.search(r"\n  run:\n((?:    - .*\n)+)", recipe)[1]
    listed = {line.strip(" -").replace(" ", "") for line in run.splitlines()}
    assert listed == {*project["dependencies"], f"python{project['requires-python']}"}
    (name, target) = next(iter(project["scripts"].items()))
    assert f"- {name} = {target}" in recipe
    assert f"license: {project['license']}" in recipe
