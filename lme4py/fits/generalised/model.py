"""The engine's side of a generalised linear mixed model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.threads import limited_threads
from lme4py.errors import ConvergenceWarning, OptionError
from lme4py.fits.generalised import joint, many
from lme4py.fits.generalised.categories.proportional import threshold_test
from lme4py.fits.generalised.constrained import GlmmConstrained
from lme4py.fits.generalised.inferences import inferences
from lme4py.fits.generalised.iterative import exact_criterion, level_covariances, predictor_errors
from lme4py.fits.generalised.null import GeneralisedNull, criteria, null_model, working_problem
from lme4py.fits.generalised.objective import objective
from lme4py.fits.generalised.refit import refit_glmm
from lme4py.fits.generalised.scores import score_covariance
from lme4py.fits.generalised.simulate import GlmmSimulator
from lme4py.fits.generalised.steps import fit_like, glmm_fit
from lme4py.fits.generalised.truth import on_rows, with_truth
from lme4py.fits.method import Method, Plain
from lme4py.fits.model import ConeProblem, Model
from lme4py.fits.parameters import Parameter
from lme4py.fits.rows.clusters import ClusterChoice, RobustType
from lme4py.fits.rows.slim import DroppedRows, dropped, slim_conventions, slim_design, slim_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lme4py.data.frame import Frame
    from lme4py.design.design import Design
    from lme4py.families.response import ResponseData
    from lme4py.fits.answers.draws import Draws
    from lme4py.fits.answers.holding import HeldModel, Minimum
    from lme4py.fits.answers.joint import JointVariance
    from lme4py.fits.answers.many import Inferences, Many
    from lme4py.fits.answers.null import Null
    from lme4py.fits.answers.objective import Objective
    from lme4py.fits.answers.working import WorkingModel
    from lme4py.fits.base import Fit
    from lme4py.fits.derived import DerivedNumber
    from lme4py.fits.generalised.fit import GeneralisedFit
    from lme4py.fits.parameters import VarianceInformation
    from lme4py.fits.rows.arrays import RowArrays
    from lme4py.fits.truth import Truth
    from lme4py.linalg.types import FloatArray

__all__ = ["GeneralisedModel"]


# Numbers in the responses that are drawn at a time, and the most responses.
_CHUNK_NUMBERS, _CHUNK = chunk(200_000, 4000), chunk(500)


class GeneralisedModel(Model):
    """The engine's side of a generalised linear mixed model.

    Parameters
    ----------
    fit : GeneralisedFit
    """

    n_simulations, tie = 1_000, 1e-6
    influence_methods = ("one-step", "refit")

    fit: GeneralisedFit

    def __init__(self, fit: GeneralisedFit) -> None:
        self.fit = fit

    def joint_variance(self, expected: bool = False, beside: bool = False) -> JointVariance:
        with limited_threads(self.fit.design):
            return joint.joint_variance(self.fit, expected, beside)

    def predictor_variance(self, rows: RowArrays) -> FloatArray:
        if self.fit.certificate.monte_carlo is not None:
            return predictor_errors(self.fit).variance(rows)
        return super().predictor_variance(rows)

    def information(self, columns: FloatArray) -> FloatArray:
        return joint.information(self.fit, columns)

    def working_model(self) -> WorkingModel:
        with limited_threads(self.fit.design):
            return joint.working_model(self.fit)

    def hat_values(self) -> FloatArray:
        # Thresholds stand in the place of a constant: the variance of a row's predictor without them depends on the
        # origin of its columns, which are centred in the working model.
        beside = self.fit.family.has_thresholds or bool(self.fit.family.with_all_stacked().stacked)
        return self.working_model().leverage if beside else super().hat_values()

    def exact_criterion(self) -> float:
        return exact_criterion(self.fit)

    def level_covariances(self, include_fixed: bool, exact: bool) -> tuple[tuple[FloatArray, ...], str]:
        if self.fit.certificate.monte_carlo is not None:
            return level_covariances(self.fit, include_fixed, exact)
        return super().level_covariances(include_fixed, exact)

    def threshold_test(self, term: int, score: bool) -> tuple[float, int, str]:
        return threshold_test(self.fit, term, score)

    def own_vcov(self) -> FloatArray:
        return joint.model_covariance(self.fit)

    def conditional_covariances(self, include_fixed: bool = False) -> tuple[FloatArray, ...]:
        if include_fixed:
            return joint.conditional_covariances_with_fixed(self.fit, self.joint_variance())
        return joint.conditional_covariances(self.fit)

    def in_blocks(self) -> GeneralisedFit:
        return self.fit.in_blocks

    def variance_information(self) -> VarianceInformation:
        return joint.variance_information(self.fit)

    def parameter_vcov(self) -> FloatArray:
        return self.fit.parameter_vcov

    def robust_method(self, type: RobustType, cluster: ClusterChoice) -> Method:
        m, p = self.fit.theta.size, self.fit.beta.size
        return Plain(self.robust_parameters(type, cluster)[m : m + p, m : m + p], np.inf)

    def with_robust(self, type: RobustType, cluster: ClusterChoice) -> GeneralisedFit:
        fit, whole = self.fit, self.robust_parameters(type, cluster)
        m, p = fit.theta.size, fit.beta.size
        error = None if fit.log_dispersion_se is None else float(np.sqrt(whole[-1, -1]))
        return replace(
            fit,
            vcov=whole[m : m + p, m : m + p].copy(),
            parameter_vcov=whole,
            log_dispersion_se=error,
            model_vcov=fit.own_parameter_vcov,
        )

    def robust_parameters(self, type: RobustType, cluster: ClusterChoice) -> FloatArray:
        return score_covariance(self.fit.in_blocks, type, cluster)

    def refit(self, y: Any, compare: bool = True) -> GeneralisedFit:
        return refit_glmm(self.fit, y, compare)

    def like(
        self, design: Design, data: ResponseData | None = None, start: FloatArray | None = None, thorough: bool = True
    ) -> GeneralisedFit:
        return fit_like(self.fit, design, data, start, thorough)

    def by_maximum_likelihood(self) -> GeneralisedFit:
        fit = self.fit
        if not fit.restricted:
            return fit
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return fit_like(replace(fit, restricted=False), fit.design)

    def simulator(self, kept: Sequence[int] | None = ()) -> Draws:
        every = range(len(self.fit.design.terms))
        return GlmmSimulator(self.fit, every if kept is None else sorted({*kept, *self.fit.design.smooth_terms}))

    def with_truth(self, truth: Truth) -> GeneralisedFit:
        return with_truth(self.fit, truth)

    def on_rows(self, design: Design, frame: Frame) -> GeneralisedFit:
        return on_rows(self.fit, design)

    def without_rows(self) -> GeneralisedFit:
        problem: Any = DroppedRows("the equations of the model")
        return replace(
            self.fit,
            linear_predictor=dropped("linear predictor", self.fit.linear_predictor),
            problem=problem,
            data=slim_response(self.fit.data),
            design=slim_design(self.fit.design),
            conventions=slim_conventions(self.fit.conventions),
        )

    def outlives_rows(self) -> list[DerivedNumber[Any, Any]]:
        own: list[DerivedNumber[Any, Any]] = [joint.variance_information, type(self.fit).integral_check]
        return own if self.fit.problem.chain is None else [*own, joint.conditional_covariances]

    @property
    def limit_model(self) -> str:
        return self.fit.problem.limit_model

    def with_likelihood(self) -> GeneralisedFit:
        fit = self.fit
        if fit.restricted:
            return self.by_maximum_likelihood()
        if fit.nAGQ:
            return fit
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            again = glmm_fit(fit.design, fit.family, fit.data, nAGQ=1, hessian=fit.hessian)
            return again.speaking(fit.conventions)

    def with_profile(self) -> GeneralisedFit:
        if self.fit.nAGQ == 0:
            raise OptionError(
                "a fit with nAGQ=0 does not maximise its likelihood over the fixed effects, so that there is no profile"
                "; refit the model with nAGQ=1, or use method='wald' or 'boot'."
            )
        return self.by_maximum_likelihood()

    def holding(self, parameter: Parameter, own: bool = False) -> GlmmConstrained:
        if self.fit.restricted:
            raise OptionError("a fit with reml=True has no likelihood of its parameters; refit it with reml=False.")
        return GlmmConstrained(self.fit, parameter)

    def from_minimum(self, holding: HeldModel, minimum: Minimum) -> GeneralisedFit:
        roots: list[FloatArray] = []
        for cov in holding.covariances(minimum):
            ridge = 1e-12 * max(float(np.trace(cov)), 1e-6)
            roots.append(np.asarray(np.linalg.cholesky(cov + ridge * np.eye(cov.shape[0])), dtype=np.float64))
        start = self.fit.problem.structures.user.theta_of_factors(roots)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return fit_like(self.fit, self.fit.design, start=start)

    def boundary_parameter(self, term: int, column: int) -> Parameter:
        place = self.fit.design.terms[term].structure.natural_place("sd", (column,))
        return Parameter("sd", "sd", term, column, column, natural=place)

    def without_random(self, result: Any = None) -> GeneralisedNull:
        if self.fit.restricted:
            raise OptionError(
                "a model without random effects has no restricted likelihood to compare with; refit the mixed model "
                "with reml=False."
            )
        return null_model(self.fit, result)

    def cone_problem(self, restricted: Fit | Null) -> ConeProblem:
        return ConeProblem(working_problem(self.fit, restricted), False, not self.fit.problem.n_dispersion)

    def responses_at_once(self) -> int:
        return max(1, min(_CHUNK, _CHUNK_NUMBERS // self.fit.design.n_obs))

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        return criteria(self.fit, Y, why)

    def together(self) -> int:
        return many.together(self.fit)

    def estimates(self, Y: FloatArray) -> Many:
        return many.estimates(self.fit, Y)

    def inferences(self, Y: FloatArray) -> Inferences:
        return inferences(self.fit, Y)

    def refits(self, Y: FloatArray) -> Iterator[Callable[[], GeneralisedFit]]:
        return many.refits(self.fit, Y)

    def estimates_of_design(self, design: Design) -> Many:
        return many.estimates_of_design(self.fit, design)

    def fit_of_design(self, design: Design) -> GeneralisedFit:
        return many.fit_of_design(self.fit, design)

    def objective(self) -> Objective:
        return objective(self.fit)
