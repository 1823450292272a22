"""Means of models with further parts without known groups: averaged over the random effects, and their limits.

Every part is a mean of its own, f = E g^-1(eta + z'b) with the link of the part (logit of a zero part, the logarithm
of a dispersion); the mean of a response with a zero part is (1 - pi) mu, or an average over both where their random
effects are joined. Limits are those of the delta method in the coefficients and the covariance parameters, on the scale
of a link that keeps them in their range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any, Final

import numpy as np

from lme4py.chunks import chunk
from lme4py.design.design import CONDITIONAL
from lme4py.families.densities.base import Density
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean
from lme4py.families.parts import ZERO_INFLATION
from lme4py.families.response import ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.rows.arrays import RowArrays
from lme4py.inference.estimates.coefficients import constant_df, quantile
from lme4py.inference.prediction.averages import averaged_mean
from lme4py.inference.prediction.joint_averages import Index, averaged, lattice
from lme4py.inference.prediction.rows import part_columns
from lme4py.linalg.types import FloatArray

__all__ = ["PartMean", "link_limits", "part_mean"]

# Differences of parameters in units of their standard errors, and the least.
_STEP: Final = 1e-3
_LEAST: Final = 1e-6
# Values of rows at nodes that are held at a time.
_TABLE: Final = chunk(200_000)
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


def link_limits(
    fit: Fit, link: Link, value: FloatArray, error: FloatArray, alpha: float, ddf: str | None = None
) -> list[FloatArray]:
    """Limits that are symmetric on the scale of a link, each (n,).

    Parameters
    ----------
    fit : Fit
    link : Link
    value, error : ndarray, shape (n,)
        Estimates and standard errors.
    alpha : float
    ddf : str, optional
        Degrees of freedom that all rows have in common; those of the fit when not given.
    """
    centre = link.eta(value)
    half = float(quantile(alpha, constant_df(fit, ddf))) * error / np.abs(link.derivatives(centre)[1])
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
    link = family.moment_link(kind)
    if kind != "response":
        return PartMean(*_by_differences(fit, kind, rows, response, slopes), link)
    base, zeros = family.without_parts, ZERO_INFLATION in family.components
    own = [part for part in family.components if part == CONDITIONAL or not base.mean_is_link]
    if zeros and any({ZERO_INFLATION, part} <= set(term.column_parts) for term in fit.design.terms for part in own):
        return _by_nodes(fit, family.density, list(dict.fromkeys([*own, ZERO_INFLATION])), rows, response, slopes)
    own = [part for part in own if part != ZERO_INFLATION]
    mu = (
        _one(fit, CONDITIONAL, rows, response)
        if base.mean_is_link
        else _by_nodes(fit, base.density, own, rows, response, slopes)
    )
    if not zeros:
        return replace(mu, link=link)
    pi = _one(fit, ZERO_INFLATION, rows, response)
    jacobian = (1.0 - pi.value)[:, None] * mu.jacobian - mu.value[:, None] * pi.jacobian
    return PartMean((1.0 - pi.value) * mu.value, jacobian, link)


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
    v, slopes = _covariance(fit, fit.theta, (part, part), rows), _covariance_slopes(fit, (part, part), rows)
    mean = averaged_mean(link, eta, v, 1)
    jacobian = np.zeros((rows.n, model_of(fit).parameter_vcov().shape[0]))
    jacobian[:, :m] = mean.v[:, None] * slopes
    jacobian[:, start : start + X.shape[1]] = mean.e[:, None] * X
    return PartMean(mean.f, jacobian, link)


def _covariance(fit: Fit, theta: FloatArray, pair: tuple[str, str], rows: RowArrays) -> FloatArray:
    """z'Sigma w of the random effects of two parts, (n,)."""
    factors = fit.design.structures.factors(theta)
    columns = (_columns(fit, t, pair, rows) for t in range(len(factors)))
    return np.asarray(sum(np.einsum("na,na->n", z @ T, w @ T) for T, (z, w) in zip(factors, columns, strict=True)))


def _covariance_slopes(fit: Fit, pair: tuple[str, str], rows: RowArrays) -> FloatArray:
    """Derivatives of `_covariance` in theta, (n, m)."""
    structures, out = fit.design.structures, []
    for t, (structure, theta) in enumerate(zip(structures.each, structures.split(fit.theta), strict=True)):
        z, w = _columns(fit, t, pair, rows)
        out += [np.einsum("na,ab,nb->n", z, change, w) for change in structure.covariance_tangents(theta)]
    return np.column_stack(out)


