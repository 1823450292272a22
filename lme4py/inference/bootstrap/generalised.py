"""Bootstrap replicates of generalised linear mixed models: all at once where the model allows it, else one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from lme4py.chunks import chunk
from lme4py.design.design import Design
from lme4py.errors import ConvergenceWarning, Lme4Error
from lme4py.fits.generalised.batch import can_batch_glmm, solve_responses, user_estimates
from lme4py.fits.generalised.fit import GeneralisedFit
from lme4py.fits.generalised.refit import Estimates, refit_estimates, refit_glmm
from lme4py.fits.generalised.simulate import GlmmSimulator
from lme4py.fits.generalised.steps import fit_like
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import fit_parameters
from lme4py.inference.bootstrap.task import TASK_REPLICATES, Part, Seeds, Task, stack_values
from lme4py.inference.estimates.limits import coefficient_estimates, known_coefficients
from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["GlmmTask"]

# Rows times responses of one batch: arrays of this size stay in the cache.
_BATCH_NUMBERS = chunk(200_000, 4000)
# Standard errors beyond which an estimate of a replicate may be infinite.
_FAR = 10.0


@dataclass(frozen=True)
class GlmmTask(Task):
    """Replicates of a generalised linear mixed model."""

    def size(self) -> int:
        """Replicates in one task."""
        if not self._in_batches():
            return super().size()
        rows: int = self.fit.design.n_obs
        return max(1, min(TASK_REPLICATES["batch"], _BATCH_NUMBERS // rows))

    def _in_batches(self) -> bool:
        return self.func is None and self.kind == "parametric" and can_batch_glmm(self.fit)

    def _responses(self, seeds: Seeds) -> Part:
        Y = GlmmSimulator(self.fit).draw(seeds)
        return self._batch(Y) if self._in_batches() else self._each(self._refits(Y))

    def _batch(self, Y: FloatArray) -> Part:
        """All responses at once; those that the batch leaves open one by one."""
        wanted = fit_parameters(self.fit)
        values = np.full((Y.shape[1], len(wanted)), np.nan)
        possible = np.flatnonzero(~np.isnan(Y).any(axis=0))
        found = solve_responses(self.fit, Y[:, possible])
        sure = possible[found.converged]
        beta, sd = user_estimates(self.fit, found.phi[found.converged])
        # Standard deviations of another size may be infinite: every group with one answer.
        own = max(float(np.sqrt(self.fit.covariances[0][0, 0])), 1.0)
        far = _far(self.fit, beta) | (sd.reshape(sd.shape[0], -1) > _FAR * own).any(axis=1)
        sure, beta, sd = sure[~far], self._known(beta[~far]), sd[~far]
        values[sure] = stack_values(wanted, beta, [(sd**2)[:, None, None]], np.ones(sure.size))
        open_ones = np.setdiff1d(np.arange(Y.shape[1]), sure)
        rest = self._each(self._refits(Y[:, open_ones])) if open_ones.size else None
        if rest is None:
            return Part(values, (), 0)
        values[open_ones] = rest.values
        failures = tuple((int(open_ones[i]), why) for i, why in rest.failures)
        return Part(values, failures, rest.n_not_converged)

    def _known(self, beta: FloatArray) -> FloatArray:
        """Coefficients of replicates, (..., p); those that are infinite in the fit are so in all that come from it."""
        return np.where(known_coefficients(self.fit), beta, coefficient_estimates(self.fit))

    def _refits(self, Y: FloatArray) -> Iterator[Callable[[], FloatArray]]:
        for y in Y.T:

            def make(y: FloatArray = y) -> FloatArray:
                if np.isnan(y).any():
                    raise Lme4Error("the random effects that were drawn lead to a mean outside the range of the link")
                if self.func is not None:
                    return self._values(_counted(refit_glmm(self.fit, y, compare=False)))
                found = refit_estimates(self.fit, y)
                if not _far(self.fit, found.beta):
                    return _estimated(self.fit, replace(found, beta=self._known(found.beta)))
                # Far away means infinite, mostly; the fit itself knows.
                return _estimated(self.fit, _counted(refit_glmm(self.fit, y, compare=False)))

            yield make

    def _of_design(self, design: Design) -> FloatArray:
        fit = self.fit
        again = _counted(fit_like(fit, design, design.response, thorough=False))
        if self.func is not None:
            return self._values(again)
        return _estimated(fit, again)


def _counted(again: GeneralisedFit) -> GeneralisedFit:
    """The same fit; infinite estimates count as not converged."""
    if again.recession is not None:
        warnings.warn(again.certificate.verdict, ConvergenceWarning, stacklevel=2)
    return again


def _far(fit: GeneralisedFit, beta: FloatArray) -> BoolArray:
    """Which fixed effects, (..., p), lie so far from those of the fit that the response may be separated, (...,)."""
    known = known_coefficients(fit)
    error = np.sqrt(np.maximum(model_of(fit).own_vcov().diagonal(), 1e-300))
    return np.asarray((np.abs(beta - fit.beta) > _FAR * error)[..., known].any(axis=-1))


def _estimated(fit: GeneralisedFit, found: Estimates | GeneralisedFit) -> FloatArray:
    """Values of all parameters of a replicate."""
    lam = 0.0 if found.log_dispersion is None else found.log_dispersion
    thresholds = found.threshold_estimates if isinstance(found, GeneralisedFit) else found.thresholds
    values: FloatArray = stack_values(
        fit_parameters(fit),
        (found.beta_estimates if isinstance(found, GeneralisedFit) else found.beta)[None],
        [cov[None] for cov in found.covariances],
        np.array([fit.family.sigma(lam)]),
        np.array([fit.family.dispersion(lam)]),
        None if thresholds is None else np.asarray(thresholds)[None],
    )[0]
    return values
