"""The model that is left of a mixed one without its random effects."""

from __future__ import annotations

from typing import Protocol

from lme4py.families.nuisance import Nuisance
from lme4py.fits.answers.draws import Draws
from lme4py.linalg.types import FloatArray

__all__ = ["Null"]


class Null(Protocol):
    """A model without random effects, fitted by the method of a mixed one.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    log_likelihood : float
    n_params : int
    linear_predictor : ndarray, shape (n,)
        Offset included.
    lam : float or ndarray
        Log dispersion, or the parameters of thresholds.
    """

    @property
    def X(self) -> FloatArray: ...

    @property
    def log_likelihood(self) -> float: ...

    @property
    def n_params(self) -> int: ...

    @property
    def linear_predictor(self) -> FloatArray: ...

    @property
    def lam(self) -> Nuisance: ...

    def simulator(self) -> Draws:
        """What draws responses of this model."""

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        """Minima of the criterion for responses (n, B); NaN where one cannot be fitted, and `why`.

        Parameters
        ----------
        Y : ndarray, shape (n, B)
            As a simulator draws them.
        why : list of str
            Grows by what went wrong.
        """
