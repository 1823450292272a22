"""Response distributions: everything that a GLMM needs from the log-likelihood of one row.

The log-likelihood l_i(eta, lambda) holds all constants; lambda is the log of the dispersion parameter.
Arrays have the shape of `eta`, (n,) or (K, n): K points at once, as for quadrature nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lme4py.design.response import ResponseData
from lme4py.engine.types import BoolArray, FloatArray

__all__ = ["EtaDerivatives", "Family", "make_family"]


@dataclass(frozen=True, slots=True)
class EtaDerivatives:
    """Row-wise log-likelihood and derivatives, each of the shape of eta.

    What the asked order leaves out is None. A row with `eta` outside the link's range has loglik -inf and
    NaN for everything else.

    Attributes
    ----------
    loglik : l                                     order >= 0
    score : dl/deta                                order >= 1
    w_obs : -d2l/deta2                             order >= 2
    w_exp : E(-d2l/deta2)                          order >= 2 (None when expected=False)
    w_work : positive weight for a Newton step     order >= 2: w_obs where it is large enough, else the
        weight of Fisher scoring (dmu/deta)^2 / V
    dw_obs, dw_exp : d w / deta                    order 3
    d_lam, score_lam, w_obs_lam, w_exp_lam : d l / dlambda, d score / dlambda, ...   order 3; None when n_dispersion = 0
    """

    loglik: FloatArray
    score: FloatArray | None = None
    w_obs: FloatArray | None = None
    w_exp: FloatArray | None = None
    w_work: FloatArray | None = None
    dw_obs: FloatArray | None = None
    dw_exp: FloatArray | None = None
    d_lam: FloatArray | None = None
    score_lam: FloatArray | None = None
    w_obs_lam: FloatArray | None = None
    w_exp_lam: FloatArray | None = None


class Family:
    """A distribution with its link. Get one from `make_family`.  Frozen, hashable, picklable.

    Attributes: name, link (object with .name), n_dispersion (0 or 1), canonical (w_obs is w_exp), log_concave
    (w_obs >= 0 for every eta), lam_range (low, high).
    """

    # --- the interface; bodies follow -------------------------------------------------------------------------
    # derivatives(data, eta, lam=0.0, order=3, *, expected=True) -> EtaDerivatives
    #     order 0: loglik; 1: + score; 2: + w_obs, w_exp, w_work (PIRLS); 3: + dw_*, and the lambda derivatives
    # loglik(data, eta, lam=0.0) -> (…, n)          the same as order 0
    # valid(eta) -> bool array                      inside the range of the link (finite included)
    # mean(eta) -> mu (binomial: probability)       eta_of(mu) -> eta
    # variance(mu, lam), unit_variance(mu, lam)     Var(y) of weight 1 (binomial: one trial); V(mu) as R's glm
    # start_eta(data) -> (n,)                       working start, inside the range
    # start_lambda(data, mu) -> float               moment start of log dispersion (0.0 when n_dispersion = 0)
    # dispersion(lam) -> float: exp(lam) or 1.0     sigma(lam) -> float: as glmmTMB's sigma()
    # deviance_residuals(data, mu, lam), pearson(data, mu, lam), simulate(mu, lam, data, rng) -> y (counts)
    def derivatives(
        self, data: ResponseData, eta: FloatArray, lam: float = 0.0, order: int = 3, *, expected: bool = True
    ) -> EtaDerivatives:
        raise NotImplementedError

    def valid(self, eta: FloatArray) -> BoolArray:
        raise NotImplementedError


def make_family(family: str | Family, link: str | None = None) -> Family:
    """`family` by name, with its default link or `link`; OptionError for names that do not exist."""
    raise NotImplementedError
