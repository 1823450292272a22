"""What every fitted model has: the frozen fit, sizes, variances and the quality of the optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lme4py.arguments import no_attribute, speaks_throughout
from lme4py.docstrings import carries
from lme4py.engine.certificate import Certificate
from lme4py.fits.kinds import model_of
from lme4py.inference.estimates import likelihood, variance
from lme4py.report.summaries import tidy as tidy_report
from lme4py.results.call import FitCall, update

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.design.absent import RowsReport
    from lme4py.fits.base import Fit

__all__ = ["FittedModel"]

FloatArray = NDArray[np.float64]


@speaks_throughout
class FittedModel:
    """A frozen fit and what can be read off it.

    Parameters
    ----------
    fit : Fit
    call : FitCall, optional
        How it was made, for `update`.
    """

    def __init__(self, fit: Any, call: FitCall | None = None) -> None:
        self._fit = fit
        self._call = call

    @property
    def fit(self) -> Fit:
        """The frozen numbers that every method is computed from: a `LinearFit` or a `GeneralisedFit`."""
        fit: Fit = self._fit
        return fit

    @property
    def default_ddf(self) -> str:
        """Degrees of freedom of tests and intervals where none are asked for, here and in `Margins`.

        "satterthwaite" for linear mixed models and "normal" for generalised ones, where the front door was not told
        otherwise (``ddf=`` of `mixed` and its kin, which are "normal" without it).
        """
        return self.fit.default_ddf

    def with_call(self, call: FitCall) -> Self:
        """The same result that remembers how it was made.

        Parameters
        ----------
        call : FitCall
            The function and its arguments.

        Returns
        -------
        MixedResult or MEGLMResult
        """
        return type(self)(self._fit, call)

    def update(self, formula: str | None = None, **arguments: Any) -> Any:
        """Fit the model again with another formula or other arguments, as a new result of the same kind.

        Parameters
        ----------
        formula : str, optional
            As in R: ``.`` stands for what was there, on both sides of the tilde. ``"~ . - Days"`` removes a fixed
            effect, ``"~ . + (0 + Days | Subject)"`` adds a random-effects term, ``"~ . - (1 | item)"`` removes one,
            ``"log(.) ~ ."`` changes the response.
        **arguments
            Arguments of the function that fitted the model, such as ``reml=False``, ``nAGQ=9`` or ``data=new``. Results
            refer to their data; one that was pickled does not, and needs ``data=``.

        Returns
        -------
        MixedResult or MEGLMResult

        Examples
        --------
        >>> from lme4py import lmer, load_dataset
        >>> result = lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
        >>> result.update("~ . - (Days | Subject) + (1 | Subject)", reml=False).formula
        'Reaction ~ Days + (1 | Subject)'
        """
        return update(getattr(self, "_call", None), self.fit.design, formula, arguments)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """Say what another program's name of something is called here."""
            return no_attribute(self, name)

    # --- the model ------------------------------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The formula as it was given."""
        return self.fit.design.formula

    @property
    def rows(self) -> RowsReport:
        """Where the rows were, how many passes over them were made, and over how many blocks."""
        return self.fit.design.rows

    @property
    def n_obs(self) -> int:
        """Number of rows used."""
        return self.fit.design.n_obs

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return self.fit.design.n_groups

    @property
    def n_params(self) -> int:
        """Number of estimated parameters: fixed effects, theta and sigma."""
        return self.fit.n_params

    @property
    def df_resid(self) -> int:
        """Number of rows used minus number of parameters."""
        return self.fit.df_resid

    @property
    def model_matrix(self) -> pd.DataFrame:
        """Fixed-effects model matrix X, shape (n, p), on the index of the rows used."""
        import pandas as pd

        design = self.fit.design
        return pd.DataFrame(design.X, index=design.index[design.keep], columns=list(design.x_names), copy=True)

    @property
    def Zt(self) -> sparse.csr_array:
        """Transposed random-effects model matrix, shape (q, n)."""
        return self.fit.design.Zt

    # --- variances ------------------------------------------------------------------------------------------

    def exact_criterion(self) -> float:
        """The criterion at the estimates by an exact factor of the crossed effects.

        Of a fit with ``control={"block": "iterative"}`` it has no Monte-Carlo error; of others it is `criterion`.

        Returns
        -------
        float

        Raises
        ------
        DesignError
            The factor would not fit into memory.
        """
        return model_of(self.fit).exact_criterion()

    @property
    def theta(self) -> FloatArray:
        """Relative covariance parameters, shape (m,)."""
        return self.fit.theta.copy()

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of a row with weight 1)."""
        return self.fit.sigma

    @property
    def variance_components(self) -> dict[str, float]:
        """Variances, covariances, correlations: ``var(_cons)``, ``cov(_cons,x)``, ..., ``var(Residual)``.

        With several grouping factors the keys end in the factor: ``var(_cons|g)``.
        """
        return variance.variance_components(self.fit)

    @carries(variance.var_corr)
    def var_corr(self) -> pd.DataFrame:
        return variance.var_corr(self.fit)

    # --- quality of fit -------------------------------------------------------------------------------------

    @property
    def covariances(self) -> dict[str, pd.DataFrame]:
        """Covariance of the random effects of each term, by its label; (k, k) with names of the columns."""
        import pandas as pd

        return {
            term.label: pd.DataFrame(covariance.copy(), index=list(term.columns), columns=list(term.columns))
            for term, covariance in zip(self.fit.design.terms, self.fit.covariances, strict=True)
        }

    @property
    def criterion(self) -> float:
        """What was minimised: the REML criterion, or -2 log-likelihood."""
        return self.fit.criterion

    @property
    def log_likelihood(self) -> float:
        """Log-likelihood; for REML fits the restricted one."""
        return self.fit.log_likelihood

    @property
    def deviance(self) -> float:
        """-2 log-likelihood at the estimates; for REML fits the REML criterion."""
        return -2.0 * self.fit.log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's information criterion; NaN, with a warning, for penalised fits."""
        likelihood.warn_penalised(self.fit, "aic")
        return likelihood.aic(self.fit)

    @property
    def bic(self) -> float:
        """Schwarz's information criterion, with n the number of rows used; NaN, with a warning, for penalised fits."""
        likelihood.warn_penalised(self.fit, "bic")
        return likelihood.bic(self.fit)

    @property
    def certificate(self) -> Certificate:
        """What is known about the optimum: gradient, curvature and a verdict in one sentence."""
        return self.fit.certificate

    @property
    def converged(self) -> bool:
        """True when the certificate proves a minimum."""
        return self.fit.certificate.converged

    @property
    def is_singular(self) -> bool:
        """True when a covariance matrix of random effects has no full rank."""
        return self.fit.certificate.is_singular

    @property
    def opt_log(self) -> pd.DataFrame:
        """One row for each evaluation of the criterion."""
        return tidy_report.optimisation_log(self.fit)