def _columns(fit: Fit, t: int, pair: tuple[str, str], rows: RowArrays) -> list[FloatArray]:
    """Columns of a term in two parts; a root of the size of the levels' variance scales both sides."""
    root = np.sqrt(fit.design.terms[t].level_variance)
    return [root * part_columns(fit, t, part, rows) for part in pair]


def _by_nodes(
    fit: Fit, density: Density, chosen: Sequence[str], rows: RowArrays, response: ResponseData, slopes: bool
) -> PartMean:
    """The mean of a distribution over the random effects of the chosen parts, which may be correlated."""
    family: Any = fit.family
    m = fit.theta.size
    known = family.variables(response, rows.X @ fit.beta + rows.offset, fit.lam)
    columns = {CONDITIONAL: rows.X, **{part.name: part.X for part in response.parts}}
    columns |= {one.name: np.ones((rows.n, 1)) for one in family.nuisance}
    starts = dict(zip(columns, m + np.cumsum([0, *(X.shape[1] for X in columns.values())]), strict=False))
    names = [name for name in density.names if name in (*chosen, *(one.name for one in family.nuisance))]
    values: dict[Index, FloatArray] = {(i,): np.broadcast_to(known[name], (rows.n,)) for i, name in enumerate(names)}
    places = [i for i, name in enumerate(names) if name in chosen]
    pairs: dict[Index, tuple[str, str]] = {
        (i, j): (names[i], names[j]) for i, j in combinations_with_replacement(places, 2)
    }
    values |= {key: _covariance(fit, fit.theta, pair, rows) for key, pair in pairs.items()}
    value, first, _ = averaged(density, names, values, int(slopes))
    jacobian = np.zeros((rows.n, model_of(fit).parameter_vcov().shape[0]))
    for key, slope in zip(values, first, strict=False):
        if len(key) == 2:
            jacobian[:, :m] += slope[:, None] * _covariance_slopes(fit, pairs[key], rows)
        else:
            X, start = columns[names[key[0]]], starts[names[key[0]]]
            jacobian[:, start : start + X.shape[1]] = slope[:, None] * X
    return PartMean(value, jacobian, family.moment_link("response"))


def _by_differences(
    fit: Fit, kind: str, rows: RowArrays, response: ResponseData, slopes: bool
) -> tuple[FloatArray, FloatArray]:
    """A moment over the random effects, (n,), and its derivatives in (theta, beta, lambda), (n, q), by differences."""
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
    """A moment of a response of a new group as a function of all parameters."""

    def __init__(self, fit: Fit, kind: str, rows: RowArrays, response: ResponseData) -> None:
        self.fit, self.kind, self.rows, self.response = fit, kind, rows, response
        self.family: Any = fit.family
        self.parts = [p for p in self.family.components if any(p in t.column_parts for t in fit.design.terms)]

    def __call__(self, phi: FloatArray) -> FloatArray:
        m, p = self.fit.theta.size, self.fit.beta.size
        eta = self.rows.X @ phi[m : m + p] + self.rows.offset
        x = list(self.family.variables(self.response, eta, phi[m + p :]).values())
        places = [self.family.density.names.index(part) for part in self.parts]
        spread: dict[Index, FloatArray] = {
            (i, j): _covariance(self.fit, phi[:m], (one, two), self.rows)
            for (i, one), (j, two) in combinations_with_replacement(zip(places, self.parts, strict=True), 2)
        }
        return self._over_nodes(x, spread)

    def _over_nodes(self, x: list[FloatArray], spread: Mapping[Index, FloatArray]) -> FloatArray:
        n = self.rows.n
        random, roots, nodes, weights = lattice(spread, n)
        total, square = np.zeros(n), np.zeros(n)
        size = max(1, _TABLE // max(n, 1))
        for start in range(0, weights.size, size):
            z, w = nodes[start : start + size], weights[start : start + size]
            there = list(x)
            for i, shift in zip(random, np.einsum("nij,qj->iqn", roots, z), strict=True):
                there[i] = there[i] + shift
            if self.kind != "variance":
                total += w @ self.family.moment(self.kind, self.response, there)
                continue
            # What varies within a group, and the means of groups.
            mean = self.family.moment("response", self.response, there)
            square += w @ (self.family.moment("variance", self.response, there) + mean * mean)
            total += w @ mean
        return square - total * total if self.kind == "variance" else total
