"""Values of all parameters of a model, as a user names them: what responses are simulated from.

``{"beta": {name: value}, "sd": {group: value or {column: value}}, "corr": {group: matrix}, "cov": {group: matrix},
"sigma" or "dispersion": value, "thresholds": values, "zi": {name: value}, "disp": {name: value},
"family": {name: value}}``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lme4py.design.design import Design, RandomTerm
from lme4py.errors import OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.densities.base import DISPERSION
from lme4py.families.parts import ZERO_INFLATION
from lme4py.fits.answers.draws import covariance_roots
from lme4py.fits.base import Fit
from lme4py.linalg.types import FloatArray

__all__ = ["Truth", "padded_modes", "read_truth", "theta_of", "truth_of"]

_KEYS = ("beta", "sd", "corr", "cov", "sigma", "dispersion", "thresholds", "zi", "disp", "family")
_INTERCEPTS = {"(Intercept)": "Intercept", "_cons": "Intercept"}
# A covariance that differs from the nearest one of its structure by this part is not one of the structure.
_SAME = 1e-8
# Ends of scales without bounds within which a value is looked for.
_END = 50.0


@dataclass(frozen=True)
class Truth:
    """Parameters of a model on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    covariances : tuple of ndarray, each (k, k)
    lam : float or ndarray
        As `Fit.lam`.
    """

    beta: FloatArray
    covariances: tuple[FloatArray, ...]
    lam: Any


def read_truth(design: Design, family: Family, params: Mapping[str, Any], old: Truth | None = None) -> Truth:
    """The parameters that a dict names.

    Parameters
    ----------
    design : Design
    family : Family
    params : mapping
        See the module. Names of coefficients alone are those of "beta".
    old : Truth, optional
        What is not named stays as it is here; without it everything must be named, but for correlations, which are
        zero.

    Raises
    ------
    OptionError
        A name that the model does not have, one that is missing, or a value that is none.
    """
    given = _as_sections(design, params)
    beta = _named("beta", given.pop("beta", {}), design.x_names, None if old is None else old.beta)
    sections = {name: given.pop(name, {}) for name in ("sd", "corr", "cov")}
    covariances = _covariances(design.terms, sections, None if old is None else old.covariances)
    return Truth(beta, covariances, _nuisance(family, given, None if old is None else old.lam))


def truth_of(fit: Fit) -> Truth:
    """The estimates of a fit as what responses are simulated from.

    Parameters
    ----------
    fit : Fit
    """
    return Truth(fit.beta, fit.covariances, fit.lam)


def theta_of(term: RandomTerm, covariance: FloatArray, unit: float) -> FloatArray:
    """theta of a term whose covariance over unit^2 is given.

    Raises
    ------
    OptionError
        The structure of the term has no such covariance.
    """
    wanted = covariance / unit**2
    theta = term.structure.canonical(term.structure.theta_of_factor(covariance_roots([wanted])[0]))
    T = term.structure.factor(theta)
    if np.abs(T @ T.T - wanted).max() > _SAME * max(float(np.abs(wanted).max()), 1e-300):
        raise OptionError(f"the covariance given for {term.label} is none of its structure ({term.structure!r}).")
    return theta


# --- the parts of the dict --------------------------------------------------------------------------------------


def _as_sections(design: Design, params: Any) -> dict[str, Any]:
    if not isinstance(params, Mapping):
        raise OptionError(f"`params` is of type {type(params).__name__}; give a dict such as {{'beta': {{'x': 0.2}}}}.")
    given = dict(params)
    names = {_INTERCEPTS.get(name, name) for name in given}
    if names and names <= set(design.x_names):
        return {"beta": given}
    for name in given:
        if name not in _KEYS:
            inside = f" Coefficients beside other parts stand in 'beta': {{'beta': {{{name!r}: ...}}, 'sd': ...}}."
            hint = inside if _INTERCEPTS.get(name, name) in design.x_names else did_you_mean(str(name), _KEYS)
            raise OptionError(f"`params` has no part {name!r}.{hint} Its parts are {', '.join(_KEYS)}.")
    return given


def _number(what: str, value: Any, least: float = -np.inf) -> float:
    ok = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not ok or not np.isfinite(float(value)) or float(value) < least:
        end = "" if least == -np.inf else f" of at least {least:g}"
        raise OptionError(f"{what} is {value!r}; give a finite number{end}.")
    return float(value)


def _named(section: str, given: Any, names: Sequence[str], old: FloatArray | None) -> FloatArray:
    """Values by name, shape (len(names),)."""
    if not isinstance(given, Mapping):
        values = list(np.atleast_1d(np.asarray(given, dtype=object)))
        if len(values) != len(names):
            raise OptionError(
                f"params[{section!r}] has {len(values)} values for {len(names)} names ({', '.join(names)})."
            )
        given = dict(zip(names, values, strict=True))
    given = {_INTERCEPTS.get(name, name) if name not in names else name: value for name, value in given.items()}
    for name in given:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise OptionError(
                f"params[{section!r}] names {name!r}, which the model does not have."
                f"{did_you_mean(str(name), names)} Its names are: {listed}."
            )
    missing = [name for name in names if name not in given]
    if missing and old is None:
        raise OptionError(f"params[{section!r}] has no value for {', '.join(missing)}; give one for each name.")
    values = [
        _number(f"params[{section!r}][{name!r}]", given[name]) if name in given else float(np.asarray(old)[i])
        for i, name in enumerate(names)
    ]
    return np.array(values)


def _of_term(section: str, given: Any, terms: Sequence[RandomTerm]) -> dict[int, Any]:
    """What was given for each term: by its label, or by its group."""
    if not isinstance(given, Mapping):
        raise OptionError(
            f"params[{section!r}] is {given!r}; give a dict by grouping factor, such as {{'Subject': ...}}."
        )
    known = [*dict.fromkeys(name for term in terms for name in (term.group, term.label))]
    out: dict[int, Any] = {}
    for key, value in given.items():
        own = [t for t, term in enumerate(terms) if key == term.label] or [
            t for t, term in enumerate(terms) if key == term.group
        ]
        if not own:
            raise OptionError(
                f"params[{section!r}] names {key!r}, which is no grouping factor of the model."
                f"{did_you_mean(str(key), known)} They are {', '.join(known) or 'none'}."
            )
        out |= _split(section, str(key), value, [(t, terms[t]) for t in own])
    return out


def _split(section: str, key: str, value: Any, own: list[tuple[int, RandomTerm]]) -> dict[int, Any]:
    """One entry for the terms that it belongs to."""
    if section != "sd" or not isinstance(value, Mapping):
        if len(own) > 1:
            raise OptionError(
                f"{len(own)} terms of the model are grouped by {key}: in params[{section!r}] name each by its label "
                f"({', '.join(term.label for _, term in own)})."
            )
        return {own[0][0]: value}
    value = {_INTERCEPTS.get(name, name): number for name, number in value.items()}
    columns = [name for _, term in own for name in term.columns]
    for name in value:
        if name not in columns:
            raise OptionError(
                f"params['sd'][{key!r}] names {name!r}, which is no random effect there."
                f"{did_you_mean(str(name), columns)} They are {', '.join(columns)}."
            )
    return {t: {name: value[name] for name in term.columns if name in value} for t, term in own}


def _covariances(
    terms: Sequence[RandomTerm], sections: Mapping[str, Any], old: tuple[FloatArray, ...] | None
) -> tuple[FloatArray, ...]:
    sd, corr, cov = (_of_term(name, sections[name], terms) for name in ("sd", "corr", "cov"))
    out = []
    for t, term in enumerate(terms):
        if t in cov:
            if t in sd or t in corr:
                raise OptionError(f"params gives {term.label} both 'cov' and 'sd' or 'corr'; give one of them.")
            out.append(_matrix(f"params['cov'] of {term.label}", cov[t], term.n_columns))
            continue
        if old is not None and t not in sd and t not in corr:
            out.append(old[t])
            continue
        sizes = _deviations(term, sd.get(t), None if old is None else np.sqrt(old[t].diagonal()))
        if t in corr:
            shape = _correlations(term, corr[t])
        else:
            shape = np.eye(term.n_columns) if old is None else _correlation_of(old[t])
        out.append(sizes[:, None] * shape * sizes)
    return tuple(out)


def _deviations(term: RandomTerm, given: Any, old: FloatArray | None) -> FloatArray:
    what = f"params['sd'] of {term.label}"
    if given is None:
        if old is None:
            raise OptionError(f"{what} is missing; give the standard deviation of {', '.join(term.columns)}.")
        return old
    if isinstance(given, Mapping):
        missing = [name for name in term.columns if name not in given]
        if missing and old is None:
            raise OptionError(f"{what} has no value for {', '.join(missing)}.")
        return np.array(
            [
                _number(f"{what}: {name}", given[name], 0.0) if name in given else float(np.asarray(old)[i])
                for i, name in enumerate(term.columns)
            ]
        )
    values = np.atleast_1d(np.asarray(given, dtype=object)).tolist()
    if len(values) != term.n_columns:
        raise OptionError(f"{what} has {len(values)} values for {term.n_columns} effects ({', '.join(term.columns)}).")
    return np.array([_number(what, value, 0.0) for value in values])


def _correlation_of(covariance: FloatArray) -> FloatArray:
    sizes = np.sqrt(covariance.diagonal())
    safe = np.where(sizes > 0.0, sizes, 1.0)
    shape: FloatArray = covariance / safe / safe[:, None]
    np.fill_diagonal(shape, 1.0)
    return shape


def _correlations(term: RandomTerm, given: Any) -> FloatArray:
    what = f"params['corr'] of {term.label}"
    if np.ndim(given) == 0:
        if term.n_columns != 2:
            raise OptionError(f"{what} is one number for {term.n_columns} effects; give a matrix.")
        rho = _number(what, given)
        given = [[1.0, rho], [rho, 1.0]]
    shape = _matrix(what, given, term.n_columns)
    if not np.allclose(shape.diagonal(), 1.0, atol=1e-12):
        raise OptionError(f"{what} has a diagonal other than 1; give correlations, or 'cov' instead.")
    return shape


def _matrix(what: str, given: Any, k: int) -> FloatArray:
    try:
        M = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"{what} is no matrix of numbers.") from None
    if M.shape != (k, k) or not np.isfinite(M).all() or not np.allclose(M, M.T, rtol=0.0, atol=1e-12 * np.abs(M).max()):
        raise OptionError(f"{what} must be a symmetric matrix of shape ({k}, {k}) of finite numbers.")
    if np.linalg.eigvalsh(M)[0] < -1e-10 * max(float(np.abs(M).max()), 1e-300):
        raise OptionError(f"{what} is not positive semi-definite: no random effects have it.")
    return 0.5 * (M + M.T)


# --- the parameters of the distribution -------------------------------------------------------------------------


def _nuisance(family: Family, given: dict[str, Any], old: Any) -> Any:
    """lambda from "sigma", "dispersion", "thresholds", "zi", "disp" and "family"."""
    if family.has_thresholds:
        thresholds = given.pop("thresholds", None)
        _none_left(family, given)
        if thresholds is None and old is not None:
            return old
        if old is None and family.n_coefficients:
            raise OptionError(
                "models made from parameters alone cannot have effects on thresholds or scale; fit one, and change its "
                "parameters."
            )
        before = np.zeros(0) if old is None else np.atleast_1d(old)[: family.n_coefficients]
        return np.concatenate([before, _thresholds(family, thresholds)])
    others = _others(family, given, old)
    if not family.n_dispersion:
        _none_left(family, given)
        return others if others.size else 0.0
    known = None if old is None else float(np.atleast_1d(old)[-1])
    own = _dispersion(family, given, known)
    _none_left(family, given)
    return np.array([*others, own]) if others.size else own


def _none_left(family: Family, given: Mapping[str, Any]) -> None:
    if given:
        name = next(iter(given))
        raise OptionError(
            f"params gives {name!r}, which a model with the {family.name} family does not have; leave it out."
        )


def _thresholds(family: Family, given: Any) -> FloatArray:
    matrix = family.threshold_matrix
    count = 0 if matrix is None else matrix.shape[0]
    values = list(given.values()) if isinstance(given, Mapping) else given
    cuts = np.asarray([] if values is None else values, dtype=np.float64)
    if cuts.shape != (count,) or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0.0).any():
        raise OptionError(
            f"params['thresholds'] must be {count} increasing numbers, one fewer than categories; got {given!r}."
        )
    gamma = family.parameters(cuts)
    back = family.alpha(gamma)
    if back is None or not np.allclose(back, cuts, rtol=1e-8, atol=1e-8):
        raise OptionError(f"params['thresholds'] {cuts.tolist()} do not have the structure of {family.variant}.")
    return gamma


def _others(family: Family, given: dict[str, Any], old: Any) -> FloatArray:
    names = family.nuisance_names
    known = None if old is None else np.atleast_1d(np.asarray(old, dtype=np.float64))[: len(names)]
    sections = {"zi": f"{ZERO_INFLATION}: ", "disp": f"{DISPERSION}: ", "family": ""}
    out = np.full(len(names), np.nan)
    for section, prefix in sections.items():
        own = [i for i, name in enumerate(names) if _belongs(name, prefix, sections)]
        if not own:
            continue
        short = [names[i].removeprefix(prefix) for i in own]
        reported = None if known is None else np.array([_natural(family, i, float(known[i])) for i in own])
        values = _named(section, given.pop(section, {}), short, reported)
        for i, name, value in zip(own, short, values, strict=True):
            out[i] = _inverse(partial(_natural, family, i), float(value), name)
    return out


def _natural(family: Family, number: int, value: float) -> float:
    return float(np.asarray(family.other_natural(number, value)).item())


def _belongs(name: str, prefix: str, sections: Mapping[str, str]) -> bool:
    if prefix:
        return name.startswith(prefix)
    return not any(name.startswith(other) for other in sections.values() if other)


def _dispersion(family: Family, given: dict[str, Any], old: float | None) -> float:
    found = [name for name in ("sigma", "dispersion") if name in given]
    if len(found) == 2:
        raise OptionError("params gives both 'sigma' and 'dispersion'; give one of them.")
    if not found:
        if old is not None:
            return old
        word = "sigma" if family.has_residual else "dispersion"
        raise OptionError(f"params has no {word!r}; give that of the {family.name} family ({family.parameter}).")
    value = _number(f"params[{found[0]!r}]", given.pop(found[0]), 0.0)
    return _inverse(family.sigma if found[0] == "sigma" else family.dispersion, value, found[0])


def _inverse(function: Callable[[float], float], value: float, name: str) -> float:
    """Where a monotone function of a parameter on a scale without bounds has a value."""
    values = np.array([function(-_END), function(_END)]) - value
    if function(value) == value and function(value + 1.0) == value + 1.0:
        return value
    if not np.isfinite(values).all() or values[0] * values[1] > 0.0:
        raise OptionError(f"params: {name} = {value:g} is outside its range.")
    from scipy.optimize import brentq

    with np.errstate(all="ignore"):
        found, _ = brentq(
            lambda v: function(float(v)) - value, -_END, _END, xtol=1e-14, rtol=1e-15, maxiter=500, full_output=True
        )
    return float(found)


def padded_modes(modes: Sequence[FloatArray], design: Design) -> tuple[FloatArray, ...]:
    """Conditional modes of each term, zeros for groups that were not in the fit.

    Parameters
    ----------
    modes : sequence of ndarray, each (J, k)
    design : Design
        With the groups of the fit first.
    """
    out = []
    for own, term in zip(modes, design.terms, strict=True):
        whole = np.zeros((term.n_levels, own.shape[1]))
        whole[: own.shape[0]] = own
        out.append(whole)
    return tuple(out)
