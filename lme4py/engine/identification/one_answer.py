"""Random effects whose variance has no finite estimate, because nothing varies within their groups.

Let every response of a group be the same answer: all successes, all failures, or one category. The probability of the
answers of a group is at most that of one of them, and the two are equal only in the limit of an infinite standard
deviation s, in which the sign of x'b + u alone decides, u standard normal and b the limit of beta / s. The likelihood
of all rows is therefore at most that of one row for each group, and rises to a supremum at infinity:

    prod_j [Phi(high_j) - Phi(low_j)],   high and low the ends of the interval of u that gives the answers of group j

(with a probit link the two likelihoods are those of the same models). The same limit is positive where groups do have
several answers but the predictors separate them within every group; whether it is above all finite values is then a
matter of numbers. Quadrature and Laplace's approximation fail on the way: they have a maximum at some large s, and can
lie above the supremum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp

from lme4py.chunks import chunk
from lme4py.design.design import Design, RandomTerm
from lme4py.errors import DesignError
from lme4py.families.base import Family
from lme4py.families.response import ResponseData
from lme4py.families.rows import HalfRows
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["refuse_one_answer", "refuse_perfect_groups"]

# Nodes of the trapezoidal rule for a standard normal variable, at least; more where rows change faster.
_NODES = 401
_MOST_NODES = 4001
_WIDTH = 9.0
# Values of all rows at all nodes, and of those that are held at a time.
_MOST_VALUES = 100_000_000
_CHUNK = chunk(2_000_000, 500)
# Multiples of the estimates at which the likelihood is compared with its limit.
_RAY = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class _Effect:
    """One scalar random effect of every group.

    Attributes
    ----------
    term : RandomTerm
    codes : ndarray of int, shape (n,)
    z : ndarray, shape (n,)
        Its multiple in each row.
    """

    term: RandomTerm
    codes: IntArray
    z: FloatArray

    @property
    def is_constant(self) -> bool:
        """Whether it is an intercept."""
        return bool((self.z == self.z[0]).all())


def _effects(terms: tuple[RandomTerm, ...]) -> Iterator[_Effect]:
    """Effects of terms that every row has: columns without zeros, and cells of columns of which each row has one.

    Terms of further linear predictors say nothing of the means.
    """
    for term in terms:
        if term.parts:
            continue
        nonzero = term.values != 0.0
        codes = term.codes.astype(np.intp)
        if term.n_columns > 1 and (nonzero.sum(axis=1) == 1).all():
            column = nonzero.argmax(axis=1)
            yield _Effect(term, codes * term.n_columns + column, term.values[np.arange(column.size), column])
        for c in np.flatnonzero(nonzero.all(axis=0)):
            yield _Effect(term, codes, term.values[:, c])


# --- one answer in every group ----------------------------------------------------------------------------------


def refuse_one_answer(design: Design, family: Family, data: ResponseData) -> None:
    """Refuse a design some random effect of which has groups with one answer each.

    Parameters
    ----------
    design : Design
    family : Family
    data : ResponseData

    Raises
    ------
    DesignError
    """
    answers = family.answers(data)
    half = family.half_rows(data, np.zeros(data.n_obs))
    if answers is None or not half.row.size or (half.sign == 0.0).any():
        return
    for effect in _effects(design.terms):
        if family.has_thresholds and not effect.is_constant:
            continue
        own = answers if effect.is_constant else answers * np.sign(effect.z)
        counts = _one_answer(own, effect.codes, half, data)
        if counts is None or (len(counts) == 1 and _in_span(effect.z, design.X)):
            # The same sign in all groups is a matter of the fixed effect.
            continue
        raise DesignError(_one_answer_message(effect, family, data, counts))


def _in_span(z: FloatArray, X: FloatArray) -> bool:
    if not X.shape[1]:
        return False
    rest = z - X @ np.linalg.lstsq(X, z, rcond=None)[0]
    return bool(np.linalg.norm(rest) <= 1e-8 * np.linalg.norm(z))


def _one_answer(answers: FloatArray, codes: IntArray, half: HalfRows, data: ResponseData) -> dict[float, int] | None:
    """How many groups have each answer; None where some group has two, or all have one piece of information only."""
    rows = half.row if half.threshold is None else np.unique(half.row)
    answer, own = answers[rows], codes[rows]
    n_groups = int(own.max()) + 1
    # One answer of each group; where it is not that of all rows, the group has two.
    of_group = np.full(n_groups, np.nan)
    of_group[own] = answer
    if (answer != of_group[own]).any():
        return None
    pieces = np.bincount(own, weights=data.n_trials[rows] if data.trials is not None else None, minlength=n_groups)
    if pieces.max() < 2.0:
        # One answer from each group: the variance is a matter of identification.
        return None
    values, counts = np.unique(of_group[~np.isnan(of_group)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _one_answer_message(effect: _Effect, family: Family, data: ResponseData, counts: dict[float, int]) -> str:
    term = effect.term
    listed = ", ".join(f"{count} {family.answer_name(data, answer)}" for answer, count in counts.items())
    what = f"gives one answer only ({listed})"
    if not effect.is_constant:
        what = f"has answers that follow the sign of a column of {term.label}"
    return (
        f"{term.label}: every level of {term.group} {what}. The likelihood rises without end as the variance grows, so "
        "that it has no finite estimate, and neither have the coefficients, which grow with it. Check the coding of "
        f"the response and of {term.group}; or take one row for each level of {term.group} and leave {term.label} out."
    )


# --- several answers that the predictors separate within every group ----------------------------------------------


def refuse_perfect_groups(
    design: Design,
    family: Family,
    data: ResponseData,
    beta: FloatArray,
    lam: Any,
    covariance: FloatArray,
    eta: FloatArray,
) -> None:
    """Refuse a fit whose likelihood is below its limit for an infinite variance.

    Only a random effect of one column can be compared; other fits are left alone.

    Parameters
    ----------
    design : Design
    family : Family
    data : ResponseData
    beta : ndarray, shape (p,)
    lam : float or ndarray
        The estimates.
    covariance : ndarray, shape (k, k)
        Of the only term.
    eta : ndarray, shape (n,)
        Linear predictor with the modes.

    Raises
    ------
    DesignError
    """
    effects = [e for e in _effects(design.terms) if e.term.n_columns == 1]
    sd = float(np.sqrt(covariance[0, 0]))
    if len(design.terms) != 1 or len(effects) != 1 or not sd > 0.0:
        return
    if family.answers(data) is None:
        return
    half = family.half_rows(data, np.zeros(data.n_obs))
    cuts = family.half_columns(half, data)
    cut = None if cuts is None else cuts @ lam
    if not half.row.size or (half.sign == 0.0).any() or (half.values(eta, cut) <= 0.0).any():
        return
    # Thresholds grow with the coefficients; the logarithm of a scale stays.
    grows = np.zeros(np.size(lam), dtype=bool) if cuts is None else (cuts != 0.0).any(axis=0)
    limit = _Limit(design, half, effects[0], None if cuts is None else cuts[:, grows])
    highest = limit.maximum(np.concatenate([beta, np.atleast_1d(lam)[grows]]) / sd)
    if highest > _highest_on_ray(design, family, data, effects[0], beta, lam, sd, grows):
        raise DesignError(
            f"{effects[0].term.label}: within every level of {effects[0].term.group} the fixed effects separate "
            f"{family.separates}. The likelihood rises without end as the variance and the coefficients grow together, "
            f"to {highest:.4f} (log) at least, so that they have no finite estimates, only ratios. Leave fixed effects "
            "out, or use a penalised method or more data."
        )


class _Limit:
    """log prod_j [Phi(high_j) - Phi(low_j)] as a function of (b, a): coefficients and thresholds over the deviation."""

    def __init__(self, design: Design, half: HalfRows, effect: _Effect, cuts: FloatArray | None) -> None:
        z = effect.z[half.row]
        columns = design.X[half.row]
        if cuts is not None:
            columns = np.hstack([columns, -cuts])
        # s (x'b - a + z u) > 0 is a bound of u: from below where s z > 0. Offsets vanish beside infinite coefficients.
        self.columns = -columns / z[:, None]
        lower = half.sign * z > 0.0
        self.sides = []
        for chosen in (lower, ~lower):
            order = np.argsort(effect.codes[half.row][chosen], kind="stable")
            codes = effect.codes[half.row][chosen][order]
            self.sides.append(
                (self.columns[chosen][order], np.flatnonzero(np.diff(codes, prepend=-1)), np.unique(codes))
            )
        self.n_groups = int(effect.codes.max()) + 1

    def __call__(self, b: FloatArray) -> float:
        low, high = np.full(self.n_groups, -np.inf), np.full(self.n_groups, np.inf)
        (lower, first, groups), (upper, start, others) = self.sides
        if groups.size:
            low[groups] = np.maximum.reduceat(lower @ b, first)
        if others.size:
            high[others] = np.minimum.reduceat(upper @ b, start)
        if (high <= low).any():
            return -np.inf
        # From the side where the probabilities are small.
        flip = low > 0.0
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        top, bottom = log_ndtr(high), log_ndtr(low)
        with np.errstate(divide="ignore"):
            return float((top + np.log1p(-np.exp(bottom - top))).sum())

    def _cost(self, b: FloatArray) -> float:
        return -max(self(b), -1e10)

    def maximum(self, b: FloatArray) -> float:
        """The largest value that is found from a start where there is one."""
        from scipy.optimize import minimize

        best = self(b)
        for _ in range(3 if b.size else 0):
            steps = {"maxiter": 200 * b.size}
            found: Any = minimize(self._cost, b, method="Nelder-Mead", options=steps)  # type: ignore[call-overload]
            if -found.fun <= best + 1e-6:
                break
            best, b = -float(found.fun), found.x
        return best


def _highest_on_ray(
    design: Design,
    family: Family,
    data: ResponseData,
    effect: _Effect,
    beta: FloatArray,
    lam: Any,
    sd: float,
    grows: BoolArray,
) -> float:
    """Largest log-likelihood at multiples of the estimates, by the trapezoidal rule; infinite where that is long."""
    values = []
    for t in _RAY:
        nodes = int(np.clip(8.0 * t * sd * _WIDTH, _NODES, _MOST_NODES))
        if nodes * data.n_obs > _MOST_VALUES:
            return np.inf
        own = np.where(grows, t * lam, lam) if family.has_thresholds else lam
        values.append(_log_likelihood(design, family, data, effect, t * beta, own, t * sd, nodes))
    return max(values)


def _log_likelihood(
    design: Design,
    family: Family,
    data: ResponseData,
    effect: _Effect,
    beta: FloatArray,
    lam: Any,
    sd: float,
    nodes: int,
) -> float:
    u = np.linspace(-_WIDTH, _WIDTH, nodes)
    fixed = design.X @ beta if design.offset is None else design.offset + design.X @ beta
    order = np.argsort(effect.codes, kind="stable")
    starts = np.flatnonzero(np.diff(effect.codes[order], prepend=-1))
    parts = []
    for part in np.array_split(u, max(1, nodes * data.n_obs // _CHUNK)):
        rows = family.loglik(data, fixed + sd * np.outer(part, effect.z), lam)
        parts.append(np.add.reduceat(rows.T[order], starts, axis=0))
    by_group = np.hstack(parts)
    log_weight = -0.5 * u * u + np.log((u[1] - u[0]) / np.sqrt(2.0 * np.pi))
    return float(logsumexp(by_group + log_weight, axis=1).sum())
