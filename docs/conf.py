"""Settings of Sphinx: ``python -m pip install ".[docs]" && sphinx-build docs docs/_build``."""

import lme4py

project = "lme4py"
author = copyright = "lme4py developers"
version = release = lme4py.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
numpydoc_show_class_members = False
