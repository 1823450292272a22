"""Bootstrap replicates of linear mixed models: all at once where the model allows it, else one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lme4py.design.design import Design
from lme4py.engine.linear.criterion import Criterion, Problem, make_problem
from lme4py.engine.linear.solve import solve
from lme4py.engine.optimise import Control
from lme4py.fits.linear.batch import BatchSolver, can_batch
from lme4py.fits.linear.fit import LinearFit
from lme4py.fits.linear.refit import Responses, fit_problem, random_start
from lme4py.fits.linear.simulate import Simulator
from lme4py.fits.linear.steps import lmm_fit
from lme4py.fits.parameters import parameters
from lme4py.inference.bootstrap.task import TASK_NUMBERS, TASK_REPLICATES, Part, Seeds, Task, stack_values
from lme4py.linalg.types import FloatArray

__all__ = ["LinearTask"]


@dataclass(frozen=True)
class LinearTask(Task):
    """Replicates of a linear mixed model."""

    def size(self) -> int:
        """Replicates in one task."""
        is_batch = self.func is None and self.kind != "cases" and can_batch(self.fit)
        most = TASK_REPLICATES["batch" if is_batch else "single"]
        sums = 0
        if is_batch:
            factor = self.fit.problem.factors[0]
            sums = factor.size * (2 * factor.n_columns + self.fit.problem.n_fixed)
        numbers: int = max(self.fit.design.n_obs + 4 * sums, 1)
        return max(1, min(most, TASK_NUMBERS // numbers))

    def _responses(self, seeds: Seeds) -> Part:
        responses = Responses(self.fit)
        Y = Simulator(self.fit, self.kind).draw(seeds)
        products = responses.products(Y)
        if self.func is not None:
            return self._each(self._response_fits(responses, Y, products))
        if can_batch(self.fit):
            return self._batch(responses, products)
        return self._each(self._problems(responses, products))

    def _of_design(self, design: Design) -> FloatArray:
        if self.func is not None:
            return self._values(lmm_fit(design, self.fit.reml))
        return _solved_values(self.fit, make_problem(design), None)

    def _response_fits(self, responses: Responses, Y: FloatArray, products: Any) -> Iterator[Callable[[], FloatArray]]:
        Zy, Xy, yy = products
        start = random_start(self.fit)
        for b in range(Y.shape[1]):

            def make(b: int = b) -> FloatArray:
                problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
                design = replace(self.fit.design, y=np.ascontiguousarray(Y[:, b]))
                return self._values(fit_problem(design, problem, self.fit.reml, start))

            yield make

    def _problems(self, responses: Responses, products: Any) -> Iterator[Callable[[], FloatArray]]:
        Zy, Xy, yy = products
        start = random_start(self.fit)
        for b in range(yy.size):

            def make(b: int = b) -> FloatArray:
                problem = responses.problem([z[:, b] for z in Zy], Xy[:, b], float(yy[b]))
                return _solved_values(self.fit, problem, start)

            yield make

    def _batch(self, responses: Responses, products: Any) -> Part:
        Zy, Xy, yy = products
        solver = BatchSolver(Criterion(self.fit.problem, self.fit.reml))
        start = random_start(self.fit)
        found = solver.solve(solver.sums(Zy[0], Xy, yy), start)
        T = solver.factors(found.theta)[..., 0].transpose(2, 0, 1)
        by_term = [T[:, columns, columns] for columns in self.fit.problem.factors[0].columns]
        values = _values_inside(self.fit, self.fit.problem, by_term, found.beta, found.r2 / solver.df)
        failures = []
        for b in np.flatnonzero(~found.converged):
            try:
                problem = responses.problem([Zy[0][:, b]], Xy[:, b], float(yy[b]))
                values[b] = _solved_values(self.fit, problem, start)
            except Exception as error:
                values[b] = np.nan
                failures.append((int(b), f"{error.__class__.__name__}: {error}"))
        return Part(values, tuple(failures), 0)


def _solved_values(fit: LinearFit, problem: Problem, start: FloatArray | None) -> FloatArray:
    """All parameters of a problem, without a certificate."""
    criterion = Criterion(problem, fit.reml)
    point = solve(criterion, start, Control()).source[0]
    T = [t[None] for t in point.T]
    values: FloatArray = _values_inside(fit, problem, T, point.beta[None], np.array([point.r2 / criterion.df]))[0]
    return values


def _values_inside(
    fit: LinearFit, problem: Problem, T: list[FloatArray], beta: FloatArray, sigma2: FloatArray
) -> FloatArray:
    """All parameters on the user's scale, (B, s), from T (B, k, k) of each term, beta (B, p), sigma^2 (B,) inside."""
    scaling = problem.scaling
    covariances = []
    for S, t in zip(scaling.S, T, strict=True):
        root = S @ t
        covariances.append((scaling.y_scale**2 * sigma2)[:, None, None] * (root @ root.transpose(0, 2, 1)))
    sigma = scaling.y_scale * np.sqrt(scaling.weight_scale * sigma2)
    user = scaling.b0 + scaling.y_scale * (beta @ scaling.C.T)
    return stack_values(parameters(fit.design), user, covariances, sigma)
