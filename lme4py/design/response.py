"""The response of a generalised model: checked, and as the numbers that a family works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

FloatArray = NDArray[np.float64]

__all__ = ["ResponseData"]


@dataclass(frozen=True)
class ResponseData:
    """What the log-likelihood of a row needs, apart from eta and the dispersion.

    Attributes
    ----------
    y : ndarray, shape (n,)
        The response; for the binomial family the number of successes (a count, not a proportion).
    trials : ndarray, shape (n,), or None
        Binomial: number of trials of the row; None for all other families.
    weights : ndarray, shape (n,), or None
        Prior weights w > 0; None stands for ones. Poisson, binomial and negative binomial: the row's log-likelihood
        is multiplied by w. Gaussian, gamma and inverse Gaussian: the row's dispersion is phi / w.
    """

    y: FloatArray
    trials: FloatArray | None = None
    weights: FloatArray | None = None
