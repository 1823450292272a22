"""A formula from column names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lme4py.data.frame import Frame
from lme4py.errors import OptionError, did_you_mean
from lme4py.keyword.names import as_list, column, is_categorical, quote, term

__all__ = ["COV_TYPES", "chains_of", "fixed_part", "random_part"]

# Stata's words and this package's, and the function of a formula that means them.
COV_TYPES = {
    "unstructured": "",
    "diagonal": "diag",
    "independent": "diag",
    "identity": "id",
    "exchangeable": "homcs",
}

# One variance, of effects of several linear predictors.
_JOINT = {"id": "homdiag"}


def fixed_part(x_fixed: Any, frame: Frame) -> str:
    """The fixed terms: ``"1"`` where there are none.

    Parameters
    ----------
    x_fixed : None, str, or sequence of str
    frame : Frame
    """
    terms = [term(entry, frame, "x_fixed") for entry in as_list(x_fixed, "x_fixed")]
    return " + ".join(dict.fromkeys(terms)) or "1"


def random_part(
    chains: Sequence[Sequence[str]], x_random: Any, cov_type: Any, frame: Frame, joint: bool = False
) -> str:
    """The random-effects terms, such as ``"(1 + x | school/class)"``.

    Parameters
    ----------
    chains : sequence of sequences of str
        From `chains_of`.
    x_random : None, str, sequence of str, or dict
        Columns with random slopes at every level; a dict gives those of each level.
    cov_type : str
    frame : Frame
    joint : bool
        Several linear predictors have each column, so that the effects of one column have a covariance too.
    """
    function = _structure(cov_type)
    if joint:
        function = _JOINT.get(function, function)
    slopes = _slopes(x_random, chains, frame)
    return " + ".join(piece for chain in chains for piece in _chain_terms(chain, slopes, function, frame, joint))


def _structure(cov_type: Any) -> str:
    name = cov_type.strip().lower() if isinstance(cov_type, str) else ""
    if name not in COV_TYPES:
        raise OptionError(
            f"cov_type={cov_type!r} is not known.{did_you_mean(name, COV_TYPES)} Use 'unstructured', 'diagonal' (also "
            "called 'independent'), 'identity' or 'exchangeable'."
        )
    return COV_TYPES[name]


def chains_of(group: Any, crossed: Any, frame: Frame) -> list[list[str]]:
    """Lists of nested factors, outer to inner; one list for each of several crossed ones.

    Parameters
    ----------
    group : str or sequence
        Grouping columns, outer to inner; with `crossed` factors side by side, each of which may be a list of nested
        ones.
    crossed : bool
    frame : Frame
    """
    entries = as_list(group, "group")
    if not entries:
        raise OptionError("`group` is empty; name the column whose levels are the groups.")
    if crossed:
        chains = [[column(name, frame, "group") for name in as_list(entry, "group")] for entry in entries]
    else:
        if any(not isinstance(entry, str | int) for entry in entries):
            raise OptionError(
                f"`group` is {group!r}; give names, the outer level first. For crossed factors give crossed=True, "
                "where each entry may be a list of nested ones."
            )
        chains = [[column(name, frame, "group") for name in entries]]
    for chain in chains:
        if len(set(chain)) < len(chain):
            raise OptionError(f"`group` names a column twice: {', '.join(chain)}; name each level once.")
    return chains


def _slopes(x_random: Any, chains: Sequence[Sequence[str]], frame: Frame) -> dict[str, list[Any]]:
    """Slopes of each grouping column."""
    known = list(dict.fromkeys(name for chain in chains for name in chain))
    if not isinstance(x_random, Mapping):
        given = as_list(x_random, "x_random")
        return dict.fromkeys(known, given)
    slopes: dict[str, list[Any]] = {name: [] for name in known}
    for level, names in x_random.items():
        if level not in slopes:
            raise OptionError(
                f"`x_random` has slopes for {level!r}, which is no level in `group`.{did_you_mean(str(level), known)} "
                f"The levels are {', '.join(known)}."
            )
        slopes[level] = as_list(names, f"x_random[{level!r}]")
    return slopes


def _chain_terms(
    chain: Sequence[str], slopes: Mapping[str, list[Any]], function: str, frame: Frame, joint: bool
) -> list[str]:
    found = [_columns(slopes[name], function, frame) for name in chain]
    lefts = [(left, several or joint) for left, several in found]
    quoted = [quote(name) for name in chain]
    if len(set(lefts)) == 1:
        return [_bar(*lefts[0], function, "/".join(quoted))]
    # The inner factor of each level is the combination of it and all levels around it.
    groups = [":".join(reversed(quoted[: depth + 1])) for depth in range(len(chain))]
    return [_bar(*left, function, group) for left, group in zip(lefts, groups, strict=True)]


def _bar(left: str, several: bool, function: str, group: str) -> str:
    return f"{function if several else ''}({left} | {group})"


def _columns(entries: Sequence[Any], function: str, frame: Frame) -> tuple[str, bool]:
    """What stands left of the bar, and whether it is more than one column.

    Under a covariance that is not unstructured the columns of a factor must not depend on which level comes first, so
    that it has one column per level, in place of the constant (Stata's ``R.varname``).
    """
    terms = list(dict.fromkeys(term(entry, frame, "x_random") for entry in entries))
    factors = [str(entry) for entry in entries if is_categorical(entry, frame)]
    if function and len(factors) > 1:
        raise OptionError(
            f"`x_random` has the categorical columns {' and '.join(factors)}; with a covariance that is not "
            "unstructured only one can have a column for each level. Use one of them, or cov_type='unstructured'."
        )
    constant = [] if "0" in terms else ["1"]
    if function and factors:
        constant = ["0"]
    rest = [text for text in terms if text not in ("0", "1")]
    if not rest and "0" in terms:
        raise OptionError("`x_random` removes the random intercept and has no slopes; add a column, or leave it out.")
    left = " + ".join([*(constant or ["0"]), *rest])
    return left, bool(factors) or len(rest) + ("1" in constant) > 1 or any(not _is_column(t) for t in rest)


def _is_column(text: str) -> bool:
    return text.startswith("`") or text.replace(".", "_").isidentifier()
