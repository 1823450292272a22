"""Estimates of one model for many responses, or without each of many units of the data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from lme4py.chunks import chunk
from lme4py.errors import ConvergenceWarning, OptionError
from lme4py.fits.base import Fit
from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = [
    "TASK_NUMBERS",
    "TASK_REPLICATES",
    "Inferences",
    "Made",
    "Many",
    "UnitEstimate",
    "nothing",
    "one_by_one",
    "stacked",
    "unit_table",
]

# Numbers in the responses of one task, and its most replicates; independent of n_jobs, so that rounding is too.
TASK_NUMBERS = chunk(4_000_000, 4000)
TASK_REPLICATES = {"batch": chunk(1000), "single": chunk(20, 3)}

T = TypeVar("T")


@dataclass(frozen=True)
class Many:
    """Estimates for B responses, on the user's scale; NaN where a response has none.

    Attributes
    ----------
    beta : ndarray, shape (B, p)
    covariances : list of ndarray, each (B, k, k)
    sigma : ndarray, shape (B,)
        As `Fit.sigma`.
    dispersion : ndarray, shape (B,), or None
        Of a family that has one.
    thresholds : ndarray, shape (B, K - 1), or None
    others : ndarray, shape (B, k), or None
        Parameters of the family that are neither, as they are reported.
    residual : ndarray, shape (B, r), or None
        Of a residual structure, as `ResidualFit.residual_values`.
    failures : tuple of (int, str)
        Responses without estimates, and why.
    n_not_converged : int
    """

    beta: FloatArray
    covariances: list[FloatArray]
    sigma: FloatArray
    dispersion: FloatArray | None = None
    thresholds: FloatArray | None = None
    others: FloatArray | None = None
    residual: FloatArray | None = None
    failures: tuple[tuple[int, str], ...] = ()
    n_not_converged: int = 0

    def with_rows(self, rows: IntArray, other: Many) -> Many:
        """These, with the estimates of `other` in some rows."""

        def put(own: FloatArray | None, new: FloatArray | None) -> FloatArray | None:
            if own is None or new is None:
                return None
            out = own.copy()
            out[rows] = new
            return out

        def filled(own: FloatArray, new: FloatArray) -> FloatArray:
            out = own.copy()
            out[rows] = new
            return out

        return Many(
            filled(self.beta, other.beta),
            [filled(own, new) for own, new in zip(self.covariances, other.covariances, strict=True)],
            filled(self.sigma, other.sigma),
            put(self.dispersion, other.dispersion),
            put(self.thresholds, other.thresholds),
            put(self.others, other.others),
            put(self.residual, other.residual),
            (*self.failures, *((int(rows[i]), why) for i, why in other.failures)),
            self.n_not_converged + other.n_not_converged,
        )


@dataclass(frozen=True)
class Inferences:
    """What tests of the fixed effects need of the fits to B responses, on the user's scale; NaN where one has none.

    Attributes
    ----------
    many : Many
        The estimates.
    vcov : ndarray, shape (B, p, p)
    criterion : ndarray, shape (B,)
    singular : ndarray of bool, shape (B,)
    converged : ndarray of bool, shape (B,)
        False where there is no fit, or one without a certificate.
    jacobian : ndarray, shape (B, s, p, p), or None
        Derivatives of `vcov` in the variance parameters, and
    precision : ndarray, shape (B, s, s), or None
        their asymptotic covariance, for Satterthwaite's degrees of freedom; None where there are none.
    """

    many: Many
    vcov: FloatArray
    criterion: FloatArray
    singular: BoolArray
    converged: BoolArray
    jacobian: FloatArray | None = None
    precision: FloatArray | None = None

    def with_rows(self, rows: IntArray, other: Inferences) -> Inferences:
        """These, with those of `other` in some rows.

        Parameters
        ----------
        rows : ndarray of int
        other : Inferences
        """
        changed: dict[str, Any] = {}
        for name in ("vcov", "criterion", "singular", "converged", "jacobian", "precision"):
            own, new = getattr(self, name), getattr(other, name)
            if own is not None:
                own = own.copy()
                own[rows] = new
            changed[name] = own
        return replace(self, many=self.many.with_rows(rows, other.many), **changed)

    def t_df(self, L: FloatArray) -> FloatArray:
        """Satterthwaite's degrees of freedom of rows of L, (r, p), for every response, (B, r)."""
        if self.jacobian is None or self.precision is None:
            raise OptionError("Satterthwaite's degrees of freedom are for linear mixed models; use ddf='normal'.")
        variances = np.einsum("ri,bij,rj->br", L, self.vcov, L)
        gradients = np.einsum("ri,bsij,rj->brs", L, self.jacobian, L)
        spread = np.einsum("brs,bst,brt->br", gradients, self.precision, gradients)
        with np.errstate(divide="ignore", invalid="ignore"):
            df: FloatArray = 2.0 * variances**2 / spread
        return df


