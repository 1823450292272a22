"""Moments of a response averaged over the random effects of all its linear predictors, by Gauss-Hermite nodes."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import numpy as np

from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.prediction.rows import part_columns
from lme4py.linalg.types import FloatArray

__all__ = ["averaged_by_nodes"]

# Nodes for each linear predictor with random effects; of a standard deviation of 2 on the logit scale they leave 1e-6.
_NODES: Final = 32
# Differences of parameters in units of their standard errors, and the least.
_STEP: Final = 1e-3
_LEAST: Final = 1e-6
_MOST_PARTS: Final = 3


def averaged_by_nodes(
    fit: Fit, kind: str, rows: RowArrays, response: ResponseData, slopes: bool = True
) -> tuple[FloatArray, FloatArray]:
    """A moment over the random effects, (n,), and its derivatives in (theta, beta, lambda), (n, q).

    Parameters
    ----------
    fit : Fit
    kind : str
    rows : RowArrays
        Complete rows.
    response : ResponseData
        Of these rows, with their parts.
    slopes : bool
        False leaves the derivatives out, (n, 0).
    """
    average = _Average(fit, kind, rows, response)
    phi = np.concatenate([fit.theta, fit.beta, np.atleast_1d(fit.lam) if fit.family.n_nuisance else []])
    if not slopes:
        return average(phi), np.zeros((rows.n, 0))
    se = np.sqrt(np.maximum(np.diag(model_of(fit).parameter_vcov()), 0.0))
    jacobian = np.zeros((rows.n, phi.size))
    for i, size in enumerate(np.clip(np.nan_to_num(_STEP * se), _LEAST, 1e-2)):
        step = np.zeros(phi.size)
        step[i] = size
        jacobian[:, i] = (average(phi + step) - average(phi - step)) / (2.0 * size)
    return average(phi), jacobian


class _Average:
    """The moment as a function of all parameters."""

    def __init__(self, fit: Fit, kind: str, rows: RowArrays, response: ResponseData) -> None:
        family: Any = fit.family
        self.fit, self.family, self.kind, self.rows, self.response = fit, family, kind, rows, response
        self.parts = [part for part in family.components if self._has_random(part)]
        if len(self.parts) > _MOST_PARTS:
            raise family.lacks(f"averages over random effects of more than {_MOST_PARTS} parts; use simulate()")
        self.columns = {
            (t, part): part_columns(fit, t, part, rows) for t in range(len(fit.design.terms)) for part in self.parts
        }
        z, w = np.polynomial.hermite_e.hermegauss(_NODES)
        self.nodes = np.array(list(product(z, repeat=len(self.parts))))
        self.weights = np.array([np.prod(own) for own in product(w / w.sum(), repeat=len(self.parts))])

    def _has_random(self, part: str) -> bool:
        return any(part in term.column_parts for term in self.fit.design.terms)

    def __call__(self, phi: FloatArray) -> FloatArray:
        fit = self.fit
        m, p = fit.theta.size, fit.beta.size
        eta = self.rows.X @ phi[m : m + p] + self.rows.offset
        names = self.family.density.names
        x = list(self.family.variables(self.response, eta, phi[m + p :]).values())
        root = np.linalg.cholesky(self._covariance(phi[:m]))
        total, square = np.zeros(self.rows.n), np.zeros(self.rows.n)
        for z, w in zip(self.nodes, self.weights, strict=True):
            moved = root @ z
            there = list(x)
            for d, part in enumerate(self.parts):
                place = names.index(part)
                there[place] = there[place] + moved[:, d]
            if self.kind != "variance":
                total += w * self.family.moment(self.kind, self.response, there)
                continue
            # Of a new group: what varies within, and the means of groups.
            mean = self.family.moment("response", self.response, there)
            square += w * (self.family.moment("variance", self.response, there) + mean * mean)
            total += w * mean
        return square - total * total if self.kind == "variance" else total

    def _covariance(self, theta: FloatArray) -> FloatArray:
        """Covariance of the random parts of the predictors of each row, (n, D, D)."""
        structures = self.fit.design.structures
        size = len(self.parts)
        out = np.zeros((self.rows.n, size, size))
        for t, T in enumerate(structures.factors(theta)):
            # Of the scale of the levels' variance.
            sigma = self.fit.design.terms[t].level_variance * (T @ T.T)
            for d, first in enumerate(self.parts):
                for e, second in enumerate(self.parts):
                    left, right = self.columns[t, first], self.columns[t, second]
                    out[:, d, e] += np.einsum("na,ab,nb->n", left, sigma, right)
        # Rounding of a covariance of zero.
        return np.asarray(out + 1e-14 * np.eye(size))
