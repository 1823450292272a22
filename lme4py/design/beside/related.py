"""Grouping factors whose levels have a known covariance (``relmat=``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.covariance.relations.known import find_relation, match_labels
from lme4py.covariance.relations.relation import Relation
from lme4py.design.random import Grouping, IntArray
from lme4py.errors import OptionError, did_you_mean

__all__ = ["Relations", "level_variance", "read_relations", "refuse_related", "related"]

Relations = Mapping[str, tuple[tuple[Any, ...], Relation]]


def read_relations(relmat: object, groups: Sequence[str]) -> Relations:
    """The known covariances by grouping factor.

    Parameters
    ----------
    relmat : mapping or None
        As a user gives it.
    groups : sequence of str
        Grouping factors of the model.

    Raises
    ------
    OptionError
        Not a dict, or of a factor that the model does not have.
    DataError
        A matrix that is no covariance matrix of labelled levels.
    """
    if relmat is None:
        return {}
    if not isinstance(relmat, Mapping):
        raise OptionError(
            f"`relmat` is of type {type(relmat).__name__}; give a dict from a grouping factor to the covariance of its "
            'levels, such as {"animal": K}.'
        )
    for name in relmat:
        if name not in groups:
            raise OptionError(
                f"relmat names {name!r}, which is no grouping factor of the formula.{did_you_mean(str(name), groups)} "
                f"They are {', '.join(groups) or 'none'}."
            )
        if ":" in name:
            raise OptionError(
                f"relmat names {name!r}, an interaction, whose levels come and go with the data; make one column of it "
                "and group by that."
            )
    return {name: find_relation(given, name) for name, given in relmat.items()}


def related(grouping: Grouping, codes: IntArray, relations: Relations) -> tuple[Grouping, IntArray]:
    """The grouping factor with all levels of its known covariance, and the level of each row among them.

    Parameters
    ----------
    grouping : Grouping
        Of the levels that occur.
    codes : ndarray of int, shape (n,)
    relations : Relations

    Raises
    ------
    DataError
        A level of the data that the covariance does not have.
    """
    if grouping.name not in relations:
        return grouping, codes
    known, relation = relations[grouping.name]
    labels = match_labels(known, grouping.levels, grouping.name)
    place = {label: i for i, label in enumerate(labels)}
    table = np.array([place[level] for level in grouping.levels], dtype=codes.dtype)
    return replace(grouping, parts=(labels,), levels=labels, relation=relation), table[codes]


def level_variance(grouping: Grouping, codes: IntArray) -> float:
    """Mean of the diagonal of the known covariance over the rows; 1 where the levels are independent."""
    return 1.0 if grouping.relation is None else float(grouping.relation.variances[codes].mean())


def refuse_related(relmat: object, what: str) -> None:
    """Refuse known covariances where a model cannot have them.

    Parameters
    ----------
    relmat : object
        None where there are none.
    what : str
        Which models, as in "models with correlated residuals".
    """
    if relmat is not None:
        raise OptionError(f"{what} take no relmat=; leave it out, or the option that it does not go with.")
