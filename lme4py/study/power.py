"""Power by simulation: how often a test rejects in responses of a fitted or a made model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.arguments import speaks
from lme4py.errors import Lme4Error, OptionError
from lme4py.fits.base import Fit, fit_of
from lme4py.fits.kinds import model_of
from lme4py.fits.truth import read_truth, truth_of
from lme4py.inference.power.choose import choose_test
from lme4py.inference.power.run import Replicates, exact_interval, run_tests
from lme4py.inference.power.tests import Alternative, PowerTest
from lme4py.inference.refits.simulate import check_count, check_seed
from lme4py.linalg.types import FloatArray
from lme4py.pictures import BLUE, GREY, single
from lme4py.progress import check_progress, watching
from lme4py.study.columns import table_of
from lme4py.study.extend import extend
from lme4py.study.model import MadeModel
from lme4py.tables.frames import PrintedFrame, printed
from lme4py.text import Sentence

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["PowerCurve", "PowerResult", "minimum_effect", "power", "power_curve", "sample_size"]


@dataclass(frozen=True, repr=False)
class PowerResult(Sentence):
    """Power of a test, estimated by simulation.

    Attributes
    ----------
    power : float
        Share of the simulations in which the test rejects; one that could not be fitted does not reject.
    lower, upper : float
        Clopper and Pearson's 95 % limits of it.
    n_sim : int
        Simulations made, failed ones included.
    test : str
        What is tested.
    alpha : float
    truth : float or None
        The true value of what is tested, less that under the hypothesis, where it is one number.
    replicates : DataFrame
        Columns p_value, estimate, std_error, singular of every simulation; NaN where there is none.
    failures : tuple of (int, str)
        Simulations that could not be fitted, and why.
    n_not_converged : int
        Fits without a certificate among the others, those with infinite estimates too; their p-values count where
        they have one.
    """

    power: float
    lower: float
    upper: float
    n_sim: int
    test: str
    alpha: float
    truth: float | None
    replicates: pd.DataFrame = field(compare=False)
    failures: tuple[tuple[int, str], ...] = ()
    n_not_converged: int = 0

    @property
    def n_failed(self) -> int:
        """Simulations that could not be fitted."""
        return len(self.failures)

    @property
    def n_singular(self) -> int:
        """Simulations with a singular fit."""
        return int((self.replicates["singular"] == 1.0).sum())

    @property
    def std_error(self) -> float:
        """Monte-Carlo standard error of `power`."""
        return float(np.sqrt(self.power * (1.0 - self.power) / self.n_sim))

    @property
    def power_of_fits(self) -> float:
        """Share of rejections among the simulations that have a p-value; NaN without any."""
        p = self.replicates["p_value"].dropna()
        return float((p < self.alpha).mean()) if len(p) else float("nan")

    def _significant(self) -> FloatArray:
        """Estimates of the significant simulations."""
        if self.truth is None:
            raise OptionError("errors of sign and magnitude are of one coefficient; this test is of another kind.")
        table = self.replicates[self.replicates["p_value"] < self.alpha]
        return np.asarray(table["estimate"], dtype=np.float64)

    @property
    def type_s(self) -> float:
        """Share of significant estimates with the wrong sign (Gelman & Carlin 2014); NaN where the effect is zero."""
        found, truth = self._significant(), float(self.truth or 0.0)
        return float((found * np.sign(truth) < 0.0).mean()) if truth and found.size else float("nan")

    @property
    def type_m(self) -> float:
        """Mean size of significant estimates over the true size (Gelman & Carlin 2014): how much they exaggerate."""
        found, truth = self._significant(), abs(float(self.truth or 0.0))
        return float(np.abs(found).mean() / truth) if truth and found.size else float("nan")

    def __str__(self) -> str:
        text = (
            f"Power of {self.test} at alpha = {self.alpha:g}: {self.power:.1%}, 95 % interval {self.lower:.1%} to "
            f"{self.upper:.1%} ({self.n_sim} simulations"
        )
        told = [
            f"{count} {what}"
            for count, what in (
                (self.n_failed, f"failed, {self.power_of_fits:.1%} of the others reject"),
                (self.n_not_converged, "without a certificate"),
                (self.n_singular, "singular"),
            )
            if count
        ]
        return f"{text}{'; ' if told else ''}{', '.join(told)})"


class PowerCurve(PrintedFrame):
    """A table of power by size of the study: n, power, lower, upper, n_sim, n_failed, n_singular."""

    def plot(self, ax: Axes | None = None, target: float | None = 0.8) -> Axes:  # type: ignore[override]
        """Power with its limits against n.

        Parameters
        ----------
        ax : Axes, optional
        target : float or None
            A horizontal line.

        Returns
        -------
        Axes
        """
        axis = single(ax, None)
        n, power = self["n"].to_numpy(), self["power"].to_numpy()
        below, above = power - self["lower"].to_numpy(), self["upper"].to_numpy() - power
        axis.errorbar(n, power, yerr=np.vstack([below, above]), fmt="o-", color=BLUE, capsize=3)
        if target is not None:
            axis.axhline(target, color=GREY, linestyle="--", linewidth=0.8)
        axis.set_ylim(0.0, 1.02)
        axis.set_xlabel(str(self.attrs.get("along", "n")))
        axis.set_ylabel("Power")
        return axis


@speaks
def power(
    model: Any,
    test: Any,
    n_sim: int = 1000,
    alpha: float = 0.05,
    seed: int | None = None,
    n_jobs: int | None = 1,
    ddf: str | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    alternative: Alternative = "two-sided",
    precision: float | None = None,
    save: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> PowerResult:
    """Power of a test: the share of simulated responses in which it rejects.

    Parameters
    ----------
    model : result or MadeModel
        Responses are drawn from its parameters and fitted by it. The estimates of a small study are uncertain, and
        those that were significant too large: give the effect that matters by `params`.
    test : str, sequence, function
        A coefficient (t test), text such as ``"x - z = 0"``, a term (F test of type 3), a list of names (Wald's test of
        all at once), a random-effects term such as ``"(1 | g)"`` or the formula of a smaller model (likelihood ratio,
        with the mixture of chi-squared distributions where variances are tested), or a function of the result that
        gives a p-value, or True where it rejects.
    n_sim : int
        Simulations.
    alpha : float
    seed : int, optional
        Simulation i depends on the seed and i only, whatever `n_jobs` and `n_sim` are.
    n_jobs : int or None
        Processes, -1 for all.
    ddf : str, optional
        "satterthwaite", "kenward-roger" (much slower), "residual" or "normal"; the default of the fit when not given.
    params : mapping, optional
        Other parameters by name, as for `make_model`, or coefficients alone: ``{"x": 0.2}``.
    alternative : {"two-sided", "greater", "less"}
        Of one coefficient.
    precision : float, optional
        Stop where half of the interval is no wider than this.
    save : path, optional
        A file that keeps the simulations as they are made, so that the same call, or one with a larger `n_sim`, goes on
        where it was interrupted; it needs a `seed`.
    progress : bool or None
        Show a progress bar; None shows one in a terminal or a notebook after a second. An interruption (Ctrl-C) keeps
        the simulations that are done, with a warning.

    Returns
    -------
    PowerResult

    Examples
    --------
    >>> import lme4py
    >>> result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    >>> found = lme4py.power(result, "Days", n_sim=500, seed=1, params={"Days": 5.0})
    >>> found.n_sim, 0.8 < found.power < 0.95
    (500, True)
    """
    fit, wrap = _carrier(model, params)
    chosen = choose_test(fit, test, ddf, alternative, wrap, lambda: table_of(fit.design))
    count, level = check_count("n_sim", n_sim), _share("alpha", alpha)
    if save is not None and seed is None:
        raise OptionError("save= needs a seed=: only then is the same simulation made again.")
    key = {
        "formula": fit.design.formula,
        "test": chosen.label,
        "kind": type(chosen).__name__,
        "ddf": ddf,
        "alternative": alternative,
        "seed": seed,
        "rows": fit.design.n_obs,
        "parameters": [fit.beta.tolist(), [cov.tolist() for cov in fit.covariances], np.asarray(fit.lam).tolist()],
    }

    def enough(done: Replicates) -> bool:
        return precision is not None and _half(done, level) <= precision

    check_progress(progress)
    with watching("power", progress, "simulations", total=count):
        done = run_tests(fit, chosen, count, check_seed(seed), n_jobs, enough, save, key)
    return _result(chosen, done, level)


def power_curve(
    model: Any,
    test: Any,
    along: str | None = None,
    n: Iterable[int] = (),
    *,
    within: str | Iterable[str] | None = None,
    seed: int | None = None,
    **options: Any,
) -> PowerCurve:
    """Power for studies of several sizes.

    Parameters
    ----------
    model : result or MadeModel
    test : str, sequence, function
        As for `power`.
    along, within
        What grows, as for `extend`.
    n : iterable of int
        The sizes.
    seed : int, optional
        The same for every size.
    **options
        Further arguments of `power`.

    Returns
    -------
    PowerCurve
        Columns n, power, lower, upper, n_sim, n_failed, n_singular, with a method `plot`.

    Examples
    --------
    >>> import lme4py
    >>> result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    >>> curve = lme4py.power_curve(result, "Days", along="Subject", n=[6, 12], n_sim=200, seed=1, params={"Days": 5.0})
    >>> list(curve["n"]), bool(curve["power"].is_monotonic_increasing)
    ([6, 12], True)
    """
    import pandas as pd

    sizes = [check_count("n", size) for size in n]
    if not sizes:
        raise OptionError("n= is empty; give the sizes of the studies, such as n=[10, 20, 40].")
    rows = []
    for size in sizes:
        found = power(extend(model, along, size, within=within), test, seed=seed, **options)
        counts = (found.n_sim, found.n_failed, found.n_singular)
        rows.append((size, found.power, found.lower, found.upper, *counts))
    columns = ["n", "power", "lower", "upper", "n_sim", "n_failed", "n_singular"]
    table = printed(pd.DataFrame(rows, columns=columns), title=f"Power of {found.test}")
    curve = PowerCurve(table)
    curve.attrs.update(table.attrs)
    curve.attrs["along"] = along if along is not None else f"rows within {within}"
    return curve


def sample_size(
    model: Any,
    test: Any,
    along: str | None = None,
    *,
    within: str | Iterable[str] | None = None,
    target: float = 0.8,
    smallest: int = 4,
    largest: int = 1000,
    n_sim: int = 1000,
    seed: int | None = 0,
    **options: Any,
) -> PowerCurve:
    """The smallest study with a power, by bisection: power grows with the size of a study.

    Parameters
    ----------
    model, test, along, within
        As for `power_curve`.
    target : float
        The power wanted.
    smallest, largest : int
        Sizes between which the answer is looked for.
    n_sim : int
        Simulations of each size.
    seed : int or None
        The same for every size.
    **options
        Further arguments of `power`.

    Returns
    -------
    PowerCurve
        The sizes that were tried, in order; ``attrs["n"]`` is the smallest whose power reaches the target.

    Raises
    ------
    Lme4Error
        The largest study has less power.

    Examples
    --------
    >>> import lme4py
    >>> result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    >>> sizes = lme4py.sample_size(result, "Days", along="Subject", n_sim=200, smallest=10, params={"Days": 5.0})
    >>> 10 <= sizes.attrs["n"] <= 22
    True
    """
    wanted = _share("target", target)
    tried: dict[int, pd.DataFrame] = {}

    def reaches(size: int) -> bool:
        curve = power_curve(model, test, along, [size], within=within, n_sim=n_sim, seed=seed, **options)
        tried[size] = curve
        return bool(curve["power"].iloc[0] >= wanted)

    low, high = check_count("smallest", smallest), check_count("largest", largest)
    trial = low
    while not reaches(trial):
        low = trial + 1
        if trial >= high:
            raise Lme4Error(
                f"{high} are not enough: power {tried[trial]['power'].iloc[0]:.1%}; give a larger `largest`."
            )
        trial = min(2 * trial, high)
    high = trial
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    return _joined(tried, high, f"n = {high} reaches a power of {wanted:.0%}.")


def _joined(tried: dict[int, pd.DataFrame], answer: int, note: str) -> PowerCurve:
    import pandas as pd

    first = next(iter(tried.values()))
    curve = PowerCurve(pd.concat([pd.DataFrame(tried[size]) for size in sorted(tried)], ignore_index=True))
    curve.attrs.update(first.attrs)
    curve.attrs.update({"n": answer, "note": note})
    return curve


def minimum_effect(
    model: Any,
    test: str,
    *,
    target: float = 0.8,
    largest: float | None = None,
    tolerance: float = 0.01,
    n_sim: int = 1000,
    seed: int | None = 0,
    params: Mapping[str, Any] | None = None,
    **options: Any,
) -> float:
    """The smallest size of a coefficient that has a power, by bisection with the same random numbers.

    Parameters
    ----------
    model : result or MadeModel
    test : str
        A coefficient.
    target : float
        The power wanted.
    largest : float, optional
        Where to begin; it is doubled until it is enough. Twenty standard errors of one fit when not given.
    tolerance : float
        Of the answer, relative.
    n_sim, seed, params, **options
        As for `power`.

    Returns
    -------
    float
        With the sign of the coefficient in the model (positive where it is zero).

    Examples
    --------
    >>> import lme4py
    >>> result = lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy"))
    >>> 3.0 < lme4py.minimum_effect(result, "Days", n_sim=200, tolerance=0.1) < 6.0
    True
    """
    wanted = _share("target", target)
    fit, _ = _carrier(model, params)
    names = list(fit.design.x_names)
    if test not in names:
        raise OptionError(f"minimum_effect() is of one coefficient; {test!r} is none of {', '.join(names)}.")
    place = names.index(test)
    sign = -1.0 if fit.beta[place] < 0.0 else 1.0
    start = 20.0 * float(np.sqrt(fit.vcov[place, place])) if largest is None else abs(float(largest))

    def reaches(size: float) -> bool:
        beta = {**dict(zip(names, fit.beta.tolist(), strict=True)), test: sign * size}
        given = {**_sections(params, names), "beta": beta}
        return power(model, test, n_sim=n_sim, seed=seed, params=given, **options).power >= wanted

    low, high = 0.0, start if start > 0.0 else 1.0
    for _ in range(20):
        if reaches(high):
            break
        low, high = high, 2.0 * high
    else:
        raise Lme4Error(f"no size of {test!r} up to {high:g} has a power of {wanted:.0%}.")
    while high - low > tolerance * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return sign * high


def _sections(params: Mapping[str, Any] | None, names: list[str]) -> dict[str, Any]:
    return {} if params is None or set(params) <= set(names) else dict(params)


def _carrier(model: Any, params: Mapping[str, Any] | None) -> tuple[Fit, Any]:
    fit = fit_of(model)
    if fit is None:
        raise OptionError(f"`model` is of type {type(model).__name__}; give a fitted or a made model.")
    wrap = model.result if isinstance(model, MadeModel) else type(model)
    if wrap is type(fit):
        wrap = _itself
    if params is None:
        return fit, wrap
    return model_of(fit).with_truth(read_truth(fit.design, fit.family, params, truth_of(fit))), wrap


def _itself(fit: Any) -> Any:
    return fit


def _share(name: str, value: object) -> float:
    ok = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not ok or not 0.0 < float(value) < 1.0:  # type: ignore[arg-type]
        raise OptionError(f"`{name}` is {value!r}; give a number between 0 and 1.")
    return float(value)  # type: ignore[arg-type]


def _half(done: Replicates, alpha: float) -> float:
    lower, upper = exact_interval(int((done.values[:, 0] < alpha).sum()), done.n)
    return 0.5 * (upper - lower)


def _result(test: PowerTest, done: Replicates, alpha: float) -> PowerResult:
    import pandas as pd

    if len(done.failures) == done.n:
        raise Lme4Error(f"all {done.n} simulations failed; the first one: {done.failures[0][1]}")
    hits = int((done.values[:, 0] < alpha).sum())
    lower, upper = exact_interval(hits, done.n)
    table = pd.DataFrame(done.values, columns=["p_value", "estimate", "std_error", "singular"])
    return PowerResult(
        hits / done.n,
        lower,
        upper,
        done.n,
        test.label,
        alpha,
        test.truth,
        table,
        done.failures,
        done.n_not_converged,
    )
