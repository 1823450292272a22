"""The columns of a design as a data frame, and data frames with more columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.design import Design
from lme4py.errors import OptionError
from lme4py.formula.deparse import names_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of", "pandas_column", "table_of", "with_columns"]


def with_columns(data: Any, frame: Frame, columns: Mapping[str, Any]) -> Any:
    """The user's data with other columns, as something that `lformula` reads.

    Parameters
    ----------
    data : data frame
    frame : Frame
        The same data.
    columns : mapping of str to array
    """
    if not columns:
        return data
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data.assign(**columns)
    known = {name: _again(frame, name) for name in frame.names if name not in columns}
    return pd.DataFrame({**known, **columns}, index=frame.index)


def _again(frame: Frame, name: str) -> Any:
    return pandas_column(frame.column(name))


def pandas_column(column: Column) -> Any:
    """The values of a column as pandas has them: numbers, booleans, text, or a categorical.

    Parameters
    ----------
    column : Column
    """
    import pandas as pd

    if column.is_factor:
        kind = pd.CategoricalDtype(list(column.levels), ordered=column.kind == "ordered")
        values = pd.Categorical.from_codes(column.values.astype(np.intp), dtype=kind)
        return values if column.kind in ("factor", "ordered") else np.asarray(values, dtype=object)
    if column.kind == "boolean" and not column.missing().any():
        return column.values.astype(bool)
    return column.values


def table_of(design: Design) -> pd.DataFrame:
    """All columns of a design on the rows used, those of the response too: they may hold the numbers of trials.

    Parameters
    ----------
    design : Design

    Raises
    ------
    OptionError
        The design does not keep its columns.
    """
    import pandas as pd

    if not design.columns:
        raise OptionError(
            "this model does not hold the columns of its data; make it with lmer(), glmer(), clmm() or make_model()."
        )
    return pd.DataFrame({name: pandas_column(column) for name, column in design.columns.items()})


def frame_of(design: Design) -> pd.DataFrame:
    """The columns of a design on the rows used, without those of the response alone.

    Parameters
    ----------
    design : Design

    Raises
    ------
    OptionError
        The design does not keep its columns.
    """
    formula = design.recipe.formula
    own = set() if formula.response is None else set(names_in(formula.response))
    others = _others(design)
    whole = table_of(design)
    table = whole[[name for name in whole if name not in own or name in others]]
    table.index = design.index[design.keep]
    return table


def _others(design: Design) -> set[str]:
    """Columns that stand elsewhere than in the response."""
    recipe = design.recipe
    nodes = [*recipe.formula.fixed.variables, *recipe.offsets]
    for bar in recipe.formula.bars:
        nodes += [*bar.terms.variables, *bar.group]
    if recipe.weights is not None and recipe.weights.node is not None:
        nodes.append(recipe.weights.node)
    for part in design.part_recipes:
        nodes += [*part.formula.fixed.variables, *part.formula.fixed.offsets]
    return {name for node in nodes for name in names_in(node)}
