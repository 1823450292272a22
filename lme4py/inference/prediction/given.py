"""Conditional modes given the responses of other rows, the parameters being those of a fit: no refit.

With eta = o + X beta + Z Lambda u the modes minimise -2 sum l_i(eta_i) + u'u. In a linear mixed model they are
Sigma Z'V^-1(y - X beta), found in one step; else by Newton's method. With W the weights there and
A = Lambda'Z'WZ Lambda + I the effects have the conditional covariance C = Lambda A^-1 Lambda', and the error of a
predictor x'beta + z'b is, with D = C Z'WX,

    Var = z'C z + (x - D'z)'V_beta (x - D'z):

the modes move with the estimates of beta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse, special
from scipy.sparse.linalg import splu

from lme4py.chunks import chunk
from lme4py.data.frame import Frame
from lme4py.design.design import CONDITIONAL, Design, RandomTerm
from lme4py.design.joint import own_columns, stacked_columns
from lme4py.design.recipe import new_response, new_response_labels
from lme4py.design.replay import replayed, with_terms
from lme4py.design.responses.responses import observed_rows_of
from lme4py.engine.generalised.stacking import Stack
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.families.categories.counts import category_label, with_counts
from lme4py.families.parts import PartsFamily
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives
from lme4py.fits.answers.draws import covariance_roots
from lme4py.fits.base import Fit
from lme4py.fits.generalised.joint import coefficient_scores, coefficient_vcov
from lme4py.fits.refuse import refuse_related, refuse_smooths, refuse_without_random
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.rows.response import is_proportion
from lme4py.inference.estimates.random_effects import level_frames, one_or_dict
from lme4py.inference.prediction.categories import (
    CategoryRows,
    category_limits,
    category_table,
    coefficients_of,
    home_columns,
    with_general_family,
)
from lme4py.inference.prediction.given_residual import frame_of, given_modes, predict_rows
from lme4py.inference.prediction.ordinal import asked_errors, by_predictor, categories_shown
from lme4py.linalg.types import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GivenRows", "given_frames", "modes_given", "predict_given", "rows_given"]

_MOST_STEPS, _MOST_HALVINGS = 100, 40
# Newton decrement at which the modes are found: the square of what they can move in their own standard deviations.
_DONE = 1e-20
# Right-hand columns that are solved for at a time.
_COLUMNS = chunk(256)


@dataclass(frozen=True)
class GivenRows:
    """Effects of groups given the responses of some rows.

    Attributes
    ----------
    design : Design
        Of these rows, with their groups.
    modes : tuple of ndarray, each (J, k)
    solve : callable
        A^-1 times columns (q, c).
    root : sparse matrix, shape (q, q)
        Lambda, on the user's scale; rows run over terms, then levels, then columns.
    slopes : ndarray, shape (q, P)
        D = C Z'WX: what the effects lose as a coefficient rises, those of further parts and thresholds included.
    """

    design: Design
    modes: tuple[FloatArray, ...]
    solve: Callable[[FloatArray], FloatArray]
    root: Any
    slopes: FloatArray

    def covariances(self) -> tuple[FloatArray, ...]:
        """Conditional covariance of the effects of every level of each term, each (J, k, k)."""
        out, first = [], 0
        for term in self.design.terms:
            J, k = term.n_levels, term.n_columns
            block = np.empty((J, k, k))
            step = max(1, _COLUMNS // k)
            for start in range(0, J, step):
                own = np.arange(first + start * k, first + min(start + step, J) * k)
                C = self._cover(own)
                for i, j in enumerate(range(start, min(start + step, J))):
                    block[j] = C[i * k : (i + 1) * k, i * k : (i + 1) * k]
            out.append(block)
            first += J * k
        return tuple(out)

    def _cover(self, rows: Any) -> FloatArray:
        part = self.root[rows].toarray().T
        covered: FloatArray = part.T @ self.solve(part)
        return covered

    def variance(self, X: FloatArray, Z: Any, vcov: FloatArray) -> FloatArray:
        """Variance of the errors of predictors of rows, shape (n,).

        Parameters
        ----------
        X : ndarray, shape (n, p)
        Z : sparse matrix, shape (n, q)
        vcov : ndarray, shape (P, P)
            Of all coefficients.
        """
        left = self.moved(X, Z)
        fixed: FloatArray = np.einsum("np,pq,nq->n", left, vcov, left)
        return self.spread(Z, Z) + fixed

    def moved(self, X: FloatArray, Z: Any) -> FloatArray:
        """x - D'z of rows, (n, P)."""
        left: FloatArray = -(Z @ self.slopes)
        left[:, : X.shape[1]] += X
        return left

    def spread(self, Z: Any, other: Any) -> FloatArray:
        """z'Cx of rows z and x, shape (n,)."""
        out = np.empty(Z.shape[0])
        for start in range(0, out.size, _COLUMNS):
            rows = slice(start, start + _COLUMNS)
            left, right = ((own[rows] @ self.root).toarray().T for own in (Z, other))
            out[rows] = np.einsum("qn,qn->n", left, self.solve(right))
        return out


