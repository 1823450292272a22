"""Families of which weights divide the dispersion, with weights that count rows instead: sampling weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.families.base import Family
from lme4py.families.distributions import Gamma, Gaussian, InverseGaussian
from lme4py.families.response import ResponseData
from lme4py.linalg.types import FloatArray

__all__ = ["counting_rows"]


class _CountedRows:
    """The dispersion of a row is the same whatever its weight, which multiplies the log-likelihood."""

    weights_multiply = True

    @staticmethod
    def _precision(data: ResponseData, lam: float) -> FloatArray:
        return np.asarray(np.exp(-lam))


@dataclass(frozen=True)
class _CountedGaussian(_CountedRows, Gaussian):
    pass


@dataclass(frozen=True)
class _CountedGamma(_CountedRows, Gamma):
    pass


@dataclass(frozen=True)
class _CountedInverseGaussian(_CountedRows, InverseGaussian):
    pass


_COUNTED: dict[type[Family], type[Family]] = {
    Gaussian: _CountedGaussian,
    Gamma: _CountedGamma,
    InverseGaussian: _CountedInverseGaussian,
}


def counting_rows(family: Family) -> Family:
    """The family with weights that multiply the log-likelihood of a row, as if the row were there so many times.

    Parameters
    ----------
    family : Family

    Returns
    -------
    Family
        The same one, where its weights do so anyway.

    Raises
    ------
    OptionError
        There is no such form of the family.
    """
    if family.weights_multiply:
        return family
    kind = _COUNTED.get(type(family))
    if kind is None:
        raise family.lacks("weights that count rows")
    return kind(family.link)
