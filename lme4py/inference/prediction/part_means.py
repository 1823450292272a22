"""Means of models with further parts without known groups: averaged over the random effects, and their limits.

Every part is a mean of its own, f = E g^-1(eta + z'b) with the link of the part (logit of a zero part, the logarithm
of a dispersion); the mean of a response with a zero part is (1 - pi) mu. Limits are those of the delta method in the
coefficients and the covariance parameters, on the scale of a link that keeps them in their range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.design.design import CONDITIONAL
from lme4py.design.recipe import new_random_values
from lme4py.errors import OptionError
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean
from lme4py.families.parts import ZERO_INFLATION
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import constant_df, quantile
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.linalg.types import FloatArray

__all__ = ["PartMean", "part_mean"]

_PARTS: Final = {"conditional": CONDITIONAL, "zprob": ZERO_INFLATION, "dispersion": "dispersion"}


@dataclass(frozen=True)
class PartMean:
    """Means of rows with their gradients in all parameters.

    Attributes
    ----------
    value : ndarray, shape (n,)
    jacobian : ndarray, shape (n, q)
        In (theta, beta, lambda).
    link : Link
        On whose scale limits are made.
    """

    value: FloatArray
    jacobian: FloatArray
    link: Link

    def limits(self, fit: Fit, alpha: float) -> list[FloatArray]:
        """Lower and upper limits, each (n,).

        Parameters
        ----------
        fit : Fit
        alpha : float
        """
        vcov = model_of(fit).parameter_vcov()
        se = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", self.jacobian, vcov, self.jacobian), 0.0))
        centre = self.link.eta(self.value)
        half = float(quantile(alpha, constant_df(fit, None))) * se / np.abs(self.link.derivatives(centre)[1])
        ends = np.stack([self.link.mean(centre - half), self.link.mean(centre + half)])
        return [ends.min(axis=0), ends.max(axis=0)]


def part_mean(fit: Fit, kind: str, rows: RowArrays, response: ResponseData, average: bool) -> PartMean:
    """Means without conditional modes.

    Parameters
    ----------
    fit : Fit
    kind : {"response", "conditional", "zprob", "dispersion"}
    rows : RowArrays
        Complete rows.
    response : ResponseData
        Of these rows, with their parts.
    average : bool
        Over the random effects; else these are zero.
    """
    family: Any = fit.family
    if kind in _PARTS and _PARTS[kind] in family.components:
        return _one(fit, _PARTS[kind], rows, response, average)
    plain = family.without_parts
    if kind != "response" or ZERO_INFLATION not in family.components or not plain.mean_is_link:
        raise family.lacks(f"averages and limits of predictions of type {kind!r}; use simulate(), or bootstrap()")
    if average and any(len(set(term.parts)) > 1 for term in fit.design.terms):
        raise OptionError(
            "random effects of two parts are correlated, so that the mean over them is no product of means; use "
            "include_random=False, or type='conditional' or 'zprob'."
        )
    mu = _one(fit, CONDITIONAL, rows, response, average)
    pi = _one(fit, ZERO_INFLATION, rows, response, average)
    value = (1.0 - pi.value) * mu.value
    jacobian = (1.0 - pi.value)[:, None] * mu.jacobian - mu.value[:, None] * pi.jacobian
    link = PROBABILITY_LINKS["logit"] if family.kind in ("trials", "proportion") else LogMean()
    return PartMean(value, jacobian, link)


def _one(fit: Fit, part: str, rows: RowArrays, response: ResponseData, average: bool) -> PartMean:
    """The mean of one part."""
    family: Any = fit.family
    m, p = fit.theta.size, fit.beta.size
    if part == CONDITIONAL:
        X, eta, start, link = rows.X, rows.X @ fit.beta + rows.offset, m, family.link
    else:
        place = family.place(part)
        own = next(one for one in response.parts if one.name == part)
        X, eta = own.X, own.predictor(np.atleast_1d(fit.lam)[place])
        start = m + p + place.start
        link = PROBABILITY_LINKS["logit"] if part == ZERO_INFLATION else LogMean()
    v, slopes = _spread(fit, part, rows) if average else (np.zeros(rows.n), np.zeros((rows.n, m)))
    mean = averaged_mean(link, eta, v, 1)
    jacobian = np.zeros((rows.n, model_of(fit).parameter_vcov().shape[0]))
    jacobian[:, :m] = mean.v[:, None] * slopes
    jacobian[:, start : start + X.shape[1]] = mean.e[:, None] * X
    return PartMean(mean.f, jacobian, link)


def _spread(fit: Fit, part: str, rows: RowArrays) -> tuple[FloatArray, FloatArray]:
    """z'Sigma z of the random effects of one part, (n,), and its derivatives in theta, (n, m)."""
    structures = fit.design.structures
    total, columns = np.zeros(rows.n), []
    for t, (structure, theta) in enumerate(zip(structures.each, structures.split(fit.theta), strict=True)):
        # A root of the size of the levels' variance scales both sides.
        z = np.sqrt(fit.design.terms[t].level_variance) * _columns(fit, t, part, rows)
        total += np.einsum("na,ab,nb->n", z, fit.covariances[t], z)
        columns += [np.einsum("na,ab,nb->n", z, change, z) for change in structure.covariance_tangents(theta)]
    return total, np.column_stack(columns)


def _columns(fit: Fit, t: int, part: str, rows: RowArrays) -> FloatArray:
    """Columns of a term in one part, (n, k)."""
    term = fit.design.terms[t]
    if rows.frame is None:
        return term.values_of(part)
    values: FloatArray = term.masked(new_random_values(fit.design.recipe, rows.frame, t), part)
    return values
