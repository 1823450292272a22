"""Further linear predictors of a model: the columns of a one-sided formula on the rows that the model uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lme4py.data.frame import Frame
from lme4py.design.design import Design, Predictor
from lme4py.design.fixed import fixed_part, make_variables, used_variables
from lme4py.design.recipe import Recipe, new_fixed, offset_values
from lme4py.design.rows import UsedRows
from lme4py.errors import FormulaError, OptionError
from lme4py.families.response import PartRows, ResponseData
from lme4py.formula.nodes import Formula
from lme4py.linalg.types import FloatArray

__all__ = ["check_part", "new_parts", "part_formulas", "part_text", "predictor_of", "with_parts"]


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


def check_part(parsed: Formula, name: str) -> None:
    """Refuse what a part cannot have."""
    if parsed.bars:
        raise FormulaError(
            f"the {name} part '{parsed.text}' has random effects ({parsed.bars[0].label}), which further parts "
            "cannot have; leave them out."
        )


def predictor_of(
    name: str, parsed: Formula, rows: UsedRows, values: Mapping[Any, Any], state: dict[str, Any], functions: Any
) -> tuple[Predictor, Recipe]:
    """The predictor of a part, and how to make its columns for new data."""
    nodes = used_variables(parsed.fixed)
    variables = make_variables(nodes, values, {})
    fixed = fixed_part(parsed.fixed, variables, values, rows.n)
    total: FloatArray | None = None
    for node in parsed.fixed.offsets:
        own = offset_values(values[node], "offset")
        total = own if total is None else total + own
    columns = {key: (column.kind, column.levels) for key, column in rows.columns.items()}
    recipe = Recipe(parsed, state, columns, variables, fixed.kept, (), None, dict(functions), None, fixed.null)
    predictor = Predictor(
        fixed.X, fixed.names, fixed.assign, fixed.labels, (), total, fixed.dropped, fixed.alias, name=name
    )
    return predictor, recipe


def with_parts(design: Design, parts: list[tuple[Predictor, Recipe]]) -> Design:
    """The design with further predictors, which the response knows too.

    Parameters
    ----------
    design : Design
    parts : list of (Predictor, Recipe)
    """
    if not parts or design.response is None:
        return design
    rows = tuple(PartRows(p.name, p.X, p.offset) for p, _ in parts)
    return replace(
        design,
        predictors=(*design.predictors, *(p for p, _ in parts)),
        response=replace(design.response, parts=rows),
        part_recipes=tuple(recipe for _, recipe in parts),
    )


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
