"""What the user should know about how the labels of nested factors were read."""

from __future__ import annotations

from collections.abc import Sequence

from lme4py.design.design import Design
from lme4py.errors import DesignError

__all__ = ["crossed_hint", "nesting_notes"]


def crossed_hint(chains: Sequence[Sequence[str]]) -> str:
    """A sentence for errors of models with nested factors; empty where none are."""
    chain = next((chain for chain in chains if len(chain) > 1), None)
    if chain is None:
        return ""
    return f" `group` reads {chain[1]!r} as nested in {chain[0]!r}; if the factors are crossed, give crossed=True."


def nesting_notes(chains: Sequence[Sequence[str]], design: Design) -> list[str]:
    """Say how labels of inner factors were read; refuse what only crossed factors look like.

    Whether labels that occur in several outer groups are groups of their own cannot be seen in the data (the casks a, b
    and c of each batch), unless every combination has a single row: these would be residuals, not groups.

    Parameters
    ----------
    chains : sequence of sequences of str
        Nested factors, outer to inner.
    design : Design

    Raises
    ------
    DesignError
    """
    found = {bar.grouping.name: bar.grouping for bar in design.recipe.bars}
    notes = []
    for chain in chains:
        for depth in range(1, len(chain)):
            outer, inner = ":".join(chain[:depth]), chain[depth]
            grouping = found[":".join(reversed(chain[: depth + 1]))]
            groups, labels = len(grouping.levels), len(grouping.parts[0])
            if groups == labels:
                continue
            if groups == design.n_obs:
                raise DesignError(
                    f"the {labels} levels of {inner!r} occur in several levels of {outer!r}, and each of the {groups} "
                    f"combinations has one row.{crossed_hint(chains)}"
                )
            notes.append(
                f"The {labels} labels of {inner} occur in several levels of {outer} and are read as {groups} groups "
                "nested in them; give crossed=True if a label means the same group everywhere."
            )
    return notes
