"""Refits of the same MixedLM model to simulated responses, or to groups drawn with replacement."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lme4py.errors import Lme4Error
from lme4py.linalg.types import FloatArray

__all__ = ["replicates"]


def replicates(results: Any, n: int, kind: str, seed: int, n_jobs: int) -> FloatArray:
    """Fixed effects of n refits; those that failed are left out.

    Parameters
    ----------
    results : MixedLMResults
    n : int
    kind : {"parametric", "clusters"}
        New random effects and residuals; or groups drawn with replacement, every draw a new group.
    seed, n_jobs : int
        Replicate i depends on the seed and i only.
    """
    from joblib import Parallel, delayed

    seeds = np.random.SeedSequence(seed).spawn(n)
    make = _parametric if kind == "parametric" else _clusters
    made = Parallel(n_jobs=n_jobs)(delayed(_one)(results, make, one) for one in seeds)
    good = [row for row in made if row is not None]
    if len(good) < max(2, n // 2):
        raise Lme4Error(f"{n - len(good)} of {n} refits by statsmodels failed; use method='delta'.")
    return np.stack(good)


def _one(results: Any, make: Any, seed: np.random.SeedSequence) -> FloatArray | None:
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            beta = np.asarray(make(results, rng).fit(reml=results.reml).fe_params, dtype=np.float64)
        except (ValueError, np.linalg.LinAlgError):
            return None
    return beta if np.isfinite(beta).all() else None


def _parametric(results: Any, rng: np.random.Generator) -> Any:
    model = results.model
    exog = np.asarray(model.exog)
    y = exog @ np.asarray(results.fe_params) + rng.standard_normal(exog.shape[0]) * np.sqrt(results.scale)
    cov_re = np.atleast_2d(np.asarray(results.cov_re)) if model.k_re else np.zeros((0, 0))
    roots, vectors = np.linalg.eigh(cov_re)
    half = vectors * np.sqrt(np.maximum(roots, 0.0))
    vcomp = np.asarray(results.vcomp) if model.k_vc else np.zeros(0)
    for i, label in enumerate(model.group_labels):
        rows = model.row_indices[label]
        if model.k_re:
            y[rows] += np.asarray(model.exog_re)[rows] @ (half @ rng.standard_normal(cov_re.shape[0]))
        for j, variance in enumerate(vcomp):
            Z = np.asarray(model.exog_vc.mats[j][i])
            y[rows] += Z @ rng.standard_normal(Z.shape[1]) * np.sqrt(variance)
    exog_vc = model.exog_vc if model.k_vc else None
    return type(model)(y, exog, model.groups, _random(model, slice(None)), exog_vc, use_sqrt=model.use_sqrt)


def _random(model: Any, rows: Any) -> Any:
    return np.asarray(model.exog_re)[rows] if model.k_re else None


def _clusters(results: Any, rng: np.random.Generator) -> Any:
    model = results.model
    labels = model.group_labels
    drawn = rng.integers(0, len(labels), len(labels))
    parts = [np.asarray(model.row_indices[labels[i]]) for i in drawn]
    rows = np.concatenate(parts)
    groups = np.repeat(np.arange(len(drawn)), [part.size for part in parts])
    exog_vc = None
    if model.k_vc:
        spec = model.exog_vc
        names = [[spec.colnames[j][i] for i in drawn] for j in range(model.k_vc)]
        mats = [[spec.mats[j][i] for i in drawn] for j in range(model.k_vc)]
        exog_vc = type(spec)(spec.names, names, mats)
    y, exog = np.asarray(model.endog)[rows], np.asarray(model.exog)[rows]
    return type(model)(y, exog, groups, _random(model, rows), exog_vc, use_sqrt=model.use_sqrt)
