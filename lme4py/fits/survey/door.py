"""From the arguments of a formula's front door to a fit with sampling weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lme4py.data.frame import read_frame
from lme4py.design.build import lformula
from lme4py.design.call import check_call, check_mappings
from lme4py.design.smooths import refuse_smooth_design
from lme4py.errors import OptionError
from lme4py.families.registry import make_family
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.parameters import check_names
from lme4py.fits.rows.settings import rows_in_memory
from lme4py.fits.survey.steps import survey_fit

if TYPE_CHECKING:
    from lme4py.families.base import Family
    from lme4py.fits.survey.fit import SurveyFit
    from lme4py.fits.survey.weights import SurveyRequest

__all__ = ["fit_of_call", "linear_fit_of_call"]


def fit_of_call(
    formula: str,
    data: Any,
    family: Family,
    request: SurveyRequest,
    options: Mapping[str, Any],
    refused: Mapping[str, Any],
    **way: Any,
) -> SurveyFit:
    """`survey_fit` of a formula.

    Parameters
    ----------
    formula : str
    data : object
    family : Family
    request : SurveyRequest
    options : mapping of str to object
        For `lformula`.
    refused : mapping of str to object
        Arguments that are not there beside sampling weights, which must be None.
    **way
        `nAGQ`, `hessian`, `start` and `control`.

    Raises
    ------
    OptionError
        One of those arguments is given.
    """
    for name, value in refused.items():
        if value is not None:
            raise OptionError(f"{name}= is not there beside level_weights=; leave one of them out.")
    check_call(formula, data, None, options["na_action"])
    check_mappings(options["contrasts"], options["functions"])
    check_options(way.get("nAGQ", 1), way.get("hessian", "observed"), fixed_points=family.has_thresholds)
    data, control = rows_in_memory(data, way.pop("control", None), "models with sampling weights")
    frame = read_frame(data)
    design = lformula(formula, frame, **({"family": family} | dict(options)), beside=request.nodes(frame.names))
    refuse_smooth_design(design, "models with sampling weights")
    if family.has_thresholds and design.response is not None:
        family = replace(family, n_categories=len(design.response.categories or ()))  # type: ignore[call-arg]
    check_names(design, family)
    return survey_fit(design, family, request, control=control, **way)


def linear_fit_of_call(
    formula: str, data: Any, reml: bool, request: SurveyRequest, *args: Mapping[str, Any], **way: Any
) -> SurveyFit:
    """The same for linear models.

    Parameters
    ----------
    formula, data, request
    reml : bool
    *args, **way
        As in `fit_of_call`.

    Raises
    ------
    OptionError
        REML, which has no weighted form.
    """
    if reml:
        raise OptionError(f"{request.word}= needs maximum likelihood: REML has no weighted form. Give reml=False.")
    return fit_of_call(formula, data, make_family("gaussian", None), request, *args, **way)
