"""Limits of means that stay in their range: normal on a scale without ends, and back from there.

The scale is that of the link where this maps the range of the mean onto all numbers (so that the limits of one
prediction are those of its linear predictor, transformed), else the logit of what lies between 0 and 1 and the
logarithm of what is positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean
from lme4py.linalg.types import FloatArray

__all__ = ["BackTransform", "back_transform"]


@dataclass(frozen=True)
class BackTransform:
    """A scale for limits.

    Attributes
    ----------
    link : Link
        From means to the scale.
    """

    link: Link

    def limits(self, value: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Limits of means.

        Parameters
        ----------
        value : ndarray, shape (K,)
            Means; at an end of their range they have no limits.
        half : ndarray, shape (K,)
            Multiples of their standard errors.
        """
        with np.errstate(all="ignore"):
            eta = self.link.eta(value)
            slope = self.link.derivatives(eta)[1]
            wide = half / np.abs(slope)
            # A link that falls turns the limits round.
            ends = np.array([self.link.edge_mean(eta - wide), self.link.edge_mean(eta + wide)])
        known = np.isfinite(eta) & (slope != 0.0)
        lower, upper = (np.where(known, end, np.nan) for end in (ends.min(axis=0), ends.max(axis=0)))
        exact = half == 0.0
        return np.where(exact, value, lower), np.where(exact, value, upper)


def back_transform(link: Link | None, mean_range: tuple[float, float]) -> BackTransform | None:
    """The scale for limits of means in a range; None where this has no ends.

    Parameters
    ----------
    link : Link or None
        Of the model.
    mean_range : (float, float)
    """
    if np.isinf(mean_range).all():
        return None
    ends = () if link is None else tuple(end for end in link.ends if end is not None)
    if link is not None and len(ends) == 2 and sorted(ends) == sorted(mean_range):
        return BackTransform(link)
    return BackTransform(PROBABILITY_LINKS["logit"] if mean_range[1] == 1.0 else LogMean())
