"""More groups, more rows or other values in the design of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.arguments import speaks
from lme4py.data.frame import read_frame
from lme4py.design.design import Design
from lme4py.design.replay import replayed
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.groups import is_nested
from lme4py.fits.kinds import model_of
from lme4py.fits.pilot import carrier
from lme4py.fits.refuse import refuse_structured
from lme4py.fits.truth import truth_of
from lme4py.formula.deparse import names_in
from lme4py.inference.refits.simulate import check_count, check_seed
from lme4py.linalg.types import IntArray
from lme4py.study.columns import table_of
from lme4py.study.model import MadeModel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["extend"]


@speaks
def extend(
    model: Any,
    along: str | None = None,
    n: int | None = None,
    *,
    within: str | Iterable[str] | None = None,
    values: Iterable[Any] | None = None,
    sizes: Sequence[int] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> MadeModel:
    """The same model for a larger or smaller study.

    Parameters
    ----------
    model : result or MadeModel
        Its parameters (of a fit: the estimates) are those of the new model.
    along : str, optional
        A grouping factor, which gets `n` levels: copies of those that there are, in turn, each with rows like
        theirs. Factors nested in it get levels of their own in each copy; factors that it is crossed with keep theirs.
        Or a numeric variable, which takes `n` equally spaced values, or `values`, for every combination of the others.
    n : int, optional
        Levels, values, or rows.
    within : str or list of str, optional
        Grouping factors (or other variables): each of their combinations gets `n` rows, copies of its own in turn.
    values : iterable, optional
        Values of a numeric variable, in the place of `n`.
    sizes : sequence of int, optional
        With `along`: numbers of rows of the levels, in turn.
    dropout : float
        Probability that a level of the factor loses its rows behind a place chosen at random (rows in the order of
        the data; the first one stays).
    seed : int
        Of the dropout.

    Returns
    -------
    MadeModel

    Raises
    ------
    OptionError
        A variable that the model does not have, a factor with coefficients as `along`, or variables that are not
        crossed with it.

    Examples
    --------
    >>> import lme4py
    >>> result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    >>> lme4py.extend(result, along="Subject", n=40)
    <MadeModel: Reaction ~ Days + (Days | Subject), gaussian, 400 rows, 40 Subject>
    >>> lme4py.extend(result, along="Days", n=5).n_obs, lme4py.extend(result, within="Subject", n=20).n_obs
    (90, 360)
    """
    fit, result = _source(model)
    if (along is None) == (within is None):
        raise OptionError("give extend() either along= (a factor or variable) or within= (rows of each group).")
    table = table_of(fit.design)
    if within is not None:
        names = [name.strip() for name in within.split("+")] if isinstance(within, str) else list(within)
        rows = _within(table, [_known(table, name) for name in names], check_count("n", n))
        new, factor = table.take(rows), names[0]
    elif _known(table, along) in _grouping(fit.design):
        factor = str(along)
        new = _along_factor(table, factor, check_count("n", n), _grouping(fit.design), sizes)
    else:
        factor = ""
        new = _along_variable(table, str(along), n, values, fit.design)
    if dropout:
        new = _with_dropout(new, factor, dropout, seed)
    return _made(fit, result, new.reset_index(drop=True))


def _source(model: Any) -> tuple[Fit, Any]:
    fit = fit_of(model)
    if fit is None:
        raise OptionError(f"`model` is of type {type(model).__name__}; give a fitted or a made model.")
    refuse_structured(fit, "extend() is", "make the larger data and fit the model to simulated responses")
    if fit.normal_errors and not fit.design.terms:
        raise OptionError(
            "extend() is not there for linear models without random effects; make the larger data and fit the model to "
            "simulated responses."
        )
    return fit, model.result if isinstance(model, MadeModel) else type(model)


def _made(fit: Fit, result: Any, table: pd.DataFrame) -> MadeModel:
    """The model on the rows of a table."""
    design = replayed(fit.design, read_frame(table), fit.family)
    if np.linalg.matrix_rank(design.X) < design.X.shape[1]:
        raise OptionError(
            f"the extended data have too few different rows for all fixed effects ({', '.join(design.x_names)}): some "
            "could not be estimated. Extend to more groups, rows or values."
        )
    data = design.response or ResponseData(design.y, None, design.weights)
    model = model_of(fit)

    def fit_it(drawn: Design) -> Fit:
        return model.like(drawn, drawn.response, thorough=False)

    return MadeModel(carrier(design, fit.family, truth_of(fit), data, fit_it), result)


def _known(table: pd.DataFrame, name: Any) -> str:
    if name not in table:
        names = [str(column) for column in table]
        raise OptionError(
            f"the model has no variable {name!r}.{did_you_mean(str(name), names)} Its variables are {', '.join(names)}."
        )
    return str(name)


def _grouping(design: Design) -> list[str]:
    """The columns that grouping factors are made of."""
    nodes = [node for bar in design.recipe.bars for node in bar.group]
    return list(dict.fromkeys(name for node in nodes for name in names_in(node)))


def _codes(values: pd.Series[Any]) -> tuple[IntArray, list[Any]]:
    import pandas as pd

    codes, levels = pd.factorize(values, sort=not hasattr(values.dtype, "categories"))
    return np.asarray(codes, dtype=np.intp), list(levels)


def _within(table: pd.DataFrame, names: list[str], n: int) -> IntArray:
    """Rows so that each combination of some columns has n of them."""
    codes, _ = _codes(table[names].astype(str).agg("\x00".join, axis=1) if len(names) > 1 else table[names[0]])
    return _copies(codes, np.arange(int(codes.max()) + 1), np.full(int(codes.max()) + 1, n))[0]


def _copies(codes: IntArray, source: IntArray, sizes: IntArray | None) -> tuple[IntArray, IntArray]:
    """Rows of the levels of `source`, in turn `sizes` of them each (all without it), and the number of the copy."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)])
    rows, copies = [], []
    for j, level in enumerate(source.tolist()):
        own = order[starts[level] : starts[level + 1]]
        own = own if sizes is None else np.sort(np.resize(own, int(sizes[j])))
        rows.append(own)
        copies.append(np.full(own.size, j))
    return np.concatenate(rows), np.concatenate(copies)


