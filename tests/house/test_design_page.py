"""The page on the layout says what is so: its rooms are the rooms, its paths exist, its recipes hold."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from lme4py import lmer, load_dataset
from lme4py.docstrings import carries
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.results import MEGLMResult, MixedResult
from lme4py.tables.shown import Shown, facts

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
PACKAGE = ROOT / "lme4py"

pytestmark = pytest.mark.skipif(not TEXT, reason="the documentation is not beside the package")


def _cells() -> list[str]:
    table = TEXT.partition("| room |")[2].partition("\n\n")[0]
    return [row.split("|")[1] for row in table.splitlines()[2:]]


def test_the_table_lists_every_room_and_nothing_else():
    listed = {name.rstrip("/") for cell in _cells() for name in re.findall(r"`([\w/.]+)`", cell)}
    rooms = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    # `inference/` and `engine/` are described by their rooms, which are listed by name or beside them.
    open_rooms = {room for room in rooms if room.split("/")[0] in ("inference", "margins")}
    engine = {"engine/optimise.py", "certificate.py", "threads.py"}
    assert rooms - open_rooms - {"engine", "report"} <= listed | {"inference", "margins"}
    assert modules <= listed
    assert listed - engine <= rooms | modules


def test_the_rooms_of_inference_and_margins_are_named():
    for room in ("inference", "margins"):
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{room}/`"))
        inner = {path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")}
        assert inner <= set(re.findall(r"`(\w+)`", row)), room


def test_every_path_exists():
    paths = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|md))`", TEXT))
    assert paths
    missing = [path for path in paths if not (ROOT / path).exists() and not (PACKAGE / path).exists()]
    assert not missing


def test_the_line_of_the_classes_of_results():
    line = next(line for line in TEXT.splitlines() if "->  MixedResult, MEGLMResult" in line)
    named = re.findall(r"[A-Z]\w+", line.partition("->  MixedResult")[0])
    for kind in (MixedResult, MEGLMResult):
        assert [base.__name__ for base in reversed(kind.__mro__)][1:-1] == named


# --- recipes that have no page of tests of their own ----------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Distance(Shown):
    """A result that prints itself, by the recipe."""

    distance: float

    def _tables(self):
        return [facts("Distance", [("from zero", f"{self.distance:.2f}")])]


def distance(fit: Fit) -> Distance:
    """Length of the scores at the estimates.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Distance
    """
    return Distance(float(abs(model_of(fit).variance_derivatives().jacobian).max()))


def test_an_inference_function_and_a_result_that_prints_itself():
    class Richer(MixedResult):
        @carries(distance)
        def distance(self):
            return distance(self.fit)

    result = Richer(lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).fit)
    shown = result.distance()
    assert "from zero" in str(shown)
    assert "from zero" in shown._repr_html_()
    assert Richer.distance.__doc__.startswith("Length of the scores")
