"""Response families by name.

A `Family` holds the log-likelihood l_i(eta, lambda) of one row with all constants, and the derivatives that
the Laplace criterion and its gradient need; lambda is the log of the dispersion parameter.

| family           | variance, weight 1 | exp(lambda)   | glmmTMB sigma   | Stata                               |
| ---------------- | ------------------ | ------------- | --------------- | ----------------------------------- |
| binomial         | m mu (1 - mu)      | none          | 1               |                                     |
| poisson          | mu                 | none          | 1               |                                     |
| gaussian         | sigma^2            | sigma^2       | sigma           | var(e.y) = sigma^2                  |
| gamma            | phi mu^2           | phi = 1/shape | sqrt(phi)       |                                     |
| inverse_gaussian | phi mu^3           | phi           | (has none)      |                                     |
| nbinomial (NB-2) | mu + mu^2 / theta  | theta         | theta (nbinom2) | dispersion(mean): alpha = 1/theta   |
| nbinomial1       | mu (1 + alpha)     | alpha         | alpha (nbinom1) | dispersion(constant): delta = alpha |

Prior weights w: for binomial, poisson and the negative binomials the log-likelihood of the row is multiplied by
w (as in lme4 and glmmTMB); gaussian, gamma and inverse_gaussian have the dispersion phi / w (as in R's ``glm``
and in ``lmer``; glmmTMB multiplies there too).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from lme4py.errors import OptionError, did_you_mean
from lme4py.families.base import Family
from lme4py.families.categories.multinomial import Multinomial
from lme4py.families.densities.base import Density
from lme4py.families.density_family import DensityFamily
from lme4py.families.distributions import (
    Binomial,
    Gamma,
    Gaussian,
    InverseGaussian,
    Poisson,
)
from lme4py.families.links import PROBABILITY_LINKS, Link, LogMean, MeanLink, PowerMean
from lme4py.families.negative_binomial import NegativeBinomial1, NegativeBinomial2, NegativeBinomialGiven
from lme4py.families.ordered.ordinal import Ordinal
from lme4py.families.parts import ZERO_INFLATION, PartsFamily

__all__ = ["FAMILIES", "Family", "family_with_parts", "family_with_zeros", "make_family", "response_family"]

_POWERS: Final = {"identity": 1.0, "sqrt": 2.0, "inverse": -1.0, "1/mu^2": -0.5}

# Class and links of each family; the first link listed is the default.
FAMILIES: Final[dict[str, tuple[type[Family], tuple[str, ...]]]] = {
    "gaussian": (Gaussian, ("identity", "log", "inverse", "sqrt", "logit")),
    "binomial": (Binomial, ("logit", "probit", "cloglog", "loglog", "cauchit", "log", "identity")),
    "poisson": (Poisson, ("log", "sqrt", "identity")),
    "gamma": (Gamma, ("log", "inverse", "identity")),
    "inverse_gaussian": (InverseGaussian, ("log", "1/mu^2", "inverse", "identity")),
    "nbinomial": (NegativeBinomial2, ("log", "sqrt", "identity")),
    "nbinomial1": (NegativeBinomial1, ("log", "sqrt", "identity")),
}

# Families made of densities.
_DENSITIES: Final = (
    "beta",
    "betabinomial",
    "compois",
    "genpois",
    "lognormal",
    "t",
    "tweedie",
)
# Families whose link leads to something else than the mean: that of proportions between 0 and 1, or before truncation.
_BEYOND_LINKS: Final = ("ordbeta",)
_TRUNCATED: Final = ("truncated_poisson", "truncated_nbinomial", "truncated_nbinomial1", "truncated_compois")

_ALIASES: Final = {
    "normal": "gaussian",
    "bernoulli": "binomial",
    "inverse.gaussian": "inverse_gaussian",
    "inversegaussian": "inverse_gaussian",
    "negbin": "nbinomial",
    "nbinom": "nbinomial",
    "nbinom2": "nbinomial",
    "negative_binomial": "nbinomial",
    "nbinom1": "nbinomial1",
    "beta_family": "beta",
    "t_family": "t",
    "truncated_nbinom2": "truncated_nbinomial",
    "truncated_nbinom1": "truncated_nbinomial1",
    "student": "t",
    "student_t": "t",
}


def make_family(family: str | Family, link: str | None = None) -> Family:
    """A response family with its link.

    Parameters
    ----------
    family : str or Family
        gaussian, binomial, poisson, gamma, inverse_gaussian, nbinomial (NB-2; also negbin, nbinom2) or
        nbinomial1 (NB-1; also nbinom1). Upper and lower case are the same. "nbinomial(1.5)" is NB-2 with a known shape.
    link : str, optional
        One of the family's links; the default is identity for gaussian, logit for binomial, and log for all
        others. R's own default is inverse for gamma and 1/mu^2 for the inverse Gaussian: name these to have them.

    Returns
    -------
    Family

    Raises
    ------
    OptionError
        For a family that does not exist, or a link that the family does not have.

    Examples
    --------
    >>> make_family("binomial").link.name, make_family("Gamma", "inverse").link.name
    ('logit', 'inverse')
    >>> make_family("poisson", "probit")
    Traceback (most recent call last):
        ...
    lme4py.errors.OptionError: the poisson family has no link 'probit'; use one of 'log', 'sqrt', 'identity'
    """
    if isinstance(family, Family):
        if link is None or link == family.link.name:
            return family
        if FAMILIES.get(family.name, (type(family),))[0] is not type(family):
            raise OptionError(
                f"`family` is the {family.name} family with the {family.link.name} link; leave out `link`."
            )
        family = family.name
    given = _given_shape(family)
    if given is not None:
        own = _link_name("nbinomial", link, FAMILIES["nbinomial"][1])
        return NegativeBinomialGiven(_make_mean_link("nbinomial", own), given)
    name = _family_name(family)
    if name == Multinomial.name:
        _link_name(name, link, ("logit",))
        return Multinomial()
    if name not in FAMILIES:
        # Thirty modules, which most models need none of.
        from lme4py.families.densities.registry import density_links, make_density

        density = make_density(name, _link_name(name, link, density_links(name)))
        return DensityFamily(density) if name in _DENSITIES else PartsFamily(density, ())
    kind, links = FAMILIES[name]
    return kind(_make_link(name, _link_name(name, link, links)))


def _given_shape(family: object) -> float | None:
    """The shape in "nbinomial(1.5)", or in R's "negative.binomial(theta = 1.5)"; None for other names."""
    if not isinstance(family, str) or "(" not in family:
        return None
    found = re.fullmatch(r"\s*([\w.]+)\s*\(\s*(?:(?:shape|theta)\s*=\s*)?([^)=]+?)\s*\)\s*", family)
    name = "" if found is None else found[1].lower().replace(".", "_")
    if found is None or _ALIASES.get(name, name) != "nbinomial":
        return None
    try:
        shape = float(found[2])
    except ValueError:
        shape = np.nan
    if not 0.0 < shape < np.inf:
        raise OptionError(f"family={family!r} gives no shape; write a positive number, as in 'nbinomial(1.5)'.")
    return shape


