"""Likelihood-ratio tests of further parts: is there a zero part, and what do it and the dispersion depend on?"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from lme4py.errors import OptionError
from lme4py.fits.base import Fit
from lme4py.inference.lrt.mixture import Mixture, UnknownDistribution
from lme4py.inference.lrt.nesting import Embedding
from lme4py.linalg.spans import spans
from lme4py.linalg.types import FloatArray

__all__ = ["check_parts", "lacks_zero_part", "location_columns", "zero_part_mixture"]

_ZEROS = "zero_inflation"


def lacks_zero_part(restricted: Fit, full: Fit) -> bool:
    """Whether the full model has a zero part and the restricted one has none.

    Parameters
    ----------
    restricted, full : Fit
    """
    return _ZEROS in full.family.components and _ZEROS not in restricted.family.components


def check_parts(restricted: Fit, full: Fit) -> None:
    """Refuse models whose further parts are not nested.

    Parameters
    ----------
    restricted, full : Fit
        Of one family, but for the zero part.
    """
    extra = [part for part in restricted.family.components if part not in full.family.components]
    if extra:
        _refuse(f"the restricted model has a {extra[0]} part, and the full one has none")
    ordered = full.family.has_thresholds
    if ordered and restricted.family.event != full.family.event:
        _refuse("their categories have different structures")
    # A part that the restricted model lacks is one parameter there; of ordered categories it has no effects.
    absent = 0 if ordered else 1
    for part in full.family.components[1:]:
        own, other = _columns(full, part), _columns(restricted, part, absent)
        if own is None or other is None:
            # No zeros of their own: the probability is at its end, whatever the columns.
            continue
        if not spans(own[0], other[0]):
            _refuse(
                f"the columns of the {part} part of the restricted model are no combinations of those of the full one"
            )
        if not np.array_equal(own[1], other[1]):
            _refuse(f"the {part} parts have different offsets")


def _columns(fit: Fit, part: str, absent: int = 1) -> tuple[FloatArray, FloatArray] | None:
    """Columns and offset of a part; a constant where it is one parameter (or nothing); None without it."""
    n = fit.design.n_obs
    found = next((one for one in fit.design.predictors if one.name == part), None)
    if found is not None:
        return found.X, np.zeros(n) if found.offset is None else found.offset
    return None if part == _ZEROS else (np.ones((n, absent)), np.zeros(n))


def location_columns(fit: Fit) -> FloatArray:
    """Columns whose common effects the model has: those with an effect on each threshold have one on all too.

    Parameters
    ----------
    fit : Fit
    """
    nominal = [p.X for p in fit.design.predictors[1:] if p.name == "nominal" and fit.family.constant is not None]
    return np.hstack([fit.design.X, *nominal]) if nominal else fit.design.X


def _refuse(why: str) -> NoReturn:
    raise OptionError(f"the models are not nested: {why}. Compare AIC or BIC, as in compare(first, second).")


def zero_part_mixture(full: Fit, embedding: Embedding, df: int) -> Mixture:
    """The distribution for a model without a zero part in one with it (Self & Liang 1987, JASA 82:605, case 5).

    The probability of a zero is zero under the restricted model and cannot be negative: a cone of one dimension. With
    more than one coefficient the others mean nothing there, and the distribution is not known.

    Parameters
    ----------
    full : Fit
    embedding : Embedding
        The random effects of the restricted model in those of the full one.
    df : int
        Difference of the numbers of parameters.
    """
    predictor = next(one for one in full.design.predictors if one.name == _ZEROS)
    constant = predictor.X.shape[1] == 1 and bool((predictor.X[0, 0] == predictor.X).all())
    if not constant or predictor.terms or embedding.blocks:
        raise UnknownDistribution(
            "under the restricted model the probability of a zero is on its boundary, where the coefficients of the "
            "zero part (and variances that are tested with it) mean nothing: the distribution of this ratio is not "
            "known. Test ziformula='~ 1' first, or use method='bootstrap'."
        )
    note = (
        f"50:50 mixture of chi-squared with {df - 1} and {df} degrees of freedom: without a zero part the probability "
        "of a zero of its own is 0, on the boundary"
    )
    return Mixture({df - 1: 0.5, df: 0.5}, note)
