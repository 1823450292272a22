"""The certificate of a linear mixed model: its gradient and Hessian at the optimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lme4py.covariance import CovarianceStructures
from lme4py.engine.certificate import (
    CONVERGED,
    Certificate,
    TermNames,
    describe_limits,
    describe_singular,
    second_minimum,
    verdict,
    with_estimate,
)
from lme4py.engine.identification.record import Identification
from lme4py.engine.linear.criterion import Criterion
from lme4py.engine.linear.hessian import LARGE, exact_hessian, has_exact_hessian
from lme4py.engine.optimise import Optimum
from lme4py.linalg.small import eigen
from lme4py.linalg.types import FloatArray

__all__ = ["certify", "difference_hessian"]

# A residual sum of squares below this part of that of the response is looked at: is its way to zero the minimum?
_HARDLY = 1e-4
# The covariances are enlarged by this, which divides the residual variance by its square, and the criterion may rise
# by so much: with one degree of freedom left for the residual variance it would rise by more than 1.
_ENLARGED, _FLAT = 3.0, 1e-3
# How far the criterion may be from its limit: what it costs in likelihood shows in no estimate.
_AT_LIMIT = 1e-4


def certify(criterion: Criterion, optimum: Optimum, names: TermNames, identification: Identification) -> Certificate:
    """Test the first- and second-order conditions of a local minimum.

    Parameters
    ----------
    criterion : Criterion
    optimum : Optimum
        As `lme4py.engine.linear.solve.solve` returns it.
    names : sequence of (label, column names), one per term
        For the words.
    identification : Identification
    """
    theta = optimum.theta
    _, G, gradient, _ = optimum.source
    # Far out the criterion falls with the logarithm of theta: flat in theta, but not on the way back.
    units = np.maximum(1.0, np.abs(theta))
    values, vectors = eigen(units[:, None] * _hessian(criterion, optimum) * units)
    largest = max(float(np.abs(values).max(initial=0.0)), 1.0)
    along = vectors.T @ (units * gradient)
    # A direction that the model does not identify has no curvature; its gradient is rounding.
    bound = 0.5 * float(np.sum(along**2 / np.maximum(np.abs(values), 1e-9 * largest)))
    problem = criterion.problem
    boundary = _boundary_derivative(problem.structures, theta, G)
    singular = describe_singular(problem.structures, problem.scaling.S, theta, names)
    limits = describe_limits(problem.structures, theta, names, singular)
    shown = with_estimate(singular, identification, optimum.source[0].T, problem.scaling.S)
    # Without a parameter nothing curves, and nothing descends.
    lowest = float(values[0]) if values.size else np.inf
    descends = lowest < -1e-5 * largest or (boundary is not None and boundary < -1e-5 * largest)
    vanishes = _residual_vanishes(criterion, optimum)
    converged = bound < (_AT_LIMIT if vanishes else CONVERGED) and not descends
    caution = _without_residual(criterion, optimum) if vanishes and converged else ""
    what = "the REML criterion" if criterion.reml else "the deviance"
    what = what if problem.priors is None else f"{what} penalised by the priors"
    return Certificate(
        gradient_norm=float(np.sqrt(2.0 * bound)),
        min_eigenvalue=lowest,
        bound=bound,
        boundary_derivative=boundary,
        converged=converged,
        is_singular=bool(singular),
        singular=shown,
        verdict=verdict(
            what, converged, bound, descends, shown, optimum.compared, identification.sentences, optimum.value
        )
        + caution
        + (f" {limits}" if limits else ""),
        compared=optimum.compared,
        unidentified=identification.sentences,
        second=second_minimum(optimum.compared, optimum.value),
        caution=caution.strip(),
    )


def _residual_vanishes(criterion: Criterion, optimum: Optimum) -> bool:
    """Whether the criterion does not rise as the residual variance goes to zero beside the same random effects."""
    problem = criterion.problem
    if problem.known is not None or problem.priors is not None:
        return False
    if optimum.source[0].r2 > _HARDLY * problem.cross.n_obs:
        return False
    try:
        return criterion(problem.structures.scaled(optimum.theta, _ENLARGED)) - optimum.value < _FLAT
    except np.linalg.LinAlgError:  # nothing is left of the residuals in floating point: not known
        return False


def _without_residual(criterion: Criterion, optimum: Optimum) -> str:
    part = optimum.source[0].r2 / criterion.problem.cross.n_obs
    return (
        f" The residual variance goes to zero (here about {part:.0e} of the variance of the response, and the "
        "likelihood is the same without it): the random effects explain every observation, and sigma has no estimate. "
        "`lmer(..., dispformula='~ 0')` fits the model without it."
    )


def _hessian(criterion: Criterion, optimum: Optimum) -> FloatArray:
    """The Hessian by the means that the size of the model allows."""
    point, G, gradient, forms = optimum.source
    n_effects = sum(factor.size for factor in criterion.problem.factors)
    if has_exact_hessian(criterion, point):
        return exact_hessian(criterion, point, G, forms)
    # On a large model m more gradients would cost as much as the fit; the optimiser's Hessian has learnt from those
    # that it saw.
    if n_effects > LARGE and not criterion.is_fast:
        return optimum.hessian
    return difference_hessian(criterion, optimum.theta, gradient)


def difference_hessian(criterion: Criterion, theta: FloatArray, gradient: FloatArray) -> FloatArray:
    """Hessian from one difference of analytic gradients per parameter, shape (m, m)."""
    rows = []
    for i in range(theta.size):
        # The criterion is even in a zero standard deviation, so one-sided steps lose nothing there.
        h = 1e-5 * max(abs(float(theta[i])), 0.1)
        moved = theta.copy()
        moved[i] += h
        rows.append((criterion.gradient(moved) - gradient) / h)
    hessian = np.array(rows)
    symmetric: FloatArray = 0.5 * (hessian + hessian.T)
    return symmetric


def _boundary_derivative(structures: CovarianceStructures, theta: FloatArray, G: Sequence[FloatArray]) -> float | None:
    """Smallest one-sided derivative of the criterion in a variance that is zero."""
    own = zip(structures.each, structures.split(theta), G, strict=True)
    found = (structure.boundary_derivative(theta, g) for structure, theta, g in own)
    return min((value for value in found if value is not None), default=None)
