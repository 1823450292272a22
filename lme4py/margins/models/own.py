"""Fits of this package as a session sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lme4py.data.beside import beside
from lme4py.data.column import Column
from lme4py.data.frame import Frame
from lme4py.design.design import Design
from lme4py.design.recipe import Recipe, new_random
from lme4py.design.responses.responses import rows_of
from lme4py.design.source import column_of_fit
from lme4py.errors import OptionError
from lme4py.fits.kinds import model_of
from lme4py.fits.method import Plain
from lme4py.fits.rows.clusters import check_robust_type
from lme4py.formula.several import RESPONSE
from lme4py.inference.estimates.coefficients import coefficient_method
from lme4py.inference.prediction.rows import chosen_terms
from lme4py.inference.tests.joint_tests import JointMethod, effect_places, joint_method
from lme4py.inference.uncertainty.df import method
from lme4py.linalg.types import FloatArray, SparseMatrix, sparse
from lme4py.margins.models.adapter import DdfMethod, FactoredEffects, FactoredRows, ModelAdapter, Random, Rows, frame_of
from lme4py.margins.models.formula_rows import FormulaRows, bar_matrix, bar_slope, factored_matrix, names_of_nodes
from lme4py.margins.models.refits import own_replicates

__all__ = ["OwnAdapter"]


@dataclass(frozen=True)
class _Pairs:
    """Entries of the covariance matrix of a term on and below the diagonal."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def products(self, z: FloatArray) -> FloatArray:
        """Products of pairs of columns of z, (n, k(k+1)/2)."""
        return z[:, self.rows] * z[:, self.columns]

    def slopes(self, z: FloatArray, dz: FloatArray) -> FloatArray:
        """Derivatives of `products` from those of z."""
        return 2.0 * self.between(z, dz)

    def between(self, z: FloatArray, w: FloatArray) -> FloatArray:
        """The same for z' matrix w: means of the products of either order, (n, k(k+1)/2)."""
        return 0.5 * (z[:, self.rows] * w[:, self.columns] + z[:, self.columns] * w[:, self.rows])

    def entries(self, matrix: FloatArray) -> FloatArray:
        """Coefficients of the products in z' matrix z."""
        values: FloatArray = matrix[self.rows, self.columns] * np.where(self.rows == self.columns, 1.0, 2.0)
        return values


