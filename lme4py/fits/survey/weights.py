"""Sampling weights of rows and of groups, and where the units of a survey stand, from what a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lme4py.data.beside import column_beside
from lme4py.data.column import Column
from lme4py.data.frame import as_factor_column, drop_unused_levels
from lme4py.design.beside.given import Given, given_text, positive_weights
from lme4py.design.design import Design
from lme4py.design.source import column_of_fit
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.fits.groups import is_nested
from lme4py.fits.rows.clusters import row_sums
from lme4py.formula.nodes import Node
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["SCALES", "SurveyRequest", "SurveyWeights", "Units", "make_units", "make_weights"]

SCALES = ("size", "effective", "gk")
_KEYS = ("strata", "psu", "fpc", "replicates", "method", "scale")
_METHODS = ("brr", "jackknife")


@dataclass(frozen=True)
class SurveyRequest:
    """The arguments as the user gave them, checked for their kinds.

    Attributes
    ----------
    levels : mapping of str to object
        Grouping factor -> weights of its levels, as a value for each row.
    rows : object
        Weights of rows, or None.
    scale : str or None
        How weights of rows are scaled within groups.
    survey : mapping of str to object
        Strata, primary sampling units, and replicate weights.
    word : str
        What the door calls the weights, for messages.
    """

    levels: Mapping[str, Any]
    rows: Any
    scale: str | None
    survey: Mapping[str, Any]
    word: str = "level_weights"

    @classmethod
    def read(cls, levels: Any, rows: Any, scale: Any, survey: Any, word: str = "level_weights") -> SurveyRequest | None:
        """The request; None where nothing of a survey is given.

        Raises
        ------
        OptionError
            Something of another kind, or without weights of levels.
        """
        if levels is None and scale is None and survey is None:
            return None
        if levels is not None and (not isinstance(levels, Mapping) or not levels):
            raise OptionError(f"`{word}` is {levels!r}; give a dict from a grouping factor to a column, {_EXAMPLE}.")
        if levels is None:
            given = "pwscale" if scale is not None else "survey"
            raise OptionError(f"{given}= needs weights of the levels of a grouping factor: {word}={_EXAMPLE}.")
        if scale is not None and scale not in SCALES:
            raise OptionError(
                f"pwscale={scale!r} is not known.{did_you_mean(str(scale), SCALES)} Use one of {', '.join(SCALES)}, or "
                "None for weights as they are."
            )
        if scale is not None and rows is None and len(levels) == 1:
            raise OptionError(f"pwscale={scale!r} scales weights of rows within groups, and none are given.")
        return cls(levels, rows, scale, _survey(survey), word)

    @property
    def texts(self) -> dict[str, str]:
        """Columns and expressions of the data by what they are; rows that lack one of them are no part of a fit."""
        found = {f"weights of {group!r}": value for group, value in self.levels.items()}
        found |= {"weights": self.rows}
        found |= {name: self.survey.get(name) for name in ("strata", "psu", "fpc")}
        texts = {what: value for what, value in found.items() if isinstance(value, str)}
        return texts | {f"replicate {name!r}": name for name in self.survey.get("replicates", ())}

    def nodes(self, names: tuple[str, ...]) -> tuple[Node, ...]:
        """What the texts mean in data with these columns."""
        given = [given_text(text, what, names).node for what, text in self.texts.items()]
        return tuple(node for node in given if node is not None)


_EXAMPLE = '{"school": "w2"}'


def _survey(survey: Any) -> dict[str, Any]:
    if survey is None:
        return {}
    if not isinstance(survey, Mapping):
        raise OptionError(f"`survey` is of type {type(survey).__name__}; give a dict with {', '.join(_KEYS)}.")
    for name in survey:
        if name not in _KEYS:
            raise OptionError(f"survey has no {name!r}.{did_you_mean(str(name), _KEYS)} It has {', '.join(_KEYS)}.")
    found = {name: value for name, value in survey.items() if value is not None}
    replicates = found.get("replicates")
    if ("method" in found or "scale" in found) and replicates is None:
        raise OptionError("survey['method'] and ['scale'] are those of replicate weights; give survey['replicates'].")
    if replicates is not None:
        _check_replicates(found)
    return found


def _check_replicates(found: Mapping[str, Any]) -> None:
    names = found["replicates"]
    many = isinstance(names, Sequence) and not isinstance(names, str) and len(names) > 1
    if not many or not all(isinstance(name, str) for name in names):
        raise OptionError("survey['replicates'] is a list of at least two columns of weights of levels.")
    if found.get("method") not in _METHODS:
        raise OptionError(
            f"survey['method'] is {found.get('method')!r}; say whether the replicate weights are 'brr' or 'jackknife'."
        )
    others = [name for name in ("strata", "psu", "fpc") if name in found]
    if others:
        raise OptionError(f"replicate weights carry the design of the survey; leave {' and '.join(others)} out.")


@dataclass(frozen=True)
class SurveyWeights:
    """Weights that enter the pseudo-likelihood.

    Attributes
    ----------
    rows : ndarray, shape (n,)
        Of the rows, times those of the inner groups of two nested factors.
    levels : ndarray, shape (J,)
        Of the groups; of two nested factors of the outer ones.
    codes : ndarray of int, shape (n,)
        The group of each row.
    copies : tuple of ndarray, each (J,), or None
        Weights of the inner groups, by grouping factor; () where there is one factor.
    replicates : ndarray, shape (R, J)
    text : str
        What they are, in words.
    """

    rows: FloatArray
    levels: FloatArray
    codes: IntArray
    copies: tuple[FloatArray | None, ...]
    replicates: FloatArray
    text: str


def make_weights(design: Design, request: SurveyRequest) -> SurveyWeights:
    """Read, check and scale the weights.

    Parameters
    ----------
    design : Design
    request : SurveyRequest

    Raises
    ------
    OptionError
        Weights of something that is no grouping factor, or of factors that are not nested.
    DataError
        Weights that are not positive, or that vary within a level.
    """
    levels = _levels_of(design, request)
    given = _by_factor(request, [own.name for own in levels])
    outer = levels[-1]
    raw = np.ones(design.n_obs) if request.rows is None else _numbers(design, request.rows, "weights")
    weights = [
        np.ones(own.size) if name is None else own.weights(design, request.levels[name], name)
        for own, name in zip(levels, given, strict=True)
    ]
    rows, weights = _scaled(raw, weights, [own.codes for own in levels], request.scale)
    names = request.survey.get("replicates", ())
    replicates = [outer.weights(design, name, name, zero=True) for name in names]
    copies: tuple[FloatArray | None, ...] = ()
    if len(levels) == 2:
        rows = rows * weights[0][levels[0].codes]
        copies = tuple(weights[0] if name == levels[0].name else None for name in design.n_groups)
    text = _in_words(request, levels, given)
    return SurveyWeights(rows, weights[-1], outer.codes, copies, np.array(replicates).reshape(-1, outer.size), text)


def _in_words(request: SurveyRequest, levels: Sequence[_Level], given: Sequence[str | None]) -> str:
    scaled = {None: "as they are", "gk": "1 (gk)"}.get(request.scale, f"scaled to the {request.scale} of groups")
    mean = " times the mean of its rows" * (request.scale == "gk")
    texts = []
    for place in reversed(range(len(levels))):
        name = given[place]
        own = "1" if name is None else _name(request.levels[name])
        if place < len(levels) - 1 and request.scale is not None:
            own += " " + scaled
        texts.append(f"{levels[place].name} {own}{mean if place == len(levels) - 1 else ''}")
    texts.append("rows " + ("1" if request.rows is None else f"{_name(request.rows)} {scaled}"))
    return ", ".join(texts)


def _name(given: Any) -> str:
    return repr(given) if isinstance(given, str) else "given"


@dataclass(frozen=True)
class _Level:
    """A grouping factor of the model.

    Attributes
    ----------
    name : str
    codes : ndarray of int, shape (n,)
    levels : sequence
    """

    name: str
    codes: IntArray
    levels: Sequence[Any]

    @property
    def size(self) -> int:
        return len(self.levels)

    def weights(self, design: Design, given: Any, name: str, zero: bool = False) -> FloatArray:
        """Weights of the levels, (J,), out of a value for each row."""
        what = name if zero else f"weights of {name}"
        return _by_level(_numbers(design, given, what, zero), self.codes, self.size, name, self.levels)


def _levels_of(design: Design, request: SurveyRequest) -> list[_Level]:
    """One grouping factor, or two nested ones, the inner one first."""
    word, names = request.word, list(design.n_groups)
    if any(term.relation is not None for term in design.terms):
        raise OptionError(f"{word} needs independent levels, and relmat= relates them; leave one of them out.")
    first = {term.group: term for term in reversed(design.terms)}
    found = [_Level(name, first[name].codes.astype(np.intp), first[name].levels) for name in names]
    if len(found) > 2:
        raise OptionError(
            f"{word} is there for models of one grouping factor, or of two nested ones; this one has "
            f"{', '.join(names[:-1])} and {names[-1]}. Leave out those in between, and take their part into the "
            "standard errors by survey={'psu': ...}."
        )
    if len(found) == 2:
        if is_nested(found[1].codes, found[0].codes):
            found.reverse()
        if not is_nested(found[0].codes, found[1].codes):
            raise OptionError(
                f"{word} needs grouping factors of which one is nested in the other, whose integrals are one inside "
                f"the other; {names[0]} and {names[1]} are crossed. Leave one of them out."
            )
    return found


def _by_factor(request: SurveyRequest, known: Sequence[str]) -> list[str | None]:
    """What the user calls each factor that has weights: ``class:school`` is ``class`` too."""
    called = {name: {name, name.replace(":", "|")} for name in known}
    for name in known:
        head, _, rest = name.partition(":")
        if rest in known:
            called[name].add(head)
    for name in request.levels:
        if not any(name in own for own in called.values()):
            raise OptionError(
                f"{request.word} names {name!r}, which is no grouping factor of the model."
                f"{did_you_mean(str(name), list(known))} It has {', '.join(known)}."
            )
    return [next((name for name in request.levels if name in called[own]), None) for own in known]


def _numbers(design: Design, given: Any, what: str, zero: bool = False) -> FloatArray:
    column = _column(design, given, what)
    if column.is_factor:
        raise DataError(f"the {what} are not numeric; give a numeric column.")
    return positive_weights(np.asarray(column.values, dtype=np.float64), Given(what), zero=zero)


def _column(design: Design, given: Any, what: str) -> Column:
    if not isinstance(given, str):
        return column_beside(given, what, design, design.keep)
    found = column_of_fit(design, given, what)
    if found is None:
        raise DataError(f"column {given!r} ({what}) not found in the data.")
    return found


def _by_level(values: FloatArray, codes: IntArray, J: int, what: str, levels: Sequence[Any]) -> FloatArray:
    """Numbers of the levels out of those of their rows, which must agree."""
    own = np.empty(J)
    own[codes] = values
    differ = np.abs(own[codes] - values) > 1e-9 * np.abs(values)
    if differ.any():
        place = int(codes[np.flatnonzero(differ)[0]])
        found = sorted({float(value) for value in values[codes == place]})[:3]
        raise DataError(
            f"the weights of {what} vary within its level {levels[place]!r} ({', '.join(map('{:g}'.format, found))}); "
            "a level has one weight. Weights of rows are given as weights of rows."
        )
    return own


def _scaled(
    rows: FloatArray, weights: list[FloatArray], codes: Sequence[IntArray], scale: str | None
) -> tuple[FloatArray, list[FloatArray]]:
    """Rabe-Hesketh & Skrondal (2006), methods 2 ("size") and 1 ("effective"); Graubard & Korn (1996, "gk").

    All weights but those of the outermost groups are scaled within the unit above: those of rows within inner groups,
    those of inner groups within outer ones.
    """
    rows, weights[0] = _scaled_within(rows, weights[0], codes[0], scale)
    if len(weights) == 2:
        home = np.zeros(weights[0].size, dtype=np.intp)
        home[codes[0]] = codes[1]
        weights[0], weights[1] = _scaled_within(weights[0], weights[1], home, scale)
    return rows, weights


def _scaled_within(
    inner: FloatArray, outer: FloatArray, home: IntArray, scale: str | None
) -> tuple[FloatArray, FloatArray]:
    """Weights of the units of one level, and of the one above."""
    if scale is None:
        return inner, outer
    J = outer.size
    counts, total, squares = (row_sums(v, home, J) for v in (np.ones(inner.size), inner, inner**2))
    if scale == "size":
        return inner * (counts / total)[home], outer
    if scale == "effective":
        return inner * (total / squares)[home], outer
    return np.ones(inner.size), outer * total / counts


@dataclass(frozen=True)
class Units:
    """Primary sampling units of the levels, and their strata.

    Attributes
    ----------
    psu : ndarray of int, shape (J,)
    strata : ndarray of int, shape (n_psu,)
    sampled : ndarray, shape (n_strata,)
        Share of the units of each stratum that were sampled; 0 where that is not known.
    text : str
    """

    psu: IntArray
    strata: IntArray
    sampled: FloatArray
    text: str


def make_units(design: Design, request: SurveyRequest) -> Units:
    """Which levels are one primary sampling unit, and which units one stratum.

    Parameters
    ----------
    design : Design
    request : SurveyRequest

    Raises
    ------
    DataError
        Units that split levels, strata that split units, or a stratum of one unit.
    """
    level, asked = _levels_of(design, request)[-1], request.survey
    codes = level.codes
    own, name = (np.arange(level.size), level.name) if "psu" not in asked else _units(design, asked["psu"], level)
    M = int(own.max()) + 1
    if "strata" not in asked:
        strata, sampled = np.zeros(M, dtype=np.intp), _sampled(design, asked, own[codes], np.zeros(M, dtype=np.intp))
        text = f"{M} units ({name})"
    else:
        strata = _nested(_codes(design, asked["strata"], "strata"), own[codes], M, "strata", name)
        sampled = _sampled(design, asked, own[codes], strata)
        text = f"{M} units ({name}) in {int(strata.max()) + 1} strata"
    few = np.flatnonzero(np.bincount(strata) < 2)
    if few.size:
        raise DataError(
            f"{few.size} of {int(strata.max()) + 1} strata have one primary sampling unit only, which says nothing of "
            "its variance; join such strata with others."
        )
    return Units(own, strata, sampled, text)


def _units(design: Design, given: Any, level: _Level) -> tuple[IntArray, str]:
    name = given if isinstance(given, str) else "psu"
    return _nested(_codes(design, given, "psu"), level.codes, level.size, "psu", level.name), name


def _codes(design: Design, given: Any, what: str) -> IntArray:
    column = _column(design, given, what)
    used = drop_unused_levels(as_factor_column(column))
    if used.missing().any():
        raise DataError(f"{what} is missing in some of the rows used; remove these rows.")
    return used.values.astype(np.intp)


def _nested(outer: IntArray, inner: IntArray, size: int, what: str, name: str) -> IntArray:
    home = np.zeros(size, dtype=np.intp)
    home[inner] = outer
    if (home[inner] != outer).any():
        split = int(np.unique(inner[home[inner] != outer]).size)
        raise DataError(f"{what} splits {split} of the units {name!r}: all rows of one belong to one of {what}.")
    return home


def _sampled(design: Design, asked: Mapping[str, Any], unit: IntArray, strata: IntArray) -> FloatArray:
    """Sampling fraction of each stratum out of a column of fractions, or of numbers of units in the population."""
    H = int(strata.max()) + 1
    if "fpc" not in asked:
        return np.zeros(H)
    own = _by_level(_numbers(design, asked["fpc"], "fpc"), strata[unit], H, "fpc", range(H))
    counts = np.bincount(strata, minlength=H)
    share = np.where(own > 1.0, counts / own, own)
    if (share > 1.0).any():
        raise DataError("fpc names fewer units in the population than there are in the sample of a stratum.")
    return share
