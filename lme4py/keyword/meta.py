"""Meta-analysis from column names: effects with known sampling variances."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.api import lmer
from lme4py.data.column import Column
from lme4py.data.frame import Frame, as_factor_column, read_frame
from lme4py.data.sources import find_source
from lme4py.design.names import with_stata_names
from lme4py.errors import DataError, OptionError, did_you_mean
from lme4py.fits.conventions import Conventions
from lme4py.inference.estimates.coefficients import check_alpha
from lme4py.inference.shares.heterogeneity import heterogeneity
from lme4py.keyword.names import as_list, column, quote, term
from lme4py.results import MixedResult
from lme4py.results.call import records_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from lme4py.linalg.types import FloatArray

__all__ = ["meta"]

_METHODS = {"reml": True, "ml": False}
_COMMON = ("ee", "fe", "ce", "fixed", "common")
_TESTS = {
    "z": "normal",
    "normal": "normal",
    "knha": "knapp-hartung",
    "hksj": "knapp-hartung",
    "khartung": "knapp-hartung",
    "knapp-hartung": "knapp-hartung",
    "t": "residual",
    "residual": "residual",
    "satterthwaite": "satterthwaite",
    "kenward-roger": "kenward-roger",
}
# Covariances of the effects of one study by metafor's words.
_STRUCTS = {
    "UN": "us",
    "CS": "homcs",
    "HCS": "cs",
    "ID": "homdiag",
    "DIAG": "diag",
    "AR": "ar1",
    "HAR": "hetar1",
    "CAR": "ou",
}
_RANDOM = re.compile(r"^\s*~\s*(?P<left>.+?)\s*\|\s*(?P<group>.+?)\s*$")


@records_call
def meta(
    data: Any,
    yi: str,
    vi: str | None = None,
    mods: str | Sequence[str] | None = None,
    random: str | Sequence[str] | None = None,
    *,
    sei: str | None = None,
    V: Any = None,
    rho: float | None = None,
    cluster: str | None = None,
    struct: str = "CS",
    method: str = "REML",
    test: str = "z",
    intercept: bool = True,
    slab: str | None = None,
    relmat: Mapping[str, Any] | None = None,
    fix: Mapping[str, float] | None = None,
    alpha: float = 0.05,
) -> MixedResult:
    """Meta-analysis and meta-regression, univariate, multilevel and multivariate, as metafor's ``rma`` and ``rma.mv``.

    Parameters
    ----------
    data : data frame
        One row for each effect.
    yi : str
        Column of the effects.
    vi : str, optional
        Column of their sampling variances.
    mods : str or list of str, optional
        Moderators: columns, products such as ``"a:b"``, expressions such as ``"I(year - 1970)"``, or a right-hand side
        ``"~ ablat + year"``.
    random : str or list of str, optional
        Random effects: ``"~ 1 | study"``, ``"~ 1 | district/school"``, ``"~ outcome | trial"`` (an effect for each
        outcome, with the covariance `struct`), or several of them. Without it each row has a true effect of its own.
    sei : str, optional
        Column of the standard errors, in the place of `vi`.
    V : array, data frame, list of arrays, or list of str, optional
        Sampling covariances of all rows: a matrix, its blocks in the order of the rows, or with `cluster` the columns
        that hold the rows of each cluster's block.
    rho : float, optional
        One sampling correlation of the effects of a `cluster`, with their variances `vi`.
    cluster : str, optional
        Column of the clusters whose sampling errors are correlated.
    struct : {"CS", "HCS", "UN", "DIAG", "ID", "AR", "HAR", "CAR"}
        Covariance of the effects left of the bar in ``"~ outcome | trial"``; metafor's words. For AR and HAR the left
        side counts times, for CAR it is time itself.
    method : {"REML", "ML", "EE"}
        "EE" (also "FE", "CE") has no random effects: a common effect.
    test : {"z", "knha", "t", "satterthwaite", "kenward-roger"}
        Tests and intervals: normal; Knapp and Hartung's; n - p degrees of freedom; or those of other mixed models.
    intercept : bool
    slab : str, optional
        Column of the names of the rows, in ``plot("forest")``.
    relmat : dict, optional
        Known covariance of the levels of a random effect, such as a phylogeny; see `lmer`.
    fix : dict, optional
        Parameters at given values, such as ``{"sd(_cons)": 0.3}``; see `lmer`.
    alpha : float
        One minus the confidence level of the results.

    Returns
    -------
    MixedResult
        `heterogeneity()`, ``plot("forest")`` and everything else that mixed models have.

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting.

    Examples
    --------
    >>> import lme4py
    >>> trials = {"trial": ["A", "B", "C", "D"], "yi": [0.1, 0.5, 0.3, 0.9], "vi": [0.01, 0.02, 0.01, 0.04]}
    >>> result = lme4py.meta(trials, "yi", "vi", slab="trial", test="knha")
    >>> result.coef_table().round(3).loc["_cons"].to_dict()
    {'estimate': 0.419, 'std_error': 0.164, 'df': 3.0, 'statistic': 2.546, 'p_value': 0.084}
    """
    frame = read_frame(find_source(data, "memory")[0])
    reml, common = _method(method)
    ddf = _known("test", test, _TESTS)
    level = check_alpha(alpha)
    sampling, frame, weights = _sampling(frame, vi, sei, V, rho, cluster)
    text, frame = ("", frame) if common else _random(frame, random, struct, slab)
    if common and random is not None:
        raise OptionError(f"method={method!r} is a common effect, without random ones; leave out random={random!r}.")
    formula = f"{term(yi, frame, 'yi')} ~ {_fixed(frame, mods, intercept)}{text}"
    result = lmer(
        formula,
        frame,
        reml=reml,
        weights=weights,
        residual=sampling,
        sigma=1.0,
        fixed_only=common,
        relmat=relmat,
        fix=fix,
    )
    spoken = result.fit.speaking(Conventions(stata=True, alpha=level, ddf=ddf))
    return MixedResult(_told(spoken, level))


def _told(fit: Any, alpha: float) -> Any:
    """The fit with Stata's names, and with what a meta-analysis reports among its notes."""
    design = with_stata_names(fit.design)
    kept = [note for note in design.notes if not note.startswith("sigma is known")]
    found = f"the sampling variances are known; heterogeneity: {heterogeneity(fit, alpha)}"
    return replace(fit, design=replace(design, notes=(*kept, found)))


