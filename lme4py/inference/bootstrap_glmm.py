"""Bootstrap replicates of generalised linear mixed models, each from the optimum of the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.types import FloatArray
from lme4py.errors import Lme4Error
from lme4py.glmm_fit import GlmmFit, glmm_fit
from lme4py.inference.bootstrap_task import Part, Seeds, Task, stack_values
from lme4py.inference.glmm_refit import Estimates, refit_estimates, refit_glmm
from lme4py.inference.glmm_simulate import GlmmSimulator
from lme4py.inference.parameters import fit_parameters

__all__ = ["GlmmTask"]


@dataclass(frozen=True)
class GlmmTask(Task):
    """Replicates of a generalised linear mixed model."""

    def _responses(self, seeds: Seeds) -> Part:
        return self._each(self._refits(GlmmSimulator(self.fit).draw(seeds)))

    def _refits(self, Y: FloatArray) -> Iterator[Callable[[], FloatArray]]:
        for y in Y.T:

            def make(y: FloatArray = y) -> FloatArray:
                if np.isnan(y).any():
                    raise Lme4Error("the random effects that were drawn lead to a mean outside the range of the link")
                if self.func is not None:
                    return self._values(refit_glmm(self.fit, y))
                return _estimated(self.fit, refit_estimates(self.fit, y))

            yield make

    def _of_design(self, design: Design) -> FloatArray:
        fit = self.fit
        again = glmm_fit(design, fit.family, design.response, nAGQ=fit.nAGQ, hessian=fit.hessian)
        if self.func is not None:
            return self._values(again)
        return _estimated(fit, again)


def _estimated(fit: GlmmFit, found: Estimates | GlmmFit) -> FloatArray:
    """Values of all parameters of a replicate."""
    lam = 0.0 if found.log_dispersion is None else found.log_dispersion
    thresholds = getattr(found, "thresholds", None)
    values: FloatArray = stack_values(
        fit_parameters(fit),
        found.beta[None],
        [cov[None] for cov in found.covariances],
        np.array([fit.family.sigma(lam)]),
        np.array([fit.family.dispersion(lam)]),
        None if thresholds is None else np.asarray(thresholds)[None],
    )[0]
    return values
