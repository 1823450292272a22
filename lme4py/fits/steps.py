"""What the modular steps of all kinds of model share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np

from lme4py.chunks import chunk
from lme4py.covariance import CovarianceStructures
from lme4py.design.design import CONDITIONAL, Design
from lme4py.engine.certificate import describe_unidentified
from lme4py.engine.identification.record import Identification
from lme4py.engine.optimise import Block, Control
from lme4py.errors import IdentificationWarning, OptionError, did_you_mean, warn
from lme4py.families.response import ResponseData
from lme4py.fits.optimisers import optimizer_name
from lme4py.linalg.types import FloatArray

__all__ = [
    "linear_predictor",
    "off_boundary",
    "random_part",
    "read_control",
    "refuse_iterative",
    "response_with_modes",
    "term_names",
    "warn_unidentified",
]

# Random effects of each term.
Effects = Sequence[FloatArray | None]
# Rows whose fitted values are made at one time.
_ROWS = chunk(2**15)
# Standard deviations (relative, in columns of unit size) below this are raised to it before they are a start: at an
# exact zero the gradient vanishes.
_LEAST_START = 0.1


def read_control(control: Control | Mapping[str, Any] | None) -> Control:
    if control is None:
        return Control()
    if isinstance(control, Control):
        return control
    if not isinstance(control, Mapping):
        raise OptionError(f"control must be a dict such as {{'max_evaluations': 500}}, got {type(control).__name__}.")
    known = [f.name for f in fields(Control)]
    for key in control:
        if key not in known:
            raise OptionError(
                f"control has no setting {key!r}; there are {', '.join(known)}.{did_you_mean(str(key), known)}"
            )
    named: dict[str, str] = {}
    for key, value in control.items():
        if key == "block":
            if value not in get_args(Block):
                raise OptionError(f"control['block'] must be one of {', '.join(get_args(Block))}, got {value!r}.")
        elif key == "optimizer":
            named = {key: optimizer_name(value)}
        elif key == "seed":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
                raise OptionError(f"control['seed'] must be a whole number from 0 to 2**32 - 1, got {value!r}.")
        elif key == "exact":
            if not isinstance(value, bool):
                raise OptionError(f"control['exact'] must be True or False, got {value!r}.")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise OptionError(f"control[{key!r}] must be a positive number, got {value!r}.")
    return Control(**{**control, **named})


def refuse_iterative(control: Control, what: str) -> None:
    """Refuse a setting that models with crossed effects have where rows are in memory and independent.

    Parameters
    ----------
    control : Control
    what : str
        The models that are fitted, as in "models with sampling weights".

    Raises
    ------
    OptionError
    """
    if control.block == "iterative":
        raise OptionError(
            f"control['block'] is 'iterative', but the crossed random effects of {what} are solved by their exact "
            "factor only; leave it out."
        )


def term_names(design: Design) -> list[tuple[str, tuple[str, ...]]]:
    """Label and columns of each random-effects term, for the words of a certificate.

    Of a smooth the random effects are only what its penalty shrinks: without them a straight line or the like is left.
    """
    return [(f"the penalised part of {t.label}" if t.smooth else t.label, t.columns) for t in design.terms]


def warn_unidentified(identification: Identification) -> None:
    """Say which variances no data of this design tell apart.

    Parameters
    ----------
    identification : Identification
    """
    if not identification.complete:
        warn(describe_unidentified(identification.sentences), IdentificationWarning)
    for sentence in identification.weak:
        warn(f"{sentence}.", IdentificationWarning)


def linear_predictor(design: Design, beta: FloatArray, modes: Effects) -> FloatArray:
    """Fixed effects, conditional modes and offset of the rows in the first linear predictor, shape (n,).

    Of categories beside a baseline those of all, one below the other, (D n,).

    Parameters
    ----------
    design : Design
    beta : ndarray, shape (p,)
    modes : sequence of ndarray, each (J, k), or None
        None for a term that adds nothing.
    """
    if design.n_stacked > 1:
        return _joint_predictor(design, beta, modes)
    fitted = np.empty(design.n_obs)
    for start in range(0, design.n_obs, _ROWS):
        rows = slice(start, start + _ROWS)
        own = design.X[rows] @ beta
        _add_modes(own, design, modes, CONDITIONAL, rows)
        fitted[rows] = own if design.offset is None else own + design.offset[rows]
    return fitted


def _joint_predictor(design: Design, beta: FloatArray, modes: Effects) -> FloatArray:
    """The linear predictors of several categories, one below the other, shape (D n,)."""
    wide = (design.X @ beta).reshape(-1, design.n_obs)
    if design.stacked_offset is not None:
        wide = wide + design.stacked_offset.reshape(wide.shape)
    homes = list(dict.fromkeys(part for term in design.terms for part in term.column_parts)) or [CONDITIONAL]
    for own, home in zip(wide, homes, strict=False):
        _add_modes(own, design, modes, home, slice(None))
    return wide.ravel()


def random_part(design: Design, modes: Effects, part: str = CONDITIONAL) -> FloatArray:
    """Random effects of the rows in one linear predictor, shape (n,).

    Parameters
    ----------
    design : Design
    modes : tuple of ndarray, each (J, k), or None
        None for a term that adds nothing.
    part : str
        Name of the predictor.
    """
    out = np.zeros(design.n_obs)
    _add_modes(out, design, modes, part, slice(None))
    return out


def response_with_modes(design: Design, data: ResponseData, modes: Effects) -> ResponseData:
    """The response with the random effects of further predictors in their offsets.

    Parameters
    ----------
    design : Design
    data : ResponseData
    modes : tuple of ndarray, each (J, k), or None
        None for a term that adds nothing.
    """
    random = {part for term in design.terms for part in term.parts}
    if not random:
        return data
    parts = [p.plus(random_part(design, modes, p.name)) if p.name in random else p for p in data.parts]
    return replace(data, parts=tuple(parts))


def _add_modes(eta: FloatArray, design: Design, modes: Effects, part: str, rows: slice) -> None:
    for term, b in zip(design.terms, modes, strict=True):
        if b is None:
            continue
        codes = term.codes[rows]
        # Column by column: nothing of shape (n, k) is gathered.
        for k, (home, own) in enumerate(zip(term.column_parts, b.T, strict=True)):
            if home == part:
                eta += term.values[rows, k] * own.take(codes)


def off_boundary(structures: CovarianceStructures, theta: FloatArray) -> FloatArray:
    """theta with small standard deviations raised, for a start."""
    return structures.as_start(theta, _LEAST_START)
