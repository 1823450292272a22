"""Which models a likelihood-ratio test may compare."""

from __future__ import annotations

from lme4py.errors import OptionError
from lme4py.fits.base import Approximation, Fit
from lme4py.inference.lrt.parts import check_parts

__all__ = ["check_families", "differ_in_dispersion"]


def differ_in_dispersion(restricted: Fit, full: Fit) -> bool:
    """True for a Poisson model against a negative binomial one, which is Poisson where its dispersion vanishes.

    Parameters
    ----------
    restricted, full : Fit
    """
    return full.family.extends(restricted.family)


def check_families(restricted: Fit, full: Fit) -> None:
    """Refuse models whose likelihoods are not of one kind.

    Parameters
    ----------
    restricted, full : Fit

    Raises
    ------
    OptionError
        Different families (but for `differ_in_dispersion`), links, quadrature, or weights of the Laplace approximation.
    """
    same = restricted.family.base_name == full.family.base_name
    if not same and not differ_in_dispersion(restricted, full):
        swapped = (
            f" {full.family.limiting_words} is the restricted one; it comes first."
            if differ_in_dispersion(full, restricted)
            else ""
        )
        raise OptionError(
            f"the models differ in family ({restricted.family.name} and {full.family.name}): they are not nested, so "
            f"that there is no likelihood-ratio test.{swapped or ' Compare their AIC, as in compare(first, second).'}"
        )
    if same:
        check_parts(restricted, full)
    for name, one, other in (
        ("link", restricted.family.link.name, full.family.link.name),
        *zip(Approximation._fields, restricted.approximation or (), full.approximation or (), strict=False),
    ):
        if one != other:
            raise OptionError(
                f"the models differ in {name} ({one} and {other}), so that none is a special case of the other; use "
                "the same in both, or compare their AIC."
            )
