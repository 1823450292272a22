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
        if scale is not None and rows is None:
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
    group : str
    rows : ndarray, shape (n,)
    levels : ndarray, shape (J,)
    replicates : ndarray, shape (R, J)
    text : str
        What they are, in words.
    """

    group: str
    rows: FloatArray
    levels: FloatArray
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
        Weights of something that is not the only grouping factor.
    DataError
        Weights that are not positive, or that vary within a level.
    """
    group = _group(design, request)
    term = design.terms[0]
    codes, J = term.codes.astype(np.intp), term.n_levels
    given = request.levels[group]
    levels = _by_level(_numbers(design, given, f"weights of {group}"), codes, J, group, term.levels)
    raw = np.ones(design.n_obs) if request.rows is None else _numbers(design, request.rows, "weights")
    names = request.survey.get("replicates", ())
    replicates = [_by_level(_numbers(design, name, name, True), codes, J, name, term.levels) for name in names]
    rows, levels = _scaled(raw, levels, codes, request.scale)
    scaled = {None: "as they are", "gk": "1 (gk)"}.get(request.scale, f"scaled to the {request.scale} of groups")
    own = "1" if request.rows is None else f"{_name(request.rows)} {scaled}"
    text = f"{group} {_name(given)}{' times the mean of its rows' * (request.scale == 'gk')}, rows {own}"
    return SurveyWeights(group, rows, levels, np.array(replicates).reshape(-1, J), text)


def _name(given: Any) -> str:
    return repr(given) if isinstance(given, str) else "given"


def _group(design: Design, request: SurveyRequest) -> str:
    word, known = request.word, list(design.n_groups)
    for name in request.levels:
        if name not in known:
            raise OptionError(
                f"{word} names {name!r}, which is no grouping factor of the model.{did_you_mean(str(name), known)} "
                f"It has {', '.join(known)}."
            )
    if len(known) > 1:
        raise OptionError(
            f"{word} is there for models of one grouping factor; this one has {' and '.join(known)}. Leave out those "
            "in between, and take their part into the standard errors by survey={'psu': ...}."
        )
    if any(term.relation is not None for term in design.terms):
        raise OptionError(f"{word} needs independent levels, and relmat= relates them; leave one of them out.")
    return known[0]


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


def _scaled(rows: FloatArray, levels: FloatArray, codes: IntArray, scale: str | None) -> tuple[FloatArray, FloatArray]:
    """Rabe-Hesketh & Skrondal (2006), methods 2 ("size") and 1 ("effective"); Graubard & Korn (1996, "gk")."""
    if scale is None:
        return rows, levels
    J = levels.size
    counts, total, squares = (row_sums(v, codes, J) for v in (np.ones(rows.size), rows, rows**2))
    if scale == "size":
        return rows * (counts / total)[codes], levels
    if scale == "effective":
        return rows * (total / squares)[codes], levels
    return np.ones(rows.size), levels * total / counts


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
    term, asked = design.terms[0], request.survey
    codes = term.codes.astype(np.intp)
    own, name = (np.arange(term.n_levels), term.group) if "psu" not in asked else _units(design, asked["psu"], codes)
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


def _units(design: Design, given: Any, codes: IntArray) -> tuple[IntArray, str]:
    name = given if isinstance(given, str) else "psu"
    J = design.terms[0].n_levels
    return _nested(_codes(design, given, "psu"), codes, J, "psu", design.terms[0].group), name


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
