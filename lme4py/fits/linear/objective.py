"""The criterion of a linear mixed model for optimisers of every make."""

from __future__ import annotations

import numpy as np

from lme4py.engine.linear.penalised import make_criterion
from lme4py.engine.linear.start import moment_start
from lme4py.engine.optimise import Local
from lme4py.fits.answers.objective import NOWHERE, Objective
from lme4py.fits.linear.fit import LinearFit
from lme4py.linalg.types import FloatArray

__all__ = ["objective"]


def objective(fit: LinearFit) -> Objective:
    criterion = make_criterion(fit.problem, fit.reml)
    scaling, structures = fit.problem.scaling, fit.problem.structures

    def local(theta: FloatArray) -> Local | None:
        try:
            point = criterion.evaluate(theta)
            found = criterion.derivatives(point)
        except np.linalg.LinAlgError:
            return None
        return Local(theta, point.value, found.gradient, found.hessian, None)

    def value(theta: FloatArray) -> tuple[float, FloatArray]:
        try:
            point = criterion.evaluate(theta)
        except np.linalg.LinAlgError:
            return NOWHERE, np.zeros_like(theta)
        return point.value, criterion.theta_gradient(point, criterion.sigma_gradient(point))

    def estimates(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        point = criterion.evaluate(theta)
        spread = scaling.y_scale * float(np.sqrt(criterion.variance(point.r2)))
        own = zip(structures.each, structures.split(theta), scaling.S, strict=True)
        variances = [structure.whole_covariance(part, S).diagonal() for structure, part, S in own]
        return scaling.beta(point.beta), spread * np.sqrt(np.concatenate([np.zeros(0), *variances]))

    return Objective(value, estimates, local, moment_start(criterion.problem), structures, (10.0, 100.0))
