"""Parameters that a user holds at given values (``fix=``): which they are, and the design in which they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log
from typing import Any

from lme4py.covariance import CovarianceStructure
from lme4py.covariance.kinds.held import hold_natural, hold_theta
from lme4py.design.beside.held import hold_columns
from lme4py.design.design import Design
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.fits.parameters import Parameter, natural_names, parameters

__all__ = ["HeldDesign", "hold", "hold_dispersion", "read_fix", "sigma_of"]

_THETA = "theta"


@dataclass(frozen=True)
class HeldDesign:
    """A design in which parameters are held.

    Attributes
    ----------
    design : Design
    absolute : bool
        A standard deviation is held that is no known multiple of sigma, which is estimated.
    """

    design: Design
    absolute: bool


def read_fix(fix: object) -> dict[str, Any]:
    """The argument ``fix``, checked: names and finite numbers, theta a list.

    Parameters
    ----------
    fix : mapping, or None

    Raises
    ------
    OptionError

    Examples
    --------
    >>> read_fix({"x": 1})
    {'x': 1.0}
    """
    if fix is None:
        return {}
    if not isinstance(fix, Mapping):
        raise OptionError(f'`fix` is of type {type(fix).__name__}; give a dict such as {{"x": 0}}.')
    return {str(name): _thetas(value) if name == _THETA else _number(name, value) for name, value in fix.items()}


def _number(name: object, given: object) -> float:
    if isinstance(given, bool) or not hasattr(given, "__float__") or hasattr(given, "__len__"):
        raise OptionError(f"fix holds {name!r} at {given!r}; give a finite number.")
    value = float(given)
    if not isfinite(value):
        raise OptionError(f"fix holds {name!r} at {given!r}; give a finite number.")
    return value


def _thetas(given: object) -> tuple[float | None, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise OptionError(
            f"fix holds theta at {given!r}; give a list with a number, or None where it is free, for each."
        )
    return tuple(None if value is None else _number(_THETA, value) for value in given)


def sigma_of(fix: dict[str, Any]) -> float | None:
    """The residual standard deviation, taken out of what is held by any of its names; None where it is estimated."""
    for name in ("sigma", "sd(Residual)"):
        if name in fix:
            return float(fix.pop(name))
    return None


def hold_dispersion(design: Design, fix: dict[str, Any], family: Family) -> Design:
    """A design in which the dispersion of a family is known, where `fix` names it; the name is taken out of `fix`.

    Parameters
    ----------
    design : Design
    fix : dict
        As `read_fix` gives it.
    family : Family

    Raises
    ------
    OptionError
        A family with further parameters, or a value that is not positive.
    """
    names = ("dispersion", family.parameter, *(("sigma", "sd(Residual)") if family.has_residual else ()))
    found = [name for name in names if name and name in fix]
    if not found or not family.n_dispersion:
        return design
    name = found[0]
    value = float(fix.pop(name))
    if family.n_nuisance != 1:
        raise OptionError(
            f"fix holds {name!r}, and the {family.name} family has {family.n_nuisance} parameters beside the mean, of "
            "which the dispersion cannot be held alone."
        )
    if not value > 0.0:
        raise OptionError(f"fix holds {name!r} at {value:g}; it must be positive.")
    power = 2.0 if name in ("sigma", "sd(Residual)") else 1.0
    note = f"fixed by the user, not estimated: {name} = {value:g}"
    return replace(design, log_dispersion=power * log(value), notes=(*design.notes, note))


def hold(design: Design, fix: Mapping[str, Any], sigma: float | None = None, residual: bool = True) -> HeldDesign:
    """Hold coefficients, and parameters of covariance structures.

    Parameters
    ----------
    design : Design
    fix : mapping
        As `read_fix` gives it, without sigma.
    sigma : float, optional
        The residual standard deviation, where it is known: theta are relative to it.
    residual : bool
        Whether theta are relative to a residual standard deviation.

    Raises
    ------
    OptionError
        A name that is no parameter, or a value that it cannot have.
    """
    if not fix:
        return HeldDesign(design, False)
    columns = {_column(name): value for name, value in fix.items() if _column(name) in design.x_names}
    found = {name: _random(design, name) for name in fix if name != _THETA and _column(name) not in design.x_names}
    by_term: dict[int, dict[int, float]] = {}
    absolute = False
    for name, parameter in found.items():
        relative = residual and _natural(design, parameter).relative
        absolute = absolute or (relative and sigma is None)
        value = fix[name] / sigma if relative and sigma is not None else fix[name]
        by_term.setdefault(parameter.term, {})[parameter.natural] = value
    structures = [
        hold_natural(term.structure, by_term[t]) if t in by_term else term.structure
        for t, term in enumerate(design.terms)
    ]
    if _THETA in fix:
        if by_term:
            raise OptionError("fix holds theta and parameters by their names; give one of the two.")
        structures = _with_theta(design, fix[_THETA])
    terms = [replace(term, structure=own) for term, own in zip(design.terms, structures, strict=True)]
    held = hold_columns(design.with_terms(terms), columns)
    return HeldDesign(replace(held, notes=(*design.notes, *_notes(fix))), absolute)


def _notes(fix: Mapping[str, Any]) -> list[str]:
    """What summaries say of what is held."""
    words = [f"{name} = {value:g}" for name, value in fix.items() if name != _THETA]
    if _THETA in fix:
        words.append(f"theta = {', '.join('free' if v is None else f'{v:g}' for v in fix[_THETA])}")
    return [f"fixed by the user, not estimated: {'; '.join(words)}"] if words else []


def _column(name: str) -> str:
    return "Intercept" if name in ("(Intercept)", "_cons") else name


def _natural(design: Design, parameter: Parameter) -> Any:
    return design.terms[parameter.term].structure.natural_parameters[parameter.natural]


def _random(design: Design, name: str) -> Parameter:
    """The parameter of a covariance structure that has a name, by any of its names."""
    known = [parameter for parameter in parameters(design, residual=False) if parameter.term >= 0]
    known += [parameter for parameter in natural_names(design) if parameter.natural >= 0]
    wanted = _spelt(name)
    for attribute in ("plain", "name", "stata", "alias"):
        for parameter in known:
            if wanted == _spelt(getattr(parameter, attribute)):
                return parameter
    names = [*design.x_names, *dict.fromkeys(parameter.plain or parameter.name for parameter in known)]
    raise OptionError(
        f"fix names {name!r}, which is no parameter that can be held.{did_you_mean(name, names)} These are the "
        f"dispersion, sigma, and {', '.join(names)}; not thresholds, and not coefficients of further parts."
    )


def _spelt(name: str) -> str:
    """A name without blanks, with one word for correlations."""
    plain = "".join(name.split()).replace("(Intercept)", "Intercept")
    for word in ("corr(", "rho("):
        if plain.startswith(word):
            return "cor(" + plain.removeprefix(word)
    return plain


def _with_theta(design: Design, thetas: Sequence[float | None]) -> list[CovarianceStructure]:
    """Structures with the theta that are no None held."""
    if len(thetas) != design.structures.n_theta:
        raise OptionError(
            f"fix holds {len(thetas)} theta, and the model has {design.structures.n_theta}; give one number, or None "
            "where it is free, for each."
        )
    out = []
    for structure, place in zip(design.structures.each, design.structures.slices, strict=True):
        own = {i: float(v) for i, v in enumerate(thetas[place]) if v is not None}
        out.append(hold_theta(structure, own))
    return out
