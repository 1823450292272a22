"""Bootstrap of a mixed model: parametric, semiparametric, and of cases.

Replicate i has its own seed, spawned from the one that is given, so that its numbers do not depend on how many
processes work, nor on how many replicates there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lme4py.errors import Lme4Error, OptionError, did_you_mean
from lme4py.fits.base import Fit
from lme4py.fits.groups import default_group
from lme4py.fits.parameters import is_determined
from lme4py.fits.refuse import refuse_iterative, refuse_related, refuse_structured
from lme4py.inference.bootstrap.result import BootstrapResult
from lme4py.inference.bootstrap.task import Part, Seeds, Statistic, Task, Wrap
from lme4py.inference.bootstrap.workers import run_chunks
from lme4py.inference.refits.simulate import check_count, check_seed
from lme4py.progress import check_progress, keeping, tick, watching

__all__ = ["BootstrapResult", "bootstrap"]

KINDS = ("parametric", "semiparametric", "cases")


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
        From a result to a number, an array, a dict or a Series; None takes all parameters (fixed effects, standard
        deviations, correlations, dispersion, thresholds, those of residuals) and is much faster: no standard errors and
        certificates are made.
    seed : int, optional
        The same seed gives the same numbers for every `n_jobs`.
    n_jobs : int or None
        Processes, -1 for all processors. None leaves it to ``joblib.parallel_config`` (Dask or Ray clusters).
    progress : bool, optional
        Show a progress bar; None shows one in a terminal or a notebook after a second. An interruption (Ctrl-C) keeps
        the replicates that are done, with a warning.
    type : {"parametric", "semiparametric", "cases"}
        New random effects and responses from the fitted distributions; random effects and residuals resampled from
        the fitted ones after these are given the estimated variances (linear models only); or whole groups drawn with
        replacement, each draw a new group.
    group : str, optional
        The grouping factor whose levels are drawn ("cases"), or left out for BCa intervals; the outermost one when
        factors are nested.
    wrap : callable, optional
        Makes of a fit what `func` expects.

    Returns
    -------
    BootstrapResult
    """
    count = check_count("n", n)
    check_progress(progress)
    if type not in KINDS:
        hint = did_you_mean(str(type), KINDS)
        raise OptionError(f"type={type!r} is no kind of bootstrap.{hint} Use one of {', '.join(KINDS)}.")
    if func is not None and not callable(func):
        raise OptionError(f"`func` is {func!r}; give a function of the result, or None for all parameters.")
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0):
        raise OptionError(f"`n_jobs` is {n_jobs!r}; give a number of processes, -1 for all, or None.")
    refuse_iterative(fit, "a bootstrap is")
    if type == "semiparametric" and not fit.normal_errors:
        raise OptionError(
            "type='semiparametric' resamples residuals, which have no common distribution in a generalised model; use "
            "type='parametric' or 'cases'."
        )
    if type != "parametric":
        refuse_structured(fit, f"type={type!r} is", "use type='parametric'")
        refuse_related(fit, f"type={type!r} is", "use type='parametric'")
    if type == "cases" or group is not None:
        group = default_group(fit.design, group, required=True)
    task = Task(fit, type, group, func, wrap)
    seeds = np.random.SeedSequence(check_seed(seed)).spawn(count)
    parts: list[Part] = []
    with watching("bootstrap", progress, "replicates", total=count), keeping("replicates", count) as kept:
        for part in _run(task, seeds, n_jobs):
            parts.append(part)
            kept.done += part.values.shape[0]
            tick("replicates", part.values.shape[0])
    return _collect(task, parts, kept.done)


def _run(task: Task, seeds: Seeds, n_jobs: int | None) -> Iterator[Part]:
    size = task.size()
    chunks = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    return run_chunks(task, chunks, n_jobs)


def _collect(task: Task, parts: list[Part], count: int) -> BootstrapResult:
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
    if task.func is None:
        values[:, [not is_determined(task.fit, parameter) for parameter in task.parameters]] = np.nan
    return BootstrapResult(
        task.kind,
        pd.Series(task.estimates(), index=names, name="estimate"),
        pd.DataFrame(values, columns=names),
        tuple(failures),
        sum(part.n_not_converged for part in parts),
        task.fit.conventions.alpha,
        task.jackknife,
    )