def _known(argument: str, given: Any, known: Mapping[str, Any], fold: Any = str.lower) -> Any:
    """What one of some words means."""
    word = fold(given.strip()) if isinstance(given, str) else ""
    if word not in known:
        raise OptionError(
            f"{argument}={given!r} is not known.{did_you_mean(word, known)} Use {', '.join(map(repr, known))}."
        )
    return known[word]


def _method(method: Any) -> tuple[bool, bool]:
    """Whether by REML, and whether without random effects."""
    if isinstance(method, str) and method.strip().lower() in _COMMON:
        return False, True
    if isinstance(method, str) and method.strip().upper() in ("DL", "PM", "HE", "SJ", "HS", "EB"):
        raise OptionError(
            f"method={method!r} is an estimator by moments, which is not here; use 'REML', 'ML', or 'EE' for a common "
            "effect."
        )
    return bool(_known("method", method, _METHODS)), False


# --- sampling errors ----------------------------------------------------------------------------------------------


def _sampling(
    frame: Frame, vi: Any, sei: Any, V: Any, rho: Any, cluster: Any
) -> tuple[FloatArray | None, Frame, ArrayLike | None]:
    """The covariance matrix of the sampling errors, or None with weights of the rows."""
    given = [name for name, value in (("vi", vi), ("sei", sei), ("V", V)) if value is not None]
    if len(given) != 1:
        raise OptionError(
            f"{' and '.join(given) or 'none of vi, sei and V'} {'were' if given else 'was'} given; give the sampling "
            "variances vi=, or their roots sei=, or whole covariances V=."
        )
    if V is not None:
        if rho is not None:
            raise OptionError("rho= goes with vi= or sei=; V= holds the covariances already.")
        return _matrix(frame, V, cluster), frame, None
    variances = _variances(frame, vi, sei)
    if rho is None:
        if cluster is not None:
            raise OptionError("cluster= needs rho=, the sampling correlation within clusters, or V=.")
        return None, frame, 1.0 / variances
    return _of_rho(frame, variances, rho, cluster), frame, None


def _variances(frame: Frame, vi: Any, sei: Any) -> FloatArray:
    """Sampling variances, NaN where missing."""
    argument, name = ("vi", vi) if vi is not None else ("sei", sei)
    found = frame.column(column(name, frame, argument))
    if found.is_factor:
        raise DataError(f"`{argument}` names {name!r}, which is no column of numbers.")
    values = np.asarray(found.values, dtype=np.float64)
    bad = np.flatnonzero(~np.isnan(values) & ~((values > 0.0) & np.isfinite(values)))
    if bad.size:
        raise DataError(
            f"{name!r} is {values[bad[0]]:g} in row {bad[0]} ({bad.size} such row(s)); sampling variances and standard "
            "errors are positive numbers. A study without sampling error has no weight that is finite: leave it out."
        )
    return values if argument == "vi" else values**2


