"""The result of an estimand: estimates with their covariance, tests, intervals, tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.arguments import no_attribute
from lme4py.data.beside import in_name_order
from lme4py.errors import OptionError
from lme4py.inference.estimates.coefficients import quantile, warn_small_level
from lme4py.linalg.types import BoolArray, FloatArray
from lme4py.margins.estimands.scales import transform, untransform
from lme4py.margins.results import multiplicity
from lme4py.margins.results.back import BackTransform
from lme4py.tables.shown import Shown, Summary
from lme4py.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lme4py.margins.estimands.nearby import Nearby

__all__ = ["MarginsResult", "adjust"]

# Eigenvalues of a covariance matrix of standardised estimates below this part of the largest are zero.
_RANK = 1e-9
_ROOT = float(np.sqrt(2.0))
_ALTERNATIVES = ("two-sided", "greater", "less")


@dataclass(frozen=True, repr=False)
class MarginsResult(Shown):
    """Estimates of one call of a session.

    Attributes
    ----------
    value : ndarray, shape (K,)
        On the working scale (logarithms on the log scale, and so on).
    covariance : ndarray, shape (K, K)
        Of `value`.
    jacobian : ndarray, shape (K, q)
        Gradients of `value` in the parameters.
    df : ndarray, shape (K,)
        Degrees of freedom, infinite for normal tests.
    shown : str
        How values are shown: "identity", "exp" or "expit".
    draws : ndarray, shape (B, K), or None
        Of the simulation or the bootstrap.
    terms, kinds, labels : tuple of str
    scenarios : dict of str to list
        Values of the scenario variables, by name.
    n_obs : ndarray of int, shape (K,)
    level : float
    method : str
        "delta", "simulation" or "bootstrap".
    title : str
    notes : tuple of str
    family : tuple of (str, int)
        What the estimates are to Tukey's and Dunnett's procedures: ("pairwise", 4) for all pairs of 4 means.
    adjustment : str
        Name of the adjustment of p-values and intervals, "none" without.
    tests : object
        Degrees-of-freedom method of the model, for joint tests.
    numeric : frozenset of str
        Variables that are numbers, for plots.
    is_curved : bool
        Whether the estimates are no linear functions of the parameters.
    back : BackTransform or None
        Where limits are made so that they stay in the range of a mean; None for limits on the working scale.
    nearby : Nearby or None
        Several such estimates as functions of the parameters, for joint tests; not pickled.

    Examples
    --------
    >>> from lme4py import Margins, lmer, load_dataset
    >>> fit = lmer("diameter ~ sample + (1 | plate)", load_dataset("Penicillin"))
    >>> means = Margins.linear_scale(fit).predict(atexog={"sample": ["A", "B"]})
    >>> means.to_frame()[["estimate", "std_error"]].round(3)
       estimate  std_error
    0    25.167      0.206
    1    21.958      0.206
    """

    value: FloatArray
    covariance: FloatArray
    jacobian: FloatArray
    df: FloatArray
    shown: str
    draws: FloatArray | None
    terms: tuple[str, ...]
    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    scenarios: dict[str, list[Any]]
    n_obs: Any
    level: float
    method: str
    title: str
    notes: tuple[str, ...] = ()
    family: tuple[str, int] = ("custom", 0)
    adjustment: str = "none"
    tests: Any = field(default=None, repr=False)
    numeric: frozenset[str] = frozenset()
    is_curved: bool = False
    back: BackTransform | None = None
    nearby: Nearby | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "nearby": None}

    # --- numbers

    def __len__(self) -> int:
        return self.value.size

    @property
    def se(self) -> FloatArray:
        """Standard errors on the working scale, shape (K,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @property
    def estimate(self) -> FloatArray:
        """Estimates as shown, shape (K,)."""
        return transform(self.shown, self.value)[0]

    @property
    def std_error(self) -> FloatArray:
        """Standard errors of the estimates as shown (delta method), shape (K,)."""
        if self.draws is not None and self.shown != "identity":
            return np.asarray(transform(self.shown, self.draws)[0].std(axis=0, ddof=1))
        return np.abs(transform(self.shown, self.value)[1]) * self.se

    @property
    def statistic(self) -> FloatArray:
        """Estimates over standard errors on the working scale: tests of 0, of a ratio of 1, of a probability of 1/2."""
        return ratio(self.value, self.se)

    @property
    def statistic_name(self) -> str:
        """ "t" where degrees of freedom are finite, otherwise "z"."""
        return "t" if np.isfinite(self.df).any() else "z"

    @property
    def p_values(self) -> FloatArray:
        """Two-sided p-values, adjusted if the result is, shape (K,)."""
        return self._p_values(self.statistic)

    @property
    def estimable(self) -> BoolArray:
        """Which estimates there are with an error, shape (K,); the others count in no adjustment or joint test."""
        known: BoolArray = np.isfinite(self.value) & ~np.isnan(np.diag(self.covariance))
        return known

    def known_part(self) -> MarginsResult:
        """The estimates that there are.

        Returns
        -------
        MarginsResult
        """
        known = self.estimable
        if known.all():
            return self

        def some(values: Sequence[Any]) -> list[Any]:
            return [value for value, keep in zip(values, known.tolist(), strict=True) if keep]

        return replace(
            self,
            value=self.value[known],
            covariance=self.covariance[np.ix_(known, known)],
            jacobian=self.jacobian[known],
            df=self.df[known],
            draws=None if self.draws is None else self.draws[:, known],
            terms=tuple(some(self.terms)),
            kinds=tuple(some(self.kinds)),
            labels=tuple(some(self.labels)),
            scenarios={name: some(values) for name, values in self.scenarios.items()},
            n_obs=self.n_obs[known],
        )

    def _p_values(self, statistic: FloatArray) -> FloatArray:
        if self.adjustment in ("none", *multiplicity.BY_P_VALUES):
            p = multiplicity.two_sided_tail(statistic, self.df)
            return p if self.adjustment == "none" else self.adjusted(p)
        return np.array([self._joint_tail(abs(t), df) for t, df in zip(statistic, self.df, strict=True)])

    def adjusted(self, p: FloatArray) -> FloatArray:
        """P-values adjusted for the number of estimates that there are.

        Parameters
        ----------
        p : ndarray, shape (K,)

        Returns
        -------
        ndarray, shape (K,)
        """
        out, known = p.copy(), self.estimable
        out[known] = multiplicity.adjusted(p[known], self.adjustment)
        return out

    def _joint_tail(self, t: float, df: float) -> float:
        if np.isnan(t):
            return float("nan")
        if self._is_range:
            return multiplicity.range_tail(t * np.sqrt(2.0), self.family[1], df)
        return multiplicity.max_t_tail(t, self._known_correlation, df)

    @property
    def _is_range(self) -> bool:
        return self.adjustment == "tukey" and self.family[0] == "pairwise"

    @property
    def _known_correlation(self) -> FloatArray:
        return self.correlation[np.ix_(self.estimable, self.estimable)]

    @property
    def correlation(self) -> FloatArray:
        """Correlations of the estimates on the working scale, shape (K, K)."""
        se = np.where(self.se > 0, self.se, 1.0)
        matrix: FloatArray = np.clip(self.covariance / np.outer(se, se), -1.0, 1.0)
        np.fill_diagonal(matrix, 1.0)
        return matrix

    def _critical(self, level: float, simultaneous: bool) -> FloatArray:
        """Multiples of the standard error, (K,)."""
        alpha, m = 1.0 - level, max(int(self.estimable.sum()), 1)
        rule = "mvt" if simultaneous and self.adjustment == "none" else self.adjustment
        if rule == "sidak":
            alpha = -np.expm1(np.log1p(-alpha) / m)
        elif rule in ("bonferroni", "holm", "hochberg", "holm-sidak", "fdr", "by"):
            alpha = alpha / m
        if rule not in ("tukey", "dunnett", "mvt"):
            return quantile(alpha, self.df)
        if self._is_range:
            means = self.family[1]
            return multiplicity.at_each(lambda df: multiplicity.range_critical(alpha, means, df), self.df) / _ROOT
        return multiplicity.at_each(lambda df: multiplicity.max_t_critical(level, self._known_correlation, df), self.df)

    def limits(self, level: float, simultaneous: bool = False) -> tuple[FloatArray, FloatArray]:
        """Confidence limits as shown, each (K,); those of probabilities and of positive means stay in their range.

        Parameters
        ----------
        level : float
        simultaneous : bool
            As in `conf_int`.

        Returns
        -------
        tuple of two ndarrays, each (K,)
        """
        if self.draws is not None and not simultaneous and self.adjustment == "none":
            # The tails that limits of t would have: Hesterberg's (2015) expanded percentiles.
            tails = special.ndtr(-quantile(1.0 - level, self.df))
            ends = [
                (np.nan, np.nan) if np.isnan(tail) else np.quantile(own, [tail, 1.0 - tail])
                for own, tail in zip(self.draws.T, tails, strict=True)
            ]
            lower, upper = np.array(ends).T
        else:
            half = self._critical(level, simultaneous) * self.se
            if self.back is not None:
                return self.back.limits(self.value, half)
            lower, upper = self.value - half, self.value + half
        return transform(self.shown, lower)[0], transform(self.shown, upper)[0]

    # --- tables

    def to_frame(self) -> pd.DataFrame:
        """Columns estimate, std_error, ci_lower, ci_upper, conf_level, n_obs, method, term, kind, label, statistic,
        p_value, then the scenario variables; one row for each estimate. A variable of the same name as one of the
        columns before it gets an underscore.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        lower, upper = self.limits(self.level)
        columns: dict[str, Any] = {
            "estimate": self.estimate,
            "std_error": self.std_error,
            "ci_lower": lower,
            "ci_upper": upper,
            "conf_level": np.full(len(self), self.level),
            "n_obs": self.n_obs,
            "method": [self.method] * len(self),
            "term": list(self.terms),
            "kind": list(self.kinds),
            "label": list(self.labels),
            "statistic": self.statistic,
            "p_value": self.p_values,
        }
        for name, values in self.scenarios.items():
            # A variable that is called like a column of the table gets an underscore.
            columns[f"{name}_" if name in columns else name] = values
        return pd.DataFrame(columns)

    def conf_int(self, level: float | None = None, simultaneous: bool = False) -> pd.DataFrame:
        """Confidence limits lower, upper.

        Parameters
        ----------
        level : float, optional
            That of the session when not given.
        simultaneous : bool
            All intervals cover at the same time with this probability (sup-t: the quantile of the largest of the
            correlated statistics), on the scale as shown.

        Returns
        -------
        DataFrame
            Columns lower, upper; the index holds the labels.
        """
        import pandas as pd

        lower, upper = self.limits(check_level(self.level if level is None else level), simultaneous)
        return pd.DataFrame({"lower": lower, "upper": upper}, index=pd.Index(list(self.labels), name="label"))

    def test(
        self,
        value: float | Sequence[float] | None = None,
        alternative: str = "two-sided",
        equivalence: tuple[float, float] | None = None,
    ) -> pd.DataFrame:
        """Tests of each estimate.

        Parameters
        ----------
        value : float or sequence of K floats, optional
            The null value on the scale as shown; 0 (1 for ratios and odds ratios, 0.5 for probabilities) when not
            given.
        alternative : {"two-sided", "greater", "less"}
        equivalence : (float, float), optional
            Bounds: the p-value is that of the two one-sided tests, and small when the estimate lies between them
            (Schuirmann 1987).

        Returns
        -------
        DataFrame
            estimate, null, statistic, df, p_value; with `equivalence` also statistic and p-value of each side.
        """
        import pandas as pd

        from lme4py.margins.results.tests import equivalence_tests, null_tests

        index = pd.Index(list(self.labels), name="label")
        if equivalence is not None:
            return pd.DataFrame(equivalence_tests(self, equivalence), index=index)
        if alternative not in _ALTERNATIVES:
            raise OptionError(f"alternative={alternative!r} is not known; use one of {', '.join(_ALTERNATIVES)}.")
        return pd.DataFrame(null_tests(self, value, alternative), index=index)

    def joint_test(self, value: float | Sequence[float] | None = None) -> dict[str, float]:
        """Joint test that all estimates have their null value: chi2, df, p_value, or F, df, df_denom, p_value.

        Redundant estimates are taken out: df is the rank of their covariance matrix. Satterthwaite's denominator
        depends on which rows stand for a hypothesis: it is that of ``contest`` with the first estimates that do not
        follow from those before them. Kenward-Roger's does not. Curved estimates, such as probabilities at several
        values of x, may be fewer hypotheses than they look: where their gradients depend on each other at the nearest
        parameters under the hypothesis, the test is that of the distance to these, which does not depend on how the
        hypothesis is written (see `lme4py.margins.estimands.nearby`).

        Parameters
        ----------
        value : float or sequence of K floats, optional
            As in `test`.

        Returns
        -------
        dict of str to float
        """
        from lme4py.margins.results.tests import joint_test

        return joint_test(self, value)

    def null_value(self, value: Any) -> FloatArray:
        """Null values on the working scale, (K,).

        Parameters
        ----------
        value : float, sequence of K floats, or None
            On the scale as shown.

        Returns
        -------
        ndarray, shape (K,)
        """
        if value is None:
            return np.zeros(len(self))
        given = np.asarray(in_name_order(value, self.labels, "value", "estimates"), dtype=np.float64)
        if given.shape not in ((), (len(self),)) or not np.isfinite(given).all():
            raise OptionError(f"`value` must be one finite number or {len(self)} of them.")
        return np.broadcast_to(untransform(self.shown, given), (len(self),))

    def adjust(self, method: str = "holm") -> MarginsResult:
        """The same result with adjusted p-values and intervals; see `adjust`.

        Parameters
        ----------
        method : str

        Returns
        -------
        MarginsResult
        """
        return adjust(self, method)

    # --- output

    def all_notes(self) -> list[str]:
        """What was done, in sentences.

        Returns
        -------
        list of str
        """
        notes = list(self.notes)
        if self.adjustment != "none":
            notes.append(_adjustment_note(self))
        return notes

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """Say what another program's name of something is called here."""
            return no_attribute(self, name, "margins")

    def summary(self) -> Summary:
        """The result as text that a notebook shows as a table.

        Returns
        -------
        Summary
        """
        return Summary(self._tables())

    def _tables(self) -> list[Table]:
        from lme4py.margins.results.table import result_table

        return [result_table(self)]

    def plot(self, x: str | None = None, by: str | None = None, **kw: Any) -> Axes:
        """Draw the estimates (needs matplotlib).

        Predictions over a numeric variable become a line with a band, one for each value of `by`; everything else a
        forest plot with a line at "no difference".

        Parameters
        ----------
        x, by : str, optional
            Scenario variables; the numeric one with most values, and the next one, when not given.
        **kw
            ``ax``, ``figsize``, ``level``, ``simultaneous``, ``reference`` (position of the line), ``kind``
            ("line" or "forest"), ``xlabel``, ``ylabel``, ``title``.

        Returns
        -------
        matplotlib Axes
        """
        from lme4py.margins.results.plot import plot_result

        return plot_result(self, x, by, **kw)


def check_level(level: Any) -> float:
    """A confidence level between 0 and 1."""
    number = isinstance(level, (int, float, np.number)) and not isinstance(level, bool)
    if not number or not 0.0 < float(level) < 1.0:
        raise OptionError(f"`level` is {level!r}; give a number between 0 and 1, such as 0.95.")
    warn_small_level("level", float(level), float(level), f"level={1.0 - float(level):.4g}")
    return float(level)


def adjust(results: MarginsResult, method: str = "holm") -> MarginsResult:
    """Adjust the p-values and intervals of a result for the number of its estimates.

    Parameters
    ----------
    results : MarginsResult
    method : str
        "bonferroni", "holm", "hochberg", "sidak", "holm-sidak", "fdr" (Benjamini-Hochberg), "by" (Benjamini-Yekutieli),
        "tukey" (studentised range for all pairs of means, as Tukey and Kramer, otherwise "mvt"), "dunnett" and "mvt"
        (largest of the correlated statistics, with their own correlations), or "none".

    Returns
    -------
    MarginsResult
        Holm's, Hochberg's and the false discovery rate have no intervals of their own: these are Bonferroni's.

    Examples
    --------
    >>> from lme4py import Margins, lmer, load_dataset, reference
    >>> fit = lmer("yield ~ factor(nitro) + (1 | Block)", load_dataset("Oats"))
    >>> effects = Margins.linear_scale(fit).contrasts(reference("nitro", [0, 0.2, 0.4]))
    >>> effects.p_values.round(5), adjust(effects, "bonferroni").p_values.round(5)
    (array([0.00052, 0.     ]), array([0.00103, 0.     ]))
    """
    return replace(results, adjustment=multiplicity.check_adjustment(method))


def _adjustment_note(result: MarginsResult) -> str:
    m, method = int(result.estimable.sum()), result.adjustment
    if method == "tukey" and not result._is_range:
        return f"p-values and intervals: multivariate t of {m} estimates (they are not all pairs of means)."
    if method == "tukey":
        return f"p-values and intervals: Tukey's studentised range, {result.family[1]} means."
    if method in ("dunnett", "mvt"):
        return f"p-values and intervals: multivariate {result.statistic_name} of {m} estimates (error about 1e-3 of p)."
    name = {"fdr": "Benjamini-Hochberg", "by": "Benjamini-Yekutieli"}.get(method, method.capitalize())
    own = method in ("bonferroni", "sidak")
    return f"p-values: {name}, {m} estimates; intervals: {name if own else 'Bonferroni'}."


def ratio(value: FloatArray, se: FloatArray) -> FloatArray:
    # An estimate that is known exactly (a coefficient-free contrast) is infinitely many standard errors from 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = value / se
    return np.asarray(np.where((se == 0) & (value == 0), 0.0, ratio))
