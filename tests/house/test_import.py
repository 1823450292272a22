"""The package's front: lazy names, and nothing heavy at import."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lme4py

ROOT = Path(lme4py.__file__).parent
HEAVY = ("numpy", "scipy", "pandas", "formulaic", "narwhals", "matplotlib", "polars", "pyarrow", "tqdm", "numba")


def _python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    loaded = _python("import sys, lme4py, lme4py.errors; print(*sorted(sys.modules))").split()
    assert "lme4py" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_command_line_loads_nothing_heavy_before_it_is_needed():
    loaded = _python("import sys, lme4py.cli; print(*sorted(sys.modules))").split()
    assert [name for name in HEAVY if name in loaded] == []


def test_a_linear_model_in_memory_loads_no_densities_and_no_streams():
    code = "import sys, lme4py; lme4py.lmer('y ~ 1 + (1 | g)', {'y': [1.0, 2.0, 4.0, 8.5], 'g': list('aabb')})"
    loaded = _python(f"{code}; print(*sorted(sys.modules))").split()
    slow = ("lme4py.families.densities.registry", "lme4py.fits.rows.partitioned", "lme4py.fits.linear.streamed")
    assert "lme4py.fits.linear.model" in loaded
    assert [name for name in slow if name in loaded] == []


@pytest.mark.parametrize("name", lme4py.__all__)
def test_every_public_name_resolves(name):
    value = getattr(lme4py, name)
    assert value is getattr(lme4py, name)
    assert name in dir(lme4py)
    if name != "__version__":
        assert value.__doc__, f"{name} has no docstring"


def test_names_for_type_checkers_are_the_names_at_run_time():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {
        alias.name: statement.module
        for statement in guarded.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert typed == lme4py._HOME
    assert set(lme4py.__all__) == {*typed, "__version__"}


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'lmerr'"):
        _ = lme4py.lmerr


def test_submodules_are_not_hidden():
    for name in ("fits", "errors", "results", "cli"):
        assert importlib.import_module(f"lme4py.{name}") is getattr(lme4py, name)


def test_package_is_typed():
    assert (ROOT / "py.typed").exists()


def test_submodules_hide_no_public_name_and_need_no_import_of_their_own():
    modules = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not modules & set(lme4py._HOME)
    assert _python("import lme4py; print(lme4py.adapters.__name__)") == "lme4py.adapters"
    assert {"adapters", "errors"} <= set(dir(lme4py))


def test_files_of_tests_have_names_of_their_own():
    """Rooms of tests are no packages: two files of one name cannot be collected together."""
    root = Path(__file__).parents[1]
    names = [path.name for path in root.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
