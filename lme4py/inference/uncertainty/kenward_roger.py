"""Scale and degrees of freedom of Kenward and Roger's F statistic of several rows, with their limits.

Kenward and Roger (1997, section 3) choose lambda and m such that lambda F has the first two moments of an F variable
with q and m degrees of freedom. With A1 = sum W_ij tr(G_i) tr(G_j) and A2 = sum W_ij tr(G_i G_j), where G_i are the
derivatives of the standardised covariance of the rows and W is the covariance of the variance parameters,

    mean = 1 / (1 - a),    variance = (2 / q) (1 + c1 B) / ((1 - c2 B)^2 (1 - c3 B)),    a = A2 / q,

and c1, c2, c3 are such that two cases are exact: the F test of a balanced analysis of variance (A1 = q A2) and
Hotelling's test (A1 = 2 A2 / (q + 1)). In both, 1 - a and D = 1 - c2 B are the same number; with two denominator
degrees of freedom it is zero, and lambda is 0 / 0 as it is published. What is left after the two are cancelled is
regular. Their difference,

    D - (1 - a) = -a (q A2 - A1) ((q + 1) A1 - 2 A2) / (2 A2 ((3 q^2 + 10 q + 12) A2 - 2 (q + 1) A1)),

is therefore computed by itself, and q A2 - A1 from the parts of G_i that are no multiple of the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lme4py.linalg.types import FloatArray

__all__ = ["FScale", "f_scale"]

# A difference of the two poles below this is rounding.
_EXACT = 1e-9
# Where the difference of the poles changes the denominator of the scale by more than this part, it decides the scale.
_FAR = 0.5


@dataclass(frozen=True, slots=True)
class FScale:
    """lambda and m: lambda times the Wald statistic over q is compared with F(q, m).

    Attributes
    ----------
    scale : float
        lambda; NaN where the moments that are matched do not exist, or lambda or m would not be positive.
    den_df : float
        m, or NaN with `scale`.
    is_sound : bool
        The moments exist and determine the scale.
    """

    scale: float
    den_df: float
    is_sound: bool


_NONE = FScale(np.nan, np.nan, False)


def f_scale(changes: FloatArray, W: FloatArray) -> FScale:
    """Kenward and Roger's lambda and m for a test of q > 1 rows.

    Parameters
    ----------
    changes : ndarray, shape (s, q, q)
        Derivatives of the covariance of the rows in the variance parameters, in units in which it is the identity.
    W : ndarray, shape (s, s)
        Asymptotic covariance of the variance parameters.

    Examples
    --------
    Two rows whose variance has 2 degrees of freedom, as in a split plot of two blocks and three treatments:

    >>> import numpy as np
    >>> f_scale(np.eye(2)[None], np.array([[1.0]]))
    FScale(scale=1.0, den_df=2.0, is_sound=True)
    """
    q = changes.shape[1]
    traces = np.trace(changes, axis1=1, axis2=2)
    uneven = changes - (traces / q)[:, None, None] * np.eye(q)
    A1 = float(traces @ W @ traces)
    # q A2 - A1 is not negative; without cancellation it is zero up to the square of the rounding of the changes.
    excess = q * max(float(np.einsum("st,sqr,trq->", W, uneven, uneven)), 0.0)
    A2 = (A1 + excess) / q
    if A2 <= 0.0:
        return FScale(1.0, np.inf, True)
    return _moments(q, A1, A2, excess)


def _moments(q: int, A1: float, A2: float, excess: float) -> FScale:
    a, B = A2 / q, (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    whole = 3.0 * q + 2.0 * (1.0 - g)
    N, E = 1.0 + g / whole * B, 1.0 - (q + 2 - g) / whole * B
    both = (q + 2) / whole * B  # N - E
    limit = (4.0 * N + (q - 2) * E) / (q + 2)
    gap = a * excess * ((q + 1) * A1 - 2.0 * A2) / (2.0 * A2 * ((3 * q * q + 10 * q + 12) * A2 - 2 * (q + 1) * A1))
    if abs(gap) <= _EXACT * max(a, 1.0):
        return _positive(limit, _ratio((q + 2) * limit, both), True)
    D = 1.0 - a - gap
    if a >= 1.0 or D <= 0.0:
        return _NONE
    ratio = (1.0 - a) / D
    bend = gap * (1.0 - a + D) / D**2  # ratio^2 - 1
    top = 4.0 * ratio**2 * N + (q - 2) * E
    # E is ((q + 2) D - 2 N) / q, by which D cancels in the scale; what is left has no limit at D = 0.
    beside = 2.0 * N * bend / D
    return _positive(_ratio(ratio * top, q + 2 + beside), _ratio(top, both + N * bend), abs(beside) < _FAR * (q + 2))


def _positive(scale: float, den_df: float, is_sound: bool) -> FScale:
    return FScale(scale, den_df, is_sound) if scale > 0.0 and den_df > 0.0 else _NONE


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom != 0.0 else np.nan
