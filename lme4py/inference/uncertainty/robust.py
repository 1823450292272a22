"""Cluster-robust (sandwich) covariances, and fits whose standard errors are robust."""

from __future__ import annotations

import numpy as np

from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.method import Method
from lme4py.fits.rows.clusters import ClusterChoice, check_robust_type
from lme4py.linalg.types import FloatArray

__all__ = ["robust_covariance", "robust_df", "robust_method", "with_vce"]


def robust_covariance(fit: Fit, type: str = "CR2", cluster: ClusterChoice = None) -> FloatArray:
    """Cluster-robust covariance of the fixed effects, shape (p, p).

    Parameters
    ----------
    fit : Fit
    type : {"CR0", "CR1", "CR2", "CR3"}
        Generalised models have "CR0" and "CR1" (Stata's vce(robust), vce(cluster)), from the scores of the marginal
        likelihood in all parameters.
    cluster : str, array of shape (n,), or None
        A grouping factor, or labels of the rows; None takes the outermost grouping factor.

    Raises
    ------
    OptionError
        Unknown type or cluster, or a level of a grouping factor lies in several clusters.

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> robust_covariance(fit, "CR2").round(4)
    array([[46.5746, -1.4511],
           [-1.4511,  2.3895]])
    """
    return robust_method(fit, type, cluster).vcov


def robust_df(fit: Fit, L: FloatArray, type: str = "CR2", cluster: ClusterChoice = None) -> FloatArray:
    """Satterthwaite's degrees of freedom of l'beta under a robust covariance, one for each row of L.

    Parameters
    ----------
    fit : Fit
        Of a linear mixed model.
    L : ndarray, shape (r, p)
    type, cluster
        As `robust_covariance`.

    Returns
    -------
    ndarray, shape (r,)
    """
    return robust_method(fit, type, cluster).t_df(np.atleast_2d(np.asarray(L, dtype=np.float64)))


def robust_method(fit: Fit, type: str = "CR2", cluster: ClusterChoice = None) -> Method:
    """Robust covariance with degrees of freedom: Satterthwaite's for linear models, infinite for generalised ones.

    Parameters
    ----------
    fit : Fit
    type : {"CR0", "CR1", "CR2", "CR3"}
    cluster : str, array of shape (n,), or None
    """
    return model_of(fit).robust_method(check_robust_type(type), cluster)


def with_vce(fit: Fit) -> Fit:
    """The fit with the robust covariance of its conventions (CR1, as Stata's); the same fit where none is asked for.

    Parameters
    ----------
    fit : Fit
    """
    chosen = fit.conventions
    return fit if chosen.vce is None else model_of(fit).with_robust("CR1", chosen.clusters)
