"""What is proved about the point where the optimiser stopped, and what it was compared with.

Gradient and Hessian prove a *local* minimum. Whether another one is lower can only be compared: with what descents from
other starts end in, and with values of the criterion elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from lme4py.linalg.types import FloatArray
from lme4py.text import Sentence

if TYPE_CHECKING:
    from lme4py.covariance import CovarianceStructures
    from lme4py.engine.identification.record import Identification

TermNames = Sequence[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Rival:
    """Something that the optimum was compared with: a start, another point, or the points of a scan.

    Attributes
    ----------
    what : str
        Such as "moments" or "within g"; for a scan, along which line.
    criterion : float
        The criterion there (-2 log-likelihood or REML criterion); of a scan the lowest value.
    reached : float or None
        Where the descent from this start ended; None for points that were only looked at.
    points : int
        How many points these are: more than 1 for a scan, 0 where the criterion was only predicted (by the working
        linear model of a generalised model).
    is_minimum : bool
        Whether the descent ended in a minimum; False where the criterion is flat there, as on its way to infinity.
    """

    what: str
    criterion: float
    reached: float | None = None
    points: int = 1
    is_minimum: bool = True

    def __str__(self) -> str:
        how = {0: " (predicted)", 1: ""}.get(self.points, f" ({self.points} points)")
        where = f"{self.what}{how}"
        end = "" if self.reached is None else f", from there down to {self.reached:.6f}"
        return f"{where} {self.criterion:.6f}{end}"


@dataclass(frozen=True, slots=True)
class MonteCarlo:
    """How well a criterion is known whose log-determinant is a mean over random probes.

    Attributes
    ----------
    criterion_se : float
        Standard error of the criterion.
    theta_se : tuple of float
        Of theta in the engine's columns, from the probes alone.
    theta_part : float
        The largest of them as a part of theta's own standard error.
    probes, directions : int
        Random ones, and those in which the log-determinant was computed exactly.
    iterations : int
        Most steps of conjugate gradients for one system.
    seed : int
    parameters : str
        What stands in `theta_se`: all parameters of generalised models, in the order of their search.
    by_factor : bool
        Whether the criterion at the estimates is that of a factor in tiles: `criterion_se` is then what rounding left.
    """

    criterion_se: float
    theta_se: tuple[float, ...]
    theta_part: float
    probes: int
    directions: int
    iterations: int
    seed: int
    parameters: str = "theta"
    by_factor: bool = False

    def __str__(self) -> str:
        exact = "; fixed effects given theta are exact" if self.parameters == "theta" else ""
        if self.by_factor:
            return (
                "The criterion at the estimates is that of an exact factor, known with a standard error of "
                f"{self.criterion_se:.1g} by rounding; {self.parameters} "
                f"{'was' if self.parameters == 'theta' else 'were'} found with {self.probes} random probes (seed "
                f"{self.seed}) beside {self.directions} exact directions, with {100.0 * self.theta_part:.2g} % of "
                f"{'its' if self.parameters == 'theta' else 'their'} standard errors{exact}"
            )
        return (
            f"The log-determinant is a mean over {self.probes} random probes (seed {self.seed}) beside "
            f"{self.directions} exact directions: the criterion is known with a standard error of "
            f"{self.criterion_se:.2g}, {self.parameters} with {100.0 * self.theta_part:.2g} % of "
            f"{'its' if self.parameters == 'theta' else 'their'} standard errors{exact}"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Certificate(Sentence):
    """What is proved about the optimum, from analytic gradients and a Hessian made of them, and what was compared.

    A local minimum is proved. That no other minimum is lower is not proved: it was compared with what `compared` lists.

    Attributes
    ----------
    gradient_norm : float
        sqrt(g' H^-1 g) on the scale of the criterion (-2 log-likelihood): free of units.
    min_eigenvalue : float
        Smallest eigenvalue of the Hessian of the criterion in the scaled relative covariance parameters, those above
        1 in units of their size; not below zero at a minimum, zero along a direction that the model does not identify.
    bound : float
        The criterion could still fall by at most about this much (half the squared `gradient_norm`).
    boundary_derivative : float or None
        At a singular fit the smallest one-sided derivative of the criterion in a variance that is zero
        (not negative at a minimum); None when no variance is zero.
    converged : bool
        ``bound < 1e-6`` and neither a direction of descent nor a boundary derivative below zero.
    is_singular : bool
        True when a covariance matrix of random effects has no full rank.
    singular : tuple of str
        A plain description of each variance or direction that is zero.
    verdict : str
        One sentence for people.
    compared : tuple of Rival
        The other starts and the scans that were compared; none of them led below the optimum.
    unidentified : tuple of str
        A plain description of each set of variances that no data of this design tell apart: the minimum is one point of
        many that are equally low. `converged` speaks of the criterion only.
    second : float or None
        How far above the optimum the next minimum that was found is, where an interval of 99 % could hold both.
    monte_carlo : MonteCarlo or None
        How well the criterion is known, where crossed effects are solved iteratively; None where it is exact.
    caution : str
        Why the minimum may not be the one that is wanted, although it is proved; else "". A fit warns of it.
    """

    gradient_norm: float
    min_eigenvalue: float
    bound: float
    boundary_derivative: float | None
    converged: bool
    is_singular: bool
    singular: tuple[str, ...]
    verdict: str
    compared: tuple[Rival, ...] = ()
    unidentified: tuple[str, ...] = ()
    second: float | None = None
    monte_carlo: MonteCarlo | None = None
    caution: str = ""

    @property
    def identified(self) -> bool:
        """True when the design determines every variance and covariance."""
        return not self.unidentified

    def __str__(self) -> str:
        compared = f" Compared: {'; '.join(map(str, self.compared))}." if self.compared else ""
        return (
            f"{self.verdict} Norm of the gradient {self.gradient_norm:.2g}, smallest eigenvalue of the Hessian "
            f"{self.min_eigenvalue:.3g}.{compared}"
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of the criterion during optimisation.

    Attributes
    ----------
    number : int
        1, 2, ...
    criterion : float
        -2 log-likelihood (ML) or REML criterion on the user's scale.
    gradient_norm : float
        Largest absolute element of the gradient in the scaled parameters.
    radius : float
        Trust-region radius at this point.
    accepted : bool
    theta : tuple of float
        Internal (scaled) relative covariance parameters.
    """

    number: int
    criterion: float
    gradient_norm: float
    radius: float
    accepted: bool
    theta: tuple[float, ...]


# The fit counts as converged when the criterion could fall by less than this.
CONVERGED = 1e-6
# Relative standard deviations below this make a fit singular (the tolerance users know from lme4).
SINGULAR = 1e-4
# Minima closer than the first are one; one further above than the second is outside every interval of 99 %.
SAME, EXCLUDED = 1e-4, 6.64


def with_estimate(
    singular: Mapping[int, tuple[str, ...]],
    identification: Identification,
    T: Sequence[FloatArray],
    S: Sequence[FloatArray],
) -> tuple[str, ...]:
    """The descriptions of terms whose covariances have a unique estimate; what others look like is chance.

    Parameters
    ----------
    singular : dict
        Of `describe_singular`.
    identification : Identification
    T, S : sequence of ndarray, each (k, k)
        Relative covariance factors, and columns inside are Z S.
    """
    if identification.complete:
        return tuple(chain.from_iterable(singular.values()))
    roots = [s @ t for s, t in zip(S, T, strict=True)]
    known = identification.masked([root @ root.T for root in roots])
    return tuple(text for term, texts in singular.items() if not np.isnan(known[term]).any() for text in texts)


def describe_singular(
    structures: CovarianceStructures, S: Sequence[FloatArray], theta: FloatArray, names: TermNames
) -> dict[int, tuple[str, ...]]:
    """What is on the boundary in each term, in words, by its position."""
    own = zip(structures.each, structures.split(theta), S, names, strict=True)
    found = (structure.boundary(theta, *name, scale, SINGULAR) for structure, theta, scale, name in own)
    return {term: texts for term, texts in enumerate(found) if texts}


def describe_limits(
    structures: CovarianceStructures, theta: FloatArray, names: TermNames, singular: Mapping[int, object]
) -> str:
    """Sentences about parameters that have run to where they no longer matter, such as a smoothness without bound.

    Parameters
    ----------
    structures : CovarianceStructures
    theta : ndarray, shape (m,)
    names : sequence of (label, column names), one per term
    singular : mapping
        Terms on the boundary, of which that has been said.
    """
    own = enumerate(zip(structures.each, structures.split(theta), names, strict=True))
    found = [text for t, (each, part, name) in own if t not in singular for text in each.limits(part, name[0])]
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in found)


