"""The same criterion minimised by several optimisers from several starts: do they end at the same place?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.engine.optimise import Control, minimise
from lme4py.engine.threads import limited_threads
from lme4py.errors import DesignError, OptionError, did_you_mean
from lme4py.fits.answers.objective import NOWHERE, Objective
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.optimisers import OPTIMIZERS, OWN, minimise_by_name
from lme4py.fits.refuse import refuse_structured
from lme4py.inference.estimates.limits import known_coefficients
from lme4py.linalg.types import FloatArray
from lme4py.progress import check_progress, keeping, tick, watching
from lme4py.tables.shown import Shown, Summary
from lme4py.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AllFitResult", "all_fit"]

# On the scale of -2 log-likelihood, standard errors and relative standard deviations: differences below are none.
_SAME, _NEAR, _CLOSE = 1e-3, 0.01, 0.01


@dataclass(frozen=True, repr=False)
class AllFitResult(Shown):
    """What each optimiser found.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per run: optimizer, start, criterion, difference (from the best of all, the fit included), beta_distance
        (largest change of a fixed effect, in standard errors), sd_distance (largest change of a standard deviation of
        random effects, relative to the largest of its term or, where that is smaller, the residual one), evaluations,
        seconds, verdict.
    fixef : pandas.DataFrame, shape (runs, p)
    criterion : float
        Of the fit.
    agree : bool
        True when the fit is as good as the best run, and every run as good as the best ended at its estimates.
    """

    table: pd.DataFrame
    fixef: pd.DataFrame
    criterion: float
    agree: bool

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table

    def summary(self) -> Summary:
        """A verdict and the table."""
        return Summary(self._tables())

    def _tables(self) -> list[Table]:
        from lme4py.tables.frames import frame_table

        best = float(self.table["criterion"].min())
        same = int((self.table["verdict"] == "same optimum").sum())
        if best < self.criterion - _SAME:
            head = f"A run found a lower criterion than the fit, by {self.criterion - best:.4g}: use its estimates."
        elif self.agree:
            head = f"{same} of {len(self.table)} runs end at the optimum of the fit, none at a lower criterion."
        else:
            head = "Runs with the same criterion have other estimates: some parameters are not identified by the data."
        return [replace(frame_table(self.table), title=head)]


def all_fit(
    fit: Fit,
    optimizers: Sequence[str] | None = None,
    n_starts: int = 2,
    seed: int | None = None,
    max_evaluations: int = 20_000,
    progress: bool | None = None,
) -> AllFitResult:
    """Minimise the criterion of a fit again with several optimisers, as R's ``allFit``.

    Parameters
    ----------
    fit : Fit
    optimizers : sequence of str, optional
        Of "trust-region" (the package's own), "L-BFGS-B", "BFGS" (with the analytic gradient), "Nelder-Mead", "Powell"
        and "COBYLA" (without derivatives); all of them when not given.
    n_starts : int
        The first start is the usual one; the others are random variances, far out and near zero in turn, so that
        another minimum of the criterion is found.
    seed : int, optional
        Of the random starts.
    max_evaluations : int
        Of each run.
    progress : bool, optional
        Show a bar of the runs; None shows one in a terminal or a notebook after a second. An interruption (Ctrl-C)
        keeps the runs that are done, with a warning.

    Returns
    -------
    AllFitResult

    Examples
    --------
    >>> import lme4py
    >>> fit = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy")).fit
    >>> all_fit(fit, n_starts=1).agree
    True
    """
    refuse_structured(fit, "all_fit() is", "give other starts with start=; the certificate lists what was compared")
    chosen = _check(optimizers, n_starts)
    rng = np.random.default_rng(seed)
    check_progress(progress)
    runs, fixef, total = [], [], n_starts * len(chosen)
    with (
        watching("all_fit", progress, "runs", total=total),
        keeping("runs", total) as kept,
        limited_threads(fit.design),
        np.errstate(all="ignore"),
    ):
        task = model_of(fit).objective()
        beta, sds = _own_estimates(fit)
        for number in range(n_starts):
            start = task.start if number == 0 else _random(task, rng, number % 2 == 1)
            for name in chosen:
                x, value, count, seconds = _run(task, name, start, max_evaluations)
                found_beta, found_sds = task.estimates(x) if np.isfinite(value) else (beta * np.nan, sds * np.nan)
                fixef.append(found_beta)
                distances = _distances(fit, found_beta - beta, found_sds - sds, sds)
                runs.append((name, _label(number), value, *distances, count, seconds))
                kept.done += 1
                tick("runs")
    return _result(fit, runs, fixef)


def _check(optimizers: Sequence[str] | None, n_starts: int) -> list[str]:
    if isinstance(n_starts, bool) or not isinstance(n_starts, int) or n_starts < 1:
        raise OptionError(f"n_starts={n_starts!r} must be a whole number of 1 or more.")
    chosen = list(OPTIMIZERS) if optimizers is None else [optimizers] if isinstance(optimizers, str) else optimizers
    for name in chosen:
        if name not in OPTIMIZERS:
            raise OptionError(
                f"optimizer {name!r} is not known.{did_you_mean(str(name), OPTIMIZERS)} There are "
                f"{', '.join(OPTIMIZERS)}."
            )
    return list(chosen)


def _label(number: int) -> str:
    return "default" if number == 0 else f"random {number}"


def _run(task: Objective, name: str, start: FloatArray, most: int) -> tuple[FloatArray, float, int, float]:
    """Parameters, value, evaluations and seconds of one run."""
    before = time.perf_counter()
    if name == OWN:
        try:
            optimum = minimise(task.local, start, Control(max_evaluations=min(most, 1000)))
        except DesignError:  # no value at the start
            return start, np.inf, 1, time.perf_counter() - before
        return optimum.theta, float(optimum.value), len(optimum.log), time.perf_counter() - before
    found = minimise_by_name(task.value, start, name, most)
    value = found.value if found.value < NOWHERE else np.inf
    return found.x, float(value), found.evaluations, time.perf_counter() - before


def _random(task: Objective, rng: np.random.Generator, far: bool) -> FloatArray:
    """The usual start with much larger variances, or much smaller ones, and some correlation."""
    out = task.start.copy()
    structures = task.structures
    m = structures.n_theta
    least, most = task.reach if far else (1.0 / task.reach[1], 1.0 / task.reach[0])
    sizes = np.maximum(np.abs(out[:m]), 0.1) * np.exp(rng.uniform(np.log(least), np.log(most), m))
    correlations = 0.3 * rng.normal(size=m) * sizes.min(initial=1.0)
    for structure, place in zip(structures.each, structures.slices, strict=True):
        out[place] = structure.at_random(sizes[place], correlations[place])
    return out


def _own_estimates(fit: Fit) -> tuple[FloatArray, FloatArray]:
    return fit.beta, np.concatenate([np.zeros(0), *(np.sqrt(np.diag(cov)) for cov in fit.covariances)])


# --- the table --------------------------------------------------------------------------------------------------


def _distances(fit: Fit, beta: FloatArray, sds: FloatArray, own: FloatArray) -> tuple[float, float]:
    """Changes in standard errors, and of standard deviations relative to their size."""
    known = known_coefficients(fit)
    in_errors = float(np.abs(beta[known] / np.sqrt(np.diag(fit.vcov)[known])).max(initial=0.0))
    floor = 0.01 * float(own.max(initial=0.0)) + 1e-3 * fit.theta_unit
    return in_errors, float(np.abs(sds / np.maximum(own, floor)).max(initial=0.0))


def _verdict(difference: float, beta: float, sd: float) -> str:
    if not np.isfinite(difference):
        return "failed"
    if difference > _SAME:
        return f"stopped {difference:.3g} above the best"
    return "same optimum" if beta < _NEAR and sd < _CLOSE else "same criterion, other estimates"


def _result(fit: Fit, runs: list[Any], fixef: list[FloatArray]) -> AllFitResult:
    import pandas as pd

    names = ["optimizer", "start", "criterion", "beta_distance", "sd_distance", "evaluations", "seconds"]
    table = pd.DataFrame(runs, columns=names)
    best = min(float(table["criterion"].min()), fit.criterion)
    table.insert(3, "difference", table["criterion"] - best)
    table["verdict"] = [
        _verdict(float(d), float(b), float(s))
        for d, b, s in zip(table["difference"], table["beta_distance"], table["sd_distance"], strict=True)
    ]
    as_good = table["difference"] <= _SAME
    agree = fit.criterion - best <= _SAME and bool((table.loc[as_good, "verdict"] == "same optimum").all())
    index = pd.MultiIndex.from_frame(table[["optimizer", "start"]])
    return AllFitResult(table, pd.DataFrame(fixef, index=index, columns=list(fit.design.x_names)), fit.criterion, agree)
