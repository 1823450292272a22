"""The engine's side of a model with a residual structure, and the way between its units and the user's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.covariance import CovarianceStructure
from lme4py.design.design import Design, RandomTerm
from lme4py.design.residual.part import ResidualPart
from lme4py.design.residual.side import ResidualDesign
from lme4py.engine.marginal.criterion import MarginalCriterion
from lme4py.engine.marginal.model import MarginalModel, RandomPart
from lme4py.errors import DesignError
from lme4py.linalg.types import FloatArray, IntArray

__all__ = ["ResidualProblem", "make_problem", "marginal_model", "structure_of"]

# Largest logarithm of a standard deviation whose square has a number.
_FARTHEST = 300.0


@dataclass(frozen=True)
class ResidualProblem:
    """The criterion, and the scales of the columns of the random effects.

    Attributes
    ----------
    criterion : MarginalCriterion
    S : tuple of ndarray, each (k, k)
        Columns inside are Z S, by term.
    """

    criterion: MarginalCriterion
    S: tuple[FloatArray, ...]

    def residual_slice(self, stratum: int) -> slice:
        """Where the residual parameters of a stratum are."""
        return self.criterion.model.slices[len(self.S) + stratum]

    def to_user(self, par: FloatArray) -> FloatArray:
        """Parameters on the user's scale.

        Parameters
        ----------
        par : ndarray, shape (m,)
        """
        model, size = self.criterion.model, self.residual_size(par)
        parts = [self.theta_of_term(t, par[model.slices[t]]) for t in range(len(self.S))]
        own = zip(model.residual.structures, model.slices[len(self.S) :], strict=False)
        parts += [structure.scaled(par[place], size) for structure, place in own]
        return np.concatenate([*parts, par[model.slices[-1]] / model.residual.units])

    def residual_size(self, par: FloatArray) -> float:
        """The residual standard deviations of the user over those inside: these are where the columns have their means.

        Raises
        ------
        DesignError
            Zero or infinite in floating point where the user's columns are zero.
        """
        model = self.criterion.model
        log_size = -float(model.residual.shifts @ par[model.slices[-1]])
        if abs(log_size) > _FARTHEST:
            raise DesignError(
                f"the residual standard deviation where the columns of the variance are zero would be about "
                f"exp({log_size:.3g}), which has no number; take the mean of its covariates off them."
            )
        return self.criterion.scaling.y_scale * float(np.exp(log_size))

    def theta_of_term(self, t: int, par: FloatArray) -> FloatArray:
        """theta of a term on the user's scale from its parameters inside."""
        size = self.criterion.scaling.y_scale
        return _to_user(self.criterion.model.random[t].structure, par, size * self.S[t])

    def par_of_term(self, t: int, theta: FloatArray) -> FloatArray:
        """Parameters inside of a term from its theta on the user's scale."""
        size = self.criterion.scaling.y_scale
        return _to_engine(self.criterion.model.random[t].structure, theta, size * self.S[t])

    def to_inside(self, theta: FloatArray) -> FloatArray:
        """Parameters inside.

        Parameters
        ----------
        theta : ndarray, shape (m,)
            On the user's scale.
        """
        model = self.criterion.model
        parts = [self.par_of_term(t, theta[model.slices[t]]) for t in range(len(self.S))]
        par = theta.copy()
        par[model.slices[-1]] *= model.residual.units
        size = self.residual_size(par)
        own = zip(model.residual.structures, model.slices[len(self.S) :], strict=False)
        parts += [structure.scaled(theta[place], 1.0 / size) for structure, place in own]
        return np.concatenate([*parts, par[model.slices[-1]]])

    def covariances(self, par: FloatArray) -> tuple[FloatArray, ...]:
        """Covariance matrix of each term on the user's scale."""
        model = self.criterion.model
        pairs = zip(model.random, model.slices, strict=False)
        return tuple(self.outside(t, part.structure.covariance(par[place])) for t, (part, place) in enumerate(pairs))

    def outside(self, t: int, inside: FloatArray) -> FloatArray:
        """A covariance of the effects of term t, (..., k, k), on the user's scale."""
        half = self.criterion.scaling.y_scale * self.S[t]
        return np.asarray(half @ inside @ half.T)

    def residual_sd(self, par: FloatArray) -> FloatArray:
        """Residual standard deviation of each row, on the user's scale."""
        model = self.criterion.model
        part = model.residual
        out = np.empty(model.y.size)
        for h, structure in enumerate(part.structures):
            rows = np.flatnonzero(part.stratum == h)
            points = part.points[rows][:, None]
            at = points[..., 0] if part.points.shape[1] == 1 else points
            out[rows] = structure.covariance(par[self.residual_slice(h)], at)[:, 0, 0]
        scale = np.exp(part.log_scale @ par[model.slices[-1]])
        weights = 1.0 if part.weights is None else part.weights
        return np.asarray(self.criterion.scaling.y_scale * scale * np.sqrt(out / weights))

    def residual_block(self, par: FloatArray, rows: IntArray) -> FloatArray:
        """Covariance of the residuals of rows of one subject, variance functions and weights included, (s, s).

        Parameters
        ----------
        par : ndarray, shape (m,)
        rows : ndarray of int, shape (s,)

        Returns
        -------
        ndarray, shape (s, s)
            On the user's scale.
        """
        part, h = self.criterion.model.residual, int(self.criterion.model.residual.stratum[rows[0]])
        structure, theta = part.structures[h], par[self.residual_slice(h)]
        if part.on_grid:
            columns = part.points[rows, 0].astype(np.intp)
            R = structure.covariance(theta)[np.ix_(columns, columns)]
        else:
            points = part.points[rows][None]
            R = structure.covariance(theta, points[..., 0] if points.shape[-1] == 1 else points)[0]
        scale = self.criterion.scaling.y_scale * np.exp(part.log_scale[rows] @ par[self.criterion.model.slices[-1]])
        if part.weights is not None:
            scale = scale / np.sqrt(part.weights[rows])
        return np.asarray(scale[:, None] * R * scale)


