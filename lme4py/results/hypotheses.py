"""Tests of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from numpy.typing import ArrayLike

from lme4py.arguments import speaks_throughout
from lme4py.errors import OptionError
from lme4py.inference.estimates import coefficients
from lme4py.inference.lrt import lrt
from lme4py.inference.tests.anova import anova
from lme4py.results.base import FittedModel
from lme4py.results.estimates import EstimateMethods

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.clusters import ClusterChoice
    from lme4py.inference.lrt.lrt import LRTestResult
    from lme4py.results.options import Ddf, Robust

__all__ = ["HypothesisMethods"]


AnovaType: TypeAlias = Literal[1, 2, 3, "sequential", "car-2", "car-3"]


@speaks_throughout
class HypothesisMethods(EstimateMethods):
    """Tests of coefficients, of terms and of random effects."""

    def wald_test(
        self,
        restrictions: Any,
        value: float | ArrayLike = 0.0,
        vcov: Robust | None = None,
        cluster: ClusterChoice = None,
    ) -> dict[str, float]:
        """Joint Wald chi-square test of ``R beta = value``.

        Parameters
        ----------
        restrictions : str, sequence of str, dict, array of shape (r, p), or data frame
            Hypotheses as text, such as ``"Days - 10 = 0"`` or ``"a = b, c = 0"``; names of coefficients, tested
            against `value`; a dict from text to value, ``{"Days": 10}``; or the matrix R.
        value : float or array of shape (r,)
        vcov, cluster
            A cluster-robust covariance, as in `coef_table`.

        Returns
        -------
        dict
            chi2, df, p_value.
        """
        return coefficients.wald_test(self.fit, restrictions, value, vcov, cluster)

    def contest(
        self,
        L: Any,
        ddf: Ddf | None = None,
        value: float | ArrayLike = 0.0,
        joint: bool = True,
        vcov: Robust | None = None,
        cluster: ClusterChoice = None,
    ) -> pd.DataFrame:
        """F test of ``L beta = value``, or a t test of each row of L where `joint` is false.

        Parameters
        ----------
        L : str, sequence of str, or array of shape (r, p)
            Coefficients, or a matrix with one column for each of them.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            None is `default_ddf`; with a robust covariance "satterthwaite".
        value : float or array of shape (r,)
        joint : bool
        vcov, cluster
            A cluster-robust covariance, as in `coef_table`.

        Returns
        -------
        DataFrame
            One row, or one for each row of L where `joint` is false.
        """
        from lme4py.inference.tests.anova import contest

        return contest(self.fit, L, ddf, value, joint, vcov, cluster)

    @overload
    def anova(self, type: AnovaType = 3, ddf: Ddf | None = None) -> pd.DataFrame: ...

    @overload
    def anova(self, *models: FittedModel) -> pd.DataFrame: ...

    def anova(self, *models: Any, type: Any = 3, ddf: Any = None) -> pd.DataFrame:
        """Tests of the terms; with other results, ``fit.anova(fit2, ...)``, likelihood-ratio tests between the models.

        REML fits are refitted with ML before they are compared, which the note of the table says.

        Parameters
        ----------
        *models : MixedResult or MEGLMResult
            Models of the same data.
        type : {1, 2, 3, "sequential", "car-2", "car-3"}
            1, 2 and 3 as in SAS and R's lmerTest: each term adjusted for those before it; for those that do not
            contain it; hypotheses that do not depend on the coding of the factors. "sequential" is the table of
            R's lme4; "car-2" and "car-3" are those of R's car. They mean the same for every kind of model; see `anova`.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Of the F tests of a linear model; None is `default_ddf`.

        Returns
        -------
        DataFrame
            One row per term: sum_sq, mean_sq, num_df, den_df, F, p_value of a linear model, chi2, df, p_value (Wald) of
            a generalised one; or one row per model.
        """
        others = [one for one in models if isinstance(one, FittedModel)]
        options = [one for one in models if not isinstance(one, FittedModel)]
        if (others and options) or len(options) > 2:
            raise OptionError("anova() takes either other models, or the type of the tests and ddf.")
        # Both may be given by position: anova(2), anova(3, "kenward-roger").
        type, ddf = (*options, *(type, ddf)[len(options) :])
        return anova(self, *others, type=type, ddf=ddf)

    def drop1(self, test: Literal["F", "Chisq"] | None = None, ddf: Ddf | None = None) -> pd.DataFrame:
        """Test of leaving out each fixed term that is no margin of another one.

        Parameters
        ----------
        test : {None, "F", "Chisq"}
            F tests (default of linear models), or likelihood-ratio tests of maximum-likelihood refits.
        ddf : {None, "satterthwaite", "kenward-roger", "residual", "normal"}
            Of the F tests; None is `default_ddf`.

        Returns
        -------
        DataFrame
            One row per term.
        """
        from lme4py.inference.tests.drop1 import drop1

        return drop1(self.fit, test, ddf)

    def ranova(self) -> pd.DataFrame:
        """Likelihood-ratio tests of leaving out each random effect.

        Returns
        -------
        DataFrame
            One row per random effect, after that of the model itself.
        """
        from lme4py.inference.lrt.ranova import ranova

        return ranova(self.fit)

    def lrtest_no_random(self, **kw: Any) -> LRTestResult:
        """Likelihood-ratio test against the linear model without random effects; for the options see `lrtest`.

        Parameters
        ----------
        **kw
            `boundary`, `method`, `n_sim`, `seed`.

        Returns
        -------
        LRTestResult
        """
        return lrt.lrtest(None, self, **kw)