def rows_given(fit: Fit, frame: Frame, with_own: bool = False) -> tuple[Design, ResponseData]:
    """The rows that responses are given of.

    Parameters
    ----------
    fit : Fit
    frame : Frame
        With the response.
    with_own : bool
        The rows of the fit come first: what its groups are known by already.

    Returns
    -------
    Design
    ResponseData
    """
    refuse_related(fit, "modes given other rows are", "fit the model to all rows")
    values, present = new_response(fit.design.recipe, frame)
    whole = replayed(fit.design, frame, fit.family, keep_levels=with_own)
    complete = present[whole.keep]
    if not complete.all():
        raise DataError(
            f"{int((~complete).sum())} of {complete.size} of the rows given have no response; leave these rows out."
        )
    data = _read(fit, frame, whole, values[whole.keep])
    if not with_own:
        return whole, data
    return _joined(fit, whole, data)


def _read(fit: Fit, frame: Frame, design: Design, values: FloatArray) -> ResponseData:
    """The responses as the family works on them."""
    rows = design.response or ResponseData(np.zeros(design.n_obs), None, design.weights)
    if fit.categories:
        return _read_categories(fit, rows, new_response_labels(fit.design.recipe, frame), values)
    y = values[:, 0]
    if is_proportion(fit):
        y = np.rint(y * rows.n_trials)
    return replace(rows, y=y)


def _read_categories(fit: Fit, rows: ResponseData, labels: Sequence[Any], values: FloatArray) -> ResponseData:
    """Positions of the categories of rows, or how often these had each, in the order of the fit."""
    known = [category_label(level) for level in fit.categories]
    if rows.counts is not None:
        return with_counts(rows, values[:, [labels.index(label) for label in known]])
    y = values[:, 0]
    found = [category_label(level) for level in labels] or [category_label(number) for number in np.unique(y).tolist()]
    codes = y.astype(np.intp) if labels else np.unique(y, return_inverse=True)[1]
    strangers = [found[code] for code in np.unique(codes).tolist() if found[code] not in known]
    if strangers:
        raise DataError(
            f"the rows given have {strangers[0]}, which is no category of the fit ({', '.join(known)}); correct them."
        )
    table = np.array([known.index(label) if label in known else -1 for label in found])
    return replace(rows, y=table[codes].astype(np.float64))


def _joined(fit: Fit, design: Design, data: ResponseData) -> tuple[Design, ResponseData]:
    """The rows of the fit, then others, whose groups of the fit have the same places."""
    own = fit.design
    terms = tuple(
        replace(
            new,
            codes=np.concatenate([old.codes.astype(np.intp), new.codes]),
            values=np.concatenate([old.values, new.values]),
        )
        for old, new in zip(own.terms, design.terms, strict=True)
    )
    offset = None
    if own.offset is not None and design.offset is not None:
        offset = np.concatenate([own.offset, design.offset])
    n = own.n_obs + design.n_obs
    home = with_terms(design.predictors, terms)
    X = np.concatenate([own_columns(own), own_columns(design)])
    first = replace(home[0], X=stacked_columns(X, own.n_stacked), offset=offset)
    whole = replace(design, predictors=(first, *home[1:]), y=np.zeros(n), keep=np.ones(n, dtype=bool), columns=None)
    return whole, _stacked(fit.data, data)


