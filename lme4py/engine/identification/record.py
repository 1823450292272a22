"""Which covariance parameters the data tell apart.

The covariance of the response moves along Z E_q Z' and W^-1. Its parameters are identified if and only if these are
linearly independent, seen through the projection M off X that the fixed effects leave of them; their Gram matrices
(`lme4py.engine.identification.gram`) have a null vector for each combination that is not. Such a combination leaves V
as it is: then only sums of the variances are determined, but the fixed effects, their standard errors, the likelihood
and fitted values are right. Or it changes V in a way that the fixed effects take up, so that standard errors of fixed
effects are not determined either; or it holds the residual variance. The last two are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from lme4py.linalg.types import BoolArray, FloatArray

__all__ = ["NOTHING", "Identification"]

# A change of a covariance below this part of what it is a sum of is none.
NOTHING = 1e-6
# Length of a trial step along a combination, relative to the largest variance; its cube is rounding beside its square.
_STEP = 1e-3


@dataclass(frozen=True)
class Identification:
    """What the data say about the covariance parameters of a model.

    Attributes
    ----------
    changes : tuple of tuple of ndarray, each (k, k)
        For each independent combination that cannot be seen, the change of the covariance matrix of each term, in the
        user's columns. Empty where all parameters are identified.
    sizes : the same shapes
        Sums of the absolute values that the changes are made of: rounding is small beside them.
    sentences : tuple of str
        For each set of terms that share variances, which they are, and what is determined.
    weak : tuple of str
        What the data tell apart by the shape of a distribution only.

    Examples
    --------
    >>> import warnings, lme4py
    >>> machines = lme4py.load_dataset("Machines")
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     fit = lme4py.lmer("score ~ Machine + (Machine || Worker)", machines).fit
    >>> fit.identification.complete, fit.identification.determined(0).tolist()
    (False, [[False]])
    """

    changes: tuple[tuple[FloatArray, ...], ...] = ()
    sizes: tuple[tuple[FloatArray, ...], ...] = ()
    sentences: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True when every covariance parameter is identified."""
        return not self.changes

    @property
    def n_redundant(self) -> int:
        """Parameters beyond those that can be told apart."""
        return len(self.changes)

    def determined(self, term: int) -> BoolArray | None:
        """Which elements of the covariance matrix of a term are determined, (k, k); None where all are."""
        if self.complete:
            return None
        pairs = zip(self.changes, self.sizes, strict=True)
        moved = [np.abs(change[term]) > NOTHING * size[term] for change, size in pairs]
        mask: BoolArray = ~np.any(moved, axis=0)
        return mask

    def estimated(self, covariances: Sequence[FloatArray]) -> tuple[BoolArray | None, ...]:
        """Which elements of the covariance matrices of all terms have a unique estimate, each (k, k) or None for all.

        These are the ones that are determined, and those that a boundary holds where they are: with (1 | g) and
        (0 + f | g), where the covariance matrix of the second is singular, its common part cannot move to the first.

        Parameters
        ----------
        covariances : sequence of ndarray, each (k, k)
            The estimates, on any scale.
        """
        held = [self._is_held(k, covariances) for k in range(len(self.changes))]
        free = [k for k, is_held in enumerate(held) if not is_held]
        rest = Identification(tuple(self.changes[k] for k in free), tuple(self.sizes[k] for k in free))
        return tuple(rest.determined(term) for term in range(len(covariances)))

    def _is_held(self, k: int, covariances: Sequence[FloatArray]) -> bool:
        """Whether no step along a combination, in either direction, leaves all covariance matrices what they are."""
        own = {t for t, moves in enumerate(self.moves(k)) if moves}
        others = (set(np.flatnonzero(self.moves(j)).tolist()) for j in range(len(self.changes)) if j != k)
        # Combinations that share terms could move together.
        if any(own & other for other in others):
            return False
        parts = []
        for t in own:
            unit = np.sqrt(self.sizes[k][t].diagonal())
            unit = np.outer(unit, unit)
            parts.append((covariances[t] / unit, self.changes[k][t] / unit))
        largest = max(float(np.abs(covariance).max()) for covariance, _ in parts) or 1.0
        step = _STEP * largest / max(float(np.abs(change).max()) for _, change in parts)
        return not any(
            all(np.linalg.eigvalsh(cov + sign * step * change)[0] >= -(_STEP**3) * largest for cov, change in parts)
            for sign in (1.0, -1.0)
        )

    def moves(self, k: int) -> list[bool]:
        """Whether combination k changes the covariance matrix of each term."""
        pairs = zip(self.changes[k], self.sizes[k], strict=True)
        return [bool((np.abs(change) > NOTHING * size).any()) for change, size in pairs]

    def splits(self, terms: Collection[int]) -> bool:
        """Whether these terms share a variance with others: then what belongs to them is not determined.

        Parameters
        ----------
        terms : collection of int
        """
        inside = [{t in terms for t in np.flatnonzero(self.moves(k)).tolist()} for k in range(len(self.changes))]
        return any(len(sides) == 2 for sides in inside)

    def masked(self, covariances: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
        """The covariance matrices of all terms with NaN for elements that have no unique estimate.

        Parameters
        ----------
        covariances : sequence of ndarray, each (k, k)
        """
        if self.complete:
            return tuple(covariances)
        masks = self.estimated(covariances)
        pairs = zip(masks, covariances, strict=True)
        return tuple(cov if mask is None else np.where(mask, cov, np.nan) for mask, cov in pairs)

    def determines(self, weights: Sequence[FloatArray | None]) -> bool:
        """Whether sum_t tr(K_t Sigma_t) is determined.

        Parameters
        ----------
        weights : sequence of ndarray (k, k) or None
            K of each term; None is zero.
        """
        for change, size in zip(self.changes, self.sizes, strict=True):
            parts = [(K, own, whole) for K, own, whole in zip(weights, change, size, strict=True) if K is not None]
            moved = sum(float(np.vdot(K, own)) for K, own, _ in parts)
            if abs(moved) > NOTHING * sum(float(np.vdot(np.abs(K), whole)) for K, _, whole in parts):
                return False
        return True
