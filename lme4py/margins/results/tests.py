"""Tests of the estimates of a result: null values, equivalence, and jointly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.errors import OptionError
from lme4py.inference.tests.joint_tests import JointMethod
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.scales import transform
from lme4py.margins.results import multiplicity

if TYPE_CHECKING:
    from lme4py.margins.estimands.nearby import Nearest
    from lme4py.margins.results.result import MarginsResult

__all__ = ["equivalence_tests", "joint_test", "null_tests"]

# Eigenvalues of the covariance of standardised estimates below this part of the largest are rounding.
_RANK = 1e-9
# Gradients under a hypothesis that was found by iteration: squares of `lme4py.margins.estimands.nearby._RANK`.
_DEPENDENT = 1e-10
# Curved estimates whose correlation matrix has a smaller eigenvalue, beside the largest, are looked at under the
# hypothesis too: their gradients are dependent but for a tenth of a standard error or less.
_NEARLY = 0.01
# A Wald statistic this many times the smallest distance is about the plane it was drawn on.
_BENT = 4.0


def _upper_tail(statistic: FloatArray, df: FloatArray) -> FloatArray:
    """P(T > statistic), exact in the tail."""
    with np.errstate(invalid="ignore"):
        student = special.stdtr(np.where(np.isinf(df), 1.0, df), -statistic)
    return np.asarray(np.where(np.isinf(df), special.ndtr(-statistic), student))


def null_tests(result: MarginsResult, value: Any, alternative: str) -> dict[str, FloatArray]:
    """estimate, null, statistic, df, p_value."""
    from lme4py.margins.results.result import ratio

    null = result.null_value(value)
    statistic = ratio(result.value - null, result.se)
    if alternative == "two-sided":
        p = result._p_values(statistic)
    else:
        if result.adjustment not in ("none", *multiplicity.BY_P_VALUES):
            raise OptionError(f"one-sided tests are not adjusted by {result.adjustment!r}; use method='holm'.")
        p = _upper_tail(statistic if alternative == "greater" else -statistic, result.df)
        p = p if result.adjustment == "none" else result.adjusted(p)
    shown = transform(result.shown, null)[0]
    return {"estimate": result.estimate, "null": shown, "statistic": statistic, "df": result.df, "p_value": p}


def equivalence_tests(result: MarginsResult, bounds: tuple[float, float]) -> dict[str, FloatArray]:
    """Two one-sided tests against a lower and an upper bound."""
    from lme4py.margins.results.result import ratio

    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise OptionError(f"`equivalence` is {bounds!r}; give a lower and a larger upper bound.")
    low, high = (result.null_value(bound) for bound in bounds)
    above, below = ratio(result.value - low, result.se), ratio(result.value - high, result.se)
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
    known = result.estimable
    if not known.any():
        raise OptionError("none of the estimates can be estimated: there is nothing to test.")
    null = result.null_value(value)[known]
    result = result.known_part()
    gap = result.value - null
    se = np.where(result.se > 0, result.se, 1.0)
    correlation = result.covariance / np.outer(se, se)
    roots, vectors = np.linalg.eigh(correlation)
    keep = roots > _RANK * max(float(roots[-1]), 1e-300)
    rank = int(keep.sum())
    if rank == 0:
        raise OptionError("the estimates do not vary: there is nothing to test.")
    standard = gap / se
    left_over = np.abs(standard @ vectors[:, ~keep]).max(initial=0.0)
    consistent = left_over <= 1e-6 * max(float(np.abs(standard).max()), 1.0)
    wald = float(np.sum((standard @ vectors[:, keep]) ** 2 / roots[keep]))
    dependent = not consistent or float(roots[keep].min()) < _NEARLY * float(roots[-1])
    if result.nearby is not None and dependent:
        nearest = result.nearby.nearest(null, se)
        if nearest is None:
            raise OptionError(_impossible(result, value))
        if nearest.rank < rank or not consistent or wald > _BENT * nearest.distance:
            return _distance_test(result, nearest)
    elif result.is_curved and rank > 1 and dependent:
        raise OptionError(
            "this joint test of curved estimates needs the session that made them, and the result was pickled without "
            "it; make it again, or test on the link scale."
        )
    elif not consistent:
        raise OptionError(_impossible(result, value))
    if np.isfinite(result.df).any() and result.tests is not None:
        first = _independent(correlation)
        return _f_cells(result.tests.f_test(result.jacobian[first], gap[first]))
    return _chi2_cells(wald, rank)


def _distance_test(result: MarginsResult, nearest: Nearest) -> dict[str, float]:
    """The test of the distance from the nearest parameters under the hypothesis."""
    if np.isfinite(result.df).any() and result.tests is not None:
        rows, tests = nearest.jacobian, result.tests
        covariance = tests.covariance(rows) if isinstance(tests, JointMethod) else rows @ tests.vcov @ rows.T
        size = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        size = np.where(size > 0.0, size, 1.0)
        rows = rows / size[:, None]
        first = _independent(covariance / np.outer(size, size), _DEPENDENT)
        return _f_cells(result.tests.f_test(rows[first], rows[first] @ nearest.gap))
    return _chi2_cells(nearest.distance, nearest.rank)


def _chi2_cells(chi2: float, rank: int) -> dict[str, float]:
    return {"chi2": chi2, "df": float(rank), "p_value": float(special.chdtrc(rank, chi2))}


def _f_cells(test: Any) -> dict[str, float]:
    return {
        "F": float(test.F),
        "df": float(test.num_df),
        "df_denom": float(test.den_df),
        "p_value": float(test.p_value),
    }


def _impossible(result: MarginsResult, value: Any) -> str:
    """Why no parameters fulfil the hypothesis, in the words of who gave it."""
    size = np.abs(result.jacobian).max(axis=0)
    free = int(np.linalg.matrix_rank(result.jacobian / np.where(size > 0.0, size, 1.0)))
    rank = int(np.linalg.matrix_rank(result.correlation, hermitian=True))
    if not result.is_curved and rank < min(free, len(result)):
        return (
            f"the {len(result)} estimates are {free} hypotheses, but their covariance has rank {rank}: it comes from "
            "too few clusters or draws for a joint test; test fewer at a time."
        )
    if value is not None:
        return "the null values contradict each other: some estimates follow from others, and cannot have these values."
    usual = {"identity": "0", "exp": "1", "expit": "0.5"}[result.shown]
    return (
        f"the estimates cannot all be {usual}: some follow from the others, or from numbers that are known, such as an "
        "offset. Test fewer of them, differences of them, or give null values that are possible."
    )


def _independent(correlation: FloatArray, least: float = _RANK) -> list[int]:
    """The first estimates that do not follow from those before them.

    Satterthwaite's degrees of freedom of a joint test depend on the rows that stand for it: the user's own are taken.
    """
    rest, chosen = correlation.copy(), []
    for i in range(rest.shape[0]):
        if rest[i, i] > least:
            chosen.append(i)
            rest = rest - np.outer(rest[:, i], rest[i]) / rest[i, i]
    return chosen
