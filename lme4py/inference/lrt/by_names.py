"""Is one model a special case of another where neither has its rows any more?

Two models of the same rows of the same source have the same columns and groups under the same names, so names decide:
this recognises fewer nested models than the rows would, and never one that is not nested.
"""

from __future__ import annotations

import numpy as np

from lme4py.covariance import TangentCone
from lme4py.design.design import Design, RandomTerm
from lme4py.inference.lrt.nesting import Embedding
from lme4py.linalg.types import FloatArray

__all__ = ["embed_by_names", "same_rows"]

# Sums of the same numbers in another order.
_ROUNDING = 1e-9


def same_rows(a: Design, b: Design) -> str:
    """Why two designs without rows cannot be of the same rows, or "".

    Parameters
    ----------
    a, b : Design
    """
    if a.streamed is None or b.streamed is None:
        return (
            "the rows of one model are in memory and those of the other were streamed, so that they cannot be "
            "compared; fit both in the same way, such as with control={'rows': 'memory'}."
        )
    if a.response_name != b.response_name:
        return f"the models have different responses ({a.response_name} and {b.response_name})."
    for name in ("weights", "offset"):
        own = [getattr(design.recipe, name) for design in (a, b)]
        texts = [None if one is None else one.text for one in own]
        if texts[0] != texts[1]:
            return f"the models have different {name}: they are not nested. Use the same {name} in both."
    n = a.streamed.n_obs
    for name, (total, squares) in a.streamed.sums.items():
        other = b.streamed.sums.get(name)
        if other is not None and not abs(other[0] - total) <= _ROUNDING * np.sqrt(n * max(squares, other[1])):
            return f"the models were fitted to other rows: the sums of {name!r} differ. Fit both to the same rows."
    return ""


def embed_by_names(full: Design, restricted: Design, covariances: tuple[FloatArray, ...]) -> Embedding | None:
    """Write the restricted model's random effects as those of the full one; None where names do not show how.

    Parameters
    ----------
    full, restricted : Design
    covariances : tuple of ndarray
        Estimates of the restricted model.
    """
    generic = [np.zeros((term.n_columns, term.n_columns)) for term in full.terms]
    values = [own.copy() for own in generic]
    taken: list[set[str]] = [set() for _ in full.terms]
    for term, covariance in zip(restricted.terms, covariances, strict=True):
        home = _home(term, full.terms, taken)
        if home is None:
            return None
        large = full.terms[home]
        taken[home] |= set(term.columns)
        place = np.ix_(*[[large.columns.index(name) for name in term.columns]] * 2)
        generic[home][place], values[home][place] = term.structure.covariance(term.structure.generic()), covariance
    if not all(_can_be(term, own) for term, own in zip(full.terms, generic, strict=True)):
        return None
    cones = tuple(_cone(own, term) for own, term in zip(generic, full.terms, strict=True))
    return Embedding(cones, tuple(values), True)


def _home(term: RandomTerm, full: tuple[RandomTerm, ...], taken: list[set[str]]) -> int | None:
    for t, other in enumerate(full):
        own = set(term.columns)
        if other.group == term.group and own <= set(other.columns) and not own & taken[t] and other.relation is None:
            linear = other.structure.linear and term.structure.linear
            if linear or (term.columns == other.columns and term.structure.nested_in(other.structure)):
                return t
    return None


def _can_be(term: RandomTerm, covariance: FloatArray) -> bool:
    """Whether a typical covariance of the restricted terms is one of the full term."""
    if not term.structure.linear:
        return True
    basis = np.array([E.ravel() for E in term.structure.span_basis()]).T
    rest = covariance.ravel() - basis @ np.linalg.lstsq(basis, covariance.ravel(), rcond=None)[0]
    return bool(np.linalg.norm(rest) <= 1e-9 * max(float(np.linalg.norm(covariance)), 1e-300)) or not covariance.any()


def _cone(covariance: FloatArray, term: RandomTerm) -> TangentCone:
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.where(values > 1e-9 * max(float(values[-1]), 0.0), values, 0.0))
    return term.structure.cone(term.structure.theta_of_factor(root))