def response_family(family: str | Family) -> Family:
    """The family that reads a response: of a name, "ordinal" among them, or the one given.

    Parameters
    ----------
    family : str or Family

    Examples
    --------
    >>> response_family("ordinal").has_thresholds
    True
    """
    if family == Ordinal.name:
        return Ordinal(PROBABILITY_LINKS[Ordinal.default_link])
    return make_family(family)


def _family_name(family: object) -> str:
    if not isinstance(family, str):
        listed = _listed([*FAMILIES, *_DENSITIES, *_BEYOND_LINKS, *_TRUNCATED, Multinomial.name])
        raise OptionError(f"`family` is of type {type(family).__name__}; give its name, one of {listed}")
    name = family.strip().lower()
    name = _ALIASES.get(name, name)
    known = [*FAMILIES, *_DENSITIES, *_BEYOND_LINKS, *_TRUNCATED, Multinomial.name]
    if name not in known:
        raise OptionError(
            f"there is no family {family!r}.{did_you_mean(name, [*known, *_ALIASES])} Use one of {_listed(known)}"
        )
    return name


def _link_name(family: str, link: object, links: tuple[str, ...]) -> str:
    if link is None:
        return links[0]
    name = link.strip().lower() if isinstance(link, str) else ""
    if name not in links:
        hint = did_you_mean(name, links)
        raise OptionError(
            f"the {family} family has no link {link!r}{'.' + hint + ' Use' if hint else '; use'} one of "
            f"{_listed(links)}"
        )
    return name


def _make_link(family: str, link: str) -> Link:
    of_probability = family == "binomial" or link == "logit"
    return PROBABILITY_LINKS[link] if of_probability else _make_mean_link(family, link)


def _make_mean_link(family: str, link: str) -> MeanLink:
    if link == "log":
        return LogMean()
    if family == "gaussian" or link == "sqrt":
        # mu = eta^2 is a mean on both sides of 0, as R's sqrt link has it.
        return PowerMean(link, _POWERS[link], low=-np.inf)
    return PowerMean(link, _POWERS[link])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def family_with_zeros(family: Family) -> Family:
    """The family that reads the response of a model with a zero part.

    Parameters
    ----------
    family : Family
    """
    from lme4py.families.densities.registry import with_zeros

    return DensityFamily(with_zeros(_density_of(family)))


def family_with_parts(
    family: Family, parts: Sequence[tuple[str, tuple[str, ...]]], stacked: Sequence[str] = ()
) -> Family:
    """The family of a model with further linear predictors.

    Parameters
    ----------
    family : Family
        That of the conditional part.
    parts : sequence of (str, tuple of str)
        Name of each predictor and of its columns.
    stacked : sequence of str
        Names of those that have random effects.

    Raises
    ------
    OptionError
        The family has no such part.

    Examples
    --------
    >>> family_with_parts(make_family("poisson"), [("zero_inflation", ("Intercept",))]).name
    'zero_inflated_poisson'
    """
    from lme4py.families.densities.registry import with_zeros

    density = _density_of(family)
    if any(name == ZERO_INFLATION for name, _ in parts):
        density = with_zeros(density)
    for name, _ in parts:
        if name not in density.names:
            raise OptionError(f"the {family.name} family has no {name} part; leave it out, or use another family.")
    return PartsFamily(density, parts, stacked)


def _density_of(family: Family) -> Density:
    """The density of a family of the package."""
    own = isinstance(family, DensityFamily) or FAMILIES.get(family.name, (None,))[0] is type(family)
    if not own or family.has_thresholds:
        raise family.lacks("density in all its variables, which further linear predictors need")
    if isinstance(family, DensityFamily):
        return family.density
    from lme4py.families.densities.registry import make_density

    return make_density(family.name, family.link.name)
