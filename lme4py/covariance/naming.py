"""What the parameters of covariance structures are called in tables, and their values there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lme4py.covariance.natural import NaturalParameter
from lme4py.covariance.structure import CovarianceStructure
from lme4py.linalg.types import FloatArray

__all__ = ["is_shape", "natural_values", "shape_words"]


def shape_words(
    structure: CovarianceStructure, parameter: NaturalParameter, columns: Sequence[str], between: str = ", "
) -> tuple[str, str]:
    """What a parameter is, and of what: ``("sd", "ar1")``, ``("cor", "toep, lag 2")``, ``("range", "exp")``.

    Parameters
    ----------
    structure : CovarianceStructure
    parameter : NaturalParameter
        One of the structure's.
    columns : sequence of str
        Of the term; the structure's name stands for all of them.
    between : str
        Between names.
    """
    word, _, detail = parameter.label.partition("(")
    own = [columns[j] for j in parameter.columns] or [structure.word]
    return word, between.join([*own, *([detail[:-1]] if detail else [])])


def is_shape(structure: CovarianceStructure, parameter: NaturalParameter) -> bool:
    """Whether a parameter is none of the standard deviations, and no correlation of two columns."""
    return not structure.linear and parameter.kind != "sd" and not (parameter.kind == "cor" and parameter.columns)


def natural_values(structure: CovarianceStructure, theta: FloatArray, covariance: FloatArray) -> FloatArray:
    """Natural parameters of a term on the scale of its covariance matrix, shape (r,).

    Parameters
    ----------
    structure : CovarianceStructure
    theta : ndarray, shape (m,)
    covariance : ndarray, shape (k, k)
        A multiple of that of theta.
    """
    values = structure.natural(theta)
    size = float(np.trace(structure.covariance(theta)))
    unit = np.sqrt(float(np.trace(covariance)) / size) if size > 0.0 else 1.0
    relative = np.array([parameter.relative for parameter in structure.natural_parameters])
    return np.where(relative, unit * values, values)
