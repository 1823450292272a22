"""Coefficients that a user holds at given values (``fix=``): known parts of the linear predictor.

The column of a coefficient that is held at b leaves X, and b times it joins the offset, in the recipe too, so that new
data, refits and tests have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lme4py.design.design import Design
from lme4py.errors import OptionError

__all__ = ["hold_columns"]


def hold_columns(design: Design, values: Mapping[str, float]) -> Design:
    """A design in which coefficients of the first predictor are held.

    Parameters
    ----------
    design : Design
    values : mapping of str to float
        Names of columns of X.

    Raises
    ------
    OptionError
        A column beside one that was left out because it depends on others: what is held is not determined.

    Examples
    --------
    >>> from lme4py.design.build import lformula
    >>> data = {"y": [1.0, 3.0, 2.0, 5.0], "x": [0.0, 1.0, 0.0, 1.0], "g": ["a", "a", "b", "b"]}
    >>> held = hold_columns(lformula("y ~ x + (1 | g)", data), {"x": 0.5})
    >>> held.x_names, held.offset
    (('Intercept',), array([0. , 0.5, 0. , 0.5]))
    """
    if not values:
        return design
    if design.dropped:
        raise OptionError(
            f"fix holds {', '.join(values)}, but {', '.join(design.dropped)} was left out because the columns before "
            "it determine it: it is not clear which coefficients these are; take it out of the formula."
        )
    names = list(design.x_names)
    places = [names.index(name) for name in values]
    coefficients = np.array(list(values.values()))
    free = [j for j in range(len(names)) if j not in places]
    known = design.X[:, places] @ coefficients
    recipe = design.recipe
    held = tuple(zip((recipe.kept[j] for j in places), coefficients.tolist(), strict=True))
    return replace(
        design.with_predictor(
            X=np.asfortranarray(design.X[:, free]),
            names=tuple(names[j] for j in free),
            assign=tuple(design.assign[j] for j in free),
            offset=known if design.offset is None else design.offset + known,
            held=tuple(values.items()),
        ),
        recipe=replace(recipe, kept=tuple(recipe.kept[j] for j in free), held=held),
    )
