"""Densities by name."""

from __future__ import annotations

import math
from typing import Any, Final

from lme4py.errors import OptionError, did_you_mean
from lme4py.families.densities.base import Density
from lme4py.families.densities.beta import Beta, OrderedBeta
from lme4py.families.densities.binomial import BetaBinomial, BinomialDensity
from lme4py.families.densities.conway_maxwell import ConwayMaxwellPoisson
from lme4py.families.densities.counts import CountDensity
from lme4py.families.densities.gamma import GammaDensity, InverseGaussianDensity
from lme4py.families.densities.gaussian import GaussianDensity
from lme4py.families.densities.generalised_poisson import GeneralisedPoisson
from lme4py.families.densities.lognormal import Lognormal
from lme4py.families.densities.negative_binomial import NegativeBinomial1Density, NegativeBinomial2Density
from lme4py.families.densities.poisson import PoissonDensity
from lme4py.families.densities.student import Student
from lme4py.families.densities.truncated import Truncated
from lme4py.families.densities.tweedie import Tweedie
from lme4py.families.densities.zeros import Hurdle, ZeroInflated
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean, PowerMean

__all__ = ["DENSITIES", "density_links", "make_density", "with_zeros"]

DENSITIES: Final[dict[str, type[Density]]] = {
    "gaussian": GaussianDensity,
    "t": Student,
    "gamma": GammaDensity,
    "inverse_gaussian": InverseGaussianDensity,
    "lognormal": Lognormal,
    "tweedie": Tweedie,
    "beta": Beta,
    "ordbeta": OrderedBeta,
    "binomial": BinomialDensity,
    "betabinomial": BetaBinomial,
    "poisson": PoissonDensity,
    "nbinomial": NegativeBinomial2Density,
    "nbinomial1": NegativeBinomial1Density,
    "compois": ConwayMaxwellPoisson,
    "genpois": GeneralisedPoisson,
}
_TRUNCATED: Final[dict[str, type[CountDensity]]] = {
    "truncated_poisson": PoissonDensity,
    "truncated_nbinomial": NegativeBinomial2Density,
    "truncated_nbinomial1": NegativeBinomial1Density,
    "truncated_compois": ConwayMaxwellPoisson,
    "truncated_genpois": GeneralisedPoisson,
}
_POWERS: Final = {"identity": 1.0, "sqrt": 2.0, "inverse": -1.0, "1/mu^2": -0.5}


def make_density(name: str, link: str | None = None) -> Density:
    """The family of a name, with one of its links.

    Parameters
    ----------
    name : str
    link : str, optional

    Raises
    ------
    OptionError
        For a name or a link that does not exist.

    Examples
    --------
    >>> make_density("beta", "probit").link
    Probit()
    >>> make_density("truncated_poisson").name
    'truncated_poisson'
    """
    known = (*DENSITIES, *_TRUNCATED)
    if name not in known:
        raise OptionError(f"there is no family {name!r}.{did_you_mean(name, known)} Use one of {', '.join(known)}.")
    if name in _TRUNCATED:
        base = _TRUNCATED[name]
        return Truncated(base(_link(base, name, link)))
    make = DENSITIES[name]
    return make(_link(make, name, link))


def density_links(name: str) -> tuple[str, ...]:
    """The links of a density, the default one first.

    Parameters
    ----------
    name : str
    """
    make: Any = _TRUNCATED.get(name) or DENSITIES[name]
    default = str(_fact(make, "default_link"))
    return (default, *(link for link in _fact(make, "links") if link != default))


def _word(make: type[Density], name: str, link: str | None) -> str:
    """The link asked for, or the default one."""
    links: tuple[str, ...] = _fact(make, "links")
    if link is None:
        return str(_fact(make, "default_link"))
    if link not in links:
        raise OptionError(
            f"the {name} family has no link {link!r}.{did_you_mean(link, links)} Use one of {', '.join(links)}."
        )
    return link


def _fact(make: type[Density], fact: str) -> Any:
    """A fact that the class states."""
    return getattr(make, fact)


def _link(make: type[Density], name: str, link: str | None) -> Link:
    word = _word(make, name, link)
    kind = _fact(make, "kind")
    if kind in ("trials", "proportion"):
        return PROBABILITY_LINKS[word]
    if word == "log":
        return LogMean()
    return PowerMean(word, _POWERS[word], low=-math.inf) if kind == "real" else PowerMean(word, _POWERS[word])


def with_zeros(family: Density) -> Density:
    """The family of a model with a ziformula: zero-inflated where it has zeros, a hurdle model where it has none.

    Examples
    --------
    >>> with_zeros(make_density("poisson")).name, with_zeros(make_density("truncated_poisson")).name
    ('zero_inflated_poisson', 'hurdle_truncated_poisson')
    """
    if isinstance(family, OrderedBeta):
        raise OptionError("the ordbeta family has zeros whose probability follows its cutpoints; leave ziformula out.")
    if isinstance(family, CountDensity):
        return ZeroInflated(family) if family.lowest == 0 else Hurdle(family)
    return ZeroInflated(family) if family.has_zeros else Hurdle(family)
