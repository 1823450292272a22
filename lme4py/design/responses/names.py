"""Names of coefficients of several responses: ``y1: x``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lme4py.design.design import RandomTerm
from lme4py.design.fixed import FixedPart
from lme4py.design.responses.responses import BoundResponses
from lme4py.formula.several import RESPONSE

__all__ = ["named_parts"]


def named_parts(
    responses: BoundResponses, fixed: FixedPart, terms: Sequence[RandomTerm]
) -> tuple[FixedPart, tuple[RandomTerm, ...]]:
    """The fixed part and the terms with names that begin with the response.

    Parameters
    ----------
    responses : BoundResponses
    fixed : FixedPart
    terms : sequence of RandomTerm
    """

    def renamed(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(responses.renamed(name) for name in names)

    labels = tuple(label.removeprefix(f"{RESPONSE}:") for label in fixed.labels)
    part = replace(fixed, names=renamed(fixed.names), dropped=renamed(fixed.dropped), labels=labels)
    return part, tuple(replace(term, columns=renamed(term.columns)) for term in terms)
