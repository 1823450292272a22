"""Values of expressions on the rows of a design."""

from __future__ import annotations

from collections.abc import Callable

from lme4py.design.beside.given import column_getter
from lme4py.design.design import Design
from lme4py.errors import DataError
from lme4py.formula.deparse import deparse
from lme4py.formula.evaluate import evaluate
from lme4py.formula.nodes import Node
from lme4py.formula.values import Value

__all__ = ["Reader", "reader_of"]

Reader = Callable[[Node], Value]


def reader_of(design: Design) -> Reader:
    """What evaluates expressions on the rows used.

    Parameters
    ----------
    design : Design
        Whose columns hold all variables.
    """
    get = column_getter(design.columns or {})
    functions = design.recipe.functions

    def read(node: Node) -> Value:
        value = evaluate(node, get, {}, functions=functions, formula=deparse(node))
        if value.refusal:
            raise DataError(value.refusal)
        return value

    return read
