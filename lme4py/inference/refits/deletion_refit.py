"""Estimates without a row or a group where the variances are estimated again, fully or by one Newton step."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from lme4py.errors import Lme4Error, Lme4Warning
from lme4py.fits.answers.many import UnitEstimate, unit_table
from lme4py.fits.base import Fit
from lme4py.fits.groups import without_level
from lme4py.fits.kinds import model_of
from lme4py.inference.estimates.limits import known_coefficients, same_limits
from lme4py.inference.refits.deletion import Deleted
from lme4py.linalg.types import BoolArray, FloatArray, IntArray
from lme4py.progress import keeping, tick

__all__ = ["refit_without", "step_without"]


def refit_without(fit: Fit, codes: IntArray, ok: BoolArray, whole_levels: bool | None) -> Deleted:
    """A full fit without each unit.

    Parameters
    ----------
    fit : Fit
    codes : ndarray of int, shape (n,)
        Unit of each row.
    ok : ndarray of bool, shape (U,)
        Units without which the fixed effects can be estimated.
    whole_levels : bool or None
        True when the units are the levels of the only grouping factor, False when they are single rows; these are
        fitted all at once. None for other groups.
    """
    return _deleted(fit, codes, ok, whole_levels, full=True)


def step_without(fit: Fit, codes: IntArray, ok: BoolArray, whole_levels: bool | None) -> Deleted:
    """One Newton step of the variances without each unit, and everything else at the new variances.

    Parameters
    ----------
    fit, codes, ok, whole_levels
        As `refit_without`.
    """
    return _deleted(fit, codes, ok, whole_levels, full=False)


def _deleted(fit: Fit, codes: IntArray, ok: BoolArray, whole_levels: bool | None, full: bool) -> Deleted:
    model = model_of(fit)
    together = None if whole_levels is None else model.deletions(ok, whole_levels, full)
    if together is not None:
        return _finished(fit, *together)
    return _loop(fit, codes, ok, _refitted if full else _stepped)


def _finished(fit: Fit, out: dict[str, FloatArray], ok: BoolArray) -> Deleted:
    hide = np.where(ok, 1.0, np.nan)
    own = model_of(fit).own_vcov()
    safe = np.where(ok[:, None, None], out["vcov"], own)
    known = np.flatnonzero(known_coefficients(fit))
    log_dets = [np.linalg.slogdet(V[..., known[:, None], known])[1] for V in (safe, own)]
    return Deleted(
        change=(out["beta"] - fit.beta) * hide[:, None],
        errors=np.sqrt(np.einsum("uaa->ua", safe)) * hide[:, None],
        log_det=(log_dets[0] - log_dets[1]) * hide,
        sigma=out["sigma"] / fit.sigma * hide,
        ok=ok,
        theta=out["theta"] * hide[:, None],
    )


# --- one after the other ----------------------------------------------------------------------------------------


Estimate = Callable[[Fit, IntArray, int], UnitEstimate | None]


def _loop(fit: Fit, codes: IntArray, ok: BoolArray, estimate: Estimate) -> Deleted:
    out, good = unit_table(fit, ok.size), ok.copy()
    units = np.flatnonzero(ok)
    good[units] = False
    with keeping("units", units.size) as kept:
        for unit in units:
            found = _attempt(fit, codes, int(unit), estimate)
            good[unit] = found is not None
            if found is not None:
                for name in out:
                    out[name][unit] = getattr(found, name)
            kept.done += 1
            tick("units")
    return _finished(fit, out, good)


def _attempt(fit: Fit, codes: IntArray, unit: int, estimate: Estimate) -> UnitEstimate | None:
    """The estimate, or None where there is none; such units are counted and named in the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        try:
            return estimate(fit, codes, unit)
        except (Lme4Error, np.linalg.LinAlgError):
            return None


def _stepped(fit: Fit, codes: IntArray, unit: int) -> UnitEstimate:
    return model_of(fit).newton_step(without_level(fit.design, codes, unit))


def _refitted(fit: Fit, codes: IntArray, unit: int) -> UnitEstimate | None:
    again = model_of(fit).fit_without(codes, unit)
    usable = same_limits(fit, again) and (again.certificate.converged or again.recession is not None)
    return UnitEstimate(again.beta, again.vcov, again.sigma, again.theta) if usable else None
