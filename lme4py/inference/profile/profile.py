"""Profile likelihood: signed roots of the deviance for every parameter, and intervals by root finding.

REML fits are profiled by maximum likelihood, as in lme4: the restricted likelihood says nothing about fixed effects.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

from lme4py.engine.threads import limited_threads
from lme4py.errors import Lme4Error, OptionError
from lme4py.fits.base import Fit
from lme4py.fits.kinds import model_of
from lme4py.fits.parameters import (
    Parameter,
    fit_parameters,
    fit_values,
    is_determined,
    select_parameters,
)
from lme4py.inference.estimates.coefficients import check_alpha, chosen_alpha
from lme4py.inference.estimates.variance_errors import standard_errors
from lme4py.inference.profile.side import BetterOptimum, Side, make_sides
from lme4py.linalg.types import FloatArray
from lme4py.progress import check_progress, keeping, tick, watching
from lme4py.tables.html import render_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Profile", "profile", "variances_of", "why_never"]

# Steps along a profile aim at this much of the signed root.
_STEP = 0.75
# Better optima that are found on the way before a profile is given up.
_FITS = 5


@dataclass(frozen=True)
class Profile:
    """Profiles of some parameters.

    Attributes
    ----------
    fit : Fit
        The maximum-likelihood fit that is profiled.
    parameters : tuple of Parameter
    estimates : ndarray
        Maximum-likelihood estimates; NaN for a correlation with an effect that has no variance.
    note : str
        Says so when a REML fit is profiled by maximum likelihood.

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> profile = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).profile()
    >>> profile.conf_int().round(2)
                             lower    upper
    term
    Intercept              1486.45  1568.55
    sd(Intercept | Batch)    12.20    84.06
    sigma                    38.23    67.66
    """

    fit: Fit
    parameters: tuple[Parameter, ...]
    estimates: FloatArray
    note: str
    _sides: dict[str, tuple[Side, Side]]

    def conf_int(self, alpha: float | None = None, scales: Literal["sdcor", "vcov"] = "sdcor") -> pd.DataFrame:
        """Limits lower, upper where the deviance is the chi-squared quantile above its minimum.

        Parameters
        ----------
        alpha : float, optional
            One minus the confidence level; when not given 0.05, or that of the keyword front door.
        scales : {"sdcor", "vcov"}
            "vcov": limits of variances in the place of those of standard deviations (profiles do not change with the
            scale); correlations stay.

        Returns
        -------
        pandas.DataFrame
            One row per parameter. Where the profile reaches the end of the range (a standard deviation of 0, a
            correlation of -1 or 1) first, that is the limit; where it stays below the quantile however far it is
            followed (separated responses, say), the limit is infinite; what the design does not determine is NaN, and
            so is the lower limit of a range whose estimate is infinite.
            ``attrs["note"]`` says so.
        """
        import pandas as pd

        target = float(-special.ndtri(chosen_alpha(self.fit, alpha) / 2.0))
        try:
            with limited_threads(self.fit.design), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                rows = [self._limits(parameter, target) for parameter in self.parameters]
        except BetterOptimum:
            raise Lme4Error(
                "the profile went below the minimum of the fit, which is not the optimum; call profile() with a "
                "smaller `alpha`, so that it starts again from there."
            ) from None
        index = pd.Index([parameter.name for parameter in self.parameters], name="term")
        table = pd.DataFrame(rows, columns=["lower", "upper"], index=index)
        table.attrs["note"] = " ".join([self.note, *self._one_sided(table)]).strip()
        return variances_of(table, self.parameters, scales, ["lower", "upper"])

    def _one_sided(self, table: pd.DataFrame) -> list[str]:
        """Sentences about limits that are no roots of the profile."""
        notes = []
        for parameter in self.parameters:
            lower, upper = table.loc[parameter.name].to_numpy(dtype=np.float64).tolist()
            if not is_determined(self.fit, parameter):
                notes.append(f"{parameter.name}: the design does not determine it.")
            elif parameter.name not in self._sides and upper == np.inf:
                notes.append(
                    f"{parameter.name}: the estimate is infinite, from where the profile cannot be followed; compare "
                    "the fit with others that hold this parameter (fix=)."
                )
            elif parameter.name not in self._sides:
                notes.append(f"{parameter.name}: a variance is zero, so that the data say nothing about it.")
            elif parameter.flipped and upper == np.inf:
                notes.append(
                    f"{parameter.name}: the profile does not exclude infinity, {model_of(self.fit).limit_model}."
                )
            elif not (np.isfinite(lower) and np.isfinite(upper)):
                which = "lower" if not np.isfinite(lower) else "upper"
                notes.append(f"{parameter.name}: the profile stays below the quantile, there is no {which} limit.")
            elif parameter.kind in ("sd", "corr", "dispersion", "residual") and {lower, upper} & {0.0, -1.0, 1.0}:
                notes.append(
                    f"{parameter.name}: one limit is the end of the range, which the profile does not exclude."
                )
            if any(side.joined for side in self._sides.get(parameter.name, ())):
                notes.append(
                    f"{parameter.name}: the likelihood has two maxima, and values between them are excluded that the "
                    "interval holds."
                )
        return notes

    def _limits(self, parameter: Parameter, target: float) -> tuple[float, float]:
        if parameter.name not in self._sides:
            if _is_infinite(parameter, float(fit_values(self.fit, [parameter])[0])):
                return np.nan, np.inf
            return (-1.0, 1.0) if is_determined(self.fit, parameter) else (np.nan, np.nan)
        lower, upper = (_value(self.fit, parameter, side.limit(target)) for side in self._sides[parameter.name])
        return (upper, lower) if parameter.flipped else (lower, upper)

    def to_frame(self, scales: Literal["sdcor", "vcov"] = "sdcor") -> pd.DataFrame:
        """All points: columns parameter, value, zeta (the signed root of the change of the deviance).

        Parameters
        ----------
        scales : {"sdcor", "vcov"}
            As in `conf_int`.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        rows = []
        for parameter in self.parameters:
            if parameter.name not in self._sides:
                continue
            # What grows with one over a parameter is below its estimate where that is above.
            lower, upper = self._sides[parameter.name][:: -1 if parameter.flipped else 1]
            rows += [(parameter.name, _value(self.fit, parameter, p.v), -p.zeta) for p in reversed(lower.points)]
            rows += [(parameter.name, _value(self.fit, parameter, p.v), p.zeta) for p in upper.points[1:]]
        table = pd.DataFrame(rows, columns=["parameter", "value", "zeta"]).set_index("parameter")
        return variances_of(table, self.parameters, scales, ["value"]).reset_index()

    @property
    def evaluations(self) -> int:
        """How often the criterion was evaluated."""
        return sum(side.evaluations for pair in self._sides.values() for side in pair)

    def __repr__(self) -> str:
        names = [parameter.name for parameter in self.parameters]
        shown = ", ".join(names[:4]) + (f", ... ({len(names) - 4} more)" if len(names) > 4 else "")
        return f"<Profile of {len(names)} parameters: {shown}>"

    def _repr_html_(self) -> str:
        from lme4py.tables.frames import frame_table

        table = frame_table(self.conf_int())
        return render_html([replace(table, title="Intervals of the profile likelihood")])


