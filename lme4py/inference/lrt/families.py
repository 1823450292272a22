"""Which generalised models a likelihood-ratio test may compare."""

from __future__ import annotations

from typing import Any

from lme4py.errors import OptionError
from lme4py.fits.generalised.fit import GeneralisedFit

__all__ = ["check_families", "differ_in_dispersion"]


def differ_in_dispersion(restricted: Any, full: Any) -> bool:
    """True for a Poisson model against a negative binomial one, which is Poisson where its dispersion vanishes.

    Parameters
    ----------
    restricted, full : Fit
    """
    if not isinstance(restricted, GeneralisedFit) or not isinstance(full, GeneralisedFit):
        return False
    return full.family.extends(restricted.family)


def check_families(restricted: GeneralisedFit, full: GeneralisedFit) -> None:
    """Refuse models whose likelihoods are not of one kind.

    Parameters
    ----------
    restricted, full : GeneralisedFit

    Raises
    ------
    OptionError
        Different families (but for `differ_in_dispersion`), links, quadrature, or weights of the Laplace approximation.
    """
    if restricted.family.name != full.family.name and not differ_in_dispersion(restricted, full):
        swapped = (
            f" {full.family.limiting_words} is the restricted one; it comes first."
            if differ_in_dispersion(full, restricted)
            else ""
        )
        raise OptionError(
            f"the models differ in family ({restricted.family.name} and {full.family.name}): they are not nested, so "
            f"that there is no likelihood-ratio test.{swapped or ' Compare their AIC, as in compare(first, second).'}"
        )
    for name, one, other in (
        ("link", restricted.family.link.name, full.family.link.name),
        ("nAGQ", restricted.nAGQ, full.nAGQ),
        ("hessian", restricted.hessian, full.hessian),
    ):
        if one != other:
            raise OptionError(
                f"the models differ in {name} ({one} and {other}), so that none is a special case of the other; use "
                "the same in both, or compare their AIC."
            )
