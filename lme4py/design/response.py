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
        Binomial: number of trials of the row (None: one each); None for all other families.
    weights : ndarray, shape (n,), or None
        Prior weights w > 0; None stands for ones. Poisson, binomial and negative binomial: the row's
        log-likelihood is multiplied by w. Gaussian, gamma and inverse Gaussian: its dispersion is phi / w.
    """

    y: FloatArray
    trials: FloatArray | None = None
    weights: FloatArray | None = None

    @property
    def n_obs(self) -> int:
        """Number of rows; grouped binomial data count rows, not trials."""
        return int(self.y.shape[0])

    @property
    def weight(self) -> FloatArray | float:
        """Prior weights, shape (n,), or 1.0."""
        return 1.0 if self.weights is None else self.weights

    # The rest does not change while a model is fitted: computed once.

    @cached_property
    def n_trials(self) -> FloatArray:
        """Trials as an array, shape (n,)."""
        return np.ones_like(self.y) if self.trials is None else self.trials

    @cached_property
    def failures(self) -> FloatArray:
        """Trials less successes, shape (n,)."""
        return self.n_trials - self.y

    @cached_property
    def log_choose(self) -> FloatArray:
        """log of the binomial coefficient, shape (n,)."""
        if self.trials is None:
            return np.zeros_like(self.y)
        result: FloatArray = gammaln(self.trials + 1.0) - gammaln(self.y + 1.0) - gammaln(self.failures + 1.0)
        return result

    @cached_property
    def log_factorial(self) -> FloatArray:
        """log y!, shape (n,)."""
        result: FloatArray = gammaln(self.y + 1.0)
        return result

    @cached_property
    def log_y(self) -> FloatArray:
        """log y of positive responses, shape (n,)."""
        result: FloatArray = np.log(self.y)
        return result
