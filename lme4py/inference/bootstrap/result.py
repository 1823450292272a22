"""What a bootstrap found, and intervals from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lme4py.errors import OptionError, did_you_mean
from lme4py.fits.parameters import DISPERSION
from lme4py.inference.estimates.coefficients import check_alpha
from lme4py.linalg.types import FloatArray
from lme4py.pictures import LIGHT, ORANGE, panels, short, title
from lme4py.tables.html import render_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BootstrapResult"]

INTERVALS = ("percentile", "basic", "bca", "normal")
# Stands for an infinite replicate where differences are taken.
_HUGE = 1e200


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
        Replicates whose optimum could not be certified, those with infinite estimates (separation) among them; their
        numbers are kept, infinities too.
    alpha : float
        One minus the confidence level where `conf_int` is given none: that of the fit.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> result = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    >>> boot = result.bootstrap(500, seed=1)
    >>> boot
    <BootstrapResult: 500 parametric replicates of 3 statistics, 0 failed>
    >>> list(boot.conf_int().index)
    ['Intercept', 'sd(Intercept | Batch)', 'sigma']
    """

    kind: str
    estimates: pd.Series[float]
    replicates: pd.DataFrame
    failures: tuple[tuple[int, str], ...]
    n_not_converged: int = 0
    alpha: float = 0.05
    _jackknife: Callable[[], FloatArray] | None = field(default=None, repr=False, compare=False)

    @property
    def n(self) -> int:
        """Number of replicates, failed ones included."""
        return len(self.replicates)

    @property
    def n_failed(self) -> int:
        """Number of replicates that failed."""
        return len(self.failures)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the replicates to a file, from which `load` makes the same result in another session.

        Parameters
        ----------
        path : path
            Of a JSON file; numbers keep all their digits.

        Returns
        -------
        Path
        """
        stored = {
            "kind": self.kind,
            "names": [str(name) for name in self.estimates.index],
            "estimates": self.estimates.tolist(),
            "replicates": self.replicates.to_numpy(dtype=np.float64).tolist(),
            "failures": [list(one) for one in self.failures],
            "n_not_converged": self.n_not_converged,
            "alpha": self.alpha,
        }
        target = Path(path)
        target.write_text(json.dumps(stored), encoding="utf-8")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BootstrapResult:
        """The result of a file that `save` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        BootstrapResult
            Without what "bca" intervals need, which are made from the fit.

        Raises
        ------
        OptionError
            A file that holds something else.
        """
        import pandas as pd

        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            names = found["names"]
            estimates = pd.Series(found["estimates"], index=names, dtype=np.float64)
            replicates = pd.DataFrame(found["replicates"], columns=names, dtype=np.float64)
            failures = tuple((int(number), str(why)) for number, why in found["failures"])
            return cls(found["kind"], estimates, replicates, failures, found["n_not_converged"], found["alpha"])
        except (KeyError, TypeError, ValueError):
            raise OptionError(f"{path} holds no bootstrap; give a file that BootstrapResult.save() wrote.") from None

    def summary(self) -> pd.DataFrame:
        """Table estimate, bias, std_error, n_used of each statistic.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        # A dispersion at the end of its range may be infinite: then there is neither bias nor standard error.
        endless = [name for name in self.replicates if np.isinf(self.replicates[name].to_numpy()).any()]
        finite = self.replicates.assign(**dict.fromkeys(map(str, endless), np.nan))
        columns = {
            "estimate": self.estimates,
            "bias": finite.mean() - self.estimates,
            "std_error": finite.std(),
            "n_used": self.replicates.notna().sum(),
        }
        return pd.DataFrame(columns)

    def conf_int(
        self, alpha: float | None = None, type: str = "percentile", parm: str | Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Confidence limits lower, upper of each statistic; ``attrs["note"]`` counts the replicates that failed.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.
        type : {"percentile", "basic", "bca", "normal"}
            Quantiles of the replicates; twice the estimate minus these; bias-corrected and accelerated, with
            the acceleration from leaving out one group at a time (Efron 1987); estimate minus bias plus and minus a
            normal quantile times the standard error.
        parm : str or sequence of str, optional
            Names of some statistics.

        Returns
        -------
        DataFrame
            One row per statistic.
        """
        import pandas as pd

        if type not in INTERVALS:
            hint = did_you_mean(str(type), INTERVALS)
            raise OptionError(f"type={type!r} is no kind of interval.{hint} Use one of {', '.join(INTERVALS)}.")
        level = check_alpha(self.alpha if alpha is None else alpha)
        names = self._names(parm)
        skew = self._accelerations() if type == "bca" else pd.Series(0.0, index=self.estimates.index)
        rows = [
            _interval(
                self.replicates[name].to_numpy(),
                float(self.estimates[name]),
                level,
                type,
                float(skew[name]),
                at_end=name == DISPERSION,
            )
            for name in names
        ]
        index = pd.Index(names, name="term")
        table = pd.DataFrame(rows, columns=["lower", "upper"], index=index)
        table.attrs["note"] = self.note
        return table

    def plot(
        self,
        parm: str | Sequence[str] | None = None,
        alpha: float | None = None,
        *,
        type: str = "percentile",
        figsize: tuple[float, float] | None = None,
    ) -> NDArray[Any]:
        """Histograms of the replicates with the estimate and its limits (needs matplotlib).

        Parameters
        ----------
        parm : str or sequence of str, optional
            Statistics; all when not given.
        alpha, type
            Of the limits, as in `conf_int`.
        figsize : (float, float), optional

        Returns
        -------
        array of matplotlib Axes
        """
        limits = self.conf_int(alpha, type, parm)
        axes = panels(len(limits), None, figsize, columns=3, what="statistics")
        for axis, name, (lower, upper) in zip(axes, limits.index, limits.to_numpy().tolist(), strict=True):
            values = self.replicates[name].to_numpy(dtype=np.float64)
            axis.hist(values[np.isfinite(values)], bins=30, color=LIGHT)
            if np.isfinite(lower + upper):
                axis.axvspan(lower, upper, color=LIGHT, alpha=0.3, linewidth=0, zorder=0)
            if np.isfinite(self.estimates[name]):
                axis.axvline(float(self.estimates[name]), color=ORANGE, linewidth=1.8)
            title(axis, short(name))
        return axes

    @property
    def note(self) -> str:
        """How the replicates were made, and how many failed."""
        text = f"{self.n} {self.kind} bootstrap replicates, {self.n_failed} failed"
        text = f"{text}, {self.n_not_converged} not converged." if self.n_not_converged else f"{text}."
        infinite = [str(name) for name, value in self.estimates.items() if np.isinf(value)]
        return f"{text} No finite estimate, and so no interval: {', '.join(infinite)}." if infinite else text

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

    def _repr_html_(self) -> str:
        from lme4py.tables.frames import frame_table

        return render_html([replace(frame_table(self.summary()), title="Bootstrap", notes=(self.note,))])

    def __repr__(self) -> str:
        return (
            f"<BootstrapResult: {self.n} {self.kind} replicates of {self.estimates.size} statistics, "
            f"{self.n_failed} failed>"
        )


def _interval(
    values: FloatArray, estimate: float, alpha: float, type: str, skew: float, at_end: bool
) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if values.size < 2 or np.isnan(estimate):
        return float("nan"), float("nan")
    if not np.isfinite(estimate) and not (at_end and type == "percentile"):
        # Nothing is at a distance from an estimate at infinity; replicates of a dispersion that is there still say how
        # far from it others come.
        return float("nan"), float("nan")
    z = float(special.ndtri(alpha / 2.0))
    if type in ("normal", "bca") and np.isinf(values).any():
        # Neither a mean nor an acceleration of infinite replicates exists.
        return float("nan"), float("nan")
    if type == "normal":
        centre, half = 2.0 * estimate - float(values.mean()), -z * float(values.std(ddof=1))
        return centre - half, centre + half
    probabilities = np.array([alpha / 2.0, 1.0 - alpha / 2.0])
    if type == "bca":
        below = float(np.mean(values < estimate) + 0.5 * np.mean(values == estimate))
        shift = float(special.ndtri(np.clip(below, 0.5 / values.size, 1.0 - 0.5 / values.size)))
        quantiles = shift + np.array([z, -z])
        probabilities = special.ndtr(shift + quantiles / (1.0 - skew * quantiles))
    # Quantiles between a finite and an infinite replicate are infinite.
    ends = np.quantile(np.clip(values, -_HUGE, _HUGE), probabilities, method="weibull")
    lower, upper = (float(q) if abs(q) < 1e-6 * _HUGE else float(np.copysign(np.inf, q)) for q in ends)
    return (2.0 * estimate - upper, 2.0 * estimate - lower) if type == "basic" else (lower, upper)
