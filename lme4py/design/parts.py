"""Further linear predictors of a model: the columns of a one-sided formula on the rows that the model uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.beside.related import Relations
from lme4py.design.design import Design, Predictor, RandomTerm
from lme4py.design.fixed import fixed_part, make_variables, name_of, used_variables, without_intercept
from lme4py.design.names import ColumnNames
from lme4py.design.recipe import Recipe, new_fixed, offset_values
from lme4py.design.rows import UsedRows
from lme4py.design.terms import random_terms
from lme4py.errors import FormulaError, OptionError
from lme4py.families.response import PartRows, ResponseData
from lme4py.formula.nodes import Formula, Node
from lme4py.formula.values import Value, check_finite

__all__ = ["DIFFERENCES", "new_parts", "ordinal_formulas", "part_formulas", "part_text", "with_parts"]

# Parts that say how rows differ from what other parameters hold: thresholds, and a scale of one.
DIFFERENCES: Final = frozenset({"nominal", "scale"})


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


def ordinal_formulas(formula: Any, nominal: str | None, scale: str | None) -> dict[str, str]:
    """Formulas of the parts of a model of ordered categories by their names.

    Parameters
    ----------
    formula : str
        That of the model.
    nominal, scale : str or None

    Raises
    ------
    FormulaError
        A part has random effects, an offset beside thresholds, or no intercept.
    """
    given = (("nominal", nominal), ("scale", scale))
    return {name: part_text(text, name, str(formula)) for name, text in given if text is not None}


def check_differences(name: str, parsed: Formula) -> None:
    """Refuse what a part of differences cannot have.

    Parameters
    ----------
    name : str
    parsed : Formula
    """
    if name not in DIFFERENCES:
        return
    if parsed.bars:
        raise FormulaError(
            f"{name}= has fixed effects only, and {parsed.bars[0].label} is a random effect; put it in the formula of "
            "the model."
        )
    if not parsed.fixed.intercept:
        held = "thresholds" if name == "nominal" else "thresholds, in units of a scale of one,"
        raise FormulaError(f"{name}= takes the intercept out, which the {held} hold; write {name}='~ x'.")
    if not parsed.fixed.terms:
        raise FormulaError(f"{name}= names no variable; leave it out, or write {name}='~ x'.")
    if name == "nominal" and parsed.fixed.offsets:
        raise FormulaError("nominal= cannot hold an offset(): thresholds have no common one; put it in the formula.")


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
    check_differences(name, parsed)
    variables = make_variables(used_variables(parsed.fixed), values, {})
    names = ColumnNames()
    names.add(parsed.fixed, variables, f"the {name} part")
    fixed = fixed_part(parsed.fixed, variables, values, rows.n)
    if name in DIFFERENCES:
        fixed = without_intercept(fixed)
    terms, bars = random_terms(parsed, values, rows, fixed, names, relations, recipe.state)
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
