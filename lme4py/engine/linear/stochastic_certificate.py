"""What is proved of a minimum that was found by probes, and what has to hold before one is looked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from lme4py.engine.certificate import CONVERGED, Certificate, MonteCarlo
from lme4py.engine.identification.record import Identification
from lme4py.engine.linear.stochastic_solve import THETA_PART, NothingProved, StochasticOptimum

__all__ = ["certify_stochastic", "need_all"]


def need_all(identification: Identification) -> None:
    """Refuse models whose variances no data tell apart.

    Parameters
    ----------
    identification : Identification

    Raises
    ------
    NothingProved
    """
    if not identification.complete:
        raise NothingProved(
            f"not every variance is identified: {'; '.join(identification.sentences)}; the iterative block needs all "
            "of them. Take a term out, or use control={'block': 'exact'}."
        )


def certify_stochastic(
    optimum: StochasticOptimum[Any], what: str, n_theta: int, wanted: float, beside: str = ""
) -> Certificate:
    """The certificate of a fit whose crossed effects were solved iteratively.

    Parameters
    ----------
    optimum : StochasticOptimum
    what : str
        What was minimised, as in "the REML criterion".
    n_theta : int
        How many of the parameters are covariance parameters.
    wanted : float
        Standard error of the criterion.
    beside : str
        A sentence of caution, or "".
    """
    point, parameters = optimum.point, optimum.point.theta.copy()
    units = np.ones(parameters.size)
    units[:n_theta] = np.maximum(1.0, np.abs(parameters[:n_theta]))
    lowest = float(np.linalg.eigvalsh(units[:, None] * point.information * units)[0])
    converged = optimum.fall < CONVERGED and lowest > 0.0 and not optimum.interrupted
    if converged:
        first = (
            f"Converged: the gradient of {what} vanishes (it could fall by {max(optimum.fall, 1e-12):.0e}) where its "
            "average information is positive definite; no other start was compared."
        )
    elif optimum.interrupted:
        first = (
            f"Not converged: the search was interrupted after {len(optimum.log)} evaluations, where {what} could still "
            f"fall by about {optimum.fall:.1g}; do not use these estimates."
        )
    else:
        first = (
            f"Not converged: {what} is not at its minimum (it could still fall by about {optimum.fall:.1g}); do not "
            "use these estimates. Give other starting values (`start=`), or use control={'block': 'exact'}."
        )
    return Certificate(
        gradient_norm=float(np.sqrt(2.0 * optimum.fall)),
        min_eigenvalue=lowest,
        bound=optimum.fall,
        boundary_derivative=None,
        converged=converged,
        is_singular=False,
        singular=(),
        verdict=f"{first} Crossed effects were solved iteratively. {optimum.monte_carlo}.",
        monte_carlo=optimum.monte_carlo,
        caution=" ".join(filter(None, [beside, _caution(optimum.monte_carlo, wanted)])),
    )


def _caution(found: MonteCarlo, wanted: float) -> str:
    """That the most directions and probes were not enough."""
    if found.criterion_se <= wanted and found.theta_part <= THETA_PART:
        return ""
    return (
        f"{found.directions} directions and {found.probes} probes leave the criterion a standard error of "
        f"{found.criterion_se:.2g} ({wanted:g} was wanted) and {found.parameters} one of "
        f"{100.0 * found.theta_part:.2g} % of its own; exact_criterion() gives the criterion where a factor fits into "
        "memory."
    )
