"""Linear mixed models of many responses of one design, fitted together whatever the sizes of the responses.

A response is y = X b + s r with b its ordinary least squares, r of standard deviation one. The model is equivariant:
the fit to r gives that to y by beta = b + s beta_r, sigma = s sigma_r and a criterion that is larger by df log s^2.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.design.build import lformula
from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Warning
from lme4py.families.registry import make_family
from lme4py.families.response import ResponseData
from lme4py.fits.answers.many import Inferences
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.inferences import of_batch
from lme4py.fits.linear.many import batch_solver
from lme4py.fits.linear.refit import Responses, random_start
from lme4py.fits.linear.steps import lmm_fit
from lme4py.fits.pilot import carrier
from lme4py.fits.truth import Truth
from lme4py.linalg.types import FloatArray
from lme4py.study.block import BlockOfFits, FitNumbers, VarianceColumn
from lme4py.study.columns import with_columns

__all__ = ["LinearTogether", "linear_together"]

_NAME = "response"
# Numbers of the responses that are in memory at a time, and the most responses of a block.
_NUMBERS, _MOST = chunk(4_000_000, 4000), chunk(1000)
# A response whose residuals are this part of it is determined by the fixed effects.
_DETERMINED = 1e-10
# The criterion can fall by less than this at the end.
_EXACT = 1e-17
# Gradients below this, in units of the curvature, are those of a minimum.
_GRADIENT = 1e-5
_OPTIONS = frozenset(("reml", "weights", "offset", "contrasts", "functions", "na_action"))


@dataclass(frozen=True)
class LinearTogether:
    """What all responses of a linear mixed model share.

    Attributes
    ----------
    fit : LinearFit
        To a response of standard deviation one.
    ddf : str
    keep : ndarray of bool, shape (n_data,)
        Rows that are used.
    Q : ndarray, shape (n, p)
        Of the weighted X = QR.
    R : ndarray, shape (p, p)
    """

    fit: LinearFit
    ddf: str
    Q: FloatArray
    R: FloatArray

    def size(self, n_rows: int) -> int:
        """Responses of one block."""
        return max(1, min(_MOST, _NUMBERS // max(n_rows, 1)))

    def fits(self, names: Sequence[Any], Y: FloatArray) -> tuple[BlockOfFits | None, list[int]]:
        """The fits to some responses, and the places of those that have to be fitted by themselves.

        Parameters
        ----------
        names : sequence
        Y : ndarray, shape (n_data, B)
        """
        fit, design = self.fit, self.fit.design
        own = Y[design.keep]
        whole = np.isfinite(own).all(axis=0)
        y = own[:, whole] if design.offset is None else own[:, whole] - design.offset[:, None]
        root = np.ones(design.n_obs) if design.weights is None else np.sqrt(design.weights)
        weighted = root[:, None] * y
        part = self.Q.T @ weighted
        rest = weighted - self.Q @ part
        # Once more: the first pass leaves rounding of the size of the response.
        again = self.Q.T @ rest
        rest -= self.Q @ again
        scale = np.sqrt(np.einsum("nb,nb->b", rest, rest) / design.n_obs)
        varies = scale > _DETERMINED * np.sqrt(np.einsum("nb,nb->b", weighted, weighted) / design.n_obs)
        places = np.flatnonzero(whole)[varies]
        ols: FloatArray = np.zeros((0, places.size))
        if self.R.size:
            ols = np.asarray(np.linalg.solve(self.R, (part + again)[:, varies]), dtype=np.float64)
        standard = rest[:, varies] / scale[varies] / root[:, None]
        if design.offset is not None:
            standard = standard + design.offset[:, None]
        found, gradient = _solved(fit, standard)
        good = found.converged
        kept = [names[i] for i in places[good]]
        block = BlockOfFits.of_numbers(_numbers(self, kept, found, gradient, good, ols, scale[varies]))
        done = set(places[good].tolist())
        return block, [i for i in range(len(names)) if i not in done]


def linear_together(formula: str, data: Any, options: Mapping[str, Any], ddf: str | None) -> LinearTogether | None:
    """What all responses share; None where each has to be fitted by itself.

    Parameters
    ----------
    formula : str
        Without a response.
    data : data frame
    options : mapping
        Of `lmer`.
    ddf : str or None
    """
    from lme4py.data.frame import read_frame

    if set(options) - _OPTIONS:
        return None
    frame = read_frame(data)
    name = next(f"{_NAME}{i or ''}" for i in range(10**6) if f"{_NAME}{i or ''}" not in frame.names)
    whole = with_columns(data, frame, {name: np.zeros(frame.n_rows)})
    given = {key: value for key, value in options.items() if key != "reml"}
    design = lformula(f"{name} {formula.strip()}", whole, **given)
    if design.smooth_terms:
        return None
    ones = tuple(0.25 * np.eye(term.n_columns) for term in design.terms)
    truth = Truth(np.zeros(design.X.shape[1]), ones, 0.0)
    if not all(term.structure.linear_factor for term in design.terms) or len(design.predictors) > 1:
        return None
    rows = ResponseData(design.y, None, design.weights)
    fit = carrier(design, make_family("gaussian"), truth, rows, lambda own: lmm_fit(own, options.get("reml", True)))
    if not isinstance(fit, LinearFit) or not fit.identification.complete:
        return None
    if batch_solver(fit, Responses(fit)) is None:
        return None
    root = np.ones(design.n_obs) if design.weights is None else np.sqrt(design.weights)
    Q, R = np.linalg.qr(root[:, None] * design.X)
    return LinearTogether(fit, fit.default_ddf if ddf is None else ddf, Q, R)


def _solved(fit: LinearFit, Y: FloatArray) -> tuple[Inferences, FloatArray]:
    with limited_threads(fit.design), warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        responses = Responses(fit)
        solver = batch_solver(fit, responses)
        if solver is None:
            raise ValueError("the model is fitted by itself")
        sums = solver.sums(*responses.products(Y))
        found = solver.solve(sums, random_start(fit), _EXACT)
        state = solver.evaluate(found.theta, sums)
        inferences = of_batch(fit, solver, found, sums)
    norm = np.sqrt(np.einsum("bi,bi->b", state.gradient, state.gradient))
    curved = np.linalg.eigvalsh(np.where(np.isfinite(state.hessian), state.hessian, -1.0))[:, 0] > -1e-6
    certified = inferences.converged & (norm < _GRADIENT * np.maximum(1.0, np.abs(state.value))) & curved
    return replace(inferences, converged=certified), norm


def _numbers(
    together: LinearTogether,
    names: list[Any],
    found: Inferences,
    gradient: FloatArray,
    good: Any,
    ols: FloatArray,
    scale: FloatArray,
) -> FitNumbers:
    """The numbers of the fits that are good."""
    fit = together.fit
    s = scale[good]
    beta = ols.T[good] + s[:, None] * found.many.beta[good]
    error = s[:, None] * np.sqrt(np.einsum("bii->bi", found.vcov[good]))
    size = fit.design.n_obs - (beta.shape[1] if fit.reml else 0)
    criterion = found.criterion[good] + 2.0 * size * np.log(s)
    sigma = s * found.many.sigma[good]
    covariances = [s[:, None, None] ** 2 * cov[good] for cov in found.many.covariances]
    return FitNumbers(
        names,
        fit.design.x_names,
        fit.design.n_obs,
        beta,
        error,
        _degrees(together, found, beta.shape[1])[good],
        _variances(fit, covariances, sigma),
        sigma,
        criterion,
        -0.5 * criterion,
        gradient[good],
        found.singular[good],
    )


def _degrees(together: LinearTogether, found: Inferences, p: int) -> FloatArray:
    if together.ddf == "satterthwaite":
        return found.t_df(np.eye(p))
    df = np.inf if together.ddf == "normal" else float(together.fit.design.n_obs - p)
    return np.full((found.vcov.shape[0], p), df)


def _variances(fit: LinearFit, covariances: list[FloatArray], sigma: FloatArray) -> list[VarianceColumn]:
    out: list[VarianceColumn] = []
    for term, cov in zip(fit.design.terms, covariances, strict=True):
        sd = np.sqrt(np.einsum("bii->bi", cov))
        k = term.n_columns
        out += [VarianceColumn(term.group, name, None, cov[:, i, i], sd[:, i]) for i, name in enumerate(term.columns)]
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)] if term.structure.has_correlations else []
        for i, j in pairs:
            size = sd[:, i] * sd[:, j]
            with np.errstate(divide="ignore", invalid="ignore"):
                shown = np.where(size > 0, cov[:, i, j] / size, np.nan)
            out.append(VarianceColumn(term.group, term.columns[i], term.columns[j], cov[:, i, j], shown))
    return [*out, VarianceColumn("Residual", None, None, sigma**2, sigma)]
