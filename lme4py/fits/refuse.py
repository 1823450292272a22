"""One wording for what a kind of model does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from lme4py.errors import OptionError

if TYPE_CHECKING:
    from lme4py.fits.base import Fit

__all__ = [
    "GENERALISED",
    "LINEAR",
    "refuse",
    "refuse_iterative",
    "refuse_penalised",
    "refuse_priors",
    "refuse_related",
    "refuse_residual",
    "refuse_several_responses",
    "refuse_smooths",
    "refuse_structured",
    "refuse_unequal",
    "refuse_without_random",
]

LINEAR, GENERALISED = "linear mixed models", "generalised linear mixed models"


def refuse(what: str, instead: str, kinds: str = LINEAR) -> NoReturn:
    """Refuse what only another kind of model has.

    Parameters
    ----------
    what : str
        With its verb, such as "F tests are" or "ddf='satterthwaite' is".
    instead : str
        What to do, such as "use wald_test() for this one".
    kinds : str
        The kinds of model that have it, in the plural.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> refuse("test='F' is", "use test='Chisq'")
    Traceback (most recent call last):
        ...
    lme4py.errors.OptionError: test='F' is for linear mixed models; use test='Chisq'.
    """
    raise OptionError(f"{what} for {kinds}; {instead}.")


def refuse_without_random(fit: Fit, what: str) -> None:
    """Refuse what belongs to random effects for a model that has none.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb, such as "intraclass correlations are".

    Raises
    ------
    OptionError
    """
    if not fit.design.terms:
        raise OptionError(f"{what} about random effects, and this model has none.")


def refuse_residual(
    what: str, instead: str = "fit the model with lmer() without residual=, variance= and dispformula="
) -> NoReturn:
    """Refuse what a model with correlated or unequal residuals does not have.

    Parameters
    ----------
    what : str
        With its verb.
    instead : str
        What to do.

    Raises
    ------
    OptionError
    """
    raise OptionError(
        f"{what} not there for models with correlated or unequal residuals, or without random effects; {instead}."
    )


def refuse_structured(fit: Fit, what: str, instead: str = "see residual_covariance()") -> None:
    """Refuse a fit with correlated or unequal residuals where they are taken as independent with one variance.

    Parameters
    ----------
    fit : Fit
    what, instead : str
        As in `refuse_residual`.

    Raises
    ------
    OptionError
    """
    if not fit.independent_residuals:
        refuse_residual(what, instead)


def refuse_unequal(fit: Fit, what: str) -> None:
    """Refuse a fit whose rows have no residual variance in common.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.

    Raises
    ------
    OptionError
    """
    if not fit.independent_residuals and not fit.has_residual:
        raise OptionError(
            f"{what} not there for this model: its rows have no residual variance in common; see residual_covariance()."
        )


def refuse_related(fit: Fit, what: str, instead: str) -> None:
    """Refuse a fit with related levels (``relmat=``) where levels are taken as independent.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.
    instead : str
        What to do.

    Raises
    ------
    OptionError
    """
    related = dict.fromkeys(term.group for term in fit.design.terms if term.relation is not None)
    if related:
        raise OptionError(f"{what} not there for models with related levels ({', '.join(related)}); {instead}.")


def refuse_iterative(fit: Fit, what: str) -> None:
    """Refuse a fit whose crossed effects were solved iteratively where every refit needs their factor.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.

    Raises
    ------
    OptionError
    """
    if fit.certificate.monte_carlo is not None:
        raise OptionError(
            f"{what} not there for models whose crossed effects were solved iteratively; fit the model with "
            "control={'block': 'exact'}, where the factor fits into memory."
        )


def refuse_penalised(fit: Fit, what: str, instead: str = "fit the model without its priors for that") -> None:
    """Refuse a penalised fit where the maximum of a likelihood is needed.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.
    instead : str
        What to do.

    Raises
    ------
    OptionError
    """
    if fit.penalised:
        refuse_priors(what, instead)


def refuse_priors(what: str, instead: str = "fit the model without its priors for that") -> NoReturn:
    """Say that something is not there for penalised models.

    Parameters
    ----------
    what : str
        With its verb.
    instead : str
        What to do.

    Raises
    ------
    OptionError
    """
    raise OptionError(
        f"{what} not there for penalised models (cov_prior=, fixef_prior=, resid_prior=), whose estimates are no "
        f"maxima of a likelihood; {instead}."
    )


def refuse_smooths(fit: Fit, what: str, instead: str = "fit the model without s() for that") -> None:
    """Refuse a fit with smooths where their penalised parts would be taken as random effects of groups.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.
    instead : str
        What to do.

    Raises
    ------
    OptionError
    """
    smooth = [term.label for term in fit.design.terms if term.smooth]
    if smooth:
        raise OptionError(f"{what} not there for models with smooths ({', '.join(smooth)}); {instead}.")


def refuse_several_responses(fit: Fit, what: str) -> None:
    """Refuse what models of several responses do not have.

    Parameters
    ----------
    fit : Fit
    what : str
        With its verb.

    Raises
    ------
    OptionError
    """
    if fit.design.responses is not None:
        raise OptionError(
            f"{what} not there for models of several responses; see var_corr(), or fit a model to each response."
        )
