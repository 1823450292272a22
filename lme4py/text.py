"""Results that say what they are in one sentence."""

from __future__ import annotations

from html import escape

__all__ = ["Sentence"]


class Sentence:
    """A result whose `repr` is its sentence, in a terminal and in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"