def _stacked(a: ResponseData, b: ResponseData) -> ResponseData:
    def both(x: FloatArray | None, z: FloatArray | None) -> FloatArray | None:
        return None if x is None or z is None else np.concatenate([x, z])

    parts = tuple(
        replace(
            p,
            X=np.concatenate([p.X, q.X]),
            offset=None if p.offset is None or q.offset is None else np.concatenate([p.offset, q.offset]),
        )
        for p, q in zip(a.parts, b.parts, strict=True)
    )
    trials, weights, counts = both(a.trials, b.trials), both(a.weights, b.weights), both(a.counts, b.counts)
    return ResponseData(np.concatenate([a.y, b.y]), trials, weights, a.categories, (), parts, counts)


def modes_given(fit: Fit, design: Design, data: ResponseData) -> GivenRows:
    """Conditional modes of the groups of some rows.

    Parameters
    ----------
    fit : Fit
    design : Design
    data : ResponseData
        Their responses.

    Raises
    ------
    Lme4Error
        Responses that the family does not have, or modes that cannot be found.
    """
    refuse_without_random(fit, "modes given other rows are")
    refuse_smooths(fit, "modes given other rows are", "fit the model to all rows")
    if fit.pseudo_likelihood:
        raise OptionError("modes given other rows are not there for models with sampling weights; fit it to all rows.")
    root = _root(fit, design)
    rows = _RowsGiven(fit, data, design, root)
    u = np.zeros(root.shape[1])
    value, found = rows.at(u)
    if not np.isfinite(value):
        raise DataError("the rows given have a response that is impossible in this model; correct them.")
    for _ in range(_MOST_STEPS):
        slope = rows.B.T @ found.score - u
        step = rows.system(found)[1](slope)
        if float(slope @ step) < _DONE * max(1.0, float(u @ u)):
            break
        u, value, found = rows.moved(u, step, value)
    else:
        raise Lme4Error("the conditional modes given these rows could not be found; check their responses.")
    b = root @ u
    modes, first = [], 0
    for term in design.terms:
        size = term.n_levels * term.n_columns
        modes.append(b[first : first + size].reshape(term.n_levels, term.n_columns))
        first += size
    weights, solve = rows.system(found)
    own = weights[:, : design.X.shape[0]] @ design.X
    eta = rows.fixed + rows.B @ u
    columns = np.column_stack([own, *coefficient_scores(fit.family, data, eta, fit.lam)])
    slopes = root @ solve(np.asarray(rows.B.T @ columns))
    return GivenRows(design, tuple(modes), solve, root.tocsr(), np.asarray(slopes))


