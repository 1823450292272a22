"""What is found by fitting the model again: other responses, replicates, profiles, rows left out; and checks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from numpy.typing import ArrayLike

from lme4py.arguments import speaks_throughout
from lme4py.inference.bootstrap.bootstrap import BootstrapResult, bootstrap
from lme4py.inference.profile.profile import Profile, profile
from lme4py.inference.refits import refit as refitting
from lme4py.inference.uncertainty.robust import with_vce
from lme4py.results.rows import RowMethods

if TYPE_CHECKING:
    from lme4py.fits.clusters import ClusterChoice
    from lme4py.inference.diagnostics.allfit import AllFitResult
    from lme4py.inference.diagnostics.check import CheckResult
    from lme4py.inference.diagnostics.influence import InfluenceResult
    from lme4py.inference.diagnostics.repca import RePCA

__all__ = ["RefitMethods"]


@speaks_throughout
class RefitMethods(RowMethods):
    """Resampling, profiles and diagnostics."""

    def refit(self, y: ArrayLike) -> Self:
        """The same model fitted to a new response of the rows used, as a new result.

        Parameters
        ----------
        y : array or Series of shape (n_obs,)
            Or one value for each row of the data, or a data frame with one column, such as a column of `simulate`.
            Values with an index are matched with the rows by it.

        Returns
        -------
        MixedResult or MEGLMResult
        """
        return type(self)(with_vce(refitting.refit(self.fit, y)))

    def bootstrap(
        self,
        n: int = 1000,
        func: Callable[[Any], Any] | None = None,
        seed: int | None = None,
        n_jobs: int | None = 1,
        progress: bool | None = None,
        **kw: Any,
    ) -> BootstrapResult:
        """Bootstrap statistics of the fit.

        Parameters
        ----------
        n : int
            Number of replicates.
        func : callable, optional
            From a result to a number, an array, a dict or a Series; None takes all parameters and is much faster.
        seed : int, optional
            The same seed gives the same numbers for every `n_jobs`.
        n_jobs : int or None
            Processes, -1 for all processors; None leaves it to ``joblib.parallel_config``.
        progress : bool, optional
            Show a progress bar; None shows one on a terminal.
        **kw
            ``type="parametric"`` (or "semiparametric", linear models only, or "cases") and ``group``, the factor whose
            levels are drawn.

        Returns
        -------
        BootstrapResult
        """
        return bootstrap(self.fit, n, func, seed, n_jobs, progress, wrap=type(self), **kw)

    def profile(self, parm: str | Sequence[str] = "all", alpha: float | None = 0.01) -> Profile:
        """Profile likelihood of the parameters, up to the limits of intervals of level 1 - alpha.

        Parameters
        ----------
        parm : "fixed", "random", "all", or names
        alpha : float or None
            None grows the profiles only when intervals are asked for.

        Returns
        -------
        Profile
        """
        return profile(self.fit, parm, alpha)

    def influence(
        self, group: ClusterChoice = None, method: Literal["exact", "one-step", "refit"] | None = None
    ) -> InfluenceResult:
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
