"""Generalised linear mixed models from column names."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from lme4py.errors import OptionError, unknown_argument
from lme4py.families.registry import make_family
from lme4py.fits.generalised.criterion import check_options
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.fits.parameters import check_names
from lme4py.fits.survey.steps import survey_fit
from lme4py.inference.uncertainty.robust import with_vce
from lme4py.keyword.model import KeywordModel
from lme4py.keyword.options import check_robust, control
from lme4py.results import MEGLMResult
from lme4py.results.call import records_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    Columns = str | Sequence[str] | None
    Slopes = str | Sequence[str] | Mapping[str, Any] | None
    Group = str | Sequence[Any]
    Values = str | ArrayLike | None

__all__ = ["mecloglog", "megamma", "meglm", "melogit", "menbreg", "mepoisson", "meprobit"]


@records_call
def meglm(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    family: str = "gaussian",
    x_random: Slopes = None,
    cov_type: str = "unstructured",
    trials: Values | float = None,
    offset: Values = None,
    nAGQ: int = 1,
    maxiter: int = 300,
    tol: float = 1e-6,
    alpha: float = 0.05,
    *,
    link: str | None = None,
    hessian: str = "observed",
    crossed: bool = False,
    weights: Values = None,
    vce: str | None = None,
    ddf: str | None = None,
    pweights: Mapping[str | None, Any] | None = None,
    pwscale: str | None = None,
    survey: Mapping[str, Any] | None = None,
) -> MEGLMResult:
    """Fit a generalised linear mixed model from column names, as Stata's ``meglm``.

    Parameters
    ----------
    data : data frame
        pandas, polars, pyarrow, a dict of arrays, or anything else that narwhals reads.
    y : str
        The response: a column, or an expression. Binomial: 0/1, boolean, a factor with two levels (the second is
        success), or with `trials` the number of successes.
    x_fixed, group, x_random, cov_type, crossed
        As in `mixed`.
    family : str
        "gaussian", "binomial", "poisson", "nbinomial" (NB-2), "gamma" or "inverse_gaussian".
    trials : str, number, or array of shape (n,), optional
        Binomial: number of trials of each row.
    offset : str or array of shape (n,), optional
        Known part of the linear predictor.
    nAGQ : int
        1 is the Laplace approximation; more are that many points of adaptive quadrature for each random effect.
    maxiter : int
        Largest number of evaluations of the criterion.
    tol : float
        The optimiser stops when the criterion is predicted to fall by less; it is never less careful than in `glmer`.
    alpha : float
        One minus the confidence level of the results.
    link : str, optional
        The default is logit for binomial, identity for gaussian and log for all others.
    hessian : {"observed", "expected"}
        Information in the Laplace approximation: "observed" as Stata, "expected" as lme4.
    weights : str or array of shape (n,), optional
        Prior weights, as in `glmer`.
    vce : str, optional
        "robust", or the column whose levels are the clusters, as in `mixed`; the covariance of all parameters is robust
        then, variances, dispersion and thresholds too (needs `nAGQ` of 1 or more).
    ddf : {None, "normal", "residual"}
        Degrees of freedom of tests and intervals.
    pweights : dict, optional
        Sampling weights, ``{"school": "w2", None: "w1"}``: of the levels of the group (or of both of
        two nested ones), and of rows under the key None.
    pwscale, survey
        As in `lmer`: how weights are scaled within the unit above; strata, units and replicate weights.

    Returns
    -------
    MEGLMResult
        Its intercept is called ``_cons``.

    Raises
    ------
    Lme4Error
        Or one of its children, before any fitting.

    Examples
    --------
    >>> from lme4py import load_dataset, meglm
    >>> cbpp = load_dataset("cbpp")
    >>> result = meglm(cbpp, "incidence", ["period"], "herd", family="binomial", trials="size")
    >>> result.formula
    'cbind(incidence, size - incidence) ~ period + (1 | herd)'
    >>> round(result.log_likelihood, 4)
    -92.0263
    """
    response_family = make_family(family, link)
    if response_family.is_joint:
        raise OptionError(f"meglm() has one linear predictor; for family={family!r} use memlogit().")
    check_options(nAGQ, hessian)
    settings = control(maxiter, tol)
    model = KeywordModel(
        data,
        y,
        x_fixed,
        group,
        x_random,
        cov_type,
        crossed,
        offset=offset,
        weights=weights,
        trials=trials,
        alpha=alpha,
        ddf=ddf,
        vce=vce,
        pweights=pweights,
        pwscale=pwscale,
        survey=survey,
    )
    request = model.request
    design, chosen = model.design(response_family)
    check_robust(chosen.vce, nAGQ)
    check_names(design, response_family, stata=True)
    if request is not None:
        found = survey_fit(design, response_family, request, nAGQ=nAGQ, hessian=hessian, control=settings)
        return MEGLMResult(found.speaking(chosen))
    fit = glmm_fit(design, response_family, nAGQ=nAGQ, hessian=hessian, control=settings)
    return MEGLMResult(with_vce(fit.speaking(chosen)))


@records_call
def melogit(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    trials: Values | float = None,
    nAGQ: int = 1,
    **kw: Any,
) -> MEGLMResult:
    """Fit a mixed logistic regression: `meglm` with the binomial family and the logit link.

    For the arguments see `meglm`; `cov_type`, `offset`, `weights`, `vce` and all others may be given by name.

    Parameters
    ----------
    data, y, x_fixed, group, x_random, trials, nAGQ
        As in `meglm`.
    **kw
        Further arguments of `meglm` by name: `cov_type`, `offset`, `weights`, `maxiter`, `tol`, `alpha`, `crossed`,
        `vce`, `pweights`, ...

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, melogit
    >>> result = melogit(load_dataset("Contraception"), "use", ["age", "urban"], "district")
    >>> round(result.log_likelihood, 3)
    -1250.196
    >>> round(float(result.odds_ratios().loc["urban[T.Y]", "odds_ratio"]), 3)
    1.922
    """
    return meglm(
        data, y, x_fixed, group, "binomial", x_random, trials=trials, nAGQ=nAGQ, **_only("melogit", kw, "logit")
    )


@records_call
def meprobit(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    trials: Values | float = None,
    nAGQ: int = 1,
    **kw: Any,
) -> MEGLMResult:
    """Fit a mixed probit regression: `meglm` with the binomial family and the probit link.

    Parameters
    ----------
    data, y, x_fixed, group, x_random, trials, nAGQ
        As in `meglm`.
    **kw
        Further arguments of `meglm` by name: `cov_type`, `offset`, `weights`, `maxiter`, `tol`, `alpha`, `crossed`,
        `vce`, `pweights`, ...

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, meprobit
    >>> result = meprobit(load_dataset("Contraception"), "use", ["age", "urban"], "district")
    >>> round(float(result.params["urban[T.Y]"]), 3)
    0.404
    """
    return meglm(
        data, y, x_fixed, group, "binomial", x_random, trials=trials, nAGQ=nAGQ, **_only("meprobit", kw, "probit")
    )


@records_call
def mecloglog(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    trials: Values | float = None,
    nAGQ: int = 1,
    **kw: Any,
) -> MEGLMResult:
    """Fit a mixed complementary log-log regression: `meglm` with the binomial family and the cloglog link.

    Parameters
    ----------
    data, y, x_fixed, group, x_random, trials, nAGQ
        As in `meglm`.
    **kw
        Further arguments of `meglm` by name: `cov_type`, `offset`, `weights`, `maxiter`, `tol`, `alpha`, `crossed`,
        `vce`, `pweights`, ...

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, mecloglog
    >>> result = mecloglog(load_dataset("Contraception"), "use", ["age", "urban"], "district")
    >>> round(float(result.params["urban[T.Y]"]), 3)
    0.477
    """
    return meglm(
        data, y, x_fixed, group, "binomial", x_random, trials=trials, nAGQ=nAGQ, **_only("mecloglog", kw, "cloglog")
    )


@records_call
def mepoisson(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    offset: Values = None,
    nAGQ: int = 1,
    **kw: Any,
) -> MEGLMResult:
    """Fit a mixed Poisson regression: `meglm` with the poisson family and the log link.

    For the arguments see `meglm`.

    Parameters
    ----------
    data, y, x_fixed, group, x_random, offset, nAGQ
        As in `meglm`.
    **kw
        Further arguments of `meglm` by name: `cov_type`, `link`, `weights`, `maxiter`, `tol`, `alpha`, `crossed`,
        `vce`, `pweights`, ...

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, mepoisson
    >>> result = mepoisson(load_dataset("grouseticks"), "TICKS", ["YEAR"], "LOCATION")
    >>> result.formula
    'TICKS ~ YEAR + (1 | LOCATION)'
    """
    return meglm(data, y, x_fixed, group, "poisson", x_random, offset=offset, nAGQ=nAGQ, **_with("mepoisson", kw))


@records_call
def menbreg(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    offset: Values = None,
    nAGQ: int = 1,
    **kw: Any,
) -> MEGLMResult:
    """Fit a mixed negative binomial regression (NB-2): `meglm` with the nbinomial family and the log link.

    Its `dispersion` is alpha in Var(y) = mu + alpha mu^2, as in Stata (`glmer_nb` has theta = 1 / alpha).

    Parameters
    ----------
    data, y, x_fixed, group, x_random, offset, nAGQ
        As in `meglm`.
    **kw
        Further arguments of `meglm` by name: `cov_type`, `link`, `weights`, `maxiter`, `tol`, `alpha`, `crossed`,
        `vce`, `pweights`, ...

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, menbreg
    >>> result = menbreg(load_dataset("Salamanders"), "count", "mined", "site")
    >>> round(result.dispersion, 2)
    1.56
    """
    return meglm(data, y, x_fixed, group, "nbinomial", x_random, offset=offset, nAGQ=nAGQ, **_with("menbreg", kw))


@records_call
def megamma(
    data: Any,
    y: str,
    x_fixed: Columns,
    group: Group,
    x_random: Slopes = None,
    offset: Values = None,
    nAGQ: int = 1,
    **kw: Any,
) -> MEGLMResult:
    """Fit a mixed gamma regression: `meglm` with the gamma family and the log link.

    Parameters
    ----------
    data, y, x_fixed, group, x_random, offset, nAGQ
        As in `meglm`.
    **kw
        Further arguments of `meglm` by name: `cov_type`, `link`, `weights`, `maxiter`, `tol`, `alpha`, `crossed`,
        `vce`, `pweights`, ...

    Returns
    -------
    MEGLMResult

    Examples
    --------
    >>> from lme4py import load_dataset, megamma
    >>> result = megamma(load_dataset("sleepstudy"), "Reaction", "Days", "Subject")
    >>> result.params.round(4).to_dict()
    {'_cons': 5.5339, 'Days': 0.0338}
    """
    return meglm(data, y, x_fixed, group, "gamma", x_random, offset=offset, nAGQ=nAGQ, **_with("megamma", kw))


def _with(function: str, kw: dict[str, Any]) -> dict[str, Any]:
    """The keywords with the log link, unless the user names one."""
    return {"link": "log", **_known(function, kw)}


def _only(function: str, kw: dict[str, Any], link: str) -> dict[str, Any]:
    """The keywords with the link that the function is named after."""
    if kw.get("link", link) != link:
        raise OptionError(f"link={kw['link']!r} is not the {link} link of this function; use meglm(..., link=...).")
    return {**_known(function, kw), "link": link}


def _known(function: str, kw: dict[str, Any]) -> dict[str, Any]:
    """The keywords, or an error where `meglm` has no such argument."""
    known = [name for name in inspect.signature(meglm).parameters if name != "family"]
    for name in kw:
        if name == "family":
            raise OptionError(f"{function}() has no argument 'family'. Use meglm() for another family.")
        if name not in known:
            raise unknown_argument(function, name, known)
    return kw
