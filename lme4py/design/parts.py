"""Further linear predictors of a model: the columns of a one-sided formula on the rows that the model uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.fixed import fixed_part, make_variables, name_of, used_variables
from lme4py.design.names import ColumnNames
from lme4py.design.recipe import Recipe, new_fixed, offset_values
from lme4py.design.related import Relations
from lme4py.design.rows import UsedRows
from lme4py.design.terms import random_terms
from lme4py.errors import OptionError
from lme4py.families.response import PartRows, ResponseData
from lme4py.formula.nodes import Formula, Node
from lme4py.formula.values import Value, check_finite

__all__ = ["new_parts", "part_formulas", "part_text", "with_parts"]


def part_text(text: Any, argument: str, conditional: str) -> str:
    """The formula of a part; ``"~ ."`` is that of the conditional part.

    Parameters
    ----------
    text : object
        As the user gave it.
    argument : str
        "ziformula" or "dispformula".
    conditional : str
        The formula of the model.
    """
    if not isinstance(text, str) or "~" not in text or text.split("~", 1)[0].strip():
        raise OptionError(f"{argument}={text!r} is no formula without a response; write it as in {argument}='~ x'.")
    right = text.split("~", 1)[1].strip()
    left, own = (side.strip() for side in conditional.split("~", 1))
    # With the response, which a formula must have.
    return f"{left} ~ {own if right == '.' else right}"


def part_formulas(formula: Any, ziformula: str | None, dispformula: str | None) -> dict[str, str]:
    """Formulas of the further predictors by their names.

    Parameters
    ----------
    formula : str
        That of the model.
    ziformula, dispformula : str or None
    """
    given = (("zero_inflation", "ziformula", ziformula), ("dispersion", "dispformula", dispformula))
    return {name: part_text(text, argument, str(formula)) for name, argument, text in given if text is not None}


def with_parts(
    design: Design,
    parts: Mapping[str, tuple[Formula, dict[Node, Value]]],
    rows: UsedRows,
    relations: Relations | None = None,
) -> Design:
    """The design with further predictors, which the response knows too.

    Parameters
    ----------
    design : Design
    parts : dict of str to (Formula, dict of Node to Value)
        The formula of each predictor by its name, and the values of its variables.
    rows : UsedRows
    relations : Relations, optional
        Known covariances of levels, which are those of a grouping factor in all predictors.
    """
    if not parts or design.response is None:
        return design
    made = [_predictor(name, *own, rows, design.recipe, relations or {}) for name, own in parts.items()]
    predictors = tuple(predictor for predictor, _ in made)
    bars = (*design.recipe.bars, *(bar for _, recipe in made for bar in recipe.bars))
    return replace(
        design,
        predictors=(*design.predictors, *predictors),
        response=replace(design.response, parts=tuple(PartRows(p.name, p.X, p.offset) for p in predictors)),
        recipe=replace(design.recipe, bars=bars),
        part_recipes=tuple(recipe for _, recipe in made),
    )


def _predictor(
    name: str,
    parsed: Formula,
    values: dict[Node, Value],
    rows: UsedRows,
    recipe: Recipe,
    relations: Relations,
) -> tuple[Predictor, Recipe]:
    """The predictor of a part, and how to make its columns for new data."""
    variables = make_variables(used_variables(parsed.fixed), values, {})
    names = ColumnNames()
    names.add(parsed.fixed, variables, f"the {name} part")
    fixed = fixed_part(parsed.fixed, variables, values, rows.n)
    terms, bars = random_terms(parsed, values, rows, fixed, names, relations)
    offsets = [offset_values(values[node], name_of(node)) for node in parsed.fixed.offsets]
    total = np.sum(offsets, axis=0) if offsets else None
    if total is not None:
        check_finite(total, ["offset"], f"the {{name}} of the {name} part")
    own = replace(
        recipe,
        formula=parsed,
        variables=variables,
        kept=fixed.kept,
        bars=bars,
        offset=None,
        weights=None,
        null=fixed.null,
    )
    named = tuple(_named(term, name) for term in terms)
    predictor = Predictor(
        fixed.X, fixed.names, fixed.assign, fixed.labels, named, total, fixed.dropped, fixed.alias, name=name
    )
    return predictor, own


def _named(term: RandomTerm, part: str) -> RandomTerm:
    """The term under names that tell it from one of the conditional part."""
    columns = tuple(f"{part}: {column}" for column in term.columns)
    return replace(term, columns=columns, label=f"{part}: {term.label}", parts=(part,) * term.n_columns)


def new_parts(design: Design, frame: Frame, data: ResponseData) -> ResponseData:
    """A response without values that knows the further predictors of new rows.

    Parameters
    ----------
    design : Design
    frame : Frame
    data : ResponseData
        Trials and weights of the new rows.
    """
    rows = []
    for predictor, recipe in zip(design.predictors[1:], design.part_recipes, strict=True):
        X, offset = new_fixed(recipe, frame)
        rows.append(PartRows(predictor.name, X, offset))
    return replace(data, parts=tuple(rows))
