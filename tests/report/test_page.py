"""The page of a report: whole, self-contained, right in its numbers, and honest about what it leaves out."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import lme4py
from lme4py.errors import OptionError
from lme4py.report.page.figures import figure
from lme4py.report.page.words import findings, headline, question

D = lme4py.load_dataset


class Checked(HTMLParser):
    """Every tag that is opened is closed, in order."""

    VOID = frozenset({"meta", "br", "path", "use", "image", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.headings, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.headings += [tag] if tag in ("h1", "h2") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def sleep():
    return lme4py.lmer("Reaction ~ Days + (Days | Subject)", D("sleepstudy"))


@pytest.fixture(scope="module")
def births():
    return lme4py.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", D("cbpp"), family="binomial")


@pytest.fixture(scope="module")
def page(sleep, tmp_path_factory):
    pytest.importorskip("matplotlib")
    path = sleep.report(tmp_path_factory.mktemp("page") / "sleep.html")
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_needs_no_network(page):
    found = Checked()
    found.feed(page)
    assert found.open == []
    assert found.headings == ["h1", *["h2"] * 7]
    sections = [one for one in found.ids if one in ("question", "found", "model", "estimates", "checks", "pictures")]
    assert len(sections) == 6
    assert not re.search(r'(?:src|href)="(?!#|data:)', page.replace("xlink:href", "href").replace('href="#', ""))
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_holds_the_numbers_of_the_fit(sleep, page):
    text = " ".join("".join(re.findall(r">([^<]*)<", page)).split())
    # Those of the summary, of the intervals and of the measures.
    for number in ("10.467", "1743.63", "612.09", "0.279", "0.799"):
        assert number in page, number
    lower, upper = sleep.conf_int().loc["Days"]
    assert f"10.47 higher (95 % interval {lower:.4g} to {upper:.4g}; p = 3.3e-06)" in text
    assert "25.59" in text
    assert page.count("<figure>") == 5


def test_the_same_fit_gives_the_same_page(sleep, page, tmp_path):
    again = sleep.report(tmp_path / "again.html").read_text(encoding="utf-8")
    # Names of clip paths and markers are salted, and there is no date.
    assert again == page


def test_words(sleep, births):
    assert question(sleep.fit) == (
        "How does Reaction depend on Days? Levels of Subject may differ in their level and in the effect of Days."
    )
    assert headline(sleep.fit) == "Linear mixed model, REML; 180 rows, all used; 18 levels of Subject."
    first = findings(births.fit)[0]
    ratio = np.exp(births.params["period[T.2]"])
    assert first.startswith(
        f"period 2, against the first level: the odds are multiplied by {ratio:.3g} (95 % interval "
    )


def test_interactions_are_not_read_as_effects_of_one_variable():
    fit = lme4py.lmer("score ~ Machine * x + (1 | Worker)", D("Machines").assign(x=np.arange(54) % 5)).fit
    assert "depend on Machine and x and on how Machine and x act together" in question(fit).replace(",", " and")
    lines = findings(fit)
    assert "interacts with" in lines[0]
    assert lines[-1].startswith("Interaction of Machine C and x: coefficient ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lme4py.clmm("rating ~ temp + (1 | judge)", D("wine")), ["odds of a higher category", "logit(P("]),
        (lambda: lme4py.mixed(D("Rail"), "travel", None, "Rail"), ["Mixed-effects REML regression", "b</var>[Rail]"]),
        (
            lambda: lme4py.glmer("count ~ mined + (1 | site)", D("Salamanders"), "nbinomial"),
            ["the mean is multiplied by", "theta = "],
        ),
        (
            lambda: lme4py.lmer("distance ~ age", D("Orthodont"), residual="ar1(1 | Subject)", fixed_only=True),
            ["Residuals:", "first-order autoregressive, 27 subjects"],
        ),
    ],
)
def test_every_kind_of_model_has_a_page(make, words, tmp_path):
    pytest.importorskip("matplotlib")
    page = make().report(tmp_path / "page.html", title="A title & more").read_text(encoding="utf-8")
    found = Checked()
    found.feed(page)
    assert found.open == []
    assert "<h1>A title &amp; more</h1>" in page
    for word in words:
        assert word in page, word


def test_a_place_that_cannot_be_written(sleep, tmp_path):
    with pytest.raises(OptionError, match="name of a file in a directory"):
        sleep.report(tmp_path)
    with pytest.raises(OptionError, match="name of a file in a directory"):
        sleep.report(tmp_path / "nowhere" / "page.html")


def test_without_matplotlib_the_page_says_so(sleep, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    page = sleep.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<figure>" not in page
    assert "Plots need matplotlib" in page


@pytest.mark.parametrize(("columns", "scrolls"), [(1, False), (4, True)])
def test_figures_of_several_panels_scroll_on_a_small_screen_and_others_shrink(columns, scrolls):
    plt = pytest.importorskip("matplotlib.pyplot")
    drawn = figure(lambda: plt.subplots(1, columns, figsize=(3.2 * columns, 3.0))[1], "panels")
    sizes = re.search(r'style="max-width: (\d+)px(?:; min-width: (\d+)px)?"', drawn)
    widest, least = sizes[1], sizes[2]
    # A CSS pixel is 1/96 inch.
    assert int(widest) == pytest.approx(96 * 3.2 * columns, abs=1.0)
    # Seven tenths of the natural width: labels of 8 points stay above 7 pixels.
    assert least is None if not scrolls else int(least) == pytest.approx(0.7 * int(widest), abs=1.0)
