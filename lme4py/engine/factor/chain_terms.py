"""Which term of a design is a chain of so many times that it is fitted by its sparse inverse, and its levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from lme4py.covariance.chain import SharedSteps
from lme4py.covariance.chain_levels import ChainLevels
from lme4py.covariance.kinds.scaled import Homogeneous
from lme4py.covariance.relations.chains import ChainLayout
from lme4py.covariance.relations.relation import Relation
from lme4py.design.design import Design, RandomTerm
from lme4py.engine.factor.crossproducts import Factor
from lme4py.engine.factor.forecast import LONG_TERM
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["LONG", "ChainTerm", "Varying", "find_chain", "levels_of"]

# Terms of so many times are fitted by their sparse inverse.
LONG = LONG_TERM
# Times of one group from which correlation, variance and noise of the rows are told apart.
_LEAST = 3


class Varying(Relation):
    """Stands for a relation that depends on parameters where these are not known: it has no numbers."""

    def __init__(self, levels: ChainLevels) -> None:
        self.levels = levels
        self.n_levels = levels.layout.size

    _kept = ("levels", "n_levels")

    def _refuse(self) -> NoReturn:
        self.levels.refuse("this number")

    def times(self, x: FloatArray) -> FloatArray:
        self._refuse()

    def root(self, z: FloatArray) -> FloatArray:
        self._refuse()

    def root_transposed(self, x: FloatArray) -> FloatArray:
        self._refuse()

    def solve_root(self, x: FloatArray) -> FloatArray:
        self._refuse()

    @property
    def log_det(self) -> float:
        self._refuse()

    @property
    def variances(self) -> FloatArray:
        return np.ones(self.n_levels)

    @property
    def matrix(self) -> FloatArray:
        self._refuse()


@dataclass(frozen=True)
class ChainTerm:
    """A chain among the terms of a design.

    Attributes
    ----------
    term : int
        Its position.
    levels : ChainLevels
    codes : ndarray of int, shape (n,)
        Level of each row: a pair of a group and a time.
    values : ndarray, shape (n,)
        What the effect of that level is multiplied by in the row.
    """

    term: int
    levels: ChainLevels
    codes: IntArray
    values: FloatArray

    def factor(self, name: str) -> Factor:
        """The grouping factor of its levels.

        Parameters
        ----------
        name : str
            For messages.
        """
        relation: Any = Varying(self.levels)
        return Factor(name, self.levels.layout.size, 1, (self.term,), (slice(None),), relation)


def find_chain(design: Design) -> ChainTerm | None:
    """The longest chain of the design that is fitted by its sparse inverse; None where there is none.

    Parameters
    ----------
    design : Design
    """
    own = [t for t, term in enumerate(design.terms) if _is_long(term)]
    if not own or design.priors is not None or any(term.relation is not None for term in design.terms):
        return None
    longest = max(own, key=lambda t: design.terms[t].n_columns)
    return levels_of(design.terms[longest], longest)


def _is_long(term: RandomTerm) -> bool:
    structure = term.structure
    if term.n_columns < LONG or term.parts or not isinstance(structure, Homogeneous):
        return False
    return isinstance(structure.correlation, SharedSteps)


def levels_of(term: RandomTerm, position: int) -> ChainTerm | None:
    """Levels of a term of which each row has one time; None of another one, or of too few times for its parameters.

    Parameters
    ----------
    term : RandomTerm
    position : int
        Of the term in the design.
    """
    column = np.abs(term.values).argmax(axis=1)
    values = np.take_along_axis(term.values, column[:, None], axis=1)[:, 0]
    if np.count_nonzero(term.values) != values.size or not values.all():
        return None
    k = term.n_columns
    pairs, codes = np.unique(term.codes.astype(np.intp) * k + column, return_inverse=True)
    layout = ChainLayout.of(pairs // k, pairs % k, term.structure.places, term.n_levels)
    whole = term.structure
    assert isinstance(whole, Homogeneous)
    return (
        ChainTerm(position, ChainLevels(1, whole=whole, layout=layout), codes, values)
        if layout.longest >= _LEAST
        else None
    )
