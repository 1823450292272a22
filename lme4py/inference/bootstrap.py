"""Bootstrap of a linear mixed model: parametric, semiparametric, and of cases.

Replicate i has its own seed, spawned from the one that is given, so that its numbers do not depend on how many
processes work, nor on how many replicates there are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from lme4py.engine.lmm import Criterion, Problem, make_problem
from lme4py.engine.optimize import Control
from lme4py.engine.solve import solve
from lme4py.engine.threads import limited_threads
from lme4py.engine.types import FloatArray
from lme4py.errors import ConvergenceWarning, Lme4Error, OptionError, did_you_mean
from lme4py.fit import Fit, lmm_fit
from lme4py.inference.batch import BatchSolver, can_batch
from lme4py.inference.coefficients import check_alpha
from lme4py.inference.parameters import Parameter, parameters
from lme4py.inference.refit import Responses, fit_problem, linear_fit, random_start
from lme4py.inference.resample import default_group, group_codes, resampled_design, without_level
from lme4py.inference.simulate import Simulator, check_count, check_seed, generators

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BootstrapResult", "bootstrap"]

KINDS = ("parametric", "semiparametric", "cases")
INTERVALS = ("percentile", "basic", "bca", "normal")
# Numbers in the responses of one task, and its most replicates; independent of n_jobs, so that rounding is too.
_TASK_NUMBERS = 4_000_000
_TASK_REPLICATES = {"batch": 1000, "single": 20}

Wrap = Callable[[Fit], Any]
Statistic = Callable[[Any], Any]
Seeds = Sequence[np.random.SeedSequence]


@dataclass(frozen=True)
class BootstrapResult:
    """Replicates of some statistics.

    Attributes
    ----------
    kind : str
        "parametric", "semiparametric" or "cases".
    estimates : Series
        The statistics of the fit itself.
    replicates : DataFrame
        One row per replicate, one column per statistic; NaN where a replicate failed.
    failures : tuple of (int, str)
        Number of each replicate that failed (from 0), and why.
    n_not_converged : int
        Replicates whose optimum could not be certified; their numbers are kept.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> result = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    >>> boot = result.bootstrap(500, seed=1)
    >>> boot
    <BootstrapResult: 500 parametric replicates of 3 statistics, 0 failed>
    >>> list(boot.conf_int().index)
    ['Intercept', 'sd(_cons)', 'sd(Residual)']
    """

    kind: str
    estimates: pd.Series[float]
    replicates: pd.DataFrame
    failures: tuple[tuple[int, str], ...]
    n_not_converged: int = 0
    _jackknife: Callable[[], FloatArray] | None = field(default=None, repr=False, compare=False)

    @property
    def n(self) -> int:
        """Number of replicates, failed ones included."""
        return len(self.replicates)

    @property
    def n_failed(self) -> int:
        """Number of replicates that failed."""
        return len(self.failures)

    def summary(self) -> pd.DataFrame:
        """Table estimate, bias, std_error, n_used of each statistic."""
        import pandas as pd

        mean = self.replicates.mean()
        columns = {
            "estimate": self.estimates,
            "bias": mean - self.estimates,
            "std_error": self.replicates.std(),
            "n_used": self.replicates.notna().sum(),
        }
        return pd.DataFrame(columns)

    def conf_int(
        self, alpha: float | None = None, type: str = "percentile", parm: str | Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Confidence limits lower, upper of each statistic.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; 0.05 when not given.
        type : {"percentile", "basic", "bca", "normal"}
            Quantiles of the replicates; twice the estimate minus these; bias-corrected and accelerated, with
            the acceleration from leaving out one group at a time (Efron 1987); estimate minus bias plus and minus a
            normal quantile times the standard error.
        parm : str or sequence of str, optional
            Names of some statistics.
        """
        import pandas as pd

        if type not in INTERVALS:
            hint = did_you_mean(str(type), INTERVALS)
            raise OptionError(f"type={type!r} is no kind of interval.{hint} Use one of {', '.join(INTERVALS)}.")
        level = check_alpha(alpha)
        names = self._names(parm)
        skew = self._accelerations() if type == "bca" else pd.Series(0.0, index=self.estimates.index)
        rows = [
            _interval(self.replicates[name].to_numpy(), float(self.estimates[name]), level, type, float(skew[name]))
            for name in names
        ]
        index = pd.Index(names, name="term")
        return pd.DataFrame(rows, columns=["lower", "upper"], index=index)

    def _names(self, parm: str | Sequence[str] | None) -> list[str]:
        known = list(self.estimates.index)
        names = known if parm is None else [parm] if isinstance(parm, str) else list(parm)
        for name in names:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise OptionError(f"There is no statistic {name!r}.{hint} The statistics are {', '.join(known)}.")
        return names

    def _accelerations(self) -> pd.Series[float]:
        import pandas as pd

        if self._jackknife is None:
            raise OptionError("type='bca' needs the fit, which this result no longer has; use type='percentile'.")
        values = self._jackknife()
        centred = np.nanmean(values, axis=0) - values
        size = np.nansum(centred**2, axis=0) ** 1.5
        return pd.Series(np.nansum(centred**3, axis=0) / np.maximum(6.0 * size, 1e-300), index=self.estimates.index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_jackknife": None}

    def __repr__(self) -> str:
        return (
            f"<BootstrapResult: {self.n} {self.kind} replicates of {self.estimates.size} statistics, "
            f"{self.n_failed} failed>"
        )


def _interval(values: FloatArray, estimate: float, alpha: float, type: str, skew: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if values.size < 2 or not np.isfinite(estimate):
        return float("nan"), float("nan")
    z = float(special.ndtri(alpha / 2.0))
    if type == "normal":
        centre, half = 2.0 * estimate - float(values.mean()), -z * float(values.std(ddof=1))
        return centre - half, centre + half
    probabilities = np.array([alpha / 2.0, 1.0 - alpha / 2.0])
    if type == "bca":
        below = float(np.mean(values < estimate) + 0.5 * np.mean(values == estimate))
        shift = float(special.ndtri(np.clip(below, 0.5 / values.size, 1.0 - 0.5 / values.size)))
        quantiles = shift + np.array([z, -z])
        probabilities = special.ndtr(shift + quantiles / (1.0 - skew * quantiles))
    lower, upper = (float(q) for q in np.quantile(values, probabilities, method="weibull"))
    return (2.0 * estimate - upper, 2.0 * estimate - lower) if type == "basic" else (lower, upper)


def bootstrap(
    fit: Fit,
    n: int = 1000,
    func: Statistic | None = None,
    seed: int | None = None,
    n_jobs: int | None = 1,
    progress: bool | None = None,
    *,
    type: str = "parametric",
    group: str | None = None,
    wrap: Wrap | None = None,
) -> BootstrapResult:
    """Bootstrap statistics of a fit.

    Parameters
    ----------
    fit : Fit
    n : int
        Number of replicates.
    func : callable, optional
        From a fit to a number, an array, a dict or a Series; None takes all parameters (fixed effects, standard
        deviations, correlations) and is much faster.
    seed : int, optional
    n_jobs : int or None
        Processes, -1 for all processors. None leaves it to ``joblib.parallel_config`` (Dask or Ray clusters).
    progress : bool, optional
        Show a progress bar on standard error; None shows one on a terminal.
    type : {"parametric", "semiparametric", "cases"}
        New random effects and residuals from normal distributions; resampled from the fitted ones after these are
        given the estimated variances; or whole groups drawn with replacement, each draw a new group.
    group : str, optional
        The grouping factor whose levels are drawn ("cases"), or left out for BCa intervals; the outermost one when
        factors are nested.
    wrap : callable, optional
        Makes of a Fit what `func` expects.

    Returns
    -------
    BootstrapResult
    """
    fit = linear_fit(fit, "bootstrap()")
    count = check_count("n", n)
    if type not in KINDS:
        hint = did_you_mean(str(type), KINDS)
        raise OptionError(f"type={type!r} is no kind of bootstrap.{hint} Use one of {', '.join(KINDS)}.")
    if func is not None and not callable(func):
        raise OptionError(f"`func` is {func!r}; give a function of the result, or None for all parameters.")
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0):
        raise OptionError(f"`n_jobs` is {n_jobs!r}; give a number of processes, -1 for all, or None.")
    if type == "cases" or group is not None:
        group = default_group(fit.design, group, required=True)
    task = _Task(fit, type, group, func, wrap)
    seeds = np.random.SeedSequence(check_seed(seed)).spawn(count)
    parts = list(_with_progress(_run(task, seeds, n_jobs), count, progress))
    return _collect(task, parts, count)


@dataclass(frozen=True)
class _Part:
    """Replicates of one task: values (B, s), failures by position in the task."""

    values: FloatArray
    failures: tuple[tuple[int, str], ...]
    n_not_converged: int


@dataclass(frozen=True)
class _Task:
    """What every process needs to make replicates."""

    fit: Fit
    kind: str
    group: str | None
    func: Statistic | None
    wrap: Wrap | None

    @property
    def names(self) -> list[str]:
        if self.func is None:
            return [parameter.name for parameter in parameters(self.fit.design)]
        return list(self._call(self.fit))

    def estimates(self) -> FloatArray:
        if self.func is None:
            return _fit_values(self.fit)
        return np.array(list(self._call(self.fit).values()))

    def _call(self, fit: Fit) -> dict[str, float]:
        if self.func is None:
            raise ValueError("there is no function")
        return _as_numbers(self.func(fit if self.wrap is None else self.wrap(fit)), self.func)

    def size(self) -> int:
        """Replicates in one task."""
        is_batch = self.func is None and self.kind != "cases" and can_batch(self.fit)
        most = _TASK_REPLICATES["batch" if is_batch else "single"]
        sums = 0
        if is_batch:
            factor = self.fit.problem.factors[0]
            sums = factor.size * (2 * factor.n_columns + self.fit.problem.n_fixed)
        return max(1, min(most, _TASK_NUMBERS // max(self.fit.design.n_obs + 4 * sums, 1)))

    def __call__(self, seeds: Seeds) -> _Part:
        with limited_threads(self.fit.design):
            if self.kind == "cases":
                return self._each(self._case_fits(seeds))
            responses = Responses(self.fit)
            Y = Simulator(self.fit, self.kind).draw(seeds)
            products = responses.products(Y)
            if self.func is not None:
                return self._each(self._response_fits(responses, Y, products))
            if can_batch(self.fit):
                return self._batch(responses, products)
            return self._each(self._problems(responses, products))

    def _each(self, makers: Iterator[Callable[[], FloatArray]]) -> _Part:
        """Values one by one; whatever goes wrong in one replicate is recorded."""
        rows, failures, not_converged = [], [], 0
        for i, make in enumerate(makers):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    rows.append(make())
                except Exception as error:
                    rows.append(np.array([np.nan]))
                    failures.append((i, f"{error.__class__.__name__}: {error}"))
            not_converged += any(issubclass(w.category, ConvergenceWarning) for w in caught)
        width = max(row.size for row in rows)
        values = np.full((len(rows), width), np.nan)
        for i, row in enumerate(rows):
            values[i, : row.size] = row
        return _Part(values, tuple(failures), not_converged)

    def _values(self, fit: Fit) -> FloatArray:
        return np.array(list(self._call(fit).values()))

    def _response_fits(self, responses: Responses, Y: FloatArray, products: Any) -> Iterator[Callable[[], FloatArray]]:
        from dataclasses import replace

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

    def _case_fits(self, seeds: Seeds) -> Iterator[Callable[[], FloatArray]]:
        design = self.fit.design
        codes = group_codes(design, self.group or "")
        for rng in generators(seeds):
            drawn = resampled_design(design, codes, rng)

            def make(drawn: Any = drawn) -> FloatArray:
                return self.of_design(drawn)

            yield make

    def of_design(self, design: Any) -> FloatArray:
        """The statistics of the model of another design."""
        if np.linalg.matrix_rank(design.X) < design.X.shape[1]:
            raise Lme4Error("the groups that were drawn do not identify all fixed effects")
        if self.func is not None:
            return self._values(lmm_fit(design, self.fit.reml))
        return _solved_values(self.fit, make_problem(design), None)

    def _batch(self, responses: Responses, products: Any) -> _Part:
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
        return _Part(values, tuple(failures), 0)

    def jackknife(self) -> FloatArray:
        """The statistics without each level of the group in turn, (J, s)."""
        design = self.fit.design
        codes = group_codes(design, self.group or default_group(design, None, required=False))
        levels = int(codes.max()) + 1
        makers = ((lambda j=j: self.of_design(without_level(design, codes, j))) for j in range(levels))
        with limited_threads(design):
            return self._each(makers).values


def _solved_values(fit: Fit, problem: Problem, start: FloatArray | None) -> FloatArray:
    """All parameters of a problem, without a certificate."""
    criterion = Criterion(problem, fit.reml)
    point = solve(criterion, start, Control()).source[0]
    T = [t[None] for t in point.T]
    values: FloatArray = _values_inside(fit, problem, T, point.beta[None], np.array([point.r2 / criterion.df]))[0]
    return values


def _fit_values(fit: Fit) -> FloatArray:
    covariances = [cov[None] for cov in fit.covariances]
    values: FloatArray = _stack(parameters(fit.design), fit.beta[None], covariances, np.array([fit.sigma]))[0]
    return values


def _values_inside(fit: Fit, problem: Problem, T: list[FloatArray], beta: FloatArray, sigma2: FloatArray) -> FloatArray:
    """All parameters on the user's scale, (B, s), from T (B, k, k) of each term, beta (B, p), sigma^2 (B,) inside."""
    scaling = problem.scaling
    covariances = []
    for S, t in zip(scaling.S, T, strict=True):
        root = S @ t
        covariances.append((scaling.y_scale**2 * sigma2)[:, None, None] * (root @ root.transpose(0, 2, 1)))
    sigma = scaling.y_scale * np.sqrt(scaling.weight_scale * sigma2)
    user = scaling.b0 + scaling.y_scale * (beta @ scaling.C.T)
    return _stack(parameters(fit.design), user, covariances, sigma)


def _stack(
    wanted: Sequence[Parameter], beta: FloatArray, covariances: list[FloatArray], sigma: FloatArray
) -> FloatArray:
    columns = []
    for parameter in wanted:
        if parameter.kind == "fixed":
            columns.append(beta[:, parameter.first])
        elif parameter.kind == "sigma":
            columns.append(sigma)
        else:
            cov, i, j = covariances[parameter.term], parameter.first, parameter.second
            if parameter.kind == "sd":
                columns.append(np.sqrt(cov[:, i, i]))
                continue
            size = np.sqrt(cov[:, i, i] * cov[:, j, j])
            with np.errstate(divide="ignore", invalid="ignore"):
                columns.append(np.where(size > 0, np.clip(cov[:, i, j] / size, -1.0, 1.0), np.nan))
    return np.column_stack(columns)


def _as_numbers(value: Any, func: Statistic) -> dict[str, float]:
    """What a function returned, as named numbers."""
    if hasattr(value, "items"):
        return {str(name): float(number) for name, number in value.items()}
    array = np.asarray(value, dtype=np.float64)
    name = getattr(func, "__name__", "statistic").replace("<lambda>", "statistic")
    if array.ndim == 0:
        return {name: float(array)}
    return {f"{name}_{i + 1}": float(number) for i, number in enumerate(array.ravel())}


def _run(task: _Task, seeds: Seeds, n_jobs: int | None) -> Iterator[_Part]:
    size = task.size()
    chunks = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    if n_jobs == 1 or len(chunks) == 1:
        return (task(chunk) for chunk in chunks)
    from joblib import Parallel, delayed

    parts: Iterator[_Part] = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(task)(chunk) for chunk in chunks)
    return parts


def _with_progress(parts: Iterator[_Part], count: int, progress: bool | None) -> Iterator[_Part]:
    if progress is not None and not isinstance(progress, bool):
        raise OptionError(f"`progress` is {progress!r}; give True, False or None.")
    from tqdm import tqdm

    # tqdm reads None as "not unless standard error is a terminal".
    with tqdm(total=count, disable=None if progress is None else not progress, desc="bootstrap", leave=False) as bar:
        for part in parts:
            bar.update(part.values.shape[0])
            yield part


def _collect(task: _Task, parts: list[_Part], count: int) -> BootstrapResult:
    import pandas as pd

    names = task.names
    values = np.full((count, len(names)), np.nan)
    failures: list[tuple[int, str]] = []
    start = 0
    for part in parts:
        rows = slice(start, start + part.values.shape[0])
        failed = {i for i, _ in part.failures}
        if len(failed) < part.values.shape[0]:
            if part.values.shape[1] != len(names):
                raise OptionError(
                    f"`func` returned {part.values.shape[1]} numbers for a replicate but {len(names)} for the fit; it "
                    "must return the same statistics every time."
                )
            values[rows] = part.values
        failures += [(start + i, why) for i, why in part.failures]
        start = rows.stop
    if len(failures) == count:
        raise Lme4Error(f"all {count} replicates failed; the first one: {failures[0][1]}")
    return BootstrapResult(
        task.kind,
        pd.Series(task.estimates(), index=names, name="estimate"),
        pd.DataFrame(values, columns=names),
        tuple(failures),
        sum(part.n_not_converged for part in parts),
        task.jackknife,
    )
