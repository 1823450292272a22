"""Models with further parts as a session sees them: one part at a time, or the mean of the response.

A part is a model of its own: its linear predictor leads by its own link to a probability or a dispersion. The mean of a
zero-inflated or hurdle response is (1 - pi) m, row by row a function of several such models (and m, where counts are
truncated, of the dispersion too), whose coefficients stand one behind the other
(`lme4py.margins.estimands.means`). Terms that an id joins give the predictors of a row a covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from lme4py.data.frame import Frame
from lme4py.design.design import CONDITIONAL
from lme4py.errors import OptionError
from lme4py.families.parts import PartsFamily
from lme4py.families.registry import make_family
from lme4py.fits.kinds import model_of
from lme4py.fits.method import Plain
from lme4py.fits.rows.clusters import check_robust_type
from lme4py.inference.estimates.coefficients import constant_df
from lme4py.inference.estimates.part_views import component_names, part_view
from lme4py.inference.tests.joint_tests import JointMethod, joint_method
from lme4py.linalg.types import FloatArray
from lme4py.margins.models.adapter import DdfMethod, FactoredRows, Random, Rows
from lme4py.margins.models.formula_rows import bar_matrix, bar_slope
from lme4py.margins.models.own import OwnAdapter

__all__ = ["MeanAdapter", "PairAdapter", "PartAdapter", "has_mean_of_several"]

_ZEROS = "zero_inflation"
# Links of the further parts, as families whose means they lead to.
_LIKE = {_ZEROS: ("binomial", "logit"), "dispersion": ("gamma", "log"), "scale": ("gamma", "log")}
_NAMES = {
    _ZEROS: "probability of a zero of its own",
    "dispersion": "dispersion",
    "scale": "scale",
    CONDITIONAL: "conditional mean",
}


def has_mean_of_several(fit: Any) -> bool:
    """Whether means follow from more than the conditional predictor: from a zero part, from other parameters."""
    return isinstance(fit.family, PartsFamily) and not fit.family.mean_is_link


class PartAdapter(OwnAdapter):
    """One linear predictor of a fit, with the coefficients of others in front or behind where these count too.

    Parameters
    ----------
    fit : GeneralisedFit
    component : str
    before, behind : int
        Coefficients of other parts around its own.
    """

    def __init__(self, fit: Any, component: str, before: int = 0, behind: int = 0) -> None:
        (self.component,) = component_names(fit, component)
        self.whole = fit
        super().__init__(_view(fit, self.component))
        self.mean_name = _NAMES[self.component]
        self.model_name = f"the {self.component} part"
        self.around = (before, behind)

    def _wider(self, X: FloatArray) -> FloatArray:
        before, behind = self.around
        p = self.fit.beta.size
        zeros = np.zeros((X.shape[0], before)), np.zeros((X.shape[0], behind))
        return np.hstack([zeros[0], X[:, :p], zeros[1], X[:, p:]])

    def rows(self, frame: Frame, random: Random) -> Rows:
        rows = super().rows(frame, random)
        return replace(rows, X=self._wider(rows.X))

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        rows = super().slopes(frame, name, random)
        return replace(rows, X=self._wider(rows.X))

    def factored(self, rows: Frame, scenarios: Frame, random: Random) -> FactoredRows | None:
        return super().factored(rows, scenarios, random) if self.around == (0, 0) else None

    def joint_method(self, ddf: str | None, vcov: FloatArray | None) -> JointMethod | None:
        if vcov is not None:
            raise OptionError(
                "another covariance with the conditional modes of one part needs that of all coefficients; leave out "
                "vcov= or component=, or use random='zero' or 'integrate'."
            )
        family = self.whole.family
        behind = self.whole.beta.size if self.component != CONDITIONAL else 0
        before = behind + (family.place(self.component).start if behind else 0)
        return joint_method(self.whole, ddf, before=before)

    def robust(self, kind: str, cluster: Any, ddf: str | None = None) -> DdfMethod:
        view = _view(self.whole, self.component, kind, cluster)
        return Plain(view.vcov, float(constant_df(self.fit, ddf)))

    def robust_parameters(self, kind: str, cluster: Any) -> FloatArray | None:
        return self._in_order(_view(self.whole, self.component, kind, cluster).parameter_vcov)

    def replicates(self, n: int, kind: str, group: Any, seed: int, n_jobs: int) -> FloatArray:
        raise OptionError("method='bootstrap' is for models without further parts; use method='delta' or 'simulation'.")


class PairAdapter(PartAdapter):
    """The covariance of two linear predictors over the random effects, in the place of a variance.

    Parameters
    ----------
    fit : GeneralisedFit
    component, other : str
    before, behind : int
        As in `PartAdapter`.
    """

    def __init__(self, fit: Any, component: str, other: str, before: int = 0, behind: int = 0) -> None:
        super().__init__(fit, component, before, behind)
        self.both = (self.component, other)

    def _columns(self, values: Sequence[FloatArray]) -> list[tuple[FloatArray, FloatArray]]:
        """Columns of every term in either predictor."""
        first, second = self.both
        terms = self.whole.design.terms
        return [(term.masked(z, first), term.masked(z, second)) for term, z in zip(terms, values, strict=True)]

    def _spread(self, frame: Frame) -> list[FloatArray]:
        recipe = self.design.recipe
        columns = self._columns([bar_matrix(recipe, bar, frame) for bar in recipe.bars])
        return [pairs.between(*own) for pairs, own in zip(self._pairs, columns, strict=True)]

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        recipe = self.design.recipe
        columns = self._columns([bar_matrix(recipe, bar, frame) for bar in recipe.bars])
        moves = self._columns([bar_slope(recipe, bar, frame, name) for bar in recipe.bars])
        spread = [
            pairs.between(dz, w) + pairs.between(z, dw)
            for pairs, (z, w), (dz, dw) in zip(self._pairs, columns, moves, strict=True)
        ]
        return replace(super().slopes(frame, name, random), spread=np.hstack(spread))


class MeanAdapter(PartAdapter):
    """The mean of a response that several linear predictors or parameters have a part in.

    Its coefficients are all of the model: the conditional ones, those of further parts, then what has no predictor.

    Parameters
    ----------
    fit : GeneralisedFit

    Attributes
    ----------
    zeros : PartAdapter or None
        The zero part.
    density : Density
        The distribution of what is not a zero of the zero part.
    by_link : bool
        Whether its mean follows from the conditional predictor alone.
    others : tuple of PartAdapter
        Further predictors of that mean.
    shared : tuple of int
        Places of its other parameters among the coefficients.
    shared_names : tuple of str
        What the density calls `shared`.
    pairs : dict of (str, str) to PairAdapter
        Predictors whose random effects an id joins.
    """

    def __init__(self, fit: Any) -> None:
        family: PartsFamily = fit.family
        p, q = fit.beta.size, family.n_nuisance
        super().__init__(fit, CONDITIONAL, behind=q)
        self.density = family.without_parts.density
        self.by_link = self.density.mean_is_link
        places = {name: family.place(name) for name in family.components[1:]}
        parts = {name: PartAdapter(fit, name, p + at.start, q - at.stop) for name, at in places.items()}
        self.zeros = parts.pop(_ZEROS, None)
        chosen = {} if self.by_link else parts
        known = [v.name for v in family.nuisance if v.name in self.density.names and not self.by_link]
        behind = p + family.n_coefficients
        self.others = tuple(chosen.values())
        self.shared = tuple(behind + [v.name for v in family.nuisance].index(name) for name in known)
        self.shared_names = tuple(known)
        further = () if self.zeros is None else (_ZEROS,)
        joined = [set(term.column_parts) for term in fit.design.terms]
        self.pairs = {
            (one, other): PairAdapter(fit, one, other, 0, 0)
            for one, other in combinations((CONDITIONAL, *chosen, *further), 2)
            if any({one, other} <= parts for parts in joined)
        }
        self.mean_name = "mean of the response" + (", zeros included" if self.zeros is not None else "")
        for part in self.further:
            self.variables = tuple(dict.fromkeys([*self.variables, *part.variables]))
        others = [*family.nuisance_names, *(["log dispersion"] if len(family.nuisance_names) < q else [])]
        self.names = (*self.names, *others)
        self.params = np.concatenate([self.params, np.atleast_1d(np.asarray(fit.lam, dtype=np.float64))[:q]])
        self.parameter_vcov = self._in_order(fit.parameter_vcov)
        self.vcov = self.parameter_vcov[: p + q, : p + q]

    @property
    def component_hint(self) -> str:
        """The parts that have margins of their own, for messages."""
        return " or ".join(map(repr, self.whole.family.components))

    def joint_method(self, ddf: str | None, vcov: FloatArray | None) -> JointMethod | None:
        return joint_method(self.whole, ddf, vcov)

    @property
    def further(self) -> tuple[PartAdapter, ...]:
        """Predictors of the mean after the conditional one, that of the zero part last."""
        return self.others if self.zeros is None else (*self.others, self.zeros)

    def _in_order(self, covariance: FloatArray) -> FloatArray:
        """Covariance of (coefficients, theta) from that of (theta, coefficients)."""
        m, size = self.whole.theta.size, len(covariance)
        order = np.r_[m:size, :m]
        moved: FloatArray = np.asarray(covariance, dtype=np.float64)[np.ix_(order, order)]
        return moved

    def is_categorical(self, name: str) -> bool:
        return super().is_categorical(name) or any(part.is_categorical(name) for part in self.further)

    def needed(self, random: Random) -> tuple[str, ...]:
        names = [*super().needed(random), *(name for part in self.further for name in part.needed(random))]
        return tuple(dict.fromkeys(names))

    def robust(self, kind: str, cluster: Any, ddf: str | None = None) -> DdfMethod:
        k = self.params.size
        return Plain(self._robust(kind, cluster)[:k, :k], float(constant_df(self.fit, ddf)))

    def robust_parameters(self, kind: str, cluster: Any) -> FloatArray | None:
        return self._robust(kind, cluster)

    def _robust(self, kind: str, cluster: Any) -> FloatArray:
        return self._in_order(model_of(self.whole).robust_parameters(check_robust_type(kind), cluster))


def _view(fit: Any, component: str, vcov: str | None = None, cluster: Any = None) -> Any:
    """The fit with the coefficients and the link of one part."""
    if component != CONDITIONAL:
        view = part_view(fit, component, vcov, cluster)
        own = make_family(*_LIKE[component])
        return replace(view, family=own, others=(), log_dispersion=None, thresholds=None)
    family = fit.family
    if has_mean_of_several(fit):
        family = family.of_conditional_mean
    return replace(fit, family=family)
