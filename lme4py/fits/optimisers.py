"""Optimisers by name: general ones that find a start from which the package's own steps prove the minimum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lme4py.engine.optimise import Control
from lme4py.errors import OptionError, did_you_mean
from lme4py.linalg.types import FloatArray

__all__ = ["OPTIMIZERS", "OWN", "Found", "minimise_by_name", "optimizer_name", "refuse_named", "start_by_name"]

OWN: Final = "trust-region"
# Name -> (method of scipy.optimize.minimize or None for the package's own, uses the gradient, options).
OPTIMIZERS: Final[dict[str, tuple[str | None, bool, dict[str, float]]]] = {
    OWN: (None, True, {}),
    "L-BFGS-B": ("L-BFGS-B", True, {"ftol": 1e-14, "gtol": 1e-8, "maxcor": 20}),
    "BFGS": ("BFGS", True, {"gtol": 1e-6}),
    "Nelder-Mead": ("Nelder-Mead", False, {"xatol": 1e-7, "fatol": 1e-9, "adaptive": True}),
    "Powell": ("Powell", False, {"xtol": 1e-7, "ftol": 1e-13}),
    "COBYLA": ("COBYLA", False, {"rhobeg": 0.3, "tol": 1e-8}),
}
# What lme4 calls optimisers of the same kind: a simplex, Powell's by linear or quadratic models, quasi-Newton steps.
_ALIASES: Final = {
    "Nelder_Mead": "Nelder-Mead",
    "neldermead": "Nelder-Mead",
    "bobyqa": "COBYLA",
    "nloptwrap": "COBYLA",
    "nlminb": "L-BFGS-B",
    "nlminbwrap": "L-BFGS-B",
    "optimx": "L-BFGS-B",
}
# Values beyond this are no values.
_NOWHERE: Final = 1e30


@dataclass(frozen=True)
class Found:
    """What an optimiser found.

    Attributes
    ----------
    x : ndarray, shape (k,)
        The best of all points that it looked at.
    value : float
    evaluations : int
    """

    x: FloatArray
    value: float
    evaluations: int


def optimizer_name(given: object) -> str:
    """The optimiser of ``control={"optimizer": ...}``; names of lme4's stand for those of the same kind.

    Parameters
    ----------
    given : object

    Raises
    ------
    OptionError

    Examples
    --------
    >>> optimizer_name("Nelder_Mead")
    'Nelder-Mead'
    """
    name = _ALIASES.get(given, given) if isinstance(given, str) else given
    if not isinstance(name, str) or name not in OPTIMIZERS:
        known = [*OPTIMIZERS, *_ALIASES]
        raise OptionError(
            f"control['optimizer'] is {given!r}.{did_you_mean(str(given), known)} Use one of {', '.join(OPTIMIZERS)}."
        )
    return name


def minimise_by_name(
    value: Callable[[FloatArray], tuple[float, FloatArray | None]], start: FloatArray, name: str, most: int
) -> Found:
    """Minimise by one of SciPy's methods; the best point that was looked at counts.

    Parameters
    ----------
    value : callable
        x -> value and gradient; None for the gradient where the method asks for none.
    start : ndarray, shape (k,)
    name : str
        Of `OPTIMIZERS`, not the package's own.
    most : int
        Evaluations.
    """
    from scipy.optimize import minimize

    method, uses_gradient, options = OPTIMIZERS[name]
    best: list[Any] = [start, np.inf]
    count = 0

    def watched(x: FloatArray) -> tuple[float, FloatArray | None]:
        nonlocal count
        count += 1
        here, gradient = value(x)
        if here < best[1]:
            best[:] = [x.copy(), here]
        return here, gradient

    limit = {"COBYLA": "maxiter", "BFGS": "maxiter"}.get(str(method), "maxfun" if method == "L-BFGS-B" else "maxfev")
    objective: Any = watched if uses_gradient else lambda x: watched(x)[0]
    settings: Any = {"jac": uses_gradient or None, "method": method, "options": {**options, limit: most}}
    with warnings.catch_warnings():
        # Their complaints are what the verdicts say in one scale for all.
        warnings.simplefilter("ignore")
        minimize(objective, start, **settings)
    return Found(best[0], float(best[1]), count)


def start_by_name(criterion: Any, start: FloatArray, control: Control) -> FloatArray:
    """Where a named optimiser ends from a start; the package's own steps begin there, and prove the minimum.

    Parameters
    ----------
    criterion : LmmCriterion or GlmmCriterion
        A function of all its parameters with a gradient.
    start : ndarray, shape (k,)
        On the user's scale.
    control : Control
    """
    needs = OPTIMIZERS[control.optimizer][1]

    def value(x: FloatArray) -> tuple[float, FloatArray | None]:
        try:
            return criterion(x), criterion.gradient(x) if needs else None
        except OptionError:
            # No value there: worse than all.
            return _NOWHERE, np.zeros_like(x) if needs else None

    # A method without derivatives looks at many points for one of those that count.
    return minimise_by_name(value, start, control.optimizer, 100 * control.max_evaluations).x


def refuse_named(control: Control, what: str) -> None:
    """Refuse a named optimiser where only the package's own steps work.

    Parameters
    ----------
    control : Control
    what : str
        The models that are fitted, as in "models with a residual structure".

    Raises
    ------
    OptionError
    """
    if control.optimizer != OWN:
        raise OptionError(
            f"control['optimizer'] is {control.optimizer!r}, but {what} are fitted by the package's own steps only; "
            "leave it out."
        )
