"""Settings of Sphinx: ``python -m pip install ".[docs]" && python -m sphinx -W docs docs/_build``.

Sphinx reads below its own folder only, while notebooks and benchmark results live beside it: both are copied at every
build into folders that are not under version control.
"""

import inspect
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

import lme4py

HERE = Path(__file__).parent

project = "lme4py"
author = copyright = "lme4py developers"
version = release = lme4py.__version__
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
# Equations are typeset without a network where the package that holds MathJax is installed.
if find_spec("sphinx-mathjax-offline"):
    extensions.append("sphinx-mathjax-offline")
exclude_patterns = ["_build", "_templates", "jupyter_execute", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["lme4py.css"]
html_title = f"lme4py {version}"
# Versions that are published beside each other: docs/_static/switcher.json lists them.
html_theme_options = {
    "show_toc_level": 1,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "switcher": {"json_url": "_static/switcher.json", "version_match": version},
    "check_switcher": False,
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
}
# Guides come before the changelog and the reference.
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")
html_sidebars = {"index": [], "get_started": []}
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Pages with code cells are run at every build, so that what they show is what the package prints.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True
numpydoc_show_class_members = False
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Pages are made for the names of the package, so that `lme4py.lmer` is documented under the name that users write.
add_module_names = False


def _themes(name: str) -> list[tuple[str, list[str]]]:
    """Public members of a class by the class of the package that holds their theme, the nearest last."""
    kind = getattr(lme4py, name, None)
    if not inspect.isclass(kind):
        return []
    taken: set[str] = set()
    found = []
    for base in kind.__mro__:
        if base.__module__.startswith("lme4py."):
            own = [member for member in vars(base) if not member.startswith("_") and member not in taken]
            taken.update(own)
            found.append(((inspect.getdoc(base) or base.__name__).split("\n")[0].rstrip("."), own))
    return [(theme, own) for theme, own in reversed(found) if own]


# Tables that are data frames have what pandas documents.
_public = {name: getattr(lme4py, name) for name in lme4py.__all__}
_frames = [name for name, one in _public.items() if inspect.isclass(one) and issubclass(one, pd.DataFrame)]
autosummary_context = {"themes": {name: _themes(name) for name in lme4py.__all__}, "frames": _frames}

# The order of the worked examples; others follow in the order of their names.
FIRST = (
    "sleepstudy",
    "generalised",
    "crossed",
    "three_levels",
    "margins",
    "resampling",
    "power",
    "growth_curves",
    "animal_model",
    "too_many_zeros",
    "choices",
    "meta_analysis",
)


def _copy_notebooks() -> None:
    """Copy ../notebooks/*.md, with a table of contents unless they bring their own."""
    target = _empty(HERE / "notebooks")
    sources = [source for source in (HERE.parent / "notebooks").glob("*.md") if source.stem != "README"]
    for source in sources:
        shutil.copyfile(source, target / source.name)
    if not (target / "index.md").exists():
        names = sorted((source.stem for source in sources), key=_place)
        entries = "\n".join(names)
        toctree = f"```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
        text = f"# Worked examples\n\nEach page is a notebook that runs when this documentation is built.\n\n{toctree}"
        (target / "index.md").write_text(text, encoding="utf-8")


def _place(name: str) -> tuple[int, str]:
    return next((i for i, first in enumerate(FIRST) if name.startswith(first)), len(FIRST)), name


def _copy_results() -> None:
    """Copy the tables and pictures of ../benchmarks/results."""
    target = _empty(HERE / "results")
    for source in sorted((HERE.parent / "benchmarks" / "results").glob("*")):
        if source.suffix in (".md", ".png", ".svg"):
            shutil.copyfile(source, target / source.name)


def _empty(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*"):
        if old.is_file():
            old.unlink()
    return folder


_copy_notebooks()
_copy_results()
# Pages of names that are no longer in the reference would stay otherwise.
_empty(HERE / "generated")


def _own_words(_app: object, _what: str, _name: str, of: object, _options: object, lines: list[str]) -> None:
    """Methods inherited from scikit-learn point to labels of its documentation, which are not here."""
    if (getattr(of, "__module__", None) or "").startswith("sklearn."):
        lines[:] = ["As in scikit-learn."]


def setup(app) -> None:
    # Before numpydoc, which reads the same lines.
    app.connect("autodoc-process-docstring", _own_words, priority=100)