def _is_infinite(parameter: Parameter, value: float) -> bool:
    """Whether a profile has nowhere to start: a range or the like is infinite on the scale of the profile."""
    of_structure = parameter.shape is not None or parameter.natural_parameter is not None
    return of_structure and bool(np.isinf(value)) and not parameter.flipped


def _value(fit: Fit, parameter: Parameter, v: float) -> float:
    if parameter.kind == "other":
        return fit.family.other_natural(parameter.first, v)
    if parameter.flipped:
        return 1.0 / v if v else float("inf")
    return float(np.sin(v)) if parameter.is_angle else float(v)


def variances_of(
    table: pd.DataFrame, parameters: Sequence[Parameter], scales: str, columns: Sequence[str]
) -> pd.DataFrame:
    """A table by parameter with variances in the place of standard deviations, where `scales` says so.

    Parameters
    ----------
    table : DataFrame
        Index: names of parameters.
    parameters : sequence of Parameter
    scales : {"sdcor", "vcov"}
    columns : sequence of str
        Those that hold values of the parameters.
    """
    if scales not in ("sdcor", "vcov"):
        raise OptionError(f"scales={scales!r} is not known; use 'sdcor' or 'vcov'.")
    if scales == "sdcor":
        return table
    squared = {p.name: _variance_name(p) for p in parameters if p.kind in ("sd", "sigma") and p.shape is None}
    own = table.index.isin(list(squared))
    out = table.copy()
    out.loc[own, list(columns)] = out.loc[own, list(columns)] ** 2
    return out.rename(index=squared)