def _along_factor(
    table: pd.DataFrame, name: str, n: int, grouping: list[str], sizes: Sequence[int] | None
) -> pd.DataFrame:
    codes, levels = _codes(table[name])
    J = len(levels)
    lengths = None
    if sizes is not None:
        lengths = np.resize([check_count("sizes", size) for size in sizes], n)
    rows, copy = _copies(codes, np.arange(n) % J, lengths)
    new = table.take(rows).reset_index(drop=True)
    round_ = copy // J
    for other in grouping:
        own, labels = _codes(table[other])
        if other == name or is_nested(own, codes):
            new[other] = _labels(labels, own[rows], round_)
    return new


def _labels(labels: list[Any], codes: IntArray, round_: IntArray) -> Any:
    """Labels of copies: numbers go on behind the largest one, texts get the number of the copy."""
    if all(isinstance(label, int | np.integer) and not isinstance(label, bool) for label in labels):
        span = int(max(labels)) - int(min(labels)) + 1
        return np.asarray(labels, dtype=np.int64)[codes] + span * round_
    texts = [str(label) for label in labels]
    return np.array([texts[c] + (f"_{r + 1}" if r else "") for c, r in zip(codes, round_, strict=True)], dtype=object)


def _along_variable(
    table: pd.DataFrame, name: str, n: int | None, values: Iterable[Any] | None, design: Design
) -> pd.DataFrame:
    column = (design.columns or {})[name]
    if column.is_factor:
        raise OptionError(
            f"{name!r} is a factor whose levels have coefficients, so that there can be no more of them; extend a "
            "grouping factor along=, or use within="
        )
    old = np.unique(column.values)
    wanted = _values_of(name, old, n, values)
    formula = design.recipe.formula
    response = set() if formula.response is None or design.y.ndim == 2 else set(names_in(formula.response))
    others = [str(other) for other in table if other != name and other not in response]
    codes, _ = _codes(table[others].astype(str).agg("\x00".join, axis=1)) if others else (np.zeros(len(table), int), [])
    count = int(codes.max()) + 1
    repeats = np.bincount(codes)
    pairs = np.unique(np.stack([codes, np.searchsorted(old, column.values)]), axis=1).shape[1]
    if pairs != count * old.size:
        varying = [other for other in others if other not in _grouping(design)]
        raise OptionError(
            f"{name!r} is not crossed with {', '.join(varying) or 'the groups'}: not every combination has all of its "
            f"{old.size} values; use within=, or make the rows yourself."
        )
    first = np.unique(codes, return_index=True)[1]
    each = np.maximum(repeats // old.size, 1)
    rows = np.repeat(first, each * wanted.size)
    new = table.take(rows).reset_index(drop=True)
    new[name] = np.concatenate([np.repeat(wanted, k) for k in each.tolist()])
    return new


def _values_of(name: str, old: Any, n: int | None, values: Iterable[Any] | None) -> Any:
    if values is not None:
        found = np.asarray(list(values), dtype=np.float64)
        if not found.size or not np.isfinite(found).all():
            raise OptionError(f"`values` of {name!r} must be finite numbers.")
        return found
    count = check_count("n", n)
    gaps = np.diff(old)
    if old.size < 2 or not np.allclose(gaps, gaps[0], rtol=1e-9):
        raise OptionError(f"the values of {name!r} are not equally spaced; give values= in the place of n=.")
    return old[0] + gaps[0] * np.arange(count)


def _with_dropout(table: pd.DataFrame, factor: str, dropout: float, seed: int) -> pd.DataFrame:
    if not factor:
        raise OptionError("`dropout` is of groups; extend along= a grouping factor, or within= one.")
    if not 0.0 <= dropout < 1.0:
        raise OptionError(f"`dropout` is {dropout!r}; give a probability below 1.")
    rng = np.random.default_rng(check_seed(seed))
    codes, levels = _codes(table[factor])
    kept = np.ones(len(table), dtype=bool)
    for j in range(len(levels)):
        own = np.flatnonzero(codes == j)
        leaves, place = rng.random() < dropout, rng.random()
        if leaves and own.size > 1:
            kept[own[1 + int(place * (own.size - 1)) :]] = False
    return table[kept]
