"""Conditional modes given the responses of other rows, the parameters being those of a fit: no refit.

With eta = o + X beta + Z Lambda u the modes minimise -2 sum l_i(eta_i) + u'u. In a linear mixed model they are
Sigma Z'V^-1(y - X beta), found in one step; else by Newton's method. With W the weights there and
A = Lambda'Z'WZ Lambda + I the effects have the conditional covariance C = Lambda A^-1 Lambda', and the error of a
predictor x'beta + z'b is, with D = C Z'WX,

    Var = z'C z + (x - D'z)'V_beta (x - D'z):

the modes move with the estimates of beta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse, special
from scipy.sparse.linalg import splu

from lme4py.chunks import chunk
from lme4py.data.frame import Frame, read_frame
from lme4py.design.design import Design
from lme4py.design.recipe import new_response
from lme4py.design.replay import replayed
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.families.response import ResponseData
from lme4py.fits.answers.draws import covariance_roots
from lme4py.fits.base import Fit
from lme4py.fits.refuse import refuse_related
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.rows.response import is_proportion, numeric_categories
from lme4py.inference.estimates.random_effects import level_frames, one_or_dict
from lme4py.inference.prediction.given_residual import frame_of, given_modes, predict_rows
from lme4py.linalg.types import FloatArray

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
    slopes : ndarray, shape (q, p)
        D = C Z'WX.
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
        vcov : ndarray, shape (p, p)
            Of the fixed effects.
        """
        out = np.empty(X.shape[0])
        for start in range(0, out.size, _COLUMNS):
            rows = slice(start, start + _COLUMNS)
            part = (Z[rows] @ self.root).toarray().T
            left = X[rows] - Z[rows] @ self.slopes
            out[rows] = np.einsum("qn,qn->n", part, self.solve(part)) + np.einsum("np,pq,nq->n", left, vcov, left)
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
    data = _read(fit, whole, values[whole.keep])
    if not with_own:
        return whole, data
    return _joined(fit, whole, data)


def _read(fit: Fit, design: Design, values: FloatArray) -> ResponseData:
    """The responses as the family works on them."""
    rows = design.response or ResponseData(np.zeros(design.n_obs), None, design.weights)
    y = values[:, 0]
    if is_proportion(fit):
        y = np.rint(y * rows.n_trials)
    if numeric_categories(fit):
        places = {float(level): float(i) for i, level in enumerate(fit.categories)}
        unknown = sorted(set(y.tolist()) - set(places))
        if unknown:
            raise DataError(f"the rows given have {unknown[0]:g}, which is no category of the fit; correct them.")
        y = np.array([places[value] for value in y.tolist()])
    return replace(rows, y=y)


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
    first = replace(design.predictors[0], X=np.concatenate([own.X, design.X]), terms=terms, offset=offset)
    whole = replace(
        design, predictors=(first, *design.predictors[1:]), y=np.zeros(n), keep=np.ones(n, dtype=bool), columns=None
    )
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
    return ResponseData(
        np.concatenate([a.y, b.y]), both(a.trials, b.trials), both(a.weights, b.weights), a.categories, (), parts
    )


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
    Zt = design.Zt
    root = _root(fit, design)
    B = (Zt.T @ root).tocsr()
    fixed = design.X @ fit.beta + (0.0 if design.offset is None else design.offset)
    u = np.zeros(B.shape[1])
    value, score, weights = _rows(fit, data, fixed, u, B)
    if not np.isfinite(value):
        raise DataError("the rows given have a response that is impossible in this model; correct them.")
    for _ in range(_MOST_STEPS):
        factor = splu((sparse.identity(u.size, format="csc") + (B.T @ B.multiply(weights[:, None]))).tocsc())
        slope = B.T @ score - u
        step = factor.solve(slope)
        if float(slope @ step) < _DONE * max(1.0, float(u @ u)):
            break
        u, value, score, weights = _moved(fit, data, fixed, u, step, value, B)
    else:
        raise Lme4Error("the conditional modes given these rows could not be found; check their responses.")
    b = root @ u
    modes, first = [], 0
    for term in design.terms:
        size = term.n_levels * term.n_columns
        modes.append(b[first : first + size].reshape(term.n_levels, term.n_columns))
        first += size
    observed, solve = _curvature(fit, data, fixed, u, B)
    slopes = root @ solve(np.asarray(B.T @ (observed[:, None] * design.X)))
    return GivenRows(design, tuple(modes), solve, root.tocsr(), np.asarray(slopes))


