"""What the engine's side of a penalised fit refuses: everything that is about a maximum of the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from lme4py.fits.refuse import refuse_priors

if TYPE_CHECKING:
    from lme4py.design.design import Design
    from lme4py.fits.answers.many import Inferences
    from lme4py.fits.answers.working import WorkingModel
    from lme4py.fits.base import Fit
    from lme4py.fits.parameters import KenwardRogerParts, Parameter, VarianceDerivatives
    from lme4py.fits.rows.clusters import ClusterChoice, RobustType
    from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["Penalised"]

_WALD = "use ddf='normal' or 'residual'"
_BOOTSTRAP = "use method='wald' or 'boot'"


class Penalised:
    """Refusals that the models of penalised fits share."""

    influence_methods: tuple[str, ...] = ("refit",)
    fit: Fit

    def working_model(self) -> WorkingModel:
        priors = self.fit.design.priors
        if priors is not None and priors.fixed is not None:
            refuse_priors("leverage is")
        return super().working_model()  # type: ignore[misc, no-any-return]

    def mean_square(self) -> float:
        refuse_priors("ddf='knapp-hartung' is", _WALD)

    def variance_derivatives(self) -> VarianceDerivatives:
        refuse_priors("Satterthwaite's degrees of freedom are", _WALD)

    def kenward_roger(self) -> KenwardRogerParts:
        refuse_priors("Kenward and Roger's adjustment is", _WALD)

    def predictor_gradient(self, derivatives: Any, rows: Any) -> FloatArray:
        refuse_priors("Satterthwaite's degrees of freedom are", _WALD)

    def fixed_in_groups(self) -> list[FloatArray]:
        refuse_priors("Satterthwaite's degrees of freedom are", _WALD)

    def robust_method(self, type: RobustType, cluster: ClusterChoice) -> NoReturn:
        refuse_priors("a cluster-robust covariance is")

    def with_robust(self, type: RobustType, cluster: ClusterChoice) -> NoReturn:
        refuse_priors("a cluster-robust covariance is")

    def robust_parameters(self, type: RobustType, cluster: ClusterChoice) -> FloatArray:
        refuse_priors("a cluster-robust covariance is")

    def with_profile(self) -> NoReturn:
        refuse_priors("a profile of the likelihood is", _BOOTSTRAP)

    def holding(self, parameter: Parameter, own: bool = False) -> NoReturn:
        refuse_priors("a profile of the likelihood is", _BOOTSTRAP)

    def deletions(self, ok: BoolArray, whole_levels: bool, full: bool) -> None:
        return None

    def newton_step(self, design: Design) -> NoReturn:
        refuse_priors("a Newton step of the variances is", "use method='refit'")

    def without_random(self, result: Any = None) -> NoReturn:
        refuse_priors("a likelihood ratio test is")

    def cone_problem(self, restricted: Any) -> NoReturn:
        refuse_priors("a likelihood ratio test is")

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        refuse_priors("a likelihood ratio test is")

    def exact_ratios(self, n_sim: int, seed: int | None) -> FloatArray:
        refuse_priors("a likelihood ratio test is")

    def inferences(self, Y: FloatArray) -> Inferences:
        refuse_priors("power is", "use bootstrap(), or simulate() and refit()")

    def resampler(self) -> NoReturn:
        refuse_priors("type='semiparametric' is", "use type='parametric' or 'cases'")
