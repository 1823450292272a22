"""What the modular steps of all kinds of model share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from lme4py.chunks import chunk
from lme4py.covariance import CovarianceStructures
from lme4py.design.design import Design
from lme4py.engine.certificate import describe_unidentified
from lme4py.engine.identification.record import Identification
from lme4py.engine.optimise import Control
from lme4py.errors import IdentificationWarning, OptionError, did_you_mean, warn
from lme4py.linalg.types import FloatArray

__all__ = ["linear_predictor", "off_boundary", "read_control", "term_names", "warn_unidentified"]

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
    for key, value in control.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise OptionError(f"control[{key!r}] must be a positive number, got {value!r}.")
    return Control(**control)


def term_names(design: Design) -> list[tuple[str, tuple[str, ...]]]:
    """Label and columns of each random-effects term, for the words of a certificate."""
    return [(term.label, term.columns) for term in design.terms]


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


def linear_predictor(design: Design, beta: FloatArray, modes: tuple[FloatArray, ...]) -> FloatArray:
    """Fixed effects, conditional modes and offset of the rows, shape (n,).

    Parameters
    ----------
    design : Design
    beta : ndarray, shape (p,)
    modes : tuple of ndarray, each (J, k)
    """
    fitted = np.empty(design.n_obs)
    for start in range(0, design.n_obs, _ROWS):
        rows = slice(start, start + _ROWS)
        own = design.X[rows] @ beta
        for term, b in zip(design.terms, modes, strict=True):
            codes = term.codes[rows]
            # Column by column: nothing of shape (n, k) is gathered.
            for k, own_modes in enumerate(b.T):
                own += term.values[rows, k] * own_modes.take(codes)
        fitted[rows] = own if design.offset is None else own + design.offset[rows]
    return fitted


def off_boundary(structures: CovarianceStructures, theta: FloatArray) -> FloatArray:
    """theta with small standard deviations raised, for a start."""
    return structures.as_start(theta, _LEAST_START)
