"""The plot of a suite: every program's time over ours, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench_lines import Line, seconds

# Colours that people with colour-blindness tell apart, one for each program wherever it appears.
LOOKS = {
    "lme4": ("o", "#0072b2"),
    "glmmTMB": ("s", "#009e73"),
    "ordinal": ("o", "#0072b2"),
    "pbkrtest": ("s", "#009e73"),
    "emmeans": ("D", "#cc79a7"),
    "glmm": ("^", "#e69f00"),
    "mixedlm": ("v", "#cc79a7"),
    "statsmodels": ("D", "#d55e00"),
}


def plot_ratios(path: Path, lines: Sequence[Line], programs: Sequence[str], title: str, caption: str) -> bool:
    """Draw the ratios of a suite into a file.

    Parameters
    ----------
    path : Path
    lines : list of Line
    programs : list of str
    title, caption : str
        Above the plot; below it, versions, machine and date.

    Returns
    -------
    bool
        False where matplotlib is missing or there is no ratio.
    """
    points = {p: ratios_of(lines, p) for p in programs if p != "lme4py"}
    used = [line for line in lines if any(line.model.name in found for found in points.values())]
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed", flush=True)
        return False
    if not used:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.9 + 0.34 * len(used)), layout="constrained")
    places = {line.model.name: i for i, line in enumerate(used)}
    for program, found in points.items():
        if found:
            marker, colour = LOOKS[program]
            rows = [places[name] for name in found]
            axes.plot(list(found.values()), rows, marker, color=colour, label=program, alpha=0.9)
    axes.set_yticks(range(len(used)), [f"{line.model.name} ({seconds(line.runs['lme4py'].time)})" for line in used])
    _finish(axes, title)
    figure.supxlabel(caption, fontsize=7, color="0.35")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def ratios_of(lines: Sequence[Line], program: str) -> dict[str, float]:
    """Model -> ratio of one program's time to ours."""
    found = {}
    for line in lines:
        ratio = line.runs[program].ratio_to(line.runs["lme4py"]) if program in line.runs else None
        if ratio is not None:
            found[line.model.name] = ratio
    return found


def _finish(axes: object, title: str) -> None:
    """Axes, the line of equal times, and words that say which side is which."""
    from matplotlib.axes import Axes
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    assert isinstance(axes, Axes)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, 0.5), max(high, 2.0)
    axes.set_xlim(low, high)
    axes.axvline(1.0, color="0.3", linewidth=1)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if high / low < 500 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(len(axes.get_yticks()) - 0.5, -0.5)
    axes.grid(True, axis="both", which="major", alpha=0.25)
    axes.set_xlabel("time of the program / time of lme4py   (right of the line: lme4py is faster)")
    axes.set_title(title, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False)