def _variance_name(parameter: Parameter) -> str:
    return "sigma^2" if parameter.name == "sigma" else parameter.name.replace("sd(", "var(", 1)


def profile(
    fit: Fit,
    parm: str | Sequence[str] | None = None,
    alpha: float | None = 0.01,
    *,
    step: float = _STEP,
    progress: bool | None = None,
) -> Profile:
    """Profile likelihood of the parameters, up to the limits of intervals of level 1 - alpha.

    Parameters
    ----------
    fit : Fit
        A generalised model needs nAGQ >= 1.
    parm : "all", "fixed", "random", "residual" (of a residual structure and variance functions), or names
    alpha : float or None
        The profiles reach the limits of intervals of level 1 - alpha; None grows them only when intervals are asked
        for.
    step : float
        Points are this far apart in the signed root; fewer points are enough for limits.
    progress : bool, optional
        Show a bar of the parameters; None shows one in a terminal or a notebook after a second. An interruption
        (Ctrl-C) keeps the parameters that are done, with a warning.

    Returns
    -------
    Profile

    Raises
    ------
    Lme4Error
        The fit is not the optimum, or a profile cannot be followed far enough.
    """
    check_progress(progress)
    wanted = select_parameters((*fit_parameters(fit), *model_of(fit).residual_parameters()), parm)
    best = model_of(fit).with_profile()
    note = "The REML fit was refitted and profiled by maximum likelihood." if fit.reml else ""
    for _ in range(_FITS):
        try:
            with watching("profile", progress, "parameters", total=len(wanted)):
                return _profile(best, wanted, alpha, note, step)
        except BetterOptimum as better:
            best = model_of(best).from_minimum(better.holding, better.minimum)
            note = (note + " A better optimum was found on the way, and the profile is about that one.").strip()
    raise Lme4Error(why_never(best))


def why_never(fit: Fit) -> str:
    """Why a profile leads from one better optimum to the next, in words.

    Parameters
    ----------
    fit : Fit
    """
    own = zip(fit.design.terms, fit.design.structures.split(fit.theta), strict=True)
    limits = [text for term, theta in own for text in term.structure.limits(theta, term.label)]
    if limits:
        return (
            f"the profile finds ever better optima, each by next to nothing, for the likelihood has no maximum: "
            f"{'; '.join(limits)}. Use the simpler structure, hold the parameter with fix=, or name others in parm=."
        )
    return (
        "the profile finds ever better optima: the fit has not converged. Scale the covariates, or simplify the random "
        "effects."
    )


def _profile(fit: Fit, wanted: list[Parameter], alpha: float | None, note: str, step: float) -> Profile:
    estimates = fit_values(fit, wanted)
    errors = standard_errors(fit, wanted)
    sides: dict[str, tuple[Side, Side]] = {}
    with keeping("parameters", len(wanted)) as kept, limited_threads(fit.design), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for parameter, value, error in zip(wanted, estimates, errors, strict=True):
            pair = _sides_of(fit, parameter, float(value), float(error), alpha, step)
            if pair is not None:
                sides[parameter.name] = pair
            kept.done += 1
            tick("parameters")
    return Profile(fit, tuple(wanted[: kept.done]), estimates[: kept.done], note, sides)


def _sides_of(
    fit: Fit, parameter: Parameter, value: float, error: float, alpha: float | None, step: float
) -> tuple[Side, Side] | None:
    """Both sides of the profile of one parameter."""
    if np.isnan(value) or _is_infinite(parameter, value) or not is_determined(fit, parameter):
        # The other effect has no variance, or nothing in the design tells the variance from another one: the
        # likelihood is flat.
        return None
    # Where the profile moves one over what is reported, the relative error is the same.
    inner = error / value**2 if parameter.flipped else error
    if parameter.kind == "other":
        inner = error / float(fit.family.other_slopes(fit.others)[parameter.first, parameter.first])
    pair = make_sides(model_of(fit).holding(parameter), inner)
    if alpha is not None:
        for side in pair:
            side.reach(float(-special.ndtri(check_alpha(alpha) / 2.0)), step)
    return pair