@dataclass(frozen=True)
class Made(Generic[T]):
    """What was made one by one: None where it failed, and why."""

    values: list[T | None]
    failures: tuple[tuple[int, str], ...]
    n_not_converged: int


def one_by_one(makers: Iterator[Callable[[], T]]) -> Made[T]:
    """Call every maker; whatever goes wrong in one is recorded, and fits that did not converge are counted.

    Parameters
    ----------
    makers : iterator of callable
    """
    values: list[T | None] = []
    failures, not_converged = [], 0
    for i, make in enumerate(makers):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                values.append(make())
            except Exception as error:
                values.append(None)
                failures.append((i, f"{error.__class__.__name__}: {error}"))
        not_converged += any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return Made(values, tuple(failures), not_converged)


def stacked(made: Made[Many], empty: Many) -> Many:
    """Estimates of single responses as one; rows that failed are those of `empty`, which has one row.

    Parameters
    ----------
    made : Made of Many
        Each of one response.
    empty : Many
        NaN, of one response.
    """
    rows = [empty if one is None else one for one in made.values]

    def joined(name: str) -> FloatArray | None:
        parts = [getattr(one, name) for one in rows]
        return None if parts[0] is None else np.concatenate(parts)

    beta, sigma = (np.concatenate([getattr(one, name) for one in rows]) for name in ("beta", "sigma"))
    covariances = [np.concatenate(parts) for parts in zip(*(one.covariances for one in rows), strict=True)]
    return Many(
        beta,
        covariances,
        sigma,
        joined("dispersion"),
        joined("thresholds"),
        joined("others"),
        joined("residual"),
        made.failures,
        made.n_not_converged,
    )


def nothing(
    rows: int, p: int, sizes: list[int], thresholds: int | None, dispersion: bool, others: int = 0, residual: int = 0
) -> Many:
    """No estimates for some responses.

    Parameters
    ----------
    rows, p : int
    sizes : list of int
        Columns of the random effects of each term.
    thresholds : int or None
    dispersion : bool
    others, residual : int
    """
    return Many(
        np.full((rows, p), np.nan),
        [np.full((rows, k, k), np.nan) for k in sizes],
        np.full(rows, np.nan),
        np.full(rows, np.nan) if dispersion else None,
        None if thresholds is None else np.full((rows, thresholds), np.nan),
        np.full((rows, others), np.nan) if others else None,
        np.full((rows, residual), np.nan) if residual else None,
    )


@dataclass(frozen=True)
class UnitEstimate:
    """What one fit without a unit gives, on the user's scale."""

    beta: FloatArray
    vcov: FloatArray
    sigma: float
    theta: FloatArray


def unit_table(fit: Fit, size: int) -> dict[str, FloatArray]:
    """Room for `UnitEstimate` of many units, by field: NaN throughout."""
    p = fit.beta.size
    shapes = {"beta": (p,), "vcov": (p, p), "sigma": (), "theta": (fit.theta.size,)}
    return {name: np.full((size, *shape), np.nan) for name, shape in shapes.items()}