def _clusters(frame: Frame, cluster: Any) -> FloatArray:
    """Codes of the clusters, a missing one being one of its own."""
    if cluster is None:
        raise OptionError("correlated sampling errors need cluster=, the column whose levels they are correlated in.")
    codes = as_factor_column(frame.column(column(cluster, frame, "cluster"))).values.astype(float)
    codes[codes < 0] = -1.0 - np.arange(int((codes < 0).sum()))
    return np.asarray(codes)


def _of_rho(frame: Frame, variances: FloatArray, rho: Any, cluster: Any) -> FloatArray:
    if isinstance(rho, bool) or not isinstance(rho, int | float | np.number) or not -1.0 < float(rho) < 1.0:
        raise OptionError(f"rho={rho!r}; give a correlation between -1 and 1.")
    codes = _clusters(frame, cluster)
    sd = np.sqrt(np.where(np.isnan(variances), 1.0, variances))
    same = codes[:, None] == codes
    V: FloatArray = np.where(same, float(rho) * np.outer(sd, sd), 0.0)
    np.fill_diagonal(V, sd**2)
    return V


def _matrix(frame: Frame, V: Any, cluster: Any) -> Any:
    """A matrix as it is, blocks side by side, or columns that hold the rows of blocks."""
    if hasattr(V, "shape"):
        return V
    if not isinstance(V, list | tuple) or not V:
        raise OptionError(f"V is of type {type(V).__name__}; give a matrix, a list of blocks, or a list of columns.")
    if all(isinstance(one, str) for one in V):
        return _from_columns(frame, V, cluster)
    blocks = [np.atleast_2d(np.asarray(block, dtype=np.float64)) for block in V]
    sizes = sum(len(block) for block in blocks)
    if sizes != len(frame.index) or any(block.shape[0] != block.shape[1] for block in blocks):
        raise DataError(
            f"the blocks of V have {sizes} rows in all and the data {len(frame.index)}; give square blocks that follow "
            "the rows of the data."
        )
    import scipy.linalg

    return scipy.linalg.block_diag(*blocks)


def _from_columns(frame: Frame, names: Sequence[str], cluster: Any) -> FloatArray:
    codes = _clusters(frame, cluster)
    values = np.column_stack([frame.column(column(name, frame, "V")).values.astype(float) for name in names])
    V = np.zeros((codes.size, codes.size))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        if rows.size > len(names):
            raise DataError(
                f"a cluster of {cluster!r} has {rows.size} rows and V names {len(names)} columns; name one for each "
                "row."
            )
        V[np.ix_(rows, rows)] = values[rows, : rows.size]
    return V


# --- the formula --------------------------------------------------------------------------------------------------


def _fixed(frame: Frame, mods: Any, intercept: Any) -> str:
    if isinstance(mods, str) and mods.strip().startswith("~"):
        return f"{'' if intercept else '0 + '}{mods.strip()[1:].strip()}"
    terms = [term(entry, frame, "mods") for entry in as_list(mods, "mods")]
    return " + ".join(["1" if intercept else "0", *dict.fromkeys(terms)])


def _random(frame: Frame, random: Any, struct: Any, slab: Any) -> tuple[str, Frame]:
    """The random-effects terms, and the data with what they are grouped by."""
    if slab is not None:
        column(slab, frame, "slab")
    given = as_list(random, "random")
    if not given:
        name, frame = _rows(frame, slab)
        return f" + (1 | {quote(name)})", frame
    return "".join(f" + {_term(frame, one, struct)}" for one in given), frame


def _rows(frame: Frame, slab: Any) -> tuple[str, Frame]:
    """A factor with a level for each row: the names of the rows where these tell them apart."""
    if slab is not None:
        own = as_factor_column(frame.column(slab)).values
        if (own >= 0).all() and np.unique(own).size == own.size:
            return str(slab), frame
    n = len(frame.index)
    name = next(word for word in ("study", "effect", "estimate", "row_of_the_data") if word not in frame)
    levels = tuple(str(i + 1) for i in range(n))
    return name, frame.with_column(Column(name, "factor", np.arange(n, dtype=np.int32), levels))


def _term(frame: Frame, text: Any, struct: Any) -> str:
    found = _RANDOM.match(text) if isinstance(text, str) else None
    if found is None:
        raise OptionError(f"`random` is {text!r}; write '~ 1 | study', '~ 1 | district/school' or '~ outcome | trial'.")
    left, group = found["left"], found["group"]
    if left == "1":
        return f"(1 | {group})"
    word = _known("struct", struct, _STRUCTS, str.upper)
    inner = f"numFactor({left})" if word == "ou" else f"0 + {_coded(frame, left)}"
    return f"{word}({inner} | {group})"


def _coded(frame: Frame, left: str) -> str:
    """The factor left of the bar: numbers are levels there."""
    numeric = left in frame and not frame.column(left).is_factor
    return f"factor({quote(left)})" if numeric else left
