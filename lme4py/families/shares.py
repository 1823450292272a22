"""How the variance of one observation on the scale of the link is had, for shares of the variance.

Nakagawa, Johnson & Schielzeth (2017, *J. R. Soc. Interface* 14:20170213, table 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from lme4py.errors import OptionError

if TYPE_CHECKING:
    from lme4py.families.base import Family

__all__ = ["SHARES", "VarianceKind", "latent_kind", "observation_kind"]

VarianceKind = Literal["latent", "residual", "lognormal", "trigamma", "delta"]
# Ways to the variance of one observation on the scale of the link; "theoretical" is the family's own.
SHARES: Final = ("theoretical", "lognormal", "trigamma", "delta")


def observation_kind(family: Family, method: str) -> VarianceKind:
    """The kind of a family that has a mean; others have their own.

    Parameters
    ----------
    family : Family
    method : {"theoretical", "lognormal", "trigamma", "delta"}
    """
    logarithmic = family.link.is_log and family.kind in ("count", "positive")
    if method in ("lognormal", "trigamma"):
        if not logarithmic:
            raise OptionError(
                f"variance={method!r} is for counts and positive responses with the log link; this model is "
                f"{family.name} with the {family.link.name} link. Use variance='theoretical'."
            )
        return "lognormal" if method == "lognormal" else "trigamma"
    if family.has_residual and family.link.is_identity:
        return "residual"
    return "lognormal" if method == "theoretical" and logarithmic and family.is_count else "delta"


def latent_kind(family: Family) -> VarianceKind:
    """That of a response that shows where a latent variable is, which has the variance that the link says.

    Parameters
    ----------
    family : Family
    """
    if family.link.latent_variance is not None:
        return "latent"
    raise OptionError(
        f"with the {family.link.name} link there is no latent variable that has a variance, so that shares of the "
        f"variance cannot be had this way; use the logit, probit or cloglog link"
        f"{'' if family.has_thresholds else ', or variance=' + repr('delta')}."
    )