def verdict(
    what: str,
    converged: bool,
    bound: float,
    descends: bool,
    singular: Sequence[str],
    compared: Sequence[Rival] = (),
    unidentified: Sequence[str] = (),
    value: float = np.inf,
) -> str:
    """One sentence for people, and another where variances are not identified.

    Parameters
    ----------
    what : str
        What was minimised, as in "the REML criterion".
    converged, descends : bool
    bound : float
    singular, compared, unidentified : sequence
        As in `Certificate`.
    value : float
        The criterion at the minimum, to say how far above another one is.
    """
    first = _reached(what, converged, bound, descends, singular, _compared(compared, value))
    return f"{first} {describe_unidentified(unidentified)}" if unidentified else first


def describe_unidentified(sentences: Sequence[str]) -> str:
    """What it means that variances are not identified, in words.

    Parameters
    ----------
    sentences : sequence of str
        Of `Identification`.
    """
    return (
        f"Not every variance is identified: {'; '.join(sentences)}. What has no unique estimate is given as NaN; fixed "
        "effects, fitted values and the likelihood do not depend on it. Take a term, or columns, out to have variances "
        "that the data determine."
    )


def _reached(
    what: str,
    converged: bool,
    bound: float,
    descends: bool,
    singular: Sequence[str],
    compared: str,
) -> str:
    """Whether a minimum was reached, and what for one; `compared` in words."""
    if not converged:
        why = "it still falls in some direction" if descends else f"it could still fall by about {bound:.1g}"
        return (
            f"Not converged: {what} is not at its minimum ({why}); do not use these estimates. Simplify the "
            "random effects, or give other starting values (`start=`) or more evaluations "
            "(`control={'max_evaluations': 1000}`)."
        )
    room = f"at most {bound:.0e}" if bound >= 1e-12 else "less than 1e-12"
    proved = f"a local minimum of {what} is proved (it could fall by {room}); {compared}"
    if not singular:
        return f"Converged: {proved}."
    # Without a comparison nobody knows whether the criterion is lower elsewhere, with a variance that is not zero.
    without = "" if compared == _NOTHING else "; a model without it fits as well"
    return (
        f"Converged to a singular fit ({'; '.join(singular)}): {proved}. The data do not support this part of the "
        f"random effects{without}."
    )


_NOTHING = "no other start was compared"


def _compared(compared: Sequence[Rival], value: float) -> str:
    """What was compared, in words: "compared with 2 other starts and 9 other points, none lower"."""
    if not compared:
        return _NOTHING
    starts = sum(one.reached is not None for one in compared)
    points = sum(one.points for one in compared if one.reached is None)
    counts = (starts, "other start"), (points, "other point")
    parts = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count]
    parts += [f"a prediction {one.what}" for one in compared if not one.points]
    second = second_minimum(compared, value)
    also = (
        ""
        if second is None
        else (
            f", but another minimum is only {second:.2g} above: standard errors know nothing of it, "
            "`conf_int(method='profile')` does"
        )
    )
    return f"compared with {' and '.join(parts)}, none lower{also}"


def second_minimum(compared: Sequence[Rival], value: float) -> float | None:
    """How far above a minimum the next one is; None where none was found, or none that the data hardly exclude.

    Parameters
    ----------
    compared : sequence of Rival
    value : float
        The criterion at the minimum.
    """
    rises = [one.reached - value for one in compared if one.reached is not None and one.is_minimum]
    return min((rise for rise in rises if SAME < rise < EXCLUDED), default=None)
