"""The priors of a linear mixed model, term by term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lme4py.errors import OptionError

if TYPE_CHECKING:
    from lme4py.design.design import Design
    from lme4py.priors.covariance import CovariancePrior
    from lme4py.priors.fixed import Quadratic, ResidualPrior

__all__ = ["LinearPriors", "linear_priors"]


@dataclass(frozen=True)
class LinearPriors:
    """The priors of a linear mixed model, on the user's scale.

    Attributes
    ----------
    covariance : tuple of (CovariancePrior or None)
        By term.
    fixed : Quadratic or None
        Of beta.
    residual : ResidualPrior or None
    """

    covariance: tuple[CovariancePrior | None, ...]
    fixed: Quadratic | None
    residual: ResidualPrior | None


def linear_priors(design: Design) -> LinearPriors | None:
    """The priors of a design; None without any.

    Parameters
    ----------
    design : Design

    Raises
    ------
    OptionError
        Jeffreys' prior, which is flat in a linear model.
    """
    priors = design.priors
    if priors is None:
        return None
    fixed = None if priors.fixed is None else priors.fixed.quadratic(design.x_names)
    if priors.fixed is not None and fixed is None:
        raise OptionError("fixef_prior='jeffreys' is flat in a linear model; it is for glmer().")
    return LinearPriors(tuple(priors.of_term(term) for term in design.terms), fixed, priors.residual)
