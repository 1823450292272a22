"""Models of unordered categories: designs with a copy of every column for each category, and what separates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.design.joint import joint_design
from lme4py.engine.identification.recession import Recession, recession_directions
from lme4py.errors import DesignError, OptionError
from lme4py.families.base import Family
from lme4py.families.categories.multinomial import Multinomial
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["joined_categories", "joint_name", "refuse_beside_joint", "refuse_separated", "with_baseline"]

# Categories that are this unlikely in a row do not hold its linear predictor any more.
_STILL = 1e-3


def with_baseline(family: Family, baseline: object) -> Family:
    """The family with the category that the others are compared with.

    Parameters
    ----------
    family : Family
    baseline : object

    Raises
    ------
    OptionError
    """
    if baseline is None:
        return family
    if not isinstance(family, Multinomial):
        raise OptionError(f"baseline={baseline!r} is for family='multinomial'; leave it out.")
    return replace(family, baseline=baseline)


def joint_name(family: Family) -> str | None:
    """Name of a family whose rows are not compressed; None for others."""
    return family.name if family.is_joint else None


def refuse_beside_joint(family: Family, given: Mapping[str, Any]) -> None:
    """Refuse arguments that models of several categories do not have.

    Parameters
    ----------
    family : Family
    given : mapping of str to object
    """
    for name, value in given.items():
        if value is not None:
            raise family.lacks(f"{name}=")


def joined_categories(design: Design, family: Family) -> tuple[Design, Family]:
    """The design and the family of the categories of a response; other families as they are.

    Parameters
    ----------
    design : Design
    family : Family
    """
    if not isinstance(family, Multinomial) or design.response is None:
        return design, family
    whole = replace(family, categories=tuple(design.response.categories or ()))
    return joint_design(design, whole.others, whole.homes), whole


def refuse_separated(fit: GeneralisedFit) -> None:
    """Refuse coefficients that go to infinity, naming them and their category.

    Along a direction d the likelihood of a row that shows y stays where (x_y - x_k)'d >= 0 for all other categories k.

    Parameters
    ----------
    fit : GeneralisedFit

    Raises
    ------
    DesignError
    """
    if not isinstance(fit.family, Multinomial) or not fit.beta.size:
        return
    rows, free = _contrasts(fit, fit.family)
    null = np.eye(fit.beta.size)
    held = rows[~free]
    if held.size:
        values, vectors = np.linalg.eigh(held.T @ held / max(float(np.abs(held).max()) ** 2, 1e-300))
        null = vectors[:, values <= 1e-12 * max(float(values[-1]), 1e-300)]
    if not null.shape[1] or not free.any():
        return
    found = recession_directions(rows[free], null, np.flatnonzero(free))
    if found is None:
        return
    space, cone, direction, moved = found
    names = fit.design.x_names
    recession = Recession(
        names, np.eye(len(names)), space, cone, space.T @ direction, moved.size, rows.shape[0], len(names)
    )
    raise DesignError(
        f"columns separate the categories: the likelihood has no maximum but rises as {recession.sentence}. Leave "
        "these columns out, or merge categories that are rare."
    )


def _contrasts(fit: GeneralisedFit, family: Multinomial) -> tuple[FloatArray, Any]:
    """x_y - x_k of every row and every other category, and which of these hardly hold the likelihood any more."""
    n, K = fit.design.n_obs, len(family.categories)
    p = fit.design.X.shape[1] // (K - 1)
    X = fit.design.X[:n, :p]
    size = np.maximum(np.abs(X).max(axis=0, initial=0.0), 1e-300)
    probabilities = family.probabilities(fit.data, fit.linear_predictor).T
    trial, code = _observed(fit)
    out, free = [], []
    for k in range(K):
        chosen = code != k
        rows, shown = trial[chosen], code[chosen]
        block = np.zeros((rows.size, K - 1, p))
        for place, sign in ((shown, 1.0), (np.full(rows.size, k), -1.0)):
            known = place > 0
            block[np.flatnonzero(known), place[known] - 1] += sign * (X / size)[rows[known]]
        out.append(block.reshape(rows.size, -1))
        free.append(probabilities[k, rows] <= _STILL)
    return np.concatenate(out), np.concatenate(free)


def _observed(fit: GeneralisedFit) -> tuple[IntArray, IntArray]:
    """Row and position of every category that some trial of a row had."""
    if fit.data.counts is not None:
        rows, codes = np.nonzero(fit.data.counts)
        return rows, codes
    return np.arange(fit.design.n_obs), fit.data.codes
