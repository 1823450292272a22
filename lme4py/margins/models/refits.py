"""Estimates of the same model fitted to new data: the bootstrap of a session."""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.errors import Lme4Error
from lme4py.inference.bootstrap.bootstrap import bootstrap
from lme4py.linalg.types import FloatArray

__all__ = ["own_replicates"]


def _both(fit: Any) -> FloatArray:
    """Fixed effects, then the thresholds of ordered categories with what stands before them, then theta."""
    thresholds = [] if fit.thresholds is None else [np.array(fit.others), fit.thresholds]
    return np.concatenate([fit.beta, *thresholds, fit.theta])


def own_replicates(fit: Any, n: int, kind: str, group: Any, seed: int, n_jobs: int) -> FloatArray:
    """Coefficients and theta of n refits, failed ones left out, shape (at most n, p + m).

    Parameters
    ----------
    fit : Fit
    n : int
    kind : {"parametric", "clusters"}
        New random effects and responses from the model; or groups drawn with replacement, every draw a new group.
    group : str or None
        Whose levels are drawn.
    seed, n_jobs : int
    """
    how = "parametric" if kind == "parametric" else "cases"
    options: dict[str, Any] = {"type": how, "group": group if how == "cases" else None, "progress": False}
    if not fit.normal_errors:
        made = bootstrap(fit, n, _both, seed, n_jobs, **options)
        values = made.replicates.to_numpy(dtype=np.float64)
    else:
        # theta has no part in the predictions of a linear model; without a function many refits are solved at once.
        made = bootstrap(fit, n, None, seed, n_jobs, **options)
        beta = made.replicates.iloc[:, : fit.beta.size].to_numpy(dtype=np.float64)
        values = np.hstack([beta, np.broadcast_to(fit.theta, (beta.shape[0], fit.theta.size))])
    good = np.isfinite(values).all(axis=1)
    if good.sum() < max(2, n // 2):
        reason = made.failures[0][1] if made.failures else "the numbers are not finite"
        raise Lme4Error(f"{int((~good).sum())} of {n} bootstrap refits failed ({reason}); use method='delta'.")
    kept: FloatArray = values[good]
    return kept
