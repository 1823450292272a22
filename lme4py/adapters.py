"""Adapters: how `Margins` reads fits of other packages, and how other packages read fits of this one.

Others write a subclass of `ModelAdapter` and pass it as ``Margins.linear_scale(fit, adapter=MyAdapter)``.
"""

from __future__ import annotations

from typing import Any

from lme4py.margins.models.adapter import FactoredRows, ModelAdapter, Rows, frame_of, to_pandas
from lme4py.margins.models.own import OwnAdapter
from lme4py.margins.models.statsmodels import StatsmodelsMixedLMAdapter

__all__ = [
    "FactoredRows",
    "ModelAdapter",
    "OwnAdapter",
    "Rows",
    "StatsmodelsMixedLMAdapter",
    "frame_of",
    "marginaleffects_model",
    "to_pandas",
]


def marginaleffects_model(fit: Any) -> Any:
    """A fit of this package as Python's ``marginaleffects`` takes it: ``avg_slopes(marginaleffects_model(fit))``.

    Parameters
    ----------
    fit : MixedResult or MEGLMResult

    Returns
    -------
    object
        A model of ``marginaleffects``.

    Raises
    ------
    OptionError
        When ``marginaleffects`` is not installed.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> fit = lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    >>> from marginaleffects import avg_slopes  # doctest: +SKIP
    >>> avg_slopes(marginaleffects_model(fit))  # doctest: +SKIP
    """
    from lme4py.margins.models.marginaleffects import make_model

    return make_model(fit)
