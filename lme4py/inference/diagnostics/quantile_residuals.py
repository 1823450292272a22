"""Quantile residuals by simulation: where a response stands among responses drawn from the fitted model.

The residual of a row is a draw from the uniform distribution between P(Y < y) and P(Y <= y) among the simulated
responses (Dunn & Smyth 1996, J. Comput. Graph. Stat. 5:236, with the empirical distribution function in place of the
theoretical one, as R's DHARMa has it). Under the model it is uniform on 0 .. 1, whatever the family; 0 and 1 mark rows
outside all simulated values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.errors import Lme4Error, OptionError, did_you_mean
from lme4py.families.ordered.categories import category_label
from lme4py.fits.base import Fit
from lme4py.fits.refuse import refuse_structured
from lme4py.fits.rows.response import is_proportion, numeric_categories
from lme4py.inference.prediction.predictor import linear_predictor
from lme4py.inference.prediction.rows import chosen_terms, make_rows, on_data_index
from lme4py.inference.refits.simulate import check_count, check_seed, make_simulator
from lme4py.linalg.types import BoolArray, FloatArray
from lme4py.tables.html import render_html
from lme4py.tables.numbers import format_p_value
from lme4py.tables.shown import Shown, facts
from lme4py.tables.table import Align, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["QuantileResiduals", "SimulationTest", "category_quantiles", "quantile_residuals"]

_SIMULATIONS = 250
ALTERNATIVES = ("two-sided", "greater", "less")


@dataclass(frozen=True)
class SimulationTest:
    """A test of quantile residuals.

    Attributes
    ----------
    name : str
    statistic : float
        What is tested; see the method.
    p_value : float
    alternative : str
        "two-sided", "greater" or "less".
    expected : float
        The statistic where the model is right.
    """

    name: str
    statistic: float
    p_value: float
    alternative: str
    expected: float

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {self.statistic:.4g} (expected {self.expected:.4g}), p = {self.p_value:.4g}, "
            f"{self.alternative}>"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("Statistic", f"{self.statistic:.4g}"),
            ("Expected", f"{self.expected:.4g}"),
            ("p", format_p_value(self.p_value)),
            ("Alternative", self.alternative),
        ]
        return render_html([facts(f"Test of {self.name}", rows)])


@dataclass(frozen=True, repr=False)
class QuantileResiduals(Shown):
    """Quantile residuals with the simulated responses that they come from.

    Attributes
    ----------
    residuals : Series
        Between 0 and 1, on the data's own index.
    n : int
        Number of simulated responses.
    observed : ndarray, shape (n_obs,)
        Responses of the rows used, in the form of the simulations.
    simulated : ndarray, shape (n_obs, n)
    expected : ndarray, shape (n_obs,)
        Fitted means under the same random effects as the simulations.
    is_discrete : bool
        Whether simulated and observed values can be equal.
    trials : ndarray, shape (n_obs,), or None
        What makes proportions counts.
    """

    residuals: pd.Series[float] = field(repr=False)
    n: int
    observed: FloatArray = field(repr=False)
    simulated: FloatArray = field(repr=False)
    expected: FloatArray = field(repr=False)
    is_discrete: bool = False
    trials: FloatArray | None = field(default=None, repr=False)

    def _tables(self) -> list[Table]:
        tests = [self.test_uniformity(), self.test_dispersion(), self.test_outliers()]
        if self.is_discrete:
            tests.append(self.test_zero_inflation())
        rows = tuple(
            (test.name, f"{test.statistic:.4g}", f"{test.expected:.4g}", format_p_value(test.p_value)) for test in tests
        )
        align: tuple[Align, ...] = ("left", "right", "right", "right")
        title = f"Quantile residuals of {len(self.residuals)} rows, {self.n} simulations"
        return [Table(title, ("Test", "Statistic", "Expected", "p"), rows, align)]

    @property
    def normal(self) -> pd.Series[float]:
        """The residuals as quantiles of the normal distribution; 0 and 1 as half a simulation from the end."""
        inside = self.residuals.clip(0.5 / self.n, 1.0 - 0.5 / self.n)
        return inside.map(special.ndtri).rename("residual")

    def test_uniformity(self, alternative: str = "two-sided") -> SimulationTest:
        """Kolmogorov-Smirnov test of the residuals against the uniform distribution.

        Parameters
        ----------
        alternative : {"two-sided", "greater", "less"}
        """
        from scipy.stats import kstest

        values = self.residuals.to_numpy()
        found = kstest(values[np.isfinite(values)], "uniform", alternative=_known(alternative))
        return SimulationTest("uniformity (KS)", float(found.statistic), float(found.pvalue), alternative, 0.0)

    def test_dispersion(self, alternative: str = "two-sided") -> SimulationTest:
        """Variance of response minus fitted mean, over the mean of those of the simulated responses.

        With ``include_random=False`` in `quantile_residuals` (the default) both variances hold the differences between
        groups too, which can hide overdispersion within groups; ``include_random=True`` looks within groups alone, with
        values below 1 for a right model, as its random effects were estimated from the same rows. Several trials per
        row count as numbers of successes, however the response was written.

        Parameters
        ----------
        alternative : {"two-sided", "greater", "less"}
            "greater": overdispersion.
        """
        size = np.ones(self.observed.size) if self.trials is None else self.trials
        simulated = np.var((self.simulated - self.expected[:, None]) * size[:, None], axis=0, ddof=1)
        observed = float(np.var((self.observed - self.expected) * size, ddof=1))
        p = _rank_p(observed, simulated, alternative)
        return SimulationTest("dispersion", observed / float(simulated.mean()), p, alternative, 1.0)

    def test_zero_inflation(self, alternative: str = "two-sided") -> SimulationTest:
        """Number of zeros, over the mean of those of the simulated responses.

        Parameters
        ----------
        alternative : {"two-sided", "greater", "less"}
            "greater": more zeros than the model expects.
        """
        simulated = (self.simulated == 0.0).sum(axis=0).astype(float)
        observed = float((self.observed == 0.0).sum())
        p = _rank_p(observed, simulated, alternative)
        mean = float(simulated.mean())
        ratio = observed / mean if mean else (np.inf if observed else 1.0)
        return SimulationTest("zero inflation", ratio, p, alternative, 1.0)

    def test_outliers(self, alternative: str = "two-sided") -> SimulationTest:
        """Number of rows outside all their simulated values.

        A continuous response is outside n of them with probability 2 / (n + 1): a binomial test. Discrete ones are so
        more rarely, and the number is compared with that of each simulated response among the others.

        Parameters
        ----------
        alternative : {"two-sided", "greater", "less"}
        """
        low, high = self.simulated.min(axis=1), self.simulated.max(axis=1)
        count = float(((self.observed < low) | (self.observed > high)).sum())
        if self.is_discrete:
            simulated = _outliers_among_simulated(self.simulated, low, high)
            expected = float(simulated.mean())
            return SimulationTest("outliers", count, _rank_p(count, simulated, alternative), alternative, expected)
        from scipy.stats import binomtest

        rate = 2.0 / (self.n + 1.0)
        p = float(binomtest(int(count), self.observed.size, rate, alternative=_known(alternative)).pvalue)
        return SimulationTest("outliers", count, p, alternative, rate * self.observed.size)


def quantile_residuals(
    fit: Fit,
    n: int = _SIMULATIONS,
    seed: int | None = None,
    include_random: bool | str | Iterable[str] = False,
    category: Any = None,
) -> QuantileResiduals:
    """Where the responses stand among simulated ones (uniform on 0 .. 1 if the model is right), with tests.

    Parameters
    ----------
    fit : Fit
    n : int
        Number of simulated responses; residuals are multiples of 1/n for continuous responses.
    seed : int, optional
    include_random : bool, str or iterable of str
        False draws new random effects for every simulated response, so that residuals of one group are correlated and
        the whole model is checked; True keeps the conditional modes; names of grouping factors keep the modes of these.
    category : object, optional
        Of unordered categories: how often this one occurs, against all others. Without it the residuals are those of
        the positions of the categories in the order of the model, the baseline first.

    Returns
    -------
    QuantileResiduals
        With `residuals` and the tests `test_uniformity`, `test_dispersion`, `test_zero_inflation`, `test_outliers`.

    Examples
    --------
    >>> from lme4py import glmer, load_dataset
    >>> result = glmer("count ~ mined + (1 | site)", load_dataset("Salamanders"), "poisson")
    >>> checks = result.quantile_residuals(seed=1)
    >>> round(checks.test_zero_inflation().p_value, 3)
    0.008
    """
    refuse_structured(
        fit, "quantile residuals, whose tests take the rows as independent, are", "use residuals('normalized')"
    )
    place = None if category is None else _place(fit, category)
    drawn, last = _draws(fit, check_count("n", n, 20), seed, include_random)
    return _standing(fit, drawn, last, include_random, place)


def category_quantiles(fit: Fit, seed: int | None = None) -> FloatArray:
    """Quantile residuals of each category against all others, from the same simulated responses, (n, K).

    Parameters
    ----------
    fit : Fit
        Of unordered categories.
    seed : int, optional
    """
    drawn, last = _draws(fit, _SIMULATIONS, seed, False)
    parts = [_standing(fit, drawn, last, False, k).residuals.to_numpy() for k in range(len(fit.categories))]
    table: FloatArray = np.column_stack(parts)
    return table if len(table) == fit.design.n_obs else table[fit.design.keep]


def _draws(
    fit: Fit, count: int, seed: int | None, include_random: bool | str | Iterable[str]
) -> tuple[FloatArray, np.random.SeedSequence]:
    """Simulated responses, and what ties are broken with."""
    seeds = np.random.SeedSequence(check_seed(seed)).spawn(count + 1)
    drawn = make_simulator(fit, include_random).draw(seeds[:-1])
    if np.isnan(drawn).any():
        raise Lme4Error(
            "some simulated responses have a mean outside the range of the link: the random effects that were drawn "
            "are too large for it. Use include_random=True, or a model with a log link."
        )
    return drawn, seeds[-1]


def _standing(
    fit: Fit,
    drawn: FloatArray,
    last: np.random.SeedSequence,
    include_random: bool | str | Iterable[str],
    place: int | None,
) -> QuantileResiduals:
    """Where responses stand among simulated ones; of one category how often it occurred."""
    if place is None:
        simulated = np.ascontiguousarray(drawn if drawn.ndim == 2 else _sum_of_positions(drawn))
        observed = _observed(fit)
    else:
        simulated, observed = _occurrences(fit, drawn, place)
    below = np.mean(simulated < observed[:, None], axis=1)
    ties = np.mean(simulated == observed[:, None], axis=1)
    uniform = np.random.Generator(np.random.PCG64(last)).random(observed.size)
    series = on_data_index(fit, below + uniform * ties, "residual")
    expected = _expected(fit, include_random, simulated)
    trials = fit.data.n_trials if is_proportion(fit) else None
    count = simulated.shape[1]
    return QuantileResiduals(series, count, observed, simulated, expected, _is_discrete(fit), trials)


def _place(fit: Fit, category: Any) -> int:
    """Position of a category of an unordered response."""
    if not fit.family.is_joint:
        raise fit.family.lacks("unordered categories, one of which category= would choose; leave it out")
    known = [category_label(level) for level in fit.categories]
    label = category_label(category)
    if label not in known:
        hint = did_you_mean(label, known)
        raise OptionError(f"category={category!r} is no category of the response.{hint} They are {', '.join(known)}.")
    return known.index(label)


def _occurrences(fit: Fit, drawn: FloatArray, place: int) -> tuple[FloatArray, FloatArray]:
    """How often a category occurred in the rows of simulated responses, (n, B), and of the observed one, (n,)."""
    if fit.data.counts is not None:
        return np.ascontiguousarray(drawn[..., place]), fit.data.counts[:, place]
    mark = float(fit.categories[place]) if numeric_categories(fit) else float(place)
    return (drawn == mark).astype(np.float64), (fit.data.codes == place).astype(np.float64)


def _sum_of_positions(counts: FloatArray) -> FloatArray:
    """Positions of the categories summed over the trials of a row, from counts (..., K): of one trial its position."""
    total: FloatArray = counts @ np.arange(counts.shape[-1], dtype=np.float64)
    return total


def _is_discrete(fit: Fit) -> bool:
    return fit.family.is_count or bool(fit.categories)


def _observed(fit: Fit) -> FloatArray:
    """Responses in the form of the simulated ones."""
    if fit.data.counts is not None:
        return _sum_of_positions(fit.data.counts)
    if numeric_categories(fit):
        labels: FloatArray = np.asarray(fit.categories, dtype=np.float64)[fit.data.codes]
        return labels
    return fit.data.y / np.maximum(fit.data.n_trials, 1.0) if is_proportion(fit) else fit.data.y


def _expected(fit: Fit, include_random: bool | str | Iterable[str], simulated: FloatArray) -> FloatArray:
    """Means with the same random effects kept; categories have none, and get those of the simulations."""
    if fit.categories:
        centres: FloatArray = simulated.mean(axis=1)
        return centres
    eta = linear_predictor(fit, make_rows(fit, None, chosen_terms(fit, include_random)))
    counts = fit.data.trials is not None and not is_proportion(fit)
    mean: FloatArray = fit.family.fitted(fit.data, eta, fit.lam) * (fit.data.n_trials if counts else 1.0)
    return mean


def _known(alternative: str) -> Any:
    """The alternative, or an error when it is none."""
    if alternative not in ALTERNATIVES:
        raise OptionError(f"alternative={alternative!r} is not known; use one of {', '.join(ALTERNATIVES)}.")
    return alternative


def _rank_p(observed: float, simulated: FloatArray, alternative: str) -> float:
    """p-value of a statistic among simulated ones; it counts as one of them, so that p is never zero."""
    _known(alternative)
    less = (1.0 + float(np.sum(simulated <= observed))) / (simulated.size + 1.0)
    greater = (1.0 + float(np.sum(simulated >= observed))) / (simulated.size + 1.0)
    if alternative == "two-sided":
        return min(1.0, 2.0 * min(less, greater))
    return greater if alternative == "greater" else less


def _outliers_among_simulated(simulated: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """For each simulated response the number of rows where it alone is the smallest, or the largest, shape (n,)."""
    at_low, at_high = simulated == low[:, None], simulated == high[:, None]
    alone: BoolArray = (at_low & (at_low.sum(axis=1) == 1)[:, None]) | (at_high & (at_high.sum(axis=1) == 1)[:, None])
    counts: FloatArray = alone.sum(axis=0).astype(np.float64)
    return counts
