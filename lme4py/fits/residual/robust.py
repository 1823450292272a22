"""Cluster-robust covariance of the fixed effects of a model with a residual structure."""

from __future__ import annotations

import numpy as np

from lme4py.engine.marginal.effects import inverse_times
from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError
from lme4py.fits.linear.robust import Robust, RobustPieces, bias_reduced_pieces, jackknife
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.rows.clusters import Clusters, RobustType, buckets, row_sums
from lme4py.linalg.types import FloatArray

__all__ = ["ResidualRobust"]


class ResidualRobust(Robust):
    """As `Robust`, from the covariances of whole units.

    Parameters
    ----------
    fit : ResidualFit
    type : {"CR0", "CR1", "CR2", "CR3"}
    clusters : Clusters
        Unions of units.
    """

    def __init__(self, fit: ResidualFit, type: RobustType, clusters: Clusters) -> None:
        scaling = fit.problem.criterion.scaling
        self.M, self.C, self.type = fit.point.phi, scaling.C * scaling.y_scale, type
        self.n_clusters = clusters.n_clusters
        self._refuse_split(fit, clusters)
        with limited_threads(fit.design):
            self.pieces = self._of(fit, clusters)
        scores = self.pieces.scores @ self.M
        self.vcov = fit.problem.criterion.vcov_outside(scores.T @ scores)

    def _refuse_split(self, fit: ResidualFit, clusters: Clusters) -> None:
        for batch in fit.problem.criterion.batches:
            own = clusters.codes[batch.rows]
            if (own != own[:, :1]).any():
                raise OptionError(
                    f"cluster={clusters.name!r} splits rows that the model takes as correlated; clusters must hold "
                    "whole "
                    f"subjects of {fit.residual.text or 'the residual structure'}."
                )

    def _of(self, fit: ResidualFit, clusters: Clusters) -> RobustPieces:
        criterion, point = fit.problem.criterion, fit.point
        e = criterion.model.y - criterion.model.X @ point.beta
        if self.type == "CR2":
            return _bias_reduced(fit, clusters, e)
        VX = inverse_times(criterion, point, criterion.model.X)
        m = clusters.n_clusters
        blocks = row_sums(criterion.model.X[:, :, None] * VX[:, None, :], clusters.codes, m)
        plain = RobustPieces(row_sums(VX * e[:, None], clusters.codes, m), blocks, blocks)
        if self.type == "CR3":
            return jackknife(plain, self.M, clusters)
        return plain.times(np.sqrt(m / (m - 1.0))) if self.type == "CR1" else plain


def _bias_reduced(fit: ResidualFit, clusters: Clusters, e: FloatArray) -> RobustPieces:
    """CR2, bucket by bucket of clusters."""
    X, M = fit.problem.criterion.model.X, fit.point.phi
    V = _Covariances(fit)
    m, p = clusters.n_clusters, M.shape[0]
    out = RobustPieces(np.empty((m, p)), np.empty((m, p, p)), np.empty((m, p, p)))
    for which, places, counts in buckets(clusters.codes, m):
        real = np.arange(places.shape[1]) < counts[:, None]
        own = np.where(real[:, :, None], X[places], 0.0)
        left = np.where(real, e[places], 0.0)
        bias_reduced_pieces(out, which, own, left, V.of(places, real), M)
    return out


class _Covariances:
    """V between rows of a unit."""

    def __init__(self, fit: ResidualFit) -> None:
        n = fit.design.n_obs
        self.batch, self.unit, self.place = (np.empty(n, dtype=np.intp) for _ in range(3))
        self.V = [blocks.V for blocks in fit.point.blocks]
        self.classes = [batch.unit_class for batch in fit.problem.criterion.batches]
        for b, batch in enumerate(fit.problem.criterion.batches):
            self.batch[batch.rows] = b
            self.unit[batch.rows] = np.arange(len(batch.rows))[:, None]
            self.place[batch.rows] = np.arange(batch.size)

    def of(self, rows: np.ndarray, real: np.ndarray) -> FloatArray:
        """(C, s, s) for rows (C, s); 1 on the diagonal of places that are not real."""
        a, b = rows[:, :, None], rows[:, None, :]
        same = (self.batch[a] == self.batch[b]) & (self.unit[a] == self.unit[b]) & real[:, :, None] & real[:, None, :]
        out = np.zeros(same.shape)
        c, i, j = np.nonzero(same)
        left, right = rows[c, i], rows[c, j]
        for number, V in enumerate(self.V):
            here = self.batch[left] == number
            units = self.classes[number][self.unit[left[here]]]
            out[c[here], i[here], j[here]] = V[units, self.place[left[here]], self.place[right[here]]]
        out[:, np.arange(rows.shape[1]), np.arange(rows.shape[1])] += ~real
        return out
