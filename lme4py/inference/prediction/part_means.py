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
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean
from lme4py.families.parts import ZERO_INFLATION
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import constant_df, quantile
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.inference.prediction.part_nodes import averaged_by_nodes
from lme4py.inference.prediction.rows import part_columns
from lme4py.linalg.types import FloatArray

__all__ = ["PartMean", "link_limits", "part_mean"]

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

    def errors(self, fit: Fit) -> FloatArray:
        """Standard errors by the delta method, shape (n,).

        Parameters
        ----------
        fit : Fit
        """
        vcov = model_of(fit).parameter_vcov()
        variance: FloatArray = np.maximum(np.einsum("ni,ij,nj->n", self.jacobian, vcov, self.jacobian), 0.0)
        return np.sqrt(variance)

    def limits(self, fit: Fit, alpha: float) -> list[FloatArray]:
        """Lower and upper limits, each (n,).

        Parameters
        ----------
        fit : Fit
        alpha : float
        """
        return link_limits(fit, self.link, self.value, self.errors(fit), alpha)


def link_limits(fit: Fit, link: Link, value: FloatArray, error: FloatArray, alpha: float) -> list[FloatArray]:
    """Limits that are symmetric on the scale of a link, each (n,).

    Parameters
    ----------
    fit : Fit
    link : Link
    value, error : ndarray, shape (n,)
        Estimates and standard errors.
    alpha : float
    """
    centre = link.eta(value)
    half = float(quantile(alpha, constant_df(fit, None))) * error / np.abs(link.derivatives(centre)[1])
    ends = np.stack([link.mean(centre - half), link.mean(centre + half)])
    return [ends.min(axis=0), ends.max(axis=0)]


def part_mean(fit: Fit, kind: str, rows: RowArrays, response: ResponseData, slopes: bool = True) -> PartMean:
    """Means over the random effects; the variance is that of a response of a new group.

    Parameters
    ----------
    fit : Fit
    kind : {"response", "conditional", "zprob", "dispersion", "variance"}
    rows : RowArrays
        Complete rows.
    response : ResponseData
        Of these rows, with their parts.
    slopes : bool
        Whether the gradients are needed.
    """
    family: Any = fit.family
    if kind in _PARTS and _PARTS[kind] in family.components:
        return _one(fit, _PARTS[kind], rows, response)
    joined = any(len(set(term.parts)) > 1 for term in fit.design.terms)
    if kind != "response" or ZERO_INFLATION not in family.components or not family.without_parts.mean_is_link or joined:
        return PartMean(*averaged_by_nodes(fit, kind, rows, response, slopes), family.moment_link(kind))
    mu = _one(fit, CONDITIONAL, rows, response)
    pi = _one(fit, ZERO_INFLATION, rows, response)
    value = (1.0 - pi.value) * mu.value
    jacobian = (1.0 - pi.value)[:, None] * mu.jacobian - mu.value[:, None] * pi.jacobian
    return PartMean(value, jacobian, family.moment_link(kind))


def _one(fit: Fit, part: str, rows: RowArrays, response: ResponseData) -> PartMean:
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
    v, slopes = _spread(fit, part, rows)
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
        z = np.sqrt(fit.design.terms[t].level_variance) * part_columns(fit, t, part, rows)
        total += np.einsum("na,ab,nb->n", z, fit.covariances[t], z)
        columns += [np.einsum("na,ab,nb->n", z, change, z) for change in structure.covariance_tangents(theta)]
    return total, np.column_stack(columns)
