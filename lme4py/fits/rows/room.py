"""What a linear model of streamed rows keeps in memory, beside the limit that the user gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lme4py.chunks import chunk
from lme4py.data.sources.base import RowSource
from lme4py.design.build import model_nodes, read_formula
from lme4py.engine.factor.crossproducts import CrossProducts, Factor
from lme4py.engine.factor.forecast import size_words
from lme4py.errors import OptionError
from lme4py.formula.deparse import names_in, walk
from lme4py.formula.evaluate import LEARNERS
from lme4py.formula.nodes import Call

__all__ = ["Room"]

# Part of the memory that a block of rows may take, with what is made of it.
_BLOCK = 0.25
# Arrays of the rows of a block, for each column that the formula names, that are alive at one time.
_ARRAYS = 12
# Copies of the sums of levels, and of pairs of them, from the first sums to the equations.
_COPIES = 6
# Fewer rows at a time cost more than they spare.
_FEWEST = chunk(4096)


@dataclass(frozen=True)
class Room:
    """Memory that a fit may take.

    Attributes
    ----------
    limit : float or None
        Bytes; None where nobody asked.
    """

    limit: float | None

    def blocks_of(self, source: RowSource, formula: str) -> RowSource:
        """The source in blocks that fit.

        Parameters
        ----------
        source : RowSource
        formula : str

        Raises
        ------
        OptionError
            Columns that functions learn from, which are held whole, do not fit.
        """
        if self.limit is None:
            return source
        names = source.schema().names
        nodes = model_nodes(read_formula(formula, names))
        held = {name for node in nodes if _learns(node) for name in names_in(node, names) if name in names}
        if held:
            n = source.count()
            self._refuse(
                8.0 * len(held) * (n or 0),
                f"{', '.join(sorted(held))} inside functions that learn from all rows ({n:,} of them)" if n else "",
            )
        used = {name for node in nodes for name in names_in(node, names) if name in names}
        return source.in_blocks(max(_FEWEST, int(_BLOCK * self.limit / (8.0 * _ARRAYS * max(len(used), 1)))))

    def check_levels(self, factors: Iterable[Factor], n_fixed: int) -> None:
        """Refuse levels whose sums do not fit.

        Parameters
        ----------
        factors : iterable of Factor
        n_fixed : int
            Columns of the fixed effects.
        """
        factors = tuple(factors)
        need = sum(factor.size * (factor.n_columns + n_fixed + 1.0) for factor in factors)
        self._refuse(8.0 * _COPIES * need, f"sums for the levels of {_names(factors)}")

    def check_pairs(self, factors: Iterable[Factor], cross: CrossProducts) -> None:
        """Refuse pairs of levels of crossed factors that do not fit.

        Parameters
        ----------
        factors : iterable of Factor
        cross : CrossProducts
        """
        factors = tuple(factors)
        need = sum(edges.values.size for edges in cross.edges.values())
        self._refuse(8.0 * _COPIES * need, f"pairs of levels of {_names(factors)} that occur together")

    def _refuse(self, need: float, what: str) -> None:
        if self.limit is not None and need > (1.0 - _BLOCK) * self.limit:
            raise OptionError(
                f"{what} take about {size_words(need)}, and control['memory_limit'] allows {size_words(self.limit)}; "
                "allow more, or leave one of these terms out."
            )


def _learns(node: object) -> bool:
    return any(isinstance(part, Call) and part.function in LEARNERS for part in walk(node))  # type: ignore[arg-type]


def _names(factors: tuple[Factor, ...]) -> str:
    return ", ".join(f"{factor.name} ({factor.n_levels:,})" for factor in factors)
