"""The rows that predictions are made for: columns of the model, groups, and the part that each prediction holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.names import INTERCEPTS
from lme4py.design.recipe import new_fixed, new_random, new_random_values, unseen_groups
from lme4py.design.responses.responses import wide_table
from lme4py.errors import (
    DataError,
    IdentificationWarning,
    Lme4Warning,
    OptionError,
    RankWarning,
    did_you_mean,
    warn,
)
from lme4py.fits.base import Fit
from lme4py.fits.rows.arrays import RowArrays, finite_rows, own_rows
from lme4py.inference.prediction.between import interpolation
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RowArrays",
    "by_category",
    "by_row",
    "chosen_columns",
    "chosen_terms",
    "make_rows",
    "masked_columns",
    "on_data_index",
    "padded",
    "part_columns",
    "report_unseen",
    "without_unseen",
]

NEW_LEVELS = ("zero", "error", "missing")

# Labels of unknown groups that a message lists.
_MOST_LABELS = 10


def make_rows(
    fit: Any,
    frame: Frame | None,
    chosen: Sequence[int],
    others: bool = False,
    offset: Column | FloatArray | None = None,
) -> RowArrays:
    """The rows of the fit (no frame), or of new data.

    Parameters
    ----------
    fit : Fit
    frame : Frame or None
    chosen : sequence of int
        Terms whose modes are added.
    others : bool
        Also the columns of all other terms, whose variances are needed; their groups are not.
    offset : Column, or ndarray of shape (n, D), optional
        Of new data, in the place of the `offset` argument of the fit.
    """
    design = fit.design
    terms = range(len(design.terms)) if others else chosen
    if frame is None:
        return own_rows(design, terms, chosen)
    X, known = new_fixed(design.recipe, frame, offset)
    _report_beyond(fit, np.isnan(X).any(axis=1) & finite_rows(known))
    values, codes, left = {}, {}, {}
    for t in terms:
        between = interpolation(fit, t)
        if t in chosen:
            values[t], codes[t] = new_random(design.recipe, frame, t, between)
        else:
            values[t] = new_random_values(design.recipe, frame, t, between)
        if between is not None:
            left[t] = between.left(values[t])
        values[t] = design.terms[t].masked(values[t])
    X[_split_rows(fit, codes, X.shape[0])] = np.nan
    return RowArrays(X, known, values, codes, frame, left)


def _split_rows(fit: Any, codes: dict[int, IntArray], n: int) -> BoolArray:
    """Rows with known groups of some terms and unknown ones of others that these share a variance with.

    Parameters
    ----------
    fit : Fit
    codes : dict of int to ndarray of int, each (n,)
    n : int
    """
    out = np.zeros(n, dtype=bool)
    if fit.identification.complete or not codes:
        return out
    known = np.array([codes[t] >= 0 for t in codes])
    patterns, place = np.unique(known, axis=1, return_inverse=True)
    chosen = [[t for t, has in zip(codes, column, strict=True) if has] for column in patterns.T]
    out = np.array([fit.identification.splits(terms) for terms in chosen])[place.ravel()]
    if out.any():
        warn(
            f"{int(out.sum())} of {n} predictions are NaN: their groups are known for some terms and not for others "
            "that share a variance with these, so that it is not determined what belongs to which.",
            IdentificationWarning,
        )
    return out


def _report_beyond(fit: Any, lost: BoolArray) -> None:
    """One warning that counts the rows that cannot be estimated.

    Parameters
    ----------
    fit : Fit
    lost : ndarray of bool, shape (n,)
    """
    if not lost.any():
        return
    names = fit.design.dropped
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    warn(
        f"{int(lost.sum())} of {lost.size} predictions cannot be estimated and are NaN: the data of the fit determine "
        f"nothing about a combination of values in these rows (columns left out of the fixed effects: {shown}).",
        RankWarning,
    )


def chosen_terms(fit: Any, include_random: bool | str | Iterable[str]) -> list[int]:
    """Positions of the terms whose modes are added.

    Parameters
    ----------
    fit : Fit
    include_random : bool, str or iterable of str
        All, none, those of the named grouping factors; none for "integrate".
    """
    terms = range(len(fit.design.terms))
    if isinstance(include_random, Mapping):
        raise OptionError(
            "include_random names effects of a factor, which predictions of means and linear predictors without "
            "further parts take; name whole factors here."
        )
    # Smooths are functions of variables: no prediction leaves them out.
    smooth = [t for t in terms if fit.design.terms[t].smooth]
    if isinstance(include_random, bool | np.bool_):
        return list(terms) if include_random else smooth
    if isinstance(include_random, str) and include_random == "integrate":
        return smooth
    if not isinstance(include_random, Iterable):
        raise OptionError(
            f"include_random={include_random!r} is not known; use True, False, 'integrate' or names of factors."
        )
    names = [include_random] if isinstance(include_random, str) else list(include_random)
    known = list(fit.design.n_groups)
    for name in names:
        if name not in known:
            raise OptionError(
                f"include_random names {name!r}, which is no grouping factor of the model "
                f"({', '.join(known)}).{did_you_mean(str(name), known)}"
            )
    chosen = [t for t in terms if fit.design.terms[t].group in names or t in smooth]
    if fit.identification.splits(chosen):
        raise OptionError(
            f"include_random={include_random!r} takes the effects of some terms without those of others that they "
            f"share a variance with ({'; '.join(fit.identification.sentences)}): what belongs to which is not known. "
            "Include them all, or none."
        )
    return chosen


def chosen_columns(fit: Any, include_random: Mapping[str, str | Iterable[str]]) -> dict[int, BoolArray]:
    """Which effects of the terms of the named factors are added: position of a term -> (k,).

    Parameters
    ----------
    fit : Fit
    include_random : dict of str to str or iterable of str
        Grouping factor -> names of its effects.
    """
    out: dict[int, BoolArray] = {}
    for group, given in include_random.items():
        names = [given] if isinstance(given, str) else list(given)
        terms = chosen_terms(fit, [group])
        known = [name for t in terms for name in fit.design.terms[t].columns]
        # Each door understands the other's name of the intercept.
        own = next((name for name in known if name in INTERCEPTS), "")
        names = [own if own and name in INTERCEPTS else name for name in names]
        for name in names:
            if name not in known:
                raise OptionError(
                    f"include_random names {name!r}, which is no random effect of {group} "
                    f"({', '.join(dict.fromkeys(known))}).{did_you_mean(str(name), known)}"
                )
        masks = {t: np.isin(fit.design.terms[t].columns, names) for t in terms}
        out |= {t: mask for t, mask in masks.items() if mask.any()}
    if not fit.identification.complete:
        raise OptionError(
            "the effects of this model are not told apart by the data "
            f"({'; '.join(fit.identification.sentences)}): name whole factors in include_random."
        )
    return out


def masked_columns(rows: RowArrays, masks: Mapping[int, BoolArray]) -> RowArrays:
    """The rows with zeros in the columns of random effects that are not added.

    Parameters
    ----------
    rows : RowArrays
    masks : dict of int to ndarray of bool, each (k,)
    """
    return replace(rows, values={t: v * masks[t] if t in masks else v for t, v in rows.values.items()})


def without_unseen(rows: RowArrays, new_levels: str) -> RowArrays:
    """The rows, those of groups without a conditional mode missing where `new_levels` says so.

    Parameters
    ----------
    rows : RowArrays
    new_levels : {"zero", "error", "missing"}
    """
    if new_levels not in NEW_LEVELS:
        raise OptionError(
            f"new_levels must be {', '.join(map(repr, NEW_LEVELS))}, got {new_levels!r}."
            f"{did_you_mean(str(new_levels), NEW_LEVELS)}"
        )
    if new_levels != "missing" or not rows.codes:
        return rows
    unseen = np.any([codes < 0 for codes in rows.codes.values()], axis=0)
    unseen = unseen if rows.offset.ndim == 1 else unseen[:, None]
    return replace(rows, offset=np.where(unseen, np.nan, rows.offset))


def report_unseen(fit: Any, rows: RowArrays, new_levels: str, stacklevel: int = 4) -> None:
    """One warning (or an error) that counts the rows of groups without a conditional mode, and names the groups.

    Parameters
    ----------
    fit : Fit
    rows : RowArrays
    new_levels : {"zero", "error", "missing"}
        Nothing is said of rows that are missing.
    stacklevel : int
    """
    if new_levels == "missing":
        return
    unseen = {fit.design.terms[t].group: _unseen(fit, rows, t) for t, codes in rows.codes.items() if (codes < 0).any()}
    counts = "; ".join(f"{group}: {text}" for group, text in unseen.items())
    if not counts:
        return
    if new_levels == "error":
        raise DataError(
            f"the new data hold groups that are missing or were not in the training data ({counts}); remove these "
            "rows, or use new_levels='zero' to predict them from the rest of the model."
        )
    warnings.warn(
        f"groups that are missing or were not in the training data contribute nothing to the prediction ({counts}).",
        Lme4Warning,
        stacklevel=stacklevel,
    )


def _unseen(fit: Any, rows: RowArrays, term: int) -> str:
    """``2 of 9 rows ('a', 'b'; 1 missing)``."""
    codes = rows.codes[term]
    count = f"{int((codes < 0).sum())} of {rows.n} rows"
    if rows.frame is None:
        return count
    labels, missing = unseen_groups(fit.design.recipe, rows.frame, term, codes)
    shown = ", ".join(map(repr, labels[:_MOST_LABELS])) + f", ... {len(labels)} in all" * (len(labels) > _MOST_LABELS)
    parts = [shown] * bool(shown) + [f"{missing} missing"] * bool(missing)
    return f"{count} ({'; '.join(parts)})"


def by_row(fit: Fit, values: FloatArray, name: str) -> Any:
    """Values of the rows used as users see them: `on_data_index`, of several responses a frame with a column for each.

    Parameters
    ----------
    fit : Fit
    values : ndarray, shape (n,), or (n, K)
        Of K categories, which get a column each.
    name : str
    """
    if values.ndim == 2:
        return by_category(fit, values)
    if fit.design.responses is None:
        return on_data_index(fit, values, name)
    return wide_table(fit.design, values)


def by_category(fit: Any, values: FloatArray) -> pd.DataFrame:
    """Values of the rows used and of all categories on the data's own index, a column for each category.

    Parameters
    ----------
    fit : Fit
    values : ndarray, shape (n, K)
    """
    import pandas as pd

    values, index = padded(fit, values)
    columns = pd.Index(list(fit.categories), name=fit.design.response_name)
    return pd.DataFrame(values, index=index, columns=columns)


def on_data_index(fit: Any, values: FloatArray, name: str) -> pd.Series[float]:
    """Values of the rows used as a Series on the data's own index.

    With ``na_action="exclude"`` all rows of the data, NaN where a row was left out; otherwise the rows used.
    """
    import pandas as pd

    values, index = padded(fit, values)
    return pd.Series(values, index=index, name=name, copy=True)


def padded(fit: Any, values: FloatArray) -> tuple[FloatArray, pd.Index[Any]]:
    """Values of the rows used, (n, ...), and the index they stand on; see `on_data_index`."""
    design = fit.design
    if design.na_action == "exclude":
        whole = np.full((design.keep.size, *values.shape[1:]), np.nan)
        whole[design.keep] = values
        return whole, design.index.copy()
    return values, design.index.copy() if design.keep.all() else design.index[design.keep]


def part_columns(fit: Fit, t: int, part: str, rows: RowArrays) -> FloatArray:
    """Columns of a term in one linear predictor, (n, k).

    Parameters
    ----------
    fit : Fit
    t : int
    part : str
        Name of the predictor.
    rows : RowArrays
    """
    term = fit.design.terms[t]
    if rows.frame is None:
        return term.values_of(part)
    values: FloatArray = term.masked(new_random_values(fit.design.recipe, rows.frame, t), part)
    return values
