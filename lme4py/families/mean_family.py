"""Families whose log-likelihood is written in the mean or its logarithm, with any link by the chain rule."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np

from lme4py.families.links import Derivatives, LogMean, MeanLink, PowerMean
from lme4py.families.mean_response import MeanResponse
from lme4py.families.response import ResponseData
from lme4py.families.rows import EtaDerivatives, Order, working_weight
from lme4py.linalg.types import FloatArray

__all__ = ["MeanFamily", "Pieces", "natural"]

# A field that the order asked for leaves out: None, but typed as the array that it otherwise is.
_ABSENT: Final[Any] = None


@dataclass(slots=True)
class Pieces:
    """Log-likelihood and derivatives in the variable t that is natural for the distribution: mu or log mu.

    Attributes
    ----------
    value, d1, d2, d3 : ndarray
        l and its derivatives with respect to t.
    info, d_info : ndarray
        E(-d2l/dt2), and its derivative with respect to t.
    quasi : ndarray
        (dmu/dt)^2 / Var(y).
    d_lam, d1_lam, d2_lam, info_lam : ndarray
        Derivatives of value, d1, d2, info with respect to lambda.
    """

    value: FloatArray
    d1: FloatArray = _ABSENT
    d2: FloatArray = _ABSENT
    d3: FloatArray = _ABSENT
    info: FloatArray = _ABSENT
    d_info: FloatArray = _ABSENT
    quasi: FloatArray = _ABSENT
    d_lam: FloatArray = _ABSENT
    d1_lam: FloatArray = _ABSENT
    d2_lam: FloatArray = _ABSENT
    info_lam: FloatArray = _ABSENT


@dataclass(frozen=True)
class MeanFamily(MeanResponse):
    """A family whose log-likelihood is written in t = log mu (or t = mu), with any link by the chain rule."""

    link: MeanLink
    uses_log_mean: ClassVar[bool] = True

    @abstractmethod
    def _pieces(self, data: ResponseData, t: FloatArray, lam: float, order: Order, expected: bool) -> Pieces:
        """Log-likelihood and derivatives with respect to t."""

    def _base(self, eta: FloatArray) -> Derivatives | None:
        """t with three derivatives; None where t is eta itself."""
        link = self.link
        if self.uses_log_mean:
            return None if isinstance(link, LogMean) else link.log_mean(eta)
        return None if isinstance(link, PowerMean) and link.power == 1.0 else link.derivatives(eta)

    def _derivatives(
        self, data: ResponseData, eta: FloatArray, lam: float, order: Order, expected: bool
    ) -> EtaDerivatives:
        base = self._base(eta)
        p = self._pieces(data, eta if base is None else base[0], lam, order, expected)
        if base is not None:
            p = _chain(p, base, order)
        if order == 0:
            return EtaDerivatives(p.value)
        if order == 1:
            return EtaDerivatives(p.value, p.d1)
        return self._assemble(p, order)

    def _assemble(self, p: Pieces, order: Order) -> EtaDerivatives:
        """Names and signs of `EtaDerivatives` for pieces in eta."""
        if self.canonical:
            w_obs = w_work = p.info
        else:
            w_obs = -p.d2
            w_work = w_obs if self.log_concave else working_weight(w_obs, p.quasi)
        if order == 2:
            return EtaDerivatives(p.value, p.d1, w_obs, p.info, w_work)
        dw_obs = p.d_info if self.canonical else -p.d3
        result = EtaDerivatives(p.value, p.d1, w_obs, p.info, w_work, dw_obs, p.d_info)
        if self.n_dispersion == 0:
            return result
        w_obs_lam = p.info_lam if self.canonical else -p.d2_lam
        return replace(result, d_lam=p.d_lam, score_lam=p.d1_lam, w_obs_lam=w_obs_lam, w_exp_lam=p.info_lam)


def natural(lam: float) -> FloatArray:
    """exp(lambda), as an array."""
    return np.exp(np.asarray(lam, dtype=np.float64))


def _chain(p: Pieces, base: Derivatives, order: Order) -> Pieces:
    """From derivatives with respect to t to derivatives with respect to eta; absent parts stay absent."""
    _, t1, t2, t3 = base
    result = Pieces(p.value, d_lam=p.d_lam)
    if order >= 1:
        result.d1 = p.d1 * t1
    if order >= 2:
        square = t1 * t1
        result.d2 = p.d2 * square + p.d1 * t2
        result.quasi = p.quasi * square
        result.info = _ABSENT if p.info is None else p.info * square
    if order >= 3:
        result.d3 = p.d3 * square * t1 + 3.0 * p.d2 * t1 * t2 + p.d1 * t3
        result.d_info = _ABSENT if p.info is None else p.d_info * square * t1 + 2.0 * p.info * t1 * t2
        if p.d_lam is not None:
            result.d1_lam = p.d1_lam * t1
            result.d2_lam = p.d2_lam * square + p.d1_lam * t2
            result.info_lam = _ABSENT if p.info is None else p.info_lam * square
    return result
