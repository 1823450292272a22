"""How much estimates with known sampling variances differ beyond these: what a meta-analysis reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lme4py.chunks import chunk
from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.shares.r2 import random_moments
from lme4py.inference.shares.sampling import Root, sampling_root
from lme4py.inference.uncertainty.df import method
from lme4py.linalg.types import FloatArray
from lme4py.text import Sentence

__all__ = ["Heterogeneity", "heterogeneity"]

_BLOCK = chunk(500)


@dataclass(frozen=True, repr=False)
class Heterogeneity(Sentence):
    """Heterogeneity of estimates with known sampling variances.

    Attributes
    ----------
    Q : float
        Cochran's statistic: the weighted residual sum of squares of the fixed effects alone.
    df : int
    p_value : float
        Of Q as chi-squared.
    tau2 : float
        Variance of the true effects, all random effects together (a mean over the rows).
    typical_variance : float
        Of the sampling (Higgins & Thompson 2002).
    I2, H2 : float
        Per cent of the variance that is heterogeneity, tau2 / (tau2 + typical variance), and total over typical one.
    I2_by_term : dict of str to float
        The shares of the terms.
    lower, upper : float
        Prediction interval of the true effect of a new study, NaN unless there is an intercept alone: normal,
        or by Knapp and Hartung, or with n - p degrees of freedom, where that is the fit's default.
    log_likelihood_metafor : float
        With log|X'X| / 2 added to a restricted likelihood, as metafor reports it.
    """

    Q: float
    df: int
    p_value: float
    tau2: float
    typical_variance: float
    I2: float
    H2: float
    I2_by_term: dict[str, float]
    lower: float
    upper: float
    log_likelihood_metafor: float

    def __str__(self) -> str:
        text = (
            f"tau^2 = {self.tau2:.4g}, I^2 = {self.I2:.1f}%, H^2 = {self.H2:.3g}; Q({self.df}) = {self.Q:.4g}, "
            f"p = {self.p_value:.3g}"
        )
        return text if np.isnan(self.lower) else f"{text}; a new true effect in [{self.lower:.4g}, {self.upper:.4g}]"


def heterogeneity(fit: Fit, alpha: float = 0.05) -> Heterogeneity:
    """Cochran's Q, I^2, H^2 and a prediction interval of a model whose sampling variances are known.

    Parameters
    ----------
    fit : Fit
        With ``sigma=``.
    alpha : float
        One minus the level of the prediction interval.

    Returns
    -------
    Heterogeneity

    Raises
    ------
    OptionError
        The residual variance is estimated.

    Notes
    -----
    Higgins & Thompson (2002, Stat. Med. 21:1539), with the typical sampling variance (n - p) / tr(P) of models with
    covariates.

    Examples
    --------
    >>> import lme4py
    >>> data = {"y": [0.1, 0.5, 0.3, 0.9], "v": [0.01, 0.02, 0.01, 0.04], "study": ["a", "b", "c", "d"]}
    >>> result = lme4py.lmer("y ~ 1 + (1 | study)", data, weights="1/v", sigma=1)
    >>> print(result.heterogeneity())
    tau^2 = 0.08267, I^2 = 84.0%, H^2 = 6.26; Q(3) = 14.91, p = 0.0019; a new true effect in [-0.2255, 1.063]
    """
    design = fit.design
    half = sampling_root(fit)
    if half is None:
        raise OptionError(
            "heterogeneity() is for models whose sampling variances are known, as lmer(..., weights='1/vi', sigma=1), "
            "or residual=V with sigma=1."
        )
    n, p = design.X.shape
    Q = np.linalg.qr(half(design.X))[0]
    y = design.y if design.offset is None else design.y - design.offset
    rest = half(y[:, None])[:, 0]
    rest = rest - Q @ (Q.T @ rest)
    # tr(P) with P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1 and the root L^-1 of V^-1: |L^-1|^2 - |Q'L^-1|^2.
    whole, lost = _traces(half, Q)
    typical = (n - p) / (whole - lost)
    parts = {
        term.label: term.level_variance * float(np.sum(cov * K))
        for term, cov, K in zip(design.terms, fit.covariances, random_moments(design), strict=True)
    }
    tau2 = sum(parts.values())
    lower, upper = _prediction(fit, tau2, alpha)
    statistic = float(rest @ rest)
    H2 = (tau2 + typical) / typical
    if not parts:
        # No variance is estimated that a share could be of: those of Q (Higgins & Thompson 2002), as metafor's "EE".
        H2 = max(1.0, statistic / (n - p)) if n > p else 1.0
    return Heterogeneity(
        Q=statistic,
        df=n - p,
        p_value=float(special.chdtrc(n - p, statistic)),
        tau2=tau2,
        typical_variance=typical,
        I2=100.0 * (1.0 - 1.0 / H2),
        H2=H2,
        I2_by_term={label: 100.0 * part / (tau2 + typical) for label, part in parts.items()},
        lower=lower,
        upper=upper,
        log_likelihood_metafor=fit.log_likelihood + (_half_log_det(design.X) if fit.reml else 0.0),
    )


def _traces(half: Root, Q: FloatArray) -> tuple[float, float]:
    """|H|^2 and |Q'H|^2 of a root H, a block of its columns after the other."""
    n, whole, lost = len(Q), 0.0, 0.0
    for first in range(0, n, _BLOCK):
        unit = np.zeros((n, min(_BLOCK, n - first)))
        unit[first + np.arange(unit.shape[1]), np.arange(unit.shape[1])] = 1.0
        H = half(unit)
        whole += float(np.sum(H**2))
        lost += float(np.sum((Q.T @ H) ** 2))
    return whole, lost


def _prediction(fit: Fit, tau2: float, alpha: float) -> tuple[float, float]:
    X = fit.design.X
    if X.shape[1] != 1 or not (X == 1.0).all():
        return float("nan"), float("nan")
    chosen = fit.conventions.ddf
    plain = method(fit, chosen if chosen in ("knapp-hartung", "residual") else "normal")
    df = float(plain.t_df(np.eye(1))[0])
    quantile = special.ndtri(1.0 - alpha / 2.0) if np.isinf(df) else special.stdtrit(df, 1.0 - alpha / 2.0)
    half = float(quantile * np.sqrt(plain.vcov[0, 0] + tau2))
    return float(fit.beta[0]) - half, float(fit.beta[0]) + half


def _half_log_det(X: FloatArray) -> float:
    return 0.5 * float(np.linalg.slogdet(X.T @ X)[1])
