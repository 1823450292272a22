"""The engine's side of a linear mixed model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.engine.threads import limited_threads
from lme4py.fits.answers.noise import Noise
from lme4py.fits.linear import joint, many
from lme4py.fits.linear.batches.deletion import deletions, newton_step
from lme4py.fits.linear.constrained import LinearHolding
from lme4py.fits.linear.derivatives import fixed_in_groups, variance_derivatives
from lme4py.fits.linear.inferences import inferences
from lme4py.fits.linear.information import kenward_roger
from lme4py.fits.linear.iterative import exact_criterion, level_covariances, predictor_errors
from lme4py.fits.linear.objective import objective
from lme4py.fits.linear.parameters import parameter_vcov, variance_information
from lme4py.fits.linear.refit import fit_problem, refit, refit_ml
from lme4py.fits.linear.robust import Robust
from lme4py.fits.linear.simulate import PartialSimulator, Simulator
from lme4py.fits.linear.steps import lmm_fit
from lme4py.fits.linear.truth import on_rows, with_truth
from lme4py.fits.model import ConeProblem, Model
from lme4py.fits.parameters import KenwardRogerParts, Parameter
from lme4py.fits.refuse import refuse_smooths
from lme4py.fits.rows.clusters import ClusterChoice, RobustType, independent_clusters
from lme4py.fits.rows.slim import DroppedRows, slim_conventions, slim_design

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lme4py.data.frame import Frame
    from lme4py.design.design import Design
    from lme4py.families.response import ResponseData
    from lme4py.fits.answers.draws import Draws
    from lme4py.fits.answers.holding import HeldModel, Minimum
    from lme4py.fits.answers.joint import JointVariance
    from lme4py.fits.answers.many import Inferences, Many, UnitEstimate
    from lme4py.fits.answers.null import Null
    from lme4py.fits.answers.objective import Objective
    from lme4py.fits.answers.working import WorkingModel
    from lme4py.fits.base import Fit
    from lme4py.fits.derived import DerivedNumber
    from lme4py.fits.linear.fit import LinearFit
    from lme4py.fits.linear.null import LinearNull
    from lme4py.fits.method import Method
    from lme4py.fits.parameters import VarianceDerivatives, VarianceInformation
    from lme4py.fits.rows.arrays import RowArrays
    from lme4py.fits.truth import Truth
    from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["LinearModel"]


# Numbers in the responses that are drawn at a time, and the most responses.
_CHUNK_NUMBERS, _CHUNK = chunk(4_000_000, 4000), chunk(1000)


class LinearModel(Model):
    """The engine's side of a linear mixed model.

    Parameters
    ----------
    fit : LinearFit
    """

    n_simulations, tie = 10_000, 1e-9
    influence_methods = ("exact", "one-step", "refit")

    fit: LinearFit

    def __init__(self, fit: LinearFit) -> None:
        self.fit = fit

    def joint_variance(self, expected: bool = False, beside: bool = False) -> JointVariance:
        with limited_threads(self.fit.design):
            return joint.joint_variance(self.fit, expected)

    def predictor_variance(self, rows: RowArrays) -> FloatArray:
        if self.fit.certificate.monte_carlo is not None:
            return predictor_errors(self.fit).variance(rows)
        return super().predictor_variance(rows)

    def information(self, columns: FloatArray) -> FloatArray:
        weights = self.fit.design.weights
        own = columns if weights is None else weights[:, None] * columns
        return np.asarray(columns.T @ own / self.fit.sigma**2)

    def noise(self, rows: RowArrays, whole: BoolArray, weights: FloatArray | None, eta: FloatArray) -> Noise:
        return Noise(self.fit.sigma**2 / (1.0 if weights is None else weights) * np.ones(rows.n))

    def working_model(self) -> WorkingModel:
        with limited_threads(self.fit.design):
            return joint.working_model(self.fit.in_blocks)

    def in_blocks(self) -> LinearFit:
        return self.fit.in_blocks

    def mean_square(self) -> float:
        fit = self.fit
        known = fit.problem.known
        return super().mean_square() if known is None else fit.point.r2 / known / (fit.design.n_obs - fit.beta.size)

    def own_vcov(self) -> FloatArray:
        return joint.model_covariance(self.fit)

    def conditional_covariances(self, include_fixed: bool = False) -> tuple[FloatArray, ...]:
        if include_fixed:
            return joint.conditional_covariances_with_fixed(self.fit)
        return joint.conditional_covariances(self.fit)

    def exact_criterion(self) -> float:
        return exact_criterion(self.fit)

    def level_covariances(self, include_fixed: bool, exact: bool) -> tuple[tuple[FloatArray, ...], str]:
        if self.fit.certificate.monte_carlo is not None:
            return level_covariances(self.fit, include_fixed, exact)
        return super().level_covariances(include_fixed, exact)

    def variance_information(self) -> VarianceInformation:
        return variance_information(self.fit)

    def parameter_vcov(self) -> FloatArray:
        return parameter_vcov(self.fit)

    def variance_derivatives(self) -> VarianceDerivatives:
        return variance_derivatives(self.fit)

    def kenward_roger(self) -> KenwardRogerParts:
        return kenward_roger(self.fit.in_blocks)

    def predictor_gradient(self, derivatives: VarianceDerivatives, rows: RowArrays) -> FloatArray:
        return joint.joint_gradient(self.fit, derivatives, rows)

    def robust_method(self, type: RobustType, cluster: ClusterChoice) -> Method:
        return Robust(self.fit, type, independent_clusters(self.fit.design, cluster))

    def with_robust(self, type: RobustType, cluster: ClusterChoice) -> LinearFit:
        return replace(self.fit, vcov=self.robust_method(type, cluster).vcov)

    def fixed_in_groups(self) -> list[FloatArray]:
        return fixed_in_groups(self.fit.point)

    def refit(self, y: Any, compare: bool = True) -> LinearFit:
        return refit(self.fit, y)

    def like(
        self, design: Design, data: ResponseData | None = None, start: FloatArray | None = None, thorough: bool = True
    ) -> LinearFit:
        return lmm_fit(design, self.fit.reml, start=start).speaking(self.fit.conventions)

    def by_maximum_likelihood(self) -> LinearFit:
        return refit_ml(self.fit)

    def simulator(self, kept: Sequence[int] | None = ()) -> Draws:
        if kept is None:
            return Simulator(self.fit, "conditional")
        kept = sorted({*kept, *self.fit.design.smooth_terms})
        return PartialSimulator(self.fit, kept) if kept else Simulator(self.fit)

    def resampler(self) -> Draws:
        refuse_smooths(self.fit, "type='semiparametric' is", "use type='parametric'")
        return Simulator(self.fit, "semiparametric")

    def with_truth(self, truth: Truth) -> LinearFit:
        return with_truth(self.fit, truth)

    def on_rows(self, design: Design, frame: Frame) -> LinearFit:
        return on_rows(self.fit, design)

    def without_rows(self) -> LinearFit:
        problem: Any = DroppedRows("the equations of the model")
        return replace(
            self.fit,
            problem=problem,
            design=slim_design(self.fit.design),
            conventions=slim_conventions(self.fit.conventions),
        )

    def outlives_rows(self) -> list[DerivedNumber[Any, Any]]:
        if self.fit.problem.is_iterative:
            return [variance_information]
        return [
            variance_information,
            variance_derivatives,
            joint.conditional_covariances,
            joint.conditional_covariances_with_fixed,
        ]

    def with_likelihood(self) -> LinearFit:
        return self.fit

    def with_profile(self) -> LinearFit:
        return refit_ml(self.fit)

    def holding(self, parameter: Parameter, own: bool = False) -> LinearHolding:
        return LinearHolding(self.fit, parameter, self.fit.reml if own else False)

    def from_minimum(self, holding: HeldModel, minimum: Minimum) -> LinearFit:
        return fit_problem(self.fit, self.fit.design, self.fit.problem, holding.reml, minimum.theta)

    def boundary_parameter(self, term: int, column: int) -> Parameter:
        place = self.fit.design.terms[term].structure.natural_place("sd", (column,))
        return Parameter("ratio", "ratio", term, column, column, natural=place)

    def deletions(
        self, ok: BoolArray, whole_levels: bool, full: bool
    ) -> tuple[dict[str, FloatArray], BoolArray] | None:
        return deletions(self.fit.in_blocks, ok, whole_levels, full)

    def newton_step(self, design: Design) -> UnitEstimate:
        return newton_step(self.fit, design)

    def without_random(self, result: Any = None) -> LinearNull:
        from lme4py.fits.linear.null import null_model

        return null_model(self.fit, result)

    def cone_problem(self, restricted: Fit | Null) -> ConeProblem:
        return ConeProblem(self.fit.problem, self.fit.reml, not self.fit.has_residual)

    def responses_at_once(self) -> int:
        return max(1, min(_CHUNK, _CHUNK_NUMBERS // self.fit.design.n_obs))

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        from lme4py.fits.linear.null import criteria

        return criteria(self.fit, Y)

    def exact_ratios(self, n_sim: int, seed: int | None) -> FloatArray:
        from lme4py.fits.linear.null import exact_ratios

        return exact_ratios(self.fit, n_sim, seed)

    def together(self) -> int:
        return many.together(self.fit)

    def estimates(self, Y: FloatArray) -> Many:
        return many.estimates(self.fit, Y)

    def inferences(self, Y: FloatArray) -> Inferences:
        return inferences(self.fit, Y)

    def refits(self, Y: FloatArray) -> Iterator[Callable[[], LinearFit]]:
        return many.refits(self.fit, Y)

    def estimates_of_design(self, design: Design) -> Many:
        return many.estimates_of_design(self.fit, design)

    def fit_of_design(self, design: Design) -> LinearFit:
        return lmm_fit(design, self.fit.reml).speaking(self.fit.conventions)

    def objective(self) -> Objective:
        return objective(self.fit)
