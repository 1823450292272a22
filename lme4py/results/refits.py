"""What is found by fitting the model again: other responses, replicates, profiles, rows left out; and checks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from numpy.typing import ArrayLike

from lme4py.arguments import speaks_throughout
from lme4py.docstrings import carries
from lme4py.inference.bootstrap.bootstrap import BootstrapResult, bootstrap
from lme4py.inference.diagnostics.allfit import all_fit
from lme4py.inference.diagnostics.check import check
from lme4py.inference.diagnostics.influence import influence
from lme4py.inference.diagnostics.repca import re_pca
from lme4py.inference.profile.profile import Profile, profile
from lme4py.inference.refits import refit as refitting
from lme4py.inference.uncertainty.robust import with_vce
from lme4py.results.rows import RowMethods

if TYPE_CHECKING:
    from lme4py.fits.rows.clusters import ClusterChoice
    from lme4py.inference.diagnostics.allfit import AllFitResult
    from lme4py.inference.diagnostics.check import CheckResult
    from lme4py.inference.diagnostics.influence import InfluenceResult
    from lme4py.inference.diagnostics.repca import RePCA
    from lme4py.results.options import BootstrapType

__all__ = ["RefitMethods"]


@speaks_throughout
class RefitMethods(RowMethods):
    """Resampling, profiles and diagnostics."""

    @carries(refitting.refit)
    def refit(self, y: ArrayLike) -> Self:
        """The same model fitted to a new response of the rows used, as a new result.

        Returns
        -------
        MixedResult or MEGLMResult
        """
        return type(self)(with_vce(refitting.refit(self.fit, y)))

    @carries(bootstrap)
    def bootstrap(
        self,
        n: int = 1000,
        func: Callable[[Any], Any] | None = None,
        seed: int | None = None,
        n_jobs: int | None = 1,
        progress: bool | None = None,
        *,
        type: BootstrapType = "parametric",
        group: str | None = None,
    ) -> BootstrapResult:
        return bootstrap(self.fit, n, func, seed, n_jobs, progress, type=type, group=group, wrap=self.__class__)

    @carries(profile)
    def profile(
        self, parm: str | Sequence[str] = "all", alpha: float | None = 0.01, progress: bool | None = None
    ) -> Profile:
        return profile(self.fit, parm, alpha, progress=progress)

    @carries(influence)
    def influence(
        self,
        group: ClusterChoice = None,
        method: Literal["exact", "one-step", "refit"] | None = None,
        progress: bool | None = None,
        component: str | None = None,
    ) -> InfluenceResult:
        return influence(self.fit, group, method, progress, component)

    @carries(all_fit)
    def all_fit(
        self,
        optimizers: Sequence[str] | None = None,
        n_starts: int = 2,
        seed: int | None = None,
        max_evaluations: int = 20_000,
        progress: bool | None = None,
    ) -> AllFitResult:
        return all_fit(self.fit, optimizers, n_starts, seed, max_evaluations, progress)

    @carries(re_pca)
    def re_pca(self) -> RePCA:
        return re_pca(self.fit)

    @carries(check)
    def check(self) -> CheckResult:
        return check(self.fit)
