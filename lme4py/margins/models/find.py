"""Which adapter serves a fit."""

from __future__ import annotations

import sys
from typing import Any

from lme4py.errors import OptionError
from lme4py.fits.base import Fit, fit_of
from lme4py.inference.estimates.part_views import ALL, component_names
from lme4py.margins.estimands.categories import CategoryAdapter
from lme4py.margins.estimands.ordinal import OrdinalAdapter
from lme4py.margins.models.adapter import ModelAdapter
from lme4py.margins.models.own import OwnAdapter
from lme4py.margins.models.parts import MeanAdapter, PartAdapter, has_mean_of_several
from lme4py.margins.models.responses import ResponseAdapter

__all__ = ["find_adapter"]


def find_adapter(fit: Any, adapter: Any = None, component: str | None = None) -> ModelAdapter:
    """The adapter that the user gives, or the one for the class of the fit.

    Parameters
    ----------
    fit : object
        A result of this package, its frozen fit, a statsmodels MixedLM result, or an adapter.
    adapter : ModelAdapter, or a callable from the fit to one, optional
    component : str, optional
        One of the components of the fit.
    """
    if component is not None and (adapter is not None or fit_of(fit) is None):
        raise OptionError("`component` chooses a part of a fit of lme4py; leave it out.")
    if adapter is not None:
        made = adapter if isinstance(adapter, ModelAdapter) else adapter(fit)
        if not isinstance(made, ModelAdapter):
            raise OptionError(f"`adapter` made a {type(made).__name__}; it must be a lme4py.adapters.ModelAdapter.")
        return made
    if isinstance(fit, ModelAdapter):
        return fit
    own = fit_of(fit)
    if own is not None:
        return _own(own, component)
    if _is_statsmodels(fit):
        from lme4py.margins.models.statsmodels import StatsmodelsMixedLMAdapter

        return StatsmodelsMixedLMAdapter(fit)
    raise OptionError(
        f"a {type(fit).__name__} is no fit that Margins knows: give a result of lme4py or of statsmodels' MixedLM, or "
        "write a subclass of lme4py.adapters.ModelAdapter and pass it as adapter=."
    )


def _own(fit: Fit, component: str | None) -> ModelAdapter:
    if component == ALL:
        raise OptionError("`component` is the name of one part; without it margins are those of the response.")
    if fit.categories and component not in (None, "scale"):
        component_names(fit, component)
        raise OptionError(
            f"margins of the {component} part alone are not those of a mean; without component= they are the "
            "probabilities of the categories."
        )
    if fit.family.has_rows_of_several:
        return ResponseAdapter(fit, component)
    if component is not None and component_names(fit, component)[0] not in fit.family.components:
        raise OptionError(
            f"margins of the {component} part of a linear model are not there; coef_table(component={component!r}) has "
            "its coefficients, and predict(type='dispersion') the residual standard deviations."
        )
    if component is not None and (len(fit.family.components) > 1 or has_mean_of_several(fit)):
        return PartAdapter(fit, component)
    if has_mean_of_several(fit):
        return MeanAdapter(fit)
    if fit.categories:
        return OrdinalAdapter(fit) if fit.family.is_plain else CategoryAdapter(fit)
    return OwnAdapter(fit)


def _is_statsmodels(fit: Any) -> bool:
    module = sys.modules.get("statsmodels.regression.mixed_linear_model")
    return module is not None and type(getattr(fit, "model", None)) is module.MixedLM
