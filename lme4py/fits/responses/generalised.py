"""Generalised models of several responses with a family each, joined by correlated random effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.data.frame import read_frame
from lme4py.design.build import read_formula
from lme4py.design.design import Design
from lme4py.design.responses.build import several_design
from lme4py.design.responses.responses import BoundResponses
from lme4py.errors import DesignError, OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.registry import make_family
from lme4py.families.several.by_response import ByResponse, joined_data
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.fits.held import hold, read_fix
from lme4py.fits.parameters import check_names
from lme4py.formula.several import RESPONSE, several_responses
from lme4py.formula.values import Value
from lme4py.linalg.types import FloatArray

__all__ = ["mixed_fit", "read_families"]


def read_families(labels: Sequence[str], family: Any, link: Any) -> tuple[Family, ...]:
    """A family for each response.

    Parameters
    ----------
    labels : sequence of str
    family : str, Family, sequence or mapping of them
        One for all; or one for each, in their order or by their names.
    link : str, sequence or mapping, optional

    Raises
    ------
    OptionError
    """
    if family is None:
        raise OptionError("several responses need their families: family={'y1': 'gaussian', 'y2': 'binomial'}.")
    families, links = _each(labels, family, "family"), _each(labels, link, "link")
    for label, own in zip(labels, families, strict=True):
        if own is None:
            raise OptionError(f"`family` has none for the response {label!r}; give one, such as 'gaussian'.")
    return tuple(make_family(own, chosen) for own, chosen in zip(families, links, strict=True))


def _each(labels: Sequence[str], given: Any, what: str) -> list[Any]:
    if isinstance(given, Mapping):
        for name in given:
            if name not in labels:
                raise OptionError(
                    f"`{what}` names {name!r}, which is no response.{did_you_mean(str(name), labels)} They are "
                    f"{', '.join(labels)}."
                )
        return [given.get(label) for label in labels]
    if isinstance(given, list | tuple):
        if len(given) != len(labels):
            raise OptionError(f"`{what}` has {len(given)} values for {len(labels)} responses; give one for each.")
        return list(given)
    return [given] * len(labels)


def mixed_fit(
    formula: str,
    data: Any,
    family: Any,
    link: Any,
    options: Mapping[str, Any],
    fix: Mapping[str, Any] | None = None,
    fixed_only: bool = False,
    **how: Any,
) -> GeneralisedFit:
    """Fit a generalised model of several responses.

    Parameters
    ----------
    formula : str
        ``"mvbind(y1, y2) ~ x + (1 | id)"``.
    data : data frame
        Wide.
    family, link
        As `read_families` takes them.
    options : mapping
        weights, contrasts, na_action, functions.
    fix : mapping, optional
    fixed_only : bool
        Let the formula have no random effects.
    **how
        nAGQ, hessian, start, control.

    Returns
    -------
    GeneralisedFit
        Of long rows.
    """
    check_options(how["nAGQ"], how["hessian"])
    several = several_responses(read_formula(formula, read_frame(data).names))
    labels = () if several is None else several.labels
    joined = ByResponse.of(labels, read_families(labels, family, link))
    binary = [label for label, own in zip(labels, joined.families, strict=True) if own.has_trials]
    design, _ = several_design(formula, data, None, binary=binary, require_random=not fixed_only, **options)
    responses = design.responses
    assert responses is not None
    design = replace(design, response=_response(design, responses, joined))
    _refuse_rows_as_groups(design, joined)
    given = read_fix(fix)
    design = hold(design, given, residual=False).design
    check_names(design, joined)
    return glmm_fit(design, joined, **how)


def _response(design: Design, responses: BoundResponses, joined: ByResponse) -> Any:
    """The long response, that of each family checked by it."""
    codes = (design.columns or {})[RESPONSE].values.astype(np.intp)
    parts = []
    for k, (label, family) in enumerate(zip(responses.labels, joined.families, strict=True)):
        rows = codes == k
        weights: FloatArray | None = None if design.weights is None else design.weights[rows]
        if family.has_trials and weights is not None:
            raise OptionError(
                f"weights= would be numbers of trials for {label}, and weights of rows for other responses; give "
                "binomial responses as 0 and 1, or leave weights= out."
            )
        parts.append(family.coerce(Value("numeric", design.y[rows]), label, weights))
    return joined_data(parts, codes)


def _refuse_rows_as_groups(design: Design, joined: ByResponse) -> None:
    """Refuse an effect of every row beside responses that have a noise of their own."""
    noisy = [
        label
        for label, family in zip(joined.labels, joined.families, strict=True)
        if family.has_residual or family.has_trials or family.n_dispersion
    ]
    rows = int(design.keep.reshape(-1, len(joined.labels)).any(axis=1).sum())
    for term in design.terms:
        if noisy and term.n_levels >= rows:
            raise DesignError(
                f"{term.label} has an effect for every row of the data, which cannot be told from the variation that "
                f"{', '.join(noisy)} has of its own; take the term out, or group by something with several rows"
            )


def response_view(fit: GeneralisedFit, k: int) -> GeneralisedFit:
    """One of several responses as a fit of its family, with the coefficients, effects and rows of the whole.

    It is for means and predictors of rows of this response, and their errors; the engine's side is that of the whole
    fit.

    Parameters
    ----------
    fit : GeneralisedFit
        Of several responses.
    k : int
        Number of the response.
    """
    joined = fit.family
    assert isinstance(joined, ByResponse)
    family = joined.families[k]
    own = np.atleast_1d(joined.lam_of(fit.lam, k))[: family.n_nuisance]
    return replace(
        fit,
        family=family,
        others=tuple(own[: own.size - family.n_dispersion].tolist()),
        log_dispersion=float(own[-1]) if family.n_dispersion else None,
        log_dispersion_se=None,
    )
