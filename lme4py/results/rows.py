"""One number for each row: fitted values, residuals, predictions, new responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from lme4py.arguments import speaks_throughout
from lme4py.docstrings import carries
from lme4py.inference.diagnostics import residuals
from lme4py.inference.diagnostics.leverage import hat_series
from lme4py.inference.diagnostics.quantile_residuals import QuantileResiduals, quantile_residuals
from lme4py.inference.diagnostics.residuals import row_weights
from lme4py.inference.prediction import predict as prediction
from lme4py.inference.prediction.lazily import is_lazy, predict_lazily, residuals_lazily
from lme4py.inference.refits import simulate as simulation
from lme4py.results.hypotheses import HypothesisMethods

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.results.options import Ddf, NewLevels, PredictInterval, PredictType, ResidualType

__all__ = ["RowMethods"]


@speaks_throughout
class RowMethods(HypothesisMethods):
    """What the fit says of rows, old and new."""

    @property
    def fittedvalues(self) -> pd.Series[float]:
        """Fitted values (means; probabilities of binary responses), random effects included, on the data's own index.

        Of ordered categories the probability of the category observed.
        """
        if is_lazy(self.fit):
            fitted: pd.Series[float] = self.predict()
            return fitted
        return residuals.fitted_values(self.fit)

    @carries(residuals.residual_series)
    def residuals(self, type: ResidualType = "response", seed: int | None = None) -> pd.Series[float]:
        if is_lazy(self.fit):
            found: pd.Series[float] = residuals_lazily(self.fit, type)
            return found
        return residuals.residual_series(self.fit, type, seed)

    @carries(row_weights)
    def weights(self, type: Literal["prior", "working"] = "prior") -> pd.Series[float]:
        return row_weights(self.fit, type)

    @carries(quantile_residuals)
    def quantile_residuals(
        self,
        n: int = 250,
        seed: int | None = None,
        include_random: bool | str | Sequence[str] = False,
        category: Any = None,
    ) -> QuantileResiduals:
        return quantile_residuals(self.fit, n, seed, include_random, category)

    @carries(hat_series)
    def hatvalues(self) -> pd.Series[float]:
        return hat_series(self.fit)

    @carries(prediction.predict)
    def predict(
        self,
        data: Any = None,
        include_random: bool | Sequence[str] | str | Mapping[str, str | Sequence[str]] = True,
        type: PredictType = "response",
        new_levels: NewLevels = "zero",
        interval: PredictInterval | None = None,
        alpha: float | None = None,
        weights: str | ArrayLike | None = None,
        ddf: Ddf | None = None,
        offset: str | ArrayLike | Mapping[str, Any] | None = None,
        se: bool = False,
        given: Any = None,
        include_fixed: bool = True,
    ) -> Any:
        if data is None and is_lazy(self.fit):
            own: dict[str, Any] = {"include_random": include_random, "type": type, "new_levels": new_levels}
            own |= {
                "interval": interval,
                "alpha": alpha,
                "weights": weights,
                "ddf": ddf,
                "offset": offset,
                "se": se,
                "given": given,
            }
            return predict_lazily(self.fit, own | {"include_fixed": include_fixed})
        return prediction.predict(
            self.fit,
            data,
            include_random,
            type,
            new_levels,
            interval,
            alpha,
            weights,
            ddf,
            offset,
            se,
            given,
            include_fixed,
        )

    @carries(simulation.simulate)
    def simulate(
        self,
        n: int = 1,
        seed: int | None = None,
        include_random: bool | str | Sequence[str] = False,
        data: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        return simulation.simulate(self.fit, n, seed, include_random, data, params)