def make_problem(design: Design, residual: ResidualDesign, reml: bool) -> ResidualProblem:
    """The criterion of a design.

    Parameters
    ----------
    design : Design
    residual : ResidualDesign
    reml : bool

    Raises
    ------
    DesignError
        Too many rows in one block.
    """
    S = tuple(_column_scale(term) for term in design.terms)
    return ResidualProblem(MarginalCriterion(marginal_model(design, residual.part, S), reml), S)


def marginal_model(design: Design, residual: ResidualPart, S: tuple[FloatArray, ...]) -> MarginalModel:
    """The arrays of a design.

    Parameters
    ----------
    design : Design
    residual : ResidualPart
    S : tuple of ndarray, each (k, k)
        Columns inside are Z S, by term.
    """
    random = tuple(
        RandomPart(structure_of(term).in_columns(scale), term.codes.astype(np.intp), term.values @ scale)
        for term, scale in zip(design.terms, S, strict=True)
    )
    y = design.y if design.offset is None else design.y - design.offset
    return MarginalModel(design.X, y, random, residual)


def structure_of(term: RandomTerm) -> CovarianceStructure:
    """The covariance structure of a term."""
    structure: CovarianceStructure = term.structure
    return structure


def _column_scale(term: RandomTerm) -> FloatArray:
    """A change of columns that keeps the structure, to columns of unit size."""
    structure = structure_of(term)
    Z = term.values
    norm = np.sqrt(np.mean(Z**2, axis=0))
    norm = np.where(norm > 0.0, norm, 1.0)
    if structure.basis is not None or structure.column_changes == "common":
        return np.asarray(np.eye(Z.shape[1]) / np.sqrt(np.mean(norm**2)))
    if structure.column_changes != "any":
        return np.diag(1.0 / norm)
    R = np.linalg.qr(Z / norm, mode="r")
    if np.linalg.matrix_rank(R) < Z.shape[1]:
        return np.diag(1.0 / norm)
    return np.asarray(np.linalg.inv(R) * np.sqrt(len(Z)) / norm[:, None])


def _to_user(structure: CovarianceStructure, theta: FloatArray, S: FloatArray) -> FloatArray:
    if _takes_scales(structure):
        return structure.scaled(theta, float(S[0, 0]))
    return structure.user.to_user(theta, S)


def _to_engine(structure: CovarianceStructure, theta: FloatArray, S: FloatArray) -> FloatArray:
    if _takes_scales(structure):
        return structure.scaled(theta, 1.0 / float(S[0, 0]))
    return structure.user.to_engine(theta, S)


def _takes_scales(structure: CovarianceStructure) -> bool:
    """Whether a change of columns is a change of the scale of theta, whatever else it may do inside."""
    common = structure.basis is not None or structure.column_changes == "common"
    return common and structure.user is structure
