"""Numbers that are computed from a fit once, when they are first asked for, and kept with it.

A fit is a record; what follows from it (second derivatives, leverages, tests) costs time and is often asked for twice.
Each such number is declared by `derived` where it is computed, and is its own key: there are no names to agree on, and
the type of what is kept is that of the function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from lme4py.engine.threads import limited_threads
from lme4py.frozen import freeze

if TYPE_CHECKING:
    from lme4py.fits.base import Fit

__all__ = ["Derived", "DerivedNumber", "derived"]

F = TypeVar("F", bound="Fit")
T = TypeVar("T")


class Derived:
    """The numbers that were derived from one fit so far.

    Those that were put here by `keep` survive copying and pickling: a fit without its rows cannot make them again.
    """

    __slots__ = ("_kept", "_values")

    def __init__(self) -> None:
        self._values: dict[DerivedNumber[Any, Any], Any] = {}
        self._kept: dict[DerivedNumber[Any, Any], Any] = {}

    def known(self, number: DerivedNumber[Any, Any]) -> bool:
        """Whether a number has been made."""
        return number in self._kept or number in self._values

    def get(self, number: DerivedNumber[F, T], fit: F) -> T:
        """A number, made when it is not known.

        Parameters
        ----------
        number : DerivedNumber
        fit : Fit
            The one that these numbers are derived from.

        Returns
        -------
        object
            Read-only.
        """
        for values in (self._kept, self._values):
            if number in values:
                found: T = values[number]
                return found
        with limited_threads(fit.design):
            made = freeze(number.make(fit))
        # Two threads may both have made it; the first one counts.
        value: T = self._values.setdefault(number, made)
        return value

    def take(self, other: Derived) -> None:
        """Take over the numbers that were derived from another record of the same fit.

        Parameters
        ----------
        other : Derived
        """
        self._values.update(other._values)
        self._kept.update(other._kept)

    def keep(self, number: DerivedNumber[F, T], value: T) -> None:
        """Put a number here for good.

        Parameters
        ----------
        number : DerivedNumber
        value : object
        """
        self._kept[number] = freeze(value)

    def __getstate__(self) -> dict[DerivedNumber[Any, Any], Any]:
        return self._kept

    def __setstate__(self, state: dict[DerivedNumber[Any, Any], Any]) -> None:
        self._values, self._kept = {}, freeze(state)


class DerivedNumber(Generic[F, T]):
    """A function of a fit whose value is kept with the fit; see `derived`."""

    def __init__(self, make: Callable[[F], T]) -> None:
        functools.update_wrapper(self, make)
        self.make = make

    def __call__(self, fit: F) -> T:
        return fit.derived.get(self, fit)

    def known(self, fit: Fit) -> bool:
        """Whether it has been computed for this fit.

        Parameters
        ----------
        fit : Fit

        Returns
        -------
        bool
        """
        return fit.derived.known(self)

    @overload
    def __get__(self, instance: None, owner: type) -> DerivedNumber[F, T]: ...
    @overload
    def __get__(self, instance: Fit, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: type) -> DerivedNumber[F, T] | T:
        return self if instance is None else self(instance)

    def __reduce__(self) -> str:
        # Found again by its name, as functions are.
        return self.make.__qualname__

    def __repr__(self) -> str:
        return f"<derived number {self.make.__qualname__}>"


def derived(make: Callable[[F], T]) -> DerivedNumber[F, T]:
    """Declare a number that is computed once for each fit.

    As a method of a fit it is a property; as a function it is called with the fit.

    Parameters
    ----------
    make : callable
        From the fit to the number.

    Returns
    -------
    DerivedNumber

    Examples
    --------
    >>> from lme4py import lmer, load_dataset
    >>> @derived
    ... def total_variance(fit: Fit) -> float:
    ...     print("computed")
    ...     return fit.sigma**2 + sum(float(cov.trace()) for cov in fit.covariances)
    >>> fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).fit
    >>> total_variance(fit) == total_variance(fit)
    computed
    True
    """
    return DerivedNumber(make)
