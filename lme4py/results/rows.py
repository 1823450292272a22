"""Random effects, rows, predictions and new responses of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike

from lme4py.inference import coefficients, random_effects, residuals
from lme4py.inference import predict as prediction
from lme4py.inference import refit as refitting
from lme4py.inference import simulate as simulation
from lme4py.results.base import FittedModel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RowMethods"]


class RowMethods(FittedModel):
    """Methods that give one number for each level or for each row."""

    # --- random effects -------------------------------------------------------------------------------------

    def ranef(self, conditional_se: bool = False) -> Any:
        """Conditional modes of the random effects.

        Parameters
        ----------
        conditional_se : bool
            Return the pair (modes, conditional standard deviations).

        Returns
        -------
        DataFrame, or dict factor -> DataFrame when there are several grouping factors; or a pair of them
            Rows are levels, columns are random effects.
        """
        modes = random_effects.one_or_dict(random_effects.conditional_modes(self.fit))
        if not conditional_se:
            return modes
        return modes, random_effects.one_or_dict(random_effects.conditional_sds(self.fit))

    @property
    def random_effects(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    @property
    def blups(self) -> Any:
        """The same as ``ranef()``."""
        return self.ranef()

    def coef(self) -> Any:
        """Fixed effects plus conditional modes for each level; shaped as ``ranef()``."""
        return random_effects.one_or_dict(random_effects.coef(self.fit))

    # --- rows -----------------------------------------------------------------------------------------------

    @property
    def fittedvalues(self) -> pd.Series[float]:
        """Fitted values, random effects included, on the data's own index."""
        return residuals.fitted_values(self.fit)

    def residuals(self, type: str = "response") -> pd.Series[float]:
        """Residuals on the data's own index.

        Parameters
        ----------
        type : {"response", "pearson", "scaled", "deviance", "working"}
            Response minus fitted value; times the square root of the weight ("pearson", "deviance"); and
            divided by sigma ("scaled").
        """
        return residuals.residual_series(self.fit, type)

    def predict(
        self,
        data: Any = None,
        include_random: bool | Sequence[str] | str = True,
        type: str = "response",
        new_levels: str = "zero",
        interval: str | None = None,
        alpha: float = 0.05,
    ) -> pd.Series[float]:
        """Predictions on the index of `data`.

        Parameters
        ----------
        data : data frame, optional
            New data; the rows of the fit when not given.
        include_random : bool, list of str, or "integrate"
            All random effects, none, those of the named grouping factors, or averaged over their distribution
            (in a linear model the same as none).
        type : {"response", "linear"}
        new_levels : {"zero", "error"}
            Levels that were not in the fit contribute nothing, with one warning, or are refused.
        interval : None
            Intervals are not available in this version.
        alpha : float
            One minus the level of the interval.
        """
        coefficients.check_no_interval(interval, alpha)
        return prediction.predict(self.fit, data, include_random, type, new_levels)

    # --- other responses ------------------------------------------------------------------------------------

    def simulate(self, n: int = 1, seed: int | None = None, include_random: bool = False) -> pd.DataFrame:
        """Responses drawn from the model, one column each, with new random effects unless `include_random` is true."""
        return simulation.simulate(self.fit, n, seed, include_random)

    def refit(self, y: ArrayLike) -> Self:
        """The same model fitted to a new response of the rows used, as a new result."""
        return type(self)(refitting.refit(self.fit, y))
