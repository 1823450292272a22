"""The engine's side of a linear model with a residual structure."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.engine.marginal import effects
from lme4py.engine.marginal.adjustment import NoAdjustment, expected
from lme4py.engine.threads import limited_threads
from lme4py.errors import OptionError
from lme4py.fits.answers.inferences import inferences_of
from lme4py.fits.answers.many import TASK_REPLICATES, Inferences, Many, nothing, one_by_one, stacked
from lme4py.fits.derived import derived
from lme4py.fits.groups import without_level
from lme4py.fits.model import ConeProblem, Model
from lme4py.fits.parameters import KenwardRogerParts, VarianceDerivatives
from lme4py.fits.refuse import refuse_residual
from lme4py.fits.residual.constrained import ResidualHolding
from lme4py.fits.residual.fit import ResidualFit
from lme4py.fits.residual.held_parameter import ParameterHolding
from lme4py.fits.residual.parameters import (
    log_sigma_slopes,
    par_covariance,
    profiled_parameters,
    residual_errors,
    residual_parameters,
    variance_information,
)
from lme4py.fits.residual.prediction import noise, predictor_gradient, predictor_variance
from lme4py.fits.residual.robust import ResidualRobust
from lme4py.fits.residual.simulate import ResidualDraws, on_rows
from lme4py.fits.residual.steps import residual_fit
from lme4py.fits.residual.working import ResidualWorking, residual_working
from lme4py.fits.rows.clusters import Clusters, independent_clusters
from lme4py.fits.rows.response import response_numbers
from lme4py.fits.rows.slim import DroppedRows, dropped, slim_conventions, slim_design

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lme4py.covariance import CovarianceStructures
    from lme4py.data.frame import Frame
    from lme4py.design.design import Design
    from lme4py.families.response import ResponseData
    from lme4py.fits.answers.draws import Draws
    from lme4py.fits.answers.holding import HeldModel, Minimum
    from lme4py.fits.answers.joint import JointVariance
    from lme4py.fits.answers.noise import Noise
    from lme4py.fits.answers.null import Null
    from lme4py.fits.answers.objective import Objective
    from lme4py.fits.base import Fit
    from lme4py.fits.derived import DerivedNumber
    from lme4py.fits.method import Method
    from lme4py.fits.parameters import Parameter, VarianceInformation
    from lme4py.fits.rows.arrays import RowArrays
    from lme4py.fits.rows.clusters import ClusterChoice, RobustType
    from lme4py.linalg.types import BoolArray, FloatArray, IntArray

__all__ = ["ResidualModel"]

# Least eigenvalue of the adjusted covariance in units of the plain one: it is .9 to 2 where the fit has converged.
_POSITIVE = 1e-6


class ResidualModel(Model):
    """The engine's side of a linear model with a residual structure.

    Parameters
    ----------
    fit : ResidualFit
    """

    fit: ResidualFit

    def __init__(self, fit: ResidualFit) -> None:
        self.fit = fit

    # --- covariances ------------------------------------------------------------------------------------------------

    def joint_variance(self, expected: bool = False, beside: bool = False) -> JointVariance:
        refuse_residual("errors of predictions with conditional modes, and leverages, are")

    def predictor_variance(self, rows: RowArrays) -> FloatArray:
        return predictor_variance(self.fit, rows)

    def predictor_gradient(self, derivatives: VarianceDerivatives, rows: RowArrays) -> FloatArray:
        return predictor_gradient(self.fit, rows)

    def noise(self, rows: RowArrays, whole: BoolArray, weights: FloatArray | None, eta: FloatArray) -> Noise:
        return noise(self.fit, rows, whole, weights, eta)

    def hat_values(self) -> FloatArray:
        return self.working_model().leverage

    def working_model(self) -> ResidualWorking:
        with limited_threads(self.fit.design):
            return residual_working(self.fit)

    def mean_square(self) -> float:
        fit = self.fit
        if not fit.residual.is_known:
            return super().mean_square()
        return fit.problem.criterion.square(fit.point) / (fit.design.n_obs - fit.beta.size)

    def own_vcov(self) -> FloatArray:
        return self.fit.problem.criterion.vcov_outside(self.fit.point.phi)

    def conditional_covariances(self, include_fixed: bool = False) -> tuple[FloatArray, ...]:
        return (with_fixed if include_fixed else without_fixed)(self.fit)

    def exact_criterion(self) -> float:
        return self.fit.criterion

    def variance_information(self) -> VarianceInformation:
        return variance_information(self.fit)

    def parameter_vcov(self) -> FloatArray:
        refuse_residual("a covariance of all parameters is", "see fit.vcov and fit.hessian")

    def variance_derivatives(self) -> VarianceDerivatives:
        return variance_derivatives(self.fit)

    def kenward_roger(self) -> KenwardRogerParts:
        return kenward_roger(self.fit)

    # --- robust covariances -----------------------------------------------------------------------------------------

    def robust_method(self, type: RobustType, cluster: ClusterChoice) -> Method:
        return ResidualRobust(self.fit, type, self._clusters(cluster))

    def _clusters(self, cluster: ClusterChoice) -> Clusters:
        residual = self.fit.residual
        if cluster is not None or not residual.subject_name or self.fit.design.terms:
            return independent_clusters(self.fit.design, cluster)
        return Clusters(residual.subject_name, residual.part.subject, residual.subjects)

    def with_robust(self, type: RobustType, cluster: ClusterChoice) -> ResidualFit:
        return replace(self.fit, vcov=self.robust_method(type, cluster).vcov)

    # --- other fits -------------------------------------------------------------------------------------------------

    def refit(self, y: Any, compare: bool = True) -> ResidualFit:
        values = response_numbers(self.fit.design, y)
        return self.like(replace(self.fit.design, y=values), start=self.fit.theta, thorough=False)

    def like(
        self, design: Design, data: ResponseData | None = None, start: FloatArray | None = None, thorough: bool = True
    ) -> ResidualFit:
        if start is not None and design.n_theta != self.fit.design.n_theta:
            start = None
        made = residual_fit(design, self.fit.residual, self.fit.reml, start, thorough=thorough)
        return replace(made, second_order=self.fit.second_order, conventions=self.fit.conventions)

    def by_maximum_likelihood(self) -> ResidualFit:
        if not self.fit.reml:
            return self.fit
        made = residual_fit(self.fit.design, self.fit.residual, False, self.fit.theta)
        return made.speaking(self.fit.conventions)

    def simulator(self, kept: Sequence[int] | None = ()) -> Draws:
        every = range(len(self.fit.design.terms))
        return ResidualDraws(self.fit, tuple(every if kept is None else kept))

    def on_rows(self, design: Design, frame: Frame) -> ResidualFit:
        return on_rows(self.fit, design, frame)

    def resampler(self) -> Draws:
        refuse_residual("type='semiparametric' is", "use type='parametric'")

    def objective(self) -> Objective:
        refuse_residual("all_fit() is", "give other starts with start=; the certificate lists what was compared")

    # --- many responses ---------------------------------------------------------------------------------------------

    def together(self) -> int:
        return TASK_REPLICATES["single"]

    def estimates(self, Y: FloatArray) -> Many:
        fit = self.fit
        makers = (partial(_estimates, make) for make in self.refits(Y))
        sizes = [cov.shape[0] for cov in fit.covariances]
        empty = nothing(1, fit.beta.size, sizes, None, False, residual=fit.residual_values.size)
        return stacked(one_by_one(makers), empty)

    def inferences(self, Y: FloatArray) -> Inferences:
        def derivatives(one: Any) -> tuple[FloatArray, FloatArray]:
            found = type(self)(one).variance_derivatives()
            return found.jacobian, found.covariance

        return inferences_of(self.fit, self.refits(Y), derivatives)

    def refits(self, Y: FloatArray) -> Iterator[Callable[[], ResidualFit]]:
        return (partial(self.refit, y) for y in Y.T)

    def estimates_of_design(self, design: Design) -> Many:
        return _estimates(partial(self.fit_of_design, design))

    def fit_of_design(self, design: Design) -> ResidualFit:
        if design.n_obs != self.fit.design.n_obs:
            refuse_residual("fits without some of the rows are", "use type='parametric'")
        return self.like(design, start=self.fit.theta, thorough=False)

    # --- influence --------------------------------------------------------------------------------------------------

    influence_methods = ("exact", "refit")

    def independent_units(self, units: Clusters) -> bool:
        batches = self.fit.problem.criterion.batches
        return all((units.codes[batch.rows] == units.codes[batch.rows[:, :1]]).all() for batch in batches)

    def fit_without(self, codes: IntArray, unit: int) -> ResidualFit:
        fit = self.fit
        rows = np.flatnonzero(codes != unit)
        start = None if fit.certificate.is_singular else fit.theta
        design = without_level(fit.design, codes, unit)
        made = residual_fit(design, fit.residual.take(rows), fit.reml, start, thorough=False)
        return replace(made, second_order=fit.second_order, conventions=fit.conventions)

    # --- likelihood ratios ------------------------------------------------------------------------------------------

    n_simulations, tie = 1_000, 1e-6

    @property
    def templates(self) -> CovarianceStructures:
        refuse_residual("a test of a variance at its boundary is", "compare AIC and BIC")

    def without_random(self, result: Any = None) -> Null:
        refuse_residual("the test against a model without random effects is", "fit the smaller model and give it")

    def cone_problem(self, restricted: Fit | Null) -> ConeProblem:
        refuse_residual("a test of a variance at its boundary is", "compare AIC and BIC")

    def responses_at_once(self) -> int:
        return TASK_REPLICATES["single"]

    def criteria(self, Y: FloatArray, why: list[str]) -> FloatArray:
        refuse_residual("simulated likelihood ratios are", "use method='asymptotic'")

    # --- without rows -----------------------------------------------------------------------------------------------

    def without_rows(self) -> ResidualFit:
        problem: Any = DroppedRows("the equations of the model")
        part = replace(
            self.fit.residual.part,
            **{
                name: dropped("residual side", getattr(self.fit.residual.part, name))
                for name in ("subject", "stratum", "points", "log_scale", "weights")
            },
        )
        fitted = dropped("fitted values", self.fit.fitted)
        residual = replace(self.fit.residual, part=part)
        return replace(
            self.fit,
            fitted=fitted,
            problem=problem,
            residual=residual,
            design=slim_design(self.fit.design),
            conventions=slim_conventions(self.fit.conventions),
        )

    def outlives_rows(self) -> list[DerivedNumber[Any, Any]]:
        numbers: list[DerivedNumber[Any, Any]] = [variance_information, variance_derivatives, without_fixed, with_fixed]
        numbers.append(residual_errors)
        if self.fit.residual.has_one_structure:
            numbers.append(log_sigma_slopes)
        if self.fit.reml and self.fit.residual.fitted_column is None:
            numbers.append(kenward_roger)
        return numbers

    # --- the profile ------------------------------------------------------------------------------------------------

    def residual_parameters(self) -> tuple[Parameter, ...]:
        return profiled_parameters(self.fit)

    def residual_limits(self, z: float) -> list[tuple[float, float, float]]:
        return [(one.std_error, one.lower, one.upper) for one in residual_parameters(self.fit, z)]

    def with_likelihood(self) -> ResidualFit:
        return self.fit

    def with_profile(self) -> ResidualFit:
        if self.fit.residual.fitted_column is not None:
            refuse_residual("the profile of power(fitted), which has no likelihood, is", "use Wald intervals")
        return self.by_maximum_likelihood()

    def holding(self, parameter: Parameter, own: bool = False) -> HeldModel:
        held = ParameterHolding if parameter.kind == "residual" else ResidualHolding
        return held(self.fit, parameter, self.fit.reml if own else False)

    def from_minimum(self, holding: HeldModel, minimum: Minimum) -> ResidualFit:
        fit = self.fit
        made = residual_fit(fit.design, fit.residual, holding.reml, fit.problem.to_user(minimum.theta))
        return made.speaking(fit.conventions)

    def boundary_parameter(self, term: int, column: int) -> Parameter:
        refuse_residual("a test of a variance at its boundary is", "compare AIC and BIC")


def _estimates(make: Callable[[], ResidualFit]) -> Many:
    """Estimates of one fit."""
    fit = make()
    covariances = [cov[None] for cov in fit.covariances]
    return Many(fit.beta[None], covariances, np.array([fit.sigma]), residual=fit.residual_values[None])


@derived
def without_fixed(fit: ResidualFit) -> tuple[FloatArray, ...]:
    """Covariances of the modes of every level for known fixed effects, each (J, k, k)."""
    return _conditional(fit, False)


@derived
def with_fixed(fit: ResidualFit) -> tuple[FloatArray, ...]:
    """The same with the uncertainty of the fixed effects."""
    return _conditional(fit, True)


def _conditional(fit: ResidualFit, include_fixed: bool) -> tuple[FloatArray, ...]:
    with limited_threads(fit.design):
        inside = effects.conditional_covariances(fit.problem.criterion, fit.point, include_fixed)
    return tuple(fit.problem.outside(t, cov) for t, cov in enumerate(inside))


@derived
def variance_derivatives(fit: ResidualFit) -> VarianceDerivatives:
    """Derivatives of the covariance of beta in the parameters inside, for Satterthwaite's degrees of freedom.

    One more parameter that has no uncertainty stands in the last place, which that of a common scale has in other
    linear models: here the residual standard deviation is one of the others.
    """
    criterion, point = fit.problem.criterion, fit.point
    with limited_threads(fit.design):
        M = criterion.first_moments(point)
    half = criterion.scaling.y_scale * criterion.scaling.C
    jacobian = half @ (point.phi @ M @ point.phi) @ half.T
    m, p = len(M), fit.beta.size
    covariance = np.zeros((m + 1, m + 1))
    covariance[:m, :m] = par_covariance(fit)
    hessian = np.zeros((m + 1, m + 1))
    hessian[:m, :m] = fit.hessian
    return VarianceDerivatives(
        (), np.concatenate([jacobian, np.zeros((1, p, p))]), hessian, covariance, _covariance_slopes(fit, m + 1)
    )


def _covariance_slopes(fit: ResidualFit, size: int) -> tuple[FloatArray, ...]:
    model = fit.problem.criterion.model
    found = []
    for t, (part, place) in enumerate(zip(model.random, model.slices, strict=False)):
        k = part.structure.size
        own = np.zeros((size, k, k))
        own[place] = fit.problem.outside(t, part.structure.covariance_tangents(fit.par[place]))
        found.append(own)
    return tuple(found)


@derived
def kenward_roger(fit: ResidualFit) -> KenwardRogerParts:
    """The parts of Kenward and Roger's adjustment at the estimates."""
    if fit.residual.fitted_column is not None:
        raise OptionError(
            "ddf='kenward-roger' is not defined where the variance is a power of the fitted values; use "
            "ddf='satterthwaite'."
        )
    criterion, point = fit.problem.criterion, fit.point
    try:
        with limited_threads(fit.design):
            found = expected(criterion, point, fit.second_order)
        weights = np.asarray(0.5 * np.linalg.inv(found.information), dtype=float)
    except NoAdjustment as error:
        return _no_adjustment(fit, str(error))
    except np.linalg.LinAlgError:
        return _no_adjustment(fit, "the information on its covariance parameters is singular")
    phi = point.phi
    changes = phi @ found.first @ phi
    between = np.einsum("st,stij->ij", weights, found.second)
    between -= np.einsum("st,sij,jk,tkl->il", weights, found.first, phi, found.first, optimize=True)
    if found.curved is not None:
        between -= 0.25 * np.einsum("st,stij->ij", weights, found.curved)
    added = 4.0 * phi @ (0.5 * (between + between.T)) @ phi
    if not _is_positive(phi, phi + added):
        return _no_adjustment(fit, "the adjusted covariance of the fixed effects is not positive definite")
    C = criterion.scaling.y_scale * criterion.scaling.C
    return KenwardRogerParts(fit.vcov + C @ added @ C.T, C, phi, changes, weights)


def _is_positive(plain: FloatArray, adjusted: FloatArray) -> bool:
    """Whether a covariance is positive definite, in units in which another one is the identity."""
    half = np.linalg.inv(np.linalg.cholesky(plain))
    return bool(np.isfinite(adjusted).all()) and float(np.linalg.eigvalsh(half @ adjusted @ half.T)[0]) > _POSITIVE


def _no_adjustment(fit: ResidualFit, why: str) -> KenwardRogerParts:
    """Parts of an adjustment that does not exist at the estimates."""
    p, s = fit.beta.size, fit.par.size
    converged = "" if fit.certificate.converged else ", and the fit has not converged (see certificate.verdict)"
    square, changes, weights = (np.full(shape, np.nan) for shape in ((p, p), (s, p, p), (s, s)))
    return KenwardRogerParts(square, square, square, changes, weights, f"{why}{converged}")