def _curvature(
    fit: Fit, data: ResponseData, fixed: FloatArray, u: FloatArray, B: Any
) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
    """The observed weights at the modes and A^-1 times columns; of working weights where A would not be positive."""
    found = fit.family.derivatives(data, fixed + B @ u, fit.lam, 3, expected=False)
    for weights in (found.w_obs, found.w_work):
        A = (sparse.identity(u.size, format="csc") + (B.T @ B.multiply(weights[:, None]))).tocsc()
        factor = splu(A, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        if (factor.U.diagonal() > 0.0).all():
            break
    return weights, factor.solve


def _root(fit: Fit, design: Design) -> Any:
    """Lambda, block diagonal over terms and levels."""
    blocks = [
        sparse.kron(sparse.identity(term.n_levels, format="csr"), root, format="csr")
        for term, root in zip(design.terms, covariance_roots(fit.covariances), strict=True)
    ]
    return sparse.block_diag(blocks, format="csc")


def _rows(
    fit: Fit, data: ResponseData, fixed: FloatArray, u: FloatArray, B: Any
) -> tuple[float, FloatArray, FloatArray]:
    """-2 log-likelihood plus u'u, and score and working weights of the rows."""
    with np.errstate(all="ignore"):
        found = fit.family.derivatives(data, fixed + B @ u, fit.lam, 2, expected=False)
    value = -2.0 * float(np.sum(found.loglik)) + float(u @ u)
    return (value if np.isfinite(value) else np.inf), found.score, found.w_work


def _moved(
    fit: Fit, data: ResponseData, fixed: FloatArray, u: FloatArray, step: FloatArray, value: float, B: Any
) -> tuple[FloatArray, float, FloatArray, FloatArray]:
    """A step, shorter where the objective would rise."""
    for _ in range(_MOST_HALVINGS):
        trial = u + step
        new, score, weights = _rows(fit, data, fixed, trial, B)
        if new <= value + 1e-10 * max(1.0, abs(value)):
            return trial, new, score, weights
        step = 0.5 * step
    raise Lme4Error("the conditional modes given these rows could not be found; check their responses.")


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
    design, own, covariances = _modes_of(fit, read_frame(data))
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
) -> pd.Series[float] | pd.DataFrame:
    """Predictions of rows whose groups have modes that are updated by the responses of other rows.

    Parameters
    ----------
    fit : Fit
    frame : Frame
        The rows to predict.
    given : Frame or None
        None for the rows of the fit alone, which say more than its modes do where residuals are correlated.
    type : {"response", "linear"}
    interval : {None, "confidence", "prediction"}
        Normal limits; "prediction" in linear mixed models.
    alpha : float
    se : bool
    """
    import pandas as pd

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
    eta = rows.X @ fit.beta + (0.0 if rows.offset is None else rows.offset)
    Z, unknown = _placed(fit, found, rows)
    eta = eta + Z @ np.concatenate([modes.ravel() for modes in found.modes])
    variance = found.variance(rows.X, Z, fit.vcov) + unknown
    if interval == "prediction":
        weights = 1.0 if rows.weights is None else rows.weights
        spread = variance + fit.sigma**2 / weights
    else:
        spread = variance
    link, is_plain = fit.family.link, fit.family.link.is_identity or type == "linear"
    columns = {"predicted": eta if is_plain else fit.family.mean(eta)}
    if se:
        slope = 1.0 if is_plain else np.abs(link.derivatives(eta)[1])
        columns["std_error"] = slope * np.sqrt(variance)
    if interval is not None:
        half = -special.ndtri(alpha / 2.0) * np.sqrt(spread)
        ends = [eta - half, eta + half]
        if not is_plain:
            means = np.sort(np.stack([link.edge_mean(end) for end in ends]), axis=0)
            ends = [means[0], means[1]]
        columns |= {"lower": ends[0], "upper": ends[1]}
    whole = pd.DataFrame(np.nan, index=frame.index, columns=list(columns))
    whole.loc[rows.keep] = np.column_stack(list(columns.values()))
    return whole if len(columns) > 1 else whole["predicted"]


def _placed(fit: Fit, found: GivenRows, rows: Design) -> tuple[Any, FloatArray]:
    """Z of rows among the groups of others, and the variance of effects of groups that are not among them."""
    unknown, blocks = np.zeros(rows.n_obs), []
    for term, old, covariance in zip(rows.terms, found.design.terms, fit.covariances, strict=True):
        place = {level: j for j, level in enumerate(old.levels)}
        table = np.array([place.get(level, -1) for level in term.levels], dtype=np.intp)
        codes = table[term.codes]
        known = codes >= 0
        unknown += np.where(known, 0.0, np.einsum("na,ab,nb->n", term.values, covariance, term.values))
        k = term.n_columns
        at = np.repeat(np.flatnonzero(known), k)
        columns = (codes[known][:, None] * k + np.arange(k)).ravel()
        shape = (rows.n_obs, old.n_levels * k)
        blocks.append(sparse.coo_array((term.values[known].ravel(), (at, columns)), shape=shape))
    return sparse.hstack(blocks, format="csr"), unknown
