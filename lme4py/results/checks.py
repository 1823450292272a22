"""Checks of a fit that a user turns off, or into errors, by name: ``control={"check": {"singular": "stop"}}``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from lme4py.errors import (
    ConvergenceWarning,
    DesignError,
    IdentificationWarning,
    Lme4Warning,
    OptimaWarning,
    OptionError,
    RankWarning,
    SpellingWarning,
    did_you_mean,
    warn,
)

__all__ = ["CHECKS", "checked_control", "checking"]

# Name -> the warnings that it is about; singular fits have none where nothing is asked.
CHECKS: Final[dict[str, type[Lme4Warning] | None]] = {
    "convergence": ConvergenceWarning,
    "identification": IdentificationWarning,
    "optima": OptimaWarning,
    "rank": RankWarning,
    "singular": None,
    "spelling": SpellingWarning,
}
# The names of lmerControl; the gradient and the Hessian are both in the certificate.
_LME4: Final = {
    "conv.grad": "convergence",
    "conv.hess": "convergence",
    "conv.singular": "singular",
    "rankX": "rank",
}
# Tests of lme4 that are no warnings here: what they find is not identified, and refused.
_REFUSED: Final = ("nobs.vs.nlev", "nobs.vs.nRE", "nobs.vs.rankZ", "nlev.gtr.1", "formula.LHS", "response.not.const")
_ACTIONS: Final = {
    "ignore": "ignore",
    "silent.drop.cols": "ignore",
    "warning": "warning",
    "warn": "warning",
    "warn+drop.cols": "warning",
    "message": "warning",
    "message+drop.cols": "warning",
    "stop": "stop",
    "error": "stop",
    "stop.deficient": "stop",
}


def checked_control(control: Any) -> tuple[Any, dict[str, str]]:
    """The settings without ``check``, and what is to be done at each check.

    Parameters
    ----------
    control : Control, dict or None

    Returns
    -------
    control : Control, dict or None
    actions : dict of str to {"ignore", "warning", "stop"}

    Raises
    ------
    OptionError

    Examples
    --------
    >>> checked_control({"check": {"conv.singular": "stop"}, "max_evaluations": 50})
    ({'max_evaluations': 50}, {'singular': 'stop'})
    """
    if not isinstance(control, Mapping) or "check" not in control:
        return control, {}
    given = control["check"]
    if not isinstance(given, Mapping):
        raise OptionError(f"control['check'] is {given!r}; give a dict such as {{'singular': 'stop'}}.")
    actions = {_name(key): _action(key, value) for key, value in given.items()}
    return {key: value for key, value in control.items() if key != "check"}, actions


def _name(key: object) -> str:
    name = str(key).removeprefix("check.")
    name = _LME4.get(name, name)
    if name in _REFUSED:
        raise OptionError(
            f"control['check'] names {key!r}, which finds models that are not identified: these are refused, and no "
            "setting makes them estimable."
        )
    if name not in CHECKS:
        known = [*CHECKS, *_LME4]
        raise OptionError(
            f"control['check'] has no check {key!r}.{did_you_mean(str(key), known)} Checks are {', '.join(CHECKS)}."
        )
    return name


def _action(key: object, value: object) -> str:
    if not isinstance(value, str) or value not in _ACTIONS:
        raise OptionError(
            f"control['check'][{key!r}] is {value!r}.{did_you_mean(str(value), _ACTIONS)} Use 'ignore', 'warning' or "
            "'stop'."
        )
    return _ACTIONS[value]


@contextmanager
def checking(actions: Mapping[str, str]) -> Iterator[list[Any]]:
    """Fit inside: warnings of the checks are left out, or become errors.

    Parameters
    ----------
    actions : dict of str to {"ignore", "warning", "stop"}

    Yields
    ------
    list
        To which the result is appended, for the checks that are made after the fit.

    Raises
    ------
    DesignError
        A check that is to stop.
    """
    made: list[Any] = []
    if not actions:
        yield made
        return
    stopping = tuple(kind for name, kind in CHECKS.items() if kind is not None and actions.get(name) == "stop")
    with warnings.catch_warnings():
        for name, kind in CHECKS.items():
            if kind is not None and actions.get(name) in ("ignore", "stop"):
                warnings.simplefilter("error" if actions[name] == "stop" else "ignore", kind)
        try:
            yield made
        except stopping as warning:
            raise DesignError(f"{warning} (control['check'] makes an error of it.)") from None
    _report_singular(made, actions.get("singular", "ignore"))


def _report_singular(made: list[Any], action: str) -> None:
    if action == "ignore" or not any(result.is_singular for result in made):
        return
    text = "the fit is singular: some variances are zero, or some correlations -1 or 1; simplify the random effects."
    if action == "stop":
        raise DesignError(f"{text} (control['check'] makes an error of it.)")
    warn(text, Lme4Warning)
