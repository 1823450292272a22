"""Diagnostics of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lme4py.results.base import FittedModel

if TYPE_CHECKING:
    import pandas as pd

    from lme4py.inference.diagnostics.allfit import AllFitResult
    from lme4py.inference.diagnostics.check import CheckResult
    from lme4py.inference.diagnostics.influence import InfluenceResult
    from lme4py.inference.diagnostics.repca import RePCA
    from lme4py.inference.uncertainty.clusters import ClusterChoice

__all__ = ["DiagnosticMethods"]


class DiagnosticMethods(FittedModel):
    """Methods that look at what a fit rests on."""

    def influence(self, group: ClusterChoice = None, method: str | None = None) -> InfluenceResult:
        """Cook's distances, dfbeta, dfbetas, leverage of single rows, or of groups.

        Parameters
        ----------
        group : str, array of shape (n,), or None
            None leaves out rows; a grouping factor, or labels of the rows, leave out groups.
        method : {None, "exact", "one-step", "refit"}
            "exact": relative variances kept (default of linear models); "one-step": one step of the variances too
            (linear), or of the fixed effects (generalised, their default); "refit": the model fitted again each time.

        Returns
        -------
        InfluenceResult
        """
        from lme4py.inference.diagnostics.influence import influence

        return influence(self.fit, group, method)

    def drop1(self, test: str | None = None, ddf: str | None = None) -> pd.DataFrame:
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

    def all_fit(
        self,
        optimizers: Sequence[str] | None = None,
        n_starts: int = 2,
        seed: int | None = None,
        max_evaluations: int = 20_000,
    ) -> AllFitResult:
        """Fit again with several optimisers and starts, and compare.

        Parameters
        ----------
        optimizers : sequence of str, optional
            Of "trust-region", "L-BFGS-B", "BFGS", "Nelder-Mead", "Powell", "COBYLA"; all when not given.
        n_starts : int
            The usual start, and random ones.
        seed : int, optional
        max_evaluations : int

        Returns
        -------
        AllFitResult
        """
        from lme4py.inference.diagnostics.allfit import all_fit

        return all_fit(self.fit, optimizers, n_starts, seed, max_evaluations)

    def re_pca(self) -> RePCA:
        """Principal components of the random-effects covariance of each grouping factor.

        Returns
        -------
        RePCA
        """
        from lme4py.inference.diagnostics.repca import re_pca

        return re_pca(self.fit)

    def check(self) -> CheckResult:
        """Convergence, singularity, scaling, separation, dispersion, normality and more, one plain line each.

        Returns
        -------
        CheckResult
        """
        from lme4py.inference.diagnostics.check import check

        return check(self.fit)
