"""Which prior each part of a model has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.design.names import INTERCEPTS
from lme4py.errors import OptionError, did_you_mean
from lme4py.priors.covariance import CovariancePrior
from lme4py.priors.fixed import FixedPrior, PointPrior, ResidualPrior
from lme4py.priors.text import read_covariance, read_fixed, read_residual

if TYPE_CHECKING:
    from lme4py.design.design import Design, RandomTerm

__all__ = ["Priors", "read_priors", "refuse_fixed", "with_priors"]


@dataclass(frozen=True)
class Priors:
    """The priors of a model, by the names of what they are of.

    Attributes
    ----------
    covariance : mapping of str to CovariancePrior or None
        By grouping factor or label of a term.
    default : CovariancePrior or None
        Of all other terms.
    fixed : FixedPrior or None
    residual : ResidualPrior or None
    text : str
        As the user gave them.
    """

    covariance: Mapping[str, CovariancePrior | None]
    default: CovariancePrior | None = None
    fixed: FixedPrior | None = None
    residual: ResidualPrior | None = None
    text: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is penalised."""
        covariances = [prior for prior in (*self.covariance.values(), self.default) if prior is not None]
        return not covariances and self.fixed is None and self.residual is None

    def of_term(self, term: RandomTerm) -> CovariancePrior | None:
        """The prior of a random-effects term.

        Parameters
        ----------
        term : RandomTerm
        """
        if term.smooth:
            return None
        for name in (term.label, term.group):
            if name in self.covariance:
                return self.covariance[name]
        return self.default


def read_priors(cov_prior: Any, fixef_prior: Any, resid_prior: Any = None) -> tuple[Priors | None, float | None]:
    """The priors as a user gives them, and a residual standard deviation that they hold (``point``).

    Parameters
    ----------
    cov_prior : object
        Text or object for all terms, a dict from grouping factors or terms, or a list of ``"g ~ wishart"``.
    fixef_prior, resid_prior : object

    Raises
    ------
    OptionError
    """
    covariance, default = _by_name(cov_prior)
    residual = read_residual(resid_prior)
    sigma = residual.sigma if isinstance(residual, PointPrior) else None
    given = {"cov_prior": cov_prior, "fixef_prior": fixef_prior, "resid_prior": resid_prior if sigma is None else None}
    text = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    own = None if isinstance(residual, PointPrior) else residual
    priors = Priors(covariance, default, read_fixed(fixef_prior), own, text)
    return (None if priors.is_empty else priors), sigma


def _by_name(given: Any) -> tuple[dict[str, CovariancePrior | None], CovariancePrior | None]:
    if isinstance(given, Mapping):
        return {str(name): read_covariance(value) for name, value in given.items()}, None
    found: dict[str, CovariancePrior | None] = {}
    default: CovariancePrior | None = None
    for one in given if isinstance(given, list | tuple) else [given]:
        name, tilde, prior = one.partition("~") if isinstance(one, str) else ("", "", one)
        if tilde:
            found[name.strip()] = read_covariance(prior.strip())
        else:
            default = read_covariance(one)
    return found, default


def refuse_fixed(priors: Priors | None, names: Collection[str], coefficients: Collection[str]) -> None:
    """Refuse priors of parameters that the user holds; coefficients may be held beside priors of variances.

    Parameters
    ----------
    priors : Priors or None
    names : collection of str
        Of what is held.
    coefficients : collection of str
        Names of the fixed effects.

    Raises
    ------
    OptionError
    """
    if priors is None:
        return
    free = {"sigma"} | (set() if priors.fixed is not None else {*coefficients, *INTERCEPTS})
    held = [name for name in names if name not in free]
    if held:
        what = "sigma" if priors.fixed is not None else "sigma and coefficients"
        raise OptionError(
            f"{priors.text} goes with no fix= of {', '.join(held)}, only with that of {what}: what a prior says of a "
            "parameter that is held, or of those beside it, is not defined; leave one of them out."
        )


def with_priors(design: Design, priors: Priors | None) -> Design:
    """The design with priors that fit its terms and coefficients.

    Parameters
    ----------
    design : Design
    priors : Priors or None

    Raises
    ------
    OptionError
        A prior of something that the model does not have, or that it cannot have.
    """
    if priors is None:
        return design
    if len(design.predictors) > 1:
        raise OptionError(
            f"{priors.text} is for models of one linear predictor; leave it out, or ziformula= and dispformula=."
        )
    _check_names(priors, design.terms)
    for term in design.terms:
        prior = priors.of_term(term)
        if prior is not None:
            prior.check(term.n_columns, term.label)
            _check_rank(prior, term)
    if priors.fixed is None and priors.residual is None and all(priors.of_term(term) is None for term in design.terms):
        raise OptionError(f"{priors.text} has nothing to penalise: the model has no random effects that it is of.")
    if priors.fixed is not None:
        priors.fixed.quadratic(design.x_names)
    note = f"penalised by {priors.text}: estimates are posterior modes, not maxima of the likelihood"
    return replace(design, priors=priors, notes=(*design.notes, note))


def _check_names(priors: Priors, terms: Sequence[RandomTerm]) -> None:
    known = dict.fromkeys(name for term in terms if not term.smooth for name in (term.group, term.label))
    for name in priors.covariance:
        if name not in known:
            raise OptionError(
                f"cov_prior names {name!r}, which is no grouping factor or term.{did_you_mean(name, list(known))} They "
                f"are {', '.join(known) or 'none'}."
            )


def _check_rank(prior: CovariancePrior, term: RandomTerm) -> None:
    """Refuse a prior whose density is zero for every covariance that a term can have, as of reduced rank."""
    structure = term.structure
    T = structure.factor(structure.generic())
    if not np.isfinite(prior.evaluate(T @ T.T).value):
        raise OptionError(
            f"the prior of {term.label} has no density where its covariance matrix has less than full rank, and that "
            f"of the structure {structure.name!r} never has it; leave the term out of cov_prior."
        )
