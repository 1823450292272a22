"""Models for ordered categories: probabilities as differences of P(Y > k) = G(eta - alpha_k).

The thresholds count as coefficients: a cut is the same model with the columns [X, -e_k], so that everything that works
for a probability works for every cut, and a category is the difference of two cuts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.kinds import model_of
from lme4py.fits.method import Plain
from lme4py.fits.rows.clusters import check_robust_type
from lme4py.inference.estimates.coefficients import constant_df
from lme4py.linalg.types import FloatArray
from lme4py.margins.estimands.estimands import Estimand, Values
from lme4py.margins.estimands.grids import Parameters
from lme4py.margins.models.adapter import DdfMethod, FactoredRows, Random, Rows
from lme4py.margins.models.own import OwnAdapter
from lme4py.margins.population.labels import RowNames
from lme4py.margins.population.scenarios import shown

__all__ = ["OrdinalAdapter", "SeveralCategories", "by_category", "chosen_categories"]


class SeveralCategories(OwnAdapter):
    """A fit whose responses are categories: estimands are made for each P(Y > k).

    Attributes
    ----------
    categories : tuple
        In the order of the response.
    """

    categories: tuple[Any, ...]

    @property
    @abstractmethod
    def cuts(self) -> Sequence[SeveralCategories]:
        """One adapter for each P(Y > k), k = 1 .. K - 1."""


class OrdinalAdapter(SeveralCategories):
    """An ordinal fit; its linear predictor is that of one combination of cuts.

    Parameters
    ----------
    fit : GeneralisedFit
    cut : int or None
        P(Y > category number cut + 1); None stands for the mean of the thresholds (the latent scale).
    """

    def __init__(self, fit: Any, cut: int | None = None) -> None:
        super().__init__(fit)
        thresholds = np.asarray(fit.thresholds, dtype=np.float64)
        p, d = fit.beta.size, thresholds.size
        self.categories = tuple(fit.categories)
        self.weights_of_cuts = np.full(d, 1.0 / d) if cut is None else np.eye(d)[cut]
        self.names = (*self.names, *fit.threshold_names)
        self.params = np.concatenate([fit.beta, thresholds])
        # Thresholds stand behind beta, and count as coefficients.
        self.parameter_vcov = self._in_order(fit.parameter_vcov)
        self.vcov = self.parameter_vcov[: p + d, : p + d]
        self.family = "ordinal"

    @property
    def cuts(self) -> Sequence[OrdinalAdapter]:
        """One adapter for each threshold."""
        return [OrdinalAdapter(self.fit, k) for k in range(len(self.categories) - 1)]

    def robust(self, kind: str, cluster: Any, ddf: str | None = None) -> DdfMethod:
        df = constant_df(self.fit, ddf)
        k = self.params.size
        return Plain(
            self._in_order(model_of(self.fit).robust_parameters(check_robust_type(kind), cluster))[:k, :k], float(df)
        )

    def _wider(self, X: FloatArray, by: float) -> FloatArray:
        cuts = np.broadcast_to(-by * self.weights_of_cuts, (X.shape[0], self.weights_of_cuts.size))
        p = self.fit.beta.size
        return np.hstack([X[:, :p], cuts, X[:, p:]])

    def rows(self, frame: Frame, random: Random) -> Rows:
        rows = super().rows(frame, random)
        return replace(rows, X=self._wider(rows.X, 1.0))

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        rows = super().slopes(frame, name, random)
        return replace(rows, X=self._wider(rows.X, 0.0))

    def factored(self, rows: Frame, scenarios: Frame, random: Random) -> FactoredRows | None:
        made = super().factored(rows, scenarios, random)
        if made is None:
            return None
        C, R = made.X
        ones = np.ones((R.shape[0], self.weights_of_cuts.size))
        return replace(made, X=(self._wider(C, 1.0), np.hstack([R, ones])))


def chosen_categories(adapter: SeveralCategories, outcome: Any) -> list[int]:
    """Positions of the categories that are asked for; all without a choice."""
    if outcome is None:
        return list(range(len(adapter.categories)))
    wanted = list(outcome) if isinstance(outcome, (list, tuple)) else [outcome]
    texts = [shown(category) for category in adapter.categories]
    for one in wanted:
        if shown(one) not in texts:
            hint = did_you_mean(shown(one), texts)
            raise OptionError(f"{one!r} is no category of the response.{hint} They are {', '.join(texts)}.")
    return [texts.index(shown(one)) for one in wanted]


def by_category(
    adapter: SeveralCategories, exceeding: Sequence[Estimand], names: RowNames, certain: FloatArray, outcome: Any
) -> tuple[Estimand, RowNames]:
    """Estimands of the categories from those of the cuts.

    Parameters
    ----------
    adapter : SeveralCategories
    exceeding : sequence of estimand
        For P(Y > k), k = 1 .. K - 1.
    names : RowNames
        Of one of them.
    certain : ndarray, shape (R,)
        What each of the R rows is for a probability of one: 1 for predictions, 0 for differences.
    outcome : object
    """
    chosen = chosen_categories(adapter, outcome)

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        cuts = [one(parameters, gradient) for one in exceeding]
        values = [certain, *(value for value, _ in cuts), np.zeros_like(certain)]
        zero = np.zeros_like(cuts[0][1])
        rows = [zero, *(jac for _, jac in cuts), zero]
        return (
            np.concatenate([values[k] - values[k + 1] for k in chosen]),
            np.vstack([rows[k] - rows[k + 1] for k in chosen]),
        )

    out = RowNames()
    for k in chosen:
        for term, kind, label, values, n_obs in zip(
            names.terms, names.kinds, names.labels, names.values, names.n_obs, strict=True
        ):
            category = adapter.categories[k]
            prefix = f"P({shown(category)})"
            text = prefix if label == "prediction" else f"{prefix}, {label}"
            out.add(term, kind, text, {"category": category, **values}, n_obs)
    return evaluate, out


def category_elasticities(
    kind: str, slopes: Estimand, levels: Estimand, x: FloatArray, weights: FloatArray | None
) -> Estimand:
    """Relative changes of the probabilities of categories, averaged over the rows.

    Parameters
    ----------
    kind : {"eyex", "eydx", "dyex"}
    slopes, levels : estimand
        Derivatives and probabilities: categories, then scenarios, then rows.
    x : ndarray, shape (S, n)
        Values of the variable under each scenario.
    weights : ndarray, shape (S, n), or None
        Of the rows; None for every row.
    """

    def evaluate(parameters: Parameters, gradient: bool) -> Values:
        (value, by), (p, p_by) = slopes(parameters, gradient), levels(parameters, gradient)
        if kind != "dyex":
            by = by / p[:, None] - (value / p**2)[:, None] * p_by
            value = value / p
        if kind != "eydx":
            repeated = np.tile(x.ravel(), value.size // x.size)
            value, by = value * repeated, by * repeated[:, None]
        if weights is None:
            return value, by
        values = np.einsum("ksn,sn->ks", value.reshape(-1, *x.shape), weights)
        rows = np.einsum("ksnq,sn->ksq", by.reshape(-1, *x.shape, by.shape[1]), weights)
        return values.ravel(), rows.reshape(values.size, -1)

    return evaluate