class _RowsGiven:
    """The rows as functions of the spherical effects u; further linear predictors stand below the first.

    Parameters
    ----------
    fit : Fit
    data : ResponseData
    design : Design
    root : sparse matrix
    """

    def __init__(self, fit: Fit, data: ResponseData, design: Design, root: Any) -> None:
        self.fit, self.data = fit, data
        self.stack = Stack(design.n_obs, 1 + len(fit.family.stacked))
        first = design.X @ fit.beta + (0.0 if design.stacked_offset is None else design.stacked_offset)
        self.fixed = first if design.n_stacked > 1 else self.stack.below(first)
        if self.stack.size == 1:
            columns = [design.Zt.T]
        else:
            columns = [_columns(design, part) for part in (CONDITIONAL, *fit.family.stacked)]
        self.B = (sparse.vstack(columns, format="csr") @ root).tocsr()

    def at(self, u: FloatArray) -> tuple[float, EtaDerivatives]:
        """-2 log-likelihood plus u'u, and the derivatives of the rows."""
        with np.errstate(all="ignore"):
            found = self.fit.family.derivatives(self.data, self.fixed + self.B @ u, self.fit.lam, 2, expected=False)
        value = -2.0 * float(np.sum(found.loglik)) + float(u @ u)
        return (value if np.isfinite(value) else np.inf), found

    def moved(self, u: FloatArray, step: FloatArray, value: float) -> tuple[FloatArray, float, EtaDerivatives]:
        """A step, shorter where the objective would rise."""
        for _ in range(_MOST_HALVINGS):
            trial = u + step
            new, found = self.at(trial)
            if new <= value + 1e-10 * max(1.0, abs(value)):
                return trial, new, found
            step = 0.5 * step
        raise Lme4Error("the conditional modes given these rows could not be found; check their responses.")

    def system(self, found: EtaDerivatives) -> tuple[Any, Callable[[FloatArray], FloatArray]]:
        """The observed weights as a matrix and A^-1 times columns; of working weights where A would not be positive."""
        for own in (found.w_obs, found.w_work):
            weights = self._matrix(own)
            A = (sparse.identity(self.B.shape[1], format="csc") + self.B.T @ weights @ self.B).tocsc()
            factor = splu(A, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
            if (factor.U.diagonal() > 0.0).all():
                break
        return weights, factor.solve

    def _matrix(self, weights: FloatArray) -> Any:
        size, blocks = self.stack.size, weights.reshape(len(self.stack.pairs), -1)
        grid: list[list[Any]] = [[None] * size for _ in range(size)]
        for (d, e), own in zip(self.stack.pairs, blocks, strict=True):
            grid[d][e] = grid[e][d] = sparse.diags_array(own)
        return sparse.block_array(grid, format="csr")


def _columns(design: Design, part: str) -> Any:
    """The rows of Z with the columns of one linear predictor, as `Design.Zt` has them."""
    own = tuple(replace(term, values=term.values_of(part)) for term in design.terms)
    return replace(design, predictors=tuple(with_terms(design.predictors, own))).Zt.T


def _root(fit: Fit, design: Design) -> Any:
    """Lambda, block diagonal over terms and levels."""
    blocks = [
        sparse.kron(sparse.identity(term.n_levels, format="csr"), root, format="csr")
        for term, root in zip(design.terms, covariance_roots(fit.covariances), strict=True)
    ]
    return sparse.block_diag(blocks, format="csc")


# --- what users see ---------------------------------------------------------------------------------------------


def given_frames(fit: Fit, data: Any, conditional_se: bool = False) -> Any:
    """Conditional modes of the groups of some rows as data frames, and their conditional standard deviations.

    Parameters
    ----------
    fit : Fit
    data : data frame
        With the response.
    conditional_se : bool
    """
    design, own, covariances = _modes_of(fit, observed_rows_of(fit.design, data))
    modes = one_or_dict(level_frames(design, own))
    if not conditional_se:
        return modes
    sds = tuple(np.sqrt(np.diagonal(block, axis1=1, axis2=2)) for block in covariances())
    return modes, one_or_dict(level_frames(design, sds))


def _modes_of(fit: Fit, frame: Frame) -> tuple[Design, tuple[FloatArray, ...], Callable[[], tuple[FloatArray, ...]]]:
    if isinstance(fit, ResidualFit):
        design, modes, covariances = given_modes(fit, frame)
        return design, modes, lambda: covariances
    design, response = rows_given(fit, frame)
    found = modes_given(fit, design, response)
    return design, found.modes, found.covariances


def predict_given(
    fit: Fit, frame: Frame, given: Frame | None, type: str, interval: str | None, alpha: float, se: bool
) -> pd.Series[Any] | pd.DataFrame:
    """Predictions of rows whose groups have modes that are updated by the responses of other rows.

    Parameters
    ----------
    fit : Fit
    frame : Frame
        The rows to predict.
    given : Frame or None
        None for the rows of the fit alone, which say more than its modes do where residuals are correlated.
    type : {"response", "linear"}
        Of categories also "prob", "cumulative" and "class".
    interval : {None, "confidence", "prediction"}
        Normal limits; "prediction" in linear mixed models. Those of probabilities are normal on the logit scale.
    alpha : float
    se : bool
    """

    if isinstance(fit, ResidualFit):
        quantile = float(-special.ndtri(alpha / 2.0))
        return frame_of(*predict_rows(fit, frame, given), frame.index, quantile, interval, se)
    if given is None:
        raise OptionError(
            "given=True is for models with a residual structure; the modes of others have it all: leave given= out."
        )
    if interval == "prediction" and not fit.normal_errors:
        raise OptionError("interval='prediction' with given= is for linear mixed models; use interval='confidence'.")
    found = modes_given(fit, *rows_given(fit, given, with_own=True))
    rows = replayed(fit.design, frame, fit.family, keep_levels=True)
    z = float(-special.ndtri(alpha / 2.0))
    if fit.categories and type != "linear":
        z = 1.0 if interval is None else z
        parts = _probabilities_given(fit, found, rows, type, None if interval is None and not se else z)
        parts = parts if len(parts) == 1 else asked_errors(parts, z, se, interval is not None)
        table = np.full((frame.n_rows, len(fit.categories), len(parts)), np.nan)
        table[rows.keep] = np.stack(parts, -1)
        return categories_shown(fit, table, frame.index, type)
    if fit.family.is_joint:
        each = [_linear_given(fit, found, rows, d, interval, z, se) for d in range(rows.n_stacked)]
        return by_predictor(fit, [_on_index(part, rows, frame) for part in each])
    Z, _ = _placed(fit, found, rows)
    modes = np.concatenate([own.ravel() for own in found.modes])
    if type != "linear" and not fit.family.mean_is_link:
        eta = rows.X @ fit.beta + (0.0 if rows.offset is None else rows.offset) + Z @ modes
        return _response_given(fit, found, rows, eta, modes, frame, interval, se)
    columns = _linear_given(fit, found, rows, 0, interval, z, se)
    if not (fit.family.link.is_identity or type == "linear"):
        columns = _means(fit, columns)
    whole = _on_index(columns, rows, frame)
    return whole if len(columns) > 1 else whole["predicted"]


def _on_index(columns: Mapping[str, FloatArray], rows: Design, frame: Frame) -> pd.DataFrame:
    """Columns of the complete rows on the index of all."""
    import pandas as pd

    whole = pd.DataFrame(np.nan, index=frame.index, columns=list(columns))
    whole.loc[rows.keep] = np.column_stack(list(columns.values()))
    return whole


def _linear_given(
    fit: Fit, found: GivenRows, rows: Design, d: int, interval: str | None, z: float, se: bool
) -> dict[str, FloatArray]:
    """Linear predictor number d of rows, and what is asked for beside it."""
    n = rows.n_obs
    X = rows.X[d * n : (d + 1) * n]
    known = 0.0 if rows.stacked_offset is None else rows.stacked_offset[d * n : (d + 1) * n]
    Z, unknown = _placed(fit, found, rows, fit.family.homes[d] if fit.family.is_joint else CONDITIONAL)
    eta = X @ fit.beta + known + Z @ np.concatenate([own.ravel() for own in found.modes])
    columns = {"predicted": eta}
    if not se and interval is None:
        return columns
    variance = found.variance(X, Z, coefficient_vcov(fit)) + unknown
    if se:
        columns["std_error"] = np.sqrt(variance)
    if interval is not None:
        weights = 1.0 if rows.weights is None else rows.weights
        half = z * np.sqrt(variance + (fit.sigma**2 / weights if interval == "prediction" else 0.0))
        columns |= {"lower": eta - half, "upper": eta + half}
    return columns


def _means(fit: Fit, columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Means, with errors by the delta method and limits through the link."""
    link, eta = fit.family.link, columns["predicted"]
    out = {"predicted": fit.family.mean(eta)}
    if "std_error" in columns:
        out["std_error"] = np.abs(link.derivatives(eta)[1]) * columns["std_error"]
    if "lower" in columns:
        means = np.sort(np.stack([link.edge_mean(columns[end]) for end in ("lower", "upper")]), axis=0)
        out |= {"lower": means[0], "upper": means[1]}
    return out


def _probabilities_given(fit: Fit, found: GivenRows, rows: Design, type: str, z: float | None) -> list[FloatArray]:
    """Probabilities of the categories of complete rows, and their limits where `z` is given, each (n, K)."""
    general, homes, n = with_general_family(fit), fit.family.homes, rows.n_obs
    modes = np.concatenate([own.ravel() for own in found.modes])
    placed = [_placed(fit, found, rows, home) for home in homes]
    known = np.zeros(len(homes) * n) if rows.stacked_offset is None else rows.stacked_offset
    known = known.reshape(len(homes), n) + np.stack([Z @ modes for Z, _ in placed])
    X = (own_columns(rows),) * len(homes)
    own = CategoryRows(X, known, rows.response or ResponseData(np.zeros(n)))
    moved, random = None, None
    if z is not None:
        whole = home_columns(X, coefficients_of(fit).size)
        moved = [found.moved(columns, Z) for columns, (Z, _) in zip(whole, placed, strict=True)]
        random = np.stack([[found.spread(Z, other) for other, _ in placed] for Z, _ in placed]).transpose(2, 0, 1)
        random = random + _unknown(fit, found, rows)
    table = category_table(general, own, z is not None, moved=moved)
    table = table.cumulative() if type == "cumulative" else table
    return [table.p] if z is None else [table.p, *category_limits(general, table, z, random)]


def _unknown(fit: Fit, found: GivenRows, rows: Design) -> FloatArray:
    """Covariance of the linear predictors by effects of groups that are not among those given, (n, D, D)."""
    homes = fit.family.homes
    out = np.zeros((rows.n_obs, len(homes), len(homes)))
    for term, old, covariance in zip(rows.terms, found.design.terms, fit.covariances, strict=True):
        values = np.stack([term.values_of(home) for home in homes])
        own = np.einsum("dna,ab,enb->nde", values, covariance, values)
        out += np.where((_codes_among(term, old) < 0)[:, None, None], own, 0.0)
    return out


def _response_given(
    fit: Fit,
    found: GivenRows,
    rows: Design,
    eta: FloatArray,
    modes: FloatArray,
    frame: Frame,
    interval: str | None,
    se: bool,
) -> pd.Series[float]:
    """Means of responses with further parts, zeros included."""
    import pandas as pd

    family = fit.family
    if not isinstance(family, PartsFamily) or rows.response is None:
        raise family.lacks("means given other rows; use type='linear'")
    if interval is not None or se:
        raise family.lacks("limits of means given other rows; use type='linear'")
    parts = [part.plus(_placed(fit, found, rows, part.name)[0] @ modes) for part in rows.response.parts]
    values = family.predicted("response", replace(rows.response, parts=tuple(parts)), eta, fit.lam)
    whole = pd.Series(np.nan, index=frame.index, name="predicted")
    whole.loc[rows.keep] = values
    return whole


def _placed(fit: Fit, found: GivenRows, rows: Design, part: str = CONDITIONAL) -> tuple[Any, FloatArray]:
    """Z of rows among the groups of others, and the variance of effects of groups that are not among them."""
    unknown, blocks = np.zeros(rows.n_obs), []
    for term, old, covariance in zip(rows.terms, found.design.terms, fit.covariances, strict=True):
        codes = _codes_among(term, old)
        known = codes >= 0
        values = term.values_of(part)
        unknown += np.where(known, 0.0, np.einsum("na,ab,nb->n", values, covariance, values))
        k = term.n_columns
        at = np.repeat(np.flatnonzero(known), k)
        columns = (codes[known][:, None] * k + np.arange(k)).ravel()
        shape = (rows.n_obs, old.n_levels * k)
        blocks.append(sparse.coo_array((values[known].ravel(), (at, columns)), shape=shape))
    return sparse.hstack(blocks, format="csr"), unknown


def _codes_among(term: RandomTerm, old: RandomTerm) -> IntArray:
    """Places of the groups of rows among those of others; -1 for new ones, (n,)."""
    place = {level: j for j, level in enumerate(old.levels)}
    table = np.array([place.get(level, -1) for level in term.levels], dtype=np.intp)
    codes: IntArray = table[term.codes]
    return codes
