"""Plots as SVG inside a page: scaled to its width, in its colours, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

from lme4py.pictures import BLUE, GREY, LIGHT, ORANGE, pyplot

__all__ = ["figure"]

# Colours of the plots, and the variables of the page that stand for them.
_COLOURS = {
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    LIGHT: "var(--light)",
    GREY: "var(--grey)",
    "#000000": "currentColor",
    "#ebebeb": "var(--grid)",
    "#b3b3b3": "var(--axis)",
    "#b2b2b2": "var(--axis)",
}
# Lines and clouds of more points are drawn as an image.
_MOST_POINTS = 2000
_PIXELS_PER_POINT = 4 / 3
# Drawings up to this width in pixels, one panel, shrink to a telephone; wider ones to this share of their width.
_ONE_PANEL = 700.0
_SMALLEST = 0.7
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "lme4py", "font.family": "sans-serif"}


def figure(draw: Callable[[], Any], caption: str) -> str:
    """What a function draws, as a ``<figure>`` with a caption.

    Parameters
    ----------
    draw : callable
        Gives Axes, or an array of them.
    caption : str
    """
    plt = pyplot()
    with plt.rc_context(_SETTINGS):
        drawn = draw()
        first = drawn.flat[0] if hasattr(drawn, "flat") else drawn
        made = first.figure
        try:
            for axis in made.axes:
                for line in (*axis.lines, *axis.collections):
                    line.set_rasterized(_points(line) > _MOST_POINTS)
            text = io.StringIO()
            made.savefig(text, format="svg", transparent=True, dpi=150, metadata={"Date": None})
        finally:
            plt.close(made)
    return f"<figure>\n{_inline(text.getvalue(), caption)}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _points(line: Any) -> int:
    found = line.get_xdata() if hasattr(line, "get_xdata") else line.get_offsets()
    return len(found)


def _size(natural: float) -> str:
    """Style of a drawing of this width in pixels: one of several panels scrolls where its labels would be too small."""
    least = f"; min-width: {_SMALLEST * natural:.0f}px" if natural > _ONE_PANEL else ""
    return f"max-width: {natural:.0f}px{least}"


def _inline(svg: str, caption: str) -> str:
    """The drawing without the prolog of a file, its size that of the page, its colours those of the page."""
    body = svg[svg.index("<svg") :].strip()
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    opening, rest = body[: body.index(">") + 1], body[body.index(">") + 1 :]
    width = re.search(r' width="([\d.]+)pt"', opening)
    opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    size = _size(float(width[1]) * _PIXELS_PER_POINT) if width else ""
    opening = opening.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}" style="{size}"', 1)
    for colour, variable in _COLOURS.items():
        rest = re.sub(re.escape(colour), variable, rest, flags=re.IGNORECASE)
    return opening + rest
