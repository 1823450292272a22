"""Tests of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from numpy.typing import ArrayLike

from lme4py.arguments import speaks_throughout
from lme4py.docstrings import carries
from lme4py.errors import OptionError
from lme4py.inference.estimates import coefficients
from lme4py.inference.lrt import lrt
from lme4py.inference.lrt.ranova import ranova
from lme4py.inference.overview.components import component_anova
from lme4py.inference.responses.equal import equal_effects
from lme4py.inference.tests.anova import anova as analysis_of_variance
from lme4py.inference.tests.anova import contest
from lme4py.inference.tests.drop1 import drop1
from lme4py.results.base import FittedModel
from lme4py.results.estimates import EstimateMethods

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.fits.rows.clusters import ClusterChoice
    from lme4py.inference.lrt.lrt import LRTestResult
    from lme4py.results.options import Ddf, Robust

__all__ = ["HypothesisMethods"]


AnovaType: TypeAlias = Literal[1, 2, 3, "sequential", "car-2", "car-3"]


@speaks_throughout
class HypothesisMethods(EstimateMethods):
    """Tests of coefficients, of terms and of random effects."""

    @carries(coefficients.wald_test)
    def wald_test(
        self,
        restrictions: Any,
        value: float | ArrayLike = 0.0,
        vcov: Robust | None = None,
        cluster: ClusterChoice = None,
    ) -> dict[str, float]:
        return coefficients.wald_test(self.fit, restrictions, value, vcov, cluster)

    @carries(contest)
    def contest(
        self,
        L: Any,
        ddf: Ddf | None = None,
        value: float | ArrayLike = 0.0,
        joint: bool = True,
        vcov: Robust | None = None,
        cluster: ClusterChoice = None,
    ) -> pd.DataFrame:
        return contest(self.fit, L, ddf, value, joint, vcov, cluster)

    @overload
    def anova(self, type: AnovaType = 3, ddf: Ddf | None = None, *, component: str | None = None) -> pd.DataFrame: ...

    @overload
    def anova(self, *models: FittedModel, names: Sequence[str] | None = None) -> pd.DataFrame: ...

    @carries(analysis_of_variance)
    def anova(
        self,
        *models: Any,
        type: Any = 3,
        ddf: Any = None,
        component: str | None = None,
        names: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Tests of the terms; with other results, ``fit.anova(fit2, ...)``, likelihood-ratio tests between the models.

        REML fits are refitted with ML before they are compared, which the note of the table says.

        Parameters
        ----------
        *models : MixedResult or MEGLMResult
            Models of the same data.
        component : str, optional
            The terms of one of `components`, or of "all"; the conditional part when not given.
        """
        options = [one for one in models if one is None or isinstance(one, int | str)]
        others = [one for one in models if not any(one is option for option in options)]
        if (others and options) or len(options) > 2:
            raise OptionError("anova() takes either other models, or the type of the tests and ddf.")
        # Both may be given by position: anova(2), anova(3, "kenward-roger").
        given: list[Any] = [*options, *(type, ddf)[len(options) :]]
        type, ddf = given
        if component is not None and not others:
            return component_anova(self.fit, component, type, ddf)
        return analysis_of_variance(self, *others, type=type, ddf=ddf, names=names)

    @carries(drop1)
    def drop1(
        self,
        test: Literal["F", "Chisq"] | None = None,
        ddf: Ddf | None = None,
        scope: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        return drop1(self.fit, test, ddf, scope)

    @carries(equal_effects)
    def equal_effects(self, terms: str | Sequence[str] | None = None, ddf: Ddf | None = None) -> pd.DataFrame:
        return equal_effects(self.fit, terms, ddf)

    @carries(ranova)
    def ranova(self) -> pd.DataFrame:
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
