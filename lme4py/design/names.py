"""Every column of a model has a name of its own: two coefficients of one name could not be told apart in any table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lme4py.design.coding import Source, Variable, column_sources
from lme4py.errors import DataError
from lme4py.formula.nodes import Node, Terms

if TYPE_CHECKING:
    from lme4py.design.design import Design

__all__ = ["CONSTANT", "INTERCEPTS", "ColumnNames", "with_stata_names"]

CONSTANT = "_cons"
"""Name of the intercept in results of the keyword front door."""

INTERCEPTS = frozenset(("Intercept", CONSTANT))
"""Names that an intercept can have in a design."""

# Names that the intercept has in results, in those of the keyword front door, and in lme4's.
RESERVED = INTERCEPTS | {"(Intercept)"}


@dataclass
class ColumnNames:
    """Names that the parts of a model have used so far, and what they are made of.

    Attributes
    ----------
    sources : dict of str to tuple
        For each name the variables and endings that it stands for.
    """

    sources: dict[str, Source] = field(default_factory=dict)

    def add(self, terms: Terms, variables: Mapping[Node, Variable], where: str) -> None:
        """Take in the columns of one part; the same column may occur in several parts.

        Parameters
        ----------
        terms : Terms
        variables : mapping of Node to Variable
        where : str
            "the fixed effects", or the label of a random-effects term.

        Raises
        ------
        DataError
            A column of the data is called like the intercept, or two different columns would have one name.
        """
        own: set[str] = set()
        for name, source in column_sources(terms, variables):
            if source and name in RESERVED:
                raise DataError(
                    f"{where} hold{'' if where.endswith('s') else 's'} a column that is called like the intercept, "
                    f"{_listed(sorted(RESERVED))}: {name!r}; rename that column of the data"
                )
            if name in own or self.sources.setdefault(name, source) != source:
                other = self.sources[name]
                raise DataError(
                    f"two different columns of the model would be called {name!r}: {_described(other)} and "
                    f"{_described(source)}; rename a column of the data, so that each coefficient has its own name"
                )
            own.add(name)


def with_stata_names(design: Design) -> Design:
    """The design with the intercepts called ``_cons``.

    Parameters
    ----------
    design : Design
    """
    terms = tuple(replace(term, columns=_renamed(term.columns)) for term in design.terms)
    return design.with_terms(terms).with_predictor(names=_renamed(design.x_names))


def _renamed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(CONSTANT if name == "Intercept" else name for name in names)


def _described(source: Source) -> str:
    parts = [f"{ending} of {variable!r}" if ending else repr(variable) for variable, ending in source]
    return " times ".join(parts)


def _listed(names: Iterable[str]) -> str:
    words = [repr(name) for name in names]
    return f"{', '.join(words[:-1])} or {words[-1]}"
