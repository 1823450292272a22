"""Tests of the estimates of a result: null values, equivalence, and jointly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.engine.types import FloatArray
from lme4py.errors import OptionError
from lme4py.margins import multiplicity
from lme4py.margins.scales import transform

if TYPE_CHECKING:
    from lme4py.margins.result import MarginsResult

__all__ = ["equivalence_tests", "joint_test", "null_tests"]

# Eigenvalues of the covariance of standardised estimates below this part of the largest are rounding.
_RANK = 1e-9


def _upper_tail(statistic: FloatArray, df: FloatArray) -> FloatArray:
    """P(T > statistic), exact in the tail."""
    with np.errstate(invalid="ignore"):
        student = special.stdtr(np.where(np.isinf(df), 1.0, df), -statistic)
    return np.asarray(np.where(np.isinf(df), special.ndtr(-statistic), student))


def null_tests(result: MarginsResult, value: Any, alternative: str) -> dict[str, FloatArray]:
    """estimate, null, statistic, df, p_value."""
    from lme4py.margins.result import _ratio

    null = result.null_value(value)
    statistic = _ratio(result.value - null, result.se)
    if alternative == "two-sided":
        p = result._p_values(statistic)
    else:
        if result.adjustment not in ("none", *multiplicity.BY_P_VALUES):
            raise OptionError(f"one-sided tests are not adjusted by {result.adjustment!r}; use method='holm'.")
        p = _upper_tail(statistic if alternative == "greater" else -statistic, result.df)
        p = p if result.adjustment == "none" else multiplicity.adjusted(p, result.adjustment)
    shown = transform(result.shown, null)[0]
    return {"estimate": result.estimate, "null": shown, "statistic": statistic, "df": result.df, "p_value": p}


def equivalence_tests(result: MarginsResult, bounds: tuple[float, float]) -> dict[str, FloatArray]:
    """Two one-sided tests against a lower and an upper bound."""
    from lme4py.margins.result import _ratio

    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise OptionError(f"`equivalence` is {bounds!r}; give a lower and a larger upper bound.")
    low, high = (result.null_value(bound) for bound in bounds)
    above, below = _ratio(result.value - low, result.se), _ratio(result.value - high, result.se)
    p_above, p_below = _upper_tail(above, result.df), _upper_tail(-below, result.df)
    return {
        "estimate": result.estimate,
        "lower": transform(result.shown, low)[0],
        "upper": transform(result.shown, high)[0],
        "statistic_lower": above,
        "p_lower": p_above,
        "statistic_upper": below,
        "p_upper": p_below,
        "df": result.df,
        "p_value": np.maximum(p_above, p_below),
    }


def joint_test(result: MarginsResult, value: Any) -> dict[str, float]:
    """Wald chi-square test, or the F test of the model's degrees of freedom."""
    gap = result.value - result.null_value(value)
    se = np.where(result.se > 0, result.se, 1.0)
    roots, vectors = np.linalg.eigh(result.covariance / np.outer(se, se))
    keep = roots > _RANK * max(float(roots[-1]), 1e-300)
    rank = int(keep.sum())
    if rank == 0:
        raise OptionError("the estimates do not vary: there is nothing to test.")
    standard = gap / se
    left_over = standard @ vectors[:, ~keep]
    if np.abs(left_over).max(initial=0.0) > 1e-6 * max(float(np.abs(standard).max()), 1.0):
        raise OptionError("the null values contradict each other: some estimates follow from others.")
    if np.isfinite(result.df).any() and result.tests is not None:
        first = _independent(result.covariance / np.outer(se, se))
        test = result.tests.f_test(result.jacobian[first], gap[first])
        return {
            "F": float(test.F),
            "df": float(test.num_df),
            "df_denom": float(test.den_df),
            "p_value": float(test.p_value),
        }
    chi2 = float(np.sum((standard @ vectors[:, keep]) ** 2 / roots[keep]))
    return {"chi2": chi2, "df": float(rank), "p_value": float(special.chdtrc(rank, chi2))}


def _independent(correlation: FloatArray) -> list[int]:
    """The first estimates that do not follow from those before them.

    Satterthwaite's degrees of freedom of a joint test depend on the rows that stand for it: the user's own are taken.
    """
    rest, chosen = correlation.copy(), []
    for i in range(rest.shape[0]):
        if rest[i, i] > _RANK:
            chosen.append(i)
            rest = rest - np.outer(rest[:, i], rest[i]) / rest[i, i]
    return chosen
