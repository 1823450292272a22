"""Generalised models of many responses of one design, fitted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.data.frame import read_frame
from lme4py.design.build import lformula
from lme4py.design.design import Design
from lme4py.errors import Lme4Error
from lme4py.families.registry import Family, make_family
from lme4py.fits.generalised.together import GeneralisedTogether, fits_of_responses, generalised_together
from lme4py.linalg.types import FloatArray
from lme4py.study.block import BlockOfFits, FitNumbers, VarianceColumn
from lme4py.study.columns import with_columns
from lme4py.study.responses import NamedResponses

__all__ = ["ManyGeneralised", "generalised_fits"]

_OF_DESIGN = frozenset(("weights", "offset", "contrasts", "functions", "na_action"))
_OPTIONS = _OF_DESIGN | {"family", "link", "hessian", "nAGQ"}
# Responses that are tried for one that gives a design.
_TRIES = 20
# Rows times responses of one block: arrays of this size stay in the cache.
_NUMBERS, _MOST = chunk(200_000, 4000), chunk(1000)


@dataclass(frozen=True)
class ManyGeneralised:
    """What fits many responses of a generalised model at once.

    Attributes
    ----------
    together : GeneralisedTogether
    ddf : str
        "normal" or "residual".
    """

    together: GeneralisedTogether
    ddf: str

    def size(self, n_rows: int) -> int:
        """Responses of one block."""
        return max(1, min(_MOST, _NUMBERS // max(n_rows, 1)))

    def fits(self, names: Sequence[Any], Y: FloatArray) -> tuple[BlockOfFits | None, list[int]]:
        """The fits to some responses, and the places of those that have to be fitted by themselves."""
        design = self.together.design
        found = fits_of_responses(self.together, Y[design.keep], names)
        done = set(found.rows.tolist())
        rest = [i for i in range(len(names)) if i not in done]
        if not done:
            return None, rest
        term = design.terms[0]
        numbers = FitNumbers(
            [names[i] for i in found.rows],
            design.x_names,
            design.n_obs,
            found.beta,
            found.std_error,
            np.full(found.beta.shape, np.inf if self.ddf == "normal" else float(design.n_obs - found.beta.shape[1])),
            [VarianceColumn(term.group, term.columns[0], None, found.sd**2, found.sd)],
            found.sigma,
            found.criterion,
            -0.5 * found.criterion,
            found.gradient_norm,
            found.singular,
        )
        return BlockOfFits.of_numbers(numbers), rest


def generalised_fits(
    formula: str, data: Any, responses: NamedResponses, options: Mapping[str, Any], ddf: str | None
) -> ManyGeneralised | None:
    """What fits the responses at once; None where each has to be fitted by itself.

    Parameters
    ----------
    formula : str
        Without a response.
    data : data frame
    responses : NamedResponses
    options : mapping
        Of `glmer`, `family` among them.
    ddf : str or None
    """
    if set(options) - _OPTIONS or options.get("nAGQ", 1) != 1 or ddf not in (None, "normal", "residual"):
        return None
    family = make_family(options["family"], options.get("link"))
    for name in responses.names[:_TRIES]:
        design = _design(formula, data, responses.columns([name])[:, 0], family, options)
        if design is not None:
            together = None if design.smooth_terms else _together(design, family, options)
            return None if together is None else ManyGeneralised(together, "normal" if ddf is None else ddf)
    return None


def _design(formula: str, data: Any, values: FloatArray, family: Family, options: Mapping[str, Any]) -> Design | None:
    """The design of a response without missing values; None where the response is none of the family."""
    if not np.isfinite(values).all():
        return None
    frame = read_frame(data)
    name = next(f"response{i or ''}" for i in range(10**6) if f"response{i or ''}" not in frame.names)
    given = {key: value for key, value in options.items() if key in _OF_DESIGN}
    try:
        return lformula(f"{name} {formula.strip()}", with_columns(data, frame, {name: values}), family=family, **given)
    except Lme4Error:
        return None


def _together(design: Design, family: Family, options: Mapping[str, Any]) -> GeneralisedTogether | None:
    try:
        return generalised_together(design, family, options.get("hessian", "observed"))
    except Lme4Error:
        return None
