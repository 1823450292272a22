"""Settings of Sphinx: ``python -m pip install ".[docs]" && python -m sphinx -W docs docs/_build``."""

import shutil
from pathlib import Path

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
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = f"lme4py {version}"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "header_links_before_dropdown": 6}
html_sidebars = {"get_started": [], "changelog": [], "cite": []}
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


def _copy_notebooks() -> None:
    """Sphinx reads below its own folder only; the notebooks live beside it."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for source in sorted((HERE.parent / "notebooks").glob("*.md")):
        shutil.copyfile(source, target / source.name)


_copy_notebooks()
