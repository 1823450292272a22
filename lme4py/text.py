"""Results that say what they are in one sentence."""

from __future__ import annotations

from html import escape

__all__ = ["Sentence"]


class Sentence:
    """Shows ``str()`` of a result in a notebook; `repr` keeps all its fields."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"