class OwnAdapter(ModelAdapter):
    """A linear or generalised linear mixed model fitted by this package.

    Parameters
    ----------
    fit : Fit
    """

    def __init__(self, fit: Any) -> None:
        design: Design = fit.design
        if design.columns is None:
            raise OptionError("the fit does not hold its data; fit the model again with this version of lme4py.")
        if not fit.family.mean_is_link:
            raise fit.family.lacks("margins: its means do not follow from the conditional part alone; use predict()")
        self.fit, self.design = fit, design
        self.apart = RESPONSE if design.responses is not None else ""
        self.columns = design.columns
        self.formula_rows = FormulaRows(_replayed(design.recipe), self.columns)
        self.n_beyond = self.formula_rows.n_beyond
        self.cells = self.formula_rows.cells()
        self.names, self.params, self.vcov = design.x_names, fit.beta, fit.vcov
        self.variables = self.formula_rows.variables
        self.is_linear_model = fit.normal_errors
        self.description = design.formula
        self.default_ddf, self.alpha = fit.default_ddf, fit.conventions.alpha
        self._unreplayed = self._offset_of_rows()
        if not self.is_linear_model:
            self.family, self.recession = fit.family.name, fit.recession
            # A linear predictor that is the mean of any number: as in a linear model.
            self.link = None if fit.family.has_no_link else fit.family.link
            self.mean_range, self.mean_name = fit.family.mean_range, fit.family.mean_name
        self.theta = fit.theta
        self.has_smooths = bool(design.smooth_terms)
        self.has_random = any(not term.smooth for term in design.terms)
        self._pairs = tuple(_Pairs(*np.tril_indices(term.n_columns)) for term in design.terms)
        if not self.is_linear_model:
            self.parameter_vcov = self._in_order(fit.parameter_vcov)

    def _offset_of_rows(self) -> FloatArray | None:
        """An offset given as an array belongs to the rows of the fit and is replayed on them only."""
        if self.design.offset is None or _replayed(self.design.recipe) is self.design.recipe:
            return None
        known = self.formula_rows.design(frame_of(self.columns, self.n_rows))[1]
        rest: FloatArray = self.design.offset - known
        return rest if np.any(rest != 0.0) else None

    @property
    def n_rows(self) -> int:
        return self.design.n_obs

    def rows_given(self, data: Any) -> Frame:
        return rows_of(self.design, data)

    @property
    def row_labels(self) -> Any:
        return self.design.index[self.design.keep]

    def beside(self, values: Any, what: str, *, as_labels: bool = False) -> Column:
        return beside(values, what, self.design, self.design.keep, as_labels=as_labels)

    def other_column(self, name: str) -> Column | None:
        return column_of_fit(self.design, name, "weights")

    def is_categorical(self, name: str) -> bool:
        return super().is_categorical(name) or name in self.formula_rows.categorical

    def needed(self, random: Random) -> tuple[str, ...]:
        names = dict.fromkeys(self.variables)
        if random != "zero" or self.design.smooth_terms:
            added = self._added(random)
            for t, bar in enumerate(self.design.recipe.bars):
                if random == "integrate" or t in added:
                    names.update(dict.fromkeys(names_of_nodes(bar.nodes, self.columns)))
                if t in added:
                    names.update(dict.fromkeys(names_of_nodes(bar.group, self.columns)))
        return tuple(names)

    def check_groups(self, names: Sequence[str]) -> tuple[str, ...]:
        chosen_terms(self.fit, names)
        return tuple(names)

    def _added(self, random: Random) -> list[int]:
        """Terms whose modes are added."""
        smooth = list(self.design.smooth_terms)
        if isinstance(random, tuple):
            return chosen_terms(self.fit, random)
        if random == "integrate" and smooth:
            raise OptionError("random='integrate' is not there for models with smooths; use 'zero' or 'conditional'.")
        return list(range(len(self.design.terms))) if random == "conditional" else smooth

    # --- rows

    def rows(self, frame: Frame, random: Random) -> Rows:
        X, offset = self.formula_rows.design(frame)
        parts = {t: self._conditional(frame, t) for t in self._added(random)}
        for t, (z, codes) in parts.items():
            offset = offset + np.einsum("nk,nk->n", z, self.fit.modes[t][codes])
        spread = np.hstack(self._spread(frame)) if random == "integrate" else None
        return Rows(X, offset, spread, self._effects(parts, frame.n_rows))

    def _effects(self, parts: Mapping[int, tuple[FloatArray, NDArray[np.intp]]], n: int) -> SparseMatrix | None:
        """Columns of the random effects that are added, (n, Q)."""
        if not parts:
            return None
        places = effect_places(self.fit)
        columns = [
            places[t].start + codes[:, None] * z.shape[1] + np.arange(z.shape[1]) for t, (z, codes) in parts.items()
        ]
        width = sum(c.shape[1] for c in columns)
        values = np.hstack([z for z, _ in parts.values()]).ravel()
        indices, ends = np.hstack(columns).ravel(), np.arange(0, n * width + 1, width)
        return sparse.csr_array((values, indices, ends), shape=(n, places[-1].stop))

    def _conditional(self, frame: Frame, t: int) -> tuple[FloatArray, NDArray[np.intp]]:
        z, codes = new_random(self.design.recipe, frame, t)
        z = self.design.terms[t].masked(z)
        unseen = int((codes < 0).sum())
        if unseen:
            raise OptionError(
                f"random='conditional' needs groups that the model was fitted to, but {unseen} rows have a level of "
                f"{self.design.terms[t].group!r} that it does not know; use random='zero' or 'integrate'."
            )
        return z, codes

    def _spread(self, frame: Frame) -> list[FloatArray]:
        recipe = self.design.recipe
        return [pairs.products(self._z(recipe, frame, t)) for t, pairs in enumerate(self._pairs)]

    def _z(self, recipe: Recipe, frame: Frame, t: int) -> FloatArray:
        """Columns of a term, those of further linear predictors zero."""
        return self.design.terms[t].masked(bar_matrix(recipe, recipe.bars[t], frame))

    def slopes(self, frame: Frame, name: str, random: Random) -> Rows:
        X, offset = self.formula_rows.slopes(frame, name)
        if random == "zero" and not self.design.smooth_terms:
            return Rows(X, offset)
        recipe = self.design.recipe
        terms = self.design.terms
        dz = [t.masked(bar_slope(recipe, bar, frame, name)) for t, bar in zip(terms, recipe.bars, strict=True)]
        if random != "integrate":
            moves = {t: (dz[t], self._conditional(frame, t)[1]) for t in self._added(random)}
            for t, (z, codes) in moves.items():
                offset = offset + np.einsum("nk,nk->n", z, self.fit.modes[t][codes])
            return Rows(X, offset, None, self._effects(moves, frame.n_rows))
        parts = [pairs.slopes(self._z(recipe, frame, t), dz[t]) for t, pairs in enumerate(self._pairs)]
        return Rows(X, offset, np.hstack(parts))

    def factored(self, rows: Frame, scenarios: Frame, random: Random) -> FactoredRows | None:
        fixed = self.formula_rows.factored(rows, scenarios)
        if fixed is None:
            return None
        X, known = fixed
        if self.design.smooth_terms:
            return None
        if random == "zero":
            return FactoredRows(X, known)
        recipe = self.design.recipe
        chosen = range(len(recipe.bars)) if random == "integrate" else self._added(random)
        bars = [recipe.bars[t] for t in chosen]
        if any(bar.places is not None or bar.joined for bar in bars):
            return None
        parts = [factored_matrix(recipe, bar.terms, bar.variables, rows, scenarios) for bar in bars]
        if any(part is None for part in parts):
            return None
        terms = [self.design.terms[t] for t in chosen]
        z = [(t.masked(p[0]), t.masked(p[1])) for t, p in zip(terms, parts, strict=True) if p is not None]
        if random == "integrate":
            by_side = [[pair.products(p[side]) for pair, p in zip(self._pairs, z, strict=True)] for side in (0, 1)]
            return FactoredRows(X, known, (np.hstack(by_side[0]), np.hstack(by_side[1])))
        if any(set(names_of_nodes(bar.group, self.columns)) & set(scenarios.names) for bar in bars):
            return None
        places = effect_places(self.fit)
        codes = [self._conditional(rows, t)[1] for t in chosen]
        effects = tuple(
            FactoredEffects(C, R, self._indicators(own, t), places[t], places[-1].stop)
            for t, (C, R), own in zip(chosen, z, codes, strict=True)
        )
        by_row = [part[1] * self.fit.modes[t][own] for t, part, own in zip(chosen, z, codes, strict=True)]
        whole = np.hstack([known[0], *(part[0] for part in z)]), np.hstack([known[1], *by_row])
        return FactoredRows(X, whole, None, effects)

    def _indicators(self, codes: NDArray[np.intp], t: int) -> SparseMatrix:
        """1 where a row is in a group of term t, (n, J)."""
        n = codes.size
        return sparse.csr_array((np.ones(n), codes, np.arange(n + 1)), shape=(n, self.design.terms[t].n_levels))

    def joint_method(self, ddf: str | None, vcov: FloatArray | None) -> JointMethod | None:
        return joint_method(self.fit, ddf, vcov)

    def offsets(self, frame: Frame) -> list[tuple[frozenset[str], FloatArray]]:
        return self.formula_rows.offsets(frame)

    def training_offset(self, random: Random) -> FloatArray | None:
        """Part of the offset that belongs to the rows of the fit, (n,), None without one."""
        return self._unreplayed

    # --- parameters

    def spread_coefficients(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, slopes, start = [], [], 0
        for term, pairs in zip(self.design.terms, self._pairs, strict=True):
            own = theta[start : start + term.n_theta]
            values.append(pairs.entries(term.structure.covariance(own)))
            block = np.zeros((values[-1].size, theta.size))
            for j, change in enumerate(term.structure.covariance_tangents(own)):
                block[:, start + j] = pairs.entries(change)
            slopes.append(block)
            start += term.n_theta
        return np.concatenate(values), np.vstack(slopes)

    def test_method(self, ddf: str) -> DdfMethod | None:
        if ddf == "normal":
            return None
        if self.is_linear_model:
            return method(self.fit, ddf)
        if ddf == "residual":
            return Plain(self.vcov, float(self.n_rows - self.fit.beta.size))
        return super().test_method(ddf)

    def robust(self, kind: str, cluster: Any, ddf: str | None = None) -> DdfMethod:
        return coefficient_method(self.fit, ddf, kind, cluster)

    def robust_parameters(self, kind: str, cluster: Any) -> FloatArray | None:
        return (
            None
            if self.is_linear_model
            else self._in_order(model_of(self.fit).robust_parameters(check_robust_type(kind), cluster))
        )

    def _in_order(self, covariance: FloatArray) -> FloatArray:
        """Covariance of (coefficients, theta) from that of (theta, beta, ...)."""
        m, p = self.theta.size, self.params.size
        order = np.r_[m : m + p, 0:m]
        moved: FloatArray = np.asarray(covariance, dtype=np.float64)[np.ix_(order, order)]
        return moved

    def replicates(self, n: int, kind: str, group: Any, seed: int, n_jobs: int) -> FloatArray:
        return own_replicates(self.fit, n, kind, group, seed, n_jobs)


def _replayed(recipe: Recipe) -> Recipe:
    """The recipe without an offset that was given as an array; the same one where there is none."""
    if any(one is not None and one.node is None for one in recipe.by_category):
        raise OptionError(
            "margins need the offsets of categories as columns or expressions, since those given as values belong to "
            "the rows of the fit alone; fit the model with offset={category: column}."
        )
    by_values = recipe.offset is not None and recipe.offset.node is None
    return replace(recipe, offset=None) if by_values else recipe
