"""One number for each row: fitted values, residuals, predictions, new responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from lme4py.arguments import speaks_throughout
from lme4py.inference.diagnostics import residuals
from lme4py.inference.diagnostics.leverage import hat_series
from lme4py.inference.diagnostics.quantile_residuals import QuantileResiduals, quantile_residuals
from lme4py.inference.prediction import predict as prediction
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
        """Fitted values, random effects included, on the data's own index."""
        return residuals.fitted_values(self.fit)

    def residuals(self, type: ResidualType = "response", seed: int | None = None) -> pd.Series[float]:
        """Residuals on the data's own index.

        Parameters
        ----------
        type : {"response", "pearson", "scaled", "deviance", "working", "quantile"}
            Response minus fitted value; times the square root of the weight ("pearson", "deviance"); and
            divided by sigma ("scaled"); for "quantile" see `quantile_residuals`.
        seed : int, optional
            Of the quantile residuals, which are simulated.

        Returns
        -------
        Series, shape (n,)
        """
        return residuals.residual_series(self.fit, type, seed)

    def quantile_residuals(
        self, n: int = 250, seed: int | None = None, include_random: bool | str | Sequence[str] = False
    ) -> QuantileResiduals:
        """Where the responses stand among simulated ones (uniform on 0 .. 1 if the model is right), with tests.

        Parameters
        ----------
        n : int
            Number of simulated responses.
        seed : int, optional
        include_random : bool or list of str
            New random effects (False), the conditional modes (True), or those of the named grouping factors only.

        Returns
        -------
        QuantileResiduals
            `residuals`, and the methods `test_uniformity`, `test_dispersion`, `test_zero_inflation`, `test_outliers`.
        """
        return quantile_residuals(self.fit, n, seed, include_random)

    def hatvalues(self) -> pd.Series[float]:
        """Leverages: the diagonal of the matrix from responses to fitted values, on the data's own index.

        For a generalised model those of the working linear model at the estimates.

        Returns
        -------
        Series, shape (n,)
        """
        return hat_series(self.fit)

    def predict(
        self,
        data: Any = None,
        include_random: bool | Sequence[str] | str = True,
        type: PredictType = "response",
        new_levels: NewLevels = "zero",
        interval: PredictInterval | None = None,
        alpha: float | None = None,
        weights: str | ArrayLike | None = None,
        ddf: Ddf | None = None,
        offset: str | ArrayLike | None = None,
    ) -> Any:
        """Predictions on the index of `data`.

        Parameters
        ----------
        data : data frame, optional
            New data; the rows of the fit when not given.
        include_random : bool, list of str, or "integrate"
            All random effects, none, those of the named grouping factors, or means averaged over their distribution
            (in a linear model the same as none).
        type : {"response", "linear"}
            Means (probabilities for the binomial family) or linear predictors. Ordered categories: "response" or
            "prob" gives a DataFrame with the probability of each category, "cumulative" P(Y <= k), and "class" the
            most probable category.
        new_levels : {"zero", "error"}
            Levels that were not in the fit contribute nothing, with one warning, or are refused.
        interval : {None, "confidence", "prediction"}
            "confidence": limits of the mean; the uncertainty of the conditional modes counts where random effects are
            included, by their joint covariance with the fixed effects, and z'Sigma z for groups that were not in the
            fit. "prediction": limits of one new observation, of a known group where its random effects are included,
            else of a new group; the residual variance is that of the row's weight. Ordered categories have
            "confidence" only: limits of each probability, which stay between 0 and 1.
        alpha : float, optional
            One minus the level of the interval; when not given 0.05, or that of the keyword front door.
        weights : str or array of shape (n,), optional
            For prediction intervals on new data: prior weights, or numbers of trials; those that the fit took from a
            column or an expression when not given.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom of the limits; None is `default_ddf`. Satterthwaite's stand in for Kenward and Roger's
            where random effects or new observations are predicted. "prediction" limits of generalised models are
            quantiles of the response, and have none.
        offset : str, number or array of shape (n,), optional
            For new data: the offset in the place of the `offset` argument of the fit. It must be given where that was
            an array; a column or an expression is found again in the new data.

        Returns
        -------
        Series, or DataFrame predicted, lower, upper where an interval is asked for
            Probabilities of ordered categories with an interval have a MultiIndex of columns, (category, predicted),
            (category, lower), (category, upper), so that ``table[category]`` is the frame of one category.
        """
        return prediction.predict(
            self.fit, data, include_random, type, new_levels, interval, alpha, weights, ddf, offset
        )

    def simulate(
        self, n: int = 1, seed: int | None = None, include_random: bool | str | Sequence[str] = False
    ) -> pd.DataFrame:
        """Responses drawn from the model, one column each.

        Parameters
        ----------
        n : int
            Number of responses.
        seed : int, optional
            Column i depends on the seed and i only.
        include_random : bool or list of str
            New random effects (False), the conditional modes (True), or those of the named grouping factors only.

        Returns
        -------
        DataFrame, shape (n_obs, n)
            With ``na_action="exclude"`` a row for each row of the data, NaN where it was left out.
        """
        return simulation.simulate(self.fit, n, seed, include_random)
